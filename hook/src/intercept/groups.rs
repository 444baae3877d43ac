//! Calls that say which context is current, and which SMs a device or a context has. On a device that is shared by green
//! contexts the program sees the primary context where ours stands, and its tenant's groups as the whole device.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUdevice, CUenum, CUgreenCtx};

use super::launch;
use crate::driver::Out;
use crate::driver::groups::Resource;
use crate::green;
use crate::verdict::{Denial, Verdict};

/// `cuCtxGetCurrent`, `cuStreamGetCtx`.
#[inline]
pub(crate) fn context(told: Out<CUcontext>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    meant(told)
}

/// A context that the driver tells is the one that the program means by it.
#[inline]
pub(super) fn meant(told: Out<CUcontext>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if let Some(context) = told.get().filter(|_| status.is_success()) {
            told.set(green::meant(context));
        }
        status
    })
}

/// `cuStreamGetCtx` in its second form, `cuStreamGetGreenCtx`.
pub(crate) fn contexts(
    told: Out<CUcontext>,
    of: Out<CUgreenCtx>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() {
            if let Some(context) = told.get() {
                told.set(green::meant(context));
            }
            if let Some(context) = of.get() {
                of.set(green::seen(context));
            }
        }
        status
    })
}

/// `cuDeviceGetDevResource`. The groups are there before it answers, so that nothing greater is ever told.
pub(crate) fn of_device(
    device: CUdevice,
    kind: CUenum,
    told: Out<Resource>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    match green::require(device) {
        Err(status) => Verdict::Deny(status, Denial::NoGroups),
        Ok(()) => Verdict::ForwardThen(move |status: CUresult| {
            if status.is_success() {
                green::show(device, kind, &told);
            }
            status
        }),
    }
}

/// `cuCtxGetDevResource`.
pub(crate) fn of_context(
    context: CUcontext,
    kind: CUenum,
    told: Out<Resource>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if let Some(device) = green::device_of(context).filter(|_| status.is_success()) {
            green::show(device, kind, &told);
        }
        status
    })
}

/// `cuGreenCtxCreate`: made of what the program was told its device has, or not at all.
pub(crate) fn create(made: Out<CUgreenCtx>, device: CUdevice) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    match green::require(device) {
        Err(status) => Verdict::Deny(status, Denial::NoGroups),
        Ok(()) => Verdict::ForwardThen(move |status: CUresult| {
            let Some(green) = made.get().filter(|_| status.is_success()) else { return status };
            match green::check(device, green) {
                Ok(()) => status,
                Err(refused) => {
                    made.set(CUgreenCtx::NULL);
                    refused
                }
            }
        }),
    }
}

/// `cuCtxSynchronize`: a primary context includes all green ones.
pub(crate) fn synchronise() -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    launch::synchronise_and(green::synchronised)
}
