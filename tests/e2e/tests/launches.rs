//! Launches that are not like the others, under a gate.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::{Node, NodeOptions, TenantSpec};
use serde_json::json;
use support::{Puppet, device_row};

#[test]
fn launches_that_overlap_the_one_before_keep_their_overlap() {
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
