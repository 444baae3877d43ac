//! The loan protocol under simulation: ten thousand seeds, and proof that the oracle would notice.
//!
//! `SEED=7 cargo test -p headgate-quota --test simulation -- --nocapture` replays one seed and prints what happened.
//! `SEEDS=100000` runs more of them, `FIRST=20000` others.

use std::env;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use headgate_quota::loan::flaw::{Flaw, Flaws};
use headgate_quota::sim::{Rule, Stats, Violation, run};

const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs seeds on all processors, until one fails.
fn sweep(seeds: std::ops::Range<u64>, flaws: Flaws) -> (Stats, u64, Option<(u64, Violation)>) {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let results = Mutex::new((Stats::default(), 0, None::<(u64, Violation)>));
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seeds.end <= seed {
                        break;
                    }
                    let outcome = run(seed, flaws, false);
                    let mut results = results.lock().unwrap();
                    results.0 = results.0.plus(outcome.stats);
                    results.1 += 1;
                    if let Some(violation) = outcome.violation {
                        failed.store(true, Ordering::Relaxed);
                        let lowest = results.2.as_ref().is_none_or(|(known, _)| seed < *known);
                        if lowest {
                            results.2 = Some((seed, violation));
                        }
                    }
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn replay(seed: u64) {
    let outcome = run(seed, Flaws::NONE, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{:?}", outcome.stats);
    assert!(outcome.violation.is_none(), "seed {seed}: {}", outcome.violation.unwrap());
}

#[test]
fn every_seed_keeps_every_rule() {
    if let Some(seed) = number("SEED") {
        return replay(seed);
    }
    let first = number("FIRST").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(SEEDS);
    let (stats, ran, failure) = sweep(first..first + count, Flaws::NONE);
    println!("{ran} seeds: {stats:?}");
    if let Some((seed, violation)) = failure {
        let trace = run(seed, Flaws::NONE, true).trace;
        for line in trace.iter().rev().take(60).rev() {
            println!("{line}");
        }
        panic!(
            "{violation}\nreplay it: SEED={seed} cargo test -p headgate-quota --test simulation -- --nocapture"
        );
    }
}
