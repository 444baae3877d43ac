//! The suite on the simulated device: natively, under the hook without limits, under limits, and from afar as far as it
//! travels.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Program, TenantSpec, eventually, skipped};
use support::{PATIENCE, UNIT, conform, native, node, used_bytes};

#[test]
fn the_hook_changes_nothing_without_limits() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let run = |mut command: std::process::Command| {
        let outcome = Program::start("conform", command.arg("transcript")).unwrap().finish(PATIENCE).unwrap();
        assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    };
    let bare = run(native(&node));
    let hooked = run(conform(&node, "alerts"));
    for (line, (without, with)) in bare.lines().zip(hooked.lines()).enumerate() {
        assert_eq!(without, with, "line {line}, natively and under the hook:\n{bare}");
    }
    assert_eq!(bare.lines().count(), hooked.lines().count());
    // What is the same everywhere may be wrong everywhere.
    assert!(bare.contains("answered while locked: false"), "calls wait while the process is locked:\n{bare}");
    assert_eq!(used_bytes(&node, "alerts"), 0);
}

/// Cases of which every call travels.
const TRAVELLING: &[&str] = &[
    "8/a pool keeps what its threshold lets it, and trim lowers it",
    "15/every view shows the same total",
    "host/pinned memory",
    "3/a capture holds what was captured and nothing else",
    "3/misuse of captures has the driver's own codes",
    "copies/rectangles and boxes leave what is beside them alone",
    "copies/pinned memory is read when its stream has come there",
    "memory/mappings side by side are one memory",
    "pointers/what is of no allocation is of no device",
    "contexts/one that was destroyed is so for whoever is in it",
    "contexts/a reset ends the primary one, and the next user makes it anew",
    "code/the linker gives what loads, and says what is wrong",
];

#[test]
fn what_travels_is_seen_the_same_from_afar() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let run = |mut command: std::process::Command| {
        let command = command.arg("transcript").args(TRAVELLING);
        let outcome = Program::start("conform", command).unwrap().finish(PATIENCE).unwrap();
        assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    };
    let here = run(native(&node));
    for transport in [Transport::Unix, Transport::Tcp] {
        let worker = Worker::in_tenant(&node, "alerts", transport).unwrap();
        let there = run(worker.command(support::program()).unwrap());
        assert_eq!(here, there, "natively and over {transport:?}");
    }
}

#[test]
fn exactly_what_does_not_fit_is_refused() {
    let node = node(vec![TenantSpec::new("alerts").memory("256Mi")]);
    let outcome = Program::start("conform", conform(&node, "alerts").arg("limits")).unwrap();
    let outcome = outcome.finish(PATIENCE).unwrap();
    assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
    for line in outcome.stdout.lines().filter_map(|line| line.strip_prefix("SKIPPED: ")) {
        skipped("exactly_what_does_not_fit_is_refused", &line);
    }
    assert_eq!(used_bytes(&node, "alerts"), 0);
}

#[test]
fn what_is_checkpointed_is_charged_to_nobody_and_fits_again_or_stays_away() {
    let node = node(vec![TenantSpec::new("alerts").memory("256Mi")]);
    let start = |words: [&str; 2]| {
        let mut command = conform(&node, "alerts");
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, orders, lines.map(Result::unwrap))
    };
    let (mut first, mut orders, mut said) = start(["aside", "64"]);
    assert_eq!(said.next().unwrap(), "aside");
    assert_eq!(used_bytes(&node, "alerts"), 0, "the quota is another's to use");
    let (mut second, holds, mut told) = start(["hog", "1"]);
    let took = told.next().unwrap();
    let units: u64 = took.strip_prefix("took ").unwrap().parse().unwrap();
    assert!(units > 64, "{took}");
    writeln!(orders, "restore").unwrap();
    assert_eq!(said.next().unwrap(), "2", "no room is what it is told, and it may try again");
    drop(holds);
    assert!(second.wait().unwrap().success());
    // What an ended process was charged with comes back when the daemon has seen its end.
    eventually("the quota is free", PATIENCE, || (used_bytes(&node, "alerts") == 0).then_some(()));
    writeln!(orders, "restore").unwrap();
    assert_eq!(said.next().unwrap(), "0");
    let charged = || (used_bytes(&node, "alerts") >= 64 * UNIT).then_some(());
    eventually("what came back is charged", PATIENCE, charged);
    writeln!(orders, "look").unwrap();
    assert_eq!(said.next().unwrap(), "true", "the bytes are what they were");
    assert!(first.wait().unwrap().success());
    eventually("and nothing is left", PATIENCE, || (used_bytes(&node, "alerts") == 0).then_some(()));
}

#[test]
fn random_operations_leave_no_drift() {
    let node = node(vec![TenantSpec::new("alerts").memory("128Mi")]);
    let operations = std::env::var("OPERATIONS").unwrap_or_else(|_| "2000".into());
    for seed in ["1", "2", "3"] {
        let mut command = conform(&node, "alerts");
        let churn = Program::start("conform", command.args(["churn", &operations, seed])).unwrap();
        let outcome = churn.finish(PATIENCE).unwrap();
        assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
        assert_eq!(used_bytes(&node, "alerts"), 0);
    }
}

#[test]
fn a_driver_that_fails_leaves_the_books_as_they_were() {
    const FAULT: u32 = 719;
    let node = node(vec![TenantSpec::new("alerts").memory("256Mi")]);
    let mut command = conform(&node, "alerts");
    let mut child = command.arg("faults").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next() {
        let line = line.unwrap();
        let (family, call) = line.split_once('\t').unwrap();
        node.device().control().inject_fault(call, FAULT, 1, None).unwrap();
        writeln!(orders, "go").unwrap();
        let answer = lines.next().unwrap().unwrap();
        assert_eq!(answer, format!("{FAULT} 0"), "{family}: the driver's own code, and nothing charged");
    }
    assert!(child.wait().unwrap().success());
}
