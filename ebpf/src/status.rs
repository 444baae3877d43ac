//! Which probes are up, by what means, and if not, why not: the source of `headgate_probe_up`.

use std::fmt;

/// The probes, by the names that metrics and logs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// GPU wait: sync calls of the driver library.
    GpuWait,
    /// Round trips and retransmits of tenants' TCP connections.
    NetworkRtt,
    /// Exits of tenants' processes.
    ProcessExit,
}

impl Probe {
    /// Every probe.
    pub const ALL: [Self; 3] = [Self::GpuWait, Self::NetworkRtt, Self::ProcessExit];

    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GpuWait => "gpu_wait",
            Self::NetworkRtt => "network_rtt",
            Self::ProcessExit => "process_exit",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What there is in the kernel besides the three probes: what refuses, and what is the second witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Tenants' traffic at their district's border.
    Residency,
    /// Frames that go around the network stack.
    RawFrameGuard,
    /// Opening of GPUs.
    DeviceGate,
    /// Memory that the driver was seen to hand out and take back.
    MemoryLedger,
    /// Calls of the driver around the hook.
    BypassWitness,
    /// Launches around the hook, on demand.
    LaunchAudit,
    /// Ioctls of the GPU driver, on demand.
    IoctlAudit,
}

impl Part {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Residency => "residency",
            Self::RawFrameGuard => "raw_frame_guard",
            Self::DeviceGate => "device_gate",
            Self::MemoryLedger => "memory_ledger",
            Self::BypassWitness => "bypass_witness",
            Self::LaunchAudit => "launch_audit",
            Self::IoctlAudit => "ioctl_audit",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By what means a probe is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One link for entries and returns of all sites of a library (Linux 6.13).
    UprobeSession,
    /// One link for all entries of a library, and one for all returns (Linux 6.6): attaches and detaches in milliseconds.
    UprobeMulti,
    /// One perf event per site: works everywhere, takes about 0.1 s per site to detach.
    UprobePerf,
    /// A link on every tenant's cgroup.
    CgroupLink,
    /// A raw tracepoint.
    RawTracepoint,
    /// A link on the governed cgroup that outlives the loader.
    PinnedLink,
    /// A link on a network interface that outlives the loader.
    Tcx,
}

impl Mode {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UprobeSession => "uprobe_session",
            Self::UprobeMulti => "uprobe_multi",
            Self::UprobePerf => "uprobe_perf",
            Self::CgroupLink => "cgroup_link",
            Self::RawTracepoint => "raw_tracepoint",
            Self::PinnedLink => "pinned_link",
            Self::Tcx => "tcx",
        }
    }
}

/// How far a probe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Attached to something and counting.
    Up,
    /// Loaded, and nothing to attach to yet.
    Idle,
    /// Refused; the reason says by what.
    Missing,
}

/// One probe's state, ready for a metric, a table or a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Which probe.
    pub probe: Probe,
    /// How far it has come.
    pub state: State,
    /// By what means; `None` until it is attached to something.
    pub mode: Option<Mode>,
    /// Why it is not up, or what it had to do without. Empty when there is nothing to say.
    pub reason: String,
}

impl ProbeStatus {
    /// Whether it counts.
    #[must_use]
    pub fn up(&self) -> bool {
        self.state == State::Up
    }
}

/// One part's state, ready for a metric, a table or a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartStatus {
    /// Which part.
    pub part: Part,
    /// How far it has come.
    pub state: State,
    /// By what means; `None` until it is attached to something.
    pub mode: Option<Mode>,
    /// Why it is not up, or what to know. Empty when there is nothing to say.
    pub reason: String,
}

impl PartStatus {
    /// Whether it is at work.
    #[must_use]
    pub fn up(&self) -> bool {
        self.state == State::Up
    }
}

impl fmt::Display for PartStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_status(f, self.part.name(), self.state, self.mode, &self.reason)
    }
}

impl fmt::Display for ProbeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_status(f, self.probe.name(), self.state, self.mode, &self.reason)
    }
}

fn write_status(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    state: State,
    mode: Option<Mode>,
    reason: &str,
) -> fmt::Result {
    let state = match state {
        State::Up => "up",
        State::Idle => "idle",
        State::Missing => "missing",
    };
    write!(f, "{name}: {state}")?;
    if let Some(mode) = mode {
        write!(f, " ({})", mode.name())?;
    }
    if !reason.is_empty() {
        write!(f, ": {reason}")?;
    }
    Ok(())
}
