//! Launches: gathered into batches that report their completion, held at the gate when it is not our turn.
//!
//! ```text
//! launch launch ... launch | edge: "GPU, write k when done" | gate open? few batches ahead? | launch ...
//! '-------- batch k -------'
//! ```
//!
//! The way of a launch inside a batch is [`admit`]: one comparison of cached facts, one look at the gate word,
//! one decrement. No lock, no system call, no clock, no driver call but the launch itself. Everything else
//! happens at edges: after the last launch of a batch, before a call that waits for the device, and when the
//! gate is found closed.
//!
//! The host waits at the gate, so it must not run far ahead of the device: at most `batches_ahead_max`
//! batches of about `batch_us` are under way per lane, which bounds what a closing gate lets through.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUstream};
use headgate_abi::limits::{GATE_WAIT_US_MAX, LANES_MAX};
use headgate_abi::segment::layout::{FAIL_OPEN, GATE_HOST, GATE_OPEN_BIT, GATE_WAIT_BUCKETS};

use crate::session::{self, Session};
use crate::{driver, lanes, sys};

/// Streams one thread keeps lanes for. More than that and the least recently used lane is given up.
const LANES_PER_THREAD_MAX: usize = 16;
/// Most launches between two looks at the session, in a batch or without one.
const BATCH_LAUNCHES_MAX: u32 = 4_096;
/// Longest wait for the device to catch up before the launch goes ahead regardless. A kernel may run for
/// long, and the gate still bounds what follows; but no wait in a tenant is without a bound.
const CATCH_UP_US_MAX: u64 = 2_000_000;

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
    static PACE: RefCell<Pace> = const { RefCell::new(Pace { epoch: 0, passing: None, lanes: Vec::new() }) };
}

/// A thread's lanes, most recently used first.
struct Pace {
    epoch: u64,
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
        if session.is_off() || limits.gate_mode.load(Acquire) != GATE_HOST {
            return self.pass(session, row, stream);
        }
        self.bring_to_front(session, stream, per_thread, context, row);
        if self.lanes[0].batch == 0 || !gate_open(session, row) {
            // Between batches, or the gate closed inside one: this is where a launch may wait.
            if driver::is_capturing(stream, per_thread) {
                // Nothing may be put into a capture, and nothing of it runs before the graph is launched.
                return self.pass(session, row, stream);
            }
            self.edge(session, 0);
            let lane = &mut self.lanes[0];
            let waited = wait_for_gate(session, row);
            lane.wait_for_device(session, limits.batches_ahead_max.load(Acquire).max(1), waited);
            let most = limits.batch_launches_max.load(Acquire).clamp(1, BATCH_LAUNCHES_MAX);
            lane.batch = lane.cost.batch(limits.batch_us.load(Acquire), most);
        }
        let lane = &mut self.lanes[0];
        lane.launched += 1;
        let left = lane.batch.saturating_sub(lane.launched);
        if left == 0 {
            return Admission::GoThenEdge;
        }
        FAST.set(Fast { epoch: session::epoch(), stream: stream.addr(), left, gate: &limits.gate });
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
        if self.epoch != session::epoch() {
            // A stream or context may have ended and its handle been given to another.
            self.give_up_all();
            self.epoch = session::epoch();
        }
        let generation = session.generation();
        let known = self.lanes.iter().position(|lane| {
            lane.stream == stream
                && lane.per_thread == per_thread
                && lane.context == context
                && lane.generation == generation
        });
        if let Some(index) = known {
            self.lanes[..=index].rotate_right(1);
            return;
        }
        if self.lanes.len() == LANES_PER_THREAD_MAX {
            self.edge(session, LANES_PER_THREAD_MAX - 1);
            if let Some(row) = self.lanes.pop().and_then(|lane| lane.seat_lane) {
                lanes::give_up(row);
            }
        }
        let seat_lane = lanes::take(session, row, context);
        let (batch, launched, cost) = (0, 0, Cost::default());
        let lane = Lane { stream, per_thread, context, row, seat_lane, generation, batch, launched, cost };
        self.lanes.insert(0, lane);
    }

    fn flush(&mut self, session: &'static Session) {
        self.count_out(session);
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if lane.launched != 0 && !driver::is_capturing(lane.stream, lane.per_thread) {
                self.edge(session, index);
            }
        }
    }

    /// Ends a lane's batch: the GPU will report it when it is done.
    fn edge(&mut self, session: &'static Session, index: usize) {
        let lane = &mut self.lanes[index];
        let launched = std::mem::take(&mut lane.launched);
        lane.batch = 0;
        if launched == 0 {
            return;
        }
        let seat = session.seat();
        seat.counters[lane.row].launches.fetch_add(u64::from(launched), Relaxed);
        seat.counters[lane.row].batches.fetch_add(1, Relaxed);
        let Some(row) = lane.seat_lane else { return };
        let Some(address) = lanes::completion_address(session, row) else { return };
        // Submitted first: the daemon must never see a completion ahead of its submission.
        let number = seat.lanes[row].submitted.load(Relaxed).wrapping_add(1);
        seat.lanes[row].submitted.store(number, Release);
        if driver::write_when_done(lane.stream, lane.per_thread, address, number).is_success() {
            lane.cost.submitted(number, launched);
        } else {
            // The context has failed or will not take the operation: there will be no report to wait for.
            lanes::settle(seat, row);
        }
    }

    fn give_up_all(&mut self) {
        for lane in self.lanes.drain(..) {
            if let Some(row) = lane.seat_lane {
                lanes::give_up(row);
            }
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.give_up_all();
    }
}

impl Lane {
    /// Waits until the lane is few enough batches ahead of the device, and learns from how long that takes.
    fn wait_for_device(&mut self, session: &Session, ahead_max: u32, gate_waited: bool) {
        let Some(row) = self.seat_lane else { return };
        let seat = session.seat();
        let submitted = seat.lanes[row].submitted.load(Relaxed);
        let ahead = || submitted.wrapping_sub(seat.completed[row].load(Acquire));
        if gate_waited || ahead() == 0 {
            // The device starts on our next batch when it arrives.
            let drained = !gate_waited;
            self.cost.restart(sys::now_us(), submitted, drained);
            return;
        }
        if ahead() < ahead_max {
            return;
        }
        // A fraction of what is still queued, so that the device never runs dry while we oversleep.
        let step_us = self.cost.step_us();
        let mut waited_us = 0;
        while ahead_max <= ahead() && waited_us < CATCH_UP_US_MAX {
            sys::sleep_us(step_us);
            waited_us += step_us;
        }
        self.cost.completed(sys::now_us(), seat.completed[row].load(Acquire));
    }
}

/// What launches of a lane cost on the device, learned from how its batches complete. It only shapes batches;
/// nothing is charged by it.
#[derive(Default)]
struct Cost {
    /// Smoothed device time of one launch in nanoseconds, zero while unknown.
    launch_ns: u64,
    /// Launches of the last batches, by batch number.
    sizes: [u32; SIZES],
    /// When the device was known to turn to batch `mark_number + 1`.
    mark_us: u64,
    mark_number: u32,
    last_size: u32,
}

/// Batches whose sizes are remembered; more than may ever be under way.
const SIZES: usize = 16;

impl Cost {
    fn submitted(&mut self, number: u32, launched: u32) {
        self.sizes[number as usize % SIZES] = launched;
        self.last_size = launched;
    }

    /// The device is idle, or about to be ours again: the next completion is measured from now. A device that
    /// `drained` while we prepared the next launch is faster than thought.
    fn restart(&mut self, now_us: u64, submitted: u32, drained: bool) {
        self.mark_us = now_us;
        self.mark_number = submitted;
        if drained {
            self.launch_ns -= self.launch_ns / 8;
            self.last_size = self.last_size.saturating_mul(2);
        }
    }

    /// Batches up to `number` are done, and more are queued behind them: the time since the mark was theirs.
    fn completed(&mut self, now_us: u64, number: u32) {
        let batches = number.wrapping_sub(self.mark_number);
        if batches != 0 && (batches as usize) < SIZES {
            let launches: u32 =
                (1..=batches).map(|i| self.sizes[self.mark_number.wrapping_add(i) as usize % SIZES]).sum();
            let elapsed_ns = now_us.saturating_sub(self.mark_us).saturating_mul(1_000);
            let one = (elapsed_ns / u64::from(launches.max(1))).max(1);
            self.launch_ns = if self.launch_ns == 0 { one } else { (self.launch_ns * 3 + one) / 4 };
        }
        self.mark_us = now_us;
        self.mark_number = number;
    }

    /// Launches for the next batch.
    fn batch(&self, batch_us: u32, most: u32) -> u32 {
        let launches = match (u64::from(batch_us) * 1_000).checked_div(self.launch_ns) {
            // Nothing is known yet: start with one, and double while the device keeps up.
            None => self.last_size,
            Some(launches) => u32::try_from(launches).unwrap_or(most),
        };
        launches.clamp(1, most)
    }

    /// How long to sleep at a time while waiting for a batch of these.
    fn step_us(&self) -> u64 {
        (self.launch_ns / 4_000).clamp(20, 100)
    }
}

fn gate_open(session: &Session, row: usize) -> bool {
    session.limits(row).gate.load(Acquire) & GATE_OPEN_BIT != 0
}

/// Waits until the gate is open, or until the daemon has been silent for too long and the policy is to open.
/// `false` when there was nothing to wait for.
fn wait_for_gate(session: &'static Session, row: usize) -> bool {
    let gate = &session.limits(row).gate;
    let mut seen = gate.load(Acquire);
    if seen & GATE_OPEN_BIT != 0 {
        return false;
    }
    let seat = session.seat();
    let start = sys::now_us();
    seat.waiting[row].fetch_add(1, AcqRel);
    while seen & GATE_OPEN_BIT == 0 {
        if session.stale() {
            // Another daemon may be there already; its gates are in another segment. Else the policy decides.
            if session::require().is_ok_and(|now| !std::ptr::eq(now, session))
                || session.fail_policy() == FAIL_OPEN
            {
                break;
            }
        }
        sys::futex_wait(gate, seen, GATE_WAIT_US_MAX);
        seen = gate.load(Acquire);
    }
    seat.waiting[row].fetch_sub(1, AcqRel);
    let waited = sys::now_us().saturating_sub(start);
    seat.counters[row].gate_wait_us.fetch_add(waited, Relaxed);
    let bucket = usize::try_from(waited.max(1).ilog2()).unwrap_or(0).min(GATE_WAIT_BUCKETS - 1);
    seat.gate_wait_buckets[bucket].fetch_add(1, Relaxed);
    true
}

const _: () = assert!(LANES_PER_THREAD_MAX <= LANES_MAX);
