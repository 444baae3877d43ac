//! Binary layout of both segments.
//!
//! ```text
//! limits segment (4 KiB, tenant: read only)       ledger segment (4 KiB + 1024 x 4 KiB, sparse)
//! 0     LimitsHeader  64 B                         0      LedgerHeader  64 B
//! 64    reserved                                   64     reserved
//! 128   DeviceLimits  128 B x 16                   128    DeviceTotals  64 B x 16
//! 2176  reserved to 4096                           1152   reserved to 4096
//!                                                  4096   Seat          4096 B x 1024
//! ```
//!
//! All integers are little-endian in native atomics; both sides run on one host. A seat fills one page so
//! that a process can register just its own page with the driver for the GPU to write completions into.

use super::busy::BusyClock;
use super::sync::{AtomicU32, AtomicU64};
use crate::limits::{DEVICES_MAX, LANES_MAX, SEATS_MAX};

/// Layout version; both sides refuse any other.
pub const ABI_VERSION: u32 = 6;
/// `HGLIMIT1`.
pub const LIMITS_MAGIC: u64 = u64::from_le_bytes(*b"HGLIMIT1");
/// `HGLEDGR1`.
pub const LEDGER_MAGIC: u64 = u64::from_le_bytes(*b"HGLEDGR1");

/// Value of a limit that does not limit.
pub const UNLIMITED: u64 = u64::MAX;

/// Bytes of a limits segment.
pub const LIMITS_BYTES: usize = 4096;
/// Bytes of a ledger segment.
pub const LEDGER_BYTES: usize = 4096 + SEATS_MAX * SEAT_BYTES;
/// Bytes of one seat: a page.
pub const SEAT_BYTES: usize = 4096;

/// Head of the limits segment. Writer: the daemon. Readers: the tenant's processes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct LimitsHeader {
    /// [`LIMITS_MAGIC`].
    pub magic: AtomicU64,
    /// [`ABI_VERSION`].
    pub abi_version: AtomicU32,
    /// [`LIMITS_BYTES`].
    pub bytes: AtomicU32,
    /// Which daemon run this is; a hook that reconnects sees whether it is another.
    pub epoch: AtomicU64,
    /// `CLOCK_MONOTONIC` in microseconds of the daemon's last sign of life.
    pub heartbeat_us: AtomicU64,
    /// Index of the tenant in the daemon's table.
    pub tenant: AtomicU32,
    /// [`FAIL_OPEN`] or [`FAIL_LAST_KNOWN`]: what a gate does when the heartbeat is stale.
    pub fail_policy: AtomicU32,
    /// Not used yet.
    pub reserved: [AtomicU64; 2],
}

/// A stale heartbeat opens the gate.
pub const FAIL_OPEN: u32 = 0;
/// A stale heartbeat leaves the gate as it was.
pub const FAIL_LAST_KNOWN: u32 = 1;

/// Limits of one device. Writer: the daemon. Readers: the tenant's processes.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct DeviceLimits {
    /// UUID, low half first. All zero: the row is unused.
    pub uuid: [AtomicU64; 2],
    /// Most bytes the tenant may have on the device, [`UNLIMITED`] for no limit.
    pub memory_bytes_max: AtomicU64,
    /// [`GATE_UNGOVERNED`], [`GATE_HOST`] or [`GATE_GPU`].
    pub gate_mode: AtomicU32,
    /// The gate word of the host mode, a futex: bit 0 says open, the rest counts openings.
    pub gate: AtomicU32,
    /// Work a batch should hold, in microseconds of device time.
    pub batch_us: AtomicU32,
    /// Most launches in a batch.
    pub batch_launches_max: AtomicU32,
    /// Not zero while the daemon sleeps on the ledger's bell for this device: whoever rings it wakes the daemon.
    pub bell_wanted: AtomicU32,
    /// Nominal SM quota in parts per million of the device, for display.
    pub sm_ppm: AtomicU32,
    /// Where the device is shared by space: what the environment of a program must come to, by [`crate::space::digest`],
    /// when it starts CUDA. Zero asks nothing.
    pub environment: AtomicU64,
    /// Where the device is shared by green contexts: the tenant's place on it, as [`crate::space::place_word`] says. Zero where
    /// it is not.
    pub place: AtomicU64,
    /// Not used yet.
    pub reserved: [AtomicU64; 6],
}

/// Launches pass without batches or gates: the tenant has no compute quota on the device.
pub const GATE_UNGOVERNED: u32 = 0;
/// Launches wait on the host for the gate word, and batches report completion. What is queued on the device
/// when the gate closes still runs: about a millisecond, or two batches where they are longer.
pub const GATE_HOST: u32 = 1;
/// Batches wait on the GPU for the gate word of the seat: the program runs ahead, the device waits.
pub const GATE_GPU: u32 = 2;
/// Bit of the gate word that says open.
pub const GATE_OPEN_BIT: u32 = 1;

/// Head of the ledger segment. Written once by the daemon, readable and writable by the tenant: the daemon
/// checks it again whenever it adopts a segment.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct LedgerHeader {
    /// [`LEDGER_MAGIC`].
    pub magic: AtomicU64,
    /// [`ABI_VERSION`].
    pub abi_version: AtomicU32,
    /// [`LEDGER_BYTES`].
    pub bytes: AtomicU32,
    /// Seats below this index have been handed out at least once; those above are untouched, sparse pages.
    pub seats_high: AtomicU32,
    /// A futex. Each process counts it up when it hands work to a device that had none of its own.
    pub bell: AtomicU32,
    /// As the limits' heartbeat. A ledger outlives the daemon that made it: this is how a process that still has that
    /// one's limits learns that another daemon minds its gates.
    pub heartbeat_us: AtomicU64,
    /// Times a process of the tenant opened its gates by itself because the daemon was silent.
    pub failed_open: AtomicU64,
    /// The last time that memory taken ahead was called back: how many times that makes in the lower half, when in the upper one, in
    /// `CLOCK_MONOTONIC` milliseconds. Both wrap.
    pub recall: AtomicU64,
    /// A futex. The lower half of `recall`, once that is written.
    pub recalls: AtomicU32,
    /// A futex. How often a call was answered.
    pub recall_answers: AtomicU32,
    /// Not used yet.
    pub reserved: [AtomicU64; 1],
}

/// A tenant's total on one device. Writers: all of the tenant's processes (by compare-and-swap), and the
/// daemon when it takes back what a dead process held.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct DeviceTotals {
    /// Bytes charged now.
    pub used_bytes: AtomicU64,
    /// Most bytes ever charged at once.
    pub peak_bytes: AtomicU64,
    /// Allocations refused for quota since the segment was made.
    pub denied: AtomicU64,
    /// Not used yet.
    pub reserved: [AtomicU64; 5],
}

/// One process. Writers: its threads, the GPU (`completed`), and the daemon (`state` and `generation` when it
/// hands the seat out or takes it back).
///
/// ```text
/// 0     identity and update counters     64    charged bytes per device   192  counters per device
/// 704   waiting threads per device       768   gate-wait histogram         960  gate words per device
/// 1024  clocks of work with the device   1280  lanes, the host's half      2976  lanes, the GPU's half
/// 3824  overhead per device              3952  groups of SMs per device     4080  memory taken ahead, or set aside
/// ```
#[cfg_attr(not(all(test, loom)), repr(C, align(4096)))]
#[derive(Debug)]
pub struct Seat {
    /// [`SEAT_FREE`], [`SEAT_TAKEN`] or [`SEAT_DEAD`].
    pub state: AtomicU32,
    /// Process id as the daemon sees it.
    pub pid: AtomicU32,
    /// Which taking of the seat this is.
    pub generation: AtomicU64,
    /// Ledger updates begun; an update is two or three atomic adds, never a driver call.
    pub updates_begun: AtomicU64,
    /// Ledger updates finished. Equal to `updates_begun` whenever the seat's sums are at rest.
    pub updates_finished: AtomicU64,
    /// Frees of addresses this process never charged (imported, allocated before the hook, or a bug of ours).
    pub untracked_frees: AtomicU64,
    /// Times Headgate itself failed inside a call (a panic caught at the boundary).
    pub faults: AtomicU64,
    /// Lanes below this index have been used; those above are all zero.
    pub lanes_high: AtomicU32,
    /// How work is gated and its completion measured: [`BACKEND_NONE`], [`BACKEND_MEMOPS`], [`BACKEND_EVENTS`],
    /// [`BACKEND_WATCHDOG`] or [`BACKEND_HOST`].
    pub gate_backend: AtomicU32,
    /// Lanes refused because all [`LANES_MAX`] were in use; their work is gated but not followed.
    pub lanes_refused: AtomicU64,
    /// Bytes this process has charged, per device row.
    pub charged_bytes: [AtomicU64; DEVICES_MAX],
    /// Counters, per device row.
    pub counters: [SeatCounters; DEVICES_MAX],
    /// Threads waiting now, per device row: on the host for their turn in the lower half, inside a call that waits for the device
    /// in the upper one, each as [`AWAITING_ONE`].
    pub waiting: [AtomicU32; DEVICES_MAX],
    /// How long launches waited for the gate: bucket `i` counts waits below `2^(i+1)` microseconds, the last
    /// one all longer.
    pub gate_wait_buckets: [AtomicU64; GATE_WAIT_BUCKETS],
    /// The gate words the GPU waits on, per device row. Writer: the daemon; and this process, to open them,
    /// when the daemon is gone.
    pub gates: [AtomicU32; DEVICES_MAX],
    /// How long work has been with the device, per device row.
    pub busy: [BusyClock; DEVICES_MAX],
    /// What the host did, per lane.
    pub lanes: [Lane; LANES_MAX],
    /// How far the GPU is, per lane.
    pub marks: [LaneMarks; LANES_MAX],
    /// Bytes of `charged_bytes` that contexts and loaded code take, per device row; for display.
    pub overhead_bytes: [AtomicU64; DEVICES_MAX],
    /// What of a device its work keeps to, per device row, as [`crate::space::Part::of_word`] reads it; zero while there is
    /// nothing to say.
    pub parts: [AtomicU64; DEVICES_MAX],
    /// Device rows, a bit each, on which this process holds memory that was taken ahead of its use and that may be called back.
    pub ahead_rows: AtomicU32,
    /// Number of the last call that it has answered.
    pub recalled: AtomicU32,
    /// Threads of it that wait for others' answers themselves.
    pub recalling: AtomicU32,
    /// What a checkpoint of this process has taken off the devices and is charged to nobody, of all devices together, in
    /// units of [`ASIDE_UNIT_BYTES`], rounded up. A hook without this word leaves it zero.
    pub aside_units: AtomicU32,
}

/// Unit of [`Seat::aside_units`]: what drivers round device memory to. Two TiB fit.
pub const ASIDE_UNIT_BYTES: u64 = 512;

/// A thread in the upper half of a word of [`Seat::waiting`].
pub const AWAITING_ONE: u32 = 1 << 16;

/// Nothing measures completion: no gate-governed launch yet.
pub const BACKEND_NONE: u32 = 0;
/// The GPU waits at the gate and writes its progress by stream memory operations.
pub const BACKEND_MEMOPS: u32 = 1;
/// The program waits at the gate, little ahead of the device; events without timing report progress.
pub const BACKEND_EVENTS: u32 = 2;
/// The program waits at the gate; nothing reports progress. Batches count as done when the program has waited for the
/// device, or has been silent for a while.
pub const BACKEND_WATCHDOG: u32 = 3;
/// By choice, not for want of anything: the program waits at the gate, little ahead of the device, which writes its progress by
/// stream memory operations.
pub const BACKEND_HOST: u32 = 4;

/// Buckets of the gate-wait histogram.
pub const GATE_WAIT_BUCKETS: usize = if cfg!(all(test, loom)) { 1 } else { 24 };

/// Per-device counters of a seat.
#[repr(C)]
#[derive(Debug)]
pub struct SeatCounters {
    /// Kernel launches that reached the driver.
    pub launches: AtomicU64,
    /// Batches closed.
    pub batches: AtomicU64,
    /// Microseconds launches waited for the gate, summed.
    pub gate_wait_us: AtomicU64,
    /// Allocations refused for quota.
    pub denied: AtomicU64,
}

/// Progress of one lane (one thread's work in one stream): the host's half. Writer: that thread.
/// Batch numbers wrap and are compared modulo 2^32.
#[repr(C)]
#[derive(Debug)]
pub struct Lane {
    /// Number of the last batch begun: its wait for the gate is in the stream.
    pub begun: AtomicU32,
    /// Number of the last batch closed: its report of completion is in the stream.
    pub submitted: AtomicU32,
    /// Device row plus one, 0 when the lane is unused.
    pub device: AtomicU32,
    /// Not used yet.
    pub reserved: AtomicU32,
}

/// Progress of one lane: the GPU's half. Writer: the GPU; and the process itself when the GPU will not write
/// any more.
#[repr(C)]
#[derive(Debug)]
pub struct LaneMarks {
    /// Number of the last batch that passed the gate.
    pub started: AtomicU32,
    /// Number of the last batch that is done.
    pub completed: AtomicU32,
}

/// Nobody sits here.
pub const SEAT_FREE: u32 = 0;
/// A live process sits here.
pub const SEAT_TAKEN: u32 = 1;
/// The process died and its charges are being taken back.
pub const SEAT_DEAD: u32 = 2;

/// Offset of the first device row, in either segment.
pub const DEVICE_ROWS_OFFSET: usize = 128;
/// Offset of the first seat.
pub const SEATS_OFFSET: usize = 4096;

// A row has a bit in `Seat::ahead_rows`.
const _: () = assert!(DEVICES_MAX <= 32);

// The model checker's atomics are larger, and nobody shares them.
#[cfg(not(all(test, loom)))]
const _: () = {
    assert!(size_of::<LimitsHeader>() == 64);
    assert!(size_of::<DeviceLimits>() == 128);
    assert!(DEVICE_ROWS_OFFSET + DEVICES_MAX * size_of::<DeviceLimits>() <= LIMITS_BYTES);
    assert!(size_of::<LedgerHeader>() == 64);
    assert!(size_of::<DeviceTotals>() == 64);
    assert!(DEVICE_ROWS_OFFSET + DEVICES_MAX * size_of::<DeviceTotals>() <= SEATS_OFFSET);
    assert!(size_of::<Seat>() == SEAT_BYTES);
    assert!(core::mem::offset_of!(Seat, charged_bytes) == 64);
    assert!(core::mem::offset_of!(Seat, counters) == 192);
    assert!(core::mem::offset_of!(Seat, waiting) == 704);
    assert!(core::mem::offset_of!(Seat, gate_wait_buckets) == 768);
    assert!(core::mem::offset_of!(Seat, busy) == 1024);
    assert!(core::mem::offset_of!(Seat, lanes) == 1280);
    assert!(core::mem::offset_of!(Seat, gates) == 960);
    assert!(core::mem::offset_of!(Seat, marks) == 2976);
    assert!(core::mem::offset_of!(Seat, overhead_bytes) == 3824);
    assert!(core::mem::offset_of!(Seat, parts) == 3952);
    assert!(core::mem::offset_of!(Seat, ahead_rows) == 4080);
};
