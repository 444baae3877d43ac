//! Context-local storage: what libraries keep with a context, by a key of their own.
//!
//! The runtime library looks its own entry up in nearly every call, so a look-up is a comparison with what the thread
//! found last, as long as nothing has changed since; else it is a search of a short list under a lock for reading. When a
//! context ends, each entry's destructor is called with context, key and value, under no lock.
use core::ffi::c_void;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use headgate_abi::cuda::types::{CUcontext, CUresult};

use crate::client::{Answer, current, raw, shell};

/// Entries of a process. A library has one for each context; more than this is a leak.
const ENTRIES_MAX: usize = 4096;
/// As a context: the current one, as null is.
const CURRENT: usize = usize::MAX;

/// What is called with context, key and value when the context ends.
pub(super) type Destructor = extern "C" fn(CUcontext, *mut c_void, *mut c_void);

#[derive(Clone, Copy, Debug)]
struct Entry {
    context: usize,
    key: usize,
    value: usize,
    destructor: Option<Destructor>,
}

static ENTRIES: RwLock<Vec<Entry>> = RwLock::new(Vec::new());
/// Goes up with every change.
static CHANGES: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// What the thread found last: the number of changes then, context, key, value.
    static LAST: Cell<(u64, usize, usize, usize)> = const { Cell::new((0, 0, 0, 0)) };
}

/// The context that is meant.
fn context(given: CUcontext) -> Result<usize, CUresult> {
    match given.addr() {
        0 | CURRENT => current::handle().ok_or(CUresult::ERROR_INVALID_CONTEXT),
        context => Ok(context),
    }
}

/// The list, to be changed.
fn changing() -> RwLockWriteGuard<'static, Vec<Entry>> {
    let entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    // Under the lock: whoever has read the new number finds the new list.
    CHANGES.fetch_add(1, Ordering::AcqRel);
    entries
}

fn keep(given: CUcontext, key: usize, value: usize, destructor: Option<Destructor>) -> Answer {
    let entry = Entry { context: context(given)?, key, value, destructor };
    let mut entries = changing();
    match entries.iter().position(|known| known.context == entry.context && known.key == key) {
        Some(place) => entries[place] = entry,
        None if entries.len() < ENTRIES_MAX => entries.push(entry),
        None => return Err(CUresult::ERROR_OUT_OF_MEMORY),
    }
    Ok(())
}

fn forget(given: CUcontext, key: usize) -> Answer {
    let context = context(given)?;
    let mut entries = changing();
    let before = entries.len();
    entries.retain(|entry| entry.context != context || entry.key != key);
    if entries.len() < before { Ok(()) } else { Err(CUresult::ERROR_INVALID_HANDLE) }
}

fn find(given: CUcontext, key: usize) -> Result<usize, CUresult> {
    let context = context(given)?;
    let changes = CHANGES.load(Ordering::Acquire);
    let (seen, known_context, known_key, value) = LAST.get();
    if (seen, known_context, known_key) == (changes, context, key) {
        return Ok(value);
    }
    let entries = ENTRIES.read().unwrap_or_else(PoisonError::into_inner);
    let found = entries.iter().find(|entry| entry.context == context && entry.key == key);
    let value = found.ok_or(CUresult::ERROR_INVALID_HANDLE)?.value;
    LAST.set((changes, context, key, value));
    Ok(value)
}

/// A context is about to end: its entries go, and their destructors are told.
pub(in crate::client) fn end(context: usize) {
    let mut gone = Vec::new();
    changing().retain(|entry| {
        let stays = entry.context != context;
        if !stays {
            gone.push(*entry);
        }
        stays
    });
    for entry in gone {
        if let Some(destructor) = entry.destructor {
            let pointer = core::ptr::with_exposed_provenance_mut;
            destructor(CUcontext::from_addr(entry.context), pointer(entry.key), pointer(entry.value));
        }
    }
}

/// Keeps a value with a context, in the place of one that was kept by the same key. The destructor may be called later,
/// from any thread.
pub(super) extern "C" fn put(
    context: CUcontext,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
) -> CUresult {
    shell::call(|| keep(context, key.expose_provenance(), value.expose_provenance(), destructor))
}

/// Forgets a value. Its destructor is not called.
pub(super) extern "C" fn delete(context: CUcontext, key: *mut c_void) -> CUresult {
    shell::call(|| forget(context, key.addr()))
}

/// The value.
pub(super) extern "C" fn get(value: *mut *mut c_void, context: CUcontext, key: *mut c_void) -> CUresult {
    shell::call(|| {
        let found = find(context, key.addr())?;
        raw::store(value, core::ptr::with_exposed_provenance_mut(found))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static TOLD: Mutex<Vec<[usize; 3]>> = Mutex::new(Vec::new());

    extern "C" fn told(context: CUcontext, key: *mut c_void, value: *mut c_void) {
        // It may look again: no lock is held.
        assert_eq!(find(context, key.addr()), Err(CUresult::ERROR_INVALID_HANDLE));
        TOLD.lock().unwrap().push([context.addr(), key.addr(), value.addr()]);
    }

    #[test]
    fn values_are_kept_by_context_and_key_and_go_with_their_context() {
        let (one, two) = (CUcontext::from_addr(0x1000), CUcontext::from_addr(0x2000));
        assert_eq!(find(one, 7), Err(CUresult::ERROR_INVALID_HANDLE));
        keep(one, 7, 70, Some(told)).unwrap();
        keep(two, 7, 71, None).unwrap();
        keep(one, 8, 80, None).unwrap();
        assert_eq!((find(one, 7), find(two, 7), find(one, 8)), (Ok(70), Ok(71), Ok(80)));
        keep(one, 7, 72, Some(told)).unwrap();
        assert_eq!((find(one, 7), find(one, 7)), (Ok(72), Ok(72)), "the newer one, found twice");
        forget(one, 8).unwrap();
        assert_eq!(forget(one, 8), Err(CUresult::ERROR_INVALID_HANDLE));
        assert_eq!(find(one, 8), Err(CUresult::ERROR_INVALID_HANDLE));
        end(0x1000);
        assert_eq!(*TOLD.lock().unwrap(), [[0x1000, 7, 72]], "context, key, value; the forgotten one not");
        assert_eq!((find(one, 7), find(two, 7)), (Err(CUresult::ERROR_INVALID_HANDLE), Ok(71)));
        end(0x2000);
    }

    #[test]
    fn without_a_context_there_is_nothing_to_find() {
        for given in [CUcontext::NULL, CUcontext::from_addr(usize::MAX)] {
            assert_eq!(find(given, 7), Err(CUresult::ERROR_INVALID_CONTEXT));
            assert_eq!(keep(given, 7, 70, None), Err(CUresult::ERROR_INVALID_CONTEXT));
        }
    }
}
