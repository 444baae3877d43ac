//! Graphs and captures under a gate: nothing of ours gets into a graph, and a graph's launch waits like any other.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::{Node, NodeOptions, TenantSpec};
use serde_json::json;
use support::Puppet;

fn node(tenants: Vec<TenantSpec>, kernel_us: u64) -> Node {
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "kernels": { "spin": { "base_ns": kernel_us * 1000 } } }));
    Node::start(options).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn nothing_of_ours_is_put_into_a_capture() {
    let node = node(vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)], 10);
    for mut puppet in [Puppet::in_tenant(&node, "review"), Puppet::by_proc_address(&node, "review")] {
        puppet.ready();
        // Batches are under way and have learned to be long.
        puppet.must("launch 500");
        assert_eq!(puppet.must("capture 200"), [200]);
        puppet.must("replay 5");
        puppet.must("launch 7");
        puppet.must("sync");
        assert_eq!(puppet.must("count"), [500 + 5 * 200 + 7]);
    }
}

#[test]
fn a_stream_that_joins_a_capture_with_a_batch_under_way_records_only_what_it_is_given() {
    let node = node(vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)], 10);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    for round in 1..=5_u64 {
        puppet.must("launch 333");
        assert_eq!(puppet.must("capture-join 200"), [200]);
        puppet.must("replay 1");
        puppet.must("launch 10");
        puppet.must("sync");
        assert_eq!(puppet.must("count"), [round * (333 + 200 + 10)]);
    }
}

#[test]
fn the_first_launches_of_a_thread_harm_no_capture_of_another() {
    let node = node(vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)], 10);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    // The first batch of the process: its seat is registered with the driver now, which a capture in global mode forbids
    // every thread.
    assert_eq!(puppet.must("capture-beside 100"), [0]);
    puppet.must("sync");
    assert_eq!(puppet.must("count"), [100]);
    let followed = node.metrics().unwrap().value("headgate_gate_backend", &["backend=\"memops\""]);
    assert_eq!(followed, Some(1.0), "the seat was registered all the same");
}

#[test]
fn launches_of_a_graph_wait_at_the_gate_from_the_first_on() {
    let node = node(vec![TenantSpec::new("review").sm(20).with("mode: hard")], 1_000);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    puppet.must("launch 1");
    puppet.must("sync");
    // Half a second of work, at a fifth of the device. A bucket that was full lets a little of it through.
    assert_eq!(puppet.must("capture 5"), [5]);
    let control = node.device().control();
    control.mark().unwrap();
    puppet.must("replay 100");
    puppet.must("sync");
    let statistics = control.statistics().unwrap();
    let elapsed_ms = statistics["elapsed_ns"].as_u64().unwrap() / 1_000_000;
    assert!(1_800 < elapsed_ms, "500 ms of work took {elapsed_ms} ms at a fifth of the device");
    assert_eq!(puppet.must("count"), [501]);
}
