//! Records of the device gate: which devices it guards and which processes may pass.

/// How the gate treats the devices of one major number: an entry of the majors array.
pub mod class {
    /// Nobody's concern.
    pub const FREE: u32 = 0;
    /// A GPU: only with an attested hook.
    pub const GPU: u32 = 1;
    /// Moves data past the network stack: not for tenants bound to their district.
    pub const RDMA: u32 = 2;
    /// Some minors of this major are guarded: look the device up by itself.
    pub const BY_MINOR: u32 = 3;
}

/// A process whose hook the loader has seen in its memory; keyed by process id in the initial PID namespace.
///
/// Removed by the kernel when the process executes another program or ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested {
    /// First address of the hook's code.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
}

/// A tenant's process without an attested hook has tried to open a GPU: a hint to look at it, sent through a ring buffer. Refusals
/// are counted elsewhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// The tenant's row.
    pub row: u32,
    /// Device.
    pub major: u32,
    /// Device.
    pub minor: u32,
    /// Whether it was let through, zero or one.
    pub passed: u32,
    /// Keeps the record as long as it was.
    pub reserved: u32,
}

/// Key of one device.
#[inline(always)]
#[must_use]
pub const fn device_key(major: u32, minor: u32) -> u64 {
    (major as u64) << 32 | minor as u64
}

const _: () = assert!(size_of::<Opened>() == 24);
const _: () = assert!(size_of::<Attested>() == 16 && align_of::<Attested>() == 8);
