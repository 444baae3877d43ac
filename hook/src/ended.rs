//! Handles of streams and contexts that have ended, so that each thread can tell which of its lanes are gone.
//!
//! A thread keeps lanes by handle, and may not ask the driver about a handle that another thread has destroyed. So who
//! destroys one says so first, and every thread reads what was said since it looked last before it touches a lane. What
//! it has missed, because too much was said, costs it all of its lanes.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Release},
};

use crate::session;

/// Ends that a thread may be behind.
const KEPT: usize = 64;

struct Slot {
    /// Which end this is, counted from one; zero while it is being written.
    number: AtomicU64,
    handle: AtomicUsize,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static SLOTS: [Slot; KEPT] =
    [const { Slot { number: AtomicU64::new(0), handle: AtomicUsize::new(0) } }; KEPT];

fn slot(count: u64) -> &'static Slot {
    &SLOTS[usize::try_from(count % KEPT as u64).unwrap_or(0)]
}

/// A stream is about to be destroyed, or a context has been.
pub(crate) fn note(handle: usize) {
    let count = COUNT.fetch_add(1, AcqRel);
    let slot = slot(count);
    slot.number.store(0, Release);
    slot.handle.store(handle, Release);
    slot.number.store(count + 1, Release);
    session::invalidate();
}

/// The handles that have ended since `seen`, which is brought up to date; `None` when some of them are not known any more.
pub(crate) fn since(seen: &mut u64) -> Option<Vec<usize>> {
    let count = COUNT.load(Acquire);
    let first = std::mem::replace(seen, count);
    if KEPT as u64 <= count.wrapping_sub(first) {
        return None;
    }
    (first..count)
        .map(|count| {
            let slot = slot(count);
            let handle = (slot.number.load(Acquire) == count + 1).then(|| slot.handle.load(Acquire))?;
            (slot.number.load(Acquire) == count + 1).then_some(handle)
        })
        .collect()
}
