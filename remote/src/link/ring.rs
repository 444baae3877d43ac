//! A ring of bytes in memory that two processes share: one writes, the other reads.
//!
//! ```text
//! word            written by    what
//! head            the writer    bytes written so far, modulo 2^32
//! tail            the reader    bytes read so far, likewise
//! reader sleeps   both          1 while the reader wants to be woken by the socket
//! writer sleeps   both          1 while the writer wants to be woken by this word, 2 by the socket
//! ```
//!
//! The other process may write anything anywhere at any time. So each side knows its own index by itself and only tells
//! it; it reads the other's once, and takes from it nothing but how many bytes there are, or how much room: more than the
//! ring holds ends the session. What is read is copied out before anything looks at it, and is never looked at where it was.
//!
//! Whoever goes to sleep says so and then looks once more; whoever has written or read tells of it and then looks whether
//! the other sleeps. One of the two sees the other. `cargo xtask loom` tries this in every order
//! (`interleavings.rs`).

use std::io;
use std::sync::atomic::{AtomicU32 as OwnIndex, Ordering};
use std::time::Duration;

use super::memory::{AtomicU32, Memory, RING_BYTES, Shared, fence};

/// What a side that sleeps says: a reader always this; a writer, if its word is to wake it.
const SLEEPS: u32 = 1;
/// What a writer says if the socket is to wake it.
const SLEEPS_AT_SOCKET: u32 = 2;

/// A word of a ring, by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    Head = 0,
    Tail = 64,
    ReaderSleeps = 128,
    WriterSleeps = 192,
}

#[cfg(test)]
impl Memory {
    /// Writes something into a word, as a hostile process may.
    pub(super) fn scribble(&self, which: usize, value: u32) {
        let word = [Word::Head, Word::Tail, Word::ReaderSleeps, Word::WriterSleeps][which / 2 % 4];
        self.word(which, word).store(value, Ordering::Relaxed);
    }

    /// How many words there are.
    pub(super) const WORDS: usize = 8;
}

/// The other side's index is none that it can have.
pub(super) fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a ring's index that is none")
}

/// One side of a ring: its own index, by which it goes, and the memory.
#[derive(Debug)]
struct End {
    memory: Shared<Memory>,
    lane: usize,
    /// Changed by one thread at a time. Two at once would garble what is said, and touch nothing that is not the ring's.
    index: OwnIndex,
}

impl End {
    fn word(&self, word: Word) -> &AtomicU32 {
        self.memory.word(self.lane, word)
    }

    fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    fn go_on(&self, bytes: usize, told: Word) {
        let index = self.index().wrapping_add(u32::try_from(bytes).unwrap_or(0));
        self.index.store(index, Ordering::Relaxed);
        self.word(told).store(index, Ordering::Release);
        // Whoever goes to sleep says so, and then looks once more. Here it is the other way round, so one of the two sees
        // the other.
        fence(Ordering::SeqCst);
    }

    /// Says that this side is going to sleep, and what is to wake it.
    fn lie_down(&self, sleeps: Word, how: u32) {
        self.word(sleeps).store(how, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn get_up(&self, sleeps: Word) {
        self.word(sleeps).store(0, Ordering::Relaxed);
    }

    /// What the other side said when it went to sleep; 0 if it is awake. It is asked once for each sleep.
    fn slept(&self, sleeps: Word) -> u32 {
        let word = self.word(sleeps);
        if word.load(Ordering::Relaxed) == 0 { 0 } else { word.swap(0, Ordering::Relaxed) }
    }
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Writer(End);

impl Writer {
    pub(super) fn new(memory: Shared<Memory>, lane: usize) -> Self {
        Self(End { memory, lane, index: OwnIndex::new(0) })
    }

    /// Bytes that fit.
    pub(super) fn room(&self) -> io::Result<usize> {
        let tail = self.0.word(Word::Tail).load(Ordering::Acquire);
        let held = self.0.index().wrapping_sub(tail) as usize;
        RING_BYTES.checked_sub(held).ok_or_else(broken)
    }

    /// Puts bytes behind those that are there and `before` more, without telling. They must fit.
    pub(super) fn put(&self, before: usize, bytes: &[u8]) {
        let index = self.0.index().wrapping_add(u32::try_from(before).unwrap_or(0));
        self.0.memory.copy_in(self.0.lane, index, bytes);
    }

    /// Tells of so many bytes that were put. Whether the reader has to be woken.
    pub(super) fn tell(&self, bytes: usize) -> bool {
        self.0.go_on(bytes, Word::Head);
        self.0.slept(Word::ReaderSleeps) != 0
    }

    /// Sleeps until there may be room, or so long.
    pub(super) fn sleep(&self, most: Duration) -> io::Result<()> {
        self.0.lie_down(Word::WriterSleeps, SLEEPS);
        if self.room()? == 0 {
            self.0.memory.wait(self.0.lane, Word::WriterSleeps, SLEEPS, most);
        }
        self.0.get_up(Word::WriterSleeps);
        Ok(())
    }

    /// Says that the writer is going to sleep until the socket wakes it. Whether it may: there is no room.
    pub(super) fn lie_down(&self) -> io::Result<bool> {
        self.0.lie_down(Word::WriterSleeps, SLEEPS_AT_SOCKET);
        let full = self.room()? == 0;
        if !full {
            self.0.get_up(Word::WriterSleeps);
        }
        Ok(full)
    }

    /// Has whoever sleeps here look.
    pub(super) fn wake(&self) {
        self.0.get_up(Word::WriterSleeps);
        self.0.memory.wake(self.0.lane, Word::WriterSleeps);
    }
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Reader(End);

impl Reader {
    pub(super) fn new(memory: Shared<Memory>, lane: usize) -> Self {
        Self(End { memory, lane, index: OwnIndex::new(0) })
    }

    /// Bytes that are there.
    pub(super) fn held(&self) -> io::Result<usize> {
        let head = self.0.word(Word::Head).load(Ordering::Acquire);
        let held = head.wrapping_sub(self.0.index()) as usize;
        if held > RING_BYTES { Err(broken()) } else { Ok(held) }
    }

    /// Takes bytes; how many, and whether the writer has to be woken by the socket. Their room is the writer's again.
    pub(super) fn take(&self, to: &mut [u8]) -> io::Result<(usize, bool)> {
        let length = self.held()?.min(to.len());
        if length == 0 {
            return Ok((0, false));
        }
        self.0.memory.copy_out(self.0.lane, self.0.index(), &mut to[..length]);
        self.0.go_on(length, Word::Tail);
        let slept = self.0.slept(Word::WriterSleeps);
        if slept == SLEEPS {
            self.0.memory.wake(self.0.lane, Word::WriterSleeps);
        }
        Ok((length, slept != 0 && slept != SLEEPS))
    }

    /// Says that somebody is going to sleep until the socket wakes them. Whether they may: nothing is there.
    ///
    /// If they may not, it stays said, which costs the writer a byte for nothing: a thread that does not read may say this,
    /// too, and to take it back would take it from the one that reads, and sleeps by now.
    pub(super) fn lie_down(&self) -> bool {
        self.0.lie_down(Word::ReaderSleeps, SLEEPS);
        // An index that is none is somebody's to see.
        self.held().is_ok_and(|held| held == 0)
    }

    /// Says that nobody sleeps. Only for whoever reads; others that sleep meanwhile are woken by whoever has read.
    pub(super) fn get_up(&self) {
        self.0.get_up(Word::ReaderSleeps);
    }
}

// Of mapped memory, which the model checker has none of.
#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::make().unwrap().0)
    }

    #[test]
    fn bytes_come_out_as_they_went_in_across_the_rings_end() {
        let memory = memory();
        let (writer, reader) = (Writer::new(Arc::clone(&memory), 0), Reader::new(Arc::clone(&memory), 0));
        // Not far from where the index begins anew, and the ring, too.
        for end in [&writer.0, &reader.0] {
            end.index.store(u32::MAX - 9, Ordering::Relaxed);
        }
        memory.word(0, Word::Head).store(u32::MAX - 9, Ordering::Relaxed);
        memory.word(0, Word::Tail).store(u32::MAX - 9, Ordering::Relaxed);
        let bytes: Vec<u8> = (0..=255).cycle().take(RING_BYTES).collect();
        assert_eq!(writer.room().unwrap(), RING_BYTES);
        writer.put(0, &bytes[..100]);
        writer.put(100, &bytes[100..]);
        assert_eq!(reader.held().unwrap(), 0, "nothing was told yet");
        assert!(!writer.tell(bytes.len()));
        assert_eq!(writer.room().unwrap(), 0);
        let mut read = vec![0; RING_BYTES];
        assert_eq!(reader.take(&mut read[..7]).unwrap(), (7, false));
        assert_eq!(reader.take(&mut read[7..]).unwrap(), (RING_BYTES - 7, false));
        assert!(read == bytes);
        assert_eq!(writer.room().unwrap(), RING_BYTES);
    }

    proptest! {
        /// Whatever the other process writes into the words: no more is read or written than the ring holds, or it is an
        /// error.
        #[test]
        fn indices_of_a_hostile_process_are_bounded(own: u32, theirs: u32, sleeps: u32, length in 1usize..5_000) {
            let memory = memory();
            let (writer, reader) = (Writer::new(Arc::clone(&memory), 0), Reader::new(Arc::clone(&memory), 1));
            writer.0.index.store(own, Ordering::Relaxed);
            reader.0.index.store(own, Ordering::Relaxed);
            for lane in [0, 1] {
                for word in [Word::Head, Word::Tail] {
                    memory.word(lane, word).store(theirs, Ordering::Relaxed);
                }
                for word in [Word::ReaderSleeps, Word::WriterSleeps] {
                    memory.word(lane, word).store(sleeps, Ordering::Relaxed);
                }
            }
            match writer.room() {
                Ok(room) => {
                    prop_assert_eq!(room, RING_BYTES - own.wrapping_sub(theirs) as usize);
                    writer.put(0, &vec![7; room.min(length)]);
                }
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
            let mut place = vec![0; length];
            match reader.take(&mut place) {
                Ok((count, _)) => prop_assert_eq!(count, length.min(theirs.wrapping_sub(own) as usize)),
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
            // Its own index it never reads back.
            prop_assert_eq!(writer.0.index(), own);
        }
    }

    #[test]
    fn an_index_beyond_the_ring_ends_it() {
        let memory = memory();
        let (writer, reader) = (Writer::new(Arc::clone(&memory), 0), Reader::new(Arc::clone(&memory), 1));
        memory.word(0, Word::Tail).store(1, Ordering::Relaxed);
        assert_eq!(
            writer.room().unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "read what was not written"
        );
        memory.word(1, Word::Head).store(u32::try_from(RING_BYTES).unwrap() + 1, Ordering::Relaxed);
        assert_eq!(reader.held().unwrap_err().kind(), io::ErrorKind::InvalidData, "more than fits");
        assert!(!reader.lie_down(), "nobody sleeps on that");
    }

    #[test]
    fn who_may_not_sleep_takes_the_sleep_of_no_other_back() {
        let memory = memory();
        let (writer, reader) = (Writer::new(Arc::clone(&memory), 0), Reader::new(memory, 0));
        writer.put(0, b"one");
        assert!(!writer.tell(3));
        assert!(!reader.lie_down(), "something is there");
        assert_eq!(reader.take(&mut [0; 8]).unwrap(), (3, false));
        // Another thread may have lain down meanwhile. Here it has not, and is woken all the same, once.
        writer.put(0, b"two");
        assert!(writer.tell(3));
        writer.put(0, b"three");
        assert!(!writer.tell(5));
    }

    #[test]
    fn a_writer_is_woken_the_way_it_said_and_once() {
        let memory = memory();
        let (writer, reader) = (Writer::new(Arc::clone(&memory), 0), Reader::new(memory, 0));
        assert!(!writer.lie_down().unwrap(), "there is room");
        assert!(!writer.tell(RING_BYTES));
        assert!(writer.lie_down().unwrap());
        assert_eq!(reader.take(&mut [0; 8]).unwrap(), (8, true), "the socket wakes it");
        assert_eq!(reader.take(&mut [0; 8]).unwrap(), (8, false));
        assert!(!writer.lie_down().unwrap(), "there is room again");
        assert_eq!(reader.take(&mut [0; 8]).unwrap(), (8, false), "and it said that it does not sleep");
    }
}
