//! The holder's side of calling memory back: what a worker in this process asks and says ([`headgate_abi::ahead`]).
//!
//! A program may find these functions as well. What it says there it says of itself, and to its own tenant.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Release, SeqCst},
};

use headgate_abi::ahead::{ANSWERED, Answered, CALLED, Called, HOLDS, Holds};
use headgate_abi::limits::RECALL_LISTEN_US_MAX;

use crate::boundary::shield;
use crate::session::{self, Session};
use crate::sys;

/// Devices that this process holds something on, a bit each, for a seat to come.
static DEVICES: AtomicU32 = AtomicU32::new(0);

/// The function of a name, if it is one of these.
pub(crate) fn find(name: &CStr) -> Option<*mut c_void> {
    if name == HOLDS {
        Some((holds as Holds) as *mut c_void)
    } else if name == CALLED {
        Some((called as Called) as *mut c_void)
    } else if name == ANSWERED {
        Some((answered as Answered) as *mut c_void)
    } else {
        None
    }
}

extern "C" fn holds(device: c_int, holds: c_uint) -> c_uint {
    shield(0, || {
        let Some(bit) = bit(device) else { return 0 };
        let holds = holds != 0;
        if holds {
            DEVICES.fetch_or(bit, AcqRel);
        } else {
            DEVICES.fetch_and(!bit, AcqRel);
        }
        let placed = session::seated().and_then(|session| Some((session, session.row(device)?)));
        placed.map_or(0, |(session, row)| session.ledger().hold_ahead(session.seat_index(), row, holds))
    })
}

extern "C" fn called(seen: c_uint) -> c_uint {
    shield(seen, || {
        let Some(session) = session::seated() else {
            sys::sleep_us(RECALL_LISTEN_US_MAX);
            return seen;
        };
        let ledger = session.ledger();
        let rung = ledger.recalls().load(SeqCst);
        if ledger.last_recall() == seen {
            sys::futex_wait(ledger.recalls(), rung, RECALL_LISTEN_US_MAX);
        }
        ledger.last_recall()
    })
}

extern "C" fn answered(number: c_uint) {
    shield((), || {
        if let Some(session) = session::seated() {
            session.ledger().answer_recall(session.seat_index(), number);
            sys::futex_wake_all(session.ledger().recall_answers());
        }
    });
}

fn bit(device: c_int) -> Option<u32> {
    1u32.checked_shl(u32::try_from(device).ok()?)
}

/// The process has another seat, which is to say what the one before said.
pub(crate) fn tell(session: &Session) {
    let devices = DEVICES.load(Acquire);
    let held =
        (0..i32::BITS.cast_signed()).filter(|&device| bit(device).is_some_and(|bit| devices & bit != 0));
    for row in held.filter_map(|device| session.row(device)) {
        let _last = session.ledger().hold_ahead(session.seat_index(), row, true);
    }
}

/// Nothing is held in the child of a fork.
pub(crate) fn forget() {
    DEVICES.store(0, Release);
}
