//! Streams. What they have completed the worker tells unasked, so that asking is local.

use core::ffi::{c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUcontext, CUdevice, CUevent, CUgreenCtx, CUresult, CUstream};

use super::event;
use crate::client::objects::{Context, Reached, Stream, lock};
use crate::client::session::Expected;
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw};
use crate::wire::operation::{Argument, Arguments, Operation};

const NON_BLOCKING: c_uint = 1;

fn create(stream: *mut CUstream, flags: c_uint, priority: Option<c_int>) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    if flags & !NON_BLOCKING != 0 || stream.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let id = client.streams.number();
    let mut arguments = Arguments::new();
    arguments.push(Argument::New(Kind::Stream, id));
    arguments.push(Argument::Word(flags.into()));
    let symbol = match priority {
        None => Symbol::cuStreamCreate,
        Some(priority) => {
            arguments.push(Argument::Word(priority.cast_unsigned().into()));
            Symbol::cuStreamCreateWithPriority
        }
    };
    client.session.tell(context.id, &Operation::Call(symbol, arguments))?;
    let made = Arc::new(Stream::new(id, context.id, flags & NON_BLOCKING == 0, flags, priority.unwrap_or(0)));
    client.streams.insert(id, Arc::clone(&made));
    let mut streams = lock(&context.streams);
    // Streams that were destroyed and whose work is done need no waiting for any more.
    streams.retain(|stream| client.streams.get(stream.id).is_some() || !Reached::now(stream).is_done());
    streams.push(made);
    raw::store(stream, CUstream::from_addr(client.arena.handle(Kind::Stream, id)))
}

pub fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> Answer {
    create(stream, flags, None)
}

pub fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) -> Answer {
    create(stream, flags, Some(priority))
}

/// Its work goes on, and is waited for with the context's.
pub fn cuStreamDestroy_v2(stream: CUstream) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let id = client.arena.id(Kind::Stream, stream.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let gone = client.streams.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    capture::forbid_in(&gone)?;
    // A fence, because nothing can be asked of the stream afterwards.
    fence(client, &context, &gone, Next::GoesOn)?;
    client.streams.remove(id);
    let mut arguments = Arguments::new();
    arguments.push(Argument::End(Kind::Stream, id));
    client.session.tell(context.id, &Operation::Call(Symbol::cuStreamDestroy_v2, arguments))
}

/// The stream a handle means, in a context in working order.
fn find(stream: CUstream) -> Result<(&'static Client, Arc<Context>, Arc<Stream>), CUresult> {
    let client = client()?;
    let context = current::context(client)?;
    let stream = current::stream(client, &context, stream.addr())?;
    Ok((client, context, stream))
}

/// What has to be done for a stream to be idle, as far as it is not known to be done.
fn outstanding(context: &Context, stream: &Arc<Stream>) -> Vec<Reached> {
    let all = if stream.id == 0 { context.blocking() } else { vec![Reached::now(stream)] };
    all.into_iter().filter(|reached| !reached.is_done()).collect()
}

/// What a caller does after asking for a fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    GoesOn,
    Waits,
}

/// Has the worker tell when a stream has come as far as now. Once is enough.
pub(super) fn fence(client: &Client, context: &Arc<Context>, stream: &Arc<Stream>, next: Next) -> Answer {
    let reached = outstanding(context, stream);
    let asked = reached.iter().all(|reached| reached.stream.fenced.load(Ordering::Acquire) >= reached.count);
    if asked {
        return Ok(());
    }
    for point in &reached {
        point.stream.fenced.fetch_max(point.count, Ordering::AcqRel);
    }
    let expected = Expected { reached, event: None, memory: None, late: false, context: Arc::clone(context) };
    let token = client.session.expect(expected);
    let operation = Operation::Fence { stream: stream.id, token };
    match next {
        Next::GoesOn => client.session.tell(context.id, &operation),
        Next::Waits => client.session.tell_and_flush(context.id, &operation),
    }
}

pub fn cuStreamQuery(stream: CUstream) -> Answer {
    let (client, context, stream) = find(stream)?;
    capture::forbid_waiting(client, &stream)?;
    if !outstanding(&context, &stream).is_empty() {
        fence(client, &context, &stream, Next::GoesOn)?;
        return Err(CUresult::ERROR_NOT_READY);
    }
    context.report()
}

pub fn cuStreamSynchronize(stream: CUstream) -> Answer {
    let (client, context, stream) = find(stream)?;
    capture::forbid_waiting(client, &stream)?;
    let waits_for = outstanding(&context, &stream);
    if !waits_for.is_empty() {
        fence(client, &context, &stream, Next::Waits)?;
        client.session.wait_until(|| waits_for.iter().all(Reached::is_done))?;
    }
    client.waited(context.id)?;
    context.report()
}

/// Waits for everything a context has been given so far.
pub(super) fn synchronise_context(client: &Client, context: &Arc<Context>) -> Answer {
    context.check()?;
    capture::forbid_waiting_for_context(client, context.id)?;
    let waits_for: Vec<Reached> =
        context.everything().into_iter().filter(|reached| !reached.is_done()).collect();
    for reached in &waits_for {
        fence(client, context, &reached.stream, Next::GoesOn)?;
    }
    if !waits_for.is_empty() {
        client.session.wait_until(|| waits_for.iter().all(Reached::is_done))?;
    }
    client.waited(context.id)?;
    context.report()
}

pub fn cuStreamGetCtx(stream: CUstream, ctx: *mut CUcontext) -> Answer {
    let (client, _, stream) = find(stream)?;
    raw::store(ctx, CUcontext::from_addr(client.arena.handle(Kind::Context, stream.context)))
}

pub fn cuStreamGetFlags(stream: CUstream, flags: *mut c_uint) -> Answer {
    let (_, _, stream) = find(stream)?;
    raw::store(flags, stream.flags)
}

pub fn cuStreamGetPriority(stream: CUstream, priority: *mut c_int) -> Answer {
    let (_, _, stream) = find(stream)?;
    raw::store(priority, stream.priority)
}

/// There are no green contexts from afar, so no stream is of one.
pub fn cuStreamGetCtx_v2(stream: CUstream, ctx: *mut CUcontext, green: *mut CUgreenCtx) -> Answer {
    raw::store_if(green, CUgreenCtx::NULL);
    cuStreamGetCtx(stream, ctx)
}

/// Default streams have a number in their context only.
pub fn cuStreamGetId(stream: CUstream, id: *mut u64) -> Answer {
    let (_, context, stream) = find(stream)?;
    let of = if stream.id == 0 { u64::from(context.id) << 32 } else { 0 };
    raw::store(id, of | u64::from(stream.id))
}

pub fn cuStreamGetDevice(stream: CUstream, device: *mut CUdevice) -> Answer {
    let (client, _, stream) = find(stream)?;
    let context = client.contexts.get(stream.context).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    raw::store(device, CUdevice::try_from(context.device).unwrap_or(CUdevice::MAX))
}

/// In a capture, the stream takes part from then on.
pub fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> Answer {
    let (client, context, stream) = find(stream)?;
    let event = event::find(client, event)?;
    let before = Reached::now(&stream);
    if capture::wait_for(client, &stream, &event)? && !before.is_done() {
        // What was put into it before is waited for by others as ever.
        fence(client, &context, &stream, Next::GoesOn)?;
    }
    let mut arguments = Arguments::new();
    arguments.push(Argument::Handle(Kind::Stream, stream.id));
    arguments.push(Argument::Handle(Kind::Event, event.id));
    arguments.push(Argument::Word(flags.into()));
    client.session.tell(context.id, &Operation::Call(Symbol::cuStreamWaitEvent, arguments))?;
    stream.touch(client.session.placed());
    Ok(())
}
