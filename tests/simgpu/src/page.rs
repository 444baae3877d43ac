//! The status page: memory that the server writes and one client reads, so that asking how far a stream has come costs
//! no system call.
//!
//! ```text
//! magic | faults_armed | journal_all | locked | inside | unused      24 bytes
//! errors     [u32; CONTEXTS_MAX]                     the CUresult stuck to each context, 0 while it lives
//! calls      [u64; SYMBOLS_MAX]                      calls of each entry point, counted by the client
//! streams    [completed u64, waiters u32, unused u32; STREAMS_MAX]
//! ```
//! The server never reads a decision from it: `calls` is reported, `waiters` only saves a wake-up nobody needs. The one
//! exception harms nobody else: a process that counts `inside` wrong is locked too soon, or never.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::limits::{CONTEXTS_MAX, STREAMS_MAX, SYMBOLS_MAX};
use crate::sys::{self, SharedMapping};

const MAGIC: u32 = 0x4753_4d31;
/// How long a call that waits for its process to be unlocked sleeps without looking.
const LOCK_LOOK: Duration = Duration::from_millis(100);

/// How far a stream has come.
#[repr(C)]
#[derive(Debug)]
pub struct StreamCell {
    completed: AtomicU64,
    waiters: AtomicU32,
    unused: AtomicU32,
}

/// The page itself. Atomics only: it is shared with another process.
#[repr(C)]
#[derive(Debug)]
pub struct Page {
    magic: AtomicU32,
    faults_armed: AtomicU32,
    journal_all: AtomicU32,
    locked: AtomicU32,
    inside: AtomicU32,
    unused: AtomicU32,
    errors: [AtomicU32; CONTEXTS_MAX],
    calls: [AtomicU64; SYMBOLS_MAX],
    streams: [StreamCell; STREAMS_MAX],
}

/// One side's mapping of a page.
#[derive(Debug)]
pub struct StatusPage {
    mapping: SharedMapping<Page>,
}

impl StatusPage {
    /// A fresh page and the file to send to the client.
    ///
    /// # Errors
    /// What the system says when it has no memory or descriptors left.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let file =
            memfd_create(c"headgate-simgpu-status", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&file, i64::try_from(size_of::<Page>()).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let mapping = SharedMapping::<Page>::new(file.as_fd())?;
        mapping.magic.store(MAGIC, Ordering::Release);
        Ok((Self { mapping }, file))
    }

    /// Maps the page a server sent.
    ///
    /// # Errors
    /// When it cannot be mapped or is not a status page of this build.
    pub fn open(file: &OwnedFd) -> io::Result<Self> {
        let mapping = SharedMapping::<Page>::new(file.as_fd())?;
        if mapping.magic.load(Ordering::Acquire) != MAGIC {
            return Err(io::Error::other("the server sent something that is not a status page"));
        }
        Ok(Self { mapping })
    }

    /// The error stuck to a context, 0 while it lives.
    #[must_use]
    pub fn error(&self, context: usize) -> u32 {
        self.mapping.errors.get(context).map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(crate) fn set_error(&self, context: usize, code: u32) {
        if let Some(word) = self.mapping.errors.get(context) {
            word.store(code, Ordering::Release);
        }
    }

    /// Number of the last operation that a stream has completed.
    #[must_use]
    pub fn completed(&self, slot: usize) -> u64 {
        self.mapping.streams.get(slot).map_or(u64::MAX, |cell| cell.completed.load(Ordering::Acquire))
    }

    pub(crate) fn set_completed(&self, slot: usize, seq: u64) {
        let Some(cell) = self.mapping.streams.get(slot) else { return };
        // Sequentially consistent against the waiter's count: either the waiter sees the new number or we see it wait.
        cell.completed.store(seq, Ordering::SeqCst);
        if cell.waiters.load(Ordering::SeqCst) != 0 {
            sys::futex_wake(sys::low_half(&cell.completed));
        }
    }

    /// Waits until a stream has completed `seq`, or for at most `timeout`. Returns whether it has.
    pub fn wait(&self, slot: usize, seq: u64, timeout: Duration) -> bool {
        let Some(cell) = self.mapping.streams.get(slot) else { return true };
        if cell.completed.load(Ordering::Acquire) >= seq {
            return true;
        }
        cell.waiters.fetch_add(1, Ordering::SeqCst);
        let seen = cell.completed.load(Ordering::SeqCst);
        if seen < seq {
            #[expect(clippy::cast_possible_truncation, reason = "a futex looks at the low half only")]
            sys::futex_wait(sys::low_half(&cell.completed), seen as u32, timeout);
        }
        cell.waiters.fetch_sub(1, Ordering::SeqCst);
        cell.completed.load(Ordering::Acquire) >= seq
    }

    /// Counts a call of an entry point.
    pub fn count_call(&self, symbol: usize) {
        if let Some(count) = self.mapping.calls.get(symbol) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls of an entry point so far.
    #[must_use]
    pub fn calls(&self, symbol: usize) -> u64 {
        self.mapping.calls.get(symbol).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Whether a call must ask the server if a fault was injected into it.
    #[must_use]
    pub fn faults_armed(&self) -> bool {
        self.mapping.faults_armed.load(Ordering::Acquire) != 0
    }

    pub(crate) fn arm_faults(&self, armed: bool) {
        self.mapping.faults_armed.store(armed.into(), Ordering::Release);
    }

    /// Whether every call is to be noted in the journal, not only those that reach the server.
    #[must_use]
    pub fn journals_all(&self) -> bool {
        self.mapping.journal_all.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn journal_all(&self, all: bool) {
        self.mapping.journal_all.store(all.into(), Ordering::Relaxed);
    }

    /// Enters a call of the driver: waits for as long as the process is locked for a checkpoint.
    pub fn enter(&self) {
        loop {
            // Sequentially consistent against the server: either it sees this call inside, or this call sees the lock.
            self.mapping.inside.fetch_add(1, Ordering::SeqCst);
            if self.mapping.locked.load(Ordering::SeqCst) == 0 {
                return;
            }
            self.leave();
            sys::futex_wait(&self.mapping.locked, 1, LOCK_LOOK);
        }
    }

    /// Leaves it.
    pub fn leave(&self) {
        self.mapping.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Calls that are inside the driver now.
    pub(crate) fn inside(&self) -> u32 {
        self.mapping.inside.load(Ordering::SeqCst)
    }

    pub(crate) fn lock(&self, locked: bool) {
        self.mapping.locked.store(locked.into(), Ordering::SeqCst);
        if !locked {
            sys::futex_wake(&self.mapping.locked);
        }
    }
}
