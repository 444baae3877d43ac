//! The node as a desk sees it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use headgate_abi::limits::DEVICES_MAX;
use headgate_loans::demand::{DeviceLook, GuestLook, TenantLook};
use headgate_loans::desk::{DeviceLimits, Ground, GuestTerms};
use headgate_quota::loan::{Allowance, Device, District, Guest, Incident, LoanId, Tenant as LoanTenant};
use headgate_quota::units::{Bytes, Micros};
use headgate_quota::{Class, Ppm};
use tokio::sync::oneshot;

use super::settings;
use super::uses::Uses;
use crate::clock;
use crate::config::model::{DeviceUuid, Name};
use crate::node::{DeviceLoans, Event, GuestLimits, State, TenantSlot};
use crate::run::{Input, Inputs};
use crate::segments::TenantSegments;

/// A tenant on the floor.
#[derive(Clone, Debug)]
struct Standing {
    who: Who,
    class: Class,
    /// None while it has no processes.
    segments: Option<Arc<TenantSegments>>,
}

#[derive(Clone, Debug)]
enum Who {
    Tenant(LoanTenant),
    Guest(Guest),
}

#[derive(Debug, Default)]
struct Shown {
    rows: [Option<(DeviceUuid, Device)>; DEVICES_MAX],
    standing: Vec<Standing>,
}

/// See the head of this module.
#[derive(Debug)]
pub struct Floor {
    inputs: Inputs,
    shown: Mutex<Arc<Shown>>,
    allowed: Mutex<Vec<Allowance>>,
    guests: Mutex<BTreeMap<Device, Vec<GuestTerms>>>,
    uses: Arc<Uses>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are swapped in whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Floor {
    /// A floor with nobody on it.
    #[must_use]
    pub fn new(inputs: Inputs) -> Self {
        Self {
            inputs,
            shown: Mutex::default(),
            allowed: Mutex::default(),
            guests: Mutex::default(),
            uses: Arc::default(),
        }
    }

    /// Shows who stands where now.
    pub fn show(&self, state: &State, segments: &HashMap<TenantSlot, Arc<TenantSegments>>) {
        let rows = std::array::from_fn(|row| {
            let row = state.rows[row].as_ref().filter(|row| row.present)?;
            Some((row.uuid, settings::device(row.uuid)?))
        });
        let standing = state.tenants().filter_map(|(slot, tenant)| {
            let name = &tenant.policy.name;
            let who = match name.as_guest() {
                Some((district, tenant)) => Who::Guest(Guest {
                    district: District::new(district.as_str())?,
                    tenant: LoanTenant::new(tenant.as_str())?,
                }),
                None => Who::Tenant(LoanTenant::new(name.as_str())?),
            };
            let (class, _) = state.class_of(&tenant.policy);
            Some(Standing { who, class, segments: segments.get(&slot).cloned() })
        });
        *locked(&self.shown) = Arc::new(Shown { rows, standing: standing.collect() });
    }

    /// What this node's tenants may place on other nodes' devices now.
    #[must_use]
    pub fn allowed(&self) -> Vec<Allowance> {
        locked(&self.allowed).clone()
    }

    /// What remote sessions stand on.
    #[must_use]
    pub fn uses(&self) -> &Arc<Uses> {
        &self.uses
    }

    /// Bytes of device memory that a guest's processes are charged for, on all devices.
    #[must_use]
    pub fn guest_bytes(&self, name: &str) -> u64 {
        let shown = Arc::clone(&locked(&self.shown));
        let is_it = |who: &Who| {
            matches!(who, Who::Guest(guest) if Name::guest(guest.district.as_str(), guest.tenant.as_str())
                .is_some_and(|known| known.as_str() == name))
        };
        let segments = shown.standing.iter().filter(|standing| is_it(&standing.who));
        let segments = segments.filter_map(|standing| standing.segments.as_deref());
        let bytes = segments.flat_map(|segments| (0..DEVICES_MAX).map(|row| segments.ledger.used_bytes(row)));
        bytes.fold(0, u64::saturating_add)
    }

    /// Guests on this node's devices, with their terms.
    #[must_use]
    pub fn guests(&self) -> Vec<(Device, GuestTerms)> {
        let guests = locked(&self.guests);
        guests.iter().flat_map(|(device, terms)| terms.iter().map(|t| (device.clone(), t.clone()))).collect()
    }
}

fn look_at(row: usize, device: &Device, standing: &[Standing]) -> DeviceLook {
    let mut look = DeviceLook { device: device.clone(), tenants: Vec::new(), guests: Vec::new() };
    for Standing { who, class, segments } in standing {
        let segments = segments.as_deref();
        let account = segments.map(|segments| &segments.accounts[row]);
        let active = account.is_some_and(crate::segments::RowAccount::active);
        let memory = Bytes(segments.map_or(0, |segments| segments.ledger.used_bytes(row)));
        match who {
            Who::Tenant(tenant) => look.tenants.push(TenantLook {
                tenant: tenant.clone(),
                class: *class,
                active,
                throttled: account.is_some_and(crate::segments::RowAccount::throttled),
                charged: account.map_or(Micros::ZERO, crate::segments::RowAccount::charged),
                memory,
            }),
            Who::Guest(guest) => look.guests.push(GuestLook { guest: guest.clone(), active, memory }),
        }
    }
    look
}

impl Ground for Floor {
    fn now(&self) -> Micros {
        clock::both().boot
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + clock::wall()
    }

    fn look(&self) -> Vec<DeviceLook> {
        let shown = Arc::clone(&locked(&self.shown));
        let rows = shown.rows.iter().enumerate();
        rows.filter_map(|(row, device)| Some(look_at(row, &device.as_ref()?.1, &shown.standing))).collect()
    }

    fn apply(&self, limits: DeviceLimits) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let shown = Arc::clone(&locked(&self.shown));
            let row = shown.rows.iter().flatten().find(|(_, device)| *device == limits.device);
            // A device that is gone has no limits; the desk hears of it in a moment.
            let Some((uuid, _)) = row else { return true };
            locked(&self.guests).insert(limits.device.clone(), limits.guests.clone());
            let (done, carried_out) = oneshot::channel();
            let loans = described(*uuid, &limits);
            self.inputs.send(Input::Lent(Event::Lent(loans), done)).await.is_ok() && carried_out.await.is_ok()
        })
    }

    fn evict(&self, _device: &Device, guest: &Guest) {
        let named = Name::new(guest.district.as_str()).zip(Name::new(guest.tenant.as_str()));
        if let Some((district, tenant)) = named {
            // A node that is behind hears it again in a second.
            let _later = self.inputs.try_send(Input::Node(Event::Overstays { district, tenant }));
        }
    }

    fn allow(&self, allowances: Vec<Allowance>) {
        *locked(&self.allowed) = allowances;
        self.uses.changed();
    }

    fn placed(&self) -> Vec<LoanTenant> {
        self.uses.placed()
    }

    fn drain(&self, loan: &LoanId) -> bool {
        self.uses.drain(loan)
    }

    fn heard(&self, incident: Incident, ended: bool) {
        let event = Event::Incident { now: self.now(), incident, ended };
        // A node that is behind hears it again with the next summary.
        let _later = self.inputs.try_send(Input::Node(event));
    }
}

fn described(uuid: DeviceUuid, limits: &DeviceLimits) -> DeviceLoans {
    let guests = limits.guests.iter().filter_map(|guest| {
        Some(GuestLimits {
            district: Name::new(guest.guest.district.as_str())?,
            tenant: Name::new(guest.guest.tenant.as_str())?,
            limit: guest.limit,
            class: guest.class,
            data: guest.data,
        })
    });
    DeviceLoans {
        device: uuid,
        owners: limits.owners.iter().map(|(owner, limit)| (owner.as_str().to_owned(), *limit)).collect(),
        guests: guests.collect(),
    }
}

/// Shares fit one device each, so nothing is cut when they become parts of it.
const _: () = assert!(Ppm::WHOLE.get() == 1_000_000);
