//! Who reads a connection: a thread of its own, unless somebody else does for the time being.
#![expect(unsafe_code, reason = "the standard library has no epoll")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::Stream;

/// Wakes the thread that reads when something comes. A thread that waits for an answer mutes it and reads in its place,
/// which saves handing the answer over.
#[derive(Debug)]
pub(crate) struct Bell {
    epoll: OwnedFd,
}

/// A result of the C library.
fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Bell {
    /// A bell for a connection.
    ///
    /// # Errors
    /// The system's own.
    pub(crate) fn on(stream: &Stream) -> io::Result<Self> {
        // SAFETY: takes a number.
        let epoll = done(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a descriptor that was just made and belongs to nobody else.
        let bell = Self { epoll: unsafe { OwnedFd::from_raw_fd(epoll) } };
        bell.follow(stream)?;
        Ok(bell)
    }

    /// Rings for another connection from now on. The one before takes itself off when it is closed.
    ///
    /// # Errors
    /// The system's own.
    pub(crate) fn follow(&self, stream: &Stream) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, stream, libc::EPOLLIN)
    }

    /// Rings no more, but for the connection's end.
    pub(crate) fn mute(&self, stream: &Stream) {
        // A bell that cannot be muted wakes a thread for nothing.
        let _still_rings = self.control(libc::EPOLL_CTL_MOD, stream, 0);
    }

    /// Rings again, at once if something has come.
    pub(crate) fn unmute(&self, stream: &Stream) {
        let rings = self.control(libc::EPOLL_CTL_MOD, stream, libc::EPOLLIN);
        debug_assert!(rings.is_ok(), "the connection is the bell's: {rings:?}");
    }

    /// Waits until it rings.
    pub(crate) fn wait(&self) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: one event is asked for, and there is a place for one. An interruption looks like a ring, and does no
        // harm: whoever was woken finds nothing.
        let _rung = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, -1) };
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> i32 {
        self.epoll.as_raw_fd()
    }

    fn control(&self, operation: i32, stream: &Stream, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 0 };
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: both descriptors are open; the event is read only.
        done(unsafe { libc::epoll_ctl(epoll, operation, stream.descriptor(), &raw mut event) }).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_muted_bell_is_silent_until_it_is_unmuted_or_the_connection_ends() {
        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (Stream::Unix(near), Stream::Unix(far));
        let bell = Bell::on(&near).unwrap();
        let (rang, rings) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    bell.wait();
                    bell.mute(&near);
                    rang.send(()).unwrap();
                }
            });
            bell.mute(&near);
            far.write_both(b"one", b"").unwrap();
            let silent = rings.recv_timeout(Duration::from_millis(20));
            assert_eq!(silent, Err(RecvTimeoutError::Timeout));
            bell.unmute(&near);
            rings.recv().unwrap();
            far.shut();
            rings.recv().unwrap();
        });
    }
}
