//! Launches: gathered into batches that report their completion, held at the gate when it is not our turn.
//!
//! ```text
//! [GPU: wait for the gate, started = k] launch launch ... launch [GPU: completed = k] [GPU: wait ...
//!                                       '------- batch k -------'
//! ```
//!
//! The program never waits: it runs ahead as far as the driver lets it, and the device waits at the gate. A gate
//! that closes stops the tenant at the end of the batch that is running, about `batch_us` later.
//!
//! The way of a launch inside a batch is [`admit`]: one comparison of cached facts and one decrement. No lock,
//! no system call, no clock, no driver call but the launch itself. Everything else happens at edges: before the
//! first and after the last launch of a batch, and before a call that waits for the device.
//!
//! Where the driver has no stream memory operations, or the operator says so, the host waits at the gate instead
//! (`GATE_HOST`, and the lower rungs of [`rung`]); what is queued on the device when such a gate closes still runs.

mod cost;
mod turn;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUstream};
use headgate_abi::limits::LANES_MAX;
use headgate_abi::segment::layout::{
    BACKEND_EVENTS, BACKEND_MEMOPS, BACKEND_WATCHDOG, GATE_GPU, GATE_OPEN_BIT, GATE_UNGOVERNED,
};

use cost::Cost;

use crate::session::{self, Session};
use crate::{driver, ended, lanes, reports, rung, sys};

/// Streams one thread keeps lanes for. More than that and the least recently used lane is given up.
const LANES_PER_THREAD_MAX: usize = 16;
/// Most launches between two looks at the session, in a batch or without one.
const BATCH_LAUNCHES_MAX: u32 = 4_096;

/// What a launch inside a batch needs to know.
#[derive(Clone, Copy)]
struct Fast {
    /// Session epoch these facts belong to; zero matches none.
    epoch: u64,
    stream: usize,
    /// Launches that still fit the batch.
    left: u32,
    gate: &'static AtomicU32,
}

static ALWAYS_OPEN: AtomicU32 = AtomicU32::new(GATE_OPEN_BIT);

thread_local! {
    static FAST: Cell<Fast> = const { Cell::new(Fast { epoch: 0, stream: 0, left: 0, gate: &ALWAYS_OPEN }) };
    static PACE: RefCell<Pace> =
        const { RefCell::new(Pace { epoch: 0, ends_seen: 0, passing: None, lanes: Vec::new() }) };
}

/// A thread's lanes, most recently used first.
struct Pace {
    epoch: u64,
    /// Ends of streams and contexts that this thread knows of.
    ends_seen: u64,
    /// Device row of launches that pass without batches, while [`FAST`] lets them.
    passing: Option<usize>,
    lanes: Vec<Lane>,
}

/// One thread's work in one stream.
struct Lane {
    stream: CUstream,
    per_thread: bool,
    context: CUcontext,
    row: usize,
    /// Row in the seat; `None` when all were taken, and the work is gated but not followed.
    seat_lane: Option<usize>,
    generation: u64,
    /// Launches the open batch may hold, zero when none is open.
    batch: u32,
    /// Launches in the open batch.
    launched: u32,
    /// The host waits at the gate because the GPU cannot.
    host_gated: bool,
    cost: Cost,
}

/// What to do with a launch.
pub(crate) enum Admission {
    /// Launch; nothing follows.
    Go,
    /// Launch, then close the batch with [`after_last`].
    GoThenEdge,
    /// Refuse with this status.
    Refuse(CUresult),
}

/// Admits one launch into a stream. Usually a handful of nanoseconds.
#[inline]
pub(crate) fn admit(stream: CUstream, per_thread: bool) -> Admission {
    let fast = FAST.get();
    if fast.epoch == session::epoch()
        && fast.stream == stream.addr()
        && 1 < fast.left
        && fast.gate.load(Relaxed) & GATE_OPEN_BIT != 0
    {
        FAST.set(Fast { left: fast.left - 1, ..fast });
        return Admission::Go;
    }
    admit_slowly(stream, per_thread)
}

#[cold]
fn admit_slowly(stream: CUstream, per_thread: bool) -> Admission {
    let session = match session::require() {
        Ok(session) => session,
        Err(status) => return Admission::Refuse(status),
    };
    // A thread that is ending has no lanes any more; its last launches go through unfollowed.
    PACE.try_with(|pace| match pace.try_borrow_mut() {
        Ok(mut pace) => pace.admit(session, stream, per_thread),
        Err(_) => Admission::Go,
    })
    .unwrap_or(Admission::Go)
}

/// Closes the batch whose last launch has just been handed to the driver.
#[cold]
pub(crate) fn after_last() {
    with_pace(|pace, session| pace.edge(session, 0));
}

/// Closes this thread's batches before a call that waits for the device or marks a point in a stream, so that
/// the daemon sees the work as under way and as done.
#[inline]
pub(crate) fn flush() {
    if FAST.get().epoch != 0 {
        with_pace(Pace::flush);
    }
}

/// The program has looked at the device, or `waited` for it: if all its work is done, the clock of what it had there
/// stops. What looks at one stream of several stops nothing while the others work.
#[inline]
pub(crate) fn looked(waited: bool) {
    let Some(session) = session::seated() else { return };
    if BACKEND_MEMOPS < rung::rung() {
        reports::looked(session, waited);
    }
    for (row, clock) in session.seat().busy.iter().enumerate() {
        if clock.runs() && lanes::all_at_rest(session.seat(), row) {
            clock.finish(sys::now_us());
        }
    }
}

/// Counts a launch that passes without being paced.
pub(crate) fn count_unpaced() {
    let Some(session) = session::seated() else { return };
    if let Some(row) = driver::current_context().and_then(|(_, device)| session.row(device)) {
        session.seat().counters[row].launches.fetch_add(1, Relaxed);
    }
}

/// The thread works in another context now: a null stream means another device.
pub(crate) fn context_switched() {
    if FAST.get().epoch != 0 {
        with_pace(Pace::count_out);
    }
}

fn with_pace(work: impl FnOnce(&mut Pace, &'static Session)) {
    let Some(session) = session::seated() else { return };
    // Unreachable only while the thread ends or is inside this very function: then there is nothing to close.
    let _done = PACE.try_with(|pace| pace.try_borrow_mut().map(|mut pace| work(&mut pace, session)));
}

impl Pace {
    fn admit(&mut self, session: &'static Session, stream: CUstream, per_thread: bool) -> Admission {
        self.count_out(session);
        let Some((context, device)) = driver::current_context() else { return Admission::Go };
        let Some(row) = session.row(device) else { return Admission::Go };
        let limits = session.limits(row);
        let mode = limits.gate_mode.load(Acquire);
        if session.is_off() || mode == GATE_UNGOVERNED {
            return self.pass(session, row, stream);
        }
        self.bring_to_front(session, stream, per_thread, context, row);
        let lane = &self.lanes[0];
        if lane.batch == 0 || (lane.host_gated && !turn::gate_open(session, row)) {
            if driver::is_capturing(stream, per_thread) {
                // Nothing may be put into a capture, and nothing of it runs before the graph is launched: that
                // launch comes to the gate, so this thread must ask again.
                session.seat().counters[row].launches.fetch_add(1, Relaxed);
                return Admission::Go;
            }
            self.edge(session, 0);
            if mode != GATE_GPU || !self.lanes[0].begin(session) {
                turn::wait(session, row, &mut self.lanes);
                self.lanes[0].begin_on_host(session);
            }
            let lane = &mut self.lanes[0];
            lanes::clock_in(session, row, lane.seat_lane);
            let most = limits.batch_launches_max.load(Acquire).clamp(1, BATCH_LAUNCHES_MAX);
            // On the host a batch that is too short lets the device run dry between two looks.
            let more = if lane.host_gated { lane.cost.launch_us() } else { 0 };
            lane.batch = lane.cost.batch(u64::from(limits.batch_us.load(Acquire)) + more, most);
        }
        let lane = &mut self.lanes[0];
        lane.launched += 1;
        let left = lane.batch.saturating_sub(lane.launched);
        if left == 0 {
            return Admission::GoThenEdge;
        }
        let gate = if lane.host_gated { &limits.gate } else { &ALWAYS_OPEN };
        FAST.set(Fast { epoch: session::epoch(), stream: stream.addr(), left, gate });
        Admission::Go
    }

    /// Lets launches through without batches for a while.
    fn pass(&mut self, session: &'static Session, row: usize, stream: CUstream) -> Admission {
        session.seat().counters[row].launches.fetch_add(1, Relaxed);
        self.passing = Some(row);
        let left = BATCH_LAUNCHES_MAX;
        FAST.set(Fast { epoch: session::epoch(), stream: stream.addr(), left, gate: &ALWAYS_OPEN });
        Admission::Go
    }

    /// Takes the fast path's facts back, counting the launches it let through.
    fn count_out(&mut self, session: &'static Session) {
        let fast = FAST.get();
        FAST.set(Fast { epoch: 0, ..fast });
        if fast.epoch == 0 {
            return;
        }
        if let Some(row) = self.passing.take() {
            let passed = u64::from(BATCH_LAUNCHES_MAX - fast.left);
            session.seat().counters[row].launches.fetch_add(passed, Relaxed);
        } else if let Some(lane) = self.lanes.first_mut() {
            lane.launched = lane.batch.saturating_sub(fast.left);
        }
    }

    /// Brings the lane of a stream to the front, taking one when the thread has none for it.
    fn bring_to_front(
        &mut self,
        session: &'static Session,
        stream: CUstream,
        per_thread: bool,
        context: CUcontext,
        row: usize,
    ) {
        self.forget_the_dead(session);
        let known = self.lanes.iter().position(|lane| {
            lane.stream == stream
                && lane.per_thread == per_thread
                && lane.context == context
                && lane.row == row
        });
        if let Some(index) = known {
            self.lanes[..=index].rotate_right(1);
            return;
        }
        if self.lanes.len() == LANES_PER_THREAD_MAX {
            self.edge(session, LANES_PER_THREAD_MAX - 1);
            self.lanes.pop().iter().for_each(|lane| lane.give_up(session));
        }
        let seat_lane = lanes::take(session, row, context);
        self.lanes.insert(
            0,
            Lane {
                stream,
                per_thread,
                context,
                row,
                seat_lane,
                generation: session.generation(),
                batch: 0,
                launched: 0,
                host_gated: false,
                cost: Cost::default(),
            },
        );
    }

    /// Gives up the lanes of streams and contexts that have ended, and of another seat: the handles may be another's by
    /// now, and the driver must not be asked about them.
    fn forget_the_dead(&mut self, session: &'static Session) {
        let epoch = session::epoch();
        if self.epoch == epoch {
            return;
        }
        self.epoch = epoch;
        let ended = ended::since(&mut self.ends_seen);
        self.lanes.retain(|lane| {
            let dead = |handles: &Vec<usize>| {
                handles.contains(&lane.stream.addr()) || handles.contains(&lane.context.addr())
            };
            let alive = lane.generation == session.generation() && !ended.as_ref().is_none_or(dead);
            if !alive {
                lane.give_up(session);
            }
            alive
        });
    }

    fn flush(&mut self, session: &'static Session) {
        self.count_out(session);
        self.forget_the_dead(session);
        for index in 0..self.lanes.len() {
            self.edge(session, index);
        }
    }

    /// Ends a lane's batch, unless its stream is captured: the GPU will report it when it is done.
    fn edge(&mut self, session: &'static Session, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.launched == 0 {
            lane.batch = 0;
            return;
        }
        if driver::is_capturing(lane.stream, lane.per_thread) {
            // The stream has joined a capture since the batch began. The report would become a node of the program's
            // graph; it is made at the next edge behind the capture.
            return;
        }
        let launched = std::mem::take(&mut lane.launched);
        lane.batch = 0;
        let seat = session.seat();
        seat.counters[lane.row].launches.fetch_add(u64::from(launched), Relaxed);
        seat.counters[lane.row].batches.fetch_add(1, Relaxed);
        lane.close(session, launched);
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if let Some(session) = session::seated() {
            self.count_out(session);
            self.lanes.iter().for_each(|lane| lane.give_up(session));
        }
    }
}

impl Lane {
    /// Leaves the row in the seat to others. Nothing more is put into the stream, which may have ended.
    fn give_up(&self, session: &Session) {
        session.seat().counters[self.row].launches.fetch_add(u64::from(self.launched), Relaxed);
        if let Some(row) = self.seat_lane {
            lanes::give_up(row, 0 < self.batch);
        }
    }

    /// Puts the wait for the gate into the stream. `false` when the driver or the seat will not have it.
    fn begin(&mut self, session: &'static Session) -> bool {
        let Some(index) = self.seat_lane else { return false };
        if BACKEND_MEMOPS < rung::rung() {
            return false;
        }
        let Some(at) = lanes::addresses(session, index, self.row) else { return false };
        let seat = session.seat();
        let host = &seat.lanes[index];
        let number = host.submitted.load(Relaxed).wrapping_add(1);
        // Begun first: the daemon must know of the wait before the GPU can be held by it.
        host.begun.store(number, Release);
        let status = driver::wait_for_gate(self.stream, self.per_thread, at.gate, at.started, number);
        if !status.is_success() {
            lanes::settle(seat, index);
            rung::failed(session, BACKEND_MEMOPS, status);
            return false;
        }
        rung::says(session, BACKEND_MEMOPS);
        self.host_gated = false;
        true
    }

    /// Begins a batch that the host has let through: it has started as far as anyone can tell.
    fn begin_on_host(&mut self, session: &'static Session) {
        self.host_gated = true;
        let Some(index) = self.seat_lane else { return };
        rung::gates_on_host(session, index, self.row);
        let (host, marks) = (&session.seat().lanes[index], &session.seat().marks[index]);
        let submitted = host.submitted.load(Relaxed);
        if submitted == marks.completed.load(Acquire) {
            self.cost.begin(sys::now_us(), submitted);
        }
        let number = submitted.wrapping_add(1);
        marks.started.store(number, Release);
        host.begun.store(number, Release);
    }

    /// Puts the report of completion into the stream, and learns from how far the GPU is.
    fn close(&mut self, session: &'static Session, launched: u32) {
        let Some(index) = self.seat_lane else { return };
        let seat = session.seat();
        let (host, marks) = (&seat.lanes[index], &seat.marks[index]);
        let number = host.submitted.load(Relaxed).wrapping_add(1);
        let status = match rung::rung() {
            BACKEND_EVENTS => reports::mark(session, index, self.stream, self.per_thread, number),
            BACKEND_WATCHDOG => {
                // What was submitted before counts as done, so that progress shows while the program launches.
                marks.completed.store(number.wrapping_sub(1), Release);
                host.submitted.store(number, Release);
                return;
            }
            _ => {
                let Some(at) = lanes::addresses(session, index, self.row) else {
                    lanes::settle(seat, index);
                    return;
                };
                host.submitted.store(number, Release);
                driver::write_when_done(self.stream, self.per_thread, at.completed, number)
            }
        };
        if status.is_success() && self.host_gated {
            self.cost.remember(number, launched);
        } else if status.is_success() {
            let gate = seat.gates[self.row].load(Acquire);
            self.cost.learn(sys::now_us(), gate, number, marks.completed.load(Acquire), launched);
        } else {
            // The context has failed or will not take the operation: there will be no report to wait for.
            lanes::settle(seat, index);
            rung::failed(session, rung::rung(), status);
        }
    }
}

const _: () = assert!(LANES_PER_THREAD_MAX <= LANES_MAX);
