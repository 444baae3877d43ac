//! Everything a node knows. Only [`super::step::step`] changes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use headgate_abi::limits::{DEVICES_MAX, SEATS_MAX, TENANTS_MAX};
use headgate_abi::segment::SeatIndex;
use headgate_abi::wire::RefusalReason;
use headgate_quota::Bytes;
use headgate_quota::loan::Incidents;

use super::census::Census;
use super::event::{ConnectionId, Process};
use super::loans::LoanState;
use crate::config::model::{Config, DeviceUuid, Name, Tenant};
use crate::space::Space;

/// Index of a tenant in the node's table. Reused once a removed tenant's last process is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantSlot(u16);

impl TenantSlot {
    /// The index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The index as the wire and the segments carry it.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        u32::from(self.0)
    }

    /// A slot out of thin air.
    #[cfg(test)]
    #[must_use]
    pub fn for_test(index: usize) -> Self {
        Self(u16::try_from(index).unwrap())
    }

    fn new(index: usize) -> Option<Self> {
        u16::try_from(index).ok().filter(|_| index < TENANTS_MAX).map(Self)
    }
}

/// One taking of one seat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SeatRef {
    /// Whose ledger.
    pub slot: TenantSlot,
    /// The seat.
    pub seat: SeatIndex,
    /// Which taking.
    pub generation: u64,
}

/// Who sits on a seat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sitter {
    /// The process.
    pub process: Process,
    /// Which taking.
    pub generation: u64,
    /// Its connection; `None` after a restart of the daemon until it says hello, and after it closed it.
    pub connection: Option<ConnectionId>,
}

/// A tenant as the node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantState {
    /// Tells two tenants apart that held one slot after another.
    pub serial: u64,
    /// Its configuration; the last one it had, if it was removed.
    pub policy: Arc<Tenant>,
    /// Removed from the configuration, with processes still seated.
    pub retired: bool,
    /// Its seats, by index.
    pub seats: BTreeMap<usize, Sitter>,
}

/// A device and its row, which stays the same for as long as anyone may have it in a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// UUID.
    pub uuid: DeviceUuid,
    /// Product name; empty while absent.
    pub name: String,
    /// Bytes of memory; zero while absent.
    pub memory: Bytes,
    /// Whether discovery sees it now.
    pub present: bool,
}

/// How the configuration stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    /// The one in force.
    pub config: Arc<Config>,
    /// Identifies its content.
    pub hash: String,
    /// When it was read, since 1970.
    pub at: Duration,
    /// What is wrong with the file now, if it cannot be used.
    pub rejected: Option<String>,
}

/// The node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The configuration; `None` only before the first event.
    pub configured: Option<Configured>,
    /// Device rows.
    pub rows: [Option<Row>; DEVICES_MAX],
    /// Why no device can be discovered, when none can.
    pub devices_missing: Option<String>,
    /// Tenants by slot.
    pub tenants: Vec<Option<TenantState>>,
    /// Configured tenants for which removed ones, still running, leave no slot.
    pub crowded_out: Vec<Name>,
    /// Process-tree roots and the tenants they stand for.
    pub roots: HashMap<Process, String>,
    /// Hellos refused, in the order of [`REASONS`].
    pub refused: [u64; REASONS.len()],
    /// Incidents, as of the last time the node was told of.
    pub incidents: Incidents,
    /// How devices stand that are to be shared by space.
    pub space: Space,
    pub(super) loans: LoanState,
    /// Who was on the devices when the driver was last asked; `None` while it cannot tell.
    pub census: Option<Census>,
    /// Processes that left a seat since the driver was last asked: it may still name them.
    pub(super) departed: HashSet<Process>,
    pub(super) connections: HashMap<ConnectionId, SeatRef>,
    pub(super) processes: HashMap<u32, SeatRef>,
    pub(super) next_generation: u64,
    pub(super) next_serial: u64,
}

/// Every reason a hello can be refused for, and its word in metrics.
pub const REASONS: [(RefusalReason, &str); 4] = [
    (RefusalReason::NoTenant, "no_tenant"),
    (RefusalReason::SeatsFull, "seats_full"),
    (RefusalReason::BadHello, "bad_hello"),
    (RefusalReason::Internal, "internal"),
];

impl State {
    /// A node that knows nothing yet but the device rows of earlier runs. Generations start at
    /// `first_generation`, which must be above any earlier run's: a seat named by an old generation must never
    /// be mistaken for one of this run.
    #[must_use]
    pub fn new(first_generation: u64, rows: &[DeviceUuid]) -> Self {
        let absent =
            |uuid: &DeviceUuid| Row { uuid: *uuid, name: String::new(), memory: Bytes::ZERO, present: false };
        Self {
            configured: None,
            rows: std::array::from_fn(|index| rows.get(index).map(absent)),
            devices_missing: None,
            tenants: Vec::new(),
            crowded_out: Vec::new(),
            roots: HashMap::new(),
            refused: [0; REASONS.len()],
            incidents: Incidents::new(),
            space: Space::default(),
            loans: LoanState::default(),
            census: None,
            departed: HashSet::new(),
            connections: HashMap::new(),
            processes: HashMap::new(),
            next_generation: first_generation,
            next_serial: 0,
        }
    }

    /// The tenants there are, with their slots.
    pub fn tenants(&self) -> impl Iterator<Item = (TenantSlot, &TenantState)> {
        self.tenants
            .iter()
            .enumerate()
            .filter_map(|(index, tenant)| Some((TenantSlot::new(index)?, tenant.as_ref()?)))
    }

    /// The tenant of a slot.
    #[must_use]
    pub fn tenant(&self, slot: TenantSlot) -> Option<&TenantState> {
        self.tenants.get(slot.index())?.as_ref()
    }

    /// The slot of a tenant by name, removed or not.
    #[must_use]
    pub fn slot_of(&self, name: &str) -> Option<TenantSlot> {
        self.tenants().find(|(_, tenant)| tenant.policy.name.as_str() == name).map(|(slot, _)| slot)
    }

    /// Who sits on a seat, if that taking of it is still the current one.
    #[must_use]
    pub fn sitter(&self, seat: SeatRef) -> Option<&Sitter> {
        let sitter = self.tenant(seat.slot)?.seats.get(&seat.seat.get())?;
        (sitter.generation == seat.generation).then_some(sitter)
    }

    /// All seats taken now.
    pub fn seats(&self) -> impl Iterator<Item = (SeatRef, &Sitter)> {
        self.tenants().flat_map(|(slot, tenant)| {
            tenant.seats.iter().filter_map(move |(&index, sitter)| {
                let seat = SeatIndex::new(u32::try_from(index).ok()?)?;
                Some((SeatRef { slot, seat, generation: sitter.generation }, sitter))
            })
        })
    }

    /// Devices that are to be shared by space, and of which it is not known yet whether they are.
    pub fn unlooked(&self) -> impl Iterator<Item = DeviceUuid> + '_ {
        let gpus = self.configured.as_ref().map(|configured| &configured.config.gpus);
        let present = self.rows.iter().flatten().filter(|row| row.present);
        present.map(|row| row.uuid).filter(move |gpu| {
            gpus.is_some_and(|gpus| gpus.sharing_on(*gpu).is_spatial()) && !self.space.0.contains_key(gpu)
        })
    }

    /// Why the node is not ready for tenants; empty when it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.configured.is_none() {
            reasons.push("no configuration has been read yet".to_owned());
        }
        if let Some(reason) = &self.devices_missing {
            reasons.push(reason.clone());
        } else if !self.rows.iter().flatten().any(|row| row.present) {
            reasons.push("no device has been discovered yet".to_owned());
        }
        for gpu in self.unlooked() {
            reasons.push(format!("MPS of device {gpu} has not been looked at yet"));
        }
        for name in &self.crowded_out {
            reasons.push(format!("tenant `{name}` waits for a slot: too many removed tenants still run"));
        }
        reasons
    }

    pub(super) fn free_slot(&mut self) -> Option<TenantSlot> {
        let index = self.tenants.iter().position(Option::is_none).unwrap_or(self.tenants.len());
        let slot = TenantSlot::new(index)?;
        if index == self.tenants.len() {
            self.tenants.push(None);
        }
        Some(slot)
    }

    pub(super) fn free_seat(&self, slot: TenantSlot) -> Option<SeatIndex> {
        let seats = &self.tenant(slot)?.seats;
        // Seats are handed out lowest first, so in a full prefix the first gap is soon found.
        let gap = seats.keys().enumerate().find(|(index, key)| index != *key);
        let index = gap.map_or(seats.len(), |(index, _)| index);
        (index < SEATS_MAX).then(|| SeatIndex::new(u32::try_from(index).ok()?)).flatten()
    }
}
