//! Memory that a client takes before it needs it, so that its small allocations wait for nobody, and gives back when another
//! process of its guest needs it.
//!
//! It is an allocation as any other, charged to the guest when it is made. Where memory is short none is made, and the
//! driver is not asked: whoever counts refusals should count those that a program hears of.

use std::sync::Arc;
use std::time::Instant;

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::session::{End, Session};
use crate::limits::{QUIET_LOOKS_EVERY, SLAB_BYTES_MAX, SLABS_LEFT_MIN};

/// The legacy stream.
const LEGACY: u32 = 0;

impl Session {
    /// Takes so much. The result: its address.
    pub(super) fn ahead(&mut self, bytes: u64) -> Result<(), End> {
        let recall = Arc::clone(&self.recall);
        // Nothing is called back between the allocation and the word of it: the client would not know what it has.
        let mut books = recall.open();
        let taken = self.device().and_then(|device| {
            if books.is_modest() {
                return Err(CUresult::ERROR_OUT_OF_MEMORY);
            }
            let address = books.holding(device, || self.take_ahead(bytes))?;
            books.took(address, self.current, device);
            Ok(address)
        });
        match taken {
            Ok(address) => {
                self.watch.expect_idleness();
                self.reply(CUresult::SUCCESS, &address.to_le_bytes())
            }
            Err(status) => self.reply(status, &[]),
        }
    }

    fn take_ahead(&self, bytes: u64) -> Result<u64, CUresult> {
        let (mut free, mut total, mut address) = (0u64, 0u64, 0u64);
        let place = |word: *mut u64| word.expose_provenance() as u64;
        if bytes == 0 || bytes > SLAB_BYTES_MAX {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let told = self.driver.call(Symbol::cuMemGetInfo_v2, &[place(&raw mut free), place(&raw mut total)]);
        if !told.is_success() {
            return Err(told);
        }
        if free < SLABS_LEFT_MIN * bytes {
            return Err(CUresult::ERROR_OUT_OF_MEMORY);
        }
        match self.driver.call(Symbol::cuMemAlloc_v2, &[place(&raw mut address), bytes]) {
            CUresult::SUCCESS => Ok(address),
            status => Err(status),
        }
    }

    /// The device of the current context.
    fn device(&self) -> Result<i32, CUresult> {
        let mut device = 0i32;
        let place = (&raw mut device).expose_provenance() as u64;
        match self.driver.call(Symbol::cuCtxGetDevice, &[place]) {
            CUresult::SUCCESS => Ok(device),
            status => Err(status),
        }
    }

    /// Gives back what was called back, once nothing of its context is under way: the driver would wait for that, without a bound,
    /// and what comes behind might be what such work waits for.
    pub(super) fn give_back(&mut self, address: u64) -> CUresult {
        if !self.recall.has(address, self.current) {
            return CUresult::ERROR_INVALID_VALUE;
        }
        let Some(behind) = self.legacy_event() else { return CUresult::ERROR_NOT_READY };
        let quiet = self.wait_for_quiet(behind);
        self.watch.spare(self.current, behind);
        if !quiet {
            return CUresult::ERROR_NOT_READY;
        }
        let status = self.driver.call(Symbol::cuMemFree_v2, &[address]);
        if status.is_success() {
            self.recall.freed(address);
        }
        status
    }

    /// An event behind the legacy stream; none while a stream is captured, which a question would harm.
    fn legacy_event(&mut self) -> Option<u64> {
        if self.is_capturing() { None } else { self.event_behind(LEGACY).ok() }
    }

    /// Holds operations up until nothing of the current context is under way, as long as may be. Whether nothing is.
    #[expect(clippy::disallowed_methods, reason = "the wait has a bound in time")]
    fn wait_for_quiet(&self, behind: u64) -> bool {
        if self.is_quiet(behind) {
            return true;
        }
        let (since, until) = (Instant::now(), self.recall.quiet_until());
        let mut quiet = false;
        while !quiet && until.is_some_and(|until| Instant::now() < until) {
            std::thread::sleep(QUIET_LOOKS_EVERY);
            quiet = self.is_quiet(behind);
        }
        self.recall.held_up(since);
        quiet
    }

    /// Whether nothing of the current context is under way. Work comes from nobody but this thread.
    fn is_quiet(&self, behind: u64) -> bool {
        let ready = |symbol, handle| self.driver.call(symbol, &[handle]) != CUresult::ERROR_NOT_READY;
        let streams = self.handles.streams(self.current);
        streams.into_iter().all(|stream| ready(Symbol::cuStreamQuery, stream))
            && ready(Symbol::cuEventQuery, behind)
    }
}
