//! The status document: what `headgate status --json` prints, and what other commands read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::drivers::Unhooked;
use crate::enforcement;

/// The whole status, as `headgate status --json` prints it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusDocument {
    /// Version of the daemon.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The node's district.
    pub district: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Whether the node is ready for tenants.
    pub ready: bool,
    /// Why not.
    pub unready: Vec<String>,
    /// The configuration.
    pub config: ConfigView,
    /// How processes are told apart.
    pub identity: IdentityView,
    /// Device rows.
    pub devices: Vec<DeviceView>,
    /// Tenants.
    pub tenants: Vec<TenantView>,
    /// Kernel probes.
    pub probes: Vec<crate::probes::ProbeState>,
    /// The kernel's other parts: what witnesses, and what refuses.
    #[serde(default)]
    pub parts: Vec<enforcement::PartState>,
    /// Remote sessions that begin or are hosted here.
    #[serde(default)]
    pub sessions: Vec<crate::remote::SessionView>,
    /// Entry points of the drivers on this node that nothing stands in front of; `null` while no driver was seen.
    #[serde(default)]
    pub unhooked_symbols: Option<Vec<Unhooked>>,
    /// Hellos refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// How the configuration stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConfigView {
    /// The file.
    pub file: String,
    /// Identifies the content in force.
    pub hash: String,
    /// When it was read, in seconds since 1970.
    pub loaded_unix_seconds: u64,
    /// Whether the file could be used when it was last read.
    pub last_reload_successful: bool,
    /// What is wrong with it, if not.
    pub error: Option<String>,
    /// Settings that changed in the file but only take effect at a restart.
    pub restart_needed: Vec<String>,
}

/// How processes are told apart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IdentityView {
    /// `cgroup`, or `process-tree` where processes cannot be moved into cgroups.
    pub method: String,
    /// What that means, where it is the weaker one.
    pub note: Option<String>,
}

/// A device row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeviceView {
    /// Row in the segments.
    pub row: usize,
    /// UUID.
    pub gpu: String,
    /// Product name.
    pub name: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Whether it is there now.
    pub present: bool,
    /// How tenants are to share it: `temporal`, `mpsPartition`, `mpsPercentage` or `greenContexts`.
    #[serde(default)]
    pub sharing: String,
    /// Whether it is shared by green contexts without MPS, so that their shares multiply with the device's own turns.
    #[serde(default)]
    pub multiplied: bool,
    /// Why it is shared by time although it is to be shared by space, and what to do.
    #[serde(default)]
    pub sharing_down: Option<String>,
}

/// A tenant's part of a device that is shared by space.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SpaceView {
    /// SMs its programs have; `null` where the driver makes SMs of a percentage.
    pub sms: Option<u32>,
    /// Part of the device it was given: its share, rounded.
    pub given_ppm: u32,
    /// Part of the device that its programs hold.
    pub held_ppm: u32,
    /// Whether nobody else can be on these SMs. If not, they are a ceiling, and each process has one of its own.
    pub exclusive: bool,
    /// What is still to change, and when.
    pub pending: Option<String>,
}

/// A tenant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TenantView {
    /// Its name.
    pub name: String,
    /// Its district.
    pub district: String,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// Its class now.
    pub class: String,
    /// The event that raises it there: `NAME`, or `DISTRICT/NAME` of another district's.
    pub raised_by: Option<String>,
    /// Its mode.
    pub mode: String,
    /// Its fail policy.
    pub fail_policy: String,
    /// Whether anything is held against it.
    pub enforcement: bool,
    /// Removed from the configuration, with processes still running.
    pub removed: bool,
    /// The word for how it stands: the worst of its devices.
    pub status: String,
    /// Processes seated.
    pub seats: usize,
    /// Frees of memory nobody had charged.
    pub untracked_frees: u64,
    /// Failures of the hook.
    pub hook_faults: u64,
    /// Its accounts.
    pub gpus: Vec<AccountView>,
    /// Its processes.
    pub processes: Vec<ProcessView>,
}

/// A tenant's account on one device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AccountView {
    /// UUID of the device.
    pub gpu: String,
    /// The word for how it stands here.
    pub status: String,
    /// Why, where the word alone does not say.
    pub reason: Option<String>,
    /// Owned share of SM time in parts per million; `null` without a quota.
    pub sm_quota_ppm: Option<u32>,
    /// Charged share over the last second, in parts per million.
    pub sm_share_ppm: u64,
    /// Its part of the device, where that is shared by space now.
    #[serde(default)]
    pub space: Option<SpaceView>,
    /// Device time charged, in microseconds; where the device is shared by space, as much of it as was held.
    pub charged_us: u64,
    /// Tokens left in microseconds; negative is debt.
    pub tokens_us: i64,
    /// `open`, `closed`, or `ungoverned`.
    pub gate: String,
    /// Most bytes; `null` without a quota.
    pub memory_quota_bytes: Option<u64>,
    /// Who holds the tenant to it: `hook`, `driver+hook`, or `none`.
    pub enforced_by: String,
    /// Bytes charged.
    pub memory_used_bytes: u64,
    /// Of those, what contexts and loaded code take.
    pub memory_overhead_bytes: u64,
    /// Bytes the tenant's processes have, by the driver's word; `null` while it cannot tell.
    pub memory_driver_bytes: Option<u64>,
    /// Processes that are on the device and have no seat: they came without the hook.
    pub unenforced: Vec<u32>,
    /// Most bytes ever charged at once.
    pub memory_peak_bytes: u64,
    /// Allocations refused.
    pub denied_allocations: u64,
    /// Launches.
    pub launches: u64,
    /// Batches.
    pub batches: u64,
}

/// A seated process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProcessView {
    /// Process id.
    pub pid: u32,
    /// Its seat.
    pub seat: usize,
    /// Whether its connection stands.
    pub connected: bool,
    /// How its work is gated and its completion measured: `memops`, `host`, `events`, `watchdog`, or `none` while nothing of it
    /// was gated.
    pub gate_backend: String,
}
