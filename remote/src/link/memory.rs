//! The memory of two rings, as processes share it: words, bytes, and sleeping on a word.
//!
//! What it means is [`super::ring`]'s. The other process may write anything anywhere at any time: words are read by atomic
//! accesses, bytes are copied out before anything looks at them, and no reference to bytes of it exists. The memory can be
//! made no shorter (it is sealed), so touching it raises no signal.
#![expect(unsafe_code, reason = "memory that another process writes, too")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
pub(super) use std::sync::Arc as Shared;
pub(super) use std::sync::atomic::{AtomicU32, fence};
use std::time::Duration;

use super::ring::Word;
pub(super) use crate::limits::RING_BYTES;

/// What stands before the rings' bytes.
const WORDS_BYTES: usize = 4096;
const MEMORY_BYTES: usize = WORDS_BYTES + 2 * RING_BYTES;
/// Bytes of a ring's words; each has a cache line of its own, so that the two sides do not take them from each other.
const LANE_BYTES: usize = 256;
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

const _: () = assert!(2 * LANE_BYTES <= WORDS_BYTES);

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

    /// Where a word lies, in bytes from the memory's begin.
    #[cfg(test)]
    pub(super) fn place_of(lane: usize, word: Word) -> u64 {
        ((lane & 1) * LANE_BYTES + word as usize) as u64
    }

    pub(super) fn word(&self, lane: usize, word: Word) -> &AtomicU32 {
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

    pub(super) fn copy_in(&self, lane: usize, index: u32, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(RING_BYTES)];
        let (here, begin, first) = self.place(lane, index, bytes.len());
        // SAFETY: `first` bytes from there on are the ring's; no reference to them exists in this process.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), here, first) };
        let rest = &bytes[first..];
        // SAFETY: the rest is shorter than the ring.
        unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), begin, rest.len()) };
    }

    pub(super) fn copy_out(&self, lane: usize, index: u32, to: &mut [u8]) {
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

impl Memory {
    /// Waits while a word is what it was, and no longer than that long.
    pub(super) fn wait(&self, lane: usize, word: Word, was: u32, most: Duration) {
        let word = self.word(lane, word);
        let most = libc::timespec {
            tv_sec: most.as_secs().try_into().unwrap_or(0),
            tv_nsec: most.subsec_nanos().into(),
        };
        // SAFETY: an aligned word and a time, both of which outlive the call. Whatever it returns, the caller looks.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, was, &raw const most) };
    }

    /// Wakes whoever waits for a word.
    pub(super) fn wake(&self, lane: usize, word: Word) {
        let word = self.word(lane, word);
        // SAFETY: an aligned word of the mapping.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: what `map` returned, of that length; references to its words do not outlive `self`.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.base), MEMORY_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

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
