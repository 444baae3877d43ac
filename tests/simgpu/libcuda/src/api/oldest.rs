//! The oldest forms of calls (before CUDA 3.2 and 4.0): contexts that count their users, sizes of 32 bits.
//!
//! Calls that hand out or copy by addresses of 32 bits are not simulated: no address of this device fits.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::types::{CUcontext, CUdevice, CUevent, CUresult, CUstream};

use super::{context, device, event, memory, stream};
use crate::driver::{Answer, driver};
use crate::{current, raw};

pub(crate) fn cuCtxCreate(ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> Answer {
    context::cuCtxCreate_v2(ctx, flags, dev)
}

pub(crate) fn cuCtxDestroy(ctx: CUcontext) -> Answer {
    context::cuCtxDestroy_v2(ctx)
}

pub(crate) fn cuCtxPushCurrent(ctx: CUcontext) -> Answer {
    context::cuCtxPushCurrent_v2(ctx)
}

pub(crate) fn cuCtxPopCurrent(ctx: *mut CUcontext) -> Answer {
    context::cuCtxPopCurrent_v2(ctx)
}

/// One more user of the current context.
pub(crate) fn cuCtxAttach(ctx: *mut CUcontext, flags: c_uint) -> Answer {
    let context = current::any_context(driver()?)?;
    if flags != 0 || ctx.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    context.users.fetch_add(1, Ordering::AcqRel);
    raw::store(ctx, CUcontext::from_addr(context.handle))
}

/// One user less of the current context; with the last one it ends.
pub(crate) fn cuCtxDetach(ctx: CUcontext) -> Answer {
    let driver = driver()?;
    let context = current::resolve(driver, ctx.addr())?;
    if current::handle() != Some(context.handle) || context.is_primary {
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    if context.users.fetch_sub(1, Ordering::AcqRel) == 1 { context::cuCtxDestroy_v2(ctx) } else { Ok(()) }
}

/// A size in the 32 bits there are for it.
fn short(bytes: usize) -> c_uint {
    c_uint::try_from(bytes).unwrap_or(c_uint::MAX)
}

pub(crate) fn cuDeviceTotalMem(bytes: *mut c_uint, dev: CUdevice) -> Answer {
    let mut total = 0;
    device::cuDeviceTotalMem_v2(&raw mut total, dev)?;
    raw::store(bytes, short(total))
}

pub(crate) fn cuMemGetInfo(free: *mut c_uint, total: *mut c_uint) -> Answer {
    let (mut free_bytes, mut total_bytes) = (0, 0);
    memory::cuMemGetInfo_v2(&raw mut free_bytes, &raw mut total_bytes)?;
    raw::store(free, short(free_bytes))?;
    raw::store(total, short(total_bytes))
}

/// Null is nothing to free, in this form too; no other address of 32 bits was ever given out.
pub(crate) fn cuMemFree(dptr: u32) -> Answer {
    memory::cuMemFree_v2(dptr.into())
}

pub(crate) fn cuStreamDestroy(handle: CUstream) -> Answer {
    stream::cuStreamDestroy_v2(handle)
}

pub(crate) fn cuEventDestroy(handle: CUevent) -> Answer {
    event::cuEventDestroy_v2(handle)
}
