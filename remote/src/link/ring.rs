//! A ring of bytes in memory that two processes share: one writes, the other reads.
//!
//! ```text
//! word            written by    what
//! head            the writer    bytes written so far, modulo 2^32
//! tail            the reader    bytes read so far, likewise
//! reader sleeps   both          1 while the reader wants to be woken by the socket
//! writer sleeps   both          1 while the writer wants to be woken by this word
//! ```
//!
//! The other process may write anything anywhere at any time. So each side knows its own index by itself and only tells
//! it; it reads the other's once, and takes from it nothing but how many bytes there are, or how much room: more than the
//! ring holds ends the session. What is read is copied out before anything looks at it, and is never looked at where it was.
//! The memory can be made no shorter (it is sealed), so touching it raises no signal.
#![expect(unsafe_code, reason = "memory that another process writes, too")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use crate::limits::RING_BYTES;

/// What stands before the rings' bytes.
const WORDS_BYTES: usize = 4096;
const MEMORY_BYTES: usize = WORDS_BYTES + 2 * RING_BYTES;
/// Bytes of a ring's words; each has a cache line of its own, so that the two sides do not take them from each other.
const LANE_BYTES: usize = 256;
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

const _: () = assert!(2 * LANE_BYTES <= WORDS_BYTES);

/// A word of a ring, by its place.
#[derive(Clone, Copy, Debug)]
enum Word {
    Head = 0,
    Tail = 64,
    ReaderSleeps = 128,
    WriterSleeps = 192,
}

/// The memory of two rings, mapped.
#[derive(Debug)]
pub(crate) struct Memory {
    base: usize,
}

impl Memory {
    /// New memory, and the descriptor by which another process may have it, too.
    pub(crate) fn make() -> io::Result<(Self, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: a terminated name.
        let make = |more| unsafe { libc::memfd_create(c"headgate-rings".as_ptr(), flags | more) };
        // Nodes may insist that such memory is never code; kernels before 6.3 do not know the flag that says so.
        let made = match make(libc::MFD_NOEXEC_SEAL) {
            made if made >= 0 => made,
            _ => make(0),
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and belongs to nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(made) });
        file.set_len(MEMORY_BYTES as u64)?;
        // SAFETY: takes numbers.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let memory = Self::map(file.as_fd())?;
        Ok((memory, file.into()))
    }

    /// Memory that another process made. Refused unless it is as long as it must be and will stay so: to touch what has
    /// been cut off would end this process.
    pub(crate) fn of(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        // SAFETY: takes numbers.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & SEALS != SEALS {
            return wrong("memory of rings that is not sealed");
        }
        if file.metadata()?.len() != MEMORY_BYTES as u64 {
            return wrong("memory of rings of another length");
        }
        Self::map(file.as_fd())
    }

    fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a new mapping, placed by the kernel.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MEMORY_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.expose_provenance() })
    }

    fn word(&self, lane: usize, word: Word) -> &AtomicU32 {
        let address = self.base + (lane & 1) * LANE_BYTES + word as usize;
        // SAFETY: an aligned word of the mapping, which lasts as long as `self`; this process touches it by no other way,
        // and what other processes do to it an atomic access withstands.
        unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(address)) }
    }

    /// Where the bytes of an index lie, and how many of `length` come before the ring begins anew.
    fn place(&self, lane: usize, index: u32, length: usize) -> (*mut u8, *mut u8, usize) {
        let ring = self.base + WORDS_BYTES + (lane & 1) * RING_BYTES;
        let at = index as usize % RING_BYTES;
        let pointer = std::ptr::with_exposed_provenance_mut;
        (pointer(ring + at), pointer(ring), length.min(RING_BYTES - at))
    }

    fn copy_in(&self, lane: usize, index: u32, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(RING_BYTES)];
        let (here, begin, first) = self.place(lane, index, bytes.len());
        // SAFETY: `first` bytes from there on are the ring's; no reference to them exists in this process.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), here, first) };
        let rest = &bytes[first..];
        // SAFETY: the rest is shorter than the ring.
        unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), begin, rest.len()) };
    }

    fn copy_out(&self, lane: usize, index: u32, to: &mut [u8]) {
        let length = to.len().min(RING_BYTES);
        let (here, begin, first) = self.place(lane, index, length);
        let (one, two) = to[..length].split_at_mut(first);
        // SAFETY: `first` bytes from there on are the ring's; if the other process writes them meanwhile, these are just
        // other bytes.
        unsafe { std::ptr::copy_nonoverlapping(here.cast_const(), one.as_mut_ptr(), one.len()) };
        // SAFETY: the rest is shorter than the ring.
        unsafe { std::ptr::copy_nonoverlapping(begin.cast_const(), two.as_mut_ptr(), two.len()) };
    }
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

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: what `map` returned, of that length; references to its words do not outlive `self`.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.base), MEMORY_BYTES) };
    }
}

/// The other side's index is none that it can have.
fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a ring's index that is none")
}

/// One side of a ring: its own index, by which it goes, and the memory.
#[derive(Debug)]
struct End {
    memory: Arc<Memory>,
    lane: usize,
    /// Changed by one thread at a time. Two at once would garble what is said, and touch nothing that is not the ring's.
    index: AtomicU32,
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

    /// Says that this side is going to sleep.
    fn lie_down(&self, sleeps: Word) {
        self.word(sleeps).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn get_up(&self, sleeps: Word) {
        self.word(sleeps).store(0, Ordering::Relaxed);
    }

    /// Whether the other side slept. It is asked once for each sleep.
    fn was_asleep(&self, sleeps: Word) -> bool {
        let word = self.word(sleeps);
        word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::Relaxed) != 0
    }
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Writer(End);

impl Writer {
    pub(super) fn new(memory: Arc<Memory>, lane: usize) -> Self {
        Self(End { memory, lane, index: AtomicU32::new(0) })
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
        self.0.was_asleep(Word::ReaderSleeps)
    }

    /// Sleeps until there may be room, or so long.
    pub(super) fn sleep(&self, most: Duration) -> io::Result<()> {
        self.0.lie_down(Word::WriterSleeps);
        if self.room()? == 0 {
            wait(self.0.word(Word::WriterSleeps), 1, most);
        }
        self.0.get_up(Word::WriterSleeps);
        Ok(())
    }

    /// Has whoever sleeps here look.
    pub(super) fn wake(&self) {
        self.0.get_up(Word::WriterSleeps);
        wake(self.0.word(Word::WriterSleeps));
    }
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Reader(End);

impl Reader {
    pub(super) fn new(memory: Arc<Memory>, lane: usize) -> Self {
        Self(End { memory, lane, index: AtomicU32::new(0) })
    }

    /// Bytes that are there.
    pub(super) fn held(&self) -> io::Result<usize> {
        let head = self.0.word(Word::Head).load(Ordering::Acquire);
        let held = head.wrapping_sub(self.0.index()) as usize;
        if held > RING_BYTES { Err(broken()) } else { Ok(held) }
    }

    /// Takes bytes; how many. Their room is the writer's again.
    pub(super) fn take(&self, to: &mut [u8]) -> io::Result<usize> {
        let length = self.held()?.min(to.len());
        if length > 0 {
            self.0.memory.copy_out(self.0.lane, self.0.index(), &mut to[..length]);
            self.0.go_on(length, Word::Tail);
            if self.0.was_asleep(Word::WriterSleeps) {
                wake(self.0.word(Word::WriterSleeps));
            }
        }
        Ok(length)
    }

    /// Says that somebody is going to sleep until the socket wakes them. Whether they may: nothing is there.
    ///
    /// If they may not, it stays said, which costs the writer a byte for nothing: a thread that does not read may say this,
    /// too, and to take it back would take it from the one that reads, and sleeps by now.
    pub(super) fn lie_down(&self) -> bool {
        self.0.lie_down(Word::ReaderSleeps);
        // An index that is none is somebody's to see.
        self.held().is_ok_and(|held| held == 0)
    }

    /// Says that nobody sleeps. Only for whoever reads; others that sleep meanwhile are woken by whoever has read.
    pub(super) fn get_up(&self) {
        self.0.get_up(Word::ReaderSleeps);
    }
}

/// Waits while a word is what it was, and no longer than that long.
fn wait(word: &AtomicU32, was: u32, most: Duration) {
    let most = libc::timespec {
        tv_sec: most.as_secs().try_into().unwrap_or(0),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: an aligned word and a time, both of which outlive the call. Whatever it returns, the caller looks.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, was, &raw const most) };
}

fn wake(word: &AtomicU32) {
    // SAFETY: an aligned word of the mapping.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

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
        assert_eq!(reader.take(&mut read[..7]).unwrap(), 7);
        assert_eq!(reader.take(&mut read[7..]).unwrap(), RING_BYTES - 7);
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
                Ok(count) => prop_assert_eq!(count, length.min(theirs.wrapping_sub(own) as usize)),
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
        assert_eq!(reader.take(&mut [0; 8]).unwrap(), 3);
        // Another thread may have lain down meanwhile. Here it has not, and is woken all the same, once.
        writer.put(0, b"two");
        assert!(writer.tell(3));
        writer.put(0, b"three");
        assert!(!writer.tell(5));
    }

    #[test]
    fn memory_that_could_shrink_or_is_something_else_is_refused() {
        let make = |flags: u32, bytes: u64, seals: i32| {
            // SAFETY: a terminated name.
            let made = unsafe { libc::memfd_create(c"test".as_ptr(), flags) };
            assert!(made >= 0);
            // SAFETY: a descriptor that was just made and belongs to nobody else.
            let file = File::from(unsafe { OwnedFd::from_raw_fd(made) });
            file.set_len(bytes).unwrap();
            file.write_at(b"x", 0).unwrap();
            // SAFETY: takes numbers.
            let sealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
            assert!(sealed == 0 || seals == 0 || flags & libc::MFD_ALLOW_SEALING == 0);
            Memory::of(file.into()).map(|_| ()).map_err(|error| error.kind())
        };
        let bytes = MEMORY_BYTES as u64;
        let wrong = Err(io::ErrorKind::InvalidData);
        assert_eq!(make(libc::MFD_ALLOW_SEALING, bytes, SEALS), Ok(()));
        assert_eq!(make(0, bytes, SEALS), wrong);
        assert_eq!(make(libc::MFD_ALLOW_SEALING, bytes, SEALS & !libc::F_SEAL_SHRINK), wrong);
        assert_eq!(make(libc::MFD_ALLOW_SEALING, bytes / 2, SEALS), wrong);
        assert_eq!(
            Memory::of(File::open("/dev/null").unwrap().into()).map(|_| ()).map_err(|e| e.kind()),
            wrong
        );
    }
}
