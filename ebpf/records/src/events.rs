//! Records that travel through the ring buffer, or live with a thread, a socket or an attachment.

/// A process of a tenant has ended: its thread-group leader exited.
///
/// ```text
/// 0         4         8                  16                 24
/// | tgid    | row     | cgroup_id        | at_ns            |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Process id (thread-group id) in the initial PID namespace.
    pub tgid: u32,
    /// Row of the tenant, a [`crate::slots::Slot`]; never the unknown one.
    pub row: u32,
    /// The cgroup v2 id that the process was in, possibly a child of the tenant's own.
    pub cgroup_id: u64,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// The wait that a thread is in, the launch it is in, and where its durations go. Lives in task storage: the kernel frees
/// it with the thread and no table can fill up.
///
/// ```text
/// 0              8              16             24       28       32       36
/// | stack_pointer| started_ns   | cgroup_id    | epoch  | cell   | nested | launches_nested |
/// 40                    48                  56               64       68            72
/// | launch_stack_pointer| launch_started_ns | first_launch_ns| device | cell_device |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Stack pointer at the outermost entry; zero while the thread is in no call. It tells a nested call (deeper) from the
    /// return of the outermost one, and shows when a frame was abandoned.
    pub stack_pointer: u64,
    /// Start of the outermost call, `CLOCK_MONOTONIC` nanoseconds.
    pub started_ns: u64,
    /// The cgroup for which `cell` was found.
    pub cgroup_id: u64,
    /// The attribution epoch in which `cell` was found; zero means never.
    pub epoch: u32,
    /// Where durations go: the tenant's row, or its [`Cell`] on one GPU.
    pub cell: u32,
    /// Sync calls begun inside the outermost one so far.
    pub nested: u32,
    /// Launches begun inside the outermost one so far.
    pub launches_nested: u32,
    /// Stack pointer at the outermost launch's entry; zero while the thread is in none.
    pub launch_stack_pointer: u64,
    /// Start of that launch, `CLOCK_MONOTONIC` nanoseconds.
    pub launch_started_ns: u64,
    /// Start of the first launch since the last synchronous call; zero if none was seen.
    pub first_launch_ns: u64,
    /// The device that the hook told for the call under way, as [`device_told`] answers it.
    pub device: u32,
    /// The device for which `cell` was found.
    pub cell_device: u32,
}

/// What marks a word in the register of a sixth argument as the hook's word for a device. The lowest byte is the row of the device
/// in the daemon's table. Whoever forges it mixes up figures of its own tenant.
pub const DEVICE_MARK: u64 = u64::from_be_bytes(*b"headgat\0");

/// The device that such a word names, counted from one; zero if it is no such word.
#[inline]
#[must_use]
pub const fn device_told(word: u64) -> u32 {
    if word & !0xff == DEVICE_MARK { (word & 0xff) as u32 + 1 } else { 0 }
}

/// Where the durations of a process go while it belongs to the tenant of `row`: a row behind the tenants' own that the
/// loader has set aside for that tenant on one GPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The tenant's row. A process that has moved to another tenant has no cell.
    pub row: u32,
    /// Row of the arrays of histograms.
    pub cell: u32,
}

/// A process, and what of it a [`Cell`] is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Calls for which the hook told this device, as [`device_told`] answers it; zero for those for which it told none.
    pub device: u32,
}

/// What an attachment to a cgroup's sockets knows about itself. Written by the loader after attaching, as a whole: the
/// kernel swaps the value's memory, so a program that sees the cgroup also sees whose it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The cgroup attached to; zero while the loader has not written it.
    pub cgroup_id: u64,
    /// The tenant's row.
    pub row: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
}

/// The cgroup whose tenant a socket counts for, zero until a program claims it; and where its other end is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A cgroup v2 id.
    pub cgroup_id: u64,
    /// Index of the other end's district, by the address table in force when the socket was claimed.
    pub district: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
}

/// A tenant and the district of its connections' other end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The tenant's row.
    pub row: u32,
    /// Index of the district.
    pub district: u32,
}

const _: () = assert!(size_of::<Attached>() == 16 && align_of::<Attached>() == 8);
const _: () = assert!(size_of::<Claim>() == 16 && size_of::<PeerKey>() == 8 && size_of::<Cell>() == 8);
const _: () = assert!(size_of::<CellKey>() == 8 && align_of::<CellKey>() == 4);
const _: () = assert!(size_of::<Exit>() == 24 && align_of::<Exit>() == 8);
const _: () = assert!(size_of::<Waiting>() == 72 && align_of::<Waiting>() == 8);
