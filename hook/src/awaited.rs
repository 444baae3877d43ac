//! Which device a thread waits for, while it is inside one of the driver's synchronous calls.
//!
//! The daemon reads it in the seat, to tell time that a program waits at a closed gate from time that it waits for the GPU's work.
//! The kernel's probes read it in a register of the call ([`headgate_abi::told`]), to tell a process' GPUs apart.

use std::cell::Cell;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use headgate_abi::segment::layout::AWAITING_ONE;
use headgate_abi::told;

use crate::driver;
use crate::session::{self, Session};

thread_local! {
    /// The word for the device that the thread waits for; zero while it waits for none.
    static WORD: Cell<u64> = const { Cell::new(0) };
}

/// A wait under way; over when it is dropped.
pub(crate) struct Awaited {
    session: &'static Session,
    row: usize,
}

/// A wait for the device of the current context begins. `None` where there is none, or nobody is interested.
pub(crate) fn begin() -> Option<Awaited> {
    let session = session::seated()?;
    if session.is_off() {
        return None;
    }
    let (_, device) = driver::current_context()?;
    let row = session.row(device)?;
    session.seat().waiting[row].fetch_add(AWAITING_ONE, AcqRel);
    WORD.set(told::device_word(row));
    Some(Awaited { session, row })
}

/// What the probes are to find in the call's register.
pub(crate) fn word() -> u64 {
    WORD.get()
}

impl Drop for Awaited {
    fn drop(&mut self) {
        WORD.set(0);
        // A seat that was handed out anew meanwhile has forgotten this thread.
        let _forgotten = self.session.seat().waiting[self.row]
            .fetch_update(AcqRel, Acquire, |threads| threads.checked_sub(AWAITING_ONE));
    }
}
