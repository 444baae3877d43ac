//! A connection between two processes of one host: a ring each way, and the socket over which they met.
//!
//! ```text
//! writer ── bytes ──> ring ── bytes ──> reader       while both are awake, nobody calls the kernel
//!    └──── a byte, if the reader sleeps ────┘        the socket; its end is the end of the connection
//!    <──── a futex, if the writer sleeps ───┘        in the ring: where nobody reads there is no room
//!    <──── or a byte ───────────────────────┘        as the writer said: one that must not wait cannot wait at a futex
//! ```
//!
//! The memory comes with the welcome ([`Kind::Rings`](crate::wire::frame::Kind::Rings)), from the worker or from a daemon
//! that carries the session ([`super::awaited`]); a client that does not get it, or does not like it, goes on over the socket. What the other side writes into the memory is as little
//! trusted as what it sends ([`super::ring`]).

use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::memory::{Memory, Shared};
use super::ring::{Reader, Writer, broken};
use super::send::{is_hung_up, nudge, receive};
use crate::limits::{RING_LOOKS_EVERY, RING_TOLD_BYTES};

/// Looks for room before the writer sleeps: a reader that is at work makes some soon.
const LOOKS_FOR_ROOM: u32 = 32;
/// Bytes read from a ring before the writer is told that there is room.
const TAKEN_BYTES: usize = RING_TOLD_BYTES;

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The client's.
    Client,
    /// The worker's.
    Worker,
}

/// One end of such a connection. One thread reads at a time, and one writes.
#[derive(Debug)]
pub struct Near {
    socket: UnixStream,
    out: Writer,
    come: Reader,
    /// The socket has ended. What is in the ring is still to be read.
    ended: AtomicBool,
    /// This side has ended it.
    shut: AtomicBool,
    /// The other side has written what no ring has where this one writes. Whoever reads says so at the end.
    broken: AtomicBool,
    /// Milliseconds that a write may wait; 0 for as long as it takes.
    patience_ms: AtomicU64,
}

impl Near {
    pub(crate) fn new(socket: UnixStream, memory: Memory, side: Side) -> Self {
        let memory = Shared::new(memory);
        let (out, come) = match side {
            Side::Client => (0, 1),
            Side::Worker => (1, 0),
        };
        Self {
            socket,
            out: Writer::new(Shared::clone(&memory), out),
            come: Reader::new(memory, come),
            ended: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            patience_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
        // It may be gone already, which is as well. Whoever sleeps in a read sees the end.
        let _gone = self.socket.shutdown(Shutdown::Both);
        self.out.wake();
    }

    pub(super) fn set_read_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(patience)
    }

    pub(super) fn set_write_patience(&self, patience: Duration) {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1);
        self.patience_ms.store(millis, Ordering::Release);
        self.out.wake();
    }

    /// Reads what is there, and waits for something; 0 at the end.
    pub(super) fn read(&self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(count) = self.read_now(first, second)? {
                return Ok(count);
            }
            let slept = if self.come.lie_down() { self.sleep() } else { Ok(()) };
            self.come.get_up();
            slept?;
        }
    }

    /// Reads what is there; `None` where nothing is, 0 at the end.
    pub(super) fn read_now(&self, first: &mut [u8], second: &mut [u8]) -> io::Result<Option<usize>> {
        // Asked before the ring is: what was written before the end is read before the end.
        let ended = self.ended.load(Ordering::Acquire);
        let mut taken = 0;
        for place in [first, second] {
            for piece in place.chunks_mut(TAKEN_BYTES) {
                let (count, sleeps) = self.come.take(piece)?;
                if sleeps {
                    nudge(self.socket());
                }
                taken += count;
                if count < piece.len() {
                    // A client that has merely gone is waited for; one that broke the protocol is not.
                    return match taken == 0 && ended && self.broken.load(Ordering::Acquire) {
                        true => Err(broken()),
                        false => Ok((taken > 0 || ended).then_some(taken)),
                    };
                }
            }
        }
        Ok(Some(taken))
    }

    /// Sleeps until the other side says that there is something, or ends.
    fn sleep(&self) -> io::Result<()> {
        match (&self.socket).read(&mut [0; 64]) {
            Ok(0) => self.ended.store(true, Ordering::Release),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes note of what the socket says without waiting. Only for whoever reads.
    pub(super) fn answer(&self) {
        loop {
            match receive(self.socket(), &mut [0; 64]) {
                Ok(64) => {}
                Ok(0) => return self.ended.store(true, Ordering::Release),
                Ok(_) => return,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    return;
                }
                Err(_) => return self.ended.store(true, Ordering::Release),
            }
        }
    }

    /// Has the socket wake somebody when something comes. Whether it will: nothing is there yet. For any thread.
    pub(super) fn lie_down(&self) -> bool {
        self.come.lie_down()
    }

    /// Has the socket stay silent: somebody looks. Only for whoever reads.
    pub(super) fn get_up(&self) {
        self.come.get_up();
    }

    /// Writes runs of bytes, whole. If the other side's index is none, whoever reads hears of it at the end, too.
    pub(super) fn write(&self, parts: [&[u8]; 3]) -> io::Result<()> {
        self.write_parts(parts).inspect_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                self.broken.store(true, Ordering::Release);
            }
        })
    }

    fn write_parts(&self, parts: [&[u8]; 3]) -> io::Result<()> {
        let mut put = 0;
        for mut rest in parts {
            while !rest.is_empty() {
                if self.shut.load(Ordering::Acquire) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let room = self.out.room()?.saturating_sub(put).min(RING_TOLD_BYTES - put);
                let (now, later) = rest.split_at(room.min(rest.len()));
                self.out.put(put, now);
                put += now.len();
                rest = later;
                if !rest.is_empty() {
                    self.tell(std::mem::take(&mut put));
                    self.wait_for_room()?;
                }
            }
        }
        self.tell(put);
        Ok(())
    }

    fn tell(&self, bytes: usize) {
        if bytes > 0 && self.out.tell(bytes) {
            nudge(self.socket());
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a write whose patience is bounded waits no longer")]
    fn wait_for_room(&self) -> io::Result<()> {
        let (mut looks, mut since) = (0, None);
        while self.out.room()? == 0 {
            if self.shut.load(Ordering::Acquire) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            looks += 1;
            if looks <= LOOKS_FOR_ROOM {
                thread::yield_now();
                continue;
            }
            let since = since.get_or_insert_with(Instant::now);
            let patience = match self.patience_ms.load(Ordering::Acquire) {
                0 => Duration::MAX,
                millis => Duration::from_millis(millis),
            };
            self.out.sleep(RING_LOOKS_EVERY.min(patience))?;
            if self.out.room()? > 0 {
                break;
            }
            if is_hung_up(self.socket()) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if since.elapsed() >= patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use proptest::prelude::*;

    use super::super::{Inlet, Stream};
    use super::*;
    use crate::limits::RING_BYTES;

    /// Both ends, as two processes would have them: each with a mapping of its own.
    fn pair() -> (Near, Near) {
        let (near, far) = UnixStream::pair().unwrap();
        let (memory, descriptor) = Memory::make().unwrap();
        let other = Memory::of(descriptor).unwrap();
        (Near::new(near, other, Side::Client), Near::new(far, memory, Side::Worker))
    }

    fn pattern(from: usize, length: usize) -> Vec<u8> {
        (from..from + length)
            .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ at.to_le_bytes()[2])
            .collect()
    }

    fn write_all(near: &Near, sizes: &[usize]) {
        let mut at = 0;
        for &size in sizes {
            let bytes = pattern(at, size);
            let (one, rest) = bytes.split_at(size / 3);
            let (two, three) = rest.split_at(size / 3);
            near.write([one, two, three]).unwrap();
            at += size;
        }
    }

    /// Reads until the end, by sleeping or looking, in pieces of some size.
    fn read_all(near: &Near, piece: usize, looks: bool) -> Vec<u8> {
        let (mut all, mut first, mut second) = (Vec::new(), vec![0; piece], [0; 5]);
        loop {
            let count = if looks {
                let Some(count) = near.read_now(&mut first, &mut second).unwrap() else {
                    near.answer();
                    thread::yield_now();
                    continue;
                };
                count
            } else {
                near.read(&mut first, &mut second).unwrap()
            };
            if count == 0 {
                return all;
            }
            let of_first = count.min(piece);
            all.extend_from_slice(&first[..of_first]);
            all.extend_from_slice(&second[..count - of_first]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Two threads at each end, both ways at once, more than the rings hold: nothing is lost, changed or out of order,
        /// and nobody sleeps for ever.
        #[test]
        fn what_is_written_is_read(
            sizes in prop::collection::vec(prop_oneof![1usize..100, 1usize..70_000, 200_000usize..1_500_000], 1..12),
            pieces in (1usize..300, 30_000usize..600_000),
            looks: (bool, bool),
        ) {
            let (near, far) = pair();
            let (near, far) = (&near, &far);
            let total = sizes.iter().sum();
            thread::scope(|scope| {
                for end in [near, far] {
                    let sizes = &sizes;
                    scope.spawn(move || write_all(end, sizes));
                }
                let readers = [(near, pieces.1, looks.0), (far, pieces.0 * 1000, looks.1)].map(|(end, piece, looks)| {
                    scope.spawn(move || {
                        let (mut all, mut place) = (Vec::new(), vec![0; piece]);
                        while all.len() < total {
                            let count = if looks { end.read_now(&mut place, &mut []).unwrap() } else {
                                Some(end.read(&mut place, &mut []).unwrap())
                            };
                            match count {
                                Some(count) => all.extend_from_slice(&place[..count]),
                                None => thread::yield_now(),
                            }
                        }
                        all
                    })
                });
                for reader in readers {
                    assert!(reader.join().unwrap() == pattern(0, total));
                }
            });
        }
    }

    #[test]
    fn small_messages_wake_a_sleeper_each_time() {
        let (near, far) = pair();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut word = [0; 8];
                for round in 0..20_000u64 {
                    assert_eq!(far.read(&mut word, &mut []).unwrap(), 8);
                    assert_eq!(u64::from_le_bytes(word), round);
                    far.write([&word, &[], &[]]).unwrap();
                }
            });
            let mut word = [0; 8];
            for round in 0..20_000u64 {
                near.write([&round.to_le_bytes(), &[], &[]]).unwrap();
                assert_eq!(near.read(&mut word, &mut []).unwrap(), 8);
                assert_eq!(u64::from_le_bytes(word), round);
            }
        });
    }

    /// One end, and the memory as a hostile process at the other has it.
    fn with_a_vandal() -> (Near, Memory, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let (memory, descriptor) = Memory::make().unwrap();
        (Near::new(near, memory, Side::Worker), Memory::of(descriptor).unwrap(), far)
    }

    #[test]
    fn an_index_that_is_none_ends_the_session_as_the_others_fault() {
        for which in 0..2 {
            let (near, memory, _far) = with_a_vandal();
            let stream = Arc::new(Stream::Near(near));
            if which == 0 {
                // The head of the ring that comes: more than it holds.
                memory.scribble(0, u32::try_from(RING_BYTES).unwrap() + 1);
            } else {
                // The tail of the ring that goes: beyond what was written.
                memory.scribble(3, 1);
                let written = stream.write_both(&[0; 100], &[]).map_err(|error| error.kind());
                assert_eq!(written, Err(io::ErrorKind::InvalidData));
                // As whoever writes frames does, so that whoever reads them looks.
                stream.shut();
            }
            let read = Inlet::new(stream, 0).frame().map(|_| ()).map_err(|error| error.to_string());
            assert!(read.unwrap_err().contains("indices that no ring has"));
        }
    }

    /// Whatever another process does to the memory while it is used: no call touches anything else, none waits beyond its
    /// patience, and each returns something or an error.
    #[test]
    fn a_process_that_scribbles_on_the_words_hurts_only_what_is_said() {
        const ROUNDS: usize = 400;
        // The other thread may be late.
        const ROUNDS_MAX: usize = 10_000_000;
        let (near, memory, far) = with_a_vandal();
        near.set_read_patience(Some(Duration::from_millis(1))).unwrap();
        near.set_write_patience(Duration::from_millis(1));
        thread::scope(|scope| {
            let honest = scope.spawn(|| {
                let (mut first, mut second, bytes) = (vec![0; 100_000], [0; 5], vec![7; 300_000]);
                let mut outcomes = [0; 4];
                for round in 0..ROUNDS_MAX {
                    if round >= ROUNDS && outcomes.iter().all(|&count| count > 0) {
                        break;
                    }
                    let long = if round.is_multiple_of(2) { &bytes[..] } else { &bytes[..100] };
                    let wrote = near.write([&bytes[..round % 100], long, &bytes[..9]]);
                    let read = near.read(&mut first, &mut second);
                    assert!(read.as_ref().is_ok_and(|&count| count <= 100_005) || read.is_err());
                    outcomes[usize::from(wrote.is_ok())] += 1;
                    outcomes[2 + usize::from(read.is_ok())] += 1;
                }
                assert!(outcomes.iter().all(|&count| count > 0), "not one of each was seen: {outcomes:?}");
            });
            let mut seed = 1u32;
            while !honest.is_finished() {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Often one that could be, in sight of the true ones.
                let near = (seed >> 11).wrapping_sub(u32::try_from(RING_BYTES).unwrap());
                let value = if seed & 64 == 0 { seed } else { near };
                memory.scribble((seed >> 28) as usize % Memory::WORDS, value);
            }
        });
        drop(far);
    }

    #[test]
    fn what_was_written_before_the_end_is_read_before_the_end() {
        for looks in [false, true] {
            let (near, far) = pair();
            write_all(&near, &[100, 5_000]);
            // As when a process is killed: the kernel closes what it had.
            drop(near);
            assert_eq!(read_all(&far, 64, looks), pattern(0, 5_100));
            assert!(far.write([&vec![0; 2 * RING_BYTES], &[], &[]]).is_err(), "nobody reads any more");
        }
    }

    #[test]
    fn who_waits_for_room_hears_of_the_end() {
        for shut_here in [false, true] {
            let (near, far) = pair();
            let (begun, has_begun) = channel();
            thread::scope(|scope| {
                let near = &near;
                let writer = scope.spawn(move || {
                    near.write([&vec![0; RING_BYTES], &[], &[]]).unwrap();
                    begun.send(()).unwrap();
                    near.write([&[0], &[], &[]])
                });
                has_begun.recv().unwrap();
                if shut_here {
                    near.shut()
                } else {
                    drop(far)
                }
                assert_eq!(writer.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            });
        }
        let (near, _far) = pair();
        near.set_write_patience(Duration::from_millis(1));
        let late = near.write([&vec![0; RING_BYTES], &[0], &[]]).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn who_sleeps_in_a_read_hears_of_the_end() {
        let (near, far) = pair();
        thread::scope(|scope| {
            let reader = scope.spawn(|| near.read(&mut [0; 8], &mut []).unwrap());
            far.shut();
            assert_eq!(reader.join().unwrap(), 0);
        });
    }

    #[test]
    fn a_patient_read_gives_up() {
        let (near, _far) = pair();
        near.set_read_patience(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(near.read(&mut [0; 8], &mut []).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
