//! The watch: one thread that opens the gates should the daemon fall silent.
//!
//! The GPU waits at a word in memory, and the program's threads may all be waiting for the GPU inside the
//! driver. If the daemon dies while a gate is closed, nobody else is left to open it. The thread sleeps nearly
//! all the time and blocks every signal. It makes no driver call while the daemon is alive, except where completion can
//! only be asked for ([`reports`]).
#![expect(unsafe_code, reason = "blocks signals around the start of the thread")]

use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Release},
};

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::{BACKEND_EVENTS, BACKEND_WATCHDOG, FAIL_OPEN, GATE_OPEN_BIT};

use crate::{lanes, log, reports, rung, session, sys};

/// How often the thread looks at the heartbeat.
const LOOK_US: u64 = 10_000;
/// How often it asks for reports of completion that the GPU does not write by itself, while some are due.
const REPORTS_US: u64 = 500;

static WATCHING: AtomicBool = AtomicBool::new(false);

/// Starts the thread unless it runs.
pub(crate) fn start() {
    if WATCHING.swap(true, AcqRel) {
        return;
    }
    // A new thread inherits the mask of its maker: with all signals blocked, the program's handlers never run
    // on a thread it does not know.
    let mut before = empty_set();
    let all = full_set();
    // SAFETY: both sets are valid; the mask is put back below.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    let started =
        std::thread::Builder::new().name("headgate-watch".into()).stack_size(128 << 10).spawn(watch);
    // SAFETY: puts back the mask that was found.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    if let Err(error) = started {
        WATCHING.store(false, Release);
        log::event(format_args!("cannot watch the daemon: {error}"));
    }
}

/// No thread runs, in the child of a fork.
pub(crate) fn forget() {
    WATCHING.store(false, Release);
}

fn watch() {
    let (mut due, mut slept_us) = (false, 0);
    loop {
        let span = if due { REPORTS_US } else { LOOK_US };
        sys::sleep_us(span);
        let Some(session) = session::seated() else { continue };
        slept_us += span;
        if rung::rung() == BACKEND_EVENTS {
            due = reports::look(session);
        }
        if slept_us < LOOK_US {
            continue;
        }
        slept_us = 0;
        lanes::settle_abandoned(session.seat());
        if rung::rung() == BACKEND_WATCHDOG {
            reports::look(session);
        }
        // A daemon that was started again is found here too, for programs that make no calls.
        let renewed = session::require().is_ok_and(|now| !std::ptr::eq(now, session));
        if !renewed && session.abandoned() && session.fail_policy() == FAIL_OPEN {
            let seat = session.seat();
            let shut = |row: usize| seat.gates[row].fetch_or(GATE_OPEN_BIT, AcqRel) & GATE_OPEN_BIT == 0;
            let opened = (0..DEVICES_MAX).filter(|&row| shut(row)).count();
            if opened != 0 {
                session.count_open();
            }
        }
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid value to be overwritten.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writing.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn full_set() -> libc::sigset_t {
    let mut set = empty_set();
    // SAFETY: `set` is valid for writing.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}
