//! The daemon's end of two rings: nobody waits here. What cannot be done now is tried again when the socket has rung.
//!
//! At the other end is a program with a [`Near`](super::Near). Its reader sleeps at the socket as everywhere; this end's
//! writer sleeps there, too, because who serves many connections cannot sleep at a futex. So a byte on the socket means
//! that there is something to read, or room to write, or neither any more: whoever is woken looks at both.
//!
//! What the program writes into the memory is as little trusted as anywhere ([`super::ring`]).

use std::io;
use std::os::fd::OwnedFd;

use super::memory::{Memory, Shared};
use super::ring::{Reader, Writer};
use crate::limits::RING_TOLD_BYTES;

/// This end. One reads at a time, and one writes.
#[derive(Debug)]
pub struct Awaited {
    out: Writer,
    come: Reader,
}

impl Awaited {
    /// New rings, and the descriptor by which the program has them, too.
    ///
    /// # Errors
    /// The system's own.
    pub fn make() -> io::Result<(Self, OwnedFd)> {
        let (memory, descriptor) = Memory::make()?;
        Ok((Self::on(Shared::new(memory)), descriptor))
    }

    pub(super) fn on(memory: Shared<Memory>) -> Self {
        Self { out: Writer::new(Shared::clone(&memory), 1), come: Reader::new(memory, 0) }
    }

    /// How many bytes are there; `None` where none are: then the socket rings when some are. Whoever waits for that must
    /// listen before asking.
    ///
    /// # Errors
    /// `InvalidData`, when the program has written an index that no ring has.
    pub fn held(&self) -> io::Result<Option<usize>> {
        loop {
            match self.come.held()? {
                0 if self.come.lie_down() => return Ok(None),
                0 => self.come.get_up(),
                held => return Ok(Some(held)),
            }
        }
    }

    /// Takes bytes that are there; how many. `nudge` sends the program a byte ([`nudge`](super::nudge)).
    ///
    /// # Errors
    /// As [`Awaited::held`].
    pub fn take(&self, to: &mut [u8], nudge: impl Fn()) -> io::Result<usize> {
        let mut taken = 0;
        // The program goes on writing as soon as there is some room.
        for piece in to.chunks_mut(RING_TOLD_BYTES) {
            let (count, sleeps) = self.come.take(piece)?;
            if sleeps {
                nudge();
            }
            taken += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(taken)
    }

    /// Writes as many bytes as there is room for; `None` where there is none: then the socket rings when there is. Whoever
    /// waits for that must listen before asking.
    ///
    /// # Errors
    /// As [`Awaited::held`].
    pub fn put(&self, from: &[u8], nudge: impl Fn()) -> io::Result<Option<usize>> {
        let mut put = 0;
        while put < from.len() {
            let piece = self.out.room()?.min(RING_TOLD_BYTES).min(from.len() - put);
            if piece > 0 {
                self.out.put(0, &from[put..put + piece]);
                if self.out.tell(piece) {
                    nudge();
                }
                put += piece;
            } else if put > 0 {
                break;
            } else if self.out.lie_down()? {
                return Ok(None);
            }
        }
        Ok(Some(put))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::ring::Word;
    use super::super::{Stream, nudge};
    use super::*;
    use crate::limits::RING_BYTES;

    /// The program's end, this one, and the socket that rings for it.
    fn pair() -> (Stream, Awaited, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let (awaited, descriptor) = Awaited::make().unwrap();
        (Stream::Unix(near).over_rings(descriptor).unwrap(), awaited, far)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ at.to_le_bytes()[2]).collect()
    }

    /// Carries as the daemon does, both ways in one thread that sleeps only at the socket: so many bytes out, what comes back.
    fn carry(
        awaited: &Awaited,
        mut socket: &UnixStream,
        out: &[u8],
        expected: usize,
        piece: usize,
    ) -> Vec<u8> {
        let (mut sent, mut come, mut place) = (0, Vec::new(), vec![0; piece]);
        while sent < out.len() || come.len() < expected {
            let put = match out.get(sent..).unwrap_or_default() {
                [] => None,
                rest => awaited.put(&rest[..rest.len().min(piece)], || nudge(socket.as_fd())).unwrap(),
            };
            sent += put.unwrap_or(0);
            let mut taken = 0;
            if let Some(held) = awaited.held().unwrap() {
                let most = held.min(place.len());
                taken = awaited.take(&mut place[..most], || nudge(socket.as_fd())).unwrap();
                assert!(taken > 0);
                come.extend_from_slice(&place[..taken]);
            }
            if put.is_none() && taken == 0 && (sent < out.len() || come.len() < expected) {
                assert!(socket.read(&mut [0; 16]).unwrap() > 0);
            }
        }
        come
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A program's two threads against one that may not wait, both ways at once, more than the rings hold: nothing is
        /// lost, changed or out of order, and nobody sleeps for ever.
        #[test]
        fn what_is_written_is_read(
            up in prop::collection::vec(prop_oneof![1usize..100, 1usize..70_000, 200_000usize..1_500_000], 1..10),
            down in 1usize..3_000_000,
            pieces in (prop_oneof![1usize..300, 30_000usize..600_000], prop_oneof![1_000usize..2_000, 30_000usize..600_000]),
        ) {
            let (program, awaited, socket) = pair();
            let total: usize = up.iter().sum();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (bytes, mut at) = (pattern(total), 0);
                    for size in &up {
                        program.write_both(&bytes[at..at + size / 3], &bytes[at + size / 3..at + size]).unwrap();
                        at += size;
                    }
                });
                let reader = scope.spawn(|| {
                    let (mut all, mut place) = (Vec::new(), vec![0; pieces.0]);
                    while all.len() < down {
                        let count = program.read(&mut place).unwrap();
                        assert!(count > 0);
                        all.extend_from_slice(&place[..count]);
                    }
                    all
                });
                let come = carry(&awaited, &socket, &pattern(down), total, pieces.1);
                assert!(come == pattern(total));
                assert!(reader.join().unwrap() == pattern(down));
            });
        }
    }

    #[test]
    fn small_messages_wake_a_sleeper_each_time() {
        let (program, awaited, socket) = pair();
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000u32 {
                    let word = carry(&awaited, &socket, &[], 4, 4);
                    assert_eq!(word, round.to_le_bytes());
                    assert_eq!(awaited.put(&word, || nudge(socket.as_fd())).unwrap(), Some(4));
                }
            });
            for round in 0..20_000u32 {
                program.write_both(&round.to_le_bytes(), &[]).unwrap();
                let mut word = [0; 4];
                assert_eq!(program.read(&mut word).unwrap(), 4);
                assert_eq!(u32::from_le_bytes(word), round);
            }
        });
    }

    #[test]
    fn a_full_ring_says_so_and_the_socket_rings_when_there_is_room() {
        let (program, awaited, mut socket) = pair();
        assert_eq!(
            awaited.put(&vec![7; 2 * RING_BYTES], || nudge(socket.as_fd())).unwrap(),
            Some(RING_BYTES)
        );
        assert_eq!(awaited.put(&[7], || nudge(socket.as_fd())).unwrap(), None);
        assert_eq!(program.read(&mut [0; 5]).unwrap(), 5);
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(socket.read(&mut [0; 16]).unwrap(), 1, "one byte for one sleep");
        assert_eq!(awaited.put(&[7; 9], || nudge(socket.as_fd())).unwrap(), Some(5));
    }

    #[test]
    fn an_index_that_is_none_is_the_programs_fault() {
        use std::os::unix::fs::FileExt as _;
        for (lane, which) in [(0, Word::Head), (1, Word::Tail)] {
            let (_, far) = UnixStream::pair().unwrap();
            let (awaited, descriptor) = Awaited::make().unwrap();
            let memory = std::fs::File::from(descriptor);
            let value = u32::try_from(RING_BYTES).unwrap() + 1;
            memory.write_at(&value.to_le_bytes(), Memory::place_of(lane, which)).unwrap();
            let said = match which {
                Word::Head => awaited.held().map(|_| ()),
                _ => awaited.put(&[1], || nudge(far.as_fd())).map(|_| ()),
            };
            assert_eq!(said.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
