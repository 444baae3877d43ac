//! Who contends for devices now. Made whole by the node at each change and swapped in.

use std::sync::Arc;

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::SeatIndex;
use headgate_quota::{ComputeQuota, Ppm, Room};

use crate::segments::TenantSegments;
use crate::space::Groups;
use crate::space::holding::Holding;

/// Everyone with segments.
#[derive(Clone, Debug, Default)]
pub struct GateTable {
    /// The tenants.
    pub tenants: Vec<GateTenant>,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct GateTenant {
    /// Tells it from any other tenant of this run.
    pub serial: u64,
    /// Its shared memory.
    pub segments: Arc<TenantSegments>,
    /// Its seats that are taken, as the daemon knows; what the segment says does not matter.
    pub seats: Vec<SeatIndex>,
    /// Its compute quota per device row; `None` where it is not governed.
    pub quota: [Option<ComputeQuota>; DEVICES_MAX],
    /// Its part of each device that is shared by space.
    pub rooms: [Option<GateRoom>; DEVICES_MAX],
}

impl GateTenant {
    /// What its processes say they hold of a device; `None` where no green contexts share it.
    #[must_use]
    pub fn holding(&self, row: usize) -> Option<Holding> {
        self.rooms[row]?.groups?;
        Some(Holding::of(&self.segments, self.seats.iter().copied(), row))
    }

    /// Its room on a device, of which so many of its processes are at work.
    #[must_use]
    pub fn room(&self, row: usize, working: usize) -> Option<Room> {
        let room = self.rooms[row]?;
        let Some(groups) = room.groups else { return Some(room.of(working)) };
        self.holding(row).map(|holding| holding.room(room.room.given, groups))
    }
}

/// A tenant's part of a device.
#[derive(Clone, Copy, Debug)]
pub struct GateRoom {
    /// What it was given, and what its programs hold; each process of it, where they hold that much each.
    pub room: Room,
    /// Whether they do.
    pub per_process: bool,
    /// The tenant's place, where green contexts share the device: then its processes say what they hold.
    pub groups: Option<Groups>,
}

impl GateRoom {
    /// What so many processes hold that are at work.
    #[must_use]
    pub fn of(self, working: usize) -> Room {
        let Room { given, held } = self.room;
        let times = if self.per_process { u32::try_from(working).unwrap_or(u32::MAX).max(1) } else { 1 };
        Room { given, held: Ppm::new(held.get().saturating_mul(times)).unwrap_or(Ppm::WHOLE) }
    }
}
