//! Sending without a signal: a program whose worker dies must not die of `SIGPIPE`, which vectored writes raise. And
//! receiving without waiting.
#![expect(unsafe_code, reason = "the standard library's writes and reads take no flags")]

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

/// Receives what is there, without waiting for more.
pub(super) fn receive(socket: BorrowedFd<'_>, to: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the length of a buffer that is borrowed for the call.
    let received =
        unsafe { libc::recv(socket.as_raw_fd(), to.as_mut_ptr().cast(), to.len(), libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}
