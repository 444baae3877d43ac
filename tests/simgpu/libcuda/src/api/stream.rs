//! Streams.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUcontext, CUdevice, CUevent, CUgreenCtx, CUresult, CUstream};
use headgate_simgpu::protocol::{Command, Request};

use super::{event, twins};
use crate::driver::{Answer, Driver, driver, lost};
use crate::objects::{Context, Stream, StreamKind, lock};
use crate::{capture, current, raw};

pub(crate) const PRIORITY_LEAST: c_int = 0;
pub(crate) const PRIORITY_GREATEST: c_int = -5;
const NON_BLOCKING: c_uint = 1;

/// Makes a stream in a context.
pub(crate) fn open(
    driver: &Driver,
    context: &Arc<Context>,
    kind: StreamKind,
    flags: u32,
    priority: i32,
) -> Result<Arc<Stream>, CUresult> {
    let (slot, completed) = driver.take_slot()?;
    let blocking = kind == StreamKind::Blocking;
    let request =
        Request::OpenStream { context: context.number, slot, blocking, priority, share: context.share };
    driver.connection.post(&request).map_err(lost)?;
    let handle = driver.streams.reserve();
    let stream = Arc::new(Stream {
        handle,
        slot,
        context: context.handle,
        home: context.home,
        context_number: context.number,
        context_alive: Arc::clone(&context.alive),
        kind,
        flags,
        priority,
        submitted: AtomicU64::new(completed),
        capture: Mutex::new(None),
    });
    driver.streams.insert(handle, Arc::clone(&stream));
    let mut streams = lock(&context.streams);
    // Streams that were destroyed and whose work is done need no waiting for any more.
    streams.retain(|stream| {
        stream.handle == 0
            || driver.streams.get(stream.handle).is_some()
            || !driver.is_done(stream.slot, stream.last())
    });
    streams.push(Arc::clone(&stream));
    Ok(stream)
}

/// Ends a stream; its work goes on.
pub(crate) fn close(driver: &Driver, stream: &Stream) {
    if driver.streams.remove(stream.handle).is_some() {
        driver.connection.tell(&Request::CloseStream { slot: stream.slot });
        driver.give_slot(stream.slot, stream.last());
    }
}

pub(crate) fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> Answer {
    cuStreamCreateWithPriority(stream, flags, PRIORITY_LEAST)
}

pub(crate) fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    if flags & !NON_BLOCKING != 0 || stream.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let kind = if flags == NON_BLOCKING { StreamKind::NonBlocking } else { StreamKind::Blocking };
    let priority = priority.clamp(PRIORITY_GREATEST, PRIORITY_LEAST);
    let made = open(driver, &context, kind, flags, priority)?;
    raw::store(stream, CUstream::from_addr(made.handle))
}

pub(crate) fn cuStreamDestroy_v2(stream: CUstream) -> Answer {
    let driver = driver()?;
    let stream = driver.streams.get(stream.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if let Some(capture) = capture::of(&stream) {
        capture.invalidate();
    }
    close(driver, &stream);
    Ok(())
}

/// The stream a handle means, in a context in working order.
fn find(
    mode: ThreadMode,
    stream: CUstream,
) -> Result<(&'static Driver, Arc<Context>, Arc<Stream>), CUresult> {
    let driver = driver()?;
    let context = current::context(driver)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    Ok((driver, context, stream))
}

/// Whether everything given so far is done: in the legacy default stream, that is everything in blocking streams too.
fn is_idle(driver: &Driver, context: &Context, stream: &Stream) -> bool {
    let done = |stream: &Stream| driver.is_done(stream.slot, stream.last());
    match stream.kind {
        StreamKind::Legacy => lock(&context.streams)
            .iter()
            .filter(|other| other.kind != StreamKind::NonBlocking)
            .all(|other| done(other)),
        _ => done(stream),
    }
}

fn query(mode: ThreadMode, stream: CUstream) -> Answer {
    let (driver, context, stream) = find(mode, stream)?;
    capture::forbid_waiting(driver, &stream)?;
    if !is_idle(driver, &context, &stream) {
        return Err(CUresult::ERROR_NOT_READY);
    }
    driver.context_error(stream.context_number)
}

fn synchronise(mode: ThreadMode, stream: CUstream) -> Answer {
    let answer = wait_for(mode, stream);
    driver()?.synchronised();
    answer
}

fn wait_for(mode: ThreadMode, stream: CUstream) -> Answer {
    let (driver, context, stream) = find(mode, stream)?;
    capture::forbid_waiting(driver, &stream)?;
    if is_idle(driver, &context, &stream) {
        return driver.context_error(stream.context_number);
    }
    let last = match stream.kind {
        // An operation in the legacy stream waits for the blocking ones, and so do we by waiting for it.
        StreamKind::Legacy => driver.submit(&stream, [Command::Nothing])?,
        _ => stream.last(),
    };
    driver.wait(&stream, last)
}

fn wait_event(mode: ThreadMode, stream: CUstream, event: CUevent, flags: c_uint) -> Answer {
    let (driver, _, stream) = find(mode, stream)?;
    event::wait(driver, &stream, event, flags)
}

fn get_context(mode: ThreadMode, stream: CUstream, ctx: *mut CUcontext) -> Answer {
    let (_, _, stream) = find(mode, stream)?;
    raw::store(ctx, CUcontext::from_addr(stream.context))
}

/// The primary context and the green one for a stream of a green one; else its context and null.
fn get_contexts(mode: ThreadMode, stream: CUstream, ctx: *mut CUcontext, green: *mut CUgreenCtx) -> Answer {
    let (driver, _, stream) = find(mode, stream)?;
    let own = super::green::handle_of(driver, stream.context);
    raw::store(ctx, CUcontext::from_addr(stream.home))?;
    raw::store_if(green, own);
    Ok(())
}

fn get_flags(mode: ThreadMode, stream: CUstream, flags: *mut c_uint) -> Answer {
    let (_, _, stream) = find(mode, stream)?;
    raw::store(flags, stream.flags)
}

fn get_priority(mode: ThreadMode, stream: CUstream, priority: *mut c_int) -> Answer {
    let (_, _, stream) = find(mode, stream)?;
    raw::store(priority, stream.priority)
}

fn get_id(mode: ThreadMode, stream: CUstream, id: *mut u64) -> Answer {
    let (_, _, stream) = find(mode, stream)?;
    // Slots are used again and handles are not; default streams have none, and one for each context.
    let handle = if stream.handle == 0 { stream.context } else { stream.handle };
    raw::store(id, handle as u64)
}

fn get_device(mode: ThreadMode, stream: CUstream, device: *mut CUdevice) -> Answer {
    let (driver, _, stream) = find(mode, stream)?;
    let index = current::resolve(driver, stream.context)?.device;
    raw::store(device, CUdevice::try_from(index).unwrap_or(CUdevice::MAX))
}

twins! {
    cuStreamGetId, cuStreamGetId_ptsz (stream: CUstream, id: *mut u64) = get_id;
    cuStreamGetDevice, cuStreamGetDevice_ptsz (stream: CUstream, device: *mut CUdevice) = get_device;
    cuStreamQuery, cuStreamQuery_ptsz (stream: CUstream) = query;
    cuStreamSynchronize, cuStreamSynchronize_ptsz (stream: CUstream) = synchronise;
    cuStreamWaitEvent, cuStreamWaitEvent_ptsz (stream: CUstream, event: CUevent, flags: c_uint) = wait_event;
    cuStreamGetCtx, cuStreamGetCtx_ptsz (stream: CUstream, ctx: *mut CUcontext) = get_context;
    cuStreamGetCtx_v2, cuStreamGetCtx_v2_ptsz (stream: CUstream, ctx: *mut CUcontext, green: *mut CUgreenCtx) = get_contexts;
    cuStreamGetFlags, cuStreamGetFlags_ptsz (stream: CUstream, flags: *mut c_uint) = get_flags;
    cuStreamGetPriority, cuStreamGetPriority_ptsz (stream: CUstream, priority: *mut c_int) = get_priority;
}
