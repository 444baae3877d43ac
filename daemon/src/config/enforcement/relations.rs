//! What must hold between districts, tenants and what the kernel is told.

use std::collections::{BTreeMap, BTreeSet};

use headgate_ebpf::{Cidr, RuleMode};

use super::{District, Enforcement};
use crate::config::fields::nearest;
use crate::config::model::{Name, Tenant};
use crate::config::problem::{Place, Problem};
use crate::limits::RANGES_MAX;

/// Reports every relation that does not hold.
pub fn check<'a>(
    enforcement: &Enforcement,
    districts: &[District],
    tenants: impl Iterator<Item = &'a Tenant>,
    report: &mut Vec<Problem>,
) {
    ranges_are_one_districts(districts, report);
    let mut guarded = BTreeMap::new();
    for tenant in tenants {
        reachable(enforcement, tenant, report);
        bound_somewhere(districts, tenant, report);
        budgets_lead_abroad(districts, tenant, report);
        let place = tenant.residency.place.unwrap_or(tenant.place);
        for interface in &tenant.residency.interfaces {
            if guarded.insert(interface, &tenant.name).is_some_and(|other| *other != tenant.name) {
                let text = format!("interface `{interface}` belongs to two tenants; give each its own");
                report.push(Problem { place, text });
            }
        }
    }
}

fn ranges_are_one_districts(districts: &[District], report: &mut Vec<Problem>) {
    let mut names: BTreeMap<&Name, Place> = BTreeMap::new();
    let mut ranges: BTreeMap<Cidr, (&Name, Place)> = BTreeMap::new();
    for District { name, ranges: own, place } in districts {
        if let Some(first) = names.get(name) {
            let text = format!("district `{name}` is defined twice (first in line {}); keep one", first.line);
            report.push(Problem { place: *place, text });
        }
        names.entry(name).or_insert(*place);
        for (range, place) in own {
            if let Some((other, first)) = ranges.get(range)
                && *other != name
            {
                let text = format!(
                    "range {range} is in two districts (first in `{other}`, line {}); an address lies in one",
                    first.line
                );
                report.push(Problem { place: *place, text });
            }
            ranges.entry(*range).or_insert((name, *place));
        }
    }
    if let Some(place) = districts.last().map(|district| district.place).filter(|_| RANGES_MAX < ranges.len())
    {
        let text =
            format!("{} address ranges in all, above the bound of {RANGES_MAX}; merge some", ranges.len());
        report.push(Problem { place, text });
    }
}

/// What the kernel holds against a tenant, it holds against a cgroup below the governed one.
fn reachable(enforcement: &Enforcement, tenant: &Tenant, report: &mut Vec<Problem>) {
    if tenant.residency.mode == RuleMode::Off && tenant.device_gate == RuleMode::Off {
        return;
    }
    let place = tenant.residency.place.unwrap_or(tenant.place);
    let Some(cgroup) = &tenant.cgroup else {
        let text = format!(
            "tenant `{}` has no cgroup, so the kernel cannot tell its processes; add `cgroup: /headgate/{}`",
            tenant.name, tenant.name
        );
        report.push(Problem { place, text });
        return;
    };
    if let Some(governed) = &enforcement.governed
        && !governed.holds(cgroup.as_str())
    {
        let text = format!(
            "cgroup {cgroup} of tenant `{}` is not below spec.enforcement.governed ({governed}); nothing would be \
             refused there",
            tenant.name
        );
        report.push(Problem { place, text });
    }
}

fn bound_somewhere(districts: &[District], tenant: &Tenant, report: &mut Vec<Problem>) {
    let residency = &tenant.residency;
    let known = districts.iter().any(|d| d.name == tenant.district && !d.ranges.is_empty());
    if residency.mode != RuleMode::Off && !known {
        let text = format!(
            "tenant `{}` may not leave district `{}`, of which no addresses are known; list them under \
             spec.districts",
            tenant.name, tenant.district
        );
        report.push(Problem { place: residency.place.unwrap_or(tenant.place), text });
    }
}

fn budgets_lead_abroad(districts: &[District], tenant: &Tenant, report: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for budget in &tenant.residency.budgets {
        let mut wrong = |text: String| report.push(Problem { place: budget.place, text });
        if budget.district == tenant.district {
            wrong("the tenant's own district needs no budget; remove it".to_owned());
            continue;
        }
        if !districts.iter().any(|district| district.name == budget.district) {
            let known: Vec<&str> = districts.iter().map(|district| district.name.as_str()).collect();
            let advice = nearest(budget.district.as_str(), &known).map_or_else(
                || "list it under spec.districts".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            wrong(format!("there is no district `{}`; {advice}", budget.district));
        }
        if tenant.residency.channel_port == 0 {
            wrong("a budget is spent on the GPU channel; add `channelPort` beside it".to_owned());
        }
        if !seen.insert(&budget.district) {
            wrong(format!("a second budget for district `{}`; keep one", budget.district));
        }
    }
}
