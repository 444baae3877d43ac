//! Calls that take and give back device memory.
//!
//! Reserve, let the driver act, then commit or roll back: the quota is never exceeded, not even for the moment
//! between a check and an allocation, and a driver that fails leaves no trace in the ledger.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::CUdeviceptr;

use crate::driver::{self, Out};
use crate::ledger::{self, Held};
use crate::verdict::{Bypass, Denial, Verdict};
use crate::{log, session};

/// Alignment the driver gives rows of a pitched allocation; a first estimate, settled with the true pitch.
const PITCH_ALIGNMENT: usize = 512;

/// `cuMemAlloc`, `cuMemAllocAsync`: `bytes` bytes on the current device.
pub(crate) fn allocate(
    address: Out<CUdeviceptr>,
    bytes: usize,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    reserve(bytes as u64, move |held, status| {
        match address.get().filter(|_| status.is_success()) {
            Some(address) => ledger::hold(address, held),
            None => ledger::credit(held.charge),
        }
        status
    })
}

/// `cuMemAllocPitch`: `height` rows whose true length the driver chooses.
pub(crate) fn allocate_pitch(
    address: Out<CUdeviceptr>,
    pitch: Out<usize>,
    width_bytes: usize,
    height: usize,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let row_bytes = width_bytes.checked_next_multiple_of(PITCH_ALIGNMENT).unwrap_or(usize::MAX);
    let estimate = (row_bytes as u64).saturating_mul(height as u64);
    reserve(estimate, move |mut held, status| {
        let (Some(address), Some(pitch), true) = (address.get(), pitch.get(), status.is_success()) else {
            ledger::credit(held.charge);
            return status;
        };
        let actual = (pitch as u64).saturating_mul(height as u64);
        let (charged, row) = (held.charge.bytes, held.charge.device);
        if actual < charged {
            ledger::credit(headgate_abi::segment::Charge { bytes: charged - actual, device: row });
            held.charge.bytes = actual;
        } else if charged < actual {
            let more = session::seated().map(|session| ledger::charge(session, row, actual - charged));
            if let Some(Err(_)) = more {
                // The true pitch does not fit the quota: undo what the driver did.
                let freed = driver::free(address);
                log::event(format_args!("pitched allocation undone: {freed:?}"));
                ledger::credit(held.charge);
                return CUresult::ERROR_OUT_OF_MEMORY;
            }
            held.charge.bytes = actual;
        }
        ledger::hold(address, held);
        status
    })
}

fn reserve<S: FnOnce(Held, CUresult) -> CUresult>(
    bytes: u64,
    settle: S,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let session = match session::require() {
        Ok(session) => session,
        Err(status) => return Verdict::Deny(status, Denial::NoSeat),
    };
    if session.is_off() {
        return Verdict::Bypass(Bypass::Off);
    }
    let Some((context, device)) = driver::current_context() else {
        return Verdict::Bypass(Bypass::DriverWillRefuse);
    };
    let Some(row) = session.row(device) else {
        return Verdict::Bypass(Bypass::UnknownDevice);
    };
    match ledger::charge(session, row, bytes) {
        Ok(charge) => Verdict::ForwardThen(move |status| settle(Held { charge, context }, status)),
        Err(_) => Verdict::Deny(CUresult::ERROR_OUT_OF_MEMORY, Denial::MemoryQuota),
    }
}

/// `cuMemFree`, `cuMemFreeAsync`. Always forwarded, tracked or not, daemon or not.
pub(crate) fn free(address: CUdeviceptr) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let held = ledger::let_go(address);
    Verdict::ForwardThen(move |status: CUresult| {
        match held {
            Some(held) if status.is_success() => ledger::credit(held.charge),
            Some(held) => ledger::hold(address, held),
            None if status.is_success() && address != 0 => ledger::count_untracked(),
            None => {}
        }
        status
    })
}
