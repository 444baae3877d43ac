//! What an operator sees: metrics, health, status, kernel probes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::{TenantSpec, eventually, is_root, skipped};
use support::{MIB, Puppet, SOON, node};

#[test]
fn the_metrics_page_tells_what_happened() {
    let node = node(vec![
        TenantSpec::new("alerts").district("north").memory("1Gi").sm(70),
        TenantSpec::new("idle").district("south").memory("2Gi"),
    ]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.ready();
    puppet.must("alloc 1048576");
    assert!(puppet.ask("alloc 2147483648").is_err());
    puppet.must("launch 500");
    puppet.must("sync");
    let alerts = ["tenant=\"alerts\"", "district=\"north\""];
    let idle = ["tenant=\"idle\""];
    let page = eventually("the launches are counted", SOON, || {
        let page = node.metrics().unwrap();
        (page.value("headgate_launches_total", &alerts) == Some(500.0)).then_some(page)
    });
    let expect = |name: &str, labels: &[&str], value: f64| {
        assert_eq!(page.value(name, labels), Some(value), "{name}{labels:?}");
    };
    expect("headgate_gpu_memory_used_bytes", &alerts, 1_048_584.0);
    expect("headgate_gpu_memory_quota_bytes", &alerts, 1_073_741_824.0);
    expect("headgate_gpu_allocations_denied_total", &alerts, 1.0);
    expect("headgate_gpu_sm_quota_ratio", &alerts, 0.7);
    expect("headgate_seats", &alerts, 1.0);
    // A tenant that never did anything has its series all the same.
    expect("headgate_gpu_memory_used_bytes", &idle, 0.0);
    expect("headgate_launches_total", &idle, 0.0);
    expect("headgate_seats", &idle, 0.0);
}

#[test]
fn counters_survive_the_process_that_made_them() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi").sm(70)]);
    for round in 1..=3u32 {
        let mut puppet = Puppet::in_tenant(&node, "alerts");
        puppet.ready();
        puppet.must("launch 100");
        puppet.must("sync");
        puppet.kill();
        eventually("the launches of dead processes stay counted", SOON, || {
            let counted = node.metrics().unwrap().value("headgate_launches_total", &["tenant=\"alerts\""]);
            (counted == Some(f64::from(100 * round))).then_some(())
        });
    }
}

#[test]
fn health_and_readiness_are_told_apart() {
    let node = node(vec![TenantSpec::new("alerts")]);
    assert_eq!(node.get("/healthz").unwrap().0, 200);
    assert_eq!(node.get("/readyz").unwrap().0, 200);
    assert_eq!(node.get("/nothing").unwrap().0, 404);
}

#[test]
fn kernel_probes_attribute_gpu_waits_to_the_tenant() {
    if !is_root() {
        return skipped(
            "kernel_probes_attribute_gpu_waits_to_the_tenant",
            &"needs root to load kernel programs",
        );
    }
    let node = node(vec![TenantSpec::new("alerts").district("north").sm(70), TenantSpec::new("other")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.ready();
    eventually("as root on a kernel with BPF every probe is up", SOON, || {
        let status = node.status().unwrap();
        let probes = status["probes"].as_array().expect("status lists probes").clone();
        (!probes.is_empty() && probes.iter().all(|probe| probe["up"] == true)).then_some(())
    });
    for _ in 0..20 {
        puppet.must("launch 10");
        puppet.must("sync");
    }
    let count = |tenant: &str| {
        let label = format!("tenant=\"{tenant}\"");
        node.metrics().unwrap().value("headgate_gpu_wait_seconds_count", &[&label]).unwrap_or(-1.0)
    };
    eventually("twenty waits are attributed", SOON, || (20.0 <= count("alerts")).then_some(()));
    assert!(count("other") <= 0.0, "nobody else waited");
}

#[test]
fn memory_units_are_what_they_say() {
    let node = node(vec![TenantSpec::new("alerts").memory("1.5Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    assert_eq!(puppet.must("total"), [1536 * MIB]);
}

#[test]
fn xid_errors_are_counted_by_device_and_number() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let control = node.device().control();
    let count = |xid: &str| {
        let page = node.metrics().unwrap();
        page.value("headgate_xid_errors_total", &[&format!("xid=\"{xid}\""), "gpu=\"GPU-"]).unwrap_or(0.0)
    };
    eventually("somebody listens", SOON, || {
        control.xid(0, 31).unwrap();
        (count("31") > 0.0).then_some(())
    });
    for xid in [79, 13, 79] {
        control.xid(0, xid).unwrap();
    }
    eventually("each is counted once", SOON, || ((count("79"), count("13")) == (2.0, 1.0)).then_some(()));
    assert_eq!(count("48"), 0.0);
}
