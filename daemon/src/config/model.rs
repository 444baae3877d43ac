//! The checked configuration: what the rest of the daemon sees.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use headgate_ebpf::RuleMode;
use headgate_quota::{Bytes, Class, ComputeQuota, MemoryQuota, Mode, Ppm};

use super::enforcement::{District, Enforcement, Residency, Witness};
use super::loans::{Borrow, Loans};
use super::problem::Place;
use super::space::{Gpus, Mps};

/// The one version this build reads.
pub const API_VERSION: &str = "headgate.dev/v1alpha1";
/// The one kind.
pub const KIND: &str = "NodeConfig";

/// Where things are when the configuration does not say.
pub mod defaults {
    /// Control socket: any tenant's process connects to it.
    pub const CONTROL_SOCKET: &str = "/run/headgate/control.sock";
    /// Admin socket: only the daemon's own user connects to it.
    pub const ADMIN_SOCKET: &str = "/run/headgate/admin.sock";
    /// What must outlive a restart.
    pub const STATE_DIR: &str = "/var/lib/headgate";
    /// Loopback: nobody scrapes a node from outside unless the operator says so.
    pub const HTTP_LISTEN: &str = "127.0.0.1:9477";
}

/// A whole, valid configuration of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `metadata.name`.
    pub name: Name,
    /// The node's name in metrics and loans.
    pub node: Name,
    /// The district the node stands in.
    pub district: Name,
    /// Sockets.
    pub sockets: Sockets,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` serves nothing.
    pub http_listen: Option<SocketAddr>,
    /// Directory of what must outlive a restart.
    pub state_dir: PathBuf,
    /// Mount point of cgroup v2; `None` looks it up in `/proc/mounts`.
    pub cgroup_root: Option<PathBuf>,
    /// How processes are told apart.
    pub identity: Identity,
    /// The tenant of processes that are in no tenant's cgroup; `None` refuses them.
    pub default_tenant: Option<Name>,
    /// The hook library `headgate run` preloads; `None` looks beside the binary.
    pub hook_library: Option<PathBuf>,
    /// Devices Headgate governs; `None` is all.
    pub devices: Option<Vec<DeviceUuid>>,
    /// Whether nominal SM shares of a device may add up to more than the device.
    pub overcommit_sm: bool,
    /// How tenants share each device.
    pub gpus: Gpus,
    /// Where NVIDIA's MPS is.
    pub mps: Mps,
    /// Kernel probes.
    pub probes: Probes,
    /// Where the kernel's refusals live; `None` when nothing asks for any.
    pub enforcement: Option<Enforcement>,
    /// Which addresses lie in which district.
    pub districts: Vec<District>,
    /// What happens to calls of the driver around the hook.
    pub witness: Witness,
    /// Loans between nodes; `None` lends and borrows nothing.
    pub loans: Option<Loans>,
    /// The tenants, in the order of the file.
    pub tenants: Vec<Tenant>,
}

/// Paths of the Unix sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sockets {
    /// Where hooks say hello.
    pub control: PathBuf,
    /// Where the command line asks.
    pub admin: PathBuf,
    /// Where programs ask for a device of another node; `None` is beside the control socket.
    pub remote: Option<PathBuf>,
}

impl Sockets {
    /// Where programs ask for a device of another node.
    #[must_use]
    pub fn remote(&self) -> PathBuf {
        self.remote.clone().unwrap_or_else(|| self.control.with_file_name("remote.sock"))
    }
}

/// How processes are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Identity {
    /// By cgroup where the daemon may move processes, else by process tree.
    #[default]
    Auto,
    /// By cgroup only: `headgate run` fails where the daemon may not move processes.
    Cgroup,
    /// By process tree: weaker, because a process that is orphaned loses its tenant.
    ProcessTree,
}

impl Identity {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cgroup => "cgroup",
            Self::ProcessTree => "process-tree",
        }
    }
}

/// Which kernel probes are wanted. A wanted probe that the kernel does not offer is reported, not fatal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probes {
    /// Time spent in the driver's synchronising calls, per tenant.
    pub gpu_wait: bool,
    /// Network round trips, per tenant and peer district.
    pub network_rtt: bool,
    /// Process exits, per tenant.
    pub process_exit: bool,
    /// Driver libraries to attach to besides those the loader finds.
    pub libraries: Vec<PathBuf>,
}

impl Default for Probes {
    fn default() -> Self {
        Self { gpu_wait: true, network_rtt: true, process_exit: true, libraries: Vec::new() }
    }
}

/// One tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// Its name, unique on the node.
    pub name: Name,
    /// Its district.
    pub district: Name,
    /// Its cgroup, matched with all below it; `None` for a tenant that is only reached as the default one.
    pub cgroup: Option<CgroupPath>,
    /// Who goes first.
    pub class: Class,
    /// What happens to idle time.
    pub mode: Mode,
    /// What its gates do when the daemon is gone.
    pub fail_policy: FailPolicy,
    /// Whether anything is held against it. Off hands out the driver's own functions.
    pub enforcement: bool,
    /// Quota per device.
    pub quota: BTreeMap<DeviceKey, Quota>,
    /// Whether its data may leave its district.
    pub residency: Residency,
    /// What happens to a process that opens a GPU without an attested hook.
    pub device_gate: RuleMode,
    /// What it may borrow on other nodes; `None` is nothing.
    pub borrow: Option<Borrow>,
    /// Where it stands in the file.
    pub place: Place,
}

impl Tenant {
    /// Whether the kernel has anything to hold against it.
    #[must_use]
    pub fn asks_the_kernel(&self) -> bool {
        self.residency.mode != RuleMode::Off || self.device_gate != RuleMode::Off
    }

    /// The quota that holds on a device: its own entry, else the one for all devices, else none.
    #[must_use]
    pub fn quota_on(&self, device: DeviceUuid) -> Quota {
        let own = self.quota.get(&DeviceKey::One(device));
        own.or_else(|| self.quota.get(&DeviceKey::All)).copied().unwrap_or_default()
    }

    /// The compute quota on a device, ready for the scheduler. `None` when SM time is not limited there.
    #[must_use]
    pub fn compute_on(&self, device: DeviceUuid) -> Option<ComputeQuota> {
        let sm = self.quota_on(device).sm?;
        Some(ComputeQuota {
            nominal: sm.nominal,
            borrowing_limit: sm.borrowing_limit,
            lending_limit: sm.lending_limit,
            mode: self.mode,
            class: self.class,
        })
    }
}

/// What a tenant owns on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// SM time; `None` does not limit it.
    pub sm: Option<SmQuota>,
    /// Memory; `None` does not limit it.
    pub memory: Option<MemoryQuota>,
}

/// SM time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmQuota {
    /// Owned share.
    pub nominal: Ppm,
    /// Most beyond nominal; `None` is no cap.
    pub borrowing_limit: Option<Ppm>,
    /// Most of nominal that may be lent to other nodes; `None` is all of it.
    pub lending_limit: Option<Ppm>,
}

/// What a tenant's gates do when the daemon's heartbeat is stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailPolicy {
    /// They open.
    #[default]
    Open,
    /// They stay as they were.
    LastKnown,
}

impl FailPolicy {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::LastKnown => "lastKnown",
        }
    }
}

/// A bounded name: lower-case letters, digits and dashes, as in a DNS label. Safe in paths, labels and logs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

impl Name {
    /// The name, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let bytes = text.as_bytes();
        let good = bytes.len() <= crate::limits::NAME_BYTES_MAX
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|&byte| inner(byte));
        good.then(|| Self(text.to_owned()))
    }

    /// The name of a guest from another district. It has a dot, so it is no configured tenant's.
    #[must_use]
    pub fn guest(district: &str, tenant: &str) -> Option<Self> {
        Some(Self(format!("{}.{}", Self::new(district)?, Self::new(tenant)?)))
    }

    /// A guest's name from its text.
    #[must_use]
    pub fn as_guest_text(text: &str) -> Option<Self> {
        let (district, tenant) = text.split_once('.')?;
        Self::guest(district, tenant)
    }

    /// Reads a guest's name: its district and its own.
    #[must_use]
    pub fn as_guest(&self) -> Option<(Self, Self)> {
        let (district, tenant) = self.0.split_once('.')?;
        Some((Self::new(district)?, Self::new(tenant)?))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path below the root of cgroup v2: absolute, no empty, `.` or `..` component, and not the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// The path, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let good = text.len() <= crate::limits::CGROUP_BYTES_MAX
            && !rest.is_empty()
            && !text.contains(['\0', '\n'])
            && rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
        good.then(|| Self(text.to_owned()))
    }

    /// The text, with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `cgroup` is this one or below it.
    #[must_use]
    pub fn holds(&self, cgroup: &str) -> bool {
        cgroup.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device's UUID as the driver gives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid(pub [u8; 16]);

impl DeviceUuid {
    /// Reads `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` (or `MIG-...`), as `nvidia-smi -L` prints it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"))?;
        let lengths = hex.split('-').map(str::len);
        if !lengths.eq([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits: String = hex.chars().filter(|c| *c != '-').collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Low and high half as the limits segment carries them.
    #[must_use]
    pub fn halves(self) -> [u64; 2] {
        let (low, high) = self.0.split_at(8);
        let half = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| (sum << 8) | u64::from(byte));
        [half(low), half(high)]
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU-")?;
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which device a quota is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeviceKey {
    /// `"*"`: every device without an entry of its own.
    All,
    /// One device.
    One(DeviceUuid),
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("\"*\""),
            Self::One(uuid) => write!(f, "{uuid}"),
        }
    }
}

/// Memory as people write it, in the largest binary unit that divides it exactly.
#[must_use]
pub fn memory_text(bytes: Bytes) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    UNITS
        .iter()
        .find(|(shift, _)| bytes.0 != 0 && bytes.0.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.0.to_string(), |(shift, unit)| format!("{}{unit}", bytes.0 >> shift))
}
