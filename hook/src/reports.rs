//! Reports of completion where the GPU cannot write them: events, and where there are none, assumptions.
//!
//! Each lane has a few events, used in turn: batch `n` is marked by event `n` modulo their number. An event that is used
//! again before it was asked about then stands for the later batch, whose end is the earlier one's as well.
//!
//! ```text
//! program's thread   record event n, submitted = n       at each edge: ask, completed = n
//! watch              every 500 us while reports are due: ask, completed = n
//! ```
//!
//! Events die with their context, and asking about a dead one is undefined. So before a context is destroyed its lanes
//! are struck off, and whoever destroys it waits until the watch is not in the middle of asking: a question takes a few
//! microseconds, and the wait has a bound.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUevent, CUstream};
use headgate_abi::limits::{GATE_WAIT_US_MAX, LANES_MAX};
use headgate_abi::segment::layout::{BACKEND_EVENTS, BACKEND_WATCHDOG, Seat};

use crate::session::Session;
use crate::{driver, lanes, rung, sys};

/// Events of a lane: twice as many as batches it may be ahead of the device.
pub(crate) const EVENTS: usize = 8;
/// Looks of the watch, 10 ms apart, after which a batch that nothing reports counts as done.
const SILENT_LOOKS: u32 = 2;

static MADE: [[AtomicUsize; EVENTS]; LANES_MAX] =
    [const { [const { AtomicUsize::new(0) }; EVENTS] }; LANES_MAX];
static ALIVE: [AtomicBool; LANES_MAX] = [const { AtomicBool::new(false) }; LANES_MAX];
/// The lane that the watch asks about now, plus one.
static ASKING: AtomicU32 = AtomicU32::new(0);
/// For the watch, on the last rung: what a lane had submitted at the look before, and how many looks ago.
static BEFORE: [AtomicU32; LANES_MAX] = [const { AtomicU32::new(0) }; LANES_MAX];
static LOOKS: [AtomicU32; LANES_MAX] = [const { AtomicU32::new(0) }; LANES_MAX];

/// Marks the end of batch `number`. The batch counts as submitted once it is marked.
pub(crate) fn mark(
    session: &Session,
    lane: usize,
    stream: CUstream,
    per_thread: bool,
    number: u32,
) -> CUresult {
    let slot = &MADE[lane][number as usize % EVENTS];
    let (event, fresh) = match slot.load(Acquire) {
        0 => match driver::make_event() {
            Ok(event) => (event, true),
            Err(status) => return status,
        },
        address => (CUevent::from_addr(address), false),
    };
    let status = driver::record(event, stream, per_thread);
    if !status.is_success() {
        return status;
    }
    if fresh {
        // A driver that makes and records events but does not answer questions about them is of no use.
        let answer = driver::event_done(event, lanes::context_of(lane));
        if !matches!(answer, CUresult::SUCCESS | CUresult::ERROR_NOT_READY) {
            return answer;
        }
        slot.store(event.addr(), Release);
    }
    ALIVE[lane].store(true, SeqCst);
    session.seat().lanes[lane].submitted.store(number, Release);
    rung::stands(session, BACKEND_EVENTS);
    status
}

/// Asks how far a lane is. A lane whose questions are not answered any more counts as done: its context has failed, or
/// the driver has changed its mind.
fn ask(session: &Session, lane: usize) {
    if let Err(status) = try_ask(session.seat(), lane) {
        lanes::settle(session.seat(), lane);
        rung::failed(session, BACKEND_EVENTS, status);
    }
}

fn try_ask(seat: &Seat, lane: usize) -> Result<(), CUresult> {
    let (host, marks) = (&seat.lanes[lane], &seat.marks[lane]);
    loop {
        let (submitted, completed) = (host.submitted.load(Acquire), marks.completed.load(Acquire));
        let next = completed.wrapping_add(1);
        if submitted.wrapping_sub(completed).cast_signed() <= 0 || !ALIVE[lane].load(SeqCst) {
            return Ok(());
        }
        let event = MADE[lane][next as usize % EVENTS].load(Acquire);
        if event == 0 {
            return Ok(());
        }
        match driver::event_done(CUevent::from_addr(event), lanes::context_of(lane)) {
            CUresult::SUCCESS => {
                // Whoever asked at the same time may have been faster.
                let _other = marks.completed.compare_exchange(completed, next, SeqCst, Relaxed);
            }
            CUresult::ERROR_NOT_READY => return Ok(()),
            status => return Err(status),
        }
    }
}

/// Batches that a lane is ahead of the device, as far as is known; asks first where nobody else tells.
pub(crate) fn ahead(session: &Session, lane: usize) -> u32 {
    if rung::rung() == BACKEND_EVENTS {
        ask(session, lane);
    }
    let seat = session.seat();
    let completed = seat.marks[lane].completed.load(Acquire);
    seat.lanes[lane].submitted.load(Acquire).wrapping_sub(completed)
}

/// The program has looked at the device, and perhaps `waited` for it: where nothing reports, what it had submitted by
/// then counts as done, in whatever stream.
pub(crate) fn looked(session: &Session, waited: bool) {
    let seat = session.seat();
    match rung::rung() {
        BACKEND_EVENTS => lanes::used(seat).for_each(|lane| ask(session, lane)),
        BACKEND_WATCHDOG if waited => lanes::used(seat).for_each(|lane| report_submitted(seat, lane)),
        _ => {}
    }
}

fn report_submitted(seat: &Seat, lane: usize) {
    let submitted = seat.lanes[lane].submitted.load(Acquire);
    seat.marks[lane].completed.store(submitted, Release);
}

/// For the watch: asks about every lane. Whether reports are still due.
pub(crate) fn look(session: &Session) -> bool {
    let seat = session.seat();
    let mut due = false;
    for lane in lanes::used(seat) {
        match rung::rung() {
            BACKEND_EVENTS => {
                ASKING.store(u32::try_from(lane + 1).unwrap_or(0), SeqCst);
                ask(session, lane);
                ASKING.store(0, SeqCst);
            }
            BACKEND_WATCHDOG => grow_old(seat, lane),
            _ => return false,
        }
        due |= seat.lanes[lane].submitted.load(Acquire) != seat.marks[lane].completed.load(Acquire);
    }
    due && rung::rung() == BACKEND_EVENTS
}

fn grow_old(seat: &Seat, lane: usize) {
    let submitted = seat.lanes[lane].submitted.load(Acquire);
    if BEFORE[lane].swap(submitted, Relaxed) != submitted {
        LOOKS[lane].store(0, Relaxed);
    } else if SILENT_LOOKS <= LOOKS[lane].fetch_add(1, Relaxed) {
        report_submitted(seat, lane);
    }
}

/// A context is about to end, and its lanes' events with it.
pub(crate) fn strike_off(session: &Session, context: CUcontext) {
    if rung::rung() != BACKEND_EVENTS {
        return;
    }
    for lane in (0..LANES_MAX).filter(|&lane| lanes::context_of(lane) == context) {
        strike(lane);
        lanes::settle(session.seat(), lane);
    }
}

/// No event was made, in the child of a fork.
pub(crate) fn forget() {
    for (alive, made) in ALIVE.iter().zip(&MADE) {
        alive.store(false, Release);
        made.iter().for_each(|event| event.store(0, Release));
    }
}

/// A lane goes to another context, or its own has ended.
pub(crate) fn strike(lane: usize) {
    if !ALIVE[lane].swap(false, SeqCst) {
        return;
    }
    let asking = || ASKING.load(SeqCst) as usize == lane + 1;
    let start = sys::now_us();
    while asking() && sys::now_us().saturating_sub(start) < GATE_WAIT_US_MAX {
        std::hint::spin_loop();
    }
    for event in &MADE[lane] {
        event.store(0, Release);
    }
}
