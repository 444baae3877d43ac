//! Memory quotas hold exactly, by every route to the driver, and every view tells the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use headgate_harness::TenantSpec;
use support::{MIB, Puppet, SOON, device_row, eventually_used, node, used_bytes};

/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: u32 = 2;

#[test]
fn an_allocation_beyond_the_quota_is_out_of_memory_and_nothing_else() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    for mut puppet in [Puppet::in_tenant(&node, "alerts"), Puppet::by_proc_address(&node, "alerts")] {
        puppet.must("init");
        puppet.must(&format!("alloc {}", 1000 * MIB));
        assert_eq!(puppet.ask(&format!("alloc {}", 25 * MIB)), Err(OUT_OF_MEMORY));
        puppet.must(&format!("alloc {}", 24 * MIB));
        assert_eq!(puppet.ask("alloc 1"), Err(OUT_OF_MEMORY), "the quota is full to the byte");
        puppet.must("free");
        puppet.must(&format!("alloc-async {}", 24 * MIB));
        assert_eq!(puppet.ask("alloc-async 1"), Err(OUT_OF_MEMORY));
        puppet.must("free-async");
        puppet.must("free");
        assert_eq!(used_bytes(&node, "alerts"), 0);
    }
    assert!(6 <= device_row(&node, "alerts")["denied_allocations"].as_u64().unwrap());
}

#[test]
fn pitched_allocations_are_charged_with_their_true_pitch() {
    let node = node(vec![TenantSpec::new("alerts").memory("64Mi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    puppet.must("alloc-pitch 1000 1024");
    let used = used_bytes(&node, "alerts");
    assert!((1000 * 1024..=1024 * 1024).contains(&used), "{used}");
    assert_eq!(puppet.ask("alloc-pitch 65536 1025"), Err(OUT_OF_MEMORY));
    puppet.must("free");
    assert_eq!(used_bytes(&node, "alerts"), 0);
}

#[test]
fn two_processes_of_a_tenant_share_one_quota() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi"), TenantSpec::new("review").memory("1Gi")]);
    let mut first = Puppet::in_tenant(&node, "alerts");
    let mut second = Puppet::in_tenant(&node, "alerts");
    let mut other = Puppet::in_tenant(&node, "review");
    for puppet in [&mut first, &mut second, &mut other] {
        puppet.must("init");
    }
    first.must(&format!("alloc {}", 700 * MIB));
    assert_eq!(second.ask(&format!("alloc {}", 400 * MIB)), Err(OUT_OF_MEMORY));
    second.must(&format!("alloc {}", 324 * MIB));
    other.must(&format!("alloc {}", 1024 * MIB));
    assert_eq!(used_bytes(&node, "alerts"), 1024 * MIB);
}

#[test]
fn cuda_and_nvml_show_the_quota_and_agree() {
    let node = node(vec![TenantSpec::new("alerts").memory("8Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    let mut peer = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    peer.must("init");
    let total = 8192 * MIB;
    assert_eq!(puppet.must("total"), [total]);
    for (command, used) in [("info", 0), ("alloc 1048576", 1), ("alloc 104857600", 101), ("free", 1)] {
        puppet.must(command);
        let free = total - used * MIB;
        assert_eq!(puppet.must("info"), [free, total], "after {command}");
        assert_eq!(puppet.must("nvml"), [free, total, used * MIB], "after {command}");
        assert_eq!(puppet.must("nvml2"), [free, total, used * MIB], "after {command}");
        assert_eq!(peer.must("info"), [free, total], "another process of the tenant, after {command}");
    }
}

#[test]
fn a_program_that_only_asks_nvml_sees_its_quota_too() {
    let node = node(vec![TenantSpec::new("alerts").memory("8Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    assert_eq!(puppet.must("nvml"), [8192 * MIB, 8192 * MIB, 0]);
    // Its session began before CUDA did; the quota holds all the same.
    puppet.must("init");
    assert_eq!(puppet.ask(&format!("alloc {}", 8193 * MIB)), Err(OUT_OF_MEMORY));
    puppet.must(&format!("alloc {}", 8192 * MIB));
}

#[test]
fn a_tenant_without_a_memory_quota_sees_the_device() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    let mut native = Puppet::native(&node);
    puppet.must("init");
    native.must("init");
    assert_eq!(puppet.must("total"), native.must("total"));
    assert_eq!(puppet.must("info"), native.must("info"));
}

#[test]
fn an_unenforced_tenant_gets_the_drivers_own_answers() {
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi").with("enforcement: off")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    puppet.must(&format!("alloc {}", 2048 * MIB));
    assert_eq!(used_bytes(&node, "alerts"), 0);
}

#[test]
fn a_driver_that_fails_leaves_no_charge() {
    let node = node(vec![TenantSpec::new("alerts").memory("8Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    for (call, command) in [
        ("cuMemAlloc_v2", "alloc 1048576"),
        ("cuMemAllocAsync", "alloc-async 1048576"),
        ("cuMemAllocPitch_v2", "alloc-pitch 1024 1024"),
    ] {
        node.device().control().inject_fault(call, 2, 1, None).unwrap();
        assert_eq!(puppet.ask(command), Err(OUT_OF_MEMORY), "the driver's own code for {call}");
        assert_eq!(used_bytes(&node, "alerts"), 0, "{call}");
    }
    puppet.must("alloc 1048576");
    node.device().control().inject_fault("cuMemFree_v2", 719, 1, None).unwrap();
    assert_eq!(puppet.ask("free"), Err(719));
    assert_eq!(used_bytes(&node, "alerts"), MIB, "a failed free frees nothing");
}

#[test]
fn a_context_takes_its_allocations_with_it() {
    let node = node(vec![TenantSpec::new("alerts").memory("8Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
    puppet.must("alloc 1048576");
    puppet.must("alloc-async 1048576");
    puppet.must("reset");
    eventually_used(&node, "alerts", 0, SOON);
}

#[test]
fn frees_of_foreign_addresses_are_the_drivers_business() {
    let node = node(vec![TenantSpec::new("alerts").memory("8Gi")]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    let mut native = Puppet::native(&node);
    puppet.must("init");
    native.must("init");
    assert_eq!(puppet.ask("free-address 12345"), native.ask("free-address 12345"));
    assert_eq!(puppet.ask("free-address 0"), native.ask("free-address 0"));
}
