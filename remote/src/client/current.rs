//! What is current in each thread: a stack of contexts, and which stream null means.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, CUresult};

use super::objects::{Context, Stream, lock};
use super::state::Client;
use crate::wire::operation::{Argument, Arguments, Operation};

thread_local! {
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static PER_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Does something with null meaning the thread's own default stream.
pub(super) fn per_thread<T>(work: impl FnOnce() -> T) -> T {
    let before = PER_THREAD.replace(true);
    let result = work();
    PER_THREAD.set(before);
    result
}

/// Handle of the current context.
pub(super) fn handle() -> Option<usize> {
    STACK.with_borrow(|stack| stack.last().copied())
}

pub(super) fn push(context: usize) {
    STACK.with_borrow_mut(|stack| stack.push(context));
}

pub(super) fn pop() -> Option<usize> {
    STACK.with_borrow_mut(Vec::pop)
}

/// Replaces the top of the stack; `None` takes it away.
pub(super) fn replace(context: Option<usize>) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        stack.extend(context);
    });
}

/// The context of a handle, if it is alive. One that has ended and a primary one that nobody has made yet have the same error
/// (cuda.h, `CUDA_ERROR_CONTEXT_IS_DESTROYED`).
pub(super) fn resolve(client: &Client, handle: usize) -> Result<Arc<Context>, CUresult> {
    let id = client.arena.id(Kind::Context, handle).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    match client.contexts.get(id).filter(|context| context.alive.load(Ordering::Acquire)) {
        Some(context) => Ok(context),
        None if client.contexts.was_given(id) => Err(CUresult::ERROR_CONTEXT_IS_DESTROYED),
        None => Err(CUresult::ERROR_INVALID_CONTEXT),
    }
}

/// The current context, in whatever state.
pub(super) fn any(client: &Client) -> Result<Arc<Context>, CUresult> {
    client.session.check()?;
    resolve(client, handle().ok_or(CUresult::ERROR_INVALID_CONTEXT)?)
}

/// The current context, in working order.
pub(super) fn context(client: &Client) -> Result<Arc<Context>, CUresult> {
    let context = any(client)?;
    context.check()?;
    Ok(context)
}

/// The stream a handle means in a context.
pub(super) fn stream(client: &Client, context: &Context, handle: usize) -> Result<Arc<Stream>, CUresult> {
    match handle {
        0 if PER_THREAD.get() => of_thread(client, context),
        0 | CU_STREAM_LEGACY => Ok(Arc::clone(&context.legacy)),
        CU_STREAM_PER_THREAD => of_thread(client, context),
        _ => {
            let id = client.arena.id(Kind::Stream, handle).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
            client.streams.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)
        }
    }
}

/// The calling thread's own default stream, made when it is first used. The worker knows it as a stream like others.
fn of_thread(client: &Client, context: &Context) -> Result<Arc<Stream>, CUresult> {
    let mut streams = lock(&context.of_threads);
    let thread = thread::current().id();
    if let Some(stream) = streams.get(&thread) {
        return Ok(Arc::clone(stream));
    }
    let stream = Arc::new(Stream::new(client.streams.number(), context.id, true, 0, 0));
    let mut arguments = Arguments::new();
    arguments.push(Argument::New(Kind::Stream, stream.id));
    arguments.push(Argument::Word(0));
    client.session.tell(context.id, &Operation::Call(Symbol::cuStreamCreate, arguments))?;
    lock(&context.streams).push(Arc::clone(&stream));
    streams.insert(thread, Arc::clone(&stream));
    Ok(stream)
}
