//! Compute shares, as the device measures them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually, quiet};
use serde_json::json;
use support::{Puppet, SOON, device_row};

/// Points a share may be off. The bound for the demo.
const TOLERANCE: f64 = 3.0;
/// How long shares are measured.
const MEASURED: Duration = Duration::from_secs(3);

/// Shares are a matter of time, and two of these tests at once would be each other's noise.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that the next one could trip over.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where work may wait: on the device; in programs, by choice; there, because the driver lacks stream memory operations.
const GATES: [&str; 3] = ["device", "host", "events"];

fn node_with_kernels(tenants: Vec<TenantSpec>, kernel_us: u64) -> Node {
    node_gated(GATES[0], tenants, kernel_us)
}

/// A node whose work waits at one of [`GATES`].
fn node_gated(gate: &str, tenants: Vec<TenantSpec>, kernel_us: u64) -> Node {
    let lacks: &[&str] = match gate {
        "events" => &["cuStreamBatchMemOp", "cuStreamWaitValue", "cuStreamWriteValue"],
        _ => &[],
    };
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "lacks": lacks, "kernels": { "spin": { "base_ns": kernel_us * 1000 } } }));
    if gate == "host" {
        options.spec.push("gpus: { \"*\": { gate: host } }".to_owned());
    }
    Node::start(options).unwrap_or_else(|error| panic!("{error:#}"))
}

fn start_loop(node: &Node, tenant: &str) -> Program {
    node.run(tenant, "app-loop", &["--seconds", "120", "--kernel", "spin"]).unwrap()
}

fn launches(node: &Node, tenant: &str) -> u64 {
    device_row(node, tenant)["launches"].as_u64().expect("launches")
}

/// Holds what each program had of the device, in percent, against what it should have had. Of the time both had
/// where two compete, so that switching between them counts for neither; of the elapsed time where one is alone.
///
/// Of elapsed time a busy machine takes a part from whoever is alone, a fifth at most.
#[track_caller]
fn assert_shares<const N: usize>(node: &Node, expected: [(&str, &Program, f64); N]) {
    eventually("all loops launch", SOON, || {
        expected.iter().all(|(tenant, ..)| 0 < launches(node, tenant)).then_some(())
    });
    quiet::holds(
        &format!("shares of {:?} %", expected.map(|(tenant, _, percent)| (tenant, percent))),
        || {
            let shares = window(node, expected.map(|(_, program, _)| program));
            let holds = |(share, (.., percent)): (&f64, &(&str, &Program, f64))| {
                let least =
                    if N == 1 { (percent - TOLERANCE).min(percent * 0.8) } else { percent - TOLERANCE };
                (least..=percent + TOLERANCE).contains(share)
            };
            if shares.iter().zip(&expected).all(holds) { Ok(()) } else { Err(shares) }
        },
    );
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

/// What a program has of the elapsed time while nobody else is there, on this machine as busy as it is.
fn alone_share(node: &Node, program: &Program) -> f64 {
    eventually("it launches", SOON, || {
        node.device().control().mark().unwrap();
        (0.0 < had(node, program.pid()).1).then_some(())
    });
    window(node, [program])[0]
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
    let review = node.run("review", "app-loop", &["--seconds", "120", "--kernel", "spin_for"]).unwrap();
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

/// Device time that passed since the device's counters were set to zero, and what a program had of it, in milliseconds.
fn had(node: &Node, pid: u32) -> (f64, f64) {
    let statistics = node.device().control().statistics().unwrap();
    let rows = statistics["processes"].as_array().unwrap().iter();
    let busy: f64 = rows.filter(|row| row["pid"] == pid).map(|row| row["busy_ns"].as_f64().unwrap()).sum();
    (statistics["elapsed_ns"].as_f64().unwrap() / 1e6, busy / 1e6)
}

fn gate_is_closed(node: &Node) -> bool {
    device_row(node, "review")["gate"] == "closed"
}

/// A node whose daemon was killed while the gate of a tenant with a hundredth of the device was closed, with a program of
/// it that has work waiting there.
fn orphaned(gate: &str, fail_policy: &str) -> (Node, Program) {
    let tenant = TenantSpec::new("review").sm(1).with("mode: hard").with(fail_policy);
    let mut node = node_gated(gate, vec![tenant], 100);
    let review = start_loop(&node, "review");
    eventually("the program launches", SOON, || (0 < launches(&node, "review")).then_some(()));
    eventually("the gate is closed", SOON, || gate_is_closed(&node).then_some(()));
    node.kill_daemon().unwrap();
    (node, review)
}

#[test]
fn gates_open_within_a_tenth_of_a_second_when_the_daemon_dies() {
    // Little: behind a gate on the host a program leaves the device idle now and then by itself.
    const RUN: f64 = 20.0;
    let _turn = alone();
    for gate in GATES {
        // The device waits for nothing but its gate, so what it idled since the death is how long the gate stayed closed.
        quiet::holds(&format!("{gate}: gates open within 100 ms of the daemon's death"), || {
            let (mut node, review) = orphaned(gate, "failPolicy: open");
            node.device().control().mark().unwrap();
            let (elapsed, busy) = eventually("the program runs again", SOON, || {
                let (elapsed, busy) = had(&node, review.pid());
                (RUN <= busy).then_some((elapsed, busy))
            });
            node.start_daemon().unwrap();
            eventually("the opening is on the page", SOON, || {
                let page = node.metrics().unwrap();
                page.value("headgate_gates_failed_open_total", &["tenant=\"review\""])
                    .filter(|count| 0.0 < *count)
            });
            if elapsed - busy <= 100.0 { Ok(()) } else { Err(elapsed - busy) }
        });
    }
}

#[test]
fn gates_stay_closed_when_the_daemon_dies_if_that_is_the_policy() {
    let _turn = alone();
    for gate in GATES {
        let (mut node, review) = orphaned(gate, "failPolicy: lastKnown");
        let control = node.device().control();
        control.mark().unwrap();
        let (elapsed, busy) = eventually("half a second is over", SOON, || {
            Some(had(&node, review.pid())).filter(|(elapsed, _)| 500.0 <= *elapsed)
        });
        // What was let through before the death may end after it.
        assert!(busy <= 5.0, "{gate}: {busy:.1} ms of {elapsed:.0} ran behind a closed gate");
        node.start_daemon().unwrap();
        eventually("the next daemon opens it again", SOON, || {
            (busy + 1.0 < had(&node, review.pid()).1).then_some(())
        });
    }
}

#[test]
fn the_next_daemon_lets_nobody_have_more_than_the_quota() {
    let _turn = alone();
    let tenant = TenantSpec::new("review").sm(10).with("mode: hard");
    let mut node = node_with_kernels(vec![tenant], 100);
    let review = start_loop(&node, "review");
    assert_shares(&node, [("review", &review, 10.0)]);
    node.kill_daemon().unwrap();
    eventually("gates are open", SOON, || (200.0 <= had(&node, review.pid()).1).then_some(()));
    node.start_daemon().unwrap();
    // From the moment the daemon is ready: a tenth of the time, and a bucket that was half full.
    node.device().control().mark().unwrap();
    let (elapsed, busy) = eventually("a second is over", SOON, || {
        Some(had(&node, review.pid())).filter(|(elapsed, _)| 1_000.0 <= *elapsed)
    });
    assert!(busy <= elapsed * (0.10 + TOLERANCE / 100.0), "{busy:.0} ms of {elapsed:.0} after the restart");
    assert_shares(&node, [("review", &review, 10.0)]);
}

#[test]
fn two_tenants_get_their_shares_where_work_waits_in_their_programs() {
    let _turn = alone();
    for (gate, kernel_us) in [("host", 100), ("host", 2_000), ("events", 100), ("events", 2_000)] {
        let tenants = vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)];
        let node = node_gated(gate, tenants, kernel_us);
        let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
        assert_shares(&node, [("alerts", &alerts, 70.0), ("review", &review, 30.0)]);
    }
}

#[test]
fn a_stopped_program_keeps_nobody_from_the_device() {
    let _turn = alone();
    for gate in GATES {
        let tenants = vec![TenantSpec::new("alerts").sm(70), TenantSpec::new("review").sm(30)];
        let node = node_gated(gate, tenants, 100);
        let review = start_loop(&node, "review");
        let alone = alone_share(&node, &review);
        let alerts = start_loop(&node, "alerts");
        eventually("both launch", SOON, || (0 < launches(&node, "alerts")).then_some(()));
        alerts.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
        // Of elapsed time: what the stopped one holds on to is lost to both.
        quiet::holds(&format!("{gate}: beside a stopped program, of {alone:.1} % alone"), || {
            let share = window(&node, [&review])[0];
            if alone * 0.85 <= share { Ok(()) } else { Err(share) }
        });
        alerts.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
        assert_shares(&node, [("alerts", &alerts, 70.0), ("review", &review, 30.0)]);
    }
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
    let _turn = alone();
    let mut options =
        NodeOptions::simulated(vec![TenantSpec::new("alerts").sm(50), TenantSpec::new("review").sm(50)]);
    options.device = Some(json!({ "kernels": {
        "spin": { "base_ns": 500_000, "execute": false }, "spin_for": { "hangs": true, "execute": false } } }));
    let node = Node::start(options).unwrap();
    let review = start_loop(&node, "review");
    let alone = alone_share(&node, &review);
    let _endless = node.run("alerts", "app-loop", &["--seconds", "120", "--kernel", "spin_for"]).unwrap();
    eventually("the kernel is found", SOON, || {
        let row = device_row(&node, "alerts");
        let stuck = row["reason"].as_str().is_some_and(|reason| reason.contains("stuck"));
        (row["status"] == "Degraded" && stuck).then_some(())
    });
    // The device alternates between the two: half of it, less what changing costs.
    quiet::holds(&format!("a share beside a kernel without end, of {alone:.1} % alone"), || {
        let share = window(&node, [&review])[0];
        if alone * 0.4 < share { Ok(()) } else { Err(share) }
    });
    // A device server that this machine held up for long makes everybody's work look stuck until it goes on.
    eventually("nobody else is flagged", SOON, || {
        (device_row(&node, "review")["status"] != "Degraded").then_some(())
    });
    assert_eq!(device_row(&node, "alerts")["status"], "Degraded");
}
