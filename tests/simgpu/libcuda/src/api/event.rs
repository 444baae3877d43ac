//! Events: points in streams that the process remembers by itself; only their moments are the server's.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUevent, CUresult, CUstream};
use headgate_simgpu::model::{Condition, Width};
use headgate_simgpu::protocol::{Command, Holding, Place, Reply, Request};

use super::{device, share, twins};
use crate::driver::{Answer, Driver, driver};
use crate::graph::Work;
use crate::objects::{Event, Recorded, Shared, Stream, lock};
use crate::{capture, current, raw};

/// `CU_EVENT_BLOCKING_SYNC`, `DISABLE_TIMING`, `INTERPROCESS`.
const BLOCKING_SYNC: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;
const INTERPROCESS: c_uint = 4;
/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`: in a capture, a node of its own. Of no use elsewhere.
const EXTERNAL: c_uint = 1;
/// How often a thread that waits for an event of several processes looks at it.
const LOOK: Duration = Duration::from_micros(50);

pub(crate) fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let interprocess = flags & INTERPROCESS != 0;
    let timing = flags & DISABLE_TIMING == 0;
    if flags & !(BLOCKING_SYNC | DISABLE_TIMING | INTERPROCESS) != 0
        || event.is_null()
        || (interprocess && timing)
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let shared = if interprocess { Some(share::make_event(driver)?) } else { None };
    let handle = enter(driver, timing, context.home, shared);
    raw::store(event, CUevent::from_addr(handle))
}

/// Enters an event into the books.
pub(crate) fn enter(driver: &Driver, timing: bool, context: usize, shared: Option<Shared>) -> usize {
    let made = Event {
        id: driver.next_event_id(),
        timing,
        context,
        shared,
        recorded: Mutex::new(None),
        captured: Mutex::new(None),
    };
    let handle = driver.events.reserve();
    driver.events.insert(handle, Arc::new(made));
    handle
}

pub(crate) fn find(driver: &Driver, event: CUevent) -> Result<Arc<Event>, CUresult> {
    driver.events.get(event.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

fn record_with_flags(mode: ThreadMode, event: CUevent, stream: CUstream, flags: c_uint) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let (handle, event) = (event.addr(), find(driver, event)?);
    let stream = current::stream(driver, &context, stream, mode)?;
    if flags > EXTERNAL {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if event.context != stream.home {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    if let Some(capture) = capture::of(&stream) {
        if flags == EXTERNAL {
            return capture.record(driver, &stream, Work::Record { handle, event });
        }
        if capture.is_invalidated() {
            return Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        let after = capture.after(&stream);
        *lock(&event.captured) = Some((capture, after));
        return Ok(());
    }
    if flags == EXTERNAL {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    record_in(driver, &stream, &event)
}

/// Records an event in a stream that runs.
pub(crate) fn record_in(driver: &Driver, stream: &Arc<Stream>, event: &Event) -> Answer {
    let command = match &event.shared {
        Some(shared) => Command::WriteValue {
            at: Place::Host(shared.event.word()),
            value: shared.event.record(),
            width: Width::Double,
        },
        None if event.timing => Command::Stamp { event: event.id },
        None => Command::Nothing,
    };
    let mut recorded = lock(&event.recorded);
    let seq = driver.submit(stream, [command])?;
    *recorded = Some(Recorded { stream: Arc::clone(stream), seq });
    *lock(&event.captured) = None;
    Ok(())
}

/// `cuStreamWaitEvent`.
pub(crate) fn wait(driver: &Driver, stream: &Arc<Stream>, event: CUevent, flags: c_uint) -> Answer {
    let (handle, event) = (event.addr(), find(driver, event)?);
    match (flags, capture::of(stream)) {
        (0, _) => wait_in(driver, stream, &event),
        (EXTERNAL, Some(capture)) => capture.record(driver, stream, Work::Wait { handle, event }),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// Lets a stream wait for what an event stands for: a point of a stream, or nodes of a capture, which it then joins.
pub(crate) fn wait_in(driver: &Driver, stream: &Arc<Stream>, event: &Event) -> Answer {
    let captured = lock(&event.captured).clone();
    if let Some((capture, nodes)) = captured {
        return capture::wait_for(driver, stream, &capture, &nodes);
    }
    if let Some(shared) = &event.shared {
        let last = shared.event.last();
        capture::isolated(stream)?;
        if !shared.event.is_reached(last) {
            let (at, width) = (Place::Host(shared.event.word()), Width::Double);
            let wait = Command::WaitValue { at, value: last, width, condition: Condition::AtLeast };
            driver.submit(stream, [wait])?;
        }
        return Ok(());
    }
    let recorded = lock(&event.recorded).clone();
    let Some(point) = recorded else { return Ok(()) };
    capture::isolated(stream)?;
    if !driver.is_done(point.stream.slot, point.seq) {
        driver.submit(stream, [Command::After { slot: point.stream.slot, seq: point.seq }])?;
    }
    Ok(())
}

/// An event that was recorded in a capture cannot be asked about or waited for; another one not while a capture would
/// be harmed.
fn may_ask(driver: &Driver, event: &Event) -> Answer {
    let captured = lock(&event.captured).clone();
    match captured {
        Some((capture, _)) => {
            capture.invalidate();
            Err(CUresult::ERROR_CAPTURED_EVENT)
        }
        None => capture::forbid_unsafe_call(driver),
    }
}

fn record(mode: ThreadMode, event: CUevent, stream: CUstream) -> Answer {
    record_with_flags(mode, event, stream, 0)
}

twins! {
    cuEventRecord, cuEventRecord_ptsz (event: CUevent, stream: CUstream) = record;
    cuEventRecordWithFlags, cuEventRecordWithFlags_ptsz (event: CUevent, stream: CUstream, flags: c_uint) = record_with_flags;
}

pub(crate) fn cuEventQuery(event: CUevent) -> Answer {
    let driver = driver()?;
    let event = find(driver, event)?;
    may_ask(driver, &event)?;
    if let Some(shared) = &event.shared {
        let reached = shared.event.is_reached(shared.event.last());
        return if reached { Ok(()) } else { Err(CUresult::ERROR_NOT_READY) };
    }
    let recorded = lock(&event.recorded).clone();
    let Some(point) = recorded else { return Ok(()) };
    if !driver.is_done(point.stream.slot, point.seq) {
        return Err(CUresult::ERROR_NOT_READY);
    }
    driver.context_error(point.stream.context_number)
}

pub(crate) fn cuEventSynchronize(event: CUevent) -> Answer {
    let driver = driver()?;
    let event = find(driver, event)?;
    may_ask(driver, &event)?;
    if let Some(shared) = &event.shared {
        let last = shared.event.last();
        let context = current::resolve(driver, event.context)?;
        // The word is written by the server, which knows of nobody to wake.
        while !shared.event.is_reached(last) {
            driver.context_error(context.number)?;
            std::thread::park_timeout(LOOK);
        }
        driver.synchronised();
        return Ok(());
    }
    let recorded = lock(&event.recorded).clone();
    let answer = recorded.map_or(Ok(()), |point| driver.wait(&point.stream, point.seq));
    driver.synchronised();
    answer
}

pub(crate) fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> Answer {
    let driver = driver()?;
    let (start, end) = (find(driver, start)?, find(driver, end)?);
    for event in [&start, &end] {
        may_ask(driver, event)?;
        let recorded = lock(&event.recorded).clone();
        let point = recorded.filter(|_| event.timing).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        if !driver.is_done(point.stream.slot, point.seq) {
            return Err(CUresult::ERROR_NOT_READY);
        }
        driver.context_error(point.stream.context_number)?;
    }
    match driver.ask(&Request::Elapsed { start: start.id, end: end.id })? {
        Reply::Moments(Some(start), Some(end)) => {
            let later = end.saturating_sub(start);
            let earlier = start.saturating_sub(end);
            #[expect(clippy::cast_precision_loss, reason = "exact below 104 days")]
            let span = (later as f64 - earlier as f64) / 1e6;
            #[expect(clippy::cast_possible_truncation, reason = "the API's own type")]
            raw::store(milliseconds, span as f32)
        }
        Reply::Moments(..) => Err(CUresult::ERROR_INVALID_HANDLE),
        other => Err(device::out_of_turn(other)),
    }
}

pub(crate) fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent) -> Answer {
    cuEventElapsedTime(milliseconds, start, end)
}

pub(crate) fn cuEventDestroy_v2(event: CUevent) -> Answer {
    let driver = driver()?;
    let event = driver.events.remove(event.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if let Some(token) = event.shared.as_ref().and_then(|shared| shared.token) {
        driver.hold(Holding::EndEvent { token })?;
    }
    let recorded = lock(&event.recorded).clone();
    if let Some(point) = recorded.filter(|point| event.timing && point.stream.context_is_alive()) {
        // In stream order: the moment must not be noted after it was forgotten.
        return driver.submit(&point.stream, [Command::ForgetEvent { event: event.id }]).map(|_| ());
    }
    Ok(())
}
