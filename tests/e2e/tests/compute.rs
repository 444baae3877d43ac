//! Compute shares, as the device measures them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually};
use serde_json::json;
use support::{Puppet, SOON, device_row};

/// Points a share may be off. The bound for the demo.
const TOLERANCE: f64 = 3.0;
/// How long shares are measured.
const MEASURED: Duration = Duration::from_secs(4);

/// Shares are a matter of time, and two of these tests at once would be each other's noise.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that the next one could trip over.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn node_with_kernels(tenants: Vec<TenantSpec>, kernel_us: u64) -> Node {
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "kernels": { "spin": { "base_ns": kernel_us * 1000 } } }));
    Node::start(options).unwrap_or_else(|error| panic!("{error:#}"))
}

fn start_loop(node: &Node, tenant: &str) -> Program {
    node.run(tenant, "app-loop", &["--seconds", "60", "--kernel", "spin"]).unwrap()
}

fn launches(node: &Node, tenant: &str) -> u64 {
    device_row(node, tenant)["launches"].as_u64().expect("launches")
}

/// Holds what each program had of the device, in percent, against what it should have had. Of the time both had
/// where two compete, so that switching between them counts for neither; of the elapsed time where one is alone.
///
/// The device keeps real time, and this machine may be busy with other things for seconds on end. Windows are
/// looked at until one is right in all its shares, a few times at most; a scheduler that is wrong is wrong in
/// every one of them.
#[track_caller]
fn assert_shares<const N: usize>(node: &Node, expected: [(&str, &Program, f64); N]) {
    const WINDOWS: usize = 4;
    eventually("all loops launch", SOON, || {
        expected.iter().all(|(tenant, ..)| 0 < launches(node, tenant)).then_some(())
    });
    let mut found = Vec::new();
    for _ in 0..WINDOWS {
        let shares = window(node, expected.map(|(_, program, _)| program));
        if shares.iter().zip(&expected).all(|(share, (.., percent))| (share - percent).abs() <= TOLERANCE) {
            return;
        }
        found.push(shares);
    }
    panic!("shares in {WINDOWS} windows of {MEASURED:?}: {found:.1?}, never {:?}", expected.map(|row| row.2));
}

/// What each program had over [`MEASURED`], in percent.
fn window<const N: usize>(node: &Node, programs: [&Program; N]) -> [f64; N] {
    let control = node.device().control();
    control.mark().unwrap();
    let statistics = eventually("the measurement is over", MEASURED * 3, || {
        let statistics = control.statistics().unwrap();
        let elapsed = statistics["elapsed_ns"].as_u64().unwrap();
        (MEASURED.as_nanos() <= u128::from(elapsed)).then_some(statistics)
    });
    let busy = programs.map(|program| {
        let rows = statistics["processes"].as_array().unwrap().iter();
        let own = rows.filter(|row| row["pid"] == program.pid());
        own.map(|row| row["busy_ns"].as_f64().unwrap()).sum::<f64>()
    });
    let whole = match N {
        1 => statistics["elapsed_ns"].as_f64().unwrap(),
        _ => busy.iter().sum(),
    };
    busy.map(|one| one * 100.0 / whole)
}

#[test]
fn two_saturating_tenants_get_their_shares_of_the_device() {
    let _turn = alone();
    let node =
        node_with_kernels(vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)], 50);
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    assert_shares(&node, [("alerts", &alerts, 70.0), ("review", &review, 30.0)]);
}

#[test]
fn kernels_of_different_lengths_do_not_shift_the_shares() {
    let _turn = alone();
    let mut options =
        NodeOptions::simulated(vec![TenantSpec::new("alerts").sm(50), TenantSpec::new("review").sm(50)]);
    options.device = Some(json!({ "kernels": {
        "spin": { "base_ns": 100_000 }, "spin_for": { "base_ns": 1_500_000, "execute": false } } }));
    let node = Node::start(options).unwrap();
    let alerts = start_loop(&node, "alerts");
    let review = node.run("review", "app-loop", &["--seconds", "60", "--kernel", "spin_for"]).unwrap();
    assert_shares(&node, [("alerts", &alerts, 50.0), ("review", &review, 50.0)]);
}

#[test]
fn a_lone_tenant_borrows_the_idle_device() {
    let _turn = alone();
    let node =
        node_with_kernels(vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)], 100);
    let review = start_loop(&node, "review");
    assert_shares(&node, [("review", &review, 100.0)]);
}

#[test]
fn a_hard_tenant_is_held_to_its_share_of_an_idle_device() {
    let _turn = alone();
    let node = node_with_kernels(vec![TenantSpec::new("review").sm(30).with("mode: hard")], 100);
    let review = start_loop(&node, "review");
    assert_shares(&node, [("review", &review, 30.0)]);
}

#[test]
fn results_are_right_and_nothing_is_lost_under_a_gate() {
    let _turn = alone();
    let node =
        node_with_kernels(vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)], 50);
    let _neighbour = start_loop(&node, "alerts");
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    for round in 1..=10 {
        puppet.must("launch 137");
        puppet.must("sync");
        assert_eq!(puppet.must("count"), [137 * round]);
    }
    assert_eq!(launches(&node, "review"), 1370);
}

#[test]
fn gates_open_when_the_daemon_dies() {
    let _turn = alone();
    let mut node = node_with_kernels(vec![TenantSpec::new("review").sm(10).with("mode: hard")], 100);
    let mut puppet = Puppet::in_tenant(&node, "review");
    puppet.ready();
    puppet.must("launch 100");
    node.kill_daemon().unwrap();
    // 2,000 launches of 100 us are two seconds at a tenth of the device, and a fifth of one at all of it.
    puppet.must("launch 2000");
    puppet.must("sync");
    assert_eq!(puppet.must("count"), [2100]);
}

#[test]
fn a_new_share_takes_effect_under_running_programs() {
    let _turn = alone();
    let hard = |percent| vec![TenantSpec::new("review").sm(percent).with("mode: hard")];
    let mut node = node_with_kernels(hard(20), 100);
    let review = start_loop(&node, "review");
    assert_shares(&node, [("review", &review, 20.0)]);
    node.set_tenants(hard(60)).unwrap();
    eventually("the new quota is in the status", SOON, || {
        (device_row(&node, "review")["sm_quota_ppm"] == 600_000).then_some(())
    });
    assert_shares(&node, [("review", &review, 60.0)]);
}

#[test]
fn a_kernel_that_never_ends_is_flagged_and_the_others_run_on() {
    let mut options =
        NodeOptions::simulated(vec![TenantSpec::new("alerts").sm(50), TenantSpec::new("review").sm(50)]);
    options.device = Some(json!({ "kernels": {
        "spin": { "base_ns": 500_000, "execute": false }, "spin_for": { "hangs": true, "execute": false } } }));
    let node = Node::start(options).unwrap();
    let review = start_loop(&node, "review");
    let _endless = node.run("alerts", "app-loop", &["--seconds", "60", "--kernel", "spin_for"]).unwrap();
    eventually("the kernel is found", SOON, || {
        let row = device_row(&node, "alerts");
        let stuck = row["reason"].as_str().is_some_and(|reason| reason.contains("stuck"));
        (row["status"] == "Degraded" && stuck).then_some(())
    });
    // The device alternates between the two: half of it, less what changing costs.
    let [share] = window(&node, [&review]);
    assert!(40.0 < share, "review had {share:.1} % beside a kernel without end");
    assert_ne!(device_row(&node, "review")["status"], "Degraded");
}
