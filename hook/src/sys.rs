//! libc calls.
#![expect(unsafe_code, reason = "sockets, futexes and clocks have no safe interface without another crate")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

/// Descriptors a welcome carries: limits and ledger.
pub(crate) const WELCOME_DESCRIPTORS: usize = 2;

/// Monotonic time in microseconds, to the kernel's tick (a few milliseconds): a few nanoseconds a read.
pub(crate) fn now_coarse_us() -> u64 {
    clock_us(libc::CLOCK_MONOTONIC_COARSE)
}

/// Monotonic time in microseconds.
pub(crate) fn now_us() -> u64 {
    clock_us(libc::CLOCK_MONOTONIC)
}

fn clock_us(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; both clocks exist on every kernel that runs a CUDA driver.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// Sleeps for at most `micros`. Not by libc's function: a thread that is cancelled there (`pthread_cancel`) would be unwound
/// through our frames, which ends the program.
pub(crate) fn sleep_us(micros: u64) {
    let span = timespec(micros);
    // SAFETY: `span` is valid for reading; a signal may cut the sleep short, which every caller allows for.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const span, std::ptr::null_mut::<libc::timespec>()) };
}

/// Sleeps until the shared word changes from `seen`, is woken, or `micros` pass.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32, micros: u64) {
    let span = timespec(micros);
    // SAFETY: the word lives in a mapping that is never unmapped, and `span` is valid for reading. Not the
    // private variant: the waker is another process.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &raw const span, 0usize, 0)
    };
}

/// Wakes everyone who waits on the shared word, in whatever process. Nobody waiting is no error.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: the word lives in a mapping that is never unmapped; the call only uses its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

fn timespec(micros: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(micros / 1_000_000).unwrap_or(1),
        tv_nsec: libc::c_long::try_from(micros % 1_000_000 * 1_000).unwrap_or(0),
    }
}

/// Connects to a Unix stream socket; the whole conversation is bounded by `wait_ms`.
pub(crate) fn connect(path: &[u8], wait_ms: u64) -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let raw = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let limit = libc::timeval {
        tv_sec: libc::time_t::try_from(wait_ms / 1_000).unwrap_or(1),
        tv_usec: libc::suseconds_t::try_from(wait_ms % 1_000 * 1_000).unwrap_or(0),
    };
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let bytes = socklen(size_of::<libc::timeval>());
        // SAFETY: `limit` is valid for reading `bytes` bytes.
        unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, option, (&raw const limit).cast(), bytes) };
    }
    // SAFETY: an all-zero address is a valid value to be filled in.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if address.sun_path.len() <= path.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the socket's path is longer than the kernel allows",
        ));
    }
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
    for (slot, byte) in address.sun_path.iter_mut().zip(path) {
        *slot = byte.cast_signed();
    }
    let bytes = socklen(size_of::<libc::sockaddr_un>());
    // SAFETY: `address` is a filled-in address of `bytes` bytes.
    if unsafe { libc::connect(raw, (&raw const address).cast(), bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// Sends all of `bytes`. A closed peer is an error, never a signal.
pub(crate) fn send(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for reading its own length.
        let sent =
            unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => bytes = &bytes[sent.min(bytes.len())..],
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Receives some bytes and any descriptors that come with them. Zero bytes: the peer closed.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    received: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 8];
    // SAFETY: an all-zero header is a valid value to be filled in.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let count = loop {
        // SAFETY: the header points at buffers that outlive the call, with their true lengths.
        let count = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(count) {
            Ok(count) => break count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    // SAFETY: the kernel filled the header's control buffer; the CMSG macros walk it within its length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: `message` is a header inside the control buffer, which is aligned for it.
        let head = unsafe { *message };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: plain arithmetic on a header inside the buffer.
            let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
            // SAFETY: plain arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let descriptors = head.cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            for index in 0..descriptors {
                // SAFETY: the kernel wrote `descriptors` descriptors there.
                let at = unsafe { data.add(index) };
                // SAFETY: as above; the data of a control message need not be aligned.
                let raw = unsafe { at.read_unaligned() };
                // SAFETY: the kernel just installed this descriptor for us.
                received.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(count)
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX)
}

/// Calls `child` in every process this one forks.
pub(crate) fn after_fork_in_child(child: extern "C" fn()) {
    // SAFETY: registering a handler that touches only atomics and thread-local cells.
    unsafe { libc::pthread_atfork(None, None, Some(child_handler(child))) };
}

fn child_handler(child: extern "C" fn()) -> unsafe extern "C" fn() {
    child
}

#[cfg(test)]
mod tests {
    use std::os::unix::thread::JoinHandleExt as _;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    #[test]
    fn a_cancelled_thread_is_not_unwound_in_our_sleep() {
        unsafe extern "C" {
            fn pthread_cancel(thread: libc::pthread_t) -> libc::c_int;
        }
        static SLEEPS: AtomicBool = AtomicBool::new(false);
        static CANCELLED: AtomicBool = AtomicBool::new(false);
        let thread = std::thread::spawn(|| {
            while !CANCELLED.load(SeqCst) {
                SLEEPS.store(true, SeqCst);
                sleep_us(1_000);
            }
            sleep_us(1_000);
        });
        while !SLEEPS.load(SeqCst) {
            std::thread::yield_now();
        }
        // SAFETY: the thread has not been joined, and does nothing else that a cancellation could end.
        unsafe { pthread_cancel(thread.as_pthread_t()) };
        CANCELLED.store(true, SeqCst);
        assert!(thread.join().is_ok());
    }
}
