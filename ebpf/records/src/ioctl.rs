//! Records of the ioctl audit.

/// The type letter of the NVIDIA driver's ioctls: bits 8 to 15 of the request, by the kernel's convention.
pub const TYPE: u32 = b'F' as u32;

/// Ioctl numbers: bits 0 to 7 of the request.
pub const NUMBERS: u32 = 256;

/// The ioctl that a thread is in; in task storage.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ioctl {
    /// Start, `CLOCK_MONOTONIC` nanoseconds; zero while the thread is in none.
    pub started_ns: u64,
    /// Its number.
    pub number: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
}

/// How one number fared on one CPU, whoever called it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Calls that have returned.
    pub calls: u64,
    /// Of those, how many with an error.
    pub failed: u64,
}

const _: () = assert!(size_of::<Ioctl>() == 16 && size_of::<Numbers>() == 16);
