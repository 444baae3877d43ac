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

/// The wait that a thread is in, and the tenant it was last found to belong to. Lives in task storage: the kernel frees
/// it with the thread and no table can fill up.
///
/// ```text
/// 0              8              16             24       28       32       36         40
/// | stack_pointer| started_ns   | cgroup_id    | epoch  | row    | nested | reserved |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Stack pointer at the outermost entry; zero while the thread is in no call. It tells a nested call (deeper) from the
    /// return of the outermost one, and shows when a frame was abandoned.
    pub stack_pointer: u64,
    /// Start of the outermost call, `CLOCK_MONOTONIC` nanoseconds.
    pub started_ns: u64,
    /// The cgroup for which `row` was found.
    pub cgroup_id: u64,
    /// The attribution epoch in which `row` was found; zero means never.
    pub epoch: u32,
    /// The tenant's row.
    pub row: u32,
    /// Sync calls begun inside the outermost one so far.
    pub nested: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
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

/// The cgroup whose tenant a socket counts for; zero until a program claims it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A cgroup v2 id.
    pub cgroup_id: u64,
}

const _: () = assert!(size_of::<Attached>() == 16 && align_of::<Attached>() == 8);
const _: () = assert!(size_of::<Claim>() == 8);
const _: () = assert!(size_of::<Exit>() == 24 && align_of::<Exit>() == 8);
const _: () = assert!(size_of::<Waiting>() == 40 && align_of::<Waiting>() == 8);
