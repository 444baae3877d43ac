//! Loans in the node's state: what owners have while some of it is lent, and guests as tenants.
//!
//! A guest is a tenant like any other: a slot, a cgroup, seats, limits. It has its name from its district and its
//! own (`south.alerts`), is held to exactly what it was lent, and its gates stay as they were when the daemon is
//! gone. When its loans are over its limits are nothing, and it leaves with its last process.

use std::collections::BTreeMap;
use std::sync::Arc;

use headgate_quota::loan::{Amount, DataClass};
use headgate_quota::{Bytes, Class, ComputeQuota, MemoryQuota, Mode};

use super::effect::{Effect, TenantLimits};
use super::state::{State, TenantSlot, TenantState};
use super::step::{retire_if_empty, settle};
use crate::config::model::{CgroupPath, DeviceKey, DeviceUuid, FailPolicy, Name, Quota, SmQuota, Tenant};

/// Every limit of one device while some of it may be lent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceLoans {
    /// Which.
    pub device: DeviceUuid,
    /// What tenants that own a part of it may use now.
    pub owners: BTreeMap<String, Amount>,
    /// What guests may use now.
    pub guests: Vec<GuestLimits>,
}

/// A guest on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestLimits {
    /// Its district.
    pub district: Name,
    /// Its own name.
    pub tenant: Name,
    /// What it may use; nothing once its loans are over.
    pub limit: Amount,
    /// Its class.
    pub class: Class,
    /// What it may send here.
    pub data: DataClass,
}

impl GuestLimits {
    fn name(&self) -> Option<Name> {
        Name::guest(self.district.as_str(), self.tenant.as_str())
    }
}

/// What loans have changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoanState {
    devices: BTreeMap<DeviceUuid, DeviceLoans>,
}

impl LoanState {
    /// A tenant's quota on a device, less what is lent of it.
    fn lowered(&self, name: &str, device: DeviceUuid, mut quota: Quota) -> Quota {
        let limit = self.devices.get(&device).and_then(|loans| loans.owners.get(name));
        if let Some(limit) = limit {
            if let Some(sm) = &mut quota.sm {
                sm.nominal = sm.nominal.min(limit.sm.on_one_device());
            }
            if let Some(memory) = &mut quota.memory {
                memory.nominal = memory.nominal.min(limit.memory);
            }
        }
        quota
    }
}

impl State {
    /// The quota that holds for a tenant on a device now.
    #[must_use]
    pub fn quota_on(&self, tenant: &Tenant, device: DeviceUuid) -> Quota {
        self.loans.lowered(tenant.name.as_str(), device, tenant.quota_on(device))
    }

    /// The compute quota that holds for a tenant on a device now, ready for the scheduler.
    #[must_use]
    pub fn compute_on(&self, tenant: &Tenant, device: DeviceUuid) -> Option<ComputeQuota> {
        let own = tenant.compute_on(device)?;
        let nominal = self.quota_on(tenant, device).sm?.nominal;
        Some(ComputeQuota { nominal, class: self.class_of(tenant).0, ..own })
    }
}

/// Takes a device's limits in. Who gets less is told first, so that no two may use the same.
pub(super) fn lend(state: &mut State, loans: DeviceLoans, effects: &mut Vec<Effect>) {
    let before = limits(state);
    let device = loans.device;
    let old = state.loans.devices.insert(device, loans);
    let mut names: Vec<Name> = Vec::new();
    for guest in state.loans.devices.values().flat_map(|loans| &loans.guests) {
        names.extend(guest.name().filter(|name| !names.contains(name)));
    }
    let gone = old.into_iter().flat_map(|old| old.guests).filter_map(|guest| guest.name());
    let gone: Vec<Name> = gone.filter(|name| !names.contains(name)).collect();
    for name in names {
        host(state, &name);
    }
    for name in gone {
        if let Some(slot) = state.slot_of(name.as_str()) {
            if let Some(tenant) = state.tenants[slot.index()].as_mut() {
                tenant.policy = Arc::new(guest_policy(&name, &BTreeMap::new(), None));
                tenant.retired = true;
            }
            retire_if_empty(state, slot, effects);
        }
    }
    let after = limits(state);
    let old = |slot: TenantSlot| before.iter().find(|limits| limits.slot == slot);
    let changed: Vec<TenantLimits> =
        after.into_iter().filter(|limits| old(limits.slot) != Some(limits)).collect();
    let (lowered, raised): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|limits| old(limits.slot).is_some_and(|old| is_lower(limits, old)));
    effects.extend(lowered.into_iter().chain(raised).map(Effect::Publish));
    effects.extend([Effect::Regate, Effect::Attribute]);
}

/// Stops a guest's processes.
pub(super) fn evict(state: &State, district: &Name, tenant: &Name, effects: &mut Vec<Effect>) {
    let slot = Name::guest(district.as_str(), tenant.as_str()).and_then(|name| state.slot_of(name.as_str()));
    let Some((slot, guest)) = slot.and_then(|slot| Some((slot, state.tenant(slot)?))) else { return };
    let processes = guest.seats.values().map(|sitter| sitter.process).collect();
    effects.push(Effect::Evict { slot, cgroup: guest.policy.cgroup.clone(), processes });
}

/// A guest of an earlier run, of whose loans nothing is known yet: it may use nothing until they are.
pub(super) fn unknown_guest(name: &Name) -> Tenant {
    guest_policy(name, &BTreeMap::new(), None)
}

fn limits(state: &State) -> Vec<TenantLimits> {
    state.tenants().map(|(slot, tenant)| TenantLimits::of(state, slot, tenant)).collect()
}

fn is_lower(now: &TenantLimits, before: &TenantLimits) -> bool {
    now.rows.iter().zip(&before.rows).any(|rows| match rows {
        (Some(now), Some(before)) => now.memory_bytes_max < before.memory_bytes_max || now.sm < before.sm,
        _ => false,
    })
}

/// Gives a guest its slot, or its slot its new limits.
fn host(state: &mut State, name: &Name) {
    let mut quota = BTreeMap::new();
    let mut class = None;
    for (device, loans) in &state.loans.devices {
        for guest in loans.guests.iter().filter(|guest| guest.name().as_ref() == Some(name)) {
            quota.insert(DeviceKey::One(*device), exactly(guest.limit));
            class = class.max(Some(guest.class));
        }
    }
    let policy = guest_policy(name, &quota, class);
    let slot = state.slot_of(name.as_str());
    match slot.and_then(|slot| state.tenants[slot.index()].as_mut()) {
        Some(TenantState { policy: known, retired, .. }) => {
            *known = Arc::new(policy);
            *retired = false;
        }
        None => {
            if settle(state, policy, false).is_none() && !state.crowded_out.contains(name) {
                state.crowded_out.push(name.clone());
            }
        }
    }
}

fn exactly(limit: Amount) -> Quota {
    Quota {
        sm: Some(SmQuota { nominal: limit.sm.on_one_device(), borrowing_limit: None, lending_limit: None }),
        memory: Some(MemoryQuota { nominal: limit.memory, lending_limit: Bytes::ZERO }),
    }
}

fn guest_policy(name: &Name, quota: &BTreeMap<DeviceKey, Quota>, class: Option<Class>) -> Tenant {
    let mut quota = quota.clone();
    // Where nothing was lent to it, it has nothing.
    quota.insert(DeviceKey::All, exactly(Amount::ZERO));
    let (district, _) = name.as_guest().unwrap_or_else(|| (name.clone(), name.clone()));
    Tenant {
        cgroup: CgroupPath::new(&format!("/headgate/guests/{name}")),
        district,
        name: name.clone(),
        // A guest never goes before the owners of the device.
        class: class.unwrap_or(Class::Batch).min(Class::Standard),
        mode: Mode::Hard,
        fail_policy: FailPolicy::LastKnown,
        enforcement: true,
        quota,
        residency: crate::config::enforcement::Residency::default(),
        device_gate: headgate_ebpf::RuleMode::default(),
        borrow: None,
        place: crate::config::Place { line: 1, column: 1 },
    }
}
