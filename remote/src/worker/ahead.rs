//! Memory that a client takes before it needs it, so that its small allocations wait for nobody.
//!
//! It is an allocation as any other, charged to the guest when it is made. Where memory is short none is made, and the
//! driver is not asked: whoever counts refusals should count those that a program hears of.

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::session::Session;
use crate::limits::{SLAB_BYTES_MAX, SLABS_LEFT_MIN};

impl Session {
    /// Takes so much. The result: its address.
    pub(super) fn ahead(&self, bytes: u64) -> (CUresult, Vec<u8>) {
        let (mut free, mut total, mut address) = (0u64, 0u64, 0u64);
        let place = |word: *mut u64| word.expose_provenance() as u64;
        if bytes == 0 || bytes > SLAB_BYTES_MAX {
            return (CUresult::ERROR_INVALID_VALUE, Vec::new());
        }
        let told = self.driver.call(Symbol::cuMemGetInfo_v2, &[place(&raw mut free), place(&raw mut total)]);
        if !told.is_success() {
            return (told, Vec::new());
        }
        if free < SLABS_LEFT_MIN * bytes {
            return (CUresult::ERROR_OUT_OF_MEMORY, Vec::new());
        }
        let status = self.driver.call(Symbol::cuMemAlloc_v2, &[place(&raw mut address), bytes]);
        if !status.is_success() {
            return (status, Vec::new());
        }
        self.watch.expect_idleness();
        (status, address.to_le_bytes().to_vec())
    }
}
