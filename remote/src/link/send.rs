//! What the standard library's sockets cannot do: send without a signal (a program whose worker dies must not die of
//! `SIGPIPE`, which vectored writes raise), receive without waiting or into two places, and pass a descriptor on.
#![expect(
    unsafe_code,
    reason = "the standard library's writes and reads take no flags and pass no descriptors"
)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Bytes of a control message that carries one descriptor, and of its head.
const CONTROL_BYTES: usize = size_of::<libc::cmsghdr>() + size_of::<u64>();
const CONTROL_LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<RawFd>();

/// Memory for one control message, aligned as its head is.
#[repr(C)]
struct Control {
    head: libc::cmsghdr,
    descriptor: RawFd,
    _padding: u32,
}

const _: () = assert!(size_of::<Control>() == CONTROL_BYTES);

fn run(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn place(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn message(runs: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = runs.as_mut_ptr();
    message.msg_iovlen = runs.len();
    message
}

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Bounds what the kernel takes of a connection before it has put it on the wire (`TCP_NOTSENT_LOWAT`, tcp(7)).
pub(super) fn bound_unsent(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let place = (&raw const bytes).cast();
    let length = libc::socklen_t::try_from(size_of_val(&bytes)).unwrap_or(0);
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
    // SAFETY: the option's value is an integer of this size, which outlives the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends of some runs of bytes what the socket takes; how much that was.
pub(super) fn send(socket: BorrowedFd<'_>, parts: [&[u8]; 3]) -> io::Result<usize> {
    let mut runs = parts.map(run);
    let message = message(&mut runs);
    // SAFETY: the message names runs of readable bytes, which outlive the call.
    count(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
}

/// The same with a descriptor, which comes with the first byte.
pub(super) fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let mut runs = [run(bytes)];
    let mut message = message(&mut runs);
    let mut control = Control {
        head: libc::cmsghdr {
            cmsg_len: CONTROL_LENGTH,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor: descriptor.as_raw_fd(),
        _padding: 0,
    };
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_BYTES;
    // SAFETY: the message names a run of readable bytes and a control message, which outlive the call.
    count(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
}

/// Waits for bytes, and for a descriptor that may come with them.
pub(super) fn receive_with(socket: BorrowedFd<'_>, to: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut runs = [place(to)];
    let mut message = message(&mut runs);
    // SAFETY: all zero is an empty control message.
    let mut control: Control = unsafe { std::mem::zeroed() };
    message.msg_control = (&raw mut control).cast();
    // Not its whole size, into which a second descriptor would fit that nobody expects and nobody would close.
    message.msg_controllen = CONTROL_LENGTH;
    // SAFETY: the kernel writes no more than the buffers hold, which are borrowed for the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let received = count(received)?;
    let is_descriptor = message.msg_controllen >= CONTROL_LENGTH
        && control.head.cmsg_level == libc::SOL_SOCKET
        && control.head.cmsg_type == libc::SCM_RIGHTS
        && control.head.cmsg_len == CONTROL_LENGTH;
    // SAFETY: the kernel has just opened it for this process; nobody else knows of it. Of more than one, those that did not
    // fit were not opened.
    let descriptor = is_descriptor.then(|| unsafe { OwnedFd::from_raw_fd(control.descriptor) });
    Ok((received, descriptor))
}

/// Waits for bytes; the second place gets what is left when the first is full.
pub(super) fn receive_two(socket: BorrowedFd<'_>, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
    let mut runs = [place(first), place(second)];
    let mut message = message(&mut runs);
    // SAFETY: the kernel writes no more than the places hold, which are borrowed for the call.
    count(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) })
}

/// Receives what is there, without waiting for more.
pub(super) fn receive(socket: BorrowedFd<'_>, to: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the length of a buffer that is borrowed for the call.
    count(unsafe { libc::recv(socket.as_raw_fd(), to.as_mut_ptr().cast(), to.len(), libc::MSG_DONTWAIT) })
}

/// Sends a byte that means nothing but that there is something to see, if the socket takes it.
pub fn nudge(socket: BorrowedFd<'_>) {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: one readable byte. If the socket is full of these, whoever reads it is being woken; if it is gone, its
    // reader sees that.
    let _full_or_gone = unsafe { libc::send(socket.as_raw_fd(), [1u8].as_ptr().cast(), 1, flags) };
}

/// Whether the other end is gone.
pub(super) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one record, borrowed for the call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR) != 0
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Sends as many descriptors as fit.
    fn send_two(socket: BorrowedFd<'_>, descriptors: [RawFd; 2]) {
        #[repr(C)]
        struct Two {
            head: libc::cmsghdr,
            descriptors: [RawFd; 2],
        }
        let length = size_of::<Two>();
        let head =
            libc::cmsghdr { cmsg_len: length, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
        let mut control = Two { head, descriptors };
        let mut runs = [run(b"x")];
        let mut message = message(&mut runs);
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = length;
        // SAFETY: as in `send_with`.
        assert_eq!(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) }, 1);
    }

    #[test]
    fn a_descriptor_comes_through_and_a_second_one_is_nobodys() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut end, passed) = UnixStream::pair().unwrap();
        send_with(near.as_fd(), b"y", passed.as_fd()).unwrap();
        let (count, one) = receive_with(far.as_fd(), &mut [0; 8]).unwrap();
        assert!(count == 1 && one.is_some());
        drop(one);
        send_two(near.as_fd(), [passed.as_raw_fd(); 2]);
        let (count, one) = receive_with(far.as_fd(), &mut [0; 8]).unwrap();
        assert!(count == 1 && one.is_some());
        drop((one, passed));
        // Nobody has it any more, so its other end hears that.
        end.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(end.read(&mut [0; 8]).unwrap(), 0);
        near.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(matches!(receive_with(far.as_fd(), &mut [0; 8]), Ok((0, None))));
    }
}
