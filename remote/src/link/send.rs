//! Sending without a signal: a program whose worker dies must not die of `SIGPIPE`, which vectored writes raise.
#![expect(unsafe_code, reason = "the standard library's vectored write takes no flags")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Sends of two runs of bytes what the socket takes; how much that was.
pub(super) fn send(socket: BorrowedFd<'_>, first: &[u8], second: &[u8]) -> io::Result<usize> {
    let run = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut runs = [run(first), run(second)];
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = runs.as_mut_ptr();
    message.msg_iovlen = runs.len();
    // SAFETY: the message names two runs of readable bytes, which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
