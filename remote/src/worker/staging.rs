//! Pinned host memory in which copies are under way.
//!
//! Pieces of one size are cut from slabs that are registered with the driver. When all are taken, a copy goes through
//! pageable memory instead: the driver then does what it does for pageable copies natively, wait if it must.
#![expect(unsafe_code, reason = "maps memory that the device reads and writes")]

use std::sync::{Mutex, PoisonError};

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
}

impl Piece {
    /// Its address, for the driver.
    pub(super) fn address(&self) -> u64 {
        self.address as u64
    }

    /// Puts bytes into it, as many as fit.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(STAGING_PIECE_BYTES);
        let to: *mut u8 = std::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: a piece is STAGING_PIECE_BYTES of mapped memory that belongs to its holder.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, length) };
    }

    /// Its first bytes. Only for when the device has finished with it.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        let from: *const u8 = std::ptr::with_exposed_provenance(self.address);
        // SAFETY: as above; the memory was zeroed by the kernel when mapped.
        unsafe { std::slice::from_raw_parts(from, length.min(STAGING_PIECE_BYTES)) }
    }
}

/// The pieces that are free. Slabs are never given back while the worker lives.
#[derive(Debug, Default)]
pub(super) struct Staging {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Piece>,
    slabs: usize,
}

impl Staging {
    /// A piece, if there is one to be had.
    pub(super) fn take(&self, driver: &Driver) -> Option<Piece> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.free.is_empty() && (state.slabs + 1) * SLAB_BYTES <= STAGING_BYTES_MAX {
            let slab = map(SLAB_BYTES)?;
            // Without registration copies are merely not asynchronous.
            let _status =
                driver.call(Symbol::cuMemHostRegister_v2, &[slab as u64, SLAB_BYTES as u64, PORTABLE]);
            state.slabs += 1;
            let pieces = (0..SLAB_BYTES / STAGING_PIECE_BYTES)
                .map(|index| Piece { address: slab + index * STAGING_PIECE_BYTES });
            state.free.extend(pieces);
        }
        state.free.pop()
    }

    /// Gives a piece back.
    pub(super) fn give(&self, piece: Piece) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(piece);
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
