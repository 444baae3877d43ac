//! The daemon's one unsafe room: system calls that no crate we use wraps safely.
#![expect(unsafe_code, reason = "pidfds, futex and waiting on a pidfd have no safe wrapper")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

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
