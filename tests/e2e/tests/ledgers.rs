//! The hook's ledger, the kernel's and the driver's, through the daemon.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::{Node, TenantSpec, eventually, is_root, skipped};
use support::{Puppet, SOON, node};

fn figures(node: &Node, tenant: &str) -> Option<[f64; 3]> {
    let page = node.metrics().unwrap();
    let tenant = format!("tenant=\"{tenant}\"");
    let of = |family: &str, ledger: &str| page.value(family, &[&tenant, &format!("ledger=\"{ledger}\"")]);
    let (bytes, drift) = ("headgate_ledger_bytes", "headgate_ledger_drift_bytes");
    Some([of(bytes, "hook")?, of(bytes, "probes")?, of(drift, "probes")?])
}

/// A look at the ledgers is taken four times a second, and counts when it was so for a second.
fn eventually_all(node: &Node, tenant: &str, bytes: f64) {
    let mut last = None;
    eventually(&format!("{tenant} holds {bytes} by both ledgers"), SOON, || {
        last = figures(node, tenant);
        (last == Some([bytes, bytes, 0.0])).then_some(())
    });
}

#[test]
fn a_hundred_thousand_random_operations_with_forks_and_kills_leave_no_drift() {
    let name = "a_hundred_thousand_random_operations_with_forks_and_kills_leave_no_drift";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_122_u64);
    println!("SEED={seed}");
    let node = node(vec![TenantSpec::new("clinic"), TenantSpec::new("other")]);
    let mut operations = 0;
    // Children first: a process that has started CUDA cannot hand it to a fork.
    let mut puppets: Vec<Puppet> = (0..3).map(|_| Puppet::in_tenant(&node, "clinic")).collect();
    for (number, puppet) in (0u64..).zip(&mut puppets) {
        puppet.must(&format!("children 4 {} 2000", seed + 10 * number));
        operations += 4 * 2_000;
        puppet.must("init");
    }
    let mut worst: f64 = 0.0;
    for round in 0..5u64 {
        let mut held = 0;
        for (number, puppet) in (0u64..).zip(&mut puppets) {
            puppet.tell(&format!("random {} 6000", seed + 100 * round + number));
        }
        for puppet in &mut puppets {
            held += puppet.answer().unwrap()[0];
            operations += 6_000;
            worst = worst.max(figures(&node, "clinic").map_or(0.0, |[_, _, drift]| drift));
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        eventually_all(&node, "clinic", held as f64);
    }
    assert!(100_000 <= operations, "{operations} operations");
    assert_eq!(worst, 0.0, "not even while they went on");
    // Killed with all that they hold.
    puppets.into_iter().for_each(Puppet::kill);
    eventually_all(&node, "clinic", 0.0);
    eventually_all(&node, "other", 0.0);
    let lost = ["ledger_lost", "ledger_full", "ledger_abandoned", "ledger_unsized"];
    let page = node.metrics().unwrap();
    for event in lost {
        let label = format!("event=\"{event}\"");
        assert_eq!(page.value("headgate_probe_events_total", &[&label]), Some(0.0), "{event}");
    }
}

#[test]
fn memory_that_the_hook_does_not_know_of_is_drift_with_its_tenants_name() {
    let name = "memory_that_the_hook_does_not_know_of_is_drift_with_its_tenants_name";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let node = node(vec![TenantSpec::new("clinic"), TenantSpec::new("other")]);
    let mut hooked = Puppet::in_tenant(&node, "clinic");
    hooked.must("init");
    hooked.must("alloc 4096");
    eventually_all(&node, "clinic", 4_096.0);
    let mut bare = Puppet::native_in(&node, "clinic");
    bare.must("init");
    bare.must("alloc 65536");
    eventually("what goes around the hook is drift", SOON, || {
        (figures(&node, "clinic") == Some([4_096.0, 69_632.0, 65_536.0])).then_some(())
    });
    assert_eq!(figures(&node, "other"), Some([0.0; 3]), "and nobody else's");
    bare.kill();
    eventually_all(&node, "clinic", 4_096.0);
}
