//! The one unsafe room of this crate: making, sealing and mapping segments.
#![expect(unsafe_code, reason = "memfd, mmap and turning mapped bytes into atomics need it")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::layout::{
    ABI_VERSION, DEVICE_ROWS_OFFSET, DeviceLimits, DeviceTotals, LEDGER_BYTES, LEDGER_MAGIC, LIMITS_BYTES,
    LIMITS_MAGIC, LedgerHeader, LimitsHeader, SEAT_BYTES, SEATS_OFFSET, Seat,
};
use crate::limits::{DEVICES_MAX, SEATS_MAX};

/// Why a segment cannot be used. Each variant names who is at fault.
#[derive(Debug)]
#[non_exhaustive]
pub enum SegmentError {
    /// The kernel refused a step.
    Kernel {
        /// Which step.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The peer's segment has another size than the layout.
    Size {
        /// Bytes found.
        found: u64,
        /// Bytes of the layout.
        expected: usize,
    },
    /// The peer's segment lacks a seal it must have.
    Unsealed {
        /// Seals found, as `F_GET_SEALS` gives them.
        found: i32,
        /// Seals required.
        required: i32,
    },
    /// The first word is not the magic number of this kind of segment.
    Magic {
        /// The word found.
        found: u64,
    },
    /// The peer speaks another layout version.
    Version {
        /// Version found.
        found: u32,
    },
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { step, source } => write!(f, "kernel: {step} failed: {source}"),
            Self::Size { found, expected } => {
                write!(
                    f,
                    "segment has {found} bytes where the layout has {expected}; is it truncated or foreign?"
                )
            }
            Self::Unsealed { found, required } => {
                write!(
                    f,
                    "segment seals are {found:#x} but {required:#x} are required; a peer could shrink it"
                )
            }
            Self::Magic { found } => write!(f, "not a Headgate segment: it starts with {found:#018x}"),
            Self::Version { found } => write!(
                f,
                "segment layout version {found} but this build speaks {ABI_VERSION}; \
                 install the same Headgate version for daemon and hook"
            ),
        }
    }
}

impl std::error::Error for SegmentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "4096")]
const LIMITS_BYTES_U32: u32 = LIMITS_BYTES as u32;
#[expect(clippy::cast_possible_truncation, reason = "4 MiB and a page")]
const LEDGER_BYTES_U32: u32 = LEDGER_BYTES as u32;

const SEALS_SIZE: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A mapped segment. Unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain shared memory that is only reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; every access is an atomic operation.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base..base+bytes` was mapped by this value and nothing borrowed from it outlives it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, bytes: usize, writable: bool) -> Result<Self, SegmentError> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; it aliases nothing of ours.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(SegmentError::Kernel {
                step: "mmap of a segment",
                source: io::Error::last_os_error(),
            });
        }
        let base = NonNull::new(base.cast()).ok_or(SegmentError::Kernel {
            step: "mmap of a segment",
            source: io::Error::other("mapped at address zero"),
        })?;
        Ok(Self { base, bytes })
    }

    /// Address of the mapping in this process.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    fn at<T>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.bytes, "offset {offset} is inside the layout");
        assert!(offset.is_multiple_of(align_of::<T>()), "offset {offset} is aligned for its type");
        // SAFETY: the range was just checked to lie inside the mapping.
        let pointer = unsafe { self.base.as_ptr().add(offset) }.cast::<T>();
        // SAFETY: in range and aligned; `T` is one of the layout structs, made of atomics only, for which any
        // bytes are valid and concurrent writers (tenant, daemon, GPU) are allowed.
        unsafe { &*pointer }
    }
}

/// The daemon's or the tenant's view of a limits segment.
#[derive(Debug)]
pub struct LimitsSegment(Mapping);

impl LimitsSegment {
    /// Makes, maps and seals a fresh segment. The returned file can be given to tenants: the seal lets nobody
    /// but this very mapping write to it.
    pub fn create() -> Result<(Self, OwnedFd), SegmentError> {
        let fd = memfd(c"headgate-limits", LIMITS_BYTES)?;
        let mapping = Mapping::new(fd.as_fd(), LIMITS_BYTES, true)?;
        seal(fd.as_fd(), SEALS_SIZE | libc::F_SEAL_FUTURE_WRITE)?;
        let this = Self(mapping);
        let header = this.header();
        header.bytes.store(LIMITS_BYTES_U32, Release);
        header.abi_version.store(ABI_VERSION, Release);
        header.magic.store(LIMITS_MAGIC, Release);
        Ok((this, fd))
    }

    /// Maps a segment received from a daemon, read only, after checking size, seals and header.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self, SegmentError> {
        check_file(fd, LIMITS_BYTES, SEALS_SIZE | libc::F_SEAL_FUTURE_WRITE)?;
        let this = Self(Mapping::new(fd, LIMITS_BYTES, false)?);
        let header = this.header();
        check_header(header.magic.load(Acquire), LIMITS_MAGIC, header.abi_version.load(Acquire))?;
        Ok(this)
    }

    /// The head.
    #[must_use]
    pub fn header(&self) -> &LimitsHeader {
        self.0.at(0)
    }

    /// The row of a device. Panics when `device` is not below [`DEVICES_MAX`].
    #[must_use]
    pub fn device(&self, device: usize) -> &DeviceLimits {
        assert!(device < DEVICES_MAX, "device row {device} exists");
        self.0.at(DEVICE_ROWS_OFFSET + device * size_of::<DeviceLimits>())
    }
}

/// The daemon's or the tenant's view of a ledger segment.
#[derive(Debug)]
pub struct LedgerSegment(Mapping);

impl LedgerSegment {
    /// Makes, maps and seals a fresh, empty segment.
    pub fn create() -> Result<(Self, OwnedFd), SegmentError> {
        let fd = memfd(c"headgate-ledger", LEDGER_BYTES)?;
        seal(fd.as_fd(), SEALS_SIZE)?;
        let this = Self(Mapping::new(fd.as_fd(), LEDGER_BYTES, true)?);
        let header = this.header();
        header.bytes.store(LEDGER_BYTES_U32, Release);
        header.abi_version.store(ABI_VERSION, Release);
        header.magic.store(LEDGER_MAGIC, Release);
        Ok((this, fd))
    }

    /// Maps a segment made by another process (or another run of the daemon), after checking it.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self, SegmentError> {
        check_file(fd, LEDGER_BYTES, SEALS_SIZE)?;
        let this = Self(Mapping::new(fd, LEDGER_BYTES, true)?);
        let header = this.header();
        check_header(header.magic.load(Acquire), LEDGER_MAGIC, header.abi_version.load(Acquire))?;
        Ok(this)
    }

    /// The head.
    #[must_use]
    pub fn header(&self) -> &LedgerHeader {
        self.0.at(0)
    }

    /// The tenant's total on a device. Panics when `device` is not below [`DEVICES_MAX`].
    #[must_use]
    pub fn totals(&self, device: usize) -> &DeviceTotals {
        assert!(device < DEVICES_MAX, "device row {device} exists");
        self.0.at(DEVICE_ROWS_OFFSET + device * size_of::<DeviceTotals>())
    }

    /// A seat. Panics when `seat` is not below [`SEATS_MAX`].
    #[must_use]
    pub fn seat(&self, seat: usize) -> &Seat {
        assert!(seat < SEATS_MAX, "seat {seat} exists");
        self.0.at(SEATS_OFFSET + seat * SEAT_BYTES)
    }
}

fn memfd(name: &std::ffi::CStr, bytes: usize) -> Result<OwnedFd, SegmentError> {
    // SAFETY: `name` is NUL-terminated and the flags are valid.
    let raw = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if raw < 0 {
        return Err(SegmentError::Kernel { step: "memfd_create", source: io::Error::last_os_error() });
    }
    // SAFETY: the descriptor was just made and is owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: plain call on our own descriptor.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), bytes as libc::off_t) } != 0 {
        return Err(SegmentError::Kernel {
            step: "ftruncate of a segment",
            source: io::Error::last_os_error(),
        });
    }
    Ok(fd)
}

fn seal(fd: BorrowedFd<'_>, seals: i32) -> Result<(), SegmentError> {
    // SAFETY: plain call on a descriptor of ours.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
        return Err(SegmentError::Kernel {
            step: "sealing of a segment",
            source: io::Error::last_os_error(),
        });
    }
    Ok(())
}

/// A peer that could shrink the file after the check could turn every later access into SIGBUS: size and
/// seals are checked together, and the seals make the size final.
fn check_file(fd: BorrowedFd<'_>, expected: usize, required: i32) -> Result<(), SegmentError> {
    // SAFETY: plain call on a descriptor we borrow.
    let found = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    if found < 0 {
        return Err(SegmentError::Kernel {
            step: "reading a segment's seals",
            source: io::Error::last_os_error(),
        });
    }
    if found & required != required {
        return Err(SegmentError::Unsealed { found, required });
    }
    // SAFETY: an all-zero stat is a valid value to be overwritten.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writing for the length of the call.
    if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(SegmentError::Kernel { step: "fstat of a segment", source: io::Error::last_os_error() });
    }
    let found = u64::try_from(stat.st_size).unwrap_or(0);
    if found != expected as u64 {
        return Err(SegmentError::Size { found, expected });
    }
    Ok(())
}

fn check_header(magic: u64, expected: u64, version: u32) -> Result<(), SegmentError> {
    if magic != expected {
        return Err(SegmentError::Magic { found: magic });
    }
    if version != ABI_VERSION {
        return Err(SegmentError::Version { found: version });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_cannot_write_limits() {
        let (daemon, fd) = LimitsSegment::create().unwrap();
        daemon.device(3).memory_bytes_max.store(42, Release);
        let tenant = LimitsSegment::open(fd.as_fd()).unwrap();
        assert_eq!(tenant.device(3).memory_bytes_max.load(Acquire), 42);
        assert!(Mapping::new(fd.as_fd(), LIMITS_BYTES, true).is_err(), "the seal refuses a writable mapping");
    }

    #[test]
    fn foreign_files_are_refused_by_name() {
        let fd = memfd(c"foreign", LIMITS_BYTES).unwrap();
        assert!(matches!(LimitsSegment::open(fd.as_fd()), Err(SegmentError::Unsealed { .. })));
        seal(fd.as_fd(), SEALS_SIZE | libc::F_SEAL_FUTURE_WRITE).unwrap();
        assert!(matches!(LimitsSegment::open(fd.as_fd()), Err(SegmentError::Magic { found: 0 })));
        let (_, ledger) = LedgerSegment::create().unwrap();
        assert!(LimitsSegment::open(ledger.as_fd()).is_err());
        let small = memfd(c"small", 100).unwrap();
        seal(small.as_fd(), SEALS_SIZE).unwrap();
        assert!(matches!(LedgerSegment::open(small.as_fd()), Err(SegmentError::Size { found: 100, .. })));
    }
}
