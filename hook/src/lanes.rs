//! Lanes of this process: who may write which row of the seat.
//!
//! A lane belongs to one thread and one stream. Its thread numbers the batches and enqueues the writes that
//! report them, so reports arrive in order. A lane that is given up while work is under way is an orphan until
//! the GPU has reported its last batch. If that batch was open, nobody will ever have it reported: the lane is abandoned
//! until the batch is past the gate, and what runs of it then counts as done.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use headgate_abi::cuda::types::{CUcontext, CUdeviceptr};
use headgate_abi::limits::LANES_MAX;
use headgate_abi::segment::layout::{BACKEND_MEMOPS, LaneMarks, SEAT_BYTES, Seat};

use crate::session::Session;
use crate::{driver, log, reports, rung, sys};

const FREE: u8 = 0;
const HELD: u8 = 1;
const ORPHAN: u8 = 2;
const ABANDONED: u8 = 3;

static OWNERS: [AtomicU8; LANES_MAX] = [const { AtomicU8::new(FREE) }; LANES_MAX];
static CONTEXTS: [AtomicU64; LANES_MAX] = [const { AtomicU64::new(0) }; LANES_MAX];

/// Address the GPU knows the seat's page by, and for which taking of the seat; zero when not registered.
static PAGE_ADDRESS: AtomicU64 = AtomicU64::new(0);
static PAGE_GENERATION: AtomicU64 = AtomicU64::new(0);
static REGISTERING: AtomicBool = AtomicBool::new(false);

/// Takes a lane for work on a device row in a context. `None` when all are in use.
pub(crate) fn take(session: &Session, row: usize, context: CUcontext) -> Option<usize> {
    let seat = session.seat();
    for (index, owner) in OWNERS.iter().enumerate() {
        let state = owner.load(Acquire);
        let busy = match state {
            FREE => false,
            ORPHAN => !at_rest(seat, index),
            ABANDONED => !past_gate(seat, index),
            _ => true,
        };
        if !busy && owner.compare_exchange(state, HELD, AcqRel, Acquire).is_ok() {
            if state == ABANDONED {
                settle(seat, index);
            }
            if CONTEXTS[index].swap(context.addr() as u64, AcqRel) != context.addr() as u64 {
                reports::strike(index);
            }
            seat.lanes[index].device.store(u32::try_from(row + 1).unwrap_or(0), Release);
            seat.lanes_high.fetch_max(u32::try_from(index + 1).unwrap_or(0), AcqRel);
            return Some(index);
        }
    }
    seat.lanes_refused.fetch_add(1, Relaxed);
    None
}

/// Gives a lane up, with its last batch `open` or closed. It can be taken again once that batch has been reported, or
/// cannot be any more.
pub(crate) fn give_up(lane: usize, open: bool) {
    OWNERS[lane].store(if open { ABANDONED } else { ORPHAN }, Release);
}

/// For the watch: an abandoned batch that is past the gate counts as done.
pub(crate) fn settle_abandoned(seat: &Seat) {
    for lane in used(seat) {
        let abandoned = OWNERS[lane].load(Acquire) == ABANDONED && past_gate(seat, lane);
        if abandoned && OWNERS[lane].compare_exchange(ABANDONED, HELD, AcqRel, Acquire).is_ok() {
            settle(seat, lane);
            OWNERS[lane].store(FREE, Release);
        }
    }
}

/// The context that a lane works in.
pub(crate) fn context_of(lane: usize) -> CUcontext {
    CUcontext::from_addr(usize::try_from(CONTEXTS[lane].load(Acquire)).unwrap_or(0))
}

/// Lanes that have been used.
pub(crate) fn used(seat: &Seat) -> std::ops::Range<usize> {
    0..(seat.lanes_high.load(Acquire) as usize).min(LANES_MAX)
}

fn at_rest(seat: &Seat, lane: usize) -> bool {
    seat.lanes[lane].begun.load(Acquire) == seat.marks[lane].completed.load(Acquire)
}

fn past_gate(seat: &Seat, lane: usize) -> bool {
    seat.lanes[lane].begun.load(Acquire) == seat.marks[lane].started.load(Acquire)
}

/// Whether nothing of this process is on a device row, or held before it.
pub(crate) fn all_at_rest(seat: &Seat, row: usize) -> bool {
    let mut own = used(seat).filter(|&lane| seat.lanes[lane].device.load(Acquire) as usize == row + 1);
    own.all(|lane| at_rest(seat, lane))
}

/// A batch has begun in a lane: the clock of work with the device runs from now, unless it does already, and the daemon
/// hears of work that comes to a device at rest.
#[inline]
pub(crate) fn clock_in(session: &Session, row: usize, lane: Option<usize>) {
    let Some(lane) = lane else { return };
    let seat = session.seat();
    let clock = &seat.busy[row];
    if !clock.runs() {
        clock.begin(sys::now_us());
        session.ring(row);
    } else if seat.lanes[lane].submitted.load(Relaxed) == seat.marks[lane].completed.load(Acquire)
        && others_at_rest(seat, row, lane)
    {
        clock.restart(sys::now_us());
        session.ring(row);
    }
}

fn others_at_rest(seat: &Seat, row: usize, except: usize) -> bool {
    used(seat).all(|lane| {
        lane == except || seat.lanes[lane].device.load(Acquire) as usize != row + 1 || at_rest(seat, lane)
    })
}

/// A context is gone, and with it every report it still owed.
pub(crate) fn end_context(session: &Session, context: CUcontext) {
    let seat = session.seat();
    for (lane, owner) in CONTEXTS.iter().enumerate() {
        if owner.load(Acquire) == context.addr() as u64 {
            settle(seat, lane);
        }
    }
    // The page may have been registered in that context.
    PAGE_ADDRESS.store(0, Release);
}

/// Counts a lane's work as done although the GPU never said so: it failed, or its context is gone.
pub(crate) fn settle(seat: &Seat, lane: usize) {
    let (host, marks) = (&seat.lanes[lane], &seat.marks[lane]);
    let begun = host.begun.load(Acquire);
    host.submitted.store(begun, Release);
    marks.started.store(begun, Release);
    marks.completed.store(begun, Release);
}

/// Where the GPU finds a lane's words.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    /// The gate word of a device row.
    pub(crate) gate: CUdeviceptr,
    /// The lane's `started` word.
    pub(crate) started: CUdeviceptr,
    /// The lane's `completed` word.
    pub(crate) completed: CUdeviceptr,
}

/// The addresses the GPU knows a lane's words by; registers the seat's page when that has not happened yet.
/// `None` when the driver will not have it.
pub(crate) fn addresses(session: &'static Session, lane: usize, row: usize) -> Option<Addresses> {
    use std::mem::offset_of;
    let base = match PAGE_ADDRESS.load(Acquire) {
        0 => register(session)?,
        _ if PAGE_GENERATION.load(Acquire) != session.generation() => register(session)?,
        base => base,
    };
    let marks = base + (offset_of!(Seat, marks) + lane * size_of::<LaneMarks>()) as u64;
    Some(Addresses {
        gate: base + (offset_of!(Seat, gates) + row * size_of::<u32>()) as u64,
        started: marks + offset_of!(LaneMarks, started) as u64,
        completed: marks + offset_of!(LaneMarks, completed) as u64,
    })
}

#[cold]
fn register(session: &'static Session) -> Option<CUdeviceptr> {
    // Whoever loses this race goes without a report once; the next batch finds the page registered.
    if REGISTERING.compare_exchange(false, true, AcqRel, Acquire).is_err() {
        return None;
    }
    let page = std::ptr::from_ref(session.seat()).cast::<u8>().cast_mut();
    let address = driver::register_page(page, SEAT_BYTES);
    REGISTERING.store(false, Release);
    match address {
        Ok(address) => {
            PAGE_GENERATION.store(session.generation(), Release);
            PAGE_ADDRESS.store(address, Release);
            rung::stands(session, BACKEND_MEMOPS);
            Some(address)
        }
        Err(status) => {
            log::event(format_args!("the driver will not register the seat's page: {status:?}"));
            rung::failed(session, BACKEND_MEMOPS, status);
            None
        }
    }
}

/// All lanes are free again, in the child of a fork.
pub(crate) fn forget() {
    for owner in &OWNERS {
        owner.store(FREE, Release);
    }
    PAGE_ADDRESS.store(0, Release);
    REGISTERING.store(false, Release);
    rung::forget();
    reports::forget();
}
