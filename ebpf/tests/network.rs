//! Round trips of tenants' TCP connections, over loopback.

mod support;

use headgate_ebpf::{Config, Probe, Slot, State};
use support::{Bench, TestCgroup, bench, eventually, skip};

fn slot(tenant: u32) -> Slot {
    Slot::of_tenant(tenant).expect("a small index")
}

/// Connections and round trips of a slot.
fn seen(bench: &Bench, slot: Slot) -> (u64, u64) {
    let sockets = bench.probes.sockets(slot).expect("the row exists").expect("the probe is loaded");
    let trips = bench.probes.round_trips(slot).expect("the row exists").expect("the probe is loaded");
    (sockets.established, trips.count())
}

fn ping(bench: &Bench, cgroup: &TestCgroup) {
    bench.client(cgroup).run("tcp 50");
}

#[test]
fn connections_are_counted_for_the_innermost_tenant() {
    let mut bench = match bench(&[Probe::NetworkRtt], Config { tenants: 4, ..Config::default() }) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    assert_eq!(bench.probes.status()[1].state, State::Idle);
    let tenant = bench.root.child("tenant");
    let container = tenant.child("container");
    let inner = tenant.child("inner-tenant");
    if let Err(why) = bench.probes.set_cgroup(&tenant.cgroup, slot(1)) {
        skip!("{why}");
    }
    bench.probes.set_cgroup(&inner.cgroup, slot(2)).expect("one could be attached");
    assert!(bench.probes.status()[1].up(), "{}", bench.probes.status()[1]);

    ping(&bench, &container);
    let (connections, trips) = seen(&bench, slot(1));
    assert_eq!(connections, 2, "both ends are the tenant's");
    assert!(trips >= 50, "every acknowledged byte measures a round trip; {trips} seen");
    let durations = bench.probes.round_trips(slot(1)).expect("the row exists").expect("loaded");
    let mean = durations.sum_seconds() / u32::try_from(trips).map_or(f64::NAN, f64::from);
    assert!(mean > 0.0 && mean < 1.0, "a loopback round trip of {mean} s");

    ping(&bench, &inner);
    assert_eq!(seen(&bench, slot(1)).0, 2, "the inner tenant's connections are not the outer's");
    assert_eq!(seen(&bench, slot(2)).0, 2);

    let before = seen(&bench, slot(1));
    ping(&bench, &bench.root);
    assert_eq!(seen(&bench, slot(1)), before, "outside any tenant nothing is attached");

    // The same cgroup for another tenant, then for none.
    bench.probes.set_cgroup(&tenant.cgroup, slot(3)).expect("attached already");
    ping(&bench, &container);
    assert_eq!((seen(&bench, slot(1)), seen(&bench, slot(3)).0), (before, 2));
    bench.probes.remove_cgroup(tenant.cgroup.id()).expect("a named cgroup");
    ping(&bench, &container);
    assert_eq!(seen(&bench, slot(3)).0, 2);
    bench.probes.clear(slot(3)).expect("the row exists");
    assert_eq!(seen(&bench, slot(3)), (0, 0));
    assert_eq!(bench.probes.counters().expect("readable")[&headgate_ebpf::Counter::RttRefused], 0);
    drop((container, inner));
}

#[test]
fn segments_sent_again_are_counted() {
    let mut bench = match bench(&[Probe::NetworkRtt], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    if let Err(why) = bench.probes.set_cgroup(&bench.root.cgroup, slot(0)) {
        skip!("{why}");
    }
    let retransmits = |bench: &Bench| {
        bench.probes.sockets(slot(0)).expect("the row exists").expect("the probe is loaded").retransmits
    };
    ping(&bench, &bench.root);
    assert_eq!(retransmits(&bench), 0);
    bench.client(&bench.root).run("lossy");
    assert!(retransmits(&bench) >= 1, "the receiver dropped the first one");
}

#[test]
fn a_cgroup_that_is_gone_is_refused_and_leaves_no_trace() {
    let mut bench = match bench(&[Probe::NetworkRtt], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let gone = bench.root.child("gone");
    let id = gone.cgroup.id();
    let held = headgate_ebpf::Cgroup::open(&gone.path()).expect("still there");
    drop(gone);
    // The kernel may take a moment to let go of a removed cgroup.
    let refused = eventually(|| bench.probes.set_cgroup(&held, slot(0)).err());
    let Some(error) = refused else { skip!("this kernel attaches to removed cgroups") };
    assert!(error.to_string().contains("network_rtt"), "{error}");
    let status = &bench.probes.status()[1];
    assert_eq!(status.state, State::Idle, "{status}");
    assert!(!status.reason.is_empty());
    bench.probes.remove_cgroup(id).expect("removing twice is no error");
}
