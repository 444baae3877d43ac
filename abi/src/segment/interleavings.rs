//! The protocol of a charge under every order of its steps, and with processes that die between any two of them.
//!
//! Run by `cargo xtask loom`. That the laws bite was tried by breaking the protocol, and each of these failed: a charge
//! that adds instead of comparing, a credit that loads and stores, an update that does not say it has begun, a repair
//! that does not look twice, that writes what it counted instead of the difference, or that is left out.

use std::sync::atomic::Ordering::Acquire;

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::layout::UNLIMITED;
use super::map::LedgerSegment;
use super::sync::{Killed, mortal};
use super::{Ledger, SeatIndex};

/// Switches from one runnable thread to another in one run. More find nothing new here and take hours.
const PREEMPTIONS_MAX: usize = 3;
/// More operations than a charge followed by a credit has.
const STEPS_MAX: usize = 16;

fn check(law: impl Fn() + Send + Sync + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(law);
}

fn ledger() -> Arc<Ledger> {
    let (segment, ()) = LedgerSegment::create().unwrap();
    Arc::new(Ledger::new(segment))
}

fn charged(ledger: &Ledger, seat: SeatIndex) -> u64 {
    ledger.seat(seat).charged_bytes[0].load(Acquire)
}

#[test]
fn the_last_bytes_go_to_one_and_the_limit_is_never_passed() {
    check(|| {
        let ledger = ledger();
        let racers: Vec<_> = (1..=2)
            .map(|pid| {
                let (ledger, seat) = (ledger.clone(), ledger.take_seat(pid, 1).unwrap());
                thread::spawn(move || ledger.try_charge(seat, 0, 6, 10).is_ok())
            })
            .collect();
        assert!(ledger.used_bytes(0) <= 10, "over the limit for a moment");
        let winners = racers.into_iter().map(|racer| racer.join().unwrap());
        assert_eq!(winners.filter(|won| *won).count(), 1);
        assert_eq!(ledger.used_bytes(0), 6);
    });
}

#[test]
fn nobody_is_denied_what_fits() {
    check(|| {
        let ledger = ledger();
        let racers: Vec<_> = (1..=2)
            .map(|pid| {
                let (ledger, seat) = (ledger.clone(), ledger.take_seat(pid, 1).unwrap());
                thread::spawn(move || {
                    let first = ledger.try_charge(seat, 0, 5, 10).expect("5 of 10, twice, fits");
                    ledger.credit(seat, first);
                })
            })
            .collect();
        racers.into_iter().for_each(|racer| racer.join().unwrap());
        assert_eq!(ledger.used_bytes(0), 0, "a charge was lost, or a credit");
    });
}

#[test]
fn threads_of_one_process_share_its_seat() {
    check(|| {
        let ledger = ledger();
        let seat = ledger.take_seat(1, 1).unwrap();
        let other = {
            let ledger = ledger.clone();
            thread::spawn(move || ledger.try_charge(seat, 0, 5, 10).map(drop).unwrap())
        };
        let mine = ledger.try_charge(seat, 0, 3, 10).unwrap();
        ledger.credit(seat, mine);
        other.join().unwrap();
        assert_eq!((ledger.used_bytes(0), charged(&ledger, seat)), (5, 5));
        assert!(ledger.recount());
        assert_eq!(ledger.used_bytes(0), 5);
    });
}

#[test]
fn a_recount_changes_nothing_while_others_charge_and_give_back() {
    check(|| {
        let ledger = ledger();
        let seat = ledger.take_seat(1, 1).unwrap();
        let busy = {
            let ledger = ledger.clone();
            thread::spawn(move || {
                let passing = ledger.try_charge(seat, 0, 5, 10).unwrap();
                ledger.credit(seat, passing);
                ledger.try_charge(seat, 0, 7, 10).map(drop).expect("7 of 10 is free");
            })
        };
        // Whether it finds a quiet moment or not.
        let _found = ledger.recount();
        busy.join().unwrap();
        assert_eq!((ledger.used_bytes(0), charged(&ledger, seat)), (7, 7));
    });
}

/// A process charges and gives back until it is killed; another works on meanwhile, and the daemon repairs.
fn killed_at(steps: usize) {
    check(move || {
        let ledger = ledger();
        let (dying, alive) = (ledger.take_seat(1, 1).unwrap(), ledger.take_seat(2, 1).unwrap());
        let victim = {
            let ledger = ledger.clone();
            thread::spawn(move || {
                mortal(steps, || {
                    let charge = ledger.try_charge(dying, 0, 4, 10).expect("4 of 10, with 5 taken at most");
                    ledger.credit(dying, charge);
                })
            })
        };
        let survivor = {
            let ledger = ledger.clone();
            thread::spawn(move || {
                ledger.try_charge(alive, 0, 5, 10).map(drop).expect("5 of 10, with 4 taken at most")
            })
        };
        // The daemon hears of a death only after it.
        let fate = victim.join().unwrap();
        assert!(fate == Err(Killed) || fate == Ok(()));
        let exact = ledger.reap(dying);
        assert!(ledger.used_bytes(0) <= 10);
        survivor.join().unwrap();
        if !exact {
            assert!(ledger.recount(), "nobody moves any more");
        }
        assert_eq!((ledger.used_bytes(0), charged(&ledger, alive)), (5, 5), "killed before step {steps}");
    });
}

#[test]
fn a_death_between_any_two_steps_leaves_the_total_exact() {
    (0..STEPS_MAX).for_each(killed_at);
}

#[test]
fn a_seat_taken_back_starts_from_nothing() {
    check(|| {
        let ledger = ledger();
        let (dying, alive) = (ledger.take_seat(1, 1).unwrap(), ledger.take_seat(2, 1).unwrap());
        let _lost = mortal(3, || ledger.try_charge(dying, 0, 4, UNLIMITED));
        let survivor = {
            let ledger = ledger.clone();
            thread::spawn(move || ledger.try_charge(alive, 0, 5, 10).map(drop).unwrap())
        };
        let exact = ledger.reap(dying);
        let next = ledger.take_seat(3, 2).unwrap();
        assert_eq!(next, dying);
        let _held = ledger.try_charge(next, 0, 1, 10).expect("1 of 10, with 9 taken at most");
        survivor.join().unwrap();
        assert!(exact || ledger.recount());
        assert_eq!(ledger.used_bytes(0), 6);
    });
}
