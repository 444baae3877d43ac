//! Launches, and the calls before which a batch must end.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUDA_LAUNCH_PARAMS, CUstream};

use crate::awaited;
use crate::driver;
use crate::ledger::pools;
use crate::pace::{self, Admission};
use crate::verdict::{Denial, Verdict};

/// Every way to start kernels in a stream.
#[inline]
pub(crate) fn launch(stream: CUstream, per_thread: bool) -> Verdict<fn(CUresult) -> CUresult> {
    match pace::admit(stream, per_thread) {
        Admission::Go => Verdict::Forward,
        Admission::GoThenEdge => Verdict::ForwardThen(|status| {
            pace::after_last();
            status
        }),
        Admission::Refuse(status) => Verdict::Deny(status, Denial::NoSeat),
    }
}

/// `cuLaunchKernelEx`. A launch that overlaps the one before it gets nothing put in front of it: that would
/// serialise what the program wants to overlap. It is counted and runs in the window of its predecessor.
#[inline]
pub(crate) fn launch_extended(
    stream: CUstream,
    per_thread: bool,
    overlaps: bool,
) -> Verdict<fn(CUresult) -> CUresult> {
    if overlaps {
        pace::count_unpaced();
        return Verdict::Forward;
    }
    launch(stream, per_thread)
}

/// `cuLaunchCooperativeKernelMultiDevice`: each part waits at the gate of its own device. The kernel meets itself
/// across devices, so parts past their gates wait for the others; every gate opens by itself, so none waits for good.
pub(crate) fn launch_on_many(parts: Vec<CUDA_LAUNCH_PARAMS>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let mut last = Admission::Go;
    for part in parts {
        pace::context_switched();
        last = driver::in_context_of(part.hStream, || pace::admit(part.hStream, false));
        if let Admission::Refuse(status) = last {
            return Verdict::Deny(status, Denial::NoSeat);
        }
    }
    pace::context_switched();
    Verdict::ForwardThen(move |status| {
        if matches!(last, Admission::GoThenEdge) {
            pace::after_last();
        }
        status
    })
}

/// Calls that wait for the device. Pools may have shrunk once it has.
#[inline]
pub(crate) fn synchronise() -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    synchronise_and(|status| status)
}

/// As above, for a call after which there is still something to wait for.
#[inline]
pub(super) fn synchronise_and(also: fn(CUresult) -> CUresult) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::flush();
    let awaited = awaited::begin();
    Verdict::ForwardThen(move |status| {
        let status = also(status);
        drop(awaited);
        pace::looked(true);
        pools::look_again();
        status
    })
}

/// Calls that wait for the device because they copy, ask how far it is, or mark a point in a stream: work before them is reported
/// first, or the daemon would take the tenant for idle.
#[inline]
pub(crate) fn observe<const WAITS: bool>() -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::flush();
    let awaited = if WAITS { awaited::begin() } else { None };
    Verdict::ForwardThen(|status| {
        drop(awaited);
        pace::looked(false);
        status
    })
}
