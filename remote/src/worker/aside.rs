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
