//! Launches that are not like the others, under a gate.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, quiet};
use serde_json::json;
use support::{Puppet, SOON, device_row};

/// One at a time: beside the three hundred threads of one test, the other's share says little.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node with kernels of 100 us.
fn node_of(tenants: Vec<TenantSpec>) -> Node {
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "kernels": { "spin": { "base_ns": 100_000 } } }));
    Node::start(options).unwrap_or_else(|error| panic!("{error:#}"))
}

/// What a program has of the device while it launches this many kernels, in percent.
fn share(node: &Node, puppet: &mut Puppet, launches: u64) -> f64 {
    let control = node.device().control();
    control.mark().unwrap();
    puppet.must(&format!("launch {launches}"));
    puppet.must("sync");
    let statistics = control.statistics().unwrap();
    let own = statistics["processes"].as_array().unwrap().iter().find(|row| row["pid"] == puppet.pid());
    own.unwrap()["busy_ns"].as_f64().unwrap() * 100.0 / statistics["elapsed_ns"].as_f64().unwrap()
}

#[test]
fn threads_that_stop_in_the_middle_of_a_batch_cost_the_others_nothing() {
    let _turn = alone();
    let tenants = ["review", "fresh"].map(|name| TenantSpec::new(name).sm(10).with("mode: hard"));
    let node = node_of(tenants.to_vec());
    let [mut puppet, mut fresh] = ["review", "fresh"].map(|tenant| Puppet::in_tenant(&node, tenant));
    puppet.ready();
    fresh.ready();
    // More than a batch, and no whole number of batches.
    puppet.must("threads stay 4 31");
    puppet.must("threads leave 4 31");
    for program in [&mut puppet, &mut fresh] {
        program.must("launch 100");
        program.must("sync");
    }
    // What a tenth comes to depends on the machine's other work; a program without such threads says what that is.
    quiet::holds("a tenth with such threads and without", || {
        let [with, without] = [&mut puppet, &mut fresh].map(|program| share(&node, program, 2_000));
        assert!(with < 12.0, "a tenth came out as {with:.1} %");
        if without * 0.85 <= with { Ok(()) } else { Err((with, without)) }
    });
}

#[test]
fn lanes_come_back_from_threads_that_end_and_stay_when_others_streams_end() {
    let _turn = alone();
    let node = node_of(vec![TenantSpec::new("review").sm(50)]);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    // Each second thread, and round, launches one more.
    const ALL: u64 = 300 * 7 + 150 + 300 * 3 + 150 + 10;
    puppet.must("threads leave 300 7");
    puppet.must("threads beside 300 3");
    puppet.must("launch 10");
    puppet.must("sync");
    assert_eq!(puppet.must("count"), [ALL]);
    eventually("every launch is counted, those of batches that were left open as well", SOON, || {
        (device_row(&node, "review")["launches"] == ALL).then_some(())
    });
    let refused = node.metrics().unwrap().value("headgate_lanes_refused_total", &["tenant=\"review\""]);
    assert_eq!(refused, Some(0.0));
}

#[test]
fn launches_that_overlap_the_one_before_keep_their_overlap() {
    let _turn = alone();
    let tenants = vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)];
    let mut options = NodeOptions::simulated(tenants);
    options.device =
        Some(json!({ "kernels": { "spin": { "base_ns": 2_000_000, "prologue_ns": 1_000_000 } } }));
    let node = Node::start(options).unwrap_or_else(|error| panic!("{error:#}"));
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    puppet.must("launch 1");
    puppet.must("dependent 100");
    puppet.must("sync");
    assert_eq!(puppet.must("count"), [101]);
    let statistics = node.device().control().statistics().unwrap();
    let rows = statistics["processes"].as_array().unwrap().iter();
    let overlapped: u64 =
        rows.filter(|row| row["pid"] == puppet.pid()).map(|row| row["overlapped"].as_u64().unwrap()).sum();
    // The report of the ordinary launch's batch may stand before the first of them; nothing stands between them.
    assert!(99 <= overlapped, "{overlapped} of 100 overlapped");
    assert_eq!(device_row(&node, "review")["launches"], 101);
}
