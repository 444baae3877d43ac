//! Taking the probes off a node.

mod support;

use headgate_ebpf::{AttachPreference, Config, Mode, Probe, State};
use support::{bench, now, skip};

#[test]
fn detaching_takes_everything_off_the_node_and_is_quick_by_link() {
    let mut seconds = Vec::new();
    for (attach, mode) in [
        (AttachPreference::Best, Mode::UprobeSession),
        (AttachPreference::Apart, Mode::UprobeMulti),
        (AttachPreference::PerfOnly, Mode::UprobePerf),
    ] {
        let mut bench = match bench(&[Probe::GpuWait], Config { attach, ..Config::default() }) {
            Ok(bench) => bench,
            Err(why) => skip!("{why}"),
        };
        let library = bench.library.clone();
        let start = now();
        let attached = bench.probes.attach_library(&library).expect("the library exports sync calls");
        let attach_time = start.elapsed();
        if attached.mode != mode {
            skip!("{mode:?} is not to be had here: {}", bench.probes.status()[0]);
        }
        let mut client = bench.client(&bench.root);
        client.call("cuCtxSynchronize", 0, 2);
        let start = now();
        bench.probes.detach_all();
        let detach_time = start.elapsed();
        println!(
            "{}: {} sites attached in {attach_time:?}, detached in {detach_time:?}",
            mode.name(),
            attached.sites
        );
        seconds.push(detach_time.as_secs_f64());
        client.call("cuCtxSynchronize", 0, 2);
        for status in bench.probes.status() {
            assert_eq!((status.state, status.reason.as_str()), (State::Missing, "detached"));
        }
    }
    let [one, two, perf] = seconds[..] else { panic!("three ways were tried") };
    let link = one.max(two);
    assert!(link < perf, "links must detach faster than many perf events: {link} s against {perf} s");
}

#[test]
fn many_libraries_go_side_by_side() {
    const MANY: u32 = 8;
    let mut times = Vec::new();
    for count in [1, MANY] {
        let mut bench = match bench(&[Probe::GpuWait], Config::default()) {
            Ok(bench) => bench,
            Err(why) => skip!("{why}"),
        };
        let copies: Vec<_> = (0..count).map(|n| bench.library.with_extension(format!("{n}.so"))).collect();
        for copy in &copies {
            std::fs::copy(&bench.library, copy).expect("the directory is ours");
            bench.probes.attach_library(copy).expect("the library exports sync calls");
        }
        let start = now();
        bench.probes.detach_all();
        times.push(start.elapsed());
        for copy in &copies {
            std::fs::remove_file(copy).expect("made above");
        }
    }
    let [one, many] = times[..] else { panic!("two were timed") };
    println!("one library detached in {one:?}, {MANY} in {many:?}");
    // A grace period lasts as long as the machine's other work makes it; one late one is no news.
    let late = std::time::Duration::from_millis(250);
    assert!(
        many < one * MANY + late,
        "the kernel's grace periods pass together: {one:?} for one, {many:?} for all"
    );
}
