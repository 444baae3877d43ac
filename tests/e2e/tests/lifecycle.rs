//! Processes and daemons come and go, also by `kill -9`; ledgers and limits stay right.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::process::Command;
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, workspace};
use support::{MIB, Puppet, SOON, device_row, eventually_used, node, tenant_row, used_bytes};

const OUT_OF_MEMORY: u32 = 2;
/// `CUDA_ERROR_NOT_INITIALIZED`.
const NOT_INITIALISED: u64 = 3;
/// `CUDA_ERROR_NOT_PERMITTED`.
const NOT_PERMITTED: u32 = 800;
/// `CUDA_ERROR_SYSTEM_NOT_READY`.
const SYSTEM_NOT_READY: u32 = 802;
/// What the issue allows for cleaning up after a `kill -9`.
const CLEANUP: Duration = Duration::from_secs(1);

fn seats(node: &Node, tenant: &str) -> u64 {
    tenant_row(&node.status().unwrap(), tenant)["seats"].as_u64().expect("seats")
}

#[test]
fn a_killed_program_leaves_neither_seat_nor_memory() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi").sm(50)]);
    let mut survivor = Puppet::in_tenant(&node, "alerts");
    survivor.must("init");
    survivor.must("alloc 1048576");
    for command in ["alloc 104857600", "launch 200"] {
        let mut victim = Puppet::in_tenant(&node, "alerts");
        victim.ready();
        victim.must("alloc 104857600");
        victim.tell(command);
        victim.kill();
        eventually_used(&node, "alerts", MIB, CLEANUP);
        eventually("one seat is left", CLEANUP, || (seats(&node, "alerts") == 1).then_some(()));
    }
    survivor.must("free");
    assert_eq!(used_bytes(&node, "alerts"), 0);
}

#[test]
fn programs_outlive_the_daemon_and_the_next_one_adopts_them() {
    let mut node = node(vec![TenantSpec::new("alerts").memory("1Gi").sm(50)]);
    let mut busy = Puppet::in_tenant(&node, "alerts");
    let mut idle = Puppet::in_tenant(&node, "alerts");
    busy.ready();
    idle.must("init");
    busy.must(&format!("alloc {}", 100 * MIB));
    idle.must(&format!("alloc {}", 200 * MIB));

    node.kill_daemon().unwrap();
    busy.must("launch 300");
    busy.must("sync");
    assert_eq!(busy.must("count"), [300]);
    assert_eq!(busy.ask(&format!("alloc {}", 900 * MIB)), Err(OUT_OF_MEMORY), "the last known limit holds");
    busy.must("free");

    node.start_daemon().unwrap();
    // The idle program makes no call, so it cannot have said hello: the daemon found it by itself.
    eventually_used(&node, "alerts", 200 * MIB + 8, SOON);
    assert_eq!(seats(&node, "alerts"), 2);
    busy.must(&format!("alloc {}", 800 * MIB));
    assert_eq!(busy.ask(&format!("alloc {}", 100 * MIB)), Err(OUT_OF_MEMORY));
    idle.must("free");
    idle.kill();
    eventually_used(&node, "alerts", 800 * MIB + 8, CLEANUP);
    busy.kill();
    eventually_used(&node, "alerts", 0, CLEANUP);
}

#[test]
fn a_program_that_died_with_the_daemon_is_not_adopted() {
    let mut node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let mut first = Puppet::in_tenant(&node, "alerts");
    let mut second = Puppet::in_tenant(&node, "alerts");
    for puppet in [&mut first, &mut second] {
        puppet.must("init");
        puppet.must(&format!("alloc {}", 100 * MIB));
    }
    node.kill_daemon().unwrap();
    first.kill();
    node.start_daemon().unwrap();
    eventually_used(&node, "alerts", 100 * MIB, SOON);
    assert_eq!(seats(&node, "alerts"), 1);
}

#[test]
fn a_daemon_that_stops_in_order_leaves_programs_running() {
    let mut node = node(vec![TenantSpec::new("alerts").memory("1Gi").sm(50).with("mode: hard")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.ready();
    node.stop_daemon().unwrap();
    puppet.must("launch 300");
    puppet.must("sync");
    assert_eq!(puppet.must("count"), [300]);
}

#[test]
fn a_process_in_no_tenant_is_refused_or_gets_the_default_tenant() {
    let mut options = NodeOptions::simulated(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let refusing = Node::start(options.clone()).unwrap();
    assert_eq!(Puppet::stray(&refusing).ask("init"), Err(NOT_PERMITTED));
    let page = refusing.metrics().unwrap();
    assert!(page.value("headgate_sessions_refused_total", &["no_tenant"]).is_some_and(|count| 0.0 < count));

    options.default_tenant = Some("alerts".into());
    let taking = Node::start(options).unwrap();
    let mut puppet = Puppet::stray(&taking);
    puppet.must("init");
    assert_eq!(puppet.must("total"), [1024 * MIB]);
    assert_eq!(puppet.ask(&format!("alloc {}", 1025 * MIB)), Err(OUT_OF_MEMORY));
}

#[test]
fn without_a_daemon_cuda_does_not_start() {
    let mut node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    node.kill_daemon().unwrap();
    let mut puppet = Puppet::stray(&node);
    assert_eq!(puppet.ask("init"), Err(SYSTEM_NOT_READY));
    assert!(puppet.ask("alloc 1048576").is_err(), "ignoring the refusal gets nobody memory");
}

#[test]
fn forks_execs_and_closed_descriptors_keep_the_books_right() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    // Before its parent has started CUDA a child is a process like any other, and its memory goes with it.
    assert_eq!(puppet.must("fork"), [0]);
    eventually_used(&node, "alerts", 0, CLEANUP);
    puppet.must("init");
    puppet.must("alloc 1048576");
    // Afterwards CUDA does not start in a child, as the driver says; the books stay right.
    assert_eq!(puppet.must("fork"), [NOT_INITIALISED]);
    assert_eq!(used_bytes(&node, "alerts"), MIB);
    puppet.must("close-descriptors");
    let mut other = Puppet::in_tenant(&node, "alerts");
    other.must("init");
    other.must("alloc 1048576");
    assert_eq!(used_bytes(&node, "alerts"), 2 * MIB, "closing descriptors does not give memory back");
    drop(puppet);
    eventually_used(&node, "alerts", MIB, CLEANUP);
    other.must("exec");
    other.must("init");
    eventually_used(&node, "alerts", 0, CLEANUP);
    assert_eq!(seats(&node, "alerts"), 1);
}

#[test]
fn a_quota_changes_under_running_programs() {
    let mut node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    puppet.must(&format!("alloc {}", 512 * MIB));
    node.set_tenants(vec![TenantSpec::new("alerts").memory("256Mi")]).unwrap();
    eventually("the smaller quota is seen", SOON, || (puppet.must("total") == [256 * MIB]).then_some(()));
    assert_eq!(puppet.must("info"), [0, 256 * MIB], "free never goes below zero");
    assert_eq!(puppet.ask("alloc 1"), Err(OUT_OF_MEMORY), "new allocations are denied");
    assert_eq!(used_bytes(&node, "alerts"), 512 * MIB, "nothing is taken away");
    let row = device_row(&node, "alerts");
    assert_eq!(row["status"], "Throttled", "{row}");
    assert!(row["reason"].as_str().unwrap_or_default().contains("the quota shrank"), "{row}");
    node.set_tenants(vec![TenantSpec::new("alerts").memory("2Gi")]).unwrap();
    eventually("the greater quota is seen", SOON, || (puppet.must("total") == [2048 * MIB]).then_some(()));
    puppet.must(&format!("alloc {}", 1024 * MIB));
}

#[test]
fn a_broken_configuration_changes_nothing_and_is_reported() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let good = std::fs::read_to_string(node.config_file()).unwrap();
    std::fs::write(node.config_file(), good.replace("memory: 1Gi", "memroy: 2Gi")).unwrap();
    eventually("the failed reload is reported", SOON, || {
        let page = node.metrics().unwrap();
        (page.value("headgate_config_last_reload_successful", &[]) == Some(0.0)).then_some(())
    });
    assert_eq!(device_row(&node, "alerts")["memory_quota_bytes"], 1024 * MIB);
    std::fs::write(node.config_file(), good.replace("memory: 1Gi", "memory: 2Gi")).unwrap();
    eventually("the mended file is taken", SOON, || {
        (device_row(&node, "alerts")["memory_quota_bytes"] == 2048 * MIB).then_some(())
    });
}

#[test]
fn exit_statuses_and_signals_pass_through() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let shell = |script: &str| -> std::process::ExitStatus {
        let mut command: Command = node.command("alerts", std::path::Path::new("/bin/sh")).unwrap();
        command.args(["-c", script]).status().unwrap()
    };
    assert_eq!(shell("exit 7").code(), Some(7));
    assert!(shell("exit 0").success());
    let killed = shell("kill -TERM $$");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(15));
}

#[test]
fn an_unknown_tenant_and_a_missing_daemon_are_told_apart() {
    let mut node = node(vec![TenantSpec::new("alerts")]);
    let run = |node: &Node, tenant: &str| {
        node.command(tenant, std::path::Path::new("/bin/true")).unwrap().output().unwrap()
    };
    let unknown = run(&node, "alarms");
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("alarms"));
    node.kill_daemon().unwrap();
    let missing = run(&node, "alerts");
    assert!(!missing.status.success());
    assert_ne!(missing.stderr, unknown.stderr);
    assert!(workspace::program("headgate").is_ok());
}
