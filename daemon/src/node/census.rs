//! Who is on the devices by the driver's word, held against who has a seat.
//!
//! A process gets a seat before it gets a context, so a process of a tenant that the driver names and that has no seat
//! came without the hook. What the driver says it has, summed over a tenant's processes, is a ledger that no tenant can
//! write; memory that is charged to nobody (imported, and kept after its exporter let go) shows there.

use std::collections::{BTreeSet, HashMap};

use headgate_quota::Bytes;

use super::event::{Process, Resident};
use super::identify::identify;
use super::state::{State, TenantSlot};
use crate::limits::RESIDENTS_MAX;

/// A tenant's processes on a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Presence {
    /// What the driver says they have there.
    pub bytes: Bytes,
    /// Those without a seat, by process id.
    pub unenforced: BTreeSet<u32>,
}

/// Everybody, by tenant and device row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Census(HashMap<(TenantSlot, usize), Presence>);

impl Census {
    /// A tenant's processes on a device row; `None` when it has none there.
    #[must_use]
    pub fn of(&self, slot: TenantSlot, row: usize) -> Option<&Presence> {
        self.0.get(&(slot, row))
    }

    /// A tenant's processes without a seat, on whatever device.
    #[must_use]
    pub fn unenforced(&self, slot: TenantSlot) -> BTreeSet<u32> {
        let of_slot = self.0.iter().filter(|((tenant, _), _)| *tenant == slot);
        of_slot.flat_map(|(_, presence)| presence.unenforced.iter().copied()).collect()
    }
}

/// Takes in what the driver said.
pub(super) fn take(state: &mut State, residents: Option<Vec<Resident>>) {
    let departed = std::mem::take(&mut state.departed);
    state.census = residents.map(|residents| {
        let mut census = Census::default();
        for resident in residents {
            count(state, &mut census, &departed, &resident);
        }
        census
    });
}

fn count(
    state: &State,
    census: &mut Census,
    departed: &std::collections::HashSet<Process>,
    resident: &Resident,
) {
    let process = resident.peer.process;
    let known = |uuid| state.rows.iter().position(|row| row.as_ref().is_some_and(|row| row.uuid == uuid));
    let Some(row) = known(resident.gpu) else { return };
    let seat = state.processes.get(&process.pid).copied();
    let seat = seat.filter(|seat| state.sitter(*seat).is_some_and(|sitter| sitter.process == process));
    let slot = match seat {
        Some(seat) => seat.slot,
        None if departed.contains(&process) => return,
        None => match identify(state, &resident.peer) {
            Ok((slot, _)) => slot,
            // Nobody's process holds nothing against anybody's quota.
            Err(_) => return,
        },
    };
    let presence = census.0.entry((slot, row)).or_default();
    presence.bytes = Bytes(presence.bytes.0.saturating_add(resident.bytes.0));
    if seat.is_none() && state.tenant(slot).is_some_and(|tenant| tenant.policy.enforcement) {
        presence.unenforced.insert(process.pid);
    }
}

/// A process has left its seat.
pub(super) fn departed(state: &mut State, process: Process) {
    if state.departed.len() < RESIDENTS_MAX {
        state.departed.insert(process);
    }
}

/// A tenant is gone; its slot may soon be another's.
pub(super) fn forget(state: &mut State, slot: TenantSlot) {
    if let Some(census) = &mut state.census {
        census.0.retain(|(of, _), _| *of != slot);
    }
}
