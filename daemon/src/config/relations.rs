//! What must hold between the parts of a configuration.

use std::collections::{BTreeMap, BTreeSet};

use headgate_quota::Ppm;

use super::model::{Config, DeviceKey, Tenant};
use super::problem::{Place, Problem};

/// Reports every relation that does not hold.
pub fn check(config: &Config, default_place: Option<Place>, report: &mut Vec<Problem>) {
    unique(config, report);
    default_exists(config, default_place, report);
    reachable(config, report);
    devices_known(config, report);
    shares_fit(config, report);
}

fn unique(config: &Config, report: &mut Vec<Problem>) {
    let mut names = BTreeMap::new();
    let mut cgroups = BTreeMap::new();
    for tenant in &config.tenants {
        let place = tenant.place;
        if let Some(first) = names.insert(&tenant.name, place) {
            let text = format!(
                "tenant `{}` is defined twice (first in line {}); rename one",
                tenant.name, first.line
            );
            report.push(Problem { place, text });
            names.insert(&tenant.name, first);
        }
        let Some(cgroup) = &tenant.cgroup else { continue };
        if let Some(first) = cgroups.insert(cgroup, place) {
            let text = format!(
                "cgroup {cgroup} belongs to two tenants (first in line {}); give each its own",
                first.line
            );
            report.push(Problem { place, text });
            cgroups.insert(cgroup, first);
        }
    }
}

fn default_exists(config: &Config, place: Option<Place>, report: &mut Vec<Problem>) {
    let Some(name) = &config.default_tenant else { return };
    if !config.tenants.iter().any(|tenant| tenant.name == *name) {
        let known: Vec<&str> = config.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        let advice = super::fields::nearest(name.as_str(), &known).map_or_else(
            || "define it under spec.tenants".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let place = place.unwrap_or(Place { line: 1, column: 1 });
        report.push(Problem { place, text: format!("defaultTenant `{name}` is not a tenant; {advice}") });
    }
}

/// A tenant that no process can ever belong to is a mistake, not a tenant.
fn reachable(config: &Config, report: &mut Vec<Problem>) {
    for tenant in &config.tenants {
        let by_tree = config.identity == super::model::Identity::ProcessTree;
        let by_default = config.default_tenant.as_ref() == Some(&tenant.name);
        if tenant.cgroup.is_none() && !by_default && !by_tree {
            let text = format!(
                "tenant `{}` has no cgroup and is not the default tenant, so no process can belong to it; \
                 add `cgroup: /headgate/{}`",
                tenant.name, tenant.name
            );
            report.push(Problem { place: tenant.place, text });
        }
    }
}

fn devices_known(config: &Config, report: &mut Vec<Problem>) {
    let Some(devices) = &config.devices else { return };
    for tenant in &config.tenants {
        for key in tenant.quota.keys() {
            if let DeviceKey::One(uuid) = key
                && !devices.contains(uuid)
            {
                let text = format!(
                    "tenant `{}` has a quota on {uuid}, which spec.devices leaves out; add it there or remove the quota",
                    tenant.name
                );
                report.push(Problem { place: tenant.place, text });
            }
        }
    }
}

/// Nominal shares of one device must fit into it, unless the operator overcommits on purpose.
fn shares_fit(config: &Config, report: &mut Vec<Problem>) {
    if config.overcommit_sm {
        return;
    }
    let mut keys: BTreeSet<DeviceKey> = config.tenants.iter().flat_map(|t| t.quota.keys().copied()).collect();
    keys.insert(DeviceKey::All);
    for key in keys {
        let mut sum = 0;
        let mut parts = Vec::new();
        for tenant in &config.tenants {
            let Some(share) = nominal(tenant, key) else { continue };
            sum += u64::from(share.get());
            parts.push(format!("{} {share}", tenant.name));
            if u64::from(Ppm::WHOLE.get()) < sum {
                let text = format!(
                    "sm shares on device {key} add up to more than 100 % here ({}); lower one, or set \
                     spec.overcommit.sm: true to scale all down under load",
                    parts.join(", ")
                );
                report.push(Problem { place: tenant.place, text });
                break;
            }
        }
    }
}

fn nominal(tenant: &Tenant, key: DeviceKey) -> Option<Ppm> {
    let quota = tenant.quota.get(&key).or_else(|| tenant.quota.get(&DeviceKey::All))?;
    quota.sm.map(|sm| sm.nominal)
}
