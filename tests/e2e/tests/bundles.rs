//! Sessions that go over several connections between two daemons: what they gain, that the books stay the same, and breaks.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use headgate_harness::pair::field;
use headgate_harness::relay::Wire;
use headgate_harness::{Node, Pair, PairOptions, Program, eventually, skipped};
use serde_json::Value;

/// Loans take seconds by design, and builds share the machine.
const PATIENCE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
/// Bytes of each copy, and bytes a second that the wire carries of each connection: half a second over one.
const COPY: &str = "8388608";
const WIRE: Wire = Wire { delay: Duration::ZERO, jitter: Duration::ZERO, bytes_per_second: 16_000_000 };

/// Two districts whose wire gives each connection a share, if this machine can have guests.
#[track_caller]
fn pair(test: &str, connections: [u8; 2]) -> Option<Pair> {
    if !headgate_harness::is_root() {
        skipped(test, &"a worker is put into its guest's cgroup, which needs root");
        return None;
    }
    let options = PairOptions { connections, wire: WIRE, ttl_s: 60, ..PairOptions::default() };
    Some(Pair::start(&options).unwrap_or_else(|error| panic!("{error:#}")))
}

/// How many connections a node's one session goes over.
fn connections(node: &Node) -> Option<u64> {
    let status = node.status().ok()?;
    status["sessions"].as_array()?.first()?["connections"].as_u64()
}

fn copies(pair: &Pair) -> Program {
    pair.run(&pair.tenants[0], "app-step", &["--copy", COPY]).unwrap()
}

/// What a session's copies took, in microseconds: to the device and back. What came back was compared by the program.
fn finished(program: Program) -> [f64; 2] {
    let found = program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{error:#}"));
    ["to_device_us", "to_host_us"].map(|way| found[way].as_f64().unwrap())
}

/// Holds the books of both against each other; what they say in the end was carried to the device, and back.
fn books(pair: &Pair) -> [[u64; 4]; 2] {
    for node in [&pair.borrower, &pair.lender] {
        eventually("the session has ended", SOON, || (Pair::lines(node, "ended").len() == 1).then_some(()));
        assert_eq!(Pair::lines(node, "differs"), [""; 0]);
    }
    [(&pair.borrower, &pair.lender), (&pair.lender, &pair.borrower)].map(|(teller, other)| {
        let told = Pair::lines(teller, "told");
        assert_eq!(told, Pair::lines(other, "agreed"));
        let last = told.last().unwrap();
        ["to_device", "from_device", "arguments", "images"].map(|kind| field(last, kind).unwrap())
    })
}

#[test]
fn four_connections_copy_some_times_as_fast_as_one_and_the_books_are_the_same() {
    let mut found = Vec::new();
    for each in [1, 4] {
        let Some(pair) = pair("four_connections_copy", [each, each]) else { return };
        let program = copies(&pair);
        for node in [&pair.borrower, &pair.lender] {
            eventually("it goes over as many as it may", PATIENCE, || {
                connections(node).filter(|count| *count == u64::from(each))
            });
        }
        found.push((finished(program), books(&pair)));
    }
    let [(one, one_counted), (four, four_counted)] = found[..] else { panic!("{found:?}") };
    assert_eq!(one_counted, four_counted, "what was carried, by kind");
    for (way, (one, four)) in ["to the device", "to the host"].into_iter().zip(one.into_iter().zip(four)) {
        let times = one / four;
        assert!(times > 2.5, "{way} {times:.2} times as fast: {one} us over one, {four} us over four");
    }
}

#[test]
fn a_node_that_would_have_one_connection_has_one() {
    for each in [[1, 4], [4, 1]] {
        let Some(pair) = pair("a_node_that_would_have_one", each) else { return };
        let program = copies(&pair);
        let before = pair.wire.carried();
        eventually("it copies", PATIENCE, || (pair.wire.carried() > before + (8 << 20)).then_some(()));
        assert_eq!([&pair.borrower, &pair.lender].map(connections), [Some(1); 2], "{each:?}");
        finished(program);
        books(&pair);
    }
}

#[test]
fn a_cut_of_one_or_all_of_several_connections_is_a_stall_and_the_books_agree() {
    let Some(pair) = pair("a_cut_of_one_or_all", [4, 4]) else { return };
    let program = copies(&pair);
    for all in [true, false, true, false] {
        let several = |node: &Node| connections(node).filter(|count| *count == 4);
        eventually("four are up", PATIENCE, || several(&pair.borrower).and(several(&pair.lender)));
        let before = pair.wire.carried();
        eventually("and carry", PATIENCE, || (pair.wire.carried() > before + 100_000).then_some(()));
        let lost = || -> f64 { metric(&pair.borrower) };
        let before = lost();
        if all {
            pair.wire.cut();
            pair.wire.mend();
        } else {
            // One of the four, and not the daemons' own.
            eventually("one has carried", PATIENCE, || pair.wire.cut_last(1 << 20));
        }
        eventually("the cut is noticed", PATIENCE, || (lost() > before).then_some(()));
    }
    finished(program);
    books(&pair);
    let status: Value = pair.lender.status().unwrap();
    assert_eq!(status["sessions"].as_array().map(Vec::len), Some(0), "{status}");
}

/// How often a session of a node lost what it went over.
fn metric(node: &Node) -> f64 {
    node.metrics().unwrap().sum("headgate_remote_link_losses_total", &["role=\"borrower\""])
}
