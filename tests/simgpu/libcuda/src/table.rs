//! Handles: numbers that name objects, made up here and never dereferenced.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Kinds of handles, so that one kind is never taken for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Context = 1,
    Stream = 2,
    Event = 3,
    Module = 4,
    Function = 5,
    Library = 6,
    Kernel = 7,
    Pool = 8,
    Array = 9,
    Mipmap = 10,
    External = 11,
    Graph = 12,
    GraphNode = 13,
    GraphExec = 14,
    Link = 24,
    Green = 25,
    Resources = 26,
}

/// Handles lie where programs on Linux have nothing mapped, and are not null, 1 or 2.
const BASE: usize = 0x6a00_0000_0000;
const KIND_SHIFT: u32 = 36;
const STEP: usize = 16;

/// Live objects of one kind by handle.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: Kind,
    made: AtomicUsize,
    live: RwLock<HashMap<usize, Arc<T>>>,
}

impl<T> Table<T> {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, made: AtomicUsize::new(1), live: RwLock::new(HashMap::new()) }
    }

    /// A handle that has never been given out.
    pub(crate) fn reserve(&self) -> usize {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        BASE + ((self.kind as usize) << KIND_SHIFT) + number * STEP
    }

    pub(crate) fn insert(&self, handle: usize, object: Arc<T>) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(handle, object);
    }

    pub(crate) fn get(&self, handle: usize) -> Option<Arc<T>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    pub(crate) fn remove(&self, handle: usize) -> Option<Arc<T>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&handle)
    }

    /// Drops every object for which `keep` is false.
    pub(crate) fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).retain(|_, object| keep(object));
    }

    /// Every live object with its handle.
    pub(crate) fn all(&self) -> Vec<(usize, Arc<T>)> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.iter().map(|(&handle, object)| (handle, Arc::clone(object))).collect()
    }

    /// Whether a handle was given out here, live or not.
    pub(crate) fn issued(&self, handle: usize) -> bool {
        let first = BASE + ((self.kind as usize) << KIND_SHIFT);
        let made = self.made.load(Ordering::Relaxed);
        handle
            .checked_sub(first)
            .is_some_and(|offset| offset.is_multiple_of(STEP) && (1..made).contains(&(offset / STEP)))
    }
}
