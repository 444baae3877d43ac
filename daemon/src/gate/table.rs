//! Who contends for devices now. Made whole by the node at each change and swapped in.

use std::sync::Arc;

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::SeatIndex;
use headgate_quota::{ComputeQuota, Ppm, Room};

use crate::segments::TenantSegments;

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

/// A tenant's part of a device.
#[derive(Clone, Copy, Debug)]
pub struct GateRoom {
    /// What it was given, and what its programs hold; each process of it, where they hold that much each.
    pub room: Room,
    /// Whether they do.
    pub per_process: bool,
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
