//! Who reads a connection: a thread of its own, unless somebody else does for the time being.
//!
//! Of rings the bell is their socket, which is silent unless somebody lies down; so it need be muted only for as long as
//! another thread sleeps on the same socket.
#![expect(unsafe_code, reason = "the standard library has no epoll")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Stream;

/// Wakes the thread that reads when something comes. A thread that waits for an answer mutes it and reads in its place,
/// which saves handing the answer over.
#[derive(Debug)]
pub(crate) struct Bell {
    epoll: OwnedFd,
    /// What it listens for is another thing than what comes. Changed by whoever reads.
    changed: AtomicBool,
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
        let bell = Self { epoll: unsafe { OwnedFd::from_raw_fd(epoll) }, changed: AtomicBool::new(false) };
        bell.follow(stream)?;
        Ok(bell)
    }

    /// One that rings only for a connection's end, whatever comes over it and whoever reads that.
    ///
    /// # Errors
    /// The system's own.
    pub(crate) fn for_end_of(stream: &Stream) -> io::Result<Self> {
        let bell = Self::on(stream)?;
        bell.control(libc::EPOLL_CTL_MOD, stream, 0)?;
        Ok(bell)
    }

    /// Rings for another connection from now on. The one before takes itself off when it is closed.
    ///
    /// # Errors
    /// The system's own.
    pub(crate) fn follow(&self, stream: &Stream) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, stream, libc::EPOLLIN)
    }

    /// Rings no more, but for the connection's end: the caller looks.
    pub(crate) fn mute(&self, stream: &Stream) {
        match stream.near() {
            Some(near) => near.get_up(),
            None => self.silence(stream),
        }
    }

    /// The same for a caller that is going to sleep until something comes.
    pub(crate) fn mute_for_sleep(&self, stream: &Stream) {
        if stream.near().is_some() {
            self.silence(stream);
        }
    }

    fn silence(&self, stream: &Stream) {
        // A bell that cannot be muted wakes a thread for nothing.
        let silent = self.control(libc::EPOLL_CTL_MOD, stream, 0).is_ok();
        self.changed.store(silent, Ordering::Relaxed);
    }

    /// Rings again, at once if something has come.
    pub(crate) fn unmute(&self, stream: &Stream) {
        let there = stream.near().is_some_and(|near| !near.lie_down());
        if there {
            // Of what is in rings already their socket does not tell. That it could be written to it tells at once.
            self.listen(stream, libc::EPOLLIN | libc::EPOLLOUT);
            self.changed.store(true, Ordering::Relaxed);
        } else if self.changed.swap(false, Ordering::Relaxed) {
            self.listen(stream, libc::EPOLLIN);
        }
    }

    fn listen(&self, stream: &Stream, events: i32) {
        let rings = self.control(libc::EPOLL_CTL_MOD, stream, events);
        debug_assert!(rings.is_ok(), "the connection is the bell's: {rings:?}");
    }

    /// Waits until it rings.
    pub(crate) fn wait(&self, stream: &Stream) {
        if stream.near().is_some_and(|near| !near.lie_down()) {
            return;
        }
        self.wait_for_end();
    }

    /// Waits until it rings: of a bell [`Bell::for_end_of`], for that.
    pub(crate) fn wait_for_end(&self) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: one event is asked for, and there is a place for one. An interruption looks like a ring, and does no
        // harm: whoever was woken finds nothing.
        let _rung = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, -1) };
    }

    /// Takes what rang from rings, so that they are silent again. Only for whoever reads.
    pub(crate) fn answer(&self, stream: &Stream) {
        if let Some(near) = stream.near() {
            near.get_up();
            near.answer();
            if self.changed.swap(false, Ordering::Relaxed) {
                self.listen(stream, libc::EPOLLIN);
            }
        }
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
    use std::sync::mpsc::{RecvTimeoutError, TryRecvError, channel};
    use std::time::Duration;

    use super::super::{Memory, Side};
    use super::*;

    #[test]
    fn the_bell_of_rings_rings_for_what_is_in_them_when_it_is_unmuted() {
        let (near, far) = UnixStream::pair().unwrap();
        let (memory, descriptor) = Memory::make().unwrap();
        let near = Stream::Unix(near).over(Memory::of(descriptor).unwrap(), Side::Client).unwrap();
        let far = Stream::Unix(far).over(memory, Side::Worker).unwrap();
        let bell = Bell::on(&near).unwrap();
        let mut place = [0; 8];
        for sleeps in [false, true] {
            // Before it waits, while it is muted for somebody who looks or sleeps, and while it waits.
            far.write_both(b"one", b"").unwrap();
            bell.wait(&near);
            bell.answer(&near);
            assert_eq!(near.read_now(&mut place).unwrap(), Some(3));
            bell.mute(&near);
            if sleeps {
                bell.mute_for_sleep(&near);
            }
            far.write_both(b"three", b"").unwrap();
            bell.unmute(&near);
            bell.wait(&near);
            bell.answer(&near);
            assert_eq!(near.read_now(&mut place).unwrap(), Some(5));
            assert_eq!(near.read_now(&mut place).unwrap(), None);
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| bell.wait(&near));
                far.write_both(b"more", b"").unwrap();
                waits.join().unwrap();
            });
            bell.answer(&near);
            assert_eq!(near.read_now(&mut place).unwrap(), Some(4));
            // Whoever waits already is woken, too.
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| bell.wait(&near));
                bell.mute(&near);
                far.write_both(b"again", b"").unwrap();
                bell.unmute(&near);
                waits.join().unwrap();
            });
            bell.answer(&near);
            assert_eq!(near.read_now(&mut place).unwrap(), Some(5));
        }
        far.shut();
        bell.wait(&near);
        bell.answer(&near);
        assert_eq!(near.read_now(&mut place).unwrap(), Some(0));
    }

    #[test]
    fn whoever_waits_for_the_end_of_rings_takes_nobodys_wake_up() {
        let (near, far) = UnixStream::pair().unwrap();
        let (memory, descriptor) = Memory::make().unwrap();
        let near = Stream::Unix(near).over(Memory::of(descriptor).unwrap(), Side::Client).unwrap();
        let far = Stream::Unix(far).over(memory, Side::Worker).unwrap();
        let (near, mut place) = (&near, [0; 8]);
        let (rang, rung) = channel();
        std::thread::scope(|scope| {
            let bell = Bell::for_end_of(near).unwrap();
            scope.spawn(move || {
                bell.wait_for_end();
                rang.send(()).unwrap();
            });
            for round in 0..200u8 {
                far.write_both(&[round], b"").unwrap();
                assert_eq!(near.read(&mut place).unwrap(), 1);
                assert_eq!(place[0], round);
            }
            assert_eq!(rung.try_recv(), Err(TryRecvError::Empty));
            far.shut();
            rung.recv().unwrap();
        });
    }

    #[test]
    fn a_muted_bell_is_silent_until_it_is_unmuted_or_the_connection_ends() {
        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (Stream::Unix(near), Stream::Unix(far));
        let bell = Bell::on(&near).unwrap();
        let (rang, rings) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    bell.wait(&near);
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
