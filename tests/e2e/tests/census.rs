//! What the driver itself says of a tenant: who is on the device, and how much memory they have.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, is_root, skipped};
use serde_json::{Value, json};
use support::{MIB, Puppet, SOON, device_row, node, tenant_row, used_bytes};

const OUT_OF_MEMORY: u32 = 2;

fn driver_bytes(node: &Node, tenant: &str) -> Option<u64> {
    device_row(node, tenant)["memory_driver_bytes"].as_u64()
}

fn eventually_row(node: &Node, tenant: &str, what: &str, holds: impl Fn(&Value) -> bool) {
    eventually(what, SOON, || holds(&device_row(node, tenant)).then_some(()));
}

#[test]
fn a_process_without_the_hook_is_named() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi"), TenantSpec::new("idle").memory("1Gi")]);
    let mut seated = Puppet::in_tenant(&node, "alerts");
    seated.must("init");
    seated.must(&format!("alloc {}", 10 * MIB));
    eventually_row(&node, "alerts", "the driver tells of the seated one", |row| {
        // This driver is older than limits for cgroups.
        row["memory_driver_bytes"] == 10 * MIB && row["status"] == "Nominal" && row["enforced_by"] == "hook"
    });

    let mut stray = Puppet::in_tenant_without_hook(&node, "alerts");
    stray.must("init");
    stray.must(&format!("alloc {}", 50 * MIB));
    eventually_row(&node, "alerts", "the stray one is named", |row| {
        row["status"] == "Unenforced"
            && row["unenforced"] == json!([stray.pid()])
            && row["memory_driver_bytes"] == 60 * MIB
    });
    assert_eq!(used_bytes(&node, "alerts"), 10 * MIB, "nobody charges what goes around the hook");
    let status = node.status().unwrap();
    assert_eq!(tenant_row(&status, "alerts")["status"], "Unenforced");
    assert_eq!(tenant_row(&status, "idle")["status"], "Nominal");
    let page = node.metrics().unwrap();
    let value = |name: &str, labels: &[&str]| page.value(name, labels);
    assert_eq!(value("headgate_unenforced_processes", &["tenant=\"alerts\""]), Some(1.0));
    assert_eq!(value("headgate_unenforced_processes", &["tenant=\"idle\""]), Some(0.0));
    let held = ["tenant=\"alerts\"", "status=\"Unenforced\""];
    assert_eq!(value("headgate_tenant_status", &held), Some(1.0));

    stray.kill();
    eventually_row(&node, "alerts", "nobody is left to name", |row| {
        row["status"] == "Nominal" && row["unenforced"] == json!([]) && row["memory_driver_bytes"] == 10 * MIB
    });
}

#[test]
fn processes_that_come_and_go_are_never_taken_for_strays() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    for round in 0..20 {
        let mut puppet = Puppet::in_tenant(&node, "alerts");
        puppet.must("init");
        puppet.must("alloc 1048576");
        assert_eq!(device_row(&node, "alerts")["unenforced"], json!([]), "round {round}");
        puppet.kill();
        assert_eq!(device_row(&node, "alerts")["unenforced"], json!([]), "round {round}, killed");
    }
}

#[test]
fn an_adopted_ledger_agrees_with_the_driver() {
    let mut node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let (mut first, mut second) = (Puppet::in_tenant(&node, "alerts"), Puppet::in_tenant(&node, "alerts"));
    for (puppet, mebibytes) in [(&mut first, 100), (&mut second, 200)] {
        puppet.must("init");
        puppet.must(&format!("alloc {}", mebibytes * MIB));
    }
    eventually_row(&node, "alerts", "both ledgers agree", |row| row["memory_driver_bytes"] == 300 * MIB);
    node.kill_daemon().unwrap();
    second.must("free");
    second.must(&format!("alloc {}", 50 * MIB));
    first.kill();
    node.start_daemon().unwrap();
    eventually_row(&node, "alerts", "they agree on what happened meanwhile", |row| {
        row["memory_driver_bytes"] == 50 * MIB && row["memory_used_bytes"] == 50 * MIB
    });
    assert_eq!(device_row(&node, "alerts")["unenforced"], json!([]), "the adopted one has its seat");
}

#[test]
fn the_driver_holds_quotas_too_where_it_can() {
    if !is_root() {
        return skipped(
            "the_driver_holds_quotas_too_where_it_can",
            &"the driver takes limits from root only",
        );
    }
    let tenants = vec![TenantSpec::new("alerts").memory("1Gi"), TenantSpec::new("free")];
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "group_limits": true }));
    let mut node = Node::start(options).unwrap();
    let mut stray = Puppet::in_tenant_without_hook(&node, "alerts");
    stray.must("init");
    eventually_row(&node, "alerts", "the driver holds the quota", |row| row["enforced_by"] == "driver+hook");
    assert_eq!(device_row(&node, "free")["enforced_by"], "none", "without a quota there is nothing to hold");
    stray.must(&format!("alloc {}", 900 * MIB));
    assert_eq!(stray.ask(&format!("alloc {}", 200 * MIB)), Err(OUT_OF_MEMORY), "without any hook");

    node.set_tenants(vec![TenantSpec::new("alerts").memory("2Gi"), TenantSpec::new("free")]).unwrap();
    eventually_row(&node, "alerts", "the driver holds the new quota", |row| {
        row["memory_quota_bytes"] == 2048 * MIB && row["enforced_by"] == "driver+hook"
    });
    stray.must(&format!("alloc {}", 1100 * MIB));
    assert_eq!(stray.ask(&format!("alloc {}", 100 * MIB)), Err(OUT_OF_MEMORY));

    // Below what is in use nothing is taken away.
    node.set_tenants(vec![TenantSpec::new("alerts").memory("512Mi"), TenantSpec::new("free")]).unwrap();
    eventually_row(&node, "alerts", "the driver holds the small quota", |row| {
        row["memory_quota_bytes"] == 512 * MIB && row["enforced_by"] == "driver+hook"
    });
    assert_eq!(driver_bytes(&node, "alerts"), Some(2000 * MIB));
    assert_eq!(stray.ask("alloc 1048576"), Err(OUT_OF_MEMORY));

    // A quota that is taken back is lifted.
    node.set_tenants(vec![TenantSpec::new("alerts"), TenantSpec::new("free")]).unwrap();
    eventually("the driver lets go", SOON, || stray.ask("alloc 1048576").ok());
    assert_eq!(device_row(&node, "alerts")["enforced_by"], "none");
}

#[test]
fn every_view_agrees_while_others_allocate() {
    let limit = 1024 * MIB;
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let (mut looks, mut works) = (Puppet::in_tenant(&node, "alerts"), Puppet::in_tenant(&node, "alerts"));
    for puppet in [&mut looks, &mut works] {
        puppet.must("init");
        puppet.must(&format!("alloc {}", 10 * MIB));
    }
    let mut compared = 0;
    for _ in 0..40 {
        // Only ever more: two equal answers then mean that nothing came in between.
        for _ in 0..10 {
            works.tell("alloc 1048576");
        }
        for _ in 0..10 {
            let first = looks.must("nvml");
            let (cuda, second) = (looks.must("info"), looks.must("nvml2"));
            let last = looks.must("nvml");
            for view in [&first, &second, &last] {
                let (free, total, used) = (view[0], view[1], view[2]);
                assert_eq!((total, free + used), (limit, limit), "{view:?}");
                assert!(free <= limit - 20 * MIB, "what is held all the time shows: {view:?}");
            }
            assert_eq!(cuda[1], limit);
            assert!((last[0]..=first[0]).contains(&cuda[0]), "{first:?}, then {cuda:?}, then {last:?}");
            if first == last {
                assert_eq!(second, first);
                assert_eq!(cuda[0], first[0], "cuMemGetInfo between two equal answers of NVML");
                compared += 1;
            }
        }
    }
    assert!(40 <= compared, "only {compared} of 400 looks had no change in between");
    assert_eq!(looks.must("total"), [limit]);
}

#[test]
fn what_contexts_take_is_charged_and_shown_apart() {
    let mut options = NodeOptions::simulated(vec![TenantSpec::new("alerts").memory("1Gi")]);
    options.device = Some(json!({ "context_bytes": 100 * MIB }));
    let node = Node::start(options).unwrap();
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    // It is measured by a later call, once the program has been running for a while.
    eventually("the context is charged", SOON, || {
        puppet.must(&format!("alloc {}", 10 * MIB));
        puppet.must("free");
        (used_bytes(&node, "alerts") == 100 * MIB).then_some(())
    });
    puppet.must(&format!("alloc {}", 10 * MIB));
    eventually_row(&node, "alerts", "all figures agree", |row| {
        row["memory_used_bytes"] == 110 * MIB
            && row["memory_overhead_bytes"] == 100 * MIB
            && row["memory_driver_bytes"] == 110 * MIB
    });
    let value = node.metrics().unwrap().value("headgate_gpu_memory_overhead_bytes", &["tenant=\"alerts\""]);
    assert_eq!(value, Some(104_857_600.0));
    puppet.must("reset");
    eventually_row(&node, "alerts", "it goes with its context", |row| {
        row["memory_used_bytes"] == 0 && row["memory_overhead_bytes"] == 0
    });
}
