//! What the client's handles stand for, as far as the client has to know.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::ThreadId;

use headgate_abi::cuda::types::CUresult;

use super::Answer;
use super::capture::Capture;
use crate::image::Layout;
use crate::wire::Described;

/// Locks, whatever another thread did while it held the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Objects of one kind, by their numbers. Numbers are never given twice.
#[derive(Debug)]
pub(super) struct Registry<T> {
    next: AtomicU32,
    live: RwLock<HashMap<u32, Arc<T>>>,
}

impl<T> Registry<T> {
    pub(super) fn new() -> Self {
        Self { next: AtomicU32::new(1), live: RwLock::default() }
    }

    /// A number nobody has had.
    pub(super) fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether somebody has or had this number.
    pub(super) fn was_given(&self, id: u32) -> bool {
        0 < id && id < self.next.load(Ordering::Relaxed)
    }

    pub(super) fn insert(&self, id: u32, object: Arc<T>) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(id, object);
    }

    pub(super) fn get(&self, id: u32) -> Option<Arc<T>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(super) fn remove(&self, id: u32) -> Option<Arc<T>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    pub(super) fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).retain(|_, object| keep(object));
    }

    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// A context.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) id: u32,
    pub(super) device: usize,
    pub(super) flags: u32,
    pub(super) is_primary: bool,
    pub(super) alive: AtomicBool,
    /// What went wrong for good.
    pub(super) stuck: AtomicU32,
    /// What went wrong in a call that had returned, until a call reports it.
    pub(super) late: AtomicU32,
    /// Why it could not be made, though the program has its handle.
    failed: AtomicU32,
    pub(super) legacy: Arc<Stream>,
    /// Streams made in it, the legacy one excepted.
    pub(super) streams: Mutex<Vec<Arc<Stream>>>,
    pub(super) of_threads: Mutex<HashMap<ThreadId, Arc<Stream>>>,
}

/// Errors after which a context is of no use any more.
fn sticks(status: u32) -> bool {
    const STICKY: [u32; 12] = [46, 214, 700, 702, 709, 714, 715, 716, 717, 718, 719, 721];
    STICKY.contains(&status)
}

impl Context {
    pub(super) fn new(id: u32, device: usize, flags: u32, is_primary: bool) -> Self {
        Self {
            id,
            device,
            flags,
            is_primary,
            alive: AtomicBool::new(true),
            stuck: AtomicU32::new(0),
            late: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            legacy: Arc::new(Stream::new(0, id, true, 0, 0)),
            streams: Mutex::default(),
            of_threads: Mutex::default(),
        }
    }

    /// Takes note of an error that came after its call.
    pub(super) fn note(&self, status: u32) {
        let place = if sticks(status) { &self.stuck } else { &self.late };
        // The first one counts.
        let _earlier = place.compare_exchange(0, status, Ordering::AcqRel, Ordering::Acquire);
    }

    /// It could not be made. Whatever is done with it says so.
    pub(super) fn fail(&self, status: CUresult) {
        self.failed.store(status.0, Ordering::Release);
        self.stuck.store(status.0, Ordering::Release);
    }

    /// Why it could not be made, if it could not.
    pub(super) fn failure(&self) -> Option<CUresult> {
        Some(CUresult(self.failed.load(Ordering::Acquire))).filter(|status| !status.is_success())
    }

    /// The error that sticks to it.
    pub(super) fn check(&self) -> Answer {
        match self.stuck.load(Ordering::Acquire) {
            0 => Ok(()),
            status => Err(CUresult(status)),
        }
    }

    /// The error that sticks to it, or one that no call has reported yet.
    pub(super) fn report(&self) -> Answer {
        self.check()?;
        match self.late.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => match self.late.swap(0, Ordering::AcqRel) {
                0 => Ok(()),
                status => Err(CUresult(status)),
            },
        }
    }

    /// What an operation in the legacy stream waits for: that stream and every blocking one, with how far each is.
    pub(super) fn blocking(&self) -> Vec<Reached> {
        let streams = lock(&self.streams);
        let blocking = streams.iter().filter(|stream| stream.blocking);
        std::iter::once(&self.legacy).chain(blocking).map(Reached::now).collect()
    }

    /// A stream of it, by its number.
    pub(super) fn stream(&self, id: u32) -> Option<Arc<Stream>> {
        match id {
            0 => Some(Arc::clone(&self.legacy)),
            _ => lock(&self.streams).iter().find(|stream| stream.id == id).cloned(),
        }
    }

    /// Every stream, with how far each is.
    pub(super) fn everything(&self) -> Vec<Reached> {
        let streams = lock(&self.streams);
        std::iter::once(&self.legacy).chain(streams.iter()).map(Reached::now).collect()
    }
}

/// A stream and a point in it.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub(super) stream: Arc<Stream>,
    pub(super) count: u64,
}

impl Reached {
    pub(super) fn now(stream: &Arc<Stream>) -> Self {
        Self { stream: Arc::clone(stream), count: stream.submitted.load(Ordering::Acquire) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stream.completed.load(Ordering::Acquire) >= self.count
    }

    /// It has been reached.
    pub(super) fn complete(&self) {
        self.stream.completed.fetch_max(self.count, Ordering::AcqRel);
    }
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its number, 0 for the legacy stream of a context.
    pub(super) id: u32,
    pub(super) context: u32,
    /// Whether the legacy stream waits for it.
    pub(super) blocking: bool,
    pub(super) flags: u32,
    pub(super) priority: i32,
    /// Operations put into it, and those known to be done.
    pub(super) submitted: AtomicU64,
    pub(super) completed: AtomicU64,
    /// How far a fence has been asked for.
    pub(super) fenced: AtomicU64,
    /// No operation of those counted in `submitted` has a higher number, save the `unplaced` ones.
    last: AtomicU64,
    /// Operations counted in `submitted` before they have a number.
    unplaced: AtomicU64,
    /// Whether it takes part in a capture, and in which.
    pub(super) captured: AtomicBool,
    pub(super) capture: Mutex<Option<Arc<Capture>>>,
}

impl Stream {
    pub(super) fn new(id: u32, context: u32, blocking: bool, flags: u32, priority: i32) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            id,
            context,
            blocking,
            flags,
            priority,
            submitted: zero(),
            completed: zero(),
            fenced: zero(),
            last: zero(),
            unplaced: zero(),
            captured: AtomicBool::new(false),
            capture: Mutex::default(),
        }
    }

    /// Something has been put into it, with a number that is not above `placed`. What is recorded is not done, and so
    /// never completes.
    pub(super) fn touch(&self, placed: u64) {
        if !self.captured.load(Ordering::Acquire) {
            self.last.fetch_max(placed, Ordering::AcqRel);
            self.submitted.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Something is about to be put into it; [`Stream::placed`] follows.
    pub(super) fn touch_before(&self) {
        self.unplaced.fetch_add(1, Ordering::AcqRel);
        if !self.captured.load(Ordering::Acquire) {
            self.submitted.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It has been put there, with a number that is not above `placed`.
    pub(super) fn placed(&self, placed: u64) {
        self.last.fetch_max(placed, Ordering::AcqRel);
        self.unplaced.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whatever was put into it up to an operation is done. What is counted here may be numbered higher; then nothing
    /// is known of it.
    pub(super) fn reached(&self, operation: u64) {
        // In this order: whatever is counted in `submitted` was in `unplaced` before, and is there or in `last` now.
        let submitted = self.submitted.load(Ordering::Acquire);
        let unplaced = self.unplaced.load(Ordering::Acquire);
        if unplaced == 0 && self.last.load(Ordering::Acquire) <= operation {
            self.completed.fetch_max(submitted, Ordering::AcqRel);
        }
    }
}

/// An event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: u32,
    pub(super) context: u32,
    /// How often it was recorded, and which of those is known to be complete.
    pub(super) recorded: AtomicU64,
    pub(super) completed: AtomicU64,
    /// The capture it was last recorded in, if it was in one.
    pub(super) captured: Mutex<Option<Arc<Capture>>>,
}

/// A module.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) id: u32,
    pub(super) context: u32,
    pub(super) kernels: Known,
    /// Functions that were asked for, by name.
    pub(super) functions: Mutex<HashMap<String, Arc<Function>>>,
    /// Variables that were asked for: address and bytes, by name.
    pub(super) variables: Mutex<HashMap<String, (u64, u64)>>,
}

/// What is known of an image's kernels without asking.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether these are all.
    pub(super) complete: bool,
    pub(super) layouts: HashMap<String, Option<Layout>>,
    pub(super) described: HashMap<String, Described>,
}

/// A library.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) id: u32,
    pub(super) kernels: Arc<Known>,
    pub(super) functions: Mutex<HashMap<String, Arc<Function>>>,
    /// Its modules by context.
    pub(super) modules: Mutex<HashMap<u32, Arc<Module>>>,
}

/// A kernel, of a module or of a library.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) id: u32,
    pub(super) name: CString,
    /// The module's or the library's number.
    pub(super) parent: u32,
    pub(super) of_library: bool,
    /// Context of the module.
    pub(super) context: u32,
    pub(super) layout: Option<Layout>,
    pub(super) described: OnceLock<Described>,
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES` as set, -1 for as described.
    pub(super) dynamic_shared_max: AtomicI32,
}

/// Device memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocation {
    pub(super) bytes: u64,
    pub(super) context: u32,
    pub(super) device: usize,
}

/// Pinned host memory, or what the program calls so: here it only tells which copies may be asynchronous.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostRange {
    pub(super) bytes: usize,
    pub(super) flags: u32,
    /// Whether the client made it, so that freeing it is the client's.
    pub(super) owned: bool,
}
