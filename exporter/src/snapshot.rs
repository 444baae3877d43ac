//! What the daemon hands over at each scrape.

use headgate_quota::{Bytes, Micros, Ppm, Status};

use crate::kernel::Kernel;

/// Everything on the page, taken at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Version of the daemon.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The node's district.
    pub district: String,
    /// How the configuration stands.
    pub config: ConfigState,
    /// Devices present.
    pub devices: Vec<Device>,
    /// Critical Xid errors that the driver reported, by device and number, since the daemon started.
    pub xids: Vec<(String, String, u64)>,
    /// Seated processes by how the completion of their work is measured. Every way is listed, zero or not.
    pub gate_backends: Vec<(&'static str, u64)>,
    /// The tenants, each once.
    pub tenants: Vec<Tenant>,
    /// Hellos refused, by reason. Every reason is listed, zero or not.
    pub refused: Vec<(&'static str, u64)>,
    /// Kernel probes.
    pub probes: Vec<Probe>,
    /// What else there is in the kernel: what witnesses, and what refuses.
    pub parts: Vec<Probe>,
    /// Loans between nodes; `None` where nothing is lent or borrowed.
    pub loans: Option<crate::loans::Loans>,
    /// Remote sessions; `None` while none can be carried.
    pub remote: Option<crate::remote::Remote>,
    /// Entry points of the drivers seen that nothing stands in front of, by library; empty before one was seen.
    pub unhooked_symbols: Vec<(&'static str, u64)>,
    /// What the kernel counted for processes that are in no tenant's cgroup; `None` while nothing watches.
    pub unknown: Option<Kernel>,
    /// What the kernel probes lost, or saw and did not keep, by kind.
    pub probe_events: Vec<(&'static str, u64)>,
}

/// How the configuration stands.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConfigState {
    /// Whether the last attempt to read the file succeeded.
    pub last_reload_successful: bool,
    /// Seconds since 1970 of the last success.
    pub last_success_unix_seconds: u64,
    /// Identifies the content in force.
    pub hash: String,
}

/// A device.
#[derive(Clone, PartialEq, Debug)]
pub struct Device {
    /// UUID, as the driver prints it.
    pub gpu: String,
    /// Product name.
    pub name: String,
    /// Bytes of memory.
    pub memory: Bytes,
    /// How tenants are to share it: `temporal`, `mpsPartition`, `mpsPercentage` or `greenContexts`.
    pub sharing: &'static str,
    /// Whether they do. If not, they share it by time.
    pub shared_as_wanted: bool,
}

/// A tenant.
#[derive(Clone, PartialEq, Debug)]
pub struct Tenant {
    /// Its name.
    pub tenant: String,
    /// Its district.
    pub district: String,
    /// How it stands.
    pub status: Status,
    /// Processes seated now.
    pub seats: u64,
    /// Frees of addresses no process of it had charged.
    pub untracked_frees: u64,
    /// Times the hook failed inside a call and the call went on without it.
    pub hook_faults: u64,
    /// Processes that exited, as the kernel probe saw them.
    pub process_exits: u64,
    /// How long launches waited for the gate.
    pub gate_wait: Histogram,
    /// Processes on a device without the hook; `None` while the driver cannot tell.
    pub unenforced: Option<u64>,
    /// Lanes of work that could not be followed because all were taken.
    pub lanes_refused: u64,
    /// Times gates were opened because the daemon was silent.
    pub failed_open: u64,
    /// What the kernel counted for it.
    pub kernel: Kernel,
    /// Its accounts, one for each device.
    pub gpus: Vec<Account>,
}

/// A tenant's TCP connections to one district, as the kernel saw them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Network {
    /// Round trips.
    pub rtt: Histogram,
    /// Connections established, both ways.
    pub connections: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// A tenant's account on one device.
#[derive(Clone, PartialEq, Debug)]
pub struct Account {
    /// UUID of the device.
    pub gpu: String,
    /// Most bytes it may use; the whole device's when it has no quota.
    pub memory_quota: Bytes,
    /// Bytes charged now.
    pub memory_used: Bytes,
    /// Of those, what contexts and loaded code take.
    pub memory_overhead: Bytes,
    /// Most bytes ever charged at once.
    pub memory_peak: Bytes,
    /// Allocations refused for quota.
    pub denied: u64,
    /// Owned share of SM time; the whole when it has no quota.
    pub sm_quota: Ppm,
    /// Part of the device that its programs hold, where it is shared by space; `None` where by time.
    pub space: Option<Ppm>,
    /// Device time charged.
    pub charged: Micros,
    /// Tokens left, in microseconds; negative is debt.
    pub tokens_us: i64,
    /// Kernel launches that reached the driver.
    pub launches: u64,
    /// Batches closed.
    pub batches: u64,
    /// Time that threads waited for the gate, by where: at launches on the host, and in synchronising calls for work that stood at
    /// it on the device.
    pub gate_waits: Vec<(&'static str, Micros)>,
}

/// A kernel probe.
#[derive(Clone, PartialEq, Debug)]
pub struct Probe {
    /// Its name.
    pub probe: String,
    /// Whether it is attached.
    pub up: bool,
}

/// A histogram whose counts are ready.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Histogram {
    /// Upper bound in seconds and count, not cumulative, in rising order. What lies above the last bound is
    /// `above`.
    pub buckets: Vec<(f64, u64)>,
    /// Count above the last bound.
    pub above: u64,
    /// Sum of all observations in seconds.
    pub sum_seconds: f64,
}

impl Histogram {
    /// A histogram over powers of two of microseconds: `counts[i]` observations below `2^(i+1)` us, the last
    /// one for all longer.
    #[must_use]
    pub fn of_doubling_micros(counts: &[u64], sum: Micros) -> Self {
        let (above, bounded) = counts.split_last().map_or((0, counts), |(last, rest)| (*last, rest));
        let mut bound = 1e-6;
        let buckets = bounded
            .iter()
            .map(|&count| {
                bound *= 2.0;
                (bound, count)
            })
            .collect();
        Self { buckets, above, sum_seconds: seconds(sum) }
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(self.above, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// Microseconds as seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years of microseconds")]
pub fn seconds(span: Micros) -> f64 {
    span.0 as f64 / 1e6
}
