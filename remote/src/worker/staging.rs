//! Pinned host memory in which copies are under way.
//!
//! Pieces of one size are cut from slabs that are registered with the driver. A piece comes back when its holder drops it: when
//! the device has read it, or when the client has received what is in it. When all are taken, a copy goes through pageable
//! memory instead: the driver then does what it does for pageable copies natively, wait if it must.
#![expect(unsafe_code, reason = "maps memory that the device reads and writes")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_abi::cuda::symbols::Symbol;

use super::driver::Driver;
use crate::limits::{STAGING_BYTES_MAX, STAGING_PIECE_BYTES};

/// Bytes mapped and registered at a time.
const SLAB_BYTES: usize = 4 << 20;
/// `CU_MEMHOSTREGISTER_PORTABLE`.
const PORTABLE: u64 = 1;

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
