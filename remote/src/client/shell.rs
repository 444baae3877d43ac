//! What every exported function does around its own work.

use std::panic::{AssertUnwindSafe, catch_unwind};

use headgate_abi::cuda::types::CUresult;

use super::{Answer, current, state};

/// Runs a call. A panic must not reach the caller, who is C; in a forked child nothing works.
pub fn call(work: impl FnOnce() -> Answer) -> CUresult {
    if state::is_forked() {
        return CUresult::ERROR_NOT_INITIALIZED;
    }
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => CUresult::SUCCESS,
        Ok(Err(status)) => status,
        Err(_) => CUresult::ERROR_UNKNOWN,
    }
}

/// Runs a call in which the null stream is the calling thread's own.
pub fn per_thread(work: impl FnOnce() -> CUresult) -> CUresult {
    current::per_thread(work)
}
