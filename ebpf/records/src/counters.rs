//! What the kernel programs count besides durations: losses, and what they saw but did not keep.
//!
//! Every path on which a program gives up ends in one of these, so that a figure on a dashboard is either complete or
//! visibly incomplete.

use crate::histogram::Histogram;

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
    /// Second ledger: a call that could not be followed (no memory for the thread's record, or its result could not be read).
    LedgerLost = 9,
    /// Second ledger: an allocation for which the tables had no room; it is in no sum.
    LedgerFull = 10,
    /// Second ledger: a call that never returned to its caller; what it did is in no sum.
    LedgerAbandoned = 11,
    /// Second ledger: a call inside another one, part of it. A real driver makes none; a thread that hides calls shows here.
    LedgerNested = 12,
    /// Second ledger: a return without a start: under way when the probe came, or the second of two entry points in one frame.
    LedgerUnmatched = 13,
    /// Second ledger: memory taken back that was never seen handed out: before the probe came, or by an unprobed call.
    LedgerUnknownFree = 14,
    /// Second ledger: memory handed out by a call that does not tell its size; it is in no sum.
    LedgerUnsized = 15,
    /// Second ledger: memory of another process brought in; it is in that process' sum.
    LedgerImported = 16,
    /// Second ledger: allocations that processes still held when they ended; their bytes went with the process.
    LedgerOrphans = 17,
    /// Device gate: opens of GPUs that did not fit into the ring buffer. The gate decided and counted them all the same.
    GateUntold = 18,
    /// Ioctl audit: a call that could not be followed (no memory for the thread's record).
    IoctlLost = 19,
    /// Round trips: connections for whose tenant and district the table had no room; they are in no figure.
    PeersFull = 20,
}

impl Counter {
    /// Every counter, in row order.
    pub const ALL: [Self; 21] = [
        Self::WaitStartLost,
        Self::WaitAbandoned,
        Self::WaitUnmatched,
        Self::WaitRestarted,
        Self::WaitNested,
        Self::RttRefused,
        Self::ExitSent,
        Self::ExitLost,
        Self::ExitOutside,
        Self::LedgerLost,
        Self::LedgerFull,
        Self::LedgerAbandoned,
        Self::LedgerNested,
        Self::LedgerUnmatched,
        Self::LedgerUnknownFree,
        Self::LedgerUnsized,
        Self::LedgerImported,
        Self::LedgerOrphans,
        Self::GateUntold,
        Self::IoctlLost,
        Self::PeersFull,
    ];

    /// The row of the counter array.
    #[must_use]
    pub const fn row(self) -> u32 {
        self as u32
    }

    /// Whether it counts something that a metric will never show: a loss that an operator must hear of.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(
            self,
            Self::WaitStartLost
                | Self::WaitAbandoned
                | Self::RttRefused
                | Self::ExitLost
                | Self::LedgerLost
                | Self::LedgerFull
                | Self::LedgerAbandoned
                | Self::LedgerUnsized
                | Self::GateUntold
                | Self::IoctlLost
                | Self::PeersFull
        )
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
            Self::LedgerLost => "ledger_lost",
            Self::LedgerFull => "ledger_full",
            Self::LedgerAbandoned => "ledger_abandoned",
            Self::LedgerNested => "ledger_nested",
            Self::LedgerUnmatched => "ledger_unmatched",
            Self::LedgerUnknownFree => "ledger_unknown_free",
            Self::LedgerUnsized => "ledger_unsized",
            Self::LedgerImported => "ledger_imported",
            Self::LedgerOrphans => "ledger_orphans",
            Self::GateUntold => "gate_untold",
            Self::IoctlLost => "ioctl_lost",
            Self::PeersFull => "peers_full",
        }
    }
}

/// Rows of the counter array.
pub const COUNTERS: u32 = 21;

/// What one tenant's sockets to one district did, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// TCP round trips.
    pub round_trips: Histogram,
    /// TCP connections established, both ways.
    pub established: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
}

impl Sockets {
    /// Nothing has happened yet.
    pub const EMPTY: Self = Self { round_trips: Histogram::EMPTY, established: 0, retransmits: 0 };
}

const _: () = assert!(Counter::ALL.len() == COUNTERS as usize);
const _: () = {
    let mut row = 0;
    while row < Counter::ALL.len() {
        assert!(Counter::ALL[row].row() as usize == row, "rows are dense and in order");
        row += 1;
    }
};
const _: () = assert!(size_of::<Sockets>() == size_of::<Histogram>() + 16 && align_of::<Sockets>() == 8);
