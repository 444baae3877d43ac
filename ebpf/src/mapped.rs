//! Kernel arrays mapped into this process: read without a system call, written a word at a time.
//!
//! An update by system call copies a value byte by byte as far as anyone promises; a program may see half of it. A word
//! stored here is seen whole.

#![expect(unsafe_code, reason = "the mapping is shared with the kernel and lives as long as its value")]

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sys;

/// An array of 64-bit words that kernel programs use at the same time.
#[derive(Debug)]
pub(crate) struct MappedWords {
    start: NonNull<u8>,
    words: usize,
}

// SAFETY: the mapping belongs to this value and is only reached through atomics.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps an array map of at least that many words. (A value shorter than a word fills one.)
    pub(crate) fn map(array: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        Ok(Self { start: sys::map_shared(array, words * size_of::<u64>())?, words })
    }

    /// The word with this index.
    ///
    /// # Panics
    /// If there is none: an index is made from a row that was checked.
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: inside the mapping by the assertion, aligned because the mapping starts at a page.
        let pointer = unsafe { self.start.cast::<u64>().add(index) };
        // SAFETY: valid as long as `self`; the kernel's programs use atomic operations or single loads on it, and nobody here
        // makes a plain reference.
        unsafe { AtomicU64::from_ptr(pointer.as_ptr()) }
    }

    pub(crate) fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and every borrow of it has ended with `self`.
        unsafe { sys::unmap(self.start, self.words * size_of::<u64>()) };
    }
}
