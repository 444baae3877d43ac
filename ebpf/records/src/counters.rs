//! What the kernel programs count besides durations: losses, and what they saw but did not keep.
//!
//! Every path on which a program gives up ends in one of these, so that a figure on a dashboard is either complete or
//! visibly incomplete.

/// One counter of a kernel program; the row of the per-CPU counter array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// GPU wait: a call's start could not be kept (no memory for the thread's record); the wait is lost.
    WaitStartLost = 0,
    /// GPU wait: a call never returned to its caller (thread unwound by a jump or an exception); the wait is lost.
    WaitAbandoned = 1,
    /// GPU wait: a return without a start. A call that was under way when the probe was attached, or the second of
    /// two entry points that share one stack frame (a tail call); the latter lost nothing.
    WaitUnmatched = 2,
    /// GPU wait: a start in the very stack frame of a start under way. Either a tail call (nothing lost: its twin return shows
    /// as unmatched) or a call repeated from the same place after being abandoned; the excess over unmatched is lost.
    WaitRestarted = 3,
    /// GPU wait: a call inside another one; part of the outer wait, or, right after a wait was abandoned, lost with it.
    WaitNested = 4,
    /// Round trips: a connection's callbacks or claim were refused by the kernel; (some of) its round trips are lost.
    RttRefused = 5,
    /// Process exits: events that the daemon was sent.
    ExitSent = 6,
    /// Process exits: events that did not fit into the ring buffer; lost.
    ExitLost = 7,
    /// Process exits: processes that were in no tenant's cgroup; deliberately not sent.
    ExitOutside = 8,
}

impl Counter {
    /// Every counter, in row order.
    pub const ALL: [Self; 9] = [
        Self::WaitStartLost,
        Self::WaitAbandoned,
        Self::WaitUnmatched,
        Self::WaitRestarted,
        Self::WaitNested,
        Self::RttRefused,
        Self::ExitSent,
        Self::ExitLost,
        Self::ExitOutside,
    ];

    /// The row of the counter array.
    #[must_use]
    pub const fn row(self) -> u32 {
        self as u32
    }

    /// Whether it counts something that a metric will never show: a loss that an operator must hear of.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::WaitStartLost | Self::WaitAbandoned | Self::RttRefused | Self::ExitLost)
    }

    /// A stable name for logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitStartLost => "wait_start_lost",
            Self::WaitAbandoned => "wait_abandoned",
            Self::WaitUnmatched => "wait_unmatched",
            Self::WaitRestarted => "wait_restarted",
            Self::WaitNested => "wait_nested",
            Self::RttRefused => "rtt_refused",
            Self::ExitSent => "exit_sent",
            Self::ExitLost => "exit_lost",
            Self::ExitOutside => "exit_outside",
        }
    }
}

/// Rows of the counter array.
pub const COUNTERS: u32 = 9;

/// What one tenant's sockets did, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// TCP connections established, both ways.
    pub established: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
}

impl Sockets {
    /// Nothing has happened yet.
    pub const EMPTY: Self = Self { established: 0, retransmits: 0 };
}

const _: () = assert!(Counter::ALL.len() == COUNTERS as usize);
const _: () = {
    let mut row = 0;
    while row < Counter::ALL.len() {
        assert!(Counter::ALL[row].row() as usize == row, "rows are dense and in order");
        row += 1;
    }
};
const _: () = assert!(size_of::<Sockets>() == 16 && align_of::<Sockets>() == 8);
