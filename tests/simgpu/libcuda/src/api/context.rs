//! Contexts: primary ones, ordinary ones, and the stack of each thread.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint, c_void};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::types::{CUcontext, CUdevice, CUenum, CUresult};
use headgate_simgpu::limits::CONNECTIONS_MAX;
use headgate_simgpu::protocol::{Reply, Request};

use super::device;
use crate::driver::{Answer, Driver, driver, lost};
use crate::objects::{Context, Green, Origin, Share, Stream, StreamKind, lock};
use crate::{capture, current, private, raw};

/// `CU_CTX_SCHED_MASK`, `MAP_HOST`, `LMEM_RESIZE_TO_MAX`, `COREDUMP_ENABLE`, `USER_COREDUMP_ENABLE`, `SYNC_MEMOPS`.
const FLAGS: c_uint = 0xff;
/// The version of the context interface, as real drivers tell it.
const API_VERSION: c_uint = 3_020;
const LIMIT_L2_FETCH: CUenum = 5;

/// Default values of `CUlimit` 0 to 6: stack, printf, heap, sync depth, pending launches, L2 fetch, persisting L2.
const LIMITS: [usize; 7] = [1_024, 1 << 20, 8 << 20, 2, 2_048, 64, 0];

/// `CUDA_DEVICE_MAX_CONNECTIONS`, from 1 to 32; other values are as none.
fn connections() -> Option<u32> {
    let wanted = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").ok()?;
    wanted.parse().ok().filter(|wanted| (1..=CONNECTIONS_MAX).contains(wanted))
}

fn create(
    driver: &Driver,
    index: usize,
    flags: c_uint,
    handle: usize,
    is_primary: bool,
) -> Result<Arc<Context>, CUresult> {
    if flags & !FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let (slot, completed) = driver.take_slot()?;
    let device = u32::try_from(index).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    let number =
        match driver.ask(&Request::OpenContext { device, legacy_slot: slot, connections: connections() }) {
            Ok(Reply::Context(number)) => number,
            Ok(other) => return Err(device::out_of_turn(other)),
            Err(status) => {
                driver.give_slot(slot, completed);
                return Err(status);
            }
        };
    let alive = Arc::new(AtomicBool::new(true));
    let legacy = Arc::new(Stream {
        handle: 0,
        slot,
        context: handle,
        home: handle,
        context_number: number,
        context_alive: Arc::clone(&alive),
        kind: StreamKind::Legacy,
        flags: 0,
        priority: 0,
        submitted: AtomicU64::new(completed),
        capture: Mutex::new(None),
    });
    let context = Arc::new(Context {
        handle,
        home: handle,
        number,
        device: index,
        flags,
        is_primary,
        users: AtomicU32::new(1),
        alive,
        streams: Mutex::new(vec![Arc::clone(&legacy)]),
        legacy,
        limits: Mutex::new(HashMap::new()),
        share: None,
    });
    driver.contexts.insert(handle, Arc::clone(&context));
    Ok(context)
}

/// A context that shares the device's primary one, which it retains, but keeps to a part of the SMs.
pub(crate) fn create_green(driver: &Driver, index: usize, share: Share) -> Result<Arc<Context>, CUresult> {
    let device = CUdevice::try_from(index).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    let mut retained = CUcontext::NULL;
    cuDevicePrimaryCtxRetain(&raw mut retained, device)?;
    let primary = current::resolve(driver, retained.addr())?;
    let (slot, completed) = driver.take_slot()?;
    let (context, number) = (primary.number, primary.number);
    let open = Request::OpenStream { context, slot, blocking: false, priority: 0, share: Some(share) };
    driver.connection.post(&open).map_err(lost)?;
    let alive = Arc::new(AtomicBool::new(true));
    let handle = driver.contexts.reserve();
    let legacy = Arc::new(Stream {
        handle: 0,
        slot,
        context: handle,
        home: primary.handle,
        context_number: number,
        context_alive: Arc::clone(&alive),
        kind: StreamKind::NonBlocking,
        flags: 0,
        priority: 0,
        submitted: AtomicU64::new(completed),
        capture: Mutex::new(None),
    });
    let context = Arc::new(Context {
        handle,
        home: primary.handle,
        number,
        device: index,
        flags: primary.flags,
        is_primary: false,
        users: AtomicU32::new(1),
        alive,
        streams: Mutex::new(vec![Arc::clone(&legacy)]),
        legacy,
        limits: Mutex::new(HashMap::new()),
        share: Some(share),
    });
    driver.contexts.insert(handle, Arc::clone(&context));
    Ok(context)
}

/// Ends a green context and its streams. Memory, code and events are the primary context's.
pub(crate) fn destroy_green(driver: &Driver, green: &Green) -> Answer {
    let context = &green.context;
    let outcome = synchronise(driver, context);
    driver.contexts.remove(context.handle);
    context.alive.store(false, Ordering::Release);
    for stream in lock(&context.streams).drain(..) {
        driver.streams.remove(stream.handle);
        driver.connection.tell(&Request::CloseStream { slot: stream.slot });
        driver.give_slot(stream.slot, stream.last());
    }
    let device = CUdevice::try_from(green.device).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    cuDevicePrimaryCtxRelease(device)?;
    outcome
}

/// Ends a context and everything in it.
fn destroy(driver: &Driver, context: &Context) -> Answer {
    driver.contexts.remove(context.handle);
    context.alive.store(false, Ordering::Release);
    let closed = driver.ask(&Request::CloseContext { context: context.number });
    for stream in lock(&context.streams).drain(..) {
        // The server completes nothing in it any more, so its slot is free at once.
        driver.give_slot(stream.slot, 0);
    }
    let owner = context.handle;
    driver.streams.retain(|stream| stream.context != owner);
    driver.events.retain(|event| event.context != owner);
    driver.functions.retain(|function| function.module.context != owner);
    driver.modules.retain(|module| module.context != owner);
    let mut allocations = driver.allocations.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    // What pools and graphs hold on a device goes with its last context there.
    let is_last = driver.contexts.all().iter().all(|(_, other)| other.device != context.device);
    allocations.retain(|_, allocation| {
        let pooled = matches!(allocation.origin, Origin::Pool(_) | Origin::Node);
        allocation.context != owner && !(is_last && pooled && allocation.device == context.device)
    });
    drop(allocations);
    driver.arrays.retain(|array| array.context != owner);
    driver.mipmaps.retain(|mipmap| mipmap.context != owner);
    if is_last {
        let gone: Vec<_> = {
            let mut live = lock(&driver.live_nodes);
            live.extract_if(.., |_, memory| memory.device == context.device).collect()
        };
        drop(gone);
    }
    closed.map(|_| ())
}

pub(crate) fn cuDevicePrimaryCtxRetain(ctx: *mut CUcontext, dev: CUdevice) -> Answer {
    let driver = driver()?;
    let index = device::index(driver, dev)?;
    let primary = &driver.primaries[index];
    let mut state = lock(&primary.state);
    if driver.contexts.get(primary.handle).is_none() {
        create(driver, index, state.flags, primary.handle, true)?;
    }
    state.retained += 1;
    raw::store(ctx, CUcontext::from_addr(primary.handle))
}

pub(crate) fn cuDevicePrimaryCtxRelease(dev: CUdevice) -> Answer {
    let driver = driver()?;
    let primary = &driver.primaries[device::index(driver, dev)?];
    let mut state = lock(&primary.state);
    state.retained = state.retained.checked_sub(1).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    match driver.contexts.get(primary.handle) {
        Some(context) if state.retained == 0 => {
            let outcome = destroy(driver, &context);
            drop(state);
            private::end_context(primary.handle);
            outcome
        }
        _ => Ok(()),
    }
}

pub(crate) fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> Answer {
    cuDevicePrimaryCtxRelease(dev)
}

pub(crate) fn cuDevicePrimaryCtxReset(dev: CUdevice) -> Answer {
    let driver = driver()?;
    let primary = &driver.primaries[device::index(driver, dev)?];
    // While it still is, and with nothing locked: what is told may call the driver.
    private::end_context(primary.handle);
    let mut state = lock(&primary.state);
    state.retained = 0;
    driver.contexts.get(primary.handle).map_or(Ok(()), |context| destroy(driver, &context))
}

pub(crate) fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> Answer {
    cuDevicePrimaryCtxReset(dev)
}

pub(crate) fn cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut c_uint, active: *mut c_int) -> Answer {
    let driver = driver()?;
    let primary = &driver.primaries[device::index(driver, dev)?];
    let state = lock(&primary.state);
    raw::store(flags, state.flags)?;
    raw::store(active, driver.contexts.get(primary.handle).is_some().into())
}

pub(crate) fn cuDevicePrimaryCtxSetFlags(dev: CUdevice, flags: c_uint) -> Answer {
    let driver = driver()?;
    let primary = &driver.primaries[device::index(driver, dev)?];
    if flags & !FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    lock(&primary.state).flags = flags;
    Ok(())
}

pub(crate) fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint) -> Answer {
    cuDevicePrimaryCtxSetFlags(dev, flags)
}

pub(crate) fn cuCtxCreate_v2(ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> Answer {
    let driver = driver()?;
    let index = device::index(driver, dev)?;
    if ctx.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let context = create(driver, index, flags, driver.contexts.reserve(), false)?;
    current::push(context.handle);
    raw::store(ctx, CUcontext::from_addr(context.handle))
}

/// Execution affinity would need MPS, which is not simulated.
pub(crate) fn cuCtxCreate_v3(
    ctx: *mut CUcontext,
    affinity: *mut c_void,
    affinities: c_int,
    flags: c_uint,
    dev: CUdevice,
) -> Answer {
    driver()?;
    if affinities != 0 || !affinity.is_null() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    cuCtxCreate_v2(ctx, flags, dev)
}

pub(crate) fn cuCtxCreate_v4(
    ctx: *mut CUcontext,
    params: *mut c_void,
    flags: c_uint,
    dev: CUdevice,
) -> Answer {
    driver()?;
    if !params.is_null() {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    cuCtxCreate_v2(ctx, flags, dev)
}

pub(crate) fn cuCtxDestroy_v2(ctx: CUcontext) -> Answer {
    let driver = driver()?;
    let context = current::resolve(driver, ctx.addr())?;
    if context.is_primary || context.share.is_some() {
        // A green context ends by `cuGreenCtxDestroy`.
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    if current::handle() == Some(context.handle) {
        current::pop();
    }
    private::end_context(context.handle);
    destroy(driver, &context)
}

/// A primary context's handle is accepted even while it is inactive.
fn check_handle(driver: &Driver, ctx: CUcontext) -> Answer {
    if driver.contexts.issued(ctx.addr()) { Ok(()) } else { Err(CUresult::ERROR_INVALID_CONTEXT) }
}

pub(crate) fn cuCtxPushCurrent_v2(ctx: CUcontext) -> Answer {
    check_handle(driver()?, ctx)?;
    current::push(ctx.addr());
    Ok(())
}

pub(crate) fn cuCtxPopCurrent_v2(ctx: *mut CUcontext) -> Answer {
    driver()?;
    let popped = current::pop().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    raw::store_if(ctx, CUcontext::from_addr(popped));
    Ok(())
}

pub(crate) fn cuCtxSetCurrent(ctx: CUcontext) -> Answer {
    let driver = driver()?;
    if ctx.is_null() {
        current::replace(None);
        return Ok(());
    }
    check_handle(driver, ctx)?;
    current::replace(Some(ctx.addr()));
    Ok(())
}

pub(crate) fn cuCtxGetCurrent(ctx: *mut CUcontext) -> Answer {
    driver()?;
    raw::store(ctx, current::handle().map_or(CUcontext::NULL, CUcontext::from_addr))
}

/// The context of a handle, or the current one for null.
pub(crate) fn given_or_current(driver: &Driver, ctx: CUcontext) -> Result<Arc<Context>, CUresult> {
    if ctx.is_null() { current::any_context(driver) } else { current::resolve(driver, ctx.addr()) }
}

pub(crate) fn cuCtxGetDevice(dev: *mut CUdevice) -> Answer {
    cuCtxGetDevice_v2(dev, CUcontext::NULL)
}

pub(crate) fn cuCtxGetDevice_v2(dev: *mut CUdevice, ctx: CUcontext) -> Answer {
    let driver = driver()?;
    let handle = if ctx.is_null() { current::handle() } else { Some(ctx.addr()) };
    let handle = handle.ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    let primary = driver.primaries.iter().position(|primary| primary.handle == handle);
    let index = match primary {
        Some(index) => index,
        None => current::resolve(driver, handle)?.device,
    };
    raw::store(dev, CUdevice::try_from(index).unwrap_or(CUdevice::MAX))
}

pub(crate) fn cuCtxGetFlags(flags: *mut c_uint) -> Answer {
    let driver = driver()?;
    raw::store(flags, current::any_context(driver)?.flags)
}

/// Of a context that has ended it says that it is invalid: at that NVIDIA's runtime, which asks a primary context whether it is
/// active, begins anew, and at no other error.
pub(crate) fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint) -> Answer {
    given_or_current(driver()?, ctx).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
    raw::store(version, API_VERSION)
}

pub(crate) fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> Answer {
    current::any_context(driver()?)?;
    raw::store_if(least, super::stream::PRIORITY_LEAST);
    raw::store_if(greatest, super::stream::PRIORITY_GREATEST);
    Ok(())
}

pub(crate) fn cuCtxGetLimit(value: *mut usize, limit: CUenum) -> Answer {
    let context = current::context(driver()?)?;
    let default = LIMITS.get(limit as usize).ok_or(CUresult::ERROR_UNSUPPORTED_LIMIT)?;
    let set = lock(&context.limits).get(&limit).copied();
    raw::store(value, set.unwrap_or(*default))
}

pub(crate) fn cuCtxSetLimit(limit: CUenum, value: usize) -> Answer {
    let context = current::context(driver()?)?;
    if limit as usize >= LIMITS.len() {
        return Err(CUresult::ERROR_UNSUPPORTED_LIMIT);
    }
    let kept = if limit == LIMIT_L2_FETCH { value.min(128) } else { value };
    lock(&context.limits).insert(limit, kept);
    Ok(())
}

/// Waits for everything a context has been given so far; a primary one includes the green ones of its device.
pub(crate) fn synchronise(driver: &Driver, context: &Context) -> Answer {
    if context.is_primary {
        let of_device = driver.greens.all().into_iter().filter(|(_, green)| green.device == context.device);
        of_device.map(|(_, green)| green).try_for_each(|green| synchronise(driver, &green.context))?;
    }
    capture::forbid_waiting_for_context(driver, context.handle)?;
    let mut streams = lock(&context.streams).clone();
    for stream in &streams {
        driver.wait(stream, stream.last())?;
    }
    // Destroyed streams stay listed until their work is done.
    streams.retain(|stream| stream.handle != 0 && driver.streams.get(stream.handle).is_none());
    if !streams.is_empty() {
        lock(&context.streams).retain(|stream| {
            !streams.iter().any(|gone| gone.slot == stream.slot)
                || !driver.is_done(stream.slot, stream.last())
        });
    }
    driver.synchronised();
    driver.context_error(context.number)
}

pub(crate) fn cuCtxSynchronize() -> Answer {
    let driver = driver()?;
    synchronise(driver, &*current::any_context(driver)?)
}

pub(crate) fn cuCtxSynchronize_v2(ctx: CUcontext) -> Answer {
    let driver = driver()?;
    synchronise(driver, &*given_or_current(driver, ctx)?)
}
