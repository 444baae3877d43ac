//! The loan protocol under simulation: ten thousand seeds, and proof that the oracle would notice.
//!
//! `SEED=7 cargo test -p headgate-quota --test simulation -- --nocapture` replays one seed and prints what happened.
//! `SEEDS=100000` runs more of them, `FIRST=20000` others.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and says what it found")]

use std::env;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use headgate_quota::loan::flaw::{Flaw, Flaws};
use headgate_quota::sim::{Manner, Rule, Stats, Violation, run};

const SEEDS: u64 = 10_000;

/// Seeds that may pass before a missing protection must have been noticed.
const NOTICED_WITHIN: u64 = 4_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What came of many seeds.
#[derive(Default)]
struct Sweep {
    stats: Stats,
    ran: u64,
    failure: Option<(u64, Violation)>,
}

/// Runs seeds on all processors, until one fails.
fn sweep(seeds: Range<u64>, manner: Manner) -> Sweep {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let sweep = Mutex::new(Sweep::default());
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                break;
            }
            let outcome = run(seed, manner);
            let mut sweep = sweep.lock().unwrap();
            sweep.stats = sweep.stats.plus(outcome.stats);
            sweep.ran += 1;
            if let Some(violation) = outcome.violation {
                failed.store(true, Ordering::Relaxed);
                if sweep.failure.as_ref().is_none_or(|(known, _)| seed < *known) {
                    sweep.failure = Some((seed, violation));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(worker);
        }
    });
    sweep.into_inner().unwrap()
}

fn replay(seed: u64) {
    let outcome = run(seed, Manner { trace: true, ..Manner::default() });
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
    let Sweep { stats, ran, failure } = sweep(first..first + count, Manner::default());
    println!("{ran} seeds: {stats:?}");
    if let Some((seed, violation)) = failure {
        let trace = run(seed, Manner { trace: true, ..Manner::default() }).trace;
        for line in &trace[trace.len().saturating_sub(60)..] {
            println!("{line}");
        }
        panic!(
            "{violation}\nreplay it: SEED={seed} cargo test -p headgate-quota --test simulation -- --nocapture"
        );
    }
    // A simulation in which nothing happens proves nothing.
    let rare = [
        ("granted", stats.granted, 5),
        ("renewed", stats.renewed, 10),
        ("called back", stats.noticed, 1),
        ("cut for an express owner", stats.cut, 1),
    ];
    for (what, times, least) in rare {
        assert!(ran * least <= times, "{ran} seeds: {what} {times} times");
    }
    let seen = [
        ("evicted", stats.evicted),
        ("fell silent", stats.silent),
        ("taken up again", stats.resumed),
        ("stale at a device", stats.stale_at_device),
        ("stale at a node", stats.stale_at_node),
        ("fenced", stats.fenced),
    ];
    for (what, times) in seen {
        assert!(0 < times || ran < 1_000, "in {ran} seeds nothing was ever {what}");
    }
}

#[test]
fn every_missing_protection_is_noticed() {
    if number("SEED").is_some() {
        return;
    }
    let mut unnoticed = Vec::new();
    // That a stale order is refused is a rule by itself. That the rule is needed shows when nobody looks at it.
    let blind = [(Flaw::NoFencing, Rule::NothingStale), (Flaw::OldIncarnation, Rule::NothingStale)];
    let cases = Flaw::ALL.map(|flaw| (flaw, None)).into_iter().chain(blind.map(|(f, r)| (f, Some(r))));
    for (flaw, blind_to) in cases {
        let manner = Manner { flaws: Flaws::only(flaw), blind_to, trace: false };
        match sweep(0..NOTICED_WITHIN, manner).failure {
            Some((seed, violation)) => {
                let unseen = blind_to.map_or(String::new(), |rule| format!(", {rule:?} unseen"));
                println!("{flaw:?}{unseen}: {:?}, seed {seed}", violation.rule);
            }
            None => unnoticed.push((flaw, blind_to)),
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed that these are missing: {unnoticed:?}");
}
