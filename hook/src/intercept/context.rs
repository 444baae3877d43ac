//! Calls that start CUDA and that make, switch and end contexts.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUdevice, CUstream};

use super::groups;
use crate::driver::Out;
use crate::ledger::{overhead, users};
use crate::verdict::{Denial, NoSettlement, Verdict};
use crate::{driver, ended, green, lanes, ledger, pace, reports, session, space};

/// `cuInit`: a seat first, then the driver, so that the daemon has told the kernel of this process by the time the driver
/// opens the device. Without a seat CUDA does not start, but a driver that has reasons of its own, such as a node without
/// a GPU, is heard: a program that can do without must see what it would see without us. On a device that is shared by
/// space, whose part a program gets is decided when the driver starts, by the environment; so that is looked at before.
pub(crate) fn init() -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let sought = session::seek();
    if let Ok(session) = &sought {
        if !space::fits(session) {
            return Verdict::Deny(CUresult::ERROR_NOT_PERMITTED, Denial::OtherSpace);
        }
        green::decide(session);
    }
    let unseated = sought.err();
    Verdict::ForwardThen(move |status: CUresult| match unseated {
        Some(unseated) if status.is_success() => unseated.stand(),
        _ => status,
    })
}

/// `cuCtxCreate`: no context without a seat, and none that cannot keep to its tenant's groups of SMs. What it takes is measured
/// later.
pub(crate) fn create(device: CUdevice) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    match session::require() {
        Err(status) => Verdict::Deny(status, Denial::NoSeat),
        Ok(_) if green::is_confined(device) => Verdict::Deny(CUresult::ERROR_NOT_SUPPORTED, Denial::NoGroups),
        Ok(_) => Verdict::ForwardThen(made),
    }
}

/// `cuDevicePrimaryCtxRetain`: as above; where the device is shared by green contexts, one stands in its place from now on.
pub(crate) fn retain(device: CUdevice) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    if let Err(status) = session::require() {
        return Verdict::Deny(status, Denial::NoSeat);
    }
    match green::require(device) {
        Err(status) => Verdict::Deny(status, Denial::NoGroups),
        Ok(()) => Verdict::ForwardThen(move |status: CUresult| {
            if status.is_success() {
                green::retained(device);
            }
            made(status)
        }),
    }
}

fn made(status: CUresult) -> CUresult {
    pace::context_switched();
    overhead::note();
    status
}

/// Calls that load code or set memory aside: what they take is measured later.
pub(crate) fn load() -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(|status: CUresult| {
        if status.is_success() && session::seated().is_some() {
            overhead::note();
        }
        status
    })
}

/// `cuCtxSetCurrent`, and `cuCtxPushCurrent` if `pushed`.
pub(crate) fn enter(pushed: bool) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::context_switched();
    Verdict::ForwardThen(move |status: CUresult| {
        if !status.is_success() {
            return status;
        }
        green::entered(pushed).err().unwrap_or(status)
    })
}

/// `cuCtxPopCurrent`.
pub(crate) fn leave(popped: Out<CUcontext>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::context_switched();
    groups::meant(popped)
}

/// `cuCtxDestroy`: everything inside is gone with it.
pub(crate) fn destroy(context: CUcontext) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::flush();
    about_to_end(context);
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() {
            end(context);
        }
        status
    })
}

/// `cuCtxAttach`: one more user of the current context, which therefore outlives a `cuCtxDetach`.
pub(crate) fn attach(context: Out<CUcontext>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    match session::require() {
        Err(status) => Verdict::Deny(status, Denial::NoSeat),
        Ok(_) => Verdict::ForwardThen(move |status: CUresult| {
            if let Some(current) = context.get().filter(|_| status.is_success()) {
                context.set(green::meant(current));
                users::attach(green::meant(current));
            }
            status
        }),
    }
}

/// `cuCtxDetach`: one user less; the context ends with its last one.
pub(crate) fn detach(context: CUcontext) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::flush();
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() && !users::detach(context) {
            end(context);
        }
        status
    })
}

/// `cuDevicePrimaryCtxRelease`.
pub(crate) fn release_primary(device: CUdevice) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::flush();
    green::releasing(device);
    end_primary(device, green::released)
}

/// `cuDevicePrimaryCtxReset`.
pub(crate) fn reset_primary(device: CUdevice) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    pace::flush();
    green::resetting(device);
    end_primary(device, |_| ())
}

/// The context is gone if the driver then says it is not active.
fn end_primary(device: CUdevice, done: fn(CUdevice)) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let context = primary(device);
    context.into_iter().for_each(about_to_end);
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() {
            done(device);
        }
        if status.is_success()
            && driver::primary_context_active(device) == Some(false)
            && let Some(context) = context
        {
            green::ended(device);
            end(context);
        }
        status
    })
}

/// The primary context of a device without retaining it for good.
fn primary(device: CUdevice) -> Option<CUcontext> {
    (driver::primary_context_active(device)? && session::seated().is_some())
        .then(|| driver::primary_context(device))
        .flatten()
}

/// Said before the driver ends it: another thread may still keep lanes there, and asks the driver about them.
fn about_to_end(context: CUcontext) {
    ended::note(context.addr());
    if let Some(session) = session::seated() {
        reports::strike_off(session, context);
    }
}

fn end(context: CUcontext) {
    ledger::end_context(context);
    if let Some(session) = session::seated() {
        lanes::end_context(session, context);
    }
    ended::note(context.addr());
}

/// `cuStreamDestroy`: the handle may soon name another stream. Said before it does, because another thread may be the
/// first to use it.
pub(crate) fn destroy_stream(stream: CUstream) -> Verdict<NoSettlement> {
    pace::flush();
    ended::note(stream.addr());
    Verdict::Forward
}
