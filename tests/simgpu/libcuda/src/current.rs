//! The calling thread's contexts and its own default streams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, CUresult, CUstream};

use crate::api::stream;
use crate::driver::{Driver, driver};
use crate::objects::{Context, Stream, StreamKind};

thread_local! {
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static OWN_STREAMS: OwnStreams = OwnStreams::default();
}

/// This thread's default streams, by context.
#[derive(Default)]
struct OwnStreams(RefCell<HashMap<usize, Arc<Stream>>>);

impl Drop for OwnStreams {
    fn drop(&mut self) {
        let Ok(driver) = driver() else { return };
        for (_, own) in self.0.borrow_mut().drain() {
            stream::close(driver, &own);
        }
    }
}

/// The handle of the current context; `None` when there is none.
pub(crate) fn handle() -> Option<usize> {
    STACK.try_with(|stack| stack.borrow().last().copied()).ok().flatten()
}

/// Makes a context current in place of the top of the stack; `None` pops it.
pub(crate) fn replace(context: Option<usize>) {
    // A thread that is being torn down has no current context any more.
    let _gone = STACK.try_with(|stack| {
        let mut stack = stack.borrow_mut();
        stack.pop();
        stack.extend(context);
    });
}

pub(crate) fn push(context: usize) {
    let _gone = STACK.try_with(|stack| stack.borrow_mut().push(context));
}

pub(crate) fn pop() -> Option<usize> {
    STACK.try_with(|stack| stack.borrow_mut().pop()).ok().flatten()
}

/// The live context of a handle.
pub(crate) fn resolve(driver: &Driver, handle: usize) -> Result<Arc<Context>, CUresult> {
    driver.contexts.get(handle).ok_or(if driver.contexts.issued(handle) {
        CUresult::ERROR_CONTEXT_IS_DESTROYED
    } else {
        CUresult::ERROR_INVALID_CONTEXT
    })
}

/// The current context, dead of an error or not.
pub(crate) fn any_context(driver: &Driver) -> Result<Arc<Context>, CUresult> {
    resolve(driver, handle().ok_or(CUresult::ERROR_INVALID_CONTEXT)?)
}

/// The current context, which must be in working order.
pub(crate) fn context(driver: &Driver) -> Result<Arc<Context>, CUresult> {
    let context = any_context(driver)?;
    driver.context_error(context.number)?;
    Ok(context)
}

/// The stream a handle means in a call of a thread mode.
pub(crate) fn stream(
    driver: &Driver,
    context: &Arc<Context>,
    handle: CUstream,
    mode: ThreadMode,
) -> Result<Arc<Stream>, CUresult> {
    match (handle.addr(), mode) {
        (0, ThreadMode::Base) | (CU_STREAM_LEGACY, _) => Ok(Arc::clone(&context.legacy)),
        (0, ThreadMode::PerThread) | (CU_STREAM_PER_THREAD, _) => own_stream(driver, context),
        (handle, _) => driver.streams.get(handle).ok_or(CUresult::ERROR_INVALID_HANDLE),
    }
}

fn own_stream(driver: &Driver, context: &Arc<Context>) -> Result<Arc<Stream>, CUresult> {
    let known = OWN_STREAMS
        .try_with(|own| own.0.borrow().get(&context.handle).filter(|own| own.context_is_alive()).cloned());
    if let Some(own) = known.map_err(|_| CUresult::ERROR_INVALID_CONTEXT)? {
        return Ok(own);
    }
    let own = stream::open(driver, context, StreamKind::Blocking, 0, 0)?;
    let kept = OWN_STREAMS.try_with(|streams| {
        streams.0.borrow_mut().insert(context.handle, Arc::clone(&own));
    });
    kept.map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
    Ok(own)
}
