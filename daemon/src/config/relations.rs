//! What must hold between the parts of a configuration.

use std::collections::{BTreeMap, BTreeSet};

use headgate_quota::Ppm;

use super::model::{DeviceKey, DeviceUuid, Identity, Name, Tenant};
use super::problem::{Place, Problem};

/// A tenant as far as it could be read.
#[derive(Clone, Debug)]
pub struct ReadTenant {
    /// The tenant; what was wrong in it is missing.
    pub tenant: Tenant,
    /// Whether nothing was wrong in it.
    pub whole: bool,
}

/// The parts that relate to each other.
#[derive(Clone, Copy, Debug)]
pub struct Relations<'a> {
    /// The tenants, in the order of the file.
    pub tenants: &'a [ReadTenant],
    /// How processes are told apart.
    pub identity: Identity,
    /// The default tenant, and where it is named.
    pub default: Option<(&'a Name, Place)>,
    /// Devices governed; `None` is all.
    pub devices: Option<&'a [DeviceUuid]>,
    /// Whether shares may add up to more than a device.
    pub overcommit_sm: bool,
}

impl<'a> Relations<'a> {
    fn tenants(&self) -> impl Iterator<Item = &'a Tenant> {
        self.tenants.iter().map(|read| &read.tenant)
    }
}

/// Reports every relation that does not hold.
pub fn check(parts: &Relations<'_>, report: &mut Vec<Problem>) {
    unique(parts, report);
    default_exists(parts, report);
    reachable(parts, report);
    devices_known(parts, report);
    shares_fit(parts, report);
}

fn unique(config: &Relations<'_>, report: &mut Vec<Problem>) {
    let mut names = BTreeMap::new();
    let mut cgroups = BTreeMap::new();
    for tenant in config.tenants() {
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

fn default_exists(config: &Relations<'_>, report: &mut Vec<Problem>) {
    let Some((name, place)) = config.default else { return };
    if !config.tenants().any(|tenant| tenant.name == *name) {
        let known: Vec<&str> = config.tenants().map(|tenant| tenant.name.as_str()).collect();
        let advice = super::fields::nearest(name.as_str(), &known).map_or_else(
            || "define it under spec.tenants".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        report.push(Problem { place, text: format!("defaultTenant `{name}` is not a tenant; {advice}") });
    }
}

/// A tenant that no process can ever belong to is a mistake, not a tenant.
fn reachable(config: &Relations<'_>, report: &mut Vec<Problem>) {
    for ReadTenant { tenant, .. } in config.tenants.iter().filter(|read| read.whole) {
        let by_tree = config.identity == Identity::ProcessTree;
        let by_default = config.default.is_some_and(|(name, _)| *name == tenant.name);
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

fn devices_known(config: &Relations<'_>, report: &mut Vec<Problem>) {
    let Some(devices) = config.devices else { return };
    for tenant in config.tenants() {
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
fn shares_fit(config: &Relations<'_>, report: &mut Vec<Problem>) {
    if config.overcommit_sm {
        return;
    }
    let mut keys: BTreeSet<DeviceKey> = config.tenants().flat_map(|t| t.quota.keys().copied()).collect();
    keys.insert(DeviceKey::All);
    for key in keys {
        let mut sum = 0;
        let mut parts = Vec::new();
        for tenant in config.tenants() {
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
