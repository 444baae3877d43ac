//! The daemon's one unsafe room: system calls that no crate we use wraps safely.
#![expect(
    unsafe_code,
    reason = "pidfds, futexes, waiting on a pidfd and NVML's newest calls have no safe wrapper"
)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use headgate_abi::nvml::{NvmlDevice, NvmlReturn, NvmlSetMemoryLimits};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: plain call without pointers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = RawFd::try_from(raw).map_err(|_| io::Error::other("pidfd_open returned no descriptor"))?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Whether the loader finds a library of that name, as a program started from here would.
pub(crate) fn loads(library: &CStr) -> bool {
    // SAFETY: runs what the vendor's library does when it is loaded, which any program that uses it does, too.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return false;
    }
    // SAFETY: gives back what was just taken.
    unsafe { libc::dlclose(handle) };
    true
}

/// Kills the process behind the descriptor, and no other that has its number by now.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, none) = (std::os::fd::AsRawFd::as_raw_fd(&pidfd), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is borrowed for the call; a null siginfo asks for the one that kill(2) sends.
    let outcome = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Wakes everyone who waits on the word, in whatever process. Nobody waiting is no error.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: the word is borrowed for the call, and FUTEX_WAKE only uses its address. The futex is shared (no
    // FUTEX_PRIVATE_FLAG), so the kernel finds waiters by the page behind the address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps until the word is woken or is not `seen` any more, or the moment (`CLOCK_MONOTONIC`) has come.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32, until: Duration) -> io::Result<()> {
    const ANY_WAKER: u32 = u32::MAX;
    let until = timespec(until);
    let (address, none) = (word.as_ptr(), std::ptr::null::<u32>());
    // SAFETY: the word and the moment are borrowed for the call. This form of the call takes a moment, not a span.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_futex,
            address,
            libc::FUTEX_WAIT_BITSET,
            seen,
            &raw const until,
            none,
            ANY_WAKER,
        )
    };
    waited(outcome)
}

fn timespec(moment: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(moment.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(moment.subsec_nanos().cast_signed()),
    }
}

/// What a futex wait says, of which only one thing is an error: that the kernel has no such call.
fn waited(outcome: libc::c_long) -> io::Result<()> {
    if 0 <= outcome {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ETIMEDOUT | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

/// Most words that can be waited for at once (`FUTEX_WAITV_MAX`).
pub(crate) const FUTEX_WORDS_MAX: usize = 128;

/// One word of `futex_waitv(2)`, as the kernel's UAPI lays it out.
#[repr(C)]
struct WaitFor {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Sleeps until one of the words is woken, one of them no longer has the value it is waited for with, or the moment
/// (`CLOCK_MONOTONIC`) has come. `Err` says that the kernel cannot do that: `futex_waitv` is there since Linux 5.16.
pub(crate) fn futex_wait_any(words: &[(&AtomicU32, u32)], until: Duration) -> io::Result<()> {
    /// `FUTEX2_SIZE_U32`; without `FUTEX2_PRIVATE` the futex is found by the page behind the address.
    const SHARED_WORD: u32 = 2;
    let words: Vec<WaitFor> = words
        .iter()
        .take(FUTEX_WORDS_MAX)
        .map(|(word, value)| WaitFor {
            value: u64::from(*value),
            address: word.as_ptr() as u64,
            flags: SHARED_WORD,
            reserved: 0,
        })
        .collect();
    let until = timespec(until);
    let (list, count) = (words.as_ptr(), words.len());
    // SAFETY: the list is valid for reading its length, every word in it is borrowed for the call, and so is the moment.
    let outcome = unsafe {
        libc::syscall(libc::SYS_futex_waitv, list, count, 0, &raw const until, libc::CLOCK_MONOTONIC)
    };
    waited(outcome)
}

/// Puts this thread ahead of ordinary ones, at the lowest real-time priority. Needs `CAP_SYS_NICE`.
pub(crate) fn run_ahead() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // A child must not inherit it.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameters are borrowed for the call; 0 is the calling thread.
    let outcome = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Registers a descriptor with the runtime, to wait until it is readable.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: the descriptor is borrowed for as long as the registration lives, so it stays open and is the same
    // file until the registration has been taken back.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}

type ByUuid = unsafe extern "C" fn(*const c_char, *mut NvmlDevice) -> NvmlReturn;
type SetLimits = unsafe extern "C" fn(NvmlDevice, *mut NvmlSetMemoryLimits) -> NvmlReturn;

/// NVML's limits of cgroups (drivers r615 and later), which no crate wraps yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimits {
    by_uuid: ByUuid,
    set: SetLimits,
}

impl MemoryLimits {
    /// The calls, where NVML has them. NVML must have been started.
    pub(crate) fn find() -> Option<Self> {
        static FOUND: OnceLock<Option<MemoryLimits>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            // SAFETY: asks only for a library that is loaded already, and keeps it so for good.
            let library =
                unsafe { libc::dlopen(c"libnvidia-ml.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
            if library.is_null() {
                return None;
            }
            let find = |name: &CStr| {
                // SAFETY: an open library and a NUL-terminated name.
                let found = unsafe { libc::dlsym(library, name.as_ptr()) };
                (!found.is_null()).then_some(found)
            };
            let by_uuid = find(c"nvmlDeviceGetHandleByUUID")?;
            let set = find(c"nvmlDeviceSetMemoryLimits_v1")?;
            // SAFETY: the function of this name has this signature.
            let by_uuid = unsafe { std::mem::transmute::<*mut c_void, ByUuid>(by_uuid) };
            // SAFETY: as above.
            let set = unsafe { std::mem::transmute::<*mut c_void, SetLimits>(set) };
            Some(Self { by_uuid, set })
        })
    }

    /// Limits what a cgroup may have on a device; nothing is guaranteed to it.
    pub(crate) fn set(&self, uuid: &str, cgroup: &Path, bytes: u64) -> NvmlReturn {
        let (Ok(uuid), Ok(cgroup)) = (CString::new(uuid), CString::new(cgroup.as_os_str().as_bytes())) else {
            return NvmlReturn::ERROR_INVALID_ARGUMENT;
        };
        let mut device = NvmlDevice(std::ptr::null_mut());
        // SAFETY: a NUL-terminated text, and an output that is valid for writing.
        let found = unsafe { (self.by_uuid)(uuid.as_ptr(), &raw mut device) };
        if found != NvmlReturn::SUCCESS {
            return found;
        }
        let mut limits =
            NvmlSetMemoryLimits { name_space: cgroup.as_ptr(), soft_limit: 0, hard_limit: bytes };
        // SAFETY: a device NVML has just named, and a structure that lives through the call, as does its path.
        unsafe { (self.set)(device, &raw mut limits) }
    }
}
