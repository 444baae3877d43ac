//! How work is gated in this process, and how its completion is measured: the rungs of a ladder, found by trying.
//!
//! ```text
//! MEMOPS    the GPU waits at the gate and writes its progress
//!    | the driver will not register our page, or has no stream memory operations
//! EVENTS    the program waits at the gate, a millisecond ahead of the GPU at most; events report progress
//!    | the driver will not make, record or ask about events
//! WATCHDOG  the program waits at the gate; a batch counts as done when the program has waited for the device, or has
//!           been silent for a while
//! ```
//!
//! A process goes down a rung when the driver says that it cannot, never because a context has failed, and stays there
//! for good. The seat says which one it is on.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use headgate_abi::cuda::CUresult;
use headgate_abi::segment::layout::{
    BACKEND_EVENTS, BACKEND_HOST, BACKEND_MEMOPS, BACKEND_NONE, BACKEND_WATCHDOG,
};

use crate::session::Session;
use crate::{lanes, log, watch};

static RUNG: AtomicU32 = AtomicU32::new(BACKEND_NONE);

/// The rung this process is on: one of the `BACKEND_` constants, [`BACKEND_NONE`] while nothing has been tried.
#[inline]
pub(crate) fn rung() -> u32 {
    RUNG.load(Acquire)
}

/// The rung works: the seat says so, and the watch starts, for whom there is something to do on every rung.
pub(crate) fn stands(session: &Session, rung: u32) {
    RUNG.store(rung, Release);
    session.seat().gate_backend.store(rung, Release);
    watch::start();
}

/// The gate of a lane is on the host because the operator says so. What the GPU can report it still does.
pub(crate) fn gates_on_host(session: &'static Session, lane: usize, row: usize) {
    if rung() <= BACKEND_MEMOPS && lanes::addresses(session, lane, row).is_some() {
        says(session, BACKEND_HOST);
    }
}

/// The seat is to say this of the top rung: the gate is on the GPU, or on the host.
pub(crate) fn says(session: &Session, backend: u32) {
    let word = &session.seat().gate_backend;
    if word.load(Relaxed) != backend {
        word.store(backend, Release);
    }
}

/// The process has another seat, which is to say what the one before said.
pub(crate) fn tell(session: &Session) {
    if BACKEND_MEMOPS < rung() {
        session.seat().gate_backend.store(rung(), Release);
    }
}

/// The driver has answered a step of a rung with this status. If that says it cannot, rather than that it failed this
/// time, the next rung is tried from now on, and for good.
pub(crate) fn failed(session: &Session, rung: u32, status: CUresult) {
    const CANNOT: [CUresult; 5] = [
        CUresult::ERROR_NOT_SUPPORTED,
        CUresult::ERROR_NOT_FOUND,
        CUresult::ERROR_NOT_PERMITTED,
        CUresult::ERROR_INVALID_VALUE,
        CUresult::ERROR_OPERATING_SYSTEM,
    ];
    if !CANNOT.contains(&status) {
        return;
    }
    let (next, what) = match rung {
        BACKEND_MEMOPS | BACKEND_NONE => (BACKEND_EVENTS, "no stream memory operations"),
        _ => (BACKEND_WATCHDOG, "no events"),
    };
    log::event(format_args!("{what} ({status:?}): work is gated in another way"));
    stands(session, next);
}

/// Nothing has been tried yet, in the child of a fork.
pub(crate) fn forget() {
    RUNG.store(BACKEND_NONE, Release);
}

const _: () = assert!(BACKEND_MEMOPS < BACKEND_EVENTS && BACKEND_EVENTS < BACKEND_WATCHDOG);
