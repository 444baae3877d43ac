//! The system calls that need unsafe code: shared mappings, futexes, reservations of address space.
#![expect(unsafe_code, reason = "mmap and futex have no safe form; every use is in this room")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// A type that may lie in memory shared with a process that is not trusted: any bytes are a value of it, and it is
/// only ever changed through atomics.
///
/// # Safety
/// The implementor consists of atomic integers only.
pub(crate) unsafe trait Shared {}

// SAFETY: the page is made of atomics only (see its definition).
unsafe impl Shared for crate::page::Page {}

// SAFETY: two atomics (see its definition).
unsafe impl Shared for crate::shared_event::Words {}

/// A shared mapping of one `T` at the start of a file.
#[derive(Debug)]
pub(crate) struct SharedMapping<T> {
    base: NonNull<T>,
}

// SAFETY: `T: Shared` consists of atomics, so threads may use it together; the mapping itself never changes.
unsafe impl<T: Shared> Send for SharedMapping<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for SharedMapping<T> {}

impl<T: Shared> SharedMapping<T> {
    /// Maps the file, which must be at least as long as `T`.
    pub(crate) fn new(file: BorrowedFd<'_>) -> io::Result<Self> {
        let length = size_of::<T>();
        let size = nix::sys::stat::fstat(file)?.st_size;
        if usize::try_from(size).is_ok_and(|size| size < length) {
            return Err(io::Error::other(format!("a file of {size} bytes is too short to share")));
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let base = map(length, prot, libc::MAP_SHARED, file.as_raw_fd())?;
        Ok(Self { base: base.cast() })
    }
}

impl<T: Shared> std::ops::Deref for SharedMapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping holds size_of::<T>() bytes for as long as self lives, page-aligned; T allows any bytes
        // and concurrent atomic writers.
        unsafe { self.base.as_ref() }
    }
}

impl<T> Drop for SharedMapping<T> {
    fn drop(&mut self) {
        unmap(self.base.cast(), size_of::<T>());
    }
}

/// Private zeroed memory that costs nothing until it is touched.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is private memory owned by this value, reached through its borrows only, like a Vec's.
unsafe impl Send for Reservation {}

impl Reservation {
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let base = map(length, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        Ok(Self { base, length })
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is private to this process, as long as self, readable and writable, and `&mut self` makes
        // the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }

    /// Makes a part zero, giving whole pages back to the system.
    pub(crate) fn clear(&mut self, offset: usize, length: usize) {
        const PAGE: usize = 4096;
        let end = offset.saturating_add(length).min(self.length);
        let (first, last) = (offset.next_multiple_of(PAGE), end / PAGE * PAGE);
        if last.saturating_sub(first) < 16 * PAGE {
            self.bytes_mut()[offset..end].fill(0);
            return;
        }
        let part = &mut self.bytes_mut()[first..last];
        // SAFETY: the range is whole pages inside this private anonymous mapping, borrowed uniquely; afterwards it
        // reads as zeros, which are valid bytes.
        let result = unsafe { libc::madvise(part.as_mut_ptr().cast(), part.len(), libc::MADV_DONTNEED) };
        if result != 0 {
            part.fill(0);
        }
        self.bytes_mut()[offset..first].fill(0);
        self.bytes_mut()[last..end].fill(0);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        unmap(self.base, self.length);
    }
}

fn map(length: usize, prot: i32, flags: i32, fd: i32) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, fd, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
}

fn unmap(base: NonNull<u8>, length: usize) {
    // SAFETY: the owner of the mapping is being dropped, so nothing borrows it any more.
    let result = unsafe { libc::munmap(base.as_ptr().cast(), length) };
    debug_assert_eq!(result, 0, "munmap of an own mapping");
}

/// Sleeps while `word` holds `expected`, for at most `timeout`. Returns early at any time.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: the word is live for the whole call and the timeout is a valid timespec. Every outcome is a wake-up to
    // the caller, who checks its own condition.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const timeout);
    }
}

/// Wakes everyone who sleeps on `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is live; waking changes no memory.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}

/// Lets this process's timers expire when they are due instead of up to 50 us later.
pub(crate) fn exact_timers() {
    // SAFETY: a call without pointers that only changes this thread's timer slack.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64);
    }
}

/// Allows the process `pid` to read and write this one's memory, as a device reaches the pinned memory of its
/// programs. Without Yama in the kernel the call does nothing and none is needed.
pub(crate) fn allow_access_by(pid: u32) {
    // SAFETY: a call without pointers that only changes who may attach to this process.
    unsafe {
        libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(pid));
    }
}

/// The low 32 bits of a counter, as a futex needs them.
pub(crate) fn low_half(counter: &std::sync::atomic::AtomicU64) -> &AtomicU32 {
    const _: () = assert!(cfg!(target_endian = "little"), "the low half comes first");
    let word = counter.as_ptr().cast::<u32>();
    // SAFETY: the word lies inside the counter, which outlives the borrow, and is aligned; it is handed to futex calls
    // only, never read or written as an atomic of this size.
    unsafe { AtomicU32::from_ptr(word) }
}
