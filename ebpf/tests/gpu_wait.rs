//! GPU waits, seen from outside: real processes in real cgroups calling a driver library of our own.

mod support;

use std::collections::BTreeMap;

use headgate_ebpf::{AttachPreference, Config, Counter, Durations, Error, Mode, Probe, Slot, State};
use headgate_ebpf_records::limits::NESTED_WAITS_MAX;
use support::{Bench, bench, compile_program, skip};

const MS: u64 = 1_000_000;

/// Every way to attach, and what it is called where the kernel has it.
const WAYS: [(AttachPreference, Mode); 3] = [
    (AttachPreference::Best, Mode::UprobeSession),
    (AttachPreference::Apart, Mode::UprobeMulti),
    (AttachPreference::PerfOnly, Mode::UprobePerf),
];

fn slot(tenant: u32) -> Slot {
    Slot::of_tenant(tenant).expect("a small index")
}

fn waits(bench: &Bench, slot: Slot) -> Durations {
    bench.probes.gpu_waits(slot).expect("the row exists").expect("the probe is loaded")
}

fn counter(bench: &Bench, counter: Counter) -> u64 {
    bench.probes.counters().expect("counters can be read")[&counter]
}

#[test]
fn every_prologue_and_variant_is_timed_once() {
    for (attach, mode) in WAYS {
        let mut bench = match bench(&[Probe::GpuWait], Config { tenants: 4, attach, ..Config::default() }) {
            Ok(bench) => bench,
            Err(why) => skip!("{why}"),
        };
        let library = bench.library.clone();
        let attached = bench.probes.attach_library(&library).expect("the library exports sync calls");
        if attached.mode != mode {
            println!("SKIPPED: {mode:?}: {:?}", bench.probes.status());
            continue;
        }
        assert_eq!(
            attached.symbols,
            [
                "cuCtxSynchronize",
                "cuCtxSynchronize_v2",
                "cuEventSynchronize",
                "cuMemcpy3D_v2",
                "cuMemcpyDtoH_v2",
                "cuMemcpyHtoD_v2",
                "cuStreamSynchronize",
                "cuStreamSynchronize_ptsz"
            ]
        );
        assert_eq!(
            (attached.sites, attached.single_stepped),
            (7, 1),
            "one alias; only the sub is single-stepped"
        );
        bench.probes.set_cgroup(&bench.root.cgroup, slot(1)).expect("a cgroup of ours");

        let mut client = bench.client(&bench.root);
        let mut calls = 0;
        let mut elapsed = 0;
        // The copy sleeps twice, once in the call inside it, and is one wait.
        for function in [
            "cuCtxSynchronize",
            "cuCtxSynchronize_v2",
            "cuEventSynchronize",
            "cuMemcpy3D_v2",
            "cuMemcpyDtoH_v2",
            "cuMemcpyHtoD_v2",
            "cuStreamSynchronize",
            "cuStreamSynchronize_ptsz",
        ] {
            elapsed += client.call(function, 3 * MS, 3).as_nanos();
            calls += 3;
            let seen = waits(&bench, slot(1));
            assert_eq!(seen.count(), calls, "{function} ({mode:?})");
        }
        client.call("cuLaunchKernel", 0, 5);

        let seen = waits(&bench, slot(1));
        assert_eq!(seen.count(), calls, "a launch is no wait");
        let slept = u128::from((calls + 3) * 3 * MS);
        let sum = u128::from(seen.sum_ns());
        assert!(
            slept <= sum && sum <= elapsed,
            "slept {slept}, seen {sum}, measured by the client {elapsed}"
        );
        let too_short: u64 = seen.buckets().filter(|(bound, _)| *bound < 0.003).map(|(_, count)| count).sum();
        assert_eq!(too_short, 0, "nothing shorter than the sleep");
        assert_eq!(waits(&bench, Slot::UNKNOWN).count(), 0);
        // Three tail calls: each starts twice in one frame and its second return finds nothing to end.
        assert_eq!(counter(&bench, Counter::WaitRestarted), 3);
        assert_eq!(counter(&bench, Counter::WaitUnmatched), 3);
        assert_eq!(counter(&bench, Counter::WaitNested), 3, "the calls inside the copies");
        assert_eq!(counter(&bench, Counter::WaitAbandoned) + counter(&bench, Counter::WaitStartLost), 0);
    }
}

#[test]
fn the_innermost_named_cgroup_decides() {
    let mut bench = match bench(&[Probe::GpuWait], Config { tenants: 8, ..Config::default() }) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let library = bench.library.clone();
    bench.probes.attach_library(&library).expect("the library exports sync calls");
    let tenant = bench.root.child("tenant");
    let container = tenant.child("container");
    let inner = container.child("inner-tenant");
    bench.probes.set_cgroup(&tenant.cgroup, slot(0)).expect("a cgroup of ours");
    bench.probes.set_cgroup(&inner.cgroup, slot(7)).expect("a cgroup of ours");

    for cgroup in [&tenant, &container, &inner, &bench.root] {
        bench.client(cgroup).call("cuCtxSynchronize", 0, 5);
    }
    let counts = |bench: &Bench| [slot(0), slot(7), Slot::UNKNOWN].map(|slot| waits(bench, slot).count());
    assert_eq!(counts(&bench), [10, 5, 5], "tenant and its container, the tenant inside it, nobody's");

    // One process through every change: its thread's cached answer must not outlive them.
    let mut client = bench.client(&container);
    client.call("cuCtxSynchronize", 0, 1);
    assert_eq!(counts(&bench), [11, 5, 5]);
    inner.adopt(client.pid());
    client.call("cuCtxSynchronize", 0, 1);
    assert_eq!(counts(&bench), [11, 6, 5], "moved to another cgroup");
    bench.probes.remove_cgroup(inner.cgroup.id()).expect("a named cgroup");
    client.call("cuCtxSynchronize", 0, 1);
    assert_eq!(counts(&bench), [12, 6, 5], "its tenant removed: falls to the one around it");
    bench.probes.remove_cgroup(tenant.cgroup.id()).expect("a named cgroup");
    client.call("cuCtxSynchronize", 0, 1);
    assert_eq!(counts(&bench), [12, 6, 6], "no tenant left");
    bench.probes.set_cgroup(&tenant.cgroup, slot(7)).expect("a cgroup of ours");
    client.call("cuCtxSynchronize", 0, 1);
    assert_eq!(counts(&bench), [12, 7, 6], "added live");
    bench.probes.remove_cgroup(u64::MAX).expect("a cgroup never named is no error");

    bench.probes.clear(slot(7)).expect("the row exists");
    assert_eq!(counts(&bench), [12, 0, 6]);
    drop(client);
    drop(inner);
    drop(container);
}

#[test]
fn a_call_left_by_a_jump_heals_and_is_counted() {
    let mut bench = match bench(&[Probe::GpuWait], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let library = bench.library.clone();
    bench.probes.attach_library(&library).expect("the library exports sync calls");
    bench.probes.set_cgroup(&bench.root.cgroup, slot(0)).expect("a cgroup of ours");
    let mut client = bench.client(&bench.root);
    client.run("jump cuCtxSynchronize 0 10");
    assert_eq!(waits(&bench, slot(0)).count(), 10, "every call that returned");
    assert_eq!(counter(&bench, Counter::WaitRestarted), 1, "a call repeated in the frame that was left");

    client.run("jump cuCtxSynchronize 1 100");
    let lost = counter(&bench, Counter::WaitNested);
    assert_eq!(lost, u64::from(NESTED_WAITS_MAX), "calls from deeper look nested, but not for ever");
    assert_eq!(waits(&bench, slot(0)).count() + lost, 110, "and none is missed uncounted");
    assert_eq!(counter(&bench, Counter::WaitAbandoned), 1);
    client.call("cuCtxSynchronize", 0, 1000);
    assert_eq!(waits(&bench, slot(0)).count() + lost, 1110, "the thread is none the worse");
}

#[test]
fn a_process_on_several_gpus_waits_for_the_one_that_its_hook_names() {
    for (attach, _) in WAYS {
        let mut bench = match bench(&[Probe::GpuWait], Config { tenants: 4, attach, ..Config::default() }) {
            Ok(bench) => bench,
            Err(why) => skip!("{why}"),
        };
        let library = bench.library.clone();
        bench.probes.attach_library(&library).expect("the library exports sync calls");
        bench.probes.set_cgroup(&bench.root.cgroup, slot(1)).expect("a cgroup of ours");
        let mut client = bench.client(&bench.root);
        let counts = |bench: &Bench| {
            let latencies = bench.probes.latencies(slot(1)).expect("the row exists");
            let count = |gpu| {
                let of_gpu = latencies.iter().find(|latency| latency.gpu == gpu);
                of_gpu.and_then(|latency| latency.wait.as_ref()).map_or(0, Durations::count)
            };
            [count(None), count(Some(0)), count(Some(3))]
        };
        client.run("told cuCtxSynchronize 0 2 3");
        assert_eq!(counts(&bench), [2, 0, 0], "nobody has said yet that it is on that GPU");

        let one = BTreeMap::from([(client.pid(), (slot(1), vec![0]))]);
        assert_eq!(bench.probes.seat(&one).expect("the kernel takes it"), 0);
        client.call("cuCtxSynchronize", 0, 3);
        client.run("told cuStreamSynchronize 0 4 0");
        assert_eq!(counts(&bench), [2, 7, 0], "one GPU: named or not");
        client.run("told cuCtxSynchronize 0 1 3");
        assert_eq!(counts(&bench), [3, 7, 0], "but never for one that it names and does not have");

        let two = BTreeMap::from([(client.pid(), (slot(1), vec![0, 3]))]);
        assert_eq!(bench.probes.seat(&two).expect("the kernel takes it"), 0);
        for _ in 0..3 {
            client.run("told cuCtxSynchronize 0 5 3");
            client.run("told cuMemcpy3D_v2 0 2 0");
        }
        assert_eq!(counts(&bench), [3, 13, 15]);
        client.call("cuCtxSynchronize", 0, 1);
        assert_eq!(counts(&bench), [4, 13, 15], "which one, nobody knows");
        assert_eq!(waits(&bench, slot(1)).count(), 32, "and none is missed");
    }
}

#[test]
fn a_driver_linked_into_a_program_is_found_there() {
    let mut bench = match bench(&[Probe::GpuWait], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let program = match compile_program("linked.c", &["-static"]) {
        Ok(program) => program,
        Err(why) => skip!("{why}"),
    };
    bench.probes.set_cgroup(&bench.root.cgroup, slot(0)).expect("a cgroup of ours");
    let mut linked = bench.program(&program, &bench.root);
    linked.call("cuCtxSynchronize", 0, 3);
    assert_eq!(waits(&bench, slot(0)).count(), 0, "unknown, so unseen");
    assert_eq!(bench.probes.attach_process(linked.pid()).expect("it runs"), 1, "the program itself");
    linked.call("cuCtxSynchronize", 0, 4);
    assert_eq!(waits(&bench, slot(0)).count(), 4, "as in a library");
}

#[test]
fn a_file_is_attached_once_whatever_its_names() {
    let mut bench = match bench(&[Probe::GpuWait], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let idle = bench.probes.status().remove(0);
    assert_eq!((idle.state, idle.mode), (State::Idle, None), "{idle}");
    let library = bench.library.clone();
    let first = bench.probes.attach_library(&library).expect("the library exports sync calls");
    assert!(!first.already);
    let other_name = library.with_extension("so.1");
    std::os::unix::fs::symlink(&library, &other_name).expect("a fresh name");
    let second = bench.probes.attach_library(&other_name);
    std::fs::remove_file(&other_name).expect("made above");
    let second = second.expect("the same library");
    assert!(second.already && second.library == first.library);
    assert!(bench.probes.status()[0].up());

    bench.probes.set_cgroup(&bench.root.cgroup, slot(0)).expect("a cgroup of ours");
    let mut client = bench.client(&bench.root);
    client.call("cuCtxSynchronize", 0, 3);
    assert!(bench.probes.detach_library(first.library), "it was attached");
    assert!(!bench.probes.detach_library(first.library), "it is not any more");
    client.call("cuCtxSynchronize", 0, 3);
    assert_eq!(waits(&bench, slot(0)).count(), 3, "only while attached");
    assert_eq!(bench.probes.status()[0].state, State::Idle);

    let error = bench.probes.attach_library(std::path::Path::new("/bin/sh")).expect_err("no driver");
    assert!(matches!(error, Error::NotDriver { .. }), "{error}");
    let nowhere = library.with_extension("so.nowhere");
    let error = bench.probes.attach_library(&nowhere).expect_err("no file");
    assert!(matches!(error, Error::Library { .. }), "{error}");
    assert!(bench.probes.status()[0].reason.contains("so.nowhere"), "{:?}", bench.probes.status());
    let error = bench.probes.set_cgroup(&bench.root.cgroup, slot(4000)).expect_err("more than configured");
    assert!(matches!(error, Error::NoRow { tenant: 4000, .. }), "{error}");
}
