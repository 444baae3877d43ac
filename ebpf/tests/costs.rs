//! What the probes cost, printed: `cargo test --release -p headgate-ebpf --test costs -- --nocapture`.
//!
//! Nothing here asserts a time: a shared machine would make it lie. It asserts that what was timed was also counted,
//! and prints medians of alternating rounds, so that the ratios of one run can be compared.

mod support;

use std::time::Duration;

use aya::programs::{UProbe, uprobe::UProbeScope};
use headgate_ebpf::{AttachPreference, Config, Probe, Probes, Slot};
use headgate_ebpf_records::maps;
use support::{Bench, Client, bench, figure, now, skip};

/// Few enough in a debug build, where the tests only prove that nothing timed goes uncounted.
const CALLS: u64 = if cfg!(debug_assertions) { 1_000 } else { 20_000 };
const ROUNDS: usize = 7;

/// Nanoseconds of one call of a driver function that returns at once: the median of some rounds.
fn ns_per_call(client: &mut Client, function: &str) -> u64 {
    let calls = if function == "cuMemcpyHtoD_v2" { CALLS / 10 } else { CALLS };
    median((0..ROUNDS).map(|_| nanoseconds(client.call(function, 0, calls)) / calls).collect())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("less than 584 years")
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn bench_with(attach: AttachPreference) -> Result<(Bench, Slot), String> {
    let mut bench = bench(&[Probe::GpuWait], Config { tenants: 200, attach, ..Config::default() })?;
    let slot = Slot::of_tenant(0).expect("a small index");
    bench.probes.set_cgroup(&bench.root.cgroup, slot).map_err(|error| error.to_string())?;
    Ok((bench, slot))
}

#[test]
fn gpu_wait_per_call() {
    let functions = [
        ("push first", "cuCtxSynchronize"),
        ("endbr64, push", "cuStreamSynchronize"),
        ("nop5 first", "cuEventSynchronize"),
        ("cmp, je (NVIDIA)", "cuMemcpy3D_v2"),
        ("single-stepped", "cuMemcpyHtoD_v2"),
    ];
    for attach in [AttachPreference::Best, AttachPreference::Apart, AttachPreference::PerfOnly] {
        let (mut bench, slot) = match bench_with(attach) {
            Ok(bench) => bench,
            Err(why) => skip!("{why}"),
        };
        let mut client = bench.client(&bench.root);
        let bare: Vec<u64> =
            functions.iter().map(|(_, function)| ns_per_call(&mut client, function)).collect();
        let library = bench.library.clone();
        let attached = bench.probes.attach_library(&library).expect("the library exports sync calls");
        for ((prologue, function), bare) in functions.iter().zip(bare) {
            let probed = ns_per_call(&mut client, function);
            println!(
                "gpu_wait {:12} {prologue:16} bare {bare:5} ns  probed {probed:6} ns  cost {:6} ns",
                attached.mode.name(),
                probed.saturating_sub(bare)
            );
            let case = format!("{}, {prologue}", attached.mode.name());
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call")]
            figure("sync call, entry and return", &case, "ns", probed as f64 - bare as f64);
        }
        let seen = bench.probes.gpu_waits(slot).expect("the row exists").expect("loaded").count();
        assert_eq!(seen, (4 * CALLS + CALLS / 10) * ROUNDS as u64, "every call that was timed was counted");
    }
}

/// What the programs themselves take, by the kernel's own clock: no trap, no system call, no cache effects on the client.
/// About fifty nanoseconds of each are the clock's.
#[test]
fn program_bodies() {
    let (mut bench, _) = match bench_with(AttachPreference::Best) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let library = bench.library.clone();
    bench.probes.attach_library(&library).expect("the library exports sync calls");
    let Ok(_clock) = aya::sys::enable_stats(aya::sys::Stats::RunTime) else {
        skip!("no run time statistics")
    };
    let mut client = bench.client(&bench.root);
    client.call("cuCtxSynchronize", 0, CALLS);
    client.run(&format!("tcp {CALLS}"));
    drop(client);
    bench.root.run_forks(CALLS / 20);
    for name in [maps::WAIT_SESSION, maps::SOCKET_EVENT, maps::PROCESS_EXIT] {
        let (mut time, mut count) = (Duration::ZERO, 0);
        for program in aya::programs::loaded_programs().filter_map(Result::ok) {
            if program.name_as_str() == Some(name) {
                time += program.run_time();
                count += program.run_count();
            }
        }
        println!("program {name:13} {:4} ns a run over {count} runs", nanoseconds(time) / count.max(1));
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a program")]
        figure("body, the clock included", name, "ns", (nanoseconds(time) / count.max(1)) as f64);
    }
}

/// Task storage against a hash keyed by thread, both by perf events at the same place.
#[test]
fn task_storage_against_a_hash() {
    let (mut ours, _) = match bench_with(AttachPreference::PerfOnly) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let (theirs, _) = match bench_with(AttachPreference::PerfOnly) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let library = ours.library.clone();
    ours.probes.attach_library(&library).expect("the library exports sync calls");
    let mut rival =
        aya::Ebpf::load(aya::include_bytes_aligned!("../object/rival.bpf.o")).expect("its object loads");
    let mut cgroups: aya::maps::HashMap<_, u64, u32> =
        rival.map_mut(maps::CGROUPS).expect("in the object").try_into().expect("a hash");
    cgroups.insert(theirs.root.cgroup.id(), 1, 0).expect("an empty table");
    for name in [maps::WAIT_LEAVE, maps::WAIT_ENTER] {
        let program: &mut UProbe =
            rival.program_mut(name).expect("in the object").try_into().expect("a uprobe");
        program.load().expect("the verifier passes it");
        program
            .attach("cuCtxSynchronize", &theirs.library, UProbeScope::AllProcesses)
            .expect("the symbol is exported");
    }
    let (mut with_storage, mut with_hash) = (ours.client(&ours.root), theirs.client(&theirs.root));
    // Alternating, so that the machine's moods fall on both.
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (client, costs) in [&mut with_storage, &mut with_hash].into_iter().zip(&mut costs) {
            costs.push(nanoseconds(client.call("cuCtxSynchronize", 0, CALLS)) / CALLS);
        }
    }
    let [storage, hash] = costs.map(median);
    println!(
        "gpu_wait pair   task storage {storage} ns, hash {hash} ns per call ({}% of it)",
        storage * 100 / hash
    );
}

#[test]
fn round_trip_over_loopback() {
    let mut bench = match bench(&[Probe::NetworkRtt], Config::default()) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let probed = bench.root.child("probed");
    let slot = Slot::of_tenant(0).expect("a small index");
    if let Err(why) = bench.probes.set_cgroup(&probed.cgroup, slot) {
        skip!("{why}");
    }
    let (mut with, mut without) = (bench.client(&probed), bench.client(&bench.root));
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (client, costs) in [&mut with, &mut without].into_iter().zip(&mut costs) {
            costs.push(nanoseconds(client.run(&format!("tcp {CALLS}"))) / CALLS);
        }
    }
    let [with, without] = costs.map(median);
    println!("network_rtt     bare {without} ns, probed {with} ns per ping-pong of two messages");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a message")]
    figure("ping-pong over loopback, probed", "of bare", "ratio", with as f64 / without as f64);
    let seen = bench.probes.round_trips(slot).expect("the row exists").expect("loaded").count();
    assert!(seen >= CALLS * ROUNDS as u64, "{seen} round trips seen");
}

/// A program that waits for its GPU a millisecond at a time, with and without the probe: what of its throughput is gone.
#[test]
fn a_loop_of_calls_that_take_a_millisecond() {
    let (with, slot) = match bench_with(AttachPreference::Best) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let (without, _) = match bench_with(AttachPreference::Best) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let mut with = with;
    let library = with.library.clone();
    with.probes.attach_library(&library).expect("the library exports sync calls");
    let (mut probed, mut bare) = (with.client(&with.root), without.client(&without.root));
    let calls = if cfg!(debug_assertions) { 5 } else { 50 };
    let rounds: u64 = if cfg!(debug_assertions) { 3 } else { 40 };
    let mut changes: Vec<f64> = Vec::new();
    for _ in 0..rounds {
        let one = probed.call("cuCtxSynchronize", 1_000_000, calls).as_secs_f64();
        let other = bare.call("cuCtxSynchronize", 1_000_000, calls).as_secs_f64();
        changes.push(100.0 * (one / other - 1.0));
    }
    changes.sort_by(f64::total_cmp);
    let median = changes[changes.len() / 2];
    println!("a loop of 1 ms calls takes {median:.3} % longer when probed");
    figure("a loop of 1 ms calls, longer by", "probed", "percent", median);
    let seen = with.probes.gpu_waits(slot).expect("the row exists").expect("loaded").count();
    assert_eq!(seen, calls * rounds, "every call that was timed was counted");
}

#[test]
fn loading_reading_and_detaching() {
    let start = now();
    let probes = Probes::load(Config { tenants: 200, ..Config::default() });
    let load = start.elapsed();
    drop(probes);
    let (mut bench, _) = match bench_with(AttachPreference::Best) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let start = now();
    for tenant in 0..200 {
        let slot = Slot::of_tenant(tenant).expect("a small index");
        bench.probes.latencies(slot).expect("the row exists");
        bench.probes.witnessed(slot).expect("the row exists");
    }
    bench.probes.peers().expect("readable");
    bench.probes.memory().expect("readable");
    bench.probes.counters().expect("readable");
    let scrape = start.elapsed();
    figure("reading the probes", "200 tenants", "ms", scrape.as_secs_f64() * 1e3);
    // Nothing else is done for an event outside the kernel: 50,000 of them a second, read every 15 seconds.
    figure("consumer", "50,000 events/s, read every 15 s", "ns", scrape.as_secs_f64() * 1e9 / 750_000.0);
    let library = bench.library.clone();
    let start = now();
    let attached = bench.probes.attach_library(&library).expect("the library exports sync calls");
    let attach = start.elapsed();
    let start = now();
    assert!(bench.probes.detach_library(attached.library));
    let detach = start.elapsed();
    figure("attach a library by link", "7 sites", "ms", attach.as_secs_f64() * 1e3);
    figure("detach a library by link", "7 sites", "ms", detach.as_secs_f64() * 1e3);
    println!(
        "loading all probes {load:?}; reading 200 tenants {scrape:?}; {} sites attached in {attach:?}, detached in {detach:?}",
        attached.sites
    );
}
