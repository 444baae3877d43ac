//! Putting what is on the device aside, and bringing it back: the driver's checkpoint of this very process.
//!
//! ```text
//! Aside --> finish, tell --> lock --> checkpoint --> (Aside) .. Return --> restore --> unlock --> (Return)
//! ```
//!
//! Memory goes into this process's own, and comes back to its addresses; contexts, streams, events, code and handles stay. So the
//! client sees nothing of it but time. The hook credits what leaves the device, and refuses what does not fit when it
//! comes back.

use std::time::Instant;

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::driver::Driver;
use super::session::Session;
use crate::limits::{FREED_LOOKS_EVERY, FREED_WITHIN, LOCK_WITHIN};

/// `CUcheckpointLockArgs`.
#[repr(C)]
struct LockArgs {
    timeout_ms: u32,
    reserved0: u32,
    reserved1: [u64; 7],
}

impl Driver {
    fn lock_itself(&self) -> CUresult {
        let timeout_ms = u32::try_from(LOCK_WITHIN.as_millis()).unwrap_or(u32::MAX);
        let mut args = LockArgs { timeout_ms, reserved0: 0, reserved1: [0; 7] };
        self.checkpoint_step(Symbol::cuCheckpointProcessLock, (&raw mut args).cast())
    }
}

impl Session {
    /// Finishes what is under way, has the client told of it, and takes everything off the device. Does nothing if that is done.
    pub(super) fn put_aside(&mut self) -> Result<(), CUresult> {
        if self.aside {
            return Ok(());
        }
        self.drain();
        let step = |symbol| self.driver.checkpoint_step(symbol, std::ptr::null_mut());
        succeeded(self.driver.lock_itself())?;
        succeeded(step(Symbol::cuCheckpointProcessCheckpoint)).inspect_err(|_| {
            // It ends, and must be able to end in order.
            let _status = step(Symbol::cuCheckpointProcessUnlock);
        })?;
        self.aside = true;
        Ok(())
    }

    /// Brings it back. Does nothing if it is back.
    pub(super) fn come_back(&mut self) -> Result<(), CUresult> {
        if !self.aside {
            return Ok(());
        }
        let step = |symbol| self.driver.checkpoint_step(symbol, std::ptr::null_mut());
        succeeded(patiently(|| step(Symbol::cuCheckpointProcessRestore)))?;
        succeeded(step(Symbol::cuCheckpointProcessUnlock))?;
        self.aside = false;
        Ok(())
    }
}

/// Tries again for a moment what there is no room for: a process of the guest that has just ended is charged until the daemon has
/// seen its end.
#[expect(clippy::disallowed_methods, reason = "the wait has a bound in time")]
fn patiently(restore: impl Fn() -> CUresult) -> CUresult {
    let since = Instant::now();
    loop {
        match restore() {
            CUresult::ERROR_OUT_OF_MEMORY if since.elapsed() < FREED_WITHIN => {
                std::thread::sleep(FREED_LOOKS_EVERY);
            }
            status => return status,
        }
    }
}

fn succeeded(status: CUresult) -> Result<(), CUresult> {
    if status.is_success() { Ok(()) } else { Err(status) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of a restore that answers in turn, the last answer for ever; and how often it was asked.
    fn restored(answers: &[CUresult]) -> (CUresult, usize) {
        let asked = Cell::new(0);
        let status = patiently(|| {
            let answer = answers[asked.get().min(answers.len() - 1)];
            asked.set(asked.get() + 1);
            answer
        });
        (status, asked.get())
    }

    #[test]
    fn room_that_comes_free_is_waited_for_and_nothing_else_is() {
        let [full, done, lost] =
            [CUresult::ERROR_OUT_OF_MEMORY, CUresult::SUCCESS, CUresult::ERROR_ILLEGAL_STATE];
        assert_eq!(restored(&[done]), (done, 1));
        assert_eq!(restored(&[full, full, done]), (done, 3), "there is room a moment later");
        assert_eq!(restored(&[lost, done]), (lost, 1), "what no moment mends");
        assert_eq!(restored(&[full, lost, done]), (lost, 2));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the wait has a bound in time")]
    fn room_that_does_not_come_free_is_not_waited_for_longer_than_it_takes_to_see_an_end() {
        let since = Instant::now();
        let (status, asked) = restored(&[CUresult::ERROR_OUT_OF_MEMORY]);
        assert_eq!(status, CUresult::ERROR_OUT_OF_MEMORY);
        assert!(1 < asked && FREED_WITHIN <= since.elapsed(), "asked {asked} times in {:?}", since.elapsed());
    }
}
