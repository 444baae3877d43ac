//! The watch: one thread that opens the gates should the daemon fall silent.
//!
//! The GPU waits at a word in memory, and the program's threads may all be waiting for the GPU inside the
//! driver. If the daemon dies while a gate is closed, nobody else is left to open it. The thread sleeps nearly
//! all the time, makes no driver call while the daemon is alive, and blocks every signal.
#![expect(unsafe_code, reason = "blocks signals around the start of the thread")]

use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Release},
};

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::{FAIL_OPEN, GATE_OPEN_BIT};

use crate::{log, session, sys};

/// How often the thread looks at the heartbeat.
const LOOK_US: u64 = 10_000;

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
    loop {
        sys::sleep_us(LOOK_US);
        let Some(session) = session::seated() else { continue };
        // A daemon that was started again is found here too, for programs that make no calls.
        let renewed = session::require().is_ok_and(|now| !std::ptr::eq(now, session));
        if !renewed && session.stale() && session.fail_policy() == FAIL_OPEN {
            for row in 0..DEVICES_MAX {
                session.seat().gates[row].fetch_or(GATE_OPEN_BIT, AcqRel);
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
