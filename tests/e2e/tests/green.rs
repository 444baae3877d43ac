//! Devices shared by green contexts: the hook keeps each program to the groups of SMs in its tenant's place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually};
use serde_json::{Value, json};
use support::{Puppet, SOON, device_row, number, sms, start_loop, window};

/// How long work is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// The device makes 16 groups of 8 of its 132 SMs: the edge at 70 % is nearest to that of the eleventh.
const ALERTS: (u64, u64) = (0, 88);
const REVIEW: (u64, u64) = (88, 40);
const NOT_PERMITTED: u32 = 800;
const NOT_SUPPORTED: u32 = 801;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tenants(alerts: u32, review: u32) -> Vec<TenantSpec> {
    vec![TenantSpec::new("alerts").sm(alerts), TenantSpec::new("review").sm(review)]
}

fn hard(alerts: u32, review: u32) -> Vec<TenantSpec> {
    tenants(alerts, review).into_iter().map(|tenant| tenant.with("mode: hard")).collect()
}

/// A node whose `spin` takes 100 us of the whole device, and as much longer on a part of it as the part is smaller.
fn start(sharing: &str, tenants: Vec<TenantSpec>, lacks: &[&str]) -> Node {
    let mut options = NodeOptions::simulated(tenants);
    options.device =
        Some(json!({ "kernels": { "spin": { "spread_ns": 100_000, "execute": false } }, "lacks": lacks }));
    options.spec = Node::sharing(sharing).unwrap();
    let node = Node::start(options).unwrap_or_else(|error| panic!("{error:#}"));
    eventually("the device is shared so", SOON, || is_as_wanted(&node).then_some(()));
    node
}

fn is_as_wanted(node: &Node) -> bool {
    node.metrics().unwrap().value("headgate_gpu_shared_as_wanted", &[]) == Some(1.0)
}

/// The parts of the device that its streams keep to: the first SM of each, and how many.
fn parts(row: &Value) -> Vec<(u64, u64)> {
    let parts = row["green"].as_array().unwrap();
    parts.iter().map(|part| (number(part, "first"), number(part, "sms"))).collect()
}

fn space(node: &Node, tenant: &str) -> Value {
    device_row(node, tenant)["space"].clone()
}

/// A share of the SMs is held at any moment; a program that this machine kept from submitting holds none.
fn close(found: u64, expected: u64) -> bool {
    found <= expected && expected * 9 / 10 <= found
}

#[test]
fn two_tenants_run_side_by_side_each_on_groups_of_its_own() {
    let _turn = alone();
    let node = start("greenContexts", tenants(70, 30), &[]);
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    let [a, r] = eventually("both keep their SMs busy", SOON * 3, || {
        let rows = window(&node, MEASURED, [alerts.pid(), review.pid()]);
        (close(sms(&rows[0]), ALERTS.1) && close(sms(&rows[1]), REVIEW.1)).then_some(rows)
    });
    assert_eq!((parts(&a), parts(&r)), (vec![ALERTS], vec![REVIEW]), "nothing of theirs is anywhere else");
    // 100 us of 132 SMs take 150 us of 88 and 330 us of 40.
    let ratio = number(&a, "kernels") * 100 / number(&r, "kernels").max(1);
    assert!((190..=250).contains(&ratio), "kernels in a ratio of {ratio} to 100, not 220");
    for (tenant, (_, sms)) in [("alerts", ALERTS), ("review", REVIEW)] {
        let space = space(&node, tenant);
        assert_eq!((number(&space, "sms"), &space["exclusive"]), (sms, &json!(true)), "{space}");
        assert_eq!(space["pending"], Value::Null);
        assert_eq!(device_row(&node, tenant)["gate"], "open");
        let page = node.metrics().unwrap();
        let held = page.value("headgate_gpu_space_ratio", &[&format!("tenant=\"{tenant}\"")]).unwrap();
        assert!((held - f64::from(u32::try_from(sms).unwrap()) / 132.0).abs() < 0.001, "{tenant}: {held}");
    }
    assert_eq!(node.status().unwrap()["devices"][0]["sharing"], "greenContexts");
    // A second process of a tenant keeps to the same groups, and the two have what one had.
    let second = start_loop(&node, "review");
    let [r, s] = eventually("two processes have what one had", SOON * 3, || {
        let rows = window(&node, MEASURED, [review.pid(), second.pid()]);
        close(sms(&rows[0]) + sms(&rows[1]), REVIEW.1).then_some(rows)
    });
    assert_eq!((parts(&r), parts(&s)), (vec![REVIEW], vec![REVIEW]));
    assert_eq!(number(&space(&node, "review"), "sms"), REVIEW.1);
}

fn puppet(node: &Node, tenant: &str) -> Puppet {
    let mut puppet = Puppet::in_tenant(node, tenant);
    puppet.ready();
    puppet
}

fn load(puppet: &mut Puppet) {
    puppet.must(&format!("load {} spin", support::kernel("spin").display()));
}

#[test]
fn a_program_sees_its_groups_as_the_device_and_cannot_leave_them() {
    let _turn = alone();
    let node = start("greenContexts", tenants(70, 30), &[]);
    for by_proc_address in [false, true] {
        let mut puppet = if by_proc_address {
            let mut puppet = Puppet::by_proc_address(&node, "review");
            puppet.ready();
            puppet
        } else {
            puppet(&node, "review")
        };
        assert_eq!(puppet.must("sms"), [REVIEW.1, REVIEW.1]);
        load(&mut puppet);
        assert_eq!(puppet.must("current"), [1, 1, 0], "it knows of its primary context only");
        // Its own green context is made of its groups: two of 16 SMs fit into 40, and 48 do not.
        assert_eq!(puppet.must("green 16"), [16, 2]);
        assert!(puppet.ask("green 48").is_err());
        puppet.must("green-stream");
        assert_eq!(puppet.must("current")[2], 1, "its own it knows");
        puppet.must("launch 10");
        // The primary context includes all of its green ones.
        puppet.must("sync");
        let [row] = window(&node, MEASURED, [puppet.pid()]);
        let outside = |(first, sms): (u64, u64)| first < REVIEW.0 || REVIEW.0 + REVIEW.1 < first + sms;
        assert!(!parts(&row).into_iter().any(outside), "{row}");
        assert!(parts(&row).contains(&(REVIEW.0, 16)), "{row}");
        assert_eq!(puppet.ask("own-context"), Err(NOT_SUPPORTED), "it could not keep to any groups");
    }
}

#[test]
fn a_primary_context_that_ends_takes_its_groups_along_and_the_next_one_finds_them_again() {
    let _turn = alone();
    let node = start("greenContexts", tenants(70, 30), &[]);
    let mut puppet = puppet(&node, "review");
    let used = |node: &Node| number(&device_row(node, "review"), "memory_used_bytes");
    for end in ["reset", "release"] {
        puppet.must("alloc 1048576");
        assert!(used(&node) >= 1 << 20);
        assert_eq!(number(&space(&node, "review"), "sms"), REVIEW.1);
        puppet.must(end);
        eventually("what it had is given back", SOON, || (used(&node) == 0).then_some(()));
        let left = space(&node, "review");
        assert_eq!((&left["sms"], &left["pending"]), (&Value::Null, &Value::Null), "after {end}: {left}");
        puppet.must("device 0");
        assert_eq!(puppet.must("sms"), [REVIEW.1, REVIEW.1]);
        load(&mut puppet);
        puppet.must("launch 3");
        puppet.must("sync");
        let [row] = window(&node, MEASURED, [puppet.pid()]);
        assert_eq!(parts(&row), [REVIEW], "after {end}");
    }
}

#[test]
fn a_new_division_waits_for_programs_and_holds_in_time_at_once() {
    let _turn = alone();
    let mut node = start("greenContexts", hard(70, 30), &[]);
    let alerts = start_loop(&node, "alerts");
    node.set_tenants(hard(30, 70)).unwrap();
    let pending = |node: &Node, tenant: &str| space(node, tenant)["pending"].as_str().map(str::to_owned);
    let own = eventually("the change is told", SOON, || pending(&node, "alerts"));
    assert!(own.contains("its running programs"), "{own}");
    assert!(pending(&node, "review").is_some_and(|why| why.contains("other tenants")));
    // It holds 88 SMs and owns 40: it gets them for less than half of the time.
    let held = headgate_harness::wait_for(SOON * 3, || {
        let [row] = window(&node, MEASURED, [alerts.pid()]);
        assert_eq!(parts(&row), [ALERTS], "its groups stay");
        (30..=44).contains(&sms(&row)).then_some(())
    });
    assert!(held.is_some(), "it owns 30 % and holds 67 %");
    // The daemon that comes next knows who has which groups.
    node.kill_daemon().unwrap();
    node.start_daemon().unwrap();
    eventually("it is shared so again", SOON, || is_as_wanted(&node).then_some(()));
    assert!(pending(&node, "alerts").is_some_and(|why| why.contains("its running programs")));
    drop(alerts);
    eventually("nothing is pending any more", SOON, || {
        (pending(&node, "alerts").is_none() && pending(&node, "review").is_none()).then_some(())
    });
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    let [a, r] = window(&node, MEASURED, [alerts.pid(), review.pid()]);
    assert_eq!((parts(&a), parts(&r)), (vec![(0, 40)], vec![(40, 88)]));
}

#[test]
fn a_driver_without_green_contexts_shares_by_time_and_it_is_told() {
    let _turn = alone();
    let node = start("greenContexts", tenants(70, 30), &["cuGreenCtx"]);
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    let why = eventually("it is told why", SOON, || {
        node.status().unwrap()["devices"][0]["sharing_down"].as_str().map(str::to_owned)
    });
    assert!(why.contains("no green contexts"), "{why}");
    assert!(!is_as_wanted(&node));
    assert_eq!(space(&node, "alerts"), Value::Null);
    eventually("they take turns by their shares", SOON * 3, || {
        let [a, r] = window(&node, MEASURED, [alerts.pid(), review.pid()]);
        let busy = |row: &Value| number(row, "busy_ns") as f64;
        let share = 100.0 * busy(&a) / (busy(&a) + busy(&r));
        (65.0..=75.0).contains(&share).then_some(())
    });
}

#[test]
fn without_mps_the_shares_multiply_and_only_if_that_is_asked_for() {
    let _turn = alone();
    let mut options = NodeOptions::simulated(tenants(50, 50));
    let nowhere = "mps: { control: /nonexistent/nvidia-cuda-mps-control }".to_owned();
    options.spec = vec!["gpus: { \"*\": { sharing: greenContexts } }".to_owned(), nowhere.clone()];
    let node = Node::start(options).unwrap();
    let why = eventually("it is told why", SOON, || {
        node.status().unwrap()["devices"][0]["sharing_down"].as_str().map(str::to_owned)
    });
    assert!(why.contains("nvidia-cuda-mps-control") && why.contains("allowMultiplied"), "{why}");
    drop(node);
    let mut options = NodeOptions::simulated(tenants(50, 50));
    options.device = Some(json!({ "kernels": { "spin": { "spread_ns": 100_000, "execute": false } } }));
    options.spec =
        vec!["gpus: { \"*\": { sharing: greenContexts, allowMultiplied: true } }".to_owned(), nowhere];
    let node = Node::start(options).unwrap();
    eventually("the device is shared so", SOON, || is_as_wanted(&node).then_some(()));
    assert_eq!(node.status().unwrap()["devices"][0]["multiplied"], true);
    let (alerts, review) = (start_loop(&node, "alerts"), start_loop(&node, "review"));
    // 64 SMs each, half of the time.
    let [a, r] = eventually("both have half of the SMs for half of the time", SOON * 3, || {
        let rows = window(&node, MEASURED, [alerts.pid(), review.pid()]);
        rows.iter().all(|row| (24..=33).contains(&sms(row))).then_some(rows)
    });
    assert_eq!((parts(&a), parts(&r)), (vec![(0, 64)], vec![(64, 64)]));
}

#[test]
fn a_share_too_small_for_a_group_gets_no_context_rather_than_all_sms() {
    let _turn = alone();
    let node = start("greenContexts", tenants(98, 2), &[]);
    let mut puppet = Puppet::in_tenant(&node, "review");
    assert_eq!(puppet.ask("init"), Err(NOT_PERMITTED));
}
