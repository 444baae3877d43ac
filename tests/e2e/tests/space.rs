//! Devices shared by space: MPS kept by the real daemon, on a simulated device with a stand-in for NVIDIA's program.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually};
use serde_json::{Value, json};
use support::{Puppet, SOON, device_row, number, sms, start_loop, window};

/// How long work is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// Chunks have 8 of the device's 132 SMs: 30 % are nearest to 5 of 16, 70 % to 11.
const ALERTS_SMS: u64 = 88;
const REVIEW_SMS: u64 = 40;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tenants(alerts: u32, review: u32) -> Vec<TenantSpec> {
    vec![TenantSpec::new("alerts").sm(alerts), TenantSpec::new("review").sm(review)]
}

/// A node whose `spin` takes 100 us of the whole device, and as much longer on a part of it as the part is smaller.
fn node(sharing: &str, tenants: Vec<TenantSpec>) -> Node {
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "kernels": { "spin": { "spread_ns": 100_000, "execute": false } } }));
    options.spec = Node::sharing(sharing).unwrap();
    Node::start(options).unwrap_or_else(|error| panic!("{error:#}"))
}

fn is_up(node: &Node) -> bool {
    let page = node.metrics().unwrap();
    page.value("headgate_gpu_shared_as_wanted", &[]) == Some(1.0)
}

fn up(sharing: &str, tenants: Vec<TenantSpec>) -> Node {
    let node = node(sharing, tenants);
    eventually("MPS is up", SOON, || is_up(&node).then_some(()));
    node
}

fn chunks(row: &Value) -> BTreeSet<u64> {
    row["mps_chunks"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn space(node: &Node, tenant: &str) -> Value {
    device_row(node, tenant)["space"].clone()
}

/// A share of the SMs is held at any moment; a program that this machine kept from submitting holds none.
fn close(found: u64, expected: u64) -> bool {
    found <= expected && expected * 9 / 10 <= found
}

#[test]
fn partitions_give_each_tenant_sms_that_nobody_else_has() {
    let _turn = alone();
    let node = up("mpsPartition", tenants(70, 30));
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    let [a, r] = eventually("both keep their SMs busy", SOON * 3, || {
        let rows = window(&node, MEASURED, [alerts.pid(), review.pid()]);
        (close(sms(&rows[0]), ALERTS_SMS) && close(sms(&rows[1]), REVIEW_SMS)).then_some(rows)
    });
    assert_eq!((number(&a, "mps_sms"), number(&r, "mps_sms")), (ALERTS_SMS, REVIEW_SMS));
    assert_eq!((chunks(&a).len(), chunks(&r).len()), (11, 5));
    assert!(chunks(&a).is_disjoint(&chunks(&r)), "{a} and {r}");
    // 100 us of 132 SMs take 150 us of 88 and 330 us of 40.
    let ratio = number(&a, "kernels") * 100 / number(&r, "kernels").max(1);
    assert!((190..=250).contains(&ratio), "kernels in a ratio of {ratio} to 100, not 220");
    for (tenant, sms) in [("alerts", ALERTS_SMS), ("review", REVIEW_SMS)] {
        let space = space(&node, tenant);
        assert_eq!((number(&space, "sms"), &space["exclusive"]), (sms, &json!(true)), "{space}");
        assert_eq!(device_row(&node, tenant)["gate"], "open");
        let page = node.metrics().unwrap();
        let held = page.value("headgate_gpu_space_ratio", &[&format!("tenant=\"{tenant}\"")]).unwrap();
        assert!((held - f64::from(u32::try_from(sms).unwrap()) / 132.0).abs() < 0.001, "{tenant}: {held}");
    }
    assert_eq!(node.status().unwrap()["devices"][0]["sharing"], "mpsPartition");
    // What each is charged is its part of the time that passed.
    let before = [
        number(&device_row(&node, "alerts"), "charged_us"),
        number(&device_row(&node, "review"), "charged_us"),
    ];
    window(&node, MEASURED, [alerts.pid(), review.pid()]);
    let after = [
        number(&device_row(&node, "alerts"), "charged_us"),
        number(&device_row(&node, "review"), "charged_us"),
    ];
    let charged = (after[0] - before[0]) * 100 / (after[1] - before[1]).max(1);
    assert!((190..=250).contains(&charged), "charged {charged} to 100, not 220");
}

#[test]
fn percentages_are_a_ceiling_for_each_process() {
    let _turn = alone();
    let node = up("mpsPercentage", tenants(70, 30));
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    // 70 % and 30 % of 132 SMs, in pairs.
    let [a, r] = eventually("both use what they may", SOON * 3, || {
        let rows = window(&node, MEASURED, [alerts.pid(), review.pid()]);
        (close(sms(&rows[0]), 92) && close(sms(&rows[1]), 38)).then_some(rows)
    });
    assert_eq!((number(&a, "mps_sms"), number(&r, "mps_sms")), (92, 38));
    assert_eq!((chunks(&a).len(), chunks(&r).len()), (0, 0), "nothing is exclusive");
    let space = space(&node, "review");
    assert_eq!((&space["exclusive"], number(&space, "given_ppm")), (&json!(false), 300_000), "{space}");
    // A second process of the same tenant has the same ceiling again. In time the tenant is held to its share.
    let second = start_loop(&node, "review");
    eventually("two processes have what one had", SOON * 3, || {
        let rows = window(&node, MEASURED, [review.pid(), second.pid()]);
        (30..=44).contains(&(sms(&rows[0]) + sms(&rows[1]))).then_some(())
    });
}

#[test]
fn a_program_cannot_choose_its_own_part() {
    let _turn = alone();
    let node = up("mpsPartition", tenants(70, 30));
    // What `run` is started with does not count.
    let mut command = node.command("review", support::puppet()).unwrap();
    command.env("CUDA_MPS_SM_PARTITION", "GPU-0/other").env("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "100");
    let mut puppet = Puppet::start(&mut command);
    puppet.ready();
    drop(puppet);
    // What a program sets itself behind `run` does: and it gets no GPU.
    for change in
        ["-u CUDA_MPS_PIPE_DIRECTORY", "-u CUDA_MPS_SM_PARTITION", "CUDA_MPS_SM_PARTITION=GPU-0/other"]
    {
        let mut command = node.command("review", std::path::Path::new("/usr/bin/env")).unwrap();
        command.args(change.split(' ')).arg(headgate_harness::workspace::program("app-loop").unwrap());
        command.args(["--seconds", "1", "--kernel", "spin"]);
        let outcome = Program::start("a program of its own mind", &mut command).unwrap();
        let outcome = outcome.finish(SOON).unwrap();
        assert!(!outcome.status.success(), "{change}: {outcome:?}");
        let said = format!("{outcome:?}");
        assert!(said.contains("shared by space") && said.contains("headgate run"), "{change}: {said}");
    }
}

#[test]
fn a_new_division_comes_into_force_when_programs_end_and_in_time_at_once() {
    let _turn = alone();
    let hard = |alerts, review| {
        tenants(alerts, review).into_iter().map(|tenant| tenant.with("mode: hard")).collect()
    };
    let mut node = up("mpsPartition", hard(70, 30));
    let alerts = start_loop(&node, "alerts");
    node.set_tenants(hard(30, 70)).unwrap();
    let pending = eventually("the change is told", SOON, || {
        space(&node, "alerts")["pending"].as_str().map(str::to_owned)
    });
    assert!(pending.contains("88 SMs") && pending.contains("40"), "{pending}");
    assert!(space(&node, "review")["pending"].as_str().is_some_and(|why| why.contains("other tenants")));
    // It holds 88 SMs and owns 40: it gets them for less than half of the time.
    let mut found = Vec::new();
    let held = headgate_harness::wait_for(SOON * 3, || {
        let [row] = window(&node, MEASURED, [alerts.pid()]);
        found.push(sms(&row));
        // Less where this machine kept the program or the daemon from the CPU; 88 were it not held at all.
        (30..=44).contains(&sms(&row)).then_some(())
    });
    assert!(held.is_some(), "it owns {REVIEW_SMS} SMs and had {found:?}");
    drop(alerts);
    eventually("the partitions are as they are to be", SOON, || {
        let sms = |tenant| space(&node, tenant)["sms"].as_u64();
        (sms("alerts") == Some(REVIEW_SMS) && sms("review") == Some(ALERTS_SMS)).then_some(())
    });
    assert_eq!(space(&node, "alerts")["pending"], Value::Null);
    let alerts = start_loop(&node, "alerts");
    let [row] = window(&node, MEASURED, [alerts.pid()]);
    assert_eq!(number(&row, "mps_sms"), REVIEW_SMS);
}

#[test]
fn the_next_daemon_finds_the_partitions_with_the_programs_in_them() {
    let _turn = alone();
    let mut node = up("mpsPartition", tenants(70, 30));
    let alerts = start_loop(&node, "alerts");
    let [before] = window(&node, MEASURED, [alerts.pid()]);
    node.kill_daemon().unwrap();
    node.start_daemon().unwrap();
    eventually("MPS is up again", SOON, || is_up(&node).then_some(()));
    let [after] = window(&node, MEASURED, [alerts.pid()]);
    assert!(close(sms(&after), ALERTS_SMS), "it ran on: {after}");
    assert_eq!(chunks(&after), chunks(&before));
    let review = start_loop(&node, "review");
    let [row] = window(&node, MEASURED, [review.pid()]);
    assert_eq!(number(&row, "mps_sms"), REVIEW_SMS);
    assert!(chunks(&row).is_disjoint(&chunks(&after)));
}

fn control_pid(node: &Node) -> Option<i32> {
    let gpu = node.status().ok()?["devices"][0]["gpu"].as_str()?.to_owned();
    let file = node.path("mps").join(gpu).join("nvidia-cuda-mps-control.pid");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[test]
fn a_control_program_that_dies_is_started_again_and_ends_with_the_daemon() {
    let _turn = alone();
    let mut node = up("mpsPartition", tenants(70, 30));
    let first = control_pid(&node).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("another one serves", SOON, || control_pid(&node).filter(|pid| *pid != first));
    eventually("programs run in it", SOON, || {
        let mut command = node.command("review", support::puppet()).unwrap();
        let mut puppet = Puppet::start(&mut command);
        // It may have been placed in what is gone.
        puppet.tell("init");
        puppet.answer_or_end().is_some_and(|answer| answer.is_ok()).then_some(())
    });
    node.stop_daemon().unwrap();
    assert_eq!(
        std::fs::read_dir(node.path("mps"))
            .unwrap()
            .flatten()
            .filter(|folder| folder.path().join("control").exists())
            .count(),
        0
    );
}

#[test]
fn without_mps_the_device_is_shared_by_time_and_it_is_told_why() {
    let _turn = alone();
    let mut options = NodeOptions::simulated(tenants(70, 30));
    options.spec = vec![
        "gpus: { \"*\": { sharing: mpsPartition } }".to_owned(),
        "mps: { control: /nonexistent/nvidia-cuda-mps-control }".to_owned(),
    ];
    let node = Node::start(options).unwrap();
    let why = eventually("it is told why", SOON, || {
        node.status().unwrap()["devices"][0]["sharing_down"].as_str().map(str::to_owned)
    });
    assert!(why.contains("nvidia-cuda-mps-control"), "{why}");
    assert!(!is_up(&node));
    assert_eq!(space(&node, "alerts"), Value::Null);
    let _alerts = start_loop(&node, "alerts");
}
