//! Checkpoints of this very process: what leaves the devices is credited, what comes back is charged first.

use std::ffi::c_int;

use headgate_abi::cuda::CUresult;

use crate::ledger::aside;
use crate::pace;
use crate::session;
use crate::verdict::{Denial, Verdict};

/// Whether a step is about this process. What is done to others is theirs to count.
fn is_own(pid: c_int) -> bool {
    u32::try_from(pid) == Ok(std::process::id())
}

/// `cuCheckpointProcessLock`: what was submitted will be waited for, so a batch that is open must be able to end.
pub(crate) fn lock(pid: c_int) -> Verdict<crate::verdict::NoSettlement> {
    if is_own(pid) {
        pace::flush();
    }
    Verdict::Forward
}

/// `cuCheckpointProcessCheckpoint`.
pub(crate) fn checkpoint(pid: c_int) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    // Seated or not: to ask for a seat means to ask the driver, which keeps this process out.
    let session = session::seated().filter(|session| is_own(pid) && !session.is_off());
    Verdict::ForwardThen(move |status: CUresult| {
        if let Some(session) = session.filter(|_| status.is_success()) {
            aside::put(session);
        }
        status
    })
}

/// `cuCheckpointProcessRestore`: refused if what was put aside does not fit into the quota of now. It may be tried again.
pub(crate) fn restore(pid: c_int) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let session = session::seated().filter(|session| is_own(pid) && !session.is_off());
    if let Some(session) = session
        && aside::reserve(session).is_err()
    {
        return Verdict::Deny(CUresult::ERROR_OUT_OF_MEMORY, Denial::MemoryQuota);
    }
    Verdict::ForwardThen(move |status: CUresult| {
        match session {
            Some(session) if status.is_success() => aside::taken(session),
            Some(_) => aside::give_up(),
            None => {}
        }
        status
    })
}
