//! The last step before an allocation is refused for quota: what other processes of the tenant have taken ahead of its use is
//! called back, and the reservation is tried again as it comes.
//!
//! A tenant in which nobody holds such memory pays a look at its seats, and nothing is said or waited for. Nothing is held
//! across the wait, no driver call is made, and whoever waits is waited for by nobody ([`headgate_abi::segment::recall`]).

use headgate_abi::limits::RECALL_WAIT_MS_MAX;
use headgate_abi::segment::Refusal;

use crate::session::Session;
use crate::{log, sys};

/// A thread that waits for answers; no longer when this is dropped.
struct Waiting<'a>(&'a Session);

impl<'a> Waiting<'a> {
    fn start(session: &'a Session) -> Self {
        session.ledger().start_waiting(session.seat_index());
        // Whoever waits for this process looks again.
        rouse(session);
        Self(session)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.ledger().stop_waiting(self.0.seat_index());
    }
}

fn rouse(session: &Session) {
    sys::futex_wake_all(session.ledger().recall_answers());
}

/// Tries a reservation of so many bytes that was refused again, after others of the tenant were asked to give back what they have
/// taken ahead on a device row. `Err` is the last refusal; refusals are not counted here.
#[cold]
pub(crate) fn retry<T>(
    session: &Session,
    row: usize,
    bytes: u64,
    mut attempt: impl FnMut() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let (ledger, own) = (session.ledger(), session.seat_index());
    let began_us = sys::now_us();
    let hopeless = session.memory_limit(row) < bytes;
    let call = if hopeless { None } else { ledger.call_back(own, row, began_us) };
    let Some(call) = call else { return attempt() };
    if call.made {
        sys::futex_wake_all(ledger.recalls());
    }
    let waiting = Waiting::start(session);
    let wait_us = u64::from(RECALL_WAIT_MS_MAX) * 1_000;
    let outcome = loop {
        let answers = ledger.recall_answers().load(std::sync::atomic::Ordering::SeqCst);
        let owed = ledger.owes_answer(own, row, call.number);
        match attempt() {
            Err(refusal) => {
                let left_us = wait_us.saturating_sub(sys::now_us().saturating_sub(began_us));
                if !owed || left_us == 0 {
                    break Err(refusal);
                }
                sys::futex_wait(ledger.recall_answers(), answers, left_us);
            }
            found => break found,
        }
    };
    drop(waiting);
    let ending = if outcome.is_ok() { "found" } else { "refused all the same" };
    log::event(format_args!("memory taken ahead was called back, call {}: {ending}", call.number));
    outcome
}
