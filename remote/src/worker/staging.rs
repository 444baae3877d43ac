//! Pinned host memory in which copies are under way.
//!
//! Pieces of one size are cut from slabs that are registered with the driver. A piece comes back when its holder drops it: when
//! the device has read it, or when the client has received what is in it. When all are taken, a copy goes through pageable
//! memory instead: the driver then does what it does for pageable copies natively, wait if it must.
#![expect(unsafe_code, reason = "maps memory that the device reads and writes")]

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use headgate_abi::cuda::symbols::Symbol;

use super::driver::Driver;
use crate::limits::{HOLDS_MAX, STAGING_BYTES_MAX, STAGING_PIECE_BYTES};

/// Bytes mapped and registered at a time.
const SLAB_BYTES: usize = 4 << 20;
/// `CU_MEMHOSTREGISTER_PORTABLE`.
const PORTABLE: u64 = 1;
/// `CU_MEMHOSTALLOC_DEVICEMAP`.
const DEVICE_MAP: u64 = 2;

const _: () = assert!(SLAB_BYTES.is_multiple_of(STAGING_PIECE_BYTES));

/// A piece of staging memory, for one copy.
#[derive(Debug)]
pub(super) struct Piece {
    address: usize,
    /// Bytes of the copy.
    length: usize,
    home: Arc<Staging>,
}

impl Piece {
    /// Its address, for the driver.
    pub(super) fn address(&self) -> u64 {
        self.address as u64
    }

    /// The memory, to be filled. Only for when the device does not use it.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let to: *mut u8 = std::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: a piece is STAGING_PIECE_BYTES of mapped memory, zeroed by the kernel, that belongs to its holder; its
        // length is no more.
        unsafe { std::slice::from_raw_parts_mut(to, self.length) }
    }
}

impl AsRef<[u8]> for Piece {
    /// The copy's bytes. Only for when the device has finished with them.
    fn as_ref(&self) -> &[u8] {
        let from: *const u8 = std::ptr::with_exposed_provenance(self.address);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(from, self.length) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.home.state().free.push(self.address);
    }
}

/// The pieces that are free. Slabs are never given back while the worker lives.
#[derive(Debug, Default)]
pub(super) struct Staging {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<usize>,
    slabs: usize,
}

impl Staging {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece for a copy of so many bytes, which fit into one, if there is one to be had.
    pub(super) fn take(self: &Arc<Self>, driver: &Driver, length: usize) -> Option<Piece> {
        if length > STAGING_PIECE_BYTES {
            return None;
        }
        let mut state = self.state();
        if state.free.is_empty() && (state.slabs + 1) * SLAB_BYTES <= STAGING_BYTES_MAX {
            let slab = map(SLAB_BYTES)?;
            // Without registration copies are merely not asynchronous.
            let _status =
                driver.call(Symbol::cuMemHostRegister_v2, &[slab as u64, SLAB_BYTES as u64, PORTABLE]);
            state.slabs += 1;
            let pieces =
                (0..SLAB_BYTES / STAGING_PIECE_BYTES).map(|index| slab + index * STAGING_PIECE_BYTES);
            state.free.extend(pieces);
        }
        let address = state.free.pop()?;
        Some(Piece { address, length, home: Arc::clone(self) })
    }
}

/// A word of host memory that a stream waits for. It comes back when its holder drops it.
#[derive(Debug)]
pub(super) struct Word {
    address: u64,
    value: u32,
    home: Arc<Words>,
}

impl Word {
    /// Its address, for the driver: with unified addressing the device's is the host's.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// What it is to become: more than it ever was.
    pub(super) fn value(&self) -> u32 {
        self.value
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        self.home.free().push((self.address, self.value));
    }
}

/// Words that nobody waits for, each with what it became last: one page of pinned memory, never given back.
#[derive(Debug, Default)]
pub(super) struct Words {
    free: Mutex<Vec<(u64, u32)>>,
    page: OnceLock<()>,
}

impl Words {
    fn free(&self) -> MutexGuard<'_, Vec<(u64, u32)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A word, if there is one to be had.
    pub(super) fn take(self: &Arc<Self>, driver: &Driver) -> Option<Word> {
        self.page.get_or_init(|| self.free().extend(page(driver)));
        let (address, last) = self.free().pop()?;
        Some(Word { address, value: last.wrapping_add(1), home: Arc::clone(self) })
    }
}

/// A page of words that are 0; none where the driver has none to give.
fn page(driver: &Driver) -> impl Iterator<Item = (u64, u32)> + use<> {
    let mut base = 0u64;
    let place = (&raw mut base).expose_provenance() as u64;
    let words = [place, (HOLDS_MAX * size_of::<u32>()) as u64, PORTABLE | DEVICE_MAP];
    let made = driver.call(Symbol::cuMemHostAlloc, &words).is_success();
    if made {
        let page: *mut u32 = std::ptr::with_exposed_provenance_mut(usize::try_from(base).unwrap_or(0));
        // SAFETY: the driver has just made so many words of host memory there, and nobody else knows of them.
        unsafe { page.write_bytes(0, HOLDS_MAX) };
    }
    let count = if made { HOLDS_MAX as u64 } else { 0 };
    (0..count).map(move |index| (base + index * size_of::<u32>() as u64, 0))
}

fn map(bytes: usize) -> Option<usize> {
    // SAFETY: a new private mapping, placed by the kernel.
    let slab = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (slab != libc::MAP_FAILED).then(|| slab.expose_provenance())
}
