//! Streams whose work is recorded into a graph (CUDA driver API, "Stream Management", `cuStreamBeginCapture`; CUDA
//! programming guide, "Stream Capture").
//!
//! ```text
//! (not capturing) --begin--> Active --end in the origin stream--> graph
//!        |                      |  '--a call the rules forbid--> Invalidated --end--> no graph, and an error
//!        '--waits for an event of the capture--> takes part, until the capture ends
//! ```
//!
//! Which calls are "potentially unsafe" is not listed by the documentation. Here it is what takes or gives memory at
//! once, what loads or unloads code, what makes host memory known to the device, and what asks or waits for the device
//! in a stream that is not captured.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use headgate_abi::cuda::types::{CUDA_MEMSET_NODE_PARAMS, CUresult};
use headgate_simgpu::protocol::Command;

use crate::api::insert_captured;
use crate::driver::{Answer, Driver};
use crate::graph::{Graph, Work};
use crate::objects::{Stream, StreamKind, lock};

/// `CUstreamCaptureMode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl Mode {
    pub(crate) fn parse(mode: u32) -> Result<Self, CUresult> {
        match mode {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    pub(crate) fn code(self) -> u32 {
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

pub(crate) fn exchange_thread_mode(mode: Mode) -> Mode {
    THREAD_MODE.replace(mode)
}

/// A capture under way, or one that has ended, as long as an event remembers it.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) id: u64,
    mode: Mode,
    thread: ThreadId,
    origin: u32,
    context: usize,
    pub(crate) graph: Arc<Graph>,
    /// The graph was there before, and stays whatever comes.
    to_graph: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    invalidated: bool,
    ended: bool,
    streams: Vec<Member>,
}

/// A stream that takes part.
#[derive(Debug)]
struct Member {
    stream: Arc<Stream>,
    /// Nodes its next one comes after.
    after: BTreeSet<usize>,
    /// The same, as last told to the program, which may read it until its next call on the stream.
    told: Vec<usize>,
}

impl Capture {
    pub(crate) fn is_invalidated(&self) -> bool {
        lock(&self.state).invalidated
    }

    pub(crate) fn invalidate(&self) {
        lock(&self.state).invalidated = true;
    }

    fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    fn with<T>(&self, stream: &Stream, work: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        state.streams.iter_mut().find(|member| member.stream.slot == stream.slot).map(work)
    }

    /// What the next node of a stream comes after.
    pub(crate) fn after(&self, stream: &Stream) -> BTreeSet<usize> {
        self.with(stream, |member| member.after.clone()).unwrap_or_default()
    }

    /// The same in a place that lasts until the next call on the stream: address and length.
    pub(crate) fn tell_after(&self, stream: &Stream) -> (*const usize, usize) {
        let told = self.with(stream, |member| {
            member.told = member.after.iter().copied().collect();
            (member.told.as_ptr(), member.told.len())
        });
        told.unwrap_or((core::ptr::null(), 0))
    }

    /// Sets or adds to it.
    pub(crate) fn set_after(&self, stream: &Stream, nodes: BTreeSet<usize>, add: bool) {
        // A stream that takes no part has nothing that could be set.
        let _no_member = self.with(stream, |member| {
            if !add {
                member.after.clear();
            }
            member.after.extend(nodes);
        });
    }

    /// Lets a stream take part, after some nodes.
    fn join(self: &Arc<Self>, stream: &Arc<Stream>, after: BTreeSet<usize>) {
        *lock(&stream.capture) = Some(Arc::clone(self));
        lock(&self.state).streams.push(Member { stream: Arc::clone(stream), after, told: Vec::new() });
    }

    /// Records work of a stream as a node.
    pub(crate) fn record(&self, driver: &Driver, stream: &Stream, work: Work) -> Answer {
        if self.is_invalidated() {
            return Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        let handle = insert_captured(driver, &self.graph, work, self.after(stream))?;
        self.set_after(stream, BTreeSet::from([handle]), false);
        Ok(())
    }
}

/// The capture a stream takes part in.
pub(crate) fn of(stream: &Stream) -> Option<Arc<Capture>> {
    lock(&stream.capture).clone()
}

/// Begins a capture: into a new graph, or into one that is there, after some of its nodes.
pub(crate) fn begin(
    driver: &Driver,
    stream: &Arc<Stream>,
    mode: Mode,
    into: Option<(Arc<Graph>, BTreeSet<usize>)>,
) -> Answer {
    if stream.kind == StreamKind::Legacy {
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    if of(stream).is_some() {
        return Err(CUresult::ERROR_ILLEGAL_STATE);
    }
    let to_graph = into.is_some();
    let (graph, after) = into.unwrap_or_else(|| {
        let graph = Arc::new(Graph { handle: driver.graphs.reserve(), ..Graph::default() });
        driver.graphs.insert(graph.handle, Arc::clone(&graph));
        (graph, BTreeSet::new())
    });
    graph.is_captured_to.store(true, Ordering::Relaxed);
    let capture = Arc::new(Capture {
        id: driver.next_event_id(),
        mode,
        thread: std::thread::current().id(),
        origin: stream.slot,
        context: stream.context,
        graph,
        to_graph,
        state: Mutex::default(),
    });
    capture.join(stream, after);
    lock(&driver.captures).push(capture);
    driver.capturing.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// Ends a capture. After an error there is no graph, and the streams are free again, unless the call was made in the
/// wrong stream or thread.
pub(crate) fn end(driver: &Driver, stream: &Stream) -> Result<Arc<Graph>, CUresult> {
    let capture = of(stream).ok_or(CUresult::ERROR_ILLEGAL_STATE)?;
    if capture.origin != stream.slot {
        capture.invalidate();
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNMATCHED);
    }
    if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
        return Err(CUresult::ERROR_STREAM_CAPTURE_WRONG_THREAD);
    }
    let (invalidated, members) = {
        let mut state = lock(&capture.state);
        state.ended = true;
        (state.invalidated, std::mem::take(&mut state.streams))
    };
    let (mut reached, mut forked) = (BTreeSet::new(), BTreeSet::new());
    for member in members {
        *lock(&member.stream.capture) = None;
        if member.stream.slot == stream.slot { &mut reached } else { &mut forked }.extend(member.after);
    }
    lock(&driver.captures).retain(|known| known.id != capture.id);
    driver.capturing.fetch_sub(1, Ordering::AcqRel);
    capture.graph.is_captured_to.store(false, Ordering::Relaxed);
    let outcome = if invalidated {
        Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED)
    } else if forked.is_subset(&lock(&capture.graph.body).ancestors(&reached)) {
        Ok(Arc::clone(&capture.graph))
    } else {
        Err(CUresult::ERROR_STREAM_CAPTURE_UNJOINED)
    };
    if outcome.is_err() && !capture.to_graph {
        capture.graph.forget(driver);
    }
    outcome
}

/// Refuses a potentially unsafe call while streams are captured, and ends the captures it would harm.
pub(crate) fn forbid_unsafe_call(driver: &Driver) -> Answer {
    if driver.capturing.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    let thread = std::thread::current().id();
    let mode = THREAD_MODE.get();
    let harmed = |capture: &Capture| match (mode, capture.thread == thread) {
        (Mode::Relaxed, _) | (Mode::ThreadLocal, false) => false,
        (Mode::Global | Mode::ThreadLocal, true) => capture.mode != Mode::Relaxed,
        (Mode::Global, false) => capture.mode == Mode::Global,
    };
    refuse(driver, harmed, CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
}

/// Ends the captures that a call harms, and refuses it.
fn refuse(driver: &Driver, harmed: impl Fn(&Capture) -> bool, status: CUresult) -> Answer {
    let captures = lock(&driver.captures);
    let harmed: Vec<_> = captures.iter().filter(|capture| harmed(capture)).collect();
    harmed.iter().for_each(|capture| capture.invalidate());
    if harmed.is_empty() { Ok(()) } else { Err(status) }
}

/// Refuses what cannot be done in a stream that is captured.
pub(crate) fn forbid_in(stream: &Stream) -> Answer {
    match of(stream) {
        Some(capture) => {
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
        }
        None => Ok(()),
    }
}

/// Refuses to ask or wait for a stream that is captured, and for others where that is unsafe.
pub(crate) fn forbid_waiting(driver: &Driver, stream: &Stream) -> Answer {
    forbid_in(stream)?;
    forbid_implied(driver, stream)?;
    forbid_unsafe_call(driver)
}

/// Refuses to wait for a whole context, some of whose streams are captured.
pub(crate) fn forbid_waiting_for_context(driver: &Driver, context: usize) -> Answer {
    if driver.capturing.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    let status = CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED;
    refuse(driver, |capture| capture.context == context, status)?;
    forbid_unsafe_call(driver)
}

/// Whether work in the legacy stream would come after that of a blocking stream which is captured.
pub(crate) fn is_implied(driver: &Driver, stream: &Stream) -> bool {
    stream.kind == StreamKind::Legacy
        && driver.capturing.load(Ordering::Acquire) > 0
        && lock(&driver.captures).iter().any(|capture| capture.implies(stream.context))
}

impl Capture {
    fn implies(&self, context: usize) -> bool {
        let is_blocking = |member: &Member| member.stream.kind == StreamKind::Blocking;
        self.context == context && lock(&self.state).streams.iter().any(is_blocking)
    }
}

/// Refuses such work, and ends the captures it would depend on.
pub(crate) fn forbid_implied(driver: &Driver, stream: &Stream) -> Answer {
    if !is_implied(driver, stream) {
        return Ok(());
    }
    let harmed = |capture: &Capture| capture.implies(stream.context);
    refuse(driver, harmed, CUresult::ERROR_STREAM_CAPTURE_IMPLICIT)
}

/// Records commands for a stream that is captured: `Ok(true)` says that this was done in place of running them.
pub(crate) fn divert(driver: &Driver, stream: &Stream, commands: &[Command]) -> Result<bool, CUresult> {
    let Some(capture) = of(stream) else {
        return forbid_implied(driver, stream).map(|()| false);
    };
    let work = match commands {
        [Command::Copy { .. }] => Work::Copy { commands: commands.to_vec(), told: [].into() },
        [Command::Fill { at, pitch, value, element, width, height }] => {
            let size = |bytes: &u64| usize::try_from(*bytes).unwrap_or(usize::MAX);
            let told = CUDA_MEMSET_NODE_PARAMS {
                dst: *at,
                pitch: size(pitch),
                value: *value,
                elementSize: *element,
                width: size(width),
                height: size(height),
            };
            Work::Fill { command: commands[0].clone(), told }
        }
        [Command::WaitValue { .. } | Command::WriteValue { .. } | Command::Nothing, ..] => {
            Work::MemoryOperations { commands: commands.to_vec(), told: [].into() }
        }
        _ => {
            capture.invalidate();
            return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
    };
    capture.record(driver, stream, work)?;
    Ok(true)
}

/// Lets a stream wait for what an event of a capture stands for: the stream then takes part.
pub(crate) fn wait_for(
    driver: &Driver,
    stream: &Arc<Stream>,
    capture: &Arc<Capture>,
    nodes: &BTreeSet<usize>,
) -> Answer {
    if capture.has_ended() {
        return Err(CUresult::ERROR_CAPTURED_EVENT);
    }
    match of(stream) {
        None if stream.kind == StreamKind::Legacy => {
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
        }
        None => {
            forbid_implied(driver, stream)?;
            capture.join(stream, nodes.clone());
            Ok(())
        }
        Some(own) if own.is_invalidated() => Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED),
        Some(own) if own.id == capture.id => {
            capture.set_after(stream, nodes.clone(), true);
            Ok(())
        }
        Some(own) => {
            own.invalidate();
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_MERGE)
        }
    }
}

/// A captured stream cannot wait for something outside its capture.
pub(crate) fn isolated(stream: &Stream) -> Answer {
    match of(stream) {
        Some(capture) => {
            capture.invalidate();
            Err(CUresult::ERROR_STREAM_CAPTURE_ISOLATION)
        }
        None => Ok(()),
    }
}
