//! The memory of rings for the model checker: the same words, and a few bytes, in memory of its own.
//!
//! Stands in for the mapped one (`memory.rs`) under `--cfg loom`, where words cannot be loom's atomics. The protocol above it
//! ([`super::ring`], [`super::awaited`]) is the very code that runs in programs, workers and daemons. Bytes are atomics, too,
//! read and written without order: what comes out is what went in only because the indices have one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::time::Duration;

pub(super) use loom::sync::Arc as Shared;
pub(super) use loom::sync::atomic::fence;
use loom::sync::{Condvar, Mutex};

use super::ring::Word;

/// Few, so that a ring is soon full.
pub(super) const RING_BYTES: usize = 2;

/// A word whose every write reads the one before it.
///
/// The checker does not know that nothing comes between what a swap reads and what it writes, and lets a swap that read
/// an old sleep wipe out a new one. Where all writes are swaps it cannot; what loads may see stays as weak as it was.
#[derive(Debug)]
pub(super) struct AtomicU32(loom::sync::atomic::AtomicU32);

impl AtomicU32 {
    fn new(value: u32) -> Self {
        Self(loom::sync::atomic::AtomicU32::new(value))
    }

    pub(super) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub(super) fn store(&self, value: u32, order: Ordering) {
        self.swap(value, order);
    }

    pub(super) fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.0.swap(value, order)
    }
}

/// As the mapped one.
#[derive(Debug)]
pub(crate) struct Memory {
    words: [[AtomicU32; 4]; 2],
    bytes: [[AtomicU32; RING_BYTES]; 2],
    /// The kernel's part of sleeping on a word: whether it still is what it was, and to sleep, are one step.
    kernel: Mutex<()>,
    woken: Condvar,
}

impl Memory {
    /// Of one process, which is all there is in a model.
    pub(super) fn alone() -> Self {
        let words = || std::array::from_fn(|_| AtomicU32::new(0));
        let bytes = || std::array::from_fn(|_| AtomicU32::new(0));
        Self {
            words: [words(), words()],
            bytes: [bytes(), bytes()],
            kernel: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    pub(crate) fn make() -> io::Result<(Self, OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn of(_descriptor: OwnedFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn place_of(_lane: usize, _word: Word) -> u64 {
        0
    }

    pub(super) fn word(&self, lane: usize, word: Word) -> &AtomicU32 {
        &self.words[lane & 1][word as usize / 64]
    }

    fn byte(&self, lane: usize, index: u32, at: usize) -> &AtomicU32 {
        &self.bytes[lane & 1][(index as usize + at) % RING_BYTES]
    }

    pub(super) fn copy_in(&self, lane: usize, index: u32, bytes: &[u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            self.byte(lane, index, at).store(byte.into(), Relaxed);
        }
    }

    pub(super) fn copy_out(&self, lane: usize, index: u32, to: &mut [u8]) {
        for (at, byte) in to.iter_mut().enumerate() {
            *byte = self.byte(lane, index, at).load(Relaxed).to_le_bytes()[0];
        }
    }

    /// Without an end: whoever is woken only by that is not woken.
    pub(super) fn wait(&self, lane: usize, word: Word, was: u32, _most: Duration) {
        let kernel = self.kernel.lock().unwrap();
        if self.word(lane, word).load(Relaxed) == was {
            drop(self.woken.wait(kernel).unwrap());
        }
    }

    pub(super) fn wake(&self, _lane: usize, _word: Word) {
        let _kernel = self.kernel.lock().unwrap();
        self.woken.notify_all();
    }
}
