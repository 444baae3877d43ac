//! The ladder of gates: what a driver cannot do is done in another way, and everybody is told which.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually};
use serde_json::json;
use support::{Puppet, SOON, device_row, node_of, tenant_row};

/// What a driver without stream memory operations lacks.
const MEMORY_OPERATIONS: [&str; 3] = ["cuStreamBatchMemOp", "cuStreamWaitValue", "cuStreamWriteValue"];
/// Where the gate is, as the configuration says it.
const ON_DEVICE: &str = "gpus: { \"*\": { gate: device } }";
const ON_HOST: &str = "gpus: { \"*\": { gate: host } }";
/// Launches of 100 us: two tenths of a second of the whole device, two seconds of a tenth of it.
const LAUNCHES: u64 = 2_000;

/// A node whose driver lacks these entry points and whose configuration says this as well, with one tenant that may have a
/// tenth of the device.
fn node_without(lacks: &[&str], spec: &str) -> Node {
    let tenant = TenantSpec::new("review").sm(10).with("mode: hard");
    let mut options = NodeOptions::simulated(vec![tenant]);
    options.device = Some(json!({ "lacks": lacks, "kernels": { "spin": { "base_ns": 100_000 } } }));
    options.spec.push(spec.to_owned());
    node_of(options)
}

fn backend(node: &Node) -> String {
    let row = tenant_row(&node.status().unwrap(), "review");
    row["processes"][0]["gate_backend"].as_str().unwrap_or_default().to_owned()
}

/// The rung is the one expected, wherever it is told; results are right; the quota holds by the device's own account;
/// and nothing of it survives the daemon.
fn holds(lacks: &[&str], spec: &str, rung: &str) {
    let mut node = node_without(lacks, spec);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    assert_eq!(backend(&node), "none", "nothing was gated yet");
    // What the bucket holds at first, and what a first look costs, are gone after this.
    puppet.must("launch 300");
    puppet.must("sync");
    assert_eq!(backend(&node), rung);
    let page = node.metrics().unwrap();
    assert_eq!(page.value("headgate_gate_backend", &[rung]), Some(1.0));

    let control = node.device().control();
    control.mark().unwrap();
    puppet.must(&format!("launch {LAUNCHES}"));
    puppet.must("sync");
    let statistics = control.statistics().unwrap();
    let elapsed = statistics["elapsed_ns"].as_f64().unwrap();
    let own = statistics["processes"].as_array().unwrap().iter().find(|row| row["pid"] == puppet.pid());
    let share = own.unwrap()["busy_ns"].as_f64().unwrap() * 100.0 / elapsed;
    assert!(share < 20.0, "{rung}: a tenth of the device came out as {share:.1} %");
    assert_eq!(puppet.must("count"), [300 + LAUNCHES]);
    eventually("what was launched is known to be done", SOON, || {
        (device_row(&node, "review")["status"] != "Degraded").then_some(())
    });

    node.kill_daemon().unwrap();
    puppet.must("launch 1000");
    puppet.must("sync");
    assert_eq!(puppet.must("count"), [1_300 + LAUNCHES]);
}

#[test]
fn with_memory_operations_the_device_waits_at_the_gate() {
    holds(&[], ON_DEVICE, "memops");
}

#[test]
fn by_choice_the_program_waits_at_the_gate_and_the_device_reports() {
    holds(&[], ON_HOST, "host");
}

#[test]
fn whatever_was_chosen_what_the_driver_lacks_is_done_in_another_way() {
    holds(&MEMORY_OPERATIONS, ON_HOST, "events");
}

#[test]
fn a_program_that_holds_its_own_stream_up_is_not_held_up_for_good() {
    let node = node_without(&[], ON_HOST);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    // Far more than it may be ahead: the thread that would make room is the one that waits for it.
    puppet.must("held 40");
    assert_eq!(puppet.must("count"), [40]);
    assert_eq!(backend(&node), "host");
}

#[test]
fn a_gate_is_moved_under_a_running_program() {
    let mut node = node_without(&[], ON_DEVICE);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    let mut launched = 0;
    for (spec, word) in [(ON_DEVICE, "memops"), (ON_HOST, "host"), (ON_DEVICE, "memops")] {
        node.set_spec(vec![spec.to_owned()]).unwrap();
        eventually("work waits there", SOON, || {
            puppet.must("launch 10");
            launched += 10;
            (backend(&node) == word).then_some(())
        });
        puppet.must("sync");
        assert_eq!(puppet.must("count"), [launched], "{word}");
    }
}

#[test]
fn without_memory_operations_events_report() {
    holds(&MEMORY_OPERATIONS, ON_DEVICE, "events");
}

#[test]
fn without_events_either_the_host_gates_and_says_so() {
    let mut lacks = MEMORY_OPERATIONS.to_vec();
    lacks.push("cuEventQuery");
    holds(&lacks, ON_DEVICE, "watchdog");
}
