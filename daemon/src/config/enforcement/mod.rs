//! What the kernel is told to refuse and to witness.
//!
//! Read in this order: this file (the checked types), [`mod@read`], [`relations`].

pub mod read;
pub mod relations;

use std::path::PathBuf;
use std::time::Duration;

use headgate_ebpf::{Cidr, RuleMode};
use headgate_quota::Bytes;

use super::model::{CgroupPath, Name};
use super::problem::Place;

/// Where things are when the configuration does not say.
pub mod defaults {
    /// Where the kernel's tables and links are pinned.
    pub const PINS: &str = "/sys/fs/bpf/headgate";
}

/// `spec.enforcement`: where the kernel's refusals live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enforcement {
    /// Directory of the pins.
    pub pins: PathBuf,
    /// The cgroup that is governed with all below it; `None` is the root of the hierarchy.
    pub governed: Option<CgroupPath>,
    /// Device nodes that count as GPUs besides those of the NVIDIA driver.
    pub devices: Vec<PathBuf>,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self { pins: PathBuf::from(defaults::PINS), governed: None, devices: Vec::new() }
    }
}

/// Which addresses lie in a district.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct District {
    /// Its name.
    pub name: Name,
    /// Its address ranges, each with its place in the file.
    pub ranges: Vec<(Cidr, Place)>,
    /// Where it stands in the file.
    pub place: Place,
}

/// `tenants[].residency`: whether a tenant's data may leave its district.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Residency {
    /// What happens to traffic that would.
    pub mode: RuleMode,
    /// The GPU channel's port at the other end; zero for none.
    pub channel_port: u16,
    /// What may leave on the GPU channel.
    pub budgets: Vec<Budget>,
    /// The tenant's network interfaces as the host names them, to be guarded against raw frames.
    pub interfaces: Vec<String>,
    /// Where it stands in the file; `None` if it is not written.
    pub place: Option<Place>,
}

/// Bytes that may go to another district in each period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Where to.
    pub district: Name,
    /// How many, IP headers included.
    pub bytes: Bytes,
    /// How often they are granted anew. What is left of a period lapses.
    pub every: Duration,
    /// Where it stands in the file.
    pub place: Place,
}

/// `spec.witness`: what happens to calls of the driver around the hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Witness {
    /// What to do about them.
    pub policy: WitnessPolicy,
    /// When launches are watched too; `None` never.
    pub launch_audit: Option<LaunchAudit>,
}

/// What happens when a tenant's process calls the driver around the hook.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum WitnessPolicy {
    /// It is counted.
    #[default]
    Count,
    /// It is counted, and the log names the tenant.
    Warn,
    /// As [`WitnessPolicy::Warn`]; and a process that allocates around the hook, or launches while that is watched, is ended before
    /// the driver sees the call.
    Refuse,
}

impl WitnessPolicy {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Warn => "warn",
            Self::Refuse => "refuse",
        }
    }
}

/// Launches are watched for `length` in every `every`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchAudit {
    /// For how long.
    pub length: Duration,
    /// How often.
    pub every: Duration,
}
