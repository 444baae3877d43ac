//! Streams whose work is recorded into a graph (CUDA driver API, `cuStreamBeginCapture`).
//!
//! ```text
//! (not capturing) --begin--> active --end in the origin stream--> graph
//!        |                      |  '--a call the rules forbid--> invalidated --end--> no graph, and an error
//!        '--waits for an event of the capture--> takes part, until the capture ends
//! ```
//!
//! The worker's driver records, and is told to forbid nothing by itself: its threads are not the program's. What the
//! program may do meanwhile is decided here, by the documented rules, thread by thread. Which calls are "potentially
//! unsafe" the documentation does not list; here it is what takes or gives memory at once, loads or unloads code,
//! makes host memory known, and asks or waits for the device in a stream that is not captured.
//!
//! Copies from and to host memory cannot be captured: a graph would have to fetch the program's memory each time it is
//! launched.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use headgate_abi::cuda::types::{CUenum, CUresult};

use super::Answer;
use super::objects::{Event, Stream, lock};
use super::state::Client;

/// `CUstreamCaptureMode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl Mode {
    pub(super) fn parse(mode: CUenum) -> Result<Self, CUresult> {
        match mode {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    pub(super) fn code(self) -> CUenum {
        match self {
            Self::Global => 0,
            Self::ThreadLocal => 1,
            Self::Relaxed => 2,
        }
    }
}

thread_local! {
    /// What calls of this thread are held back by (`cuThreadExchangeStreamCaptureMode`).
    static THREAD_MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Sets it, and gives what it was.
pub(super) fn exchange(mode: Mode) -> Mode {
    THREAD_MODE.replace(mode)
}

/// A capture under way, or one that has ended, as long as an event remembers it.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) id: u64,
    mode: Mode,
    thread: ThreadId,
    /// Number of the stream it was begun in, and its context.
    origin: u32,
    context: u32,
    invalidated: AtomicBool,
    ended: AtomicBool,
    members: Mutex<Vec<Arc<Stream>>>,
}

/// All captures under way.
#[derive(Debug, Default)]
pub(super) struct Captures {
    /// How many, so that a program without any asks no more.
    count: AtomicUsize,
    next: AtomicU64,
    live: Mutex<Vec<Arc<Capture>>>,
}

impl Capture {
    pub(super) fn is_invalidated(&self) -> bool {
        self.invalidated.load(Ordering::Acquire)
    }

    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Release);
    }

    fn join(self: &Arc<Self>, stream: &Arc<Stream>) {
        *lock(&stream.capture) = Some(Arc::clone(self));
        stream.captured.store(true, Ordering::Release);
        lock(&self.members).push(Arc::clone(stream));
    }

    /// Whether the legacy stream of its context would have to wait for it.
    fn implies(&self, context: u32) -> bool {
        self.context == context && lock(&self.members).iter().any(|stream| stream.blocking)
    }
}

/// The capture a stream takes part in.
pub(super) fn of(stream: &Stream) -> Option<Arc<Capture>> {
    if !stream.captured.load(Ordering::Acquire) {
        return None;
    }
    lock(&stream.capture).clone()
}

/// Begins a capture in a stream that is in none.
pub(super) fn begin(client: &Client, stream: &Arc<Stream>, mode: Mode) -> Answer {
    if stream.id == 0 {
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    if of(stream).is_some() {
        return Err(CUresult::ERROR_ILLEGAL_STATE);
    }
    let capture = Arc::new(Capture {
        id: client.captures.next.fetch_add(1, Ordering::Relaxed) + 1,
        mode,
        thread: thread::current().id(),
        origin: stream.id,
        context: stream.context,
        invalidated: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        members: Mutex::default(),
    });
    capture.join(stream);
    lock(&client.captures.live).push(capture);
    client.captures.count.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// Ends a capture; its streams are free again, unless the call was made in the wrong stream or thread. An error says
/// that there shall be no graph; the capture, if it has ended, was invalid.
pub(super) fn end(client: &Client, stream: &Stream) -> Result<Arc<Capture>, CUresult> {
    let capture = of(stream).ok_or(CUresult::ERROR_ILLEGAL_STATE)?;
    if capture.origin != stream.id {
        capture.invalidate();
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNMATCHED);
    }
    if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
        return Err(CUresult::ERROR_STREAM_CAPTURE_WRONG_THREAD);
    }
    capture.ended.store(true, Ordering::Release);
    for member in std::mem::take(&mut *lock(&capture.members)) {
        member.captured.store(false, Ordering::Release);
        *lock(&member.capture) = None;
    }
    lock(&client.captures.live).retain(|known| known.id != capture.id);
    client.captures.count.fetch_sub(1, Ordering::AcqRel);
    Ok(capture)
}

/// Captures of a context that ends are over.
pub(super) fn end_context(client: &Client, context: u32) {
    lock(&client.captures.live).retain(|capture| {
        let ends = capture.context == context;
        if ends {
            capture.invalidate();
            capture.ended.store(true, Ordering::Release);
            client.captures.count.fetch_sub(1, Ordering::AcqRel);
        }
        !ends
    });
}

impl Client {
    /// Whether any stream is captured.
    pub(super) fn captures_any(&self) -> bool {
        self.captures.count.load(Ordering::Acquire) > 0
    }
}

/// Whether work may be put into a stream, and whether it is recorded in place of being done.
pub(super) fn admit(client: &Client, stream: &Stream) -> Result<bool, CUresult> {
    if !client.captures_any() {
        return Ok(false);
    }
    match of(stream) {
        Some(capture) if capture.is_invalidated() => Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED),
        Some(_) => Ok(true),
        None => forbid_implied(client, stream).map(|()| false),
    }
}

/// Refuses what cannot be done in a stream that is captured.
pub(super) fn forbid_in(stream: &Stream) -> Answer {
    match of(stream) {
        Some(capture) => {
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
        }
        None => Ok(()),
    }
}

/// Refuses a potentially unsafe call while streams are captured, and ends the captures it would harm.
pub(super) fn forbid_unsafe_call(client: &Client) -> Answer {
    if !client.captures_any() {
        return Ok(());
    }
    let (thread, mode) = (thread::current().id(), THREAD_MODE.get());
    let harmed = |capture: &Capture| match (mode, capture.thread == thread) {
        (Mode::Relaxed, _) | (Mode::ThreadLocal, false) => false,
        (Mode::Global | Mode::ThreadLocal, true) => capture.mode != Mode::Relaxed,
        (Mode::Global, false) => capture.mode == Mode::Global,
    };
    refuse(client, harmed, CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
}

/// Ends the captures that a call harms, and refuses it.
fn refuse(client: &Client, harmed: impl Fn(&Capture) -> bool, status: CUresult) -> Answer {
    let live = lock(&client.captures.live);
    let harmed: Vec<_> = live.iter().filter(|capture| harmed(capture)).collect();
    harmed.iter().for_each(|capture| capture.invalidate());
    if harmed.is_empty() { Ok(()) } else { Err(status) }
}

/// Whether work in the legacy stream would come behind that of a blocking stream which is captured.
pub(super) fn is_implied(client: &Client, stream: &Stream) -> bool {
    stream.id == 0
        && client.captures_any()
        && lock(&client.captures.live).iter().any(|capture| capture.implies(stream.context))
}

fn forbid_implied(client: &Client, stream: &Stream) -> Answer {
    if !is_implied(client, stream) {
        return Ok(());
    }
    let harmed = |capture: &Capture| capture.implies(stream.context);
    refuse(client, harmed, CUresult::ERROR_STREAM_CAPTURE_IMPLICIT)
}

/// Refuses to ask or wait for a stream that is captured, and for others where that is unsafe.
pub(super) fn forbid_waiting(client: &Client, stream: &Stream) -> Answer {
    if !client.captures_any() {
        return Ok(());
    }
    forbid_in(stream)?;
    forbid_implied(client, stream)?;
    forbid_unsafe_call(client)
}

/// Refuses to wait for a whole context, some of whose streams are captured.
pub(super) fn forbid_waiting_for_context(client: &Client, context: u32) -> Answer {
    if !client.captures_any() {
        return Ok(());
    }
    refuse(client, |capture| capture.context == context, CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)?;
    forbid_unsafe_call(client)
}

/// An event that was recorded in a capture cannot be asked about or waited for on the host; another one not while a
/// capture would be harmed.
pub(super) fn forbid_asking(client: &Client, event: &Event) -> Answer {
    if let Some(capture) = lock(&event.captured).as_ref() {
        capture.invalidate();
        return Err(CUresult::ERROR_CAPTURED_EVENT);
    }
    forbid_unsafe_call(client)
}

/// Lets a stream wait for an event: of a capture, which it then takes part in, or of none, which a captured stream may
/// not wait for. Says whether the stream takes part from now on and did not before.
pub(super) fn wait_for(client: &Client, stream: &Arc<Stream>, event: &Event) -> Result<bool, CUresult> {
    let recorded = lock(&event.captured).clone();
    let own = of(stream);
    let Some(capture) = recorded else {
        return match own {
            Some(own) if event.recorded.load(Ordering::Acquire) > 0 => {
                own.invalidate();
                Err(CUresult::ERROR_STREAM_CAPTURE_ISOLATION)
            }
            _ => admit(client, stream).map(|_| false),
        };
    };
    if capture.ended.load(Ordering::Acquire) {
        return Err(CUresult::ERROR_CAPTURED_EVENT);
    }
    match own {
        None if stream.id == 0 => {
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
        }
        None if capture.is_invalidated() => Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED),
        None => {
            capture.join(stream);
            Ok(true)
        }
        Some(own) if own.is_invalidated() => Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED),
        Some(own) if own.id == capture.id => Ok(false),
        Some(own) => {
            own.invalidate();
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_MERGE)
        }
    }
}
