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

/// By what means a probe is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One link for all sites of a library (Linux 6.6): attaches and detaches in milliseconds.
    UprobeMulti,
    /// One perf event per site: works everywhere, takes about 0.1 s per site to detach.
    UprobePerf,
    /// A link on every tenant's cgroup.
    CgroupLink,
    /// A raw tracepoint.
    RawTracepoint,
}

impl Mode {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UprobeMulti => "uprobe_multi",
            Self::UprobePerf => "uprobe_perf",
            Self::CgroupLink => "cgroup_link",
            Self::RawTracepoint => "raw_tracepoint",
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

impl fmt::Display for ProbeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Up => "up",
            State::Idle => "idle",
            State::Missing => "missing",
        };
        write!(f, "{}: {state}", self.probe)?;
        if let Some(mode) = self.mode {
            write!(f, " ({})", mode.name())?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}
