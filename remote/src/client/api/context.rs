//! Contexts: the worker has them, the client says which is current where.

use core::ffi::{c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUcontext, CUdevice, CUresult};

use super::{device, stream};
use crate::client::contract::storage;
use crate::client::foreseen::Foreseen;
use crate::client::objects::{Context, lock};
use crate::client::state::{Client, Primary, client};
use crate::client::{Answer, current, raw};
use crate::wire::operation::{Argument, Arguments, Operation};
use crate::word::Word as _;

/// The version of the context interface, as drivers tell it.
const API_VERSION: c_uint = 3_020;

/// Asks for a call outside any context.
fn ask(client: &Client, symbol: Symbol, arguments: &[Argument<'_>]) -> Answer {
    let mut list = Arguments::new();
    arguments.iter().for_each(|argument| list.push(*argument));
    answered(client.session.ask(0, &Operation::Call(symbol, list))?.status)
}

fn answered(status: CUresult) -> Answer {
    if status.is_success() { Ok(()) } else { Err(status) }
}

/// Whether a primary context turned out not to be there, though the program has its handle. It is forgotten when it is
/// released or reset as often as it was retained.
fn has_failed(client: &Client, primary: &Primary) -> bool {
    let failed = client.contexts.get(primary.id).is_some_and(|context| context.failure().is_some());
    if failed {
        primary.failed.store(true, Ordering::Release);
    }
    failed
}

fn primary(client: &Client, device: CUdevice) -> Result<(usize, &Primary), CUresult> {
    let index = device::index(client, device)?;
    Ok((index, &client.primaries[index]))
}

/// Returns at once: a context that is there is what programs get, and what they do next would only wait behind it. Where
/// none can be made, whatever is done with the handle says why, and from then on this call waits.
pub fn cuDevicePrimaryCtxRetain(ctx: *mut CUcontext, dev: CUdevice) -> Answer {
    let client = client()?;
    let (index, primary) = primary(client, dev)?;
    if ctx.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    client.session.check()?;
    let mut state = lock(&primary.state);
    if has_failed(client, primary)
        && let Some(context) = client.contexts.get(primary.id)
    {
        // It never was; whoever retains it again begins anew.
        client.end_context(&context);
        state.0 = 0;
    }
    let retained = client.contexts.get(primary.id);
    let context =
        retained.clone().unwrap_or_else(|| Arc::new(Context::new(primary.id, index, state.1, true)));
    let mut arguments = Arguments::new();
    arguments.push(Argument::New(Kind::Context, primary.id));
    arguments.push(Argument::Word(dev.to_word()));
    let retain = Operation::Call(Symbol::cuDevicePrimaryCtxRetain, arguments);
    if primary.failed.load(Ordering::Acquire) {
        // Whoever tries again after a failure is told at once how it went.
        answered(client.session.ask(0, &retain)?.status)?;
        primary.failed.store(false, Ordering::Release);
    } else {
        client.session.foresee(0, &retain, Foreseen::Context(Arc::clone(&context)))?;
    }
    if retained.is_none() {
        client.contexts.insert(primary.id, Arc::clone(&context));
        client.session.take_ahead(&context)?;
    }
    state.0 += 1;
    raw::store(ctx, CUcontext::from_addr(client.arena.handle(Kind::Context, primary.id)))
}

pub fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> Answer {
    let client = client()?;
    let (_, primary) = primary(client, dev)?;
    let mut state = lock(&primary.state);
    let left = state.0.checked_sub(1).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    let released = ask(client, Symbol::cuDevicePrimaryCtxRelease_v2, &[Argument::Word(dev.to_word())]);
    if !has_failed(client, primary) {
        released?;
    }
    state.0 = left;
    if left == 0
        && let Some(context) = client.contexts.get(primary.id)
    {
        client.end_context(&context);
        drop(state);
        storage::end(client.arena.handle(Kind::Context, primary.id));
    }
    Ok(())
}

pub fn cuDevicePrimaryCtxRelease(dev: CUdevice) -> Answer {
    cuDevicePrimaryCtxRelease_v2(dev)
}

pub fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> Answer {
    let client = client()?;
    let (_, primary) = primary(client, dev)?;
    // What is kept with the context is told while it still is, and with nothing locked: it may call the driver.
    storage::end(client.arena.handle(Kind::Context, primary.id));
    let mut state = lock(&primary.state);
    let reset = ask(client, Symbol::cuDevicePrimaryCtxReset_v2, &[Argument::Word(dev.to_word())]);
    if !has_failed(client, primary) {
        reset?;
    }
    state.0 = 0;
    if let Some(context) = client.contexts.get(primary.id) {
        client.end_context(&context);
    }
    Ok(())
}

pub fn cuDevicePrimaryCtxReset(dev: CUdevice) -> Answer {
    cuDevicePrimaryCtxReset_v2(dev)
}

pub fn cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut c_uint, active: *mut c_int) -> Answer {
    let client = client()?;
    if device::borrowed(client, dev)?.is_none() {
        raw::store(flags, 0)?;
        return raw::store(active, 0);
    }
    let (_, primary) = primary(client, dev)?;
    raw::store(flags, lock(&primary.state).1)?;
    raw::store(active, client.contexts.get(primary.id).is_some().into())
}

pub fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint) -> Answer {
    let client = client()?;
    let (_, primary) = primary(client, dev)?;
    let mut state = lock(&primary.state);
    let arguments = [Argument::Word(dev.to_word()), Argument::Word(flags.into())];
    ask(client, Symbol::cuDevicePrimaryCtxSetFlags_v2, &arguments)?;
    state.1 = flags;
    Ok(())
}

pub fn cuDevicePrimaryCtxSetFlags(dev: CUdevice, flags: c_uint) -> Answer {
    cuDevicePrimaryCtxSetFlags_v2(dev, flags)
}

pub fn cuCtxCreate_v2(ctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> Answer {
    let client = client()?;
    let index = device::index(client, dev)?;
    if ctx.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let id = client.contexts.number();
    let arguments =
        [Argument::New(Kind::Context, id), Argument::Word(flags.into()), Argument::Word(dev.to_word())];
    ask(client, Symbol::cuCtxCreate_v2, &arguments)?;
    let context = Arc::new(Context::new(id, index, flags, false));
    client.contexts.insert(id, Arc::clone(&context));
    client.session.take_ahead(&context)?;
    let handle = client.arena.handle(Kind::Context, id);
    current::push(handle);
    raw::store(ctx, CUcontext::from_addr(handle))
}

pub fn cuCtxDestroy_v2(ctx: CUcontext) -> Answer {
    let client = client()?;
    let context = current::resolve(client, ctx.addr())?;
    if context.is_primary {
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    if current::handle() == Some(ctx.addr()) {
        current::pop();
    }
    storage::end(ctx.addr());
    client.end_context(&context);
    ask(client, Symbol::cuCtxDestroy_v2, &[Argument::End(Kind::Context, context.id)])
}

/// A primary context's handle is accepted even while it is inactive.
fn check_handle(client: &Client, ctx: CUcontext) -> Answer {
    let id = client.arena.id(Kind::Context, ctx.addr()).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    let known = client.contexts.get(id).is_some() || client.primaries.iter().any(|primary| primary.id == id);
    if known { Ok(()) } else { Err(CUresult::ERROR_INVALID_CONTEXT) }
}

pub fn cuCtxPushCurrent_v2(ctx: CUcontext) -> Answer {
    check_handle(client()?, ctx)?;
    current::push(ctx.addr());
    Ok(())
}

pub fn cuCtxPopCurrent_v2(ctx: *mut CUcontext) -> Answer {
    client()?;
    let popped = current::pop().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    raw::store_if(ctx, CUcontext::from_addr(popped));
    Ok(())
}

pub fn cuCtxSetCurrent(ctx: CUcontext) -> Answer {
    let client = client()?;
    if ctx.is_null() {
        current::replace(None);
        return Ok(());
    }
    check_handle(client, ctx)?;
    current::replace(Some(ctx.addr()));
    Ok(())
}

pub fn cuCtxGetCurrent(ctx: *mut CUcontext) -> Answer {
    client()?;
    raw::store(ctx, current::handle().map_or(CUcontext::NULL, CUcontext::from_addr))
}

pub fn cuCtxGetDevice(dev: *mut CUdevice) -> Answer {
    cuCtxGetDevice_v2(dev, CUcontext::NULL)
}

pub fn cuCtxGetDevice_v2(dev: *mut CUdevice, ctx: CUcontext) -> Answer {
    let client = client()?;
    let handle = if ctx.is_null() { current::handle() } else { Some(ctx.addr()) };
    let handle = handle.ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    let id = client.arena.id(Kind::Context, handle);
    let index = match client.primaries.iter().position(|primary| Some(primary.id) == id) {
        Some(index) => index,
        None => current::resolve(client, handle)?.device,
    };
    raw::store(dev, CUdevice::try_from(index).unwrap_or(CUdevice::MAX))
}

pub fn cuCtxGetFlags(flags: *mut c_uint) -> Answer {
    let client = client()?;
    let context = current::any(client)?;
    let primary = client.primaries.iter().find(|primary| primary.id == context.id);
    raw::store(flags, primary.map_or(context.flags, |primary| lock(&primary.state).1))
}

/// Contexts are numbered once and never again.
pub fn cuCtxGetId(ctx: CUcontext, id: *mut u64) -> Answer {
    raw::store(id, given_or_current(client()?, ctx)?.id.into())
}

/// The context of a handle, or the current one for null.
fn given_or_current(client: &Client, ctx: CUcontext) -> Result<Arc<Context>, CUresult> {
    if ctx.is_null() { current::any(client) } else { current::resolve(client, ctx.addr()) }
}

/// NVIDIA's runtime asks this of a primary context that another thread may have reset. It begins anew at an invalid context, and
/// hands any other error to the program.
pub fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint) -> Answer {
    given_or_current(client()?, ctx).map_err(|status| match status {
        CUresult::ERROR_CONTEXT_IS_DESTROYED => CUresult::ERROR_INVALID_CONTEXT,
        status => status,
    })?;
    raw::store(version, API_VERSION)
}

pub fn cuCtxSynchronize() -> Answer {
    let client = client()?;
    stream::synchronise_context(client, &current::any(client)?)
}

pub fn cuCtxSynchronize_v2(ctx: CUcontext) -> Answer {
    let client = client()?;
    stream::synchronise_context(client, &given_or_current(client, ctx)?)
}
