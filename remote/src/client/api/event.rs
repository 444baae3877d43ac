//! Events. The worker tells when one is complete.

use core::ffi::c_uint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUevent, CUresult, CUstream};

use crate::client::objects::{Event, Reached, lock};
use crate::client::session::Expected;
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw, travel};
use crate::wire::operation::{Argument, Arguments, Operation};
use crate::word::Word as _;

/// `CU_EVENT_BLOCKING_SYNC`, `DISABLE_TIMING`, `INTERPROCESS`.
const FLAGS: c_uint = 7;
const INTERPROCESS: c_uint = 4;

pub fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    if flags & INTERPROCESS != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    if flags & !FLAGS != 0 || event.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let id = client.events.number();
    let mut arguments = Arguments::new();
    arguments.push(Argument::New(Kind::Event, id));
    arguments.push(Argument::Word(flags.into()));
    client.session.tell(context.id, &Operation::Call(Symbol::cuEventCreate, arguments))?;
    let made = Event {
        id,
        context: context.id,
        recorded: AtomicU64::new(0),
        completed: AtomicU64::new(0),
        captured: Mutex::default(),
    };
    client.events.insert(id, Arc::new(made));
    raw::store(event, CUevent::from_addr(client.arena.handle(Kind::Event, id)))
}

pub(super) fn find(client: &Client, event: CUevent) -> Result<Arc<Event>, CUresult> {
    let id = client.arena.id(Kind::Event, event.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    client.events.get(id).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub fn cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let event = find(client, event)?;
    let stream = current::stream(client, &context, stream.addr())?;
    if flags > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if event.context != stream.context {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    if capture::admit(client, &stream)? {
        if flags != 0 {
            // Recorded anew by each launch of the graph, which nobody would tell of.
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        *lock(&event.captured) = capture::of(&stream);
        // It happens when the graph is launched, if at all: there is nothing to tell.
        let record = Operation::Record { event: event.id, stream: stream.id, flags, token: 0 };
        return client.session.tell(context.id, &record);
    }
    *lock(&event.captured) = None;
    stream.touch_before();
    let reached = if stream.id == 0 { context.blocking() } else { vec![Reached::now(&stream)] };
    let number = event.recorded.fetch_add(1, Ordering::AcqRel) + 1;
    let id = event.id;
    let expected = Expected {
        reached,
        event: Some((event, number)),
        memory: None,
        late: false,
        context: Arc::clone(&context),
    };
    let token = client.session.expect(expected);
    client.session.tell(context.id, &Operation::Record { event: id, stream: stream.id, flags, token })?;
    stream.placed(client.session.placed());
    Ok(())
}

pub fn cuEventRecord(event: CUevent, stream: CUstream) -> Answer {
    cuEventRecordWithFlags(event, stream, 0)
}

fn is_complete(event: &Event, number: u64) -> bool {
    event.completed.load(Ordering::Acquire) >= number
}

/// What sticks to an event's context.
fn report(client: &Client, event: &Event) -> Answer {
    client.session.check()?;
    client.contexts.get(event.context).map_or(Ok(()), |context| context.check())
}

pub fn cuEventQuery(event: CUevent) -> Answer {
    let client = client()?;
    let event = find(client, event)?;
    capture::forbid_asking(client, &event)?;
    if !is_complete(&event, event.recorded.load(Ordering::Acquire)) {
        client.session.check()?;
        return Err(CUresult::ERROR_NOT_READY);
    }
    report(client, &event)
}

pub fn cuEventSynchronize(event: CUevent) -> Answer {
    let client = client()?;
    let event = find(client, event)?;
    capture::forbid_asking(client, &event)?;
    let number = event.recorded.load(Ordering::Acquire);
    if !is_complete(&event, number) {
        client.session.wait_until(|| is_complete(&event, number))?;
    }
    client.waited(event.context)?;
    report(client, &event)
}

fn elapsed(symbol: Symbol, milliseconds: *mut f32, start: CUevent, end: CUevent) -> Answer {
    let client = client()?;
    for event in [find(client, start)?, find(client, end)?] {
        capture::forbid_asking(client, &event)?;
        if !is_complete(&event, event.recorded.load(Ordering::Acquire)) {
            return Err(CUresult::ERROR_NOT_READY);
        }
    }
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let words = [milliseconds.to_word(), start.to_word(), end.to_word()];
    let context = current::any(client).ok();
    travel::by_rule(client, symbol, line, &words, context.as_ref()).map(|_| ())
}

pub fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> Answer {
    elapsed(Symbol::cuEventElapsedTime, milliseconds, start, end)
}

pub fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent) -> Answer {
    // The older form has the same arguments, and every driver has it.
    elapsed(Symbol::cuEventElapsedTime, milliseconds, start, end)
}

pub fn cuEventDestroy_v2(event: CUevent) -> Answer {
    let client = client()?;
    let event = find(client, event)?;
    client.events.remove(event.id);
    let mut arguments = Arguments::new();
    arguments.push(Argument::End(Kind::Event, event.id));
    client.session.tell(event.context, &Operation::Call(Symbol::cuEventDestroy_v2, arguments))
}
