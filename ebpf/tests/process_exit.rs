//! Exits of tenants' processes.

mod support;

use std::{os::fd::AsRawFd as _, time::Duration};

use headgate_ebpf::{Config, Counter, Exit, Probe, Probes, Slot};
use support::{bench, eventually, now, skip};

/// Waits on the descriptor, as a daemon would.
fn wait_readable(probes: &Probes) {
    let fd = probes.exits_fd().expect("the probe is loaded").as_raw_fd();
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    #[expect(unsafe_code, reason = "poll(2)")]
    // SAFETY: one valid structure, and the count says so.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
    assert_eq!(ready, 1, "no exit within ten seconds");
}

#[test]
fn a_tenants_exit_is_told_and_a_strangers_is_counted() {
    let mut bench = match bench(&[Probe::ProcessExit], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let slot = Slot::of_tenant(3).expect("a small index");
    let container = bench.root.child("container");
    // The network probe may be missing here; exits must come all the same.
    if let Err(error) = bench.probes.set_cgroup(&bench.root.cgroup, slot) {
        println!("another probe refused the cgroup: {error}");
    }
    let client = bench.client(&container);
    let pid = client.pid();
    let killed_at = now();
    client.kill();
    wait_readable(&bench.probes);
    let told_after = killed_at.elapsed();
    let mut exits: Vec<Exit> = Vec::new();
    assert_eq!(bench.probes.drain_exits(|exit| exits.push(exit)), 1);
    let [exit] = exits[..] else { panic!("{exits:?}") };
    assert_eq!((exit.tgid, exit.slot, exit.cgroup_id), (pid, slot, container.cgroup.id()));
    assert!(exit.at_ns > 0);
    assert!(
        told_after < Duration::from_secs(1),
        "a seat must be free within a second; told after {told_after:?}"
    );

    let outside = |probes: &Probes| probes.counters().expect("readable")[&Counter::ExitOutside];
    let before = outside(&bench.probes);
    bench.outsider().kill();
    assert!(
        eventually(|| (outside(&bench.probes) > before).then_some(())).is_some(),
        "strangers are counted"
    );
    assert_eq!(bench.probes.drain_exits(|exit| panic!("{exit:?} was in no tenant's cgroup")), 0);
    let counters = bench.probes.counters().expect("readable");
    assert_eq!((counters[&Counter::ExitSent], counters[&Counter::ExitLost]), (1, 0));
}

#[test]
fn exits_that_nobody_drains_are_lost_by_count() {
    let mut bench = match bench(&[Probe::ProcessExit], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let slot = Slot::of_tenant(0).expect("a small index");
    if let Err(error) = bench.probes.set_cgroup(&bench.root.cgroup, slot) {
        println!("another probe refused the cgroup: {error}");
    }
    // More than the ring holds.
    bench.root.run_forks(2300);
    let mut drained = 0;
    let mut batches = 0;
    loop {
        let batch = bench.probes.drain_exits(|_| ());
        if batch == 0 {
            break;
        }
        drained += batch as u64;
        batches += 1;
    }
    let counters = bench.probes.counters().expect("readable");
    let (sent, lost) = (counters[&Counter::ExitSent], counters[&Counter::ExitLost]);
    assert_eq!(sent + lost, 2301, "every exit is either sent or counted as lost");
    assert_eq!(drained, sent);
    assert!(lost > 0 && batches > 0, "the ring was meant to overflow: {sent} sent, {lost} lost");
}
