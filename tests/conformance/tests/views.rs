//! What programs see where quotas and devices are out of the ordinary. Complaint groups 6, 10, 13 and 15.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, skipped, wait_for};
use serde_json::{Value, json};
use support::{PATIENCE, UNIT, conform, native};

const MIB: u64 = 1 << 20;
/// Patience for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(10);

fn start(device: Value, tenants: Vec<TenantSpec>) -> Node {
    Node::start(NodeOptions { device: Some(device), ..NodeOptions::simulated(tenants) }).unwrap()
}

#[track_caller]
fn said(command: &mut Command) -> String {
    let outcome = Program::start("conform", command).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.status.success(), "{}\n{}{}", outcome.status, outcome.stdout, outcome.stderr);
    outcome.stdout
}

/// Group 13: a context that takes more than the whole quota. Free is zero, never an error and never 18 exabytes.
#[test]
fn a_context_larger_than_the_quota_leaves_nothing_free() {
    let tenants = vec![TenantSpec::new("tiny").memory("64Mi"), TenantSpec::new("ample").memory("1Gi")];
    let node = start(json!({ "context_bytes": 300 * MIB }), tenants);
    // What contexts take is measured a moment after they are made.
    let eventually_says = |tenant: &str, free: u64, total: u64| {
        let expected =
            [format!("cuda {free} {total}"), format!("nvml {free} {total}"), format!("nvml {free} {total}")];
        let mut program =
            conform(&node, tenant).arg("look").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut orders, answers) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
        let mut answers = BufReader::new(answers).lines();
        let mut last = Vec::new();
        let seen = wait_for(SOON, || {
            writeln!(orders, "look").unwrap();
            last = answers.by_ref().take(3).map(Result::unwrap).collect();
            (last == expected).then_some(())
        });
        drop(orders);
        assert!(program.wait().unwrap().success(), "a view failed: {last:?}");
        assert!(seen.is_some(), "{tenant} says {last:?} instead of {expected:?}");
    };
    eventually_says("tiny", 0, 64 * MIB);
    eventually_says("ample", 724 * MIB, 1024 * MIB);
}

/// Group 15 from afar: the client's own NVML tells what the driver API tells, and both the lender's quota.
#[test]
fn every_view_of_a_borrowed_device_is_the_lenders_quota() {
    let node = start(json!({}), vec![TenantSpec::new("guest").memory("64Mi")]);
    let worker = Worker::in_tenant(&node, "guest", Transport::Unix).unwrap();
    let mut command = worker.command(support::program()).unwrap();
    let mut program = command.arg("look").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(program.stdin.take().unwrap(), "look").unwrap();
    let answers = BufReader::new(program.stdout.take().unwrap()).lines();
    let seen: Vec<String> = answers.map(Result::unwrap).collect();
    assert!(program.wait().unwrap().success(), "a view failed: {seen:?}");
    let whole = 64 * MIB;
    assert_eq!(seen, ["cuda", "nvml", "nvml"].map(|view| format!("{view} {whole} {whole}")));
}

/// Group 6 and 10: each device has its own quota, and the location decides, not the current context.
#[test]
fn memory_is_charged_to_the_device_that_holds_it() {
    let uuid = |device: u32| format!("GPU-0000000{device}-0000-0000-0000-000000000000");
    let devices = json!({ "devices": [
        { "uuid": uuid(1), "memory_bytes": 64 * UNIT },
        { "uuid": uuid(2), "memory_bytes": 64 * UNIT },
    ] });
    let quotas =
        format!("quota: {{ \"{}\": {{ memory: 16Mi }}, \"{}\": {{ memory: 40Mi }} }}", uuid(1), uuid(2));
    let node = start(devices, vec![TenantSpec::new("both").with(&quotas)]);
    let native = said(native(&node).args(["beside", "1"]));
    assert_eq!(native, "device 1 took 64 refused 2\ndevice 0 took 64 refused 2\n");
    let hooked = said(conform(&node, "both").args(["beside", "1"]));
    assert_eq!(hooked, "device 1 took 20 refused 2\ndevice 0 took 8 refused 2\n");
    skipped(
        "memory_is_charged_to_the_device_that_holds_it",
        &"CUDA_VISIBLE_DEVICES is not simulated: on GPUs only",
    );
}
