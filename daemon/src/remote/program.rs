//! The program's end of a session that this daemon carries: its Unix socket, or rings in memory that both have.
//!
//! ```text
//! greeting, with a wish for rings ──> door, which takes the wish out and offers rings ([`ToProgram::offer`])
//! welcome from the worker ──────────> program, with the rings' memory
//! program's answer ─────────────────> taken: everything behind it goes over the rings, both ways
//!                                     not taken, or no answer but something else: the socket, as without
//! ```
//!
//! So the wish and its answer stay on this node, and what the two daemons count is the same with rings and without. The
//! memory is this connection's; a session that goes on after a break gets other memory.
//!
//! Over rings the socket only rings: a byte on it means that there is something to read, or room to write. Both halves
//! sleep there, so whichever hears a byte wakes the other one, too. A program that is killed ends the socket, and what it
//! wrote before is still read; one that writes nonsense into the memory is told apart from one that is gone, and its
//! session ends as the program's fault.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::task::AtomicWaker;
use headgate_remote::limits::RING_TOLD_BYTES;
use headgate_remote::link::{Awaited, nudge};
use headgate_remote::wire::Malformed;
use headgate_remote::wire::frame::{HEADER_BYTES, Header, Kind, Rings};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Bytes of the program's answer: a frame of one byte.
const ANSWER_BYTES: usize = HEADER_BYTES + 1;
/// Bytes that rang, read at once. One is as good as many.
const RUNG_BYTES: usize = 64;

/// What the program said of the rings.
const UNANSWERED: u8 = 0;
const TAKEN: u8 = 1;
const LEFT: u8 = 2;

/// A half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    Reading = 0,
    Writing = 1,
}

/// Who waits for the socket to become readable. A socket remembers one of those only.
#[derive(Debug, Default)]
struct Sleepers([AtomicWaker; 2]);

impl Wake for Sleepers {
    fn wake(self: Arc<Self>) {
        self.0.iter().for_each(AtomicWaker::wake);
    }
}

/// What both halves share.
#[derive(Debug)]
struct Shared {
    socket: UnixStream,
    sleepers: Arc<Sleepers>,
    waker: Waker,
    /// The program would have rings, and the worker's welcome is still to come.
    offered: AtomicBool,
    rings: OnceLock<Awaited>,
    answer: AtomicU8,
    /// The socket has ended. What is in the ring is still to be read.
    ended: AtomicBool,
    /// The program has written what no ring has where this daemon writes.
    broken: AtomicBool,
}

/// Whether a connection of a program goes over rings, for whoever shows it.
#[derive(Debug, Default)]
pub(super) struct Seen(Weak<Shared>);

impl Seen {
    /// Whether it does.
    pub(super) fn over_rings(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.answer() == TAKEN)
    }
}

/// The reading half.
#[derive(Debug)]
pub(super) struct FromProgram {
    shared: Arc<Shared>,
    stage: Reading,
}

#[derive(Clone, Copy, Debug)]
enum Reading {
    /// What comes comes over the socket.
    Socket,
    /// Behind a greeting with a wish: so much of what may be the answer.
    Answer([u8; ANSWER_BYTES], usize),
    /// It was none, and is handed on: from where to where.
    HandedOn([u8; ANSWER_BYTES], usize, usize),
    Rings,
}

/// The writing half.
#[derive(Debug)]
pub(super) struct ToProgram {
    shared: Arc<Shared>,
    stage: Writing,
}

#[derive(Debug)]
enum Writing {
    Socket,
    /// What comes first may be the welcome.
    Welcome,
    /// The welcome and the memory, on their way; how much is sent.
    Sending(Vec<u8>, OwnedFd, usize),
    /// The program has them both.
    Unanswered,
    Rings,
}

/// A program's connection in two halves.
pub(super) fn halves(socket: UnixStream) -> (FromProgram, ToProgram) {
    let sleepers = Arc::new(Sleepers::default());
    let shared = Arc::new(Shared {
        socket,
        waker: Waker::from(Arc::clone(&sleepers)),
        sleepers,
        offered: AtomicBool::new(false),
        rings: OnceLock::new(),
        answer: AtomicU8::new(UNANSWERED),
        ended: AtomicBool::new(false),
        broken: AtomicBool::new(false),
    });
    (
        FromProgram { shared: Arc::clone(&shared), stage: Reading::Socket },
        ToProgram { shared, stage: Writing::Socket },
    )
}

/// An index that no ring has is the program's fault, and not the end of its connection.
fn blame(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => {
            io::Error::new(io::ErrorKind::InvalidData, Malformed::Misplaced("indices that no ring has"))
        }
        _ => error,
    }
}

impl Shared {
    fn answer(&self) -> u8 {
        self.answer.load(Ordering::Acquire)
    }

    /// Listens for what concerns a half. Before it looks, so that what comes in between wakes it.
    fn listen(&self, half: Half, cx: &Context<'_>) {
        self.sleepers.0[half as usize].register(cx.waker());
    }

    /// Wakes the program.
    fn nudge(&self) {
        nudge(self.socket.as_fd());
    }

    fn wake(&self, half: Half) {
        self.sleepers.0[half as usize].wake();
    }

    /// Waits until the socket is readable. The caller listens.
    fn poll_readable(&self) -> Poll<io::Result<()>> {
        // Who waits last is woken for both.
        self.socket.poll_read_ready(&mut Context::from_waker(&self.waker))
    }

    /// Waits until the socket rings, or ends. The caller listens.
    fn poll_rung(&self, half: Half) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_readable())?;
            match self.socket.try_read(&mut [0; RUNG_BYTES]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(1..) => {}
                Ok(0) | Err(_) => self.ended.store(true, Ordering::Release),
            }
            self.wake(if half == Half::Reading { Half::Writing } else { Half::Reading });
            return Poll::Ready(Ok(()));
        }
    }

    /// What the program makes of the rings is known.
    fn answered(&self, answer: u8) {
        self.answer.store(answer, Ordering::Release);
        self.wake(Half::Writing);
    }

    /// Reads from the socket, once there is something. The caller listens.
    fn try_read(&self, mut read: impl FnMut(&UnixStream) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable())?;
            match read(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_rings_read(&self, rings: &Awaited, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            // Asked before the ring is: what was written before the end is read before the end.
            let ended = self.ended.load(Ordering::Acquire);
            let held = match self.broken.load(Ordering::Acquire) {
                true => Err(io::ErrorKind::InvalidData.into()),
                false => rings.held(),
            };
            if let Some(held) = held.map_err(blame)? {
                let mut left = held.min(buf.remaining());
                while left > 0 {
                    // In pieces, so that a place that has to be cleared first is still in a cache when it is filled.
                    let place = buf.initialize_unfilled_to(left.min(RING_TOLD_BYTES));
                    let taken = rings.take(place, || self.nudge()).map_err(blame)?;
                    buf.advance(taken);
                    left -= taken;
                }
                return Poll::Ready(Ok(()));
            }
            if ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_rung(Half::Reading))?;
        }
    }

    fn poll_rings_write(&self, rings: &Awaited, from: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.ended.load(Ordering::Acquire) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match rings.put(from, || self.nudge()) {
                Ok(Some(put)) => return Poll::Ready(Ok(put)),
                Ok(None) => ready!(self.poll_rung(Half::Writing))?,
                Err(error) => {
                    // The half that reads ends the session, and says why.
                    self.broken.store(true, Ordering::Release);
                    self.wake(Half::Reading);
                    return Poll::Ready(Err(blame(error)));
                }
            }
        }
    }
}

impl FromProgram {
    /// What has come of what may be the answer; the stage behind it, once that is known.
    fn judge(&self, bytes: [u8; ANSWER_BYTES], held: usize) -> Option<Reading> {
        let header = bytes[..held].first_chunk().map(Header::decode)?;
        let offered = self.shared.rings.get().is_some();
        let is_answer = offered && header.is_ok_and(|header| header.kind == Kind::Rings && header.bytes == 1);
        match (is_answer, &bytes[HEADER_BYTES..held]) {
            (true, []) => None,
            (true, [1]) => {
                self.shared.answered(TAKEN);
                Some(Reading::Rings)
            }
            (true, [0]) => {
                self.shared.answered(LEFT);
                Some(Reading::Socket)
            }
            _ => {
                self.shared.answered(LEFT);
                Some(Reading::HandedOn(bytes, 0, held))
            }
        }
    }
}

impl AsyncRead for FromProgram {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shared = Arc::clone(&this.shared);
        shared.listen(Half::Reading, cx);
        loop {
            match &mut this.stage {
                Reading::Socket => {
                    if shared.offered.swap(false, Ordering::AcqRel) {
                        this.stage = Reading::Answer([0; ANSWER_BYTES], 0);
                        continue;
                    }
                    return shared.try_read(|socket| socket.try_read_buf(buf)).map_ok(drop);
                }
                Reading::Answer(bytes, held) => {
                    // No more than the answer: what is behind it rings for what is in the ring.
                    let most = if *held < HEADER_BYTES { HEADER_BYTES } else { ANSWER_BYTES };
                    let place = &mut bytes[*held..most];
                    let count = match ready!(shared.try_read(|socket| socket.try_read(place))) {
                        Ok(count) => count,
                        Err(error) => {
                            // Nobody waits any more for what does not come.
                            shared.answered(LEFT);
                            return Poll::Ready(Err(error));
                        }
                    };
                    *held += count;
                    let (bytes, held) = (*bytes, *held);
                    match this.judge(bytes, held) {
                        Some(stage) => this.stage = stage,
                        None if count > 0 => {}
                        None => {
                            shared.answered(LEFT);
                            this.stage = Reading::HandedOn(bytes, 0, held);
                        }
                    }
                }
                Reading::HandedOn(_, from, to) if from == to => this.stage = Reading::Socket,
                Reading::HandedOn(bytes, from, to) => {
                    let count = (*to - *from).min(buf.remaining());
                    buf.put_slice(&bytes[*from..*from + count]);
                    *from += count;
                    return Poll::Ready(Ok(()));
                }
                Reading::Rings => match shared.rings.get() {
                    Some(rings) => return shared.poll_rings_read(rings, buf),
                    None => this.stage = Reading::Socket,
                },
            }
        }
    }
}

impl ToProgram {
    /// Offers the program rings with the welcome, as it asked for. Before anything else is read or written.
    pub(super) fn offer(&mut self) {
        self.shared.offered.store(true, Ordering::Release);
        self.stage = Writing::Welcome;
    }

    /// For whoever shows the session.
    pub(super) fn seen(&self) -> Seen {
        Seen(Arc::downgrade(&self.shared))
    }

    /// Takes the welcome over, if it is what is written first and rings can be made; its bytes.
    fn welcome(&mut self, from: &[u8]) -> Option<usize> {
        let header = Header::decode(from.first_chunk()?).ok()?;
        let bytes = HEADER_BYTES + header.bytes;
        let payload = from.get(HEADER_BYTES..bytes)?;
        if header.kind != Kind::Welcome {
            return None;
        }
        let made = Awaited::make();
        let (rings, descriptor) = made
            .inspect_err(|error| tracing::warn!(%error, "a program goes without rings: no memory for them"))
            .ok()?;
        // There before the program can answer.
        self.shared.rings.set(rings).ok()?;
        let header = Header { rings: Rings::Carried, ..header };
        self.stage = Writing::Sending([&header.encode()[..], payload].concat(), descriptor, 0);
        Some(bytes)
    }

    /// Sends what there is of the welcome; the first of it with the memory.
    fn send(socket: &UnixStream, bytes: &[u8], memory: Option<&OwnedFd>) -> io::Result<usize> {
        let descriptors: Vec<_> = memory.iter().map(|memory| memory.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
        socket.try_io(Interest::WRITABLE, || {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
        })
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Writing::Sending(bytes, memory, sent) = &mut self.stage {
            ready!(self.shared.socket.poll_write_ready(cx))?;
            let first = (*sent == 0).then_some(&*memory);
            match Self::send(&self.shared.socket, &bytes[*sent..], first) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if *sent == bytes.len() {
                self.stage = Writing::Unanswered;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ToProgram {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.shared.listen(Half::Writing, cx);
        loop {
            match this.stage {
                Writing::Socket => {
                    ready!(this.shared.socket.poll_write_ready(cx))?;
                    match this.shared.socket.try_write(from) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        outcome => return Poll::Ready(outcome),
                    }
                }
                Writing::Welcome => match this.welcome(from) {
                    Some(taken) => return Poll::Ready(Ok(taken)),
                    None => this.stage = Writing::Socket,
                },
                Writing::Sending(..) => ready!(this.poll_sent(cx))?,
                Writing::Unanswered => match this.shared.answer() {
                    UNANSWERED => return Poll::Pending,
                    TAKEN => this.stage = Writing::Rings,
                    _ => this.stage = Writing::Socket,
                },
                Writing::Rings => match this.shared.rings.get() {
                    Some(rings) => return this.shared.poll_rings_write(rings, from),
                    None => this.stage = Writing::Socket,
                },
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            nix::sys::socket::shutdown(self.shared.socket.as_raw_fd(), nix::sys::socket::Shutdown::Write)
                .map_err(Into::into),
        )
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
