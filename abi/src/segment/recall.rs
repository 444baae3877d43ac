//! The protocol of calling memory back that a process of the tenant has taken ahead of its use.
//!
//! ```text
//! refused                                      holder (a worker)
//!   any other seat that holds? no -> refused     holds: its last answer := recalls, its bit set, then it allocates
//!   recalls += 1, at most every 100 ms  ------>  gives back what nothing is in
//!   waits for the answers, tries again  <------  its last answer := recalls, recall_answers += 1
//! ```
//!
//! Whoever is refused while a call is under way shares it. Waited for are seats that have answered the call before and do not
//! wait themselves: one that has not costs its tenant one wait, not one for each refusal, until it answers again; and two
//! that are refused at once do not wait for each other.
//!
//! Everything here is written by processes of one tenant. Whoever scribbles there delays refusals of its own tenant, within
//! the bound.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};

use super::layout::{SEAT_TAKEN, Seat};
use super::ledger::{Ledger, SeatIndex};
use super::sync::AtomicU32;
use crate::limits::{RECALL_PERIOD_MS, RECALL_WAIT_MS_MAX};

/// A call that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Which.
    pub number: u32,
    /// Whether the holders are still to be woken.
    pub made: bool,
}

impl Ledger {
    /// The word that holders wait on.
    #[must_use]
    pub fn recalls(&self) -> &AtomicU32 {
        &self.segment().header().recalls
    }

    /// The word that the refused wait on.
    #[must_use]
    pub fn recall_answers(&self) -> &AtomicU32 {
        &self.segment().header().recall_answers
    }

    /// Number of the last call.
    #[must_use]
    pub fn last_recall(&self) -> u32 {
        low(self.segment().header().recall.load(SeqCst))
    }

    /// A seat holds something on a device row, or nothing more. The number of the last call: only later ones concern it, if it held
    /// nothing before. Said before the memory is taken, so that nobody is refused in between.
    pub fn hold_ahead(&self, seat: SeatIndex, device: usize, holds: bool) -> u32 {
        let (row, bit) = (self.seat(seat), bit(device));
        if !holds {
            row.ahead_rows.fetch_and(!bit, SeqCst);
        } else if row.ahead_rows.load(Acquire) == 0 {
            row.recalled.store(self.last_recall(), Release);
            row.ahead_rows.fetch_or(bit, SeqCst);
        } else {
            row.ahead_rows.fetch_or(bit, SeqCst);
        }
        row.recalled.load(Acquire)
    }

    /// A seat has given back what it could. Whoever waits is still to be woken.
    pub fn answer_recall(&self, seat: SeatIndex, number: u32) {
        self.seat(seat).recalled.store(number, Release);
        self.recall_answers().fetch_add(1, SeqCst);
    }

    /// Calls back what others hold on a device row, or joins the call under way. `None` where nobody is to be waited for:
    /// nobody holds anything, or what was unused was given back a moment ago.
    #[must_use]
    pub fn call_back(&self, own: SeatIndex, device: usize, now_us: u64) -> Option<Call> {
        if !self.others(own, device).any(|_| true) {
            return None;
        }
        let word = &self.segment().header().recall;
        let (last, now_ms) = (word.load(SeqCst), low(now_us / 1_000));
        let (number, then_ms) = (low(last), low(last >> 32));
        // Another thread may have read the clock later than this one.
        let ago_ms = now_ms.wrapping_sub(then_ms).cast_signed().unsigned_abs();
        if last != 0 && ago_ms < RECALL_WAIT_MS_MAX && self.owes_answer(own, device, number) {
            return Some(Call { number, made: false });
        }
        if last != 0 && ago_ms < RECALL_PERIOD_MS {
            return None;
        }
        let number = number.wrapping_add(1);
        let made = word.compare_exchange(last, u64::from(now_ms) << 32 | u64::from(number), SeqCst, SeqCst);
        match made {
            Ok(_) => {
                self.recalls().store(number, SeqCst);
                Some(Call { number, made: true })
            }
            // Somebody else has, just now.
            Err(other) => Some(Call { number: low(other), made: false }),
        }
    }

    /// Whether a seat that holds something on a device row will answer a call, and has not yet.
    #[must_use]
    pub fn owes_answer(&self, own: SeatIndex, device: usize, number: u32) -> bool {
        self.others(own, device).any(|seat| {
            seat.recalled.load(Acquire) == number.wrapping_sub(1) && seat.recalling.load(Acquire) == 0
        })
    }

    fn others(&self, own: SeatIndex, device: usize) -> impl Iterator<Item = &Seat> + '_ {
        let own = self.seat(own);
        // The own seat is live whatever its word says: it asks.
        let holds = move |seat: &&Seat| {
            !std::ptr::eq(*seat, own)
                && seat.ahead_rows.load(SeqCst) & bit(device) != 0
                && seat.state.load(Acquire) == SEAT_TAKEN
        };
        self.live().filter(holds)
    }

    /// A thread of a seat waits for answers until [`Ledger::stop_waiting`]. Whoever waits for this seat's answer does so no more, once
    /// woken.
    pub fn start_waiting(&self, seat: SeatIndex) {
        self.seat(seat).recalling.fetch_add(1, SeqCst);
        self.recall_answers().fetch_add(1, SeqCst);
    }

    /// It waits no more.
    pub fn stop_waiting(&self, seat: SeatIndex) {
        // A seat that was handed out anew meanwhile has forgotten this thread.
        let _forgotten =
            self.seat(seat).recalling.fetch_update(AcqRel, Acquire, |threads| threads.checked_sub(1));
    }
}

/// The lower half.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

fn bit(device: usize) -> u32 {
    u32::try_from(device).ok().and_then(|device| 1u32.checked_shl(device)).unwrap_or(0)
}

#[cfg(test)]
#[cfg(not(all(test, loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::map::LedgerSegment;

    const WAIT: u64 = RECALL_WAIT_MS_MAX as u64 * 1_000;
    const PERIOD: u64 = RECALL_PERIOD_MS as u64 * 1_000;
    const LATER: u64 = 10 * WAIT;

    fn ledger<const N: usize>() -> (Ledger, [SeatIndex; N]) {
        let ledger = Ledger::new(LedgerSegment::create().unwrap().0);
        let seats = std::array::from_fn(|pid| ledger.take_seat(u32::try_from(pid).unwrap() + 1, 1).unwrap());
        (ledger, seats)
    }

    #[test]
    fn nobody_is_called_where_nobody_else_holds_anything_on_the_device() {
        let (ledger, [own, other]) = ledger();
        assert_eq!(ledger.call_back(own, 0, LATER), None);
        ledger.hold_ahead(own, 0, true);
        ledger.hold_ahead(other, 1, true);
        assert_eq!(ledger.call_back(own, 0, LATER), None, "its own, and another device's");
        ledger.hold_ahead(other, 0, true);
        assert_eq!(ledger.call_back(own, 0, LATER), Some(Call { number: 1, made: true }));
        ledger.hold_ahead(other, 0, false);
        assert_eq!(ledger.call_back(own, 0, 2 * LATER), None, "it holds nothing more");
        ledger.hold_ahead(other, 0, true);
        ledger.reap(other);
        assert_eq!(ledger.call_back(own, 0, 2 * LATER), None, "it is gone, and what it held");
        let next = ledger.take_seat(9, 2).unwrap();
        assert_eq!((next, ledger.seat(next).ahead_rows.load(Acquire)), (other, 0), "its seat is empty");
    }

    #[test]
    fn calls_are_shared_while_they_are_under_way_and_rare_after() {
        let (ledger, [own, third, holder]) = ledger();
        assert_eq!(ledger.hold_ahead(holder, 0, true), 0);
        let call = ledger.call_back(own, 0, LATER).unwrap();
        assert!(call.made && ledger.owes_answer(own, 0, call.number));
        let shared = ledger.call_back(third, 0, LATER + 2 * PERIOD).unwrap();
        assert_eq!(shared, Call { made: false, ..call }, "a slow answer is waited for, not asked for again");
        ledger.answer_recall(holder, call.number);
        assert!(!ledger.owes_answer(own, 0, call.number));
        assert_eq!(ledger.recall_answers().load(Acquire), 1);
        let soon = LATER + PERIOD - 1_000;
        assert_eq!(ledger.call_back(third, 0, soon), None, "what was unused was given back just now");
        assert_eq!(ledger.call_back(third, 0, soon + 1_000), Some(Call { number: 2, made: true }));
    }

    #[test]
    fn whoever_does_not_answer_is_waited_for_once() {
        let (ledger, [own, holder, newcomer]) = ledger();
        ledger.hold_ahead(holder, 0, true);
        let call = ledger.call_back(own, 0, LATER).unwrap();
        assert!(ledger.owes_answer(own, 0, call.number));
        let next = ledger.call_back(own, 0, LATER + WAIT).unwrap();
        assert!(next.made && !ledger.owes_answer(own, 0, next.number), "it had its time");
        assert_eq!(ledger.hold_ahead(newcomer, 0, true), next.number, "what was called before is not its");
        let third = ledger.call_back(own, 0, LATER + 3 * WAIT).unwrap();
        assert!(ledger.owes_answer(own, 0, third.number), "the newcomer's");
        ledger.answer_recall(newcomer, third.number);
        assert!(!ledger.owes_answer(own, 0, third.number));
        ledger.answer_recall(holder, third.number);
        let fourth = ledger.call_back(own, 0, LATER + 5 * WAIT).unwrap();
        assert!(ledger.owes_answer(own, 0, fourth.number), "it lives again");
        assert_eq!(ledger.hold_ahead(holder, 1, true), third.number, "what it owes it owes still");
    }

    #[test]
    fn two_that_are_refused_at_once_do_not_wait_for_each_other() {
        let (ledger, [one, other]) = ledger();
        for seat in [one, other] {
            ledger.hold_ahead(seat, 0, true);
            ledger.start_waiting(seat);
        }
        let call = ledger.call_back(one, 0, LATER).unwrap();
        assert!(!ledger.owes_answer(one, 0, call.number));
        ledger.stop_waiting(other);
        assert!(ledger.owes_answer(one, 0, call.number), "it can answer now");
        ledger.stop_waiting(other);
        assert_eq!(ledger.seat(other).recalling.load(Acquire), 0, "never below nobody");
    }

    #[test]
    fn of_many_that_are_refused_at_once_one_calls() {
        let (ledger, [own, holder]) = ledger();
        ledger.hold_ahead(holder, 0, true);
        let calls: Vec<Call> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| ledger.call_back(own, 0, LATER).unwrap());
            let asked: Vec<_> = (0..8).map(|_| ask()).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let made = calls.iter().filter(|call| call.made).count();
        assert!(made == 1 && calls.iter().all(|call| call.number == 1), "{calls:?}");
        assert_eq!(ledger.recalls().load(Acquire), 1);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Hold(usize, bool),
        Refused(usize, u64),
        Answer(usize),
        Die(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..4, any::<bool>()).prop_map(|(seat, holds)| Step::Hold(seat, holds)),
            (0usize..4, 1..2 * WAIT).prop_map(|(seat, later)| Step::Refused(seat, later)),
            (0usize..4).prop_map(Step::Answer),
            (0usize..4).prop_map(Step::Die),
        ]
    }

    proptest! {
        /// Never two calls within a period; and after everybody has answered nobody is waited for.
        #[test]
        fn calls_are_bounded_and_end(steps in proptest::collection::vec(step(), 0..100)) {
            let (ledger, seats) = ledger::<4>();
            let (mut now, mut called) = (LATER, None::<u64>);
            for step in steps {
                match step {
                    Step::Hold(seat, holds) => drop(ledger.hold_ahead(seats[seat], 0, holds)),
                    Step::Refused(seat, later) => {
                        now += later;
                        let call = ledger.call_back(seats[seat], 0, now);
                        if call.is_some_and(|call| call.made) {
                            prop_assert!(called.is_none_or(|before| now / 1_000 - before / 1_000 >= PERIOD / 1_000));
                            called = Some(now);
                        }
                    }
                    Step::Answer(seat) => ledger.answer_recall(seats[seat], ledger.recalls().load(Acquire)),
                    Step::Die(seat) => {
                        ledger.reap(seats[seat]);
                        ledger.take_this_seat(seats[seat], 1, 1);
                    }
                }
            }
            for seat in seats {
                ledger.answer_recall(seat, ledger.recalls().load(Acquire));
            }
            for seat in seats {
                prop_assert!(!ledger.owes_answer(seat, 0, ledger.recalls().load(Acquire)));
            }
        }

        #[test]
        fn scribbled_words_do_no_harm(words in any::<[u32; 4]>(), time: u64, now: u64, device in 0usize..16) {
            let (ledger, [own, other]) = ledger();
            let seat = ledger.seat(other);
            for (word, value) in [&seat.ahead_rows, &seat.recalled, &seat.recalling].into_iter().zip(words) {
                word.store(value, Release);
            }
            ledger.recalls().store(words[3], Release);
            ledger.segment().header().recall.store(time, Release);
            let _any = ledger.call_back(own, device, now);
            ledger.start_waiting(other);
            ledger.stop_waiting(other);
        }
    }
}
