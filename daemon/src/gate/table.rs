//! Who contends for devices now. Made whole by the node at each change and swapped in.

use std::sync::Arc;

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::SeatIndex;
use headgate_quota::ComputeQuota;

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
}
