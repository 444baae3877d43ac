//! Unmodified CUDA programs on a borrowed GPU give what they give on their own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use headgate_harness::relay::{Relay, Wire};
use headgate_harness::remote::{self, Transport, Worker};
use headgate_harness::{Node, Program, TenantSpec, eventually, quiet, workspace};
use serde_json::Value;
use support::{MIB, SOON, eventually_used, has_rings, node, used_bytes};

/// How long a sample program may take on a busy two-core machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn tenant() -> TenantSpec {
    TenantSpec::new("guest").sm(80).memory("1Gi")
}

#[track_caller]
fn run(name: &str, mut command: Command, arguments: &[&str]) -> Value {
    let program = Program::start(name, command.args(arguments)).unwrap();
    program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

/// Runs a program natively and on a worker's device.
#[track_caller]
fn natively_and_remotely(node: &Node, worker: &Worker, app: &str, arguments: &[&str]) -> (Value, Value) {
    let path = workspace::program(app).unwrap();
    let native = run(app, node.native_command(&path), arguments);
    (native, run(app, worker.command(&path).unwrap(), arguments))
}

#[test]
fn computations_are_the_same_bit_for_bit() {
    let node = node(vec![tenant()]);
    for transport in [Transport::Unix, Transport::Tcp] {
        for app in ["app-saxpy", "app-matmul", "app-reduction"] {
            let worker = Worker::in_tenant(&node, "guest", transport).unwrap();
            let (native, remote) = natively_and_remotely(&node, &worker, app, &[]);
            assert_eq!(native, remote, "{app} over {transport:?}");
        }
    }
}

#[test]
fn every_launch_arrives_once() {
    let node = node(vec![tenant()]);
    for sync_every in ["0", "7"] {
        let worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
        let path = workspace::program("app-loop").unwrap();
        let counted =
            run("app-loop", worker.command(&path).unwrap(), &["--seconds", "1", "--sync-every", sync_every]);
        assert_eq!(
            counted["launches"], counted["counted"],
            "the program would have failed by itself: {counted}"
        );
    }
}

#[test]
fn the_lenders_quota_is_the_borrowers_device() {
    let node = node(vec![tenant()]);
    let worker = Worker::in_tenant(&node, "guest", Transport::Unix).unwrap();
    let hog = workspace::program("app-hog").unwrap();
    let found = run("app-hog", worker.command(&hog).unwrap(), &["--chunk", "100Mi"]);
    assert_eq!(found["allocated_bytes"], 1000 * MIB, "{found}");
    assert_eq!(found["refused_with"], "CUDA_ERROR_OUT_OF_MEMORY", "{found}");
    assert_eq!(found["total_bytes"], 1024 * MIB, "{found}");
    drop(worker);
    eventually_used(&node, "guest", 0, SOON);
}

#[test]
fn a_worker_ends_with_its_program_and_gives_everything_back() {
    let node = node(vec![tenant()]);
    let mut worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
    let path = workspace::program("app-saxpy").unwrap();
    run("app-saxpy", worker.command(&path).unwrap(), &[]);
    let well = eventually("the worker ends", SOON, || worker.ended().unwrap());
    assert!(well, "a goodbye is a good end");
    eventually("its memory is back", SOON, || (used_bytes(&node, "guest") == 0).then_some(()));
}

#[test]
fn a_dead_worker_is_a_lost_device_and_no_hang() {
    let node = node(vec![tenant()]);
    let mut worker = Worker::in_tenant(&node, "guest", Transport::Unix).unwrap();
    let path = workspace::program("app-loop").unwrap();
    let mut command = worker.command(&path).unwrap();
    let program = Program::start("app-loop", command.args(["--seconds", "0", "--sync-every", "5"])).unwrap();
    eventually("it works on the device", SOON, || (used_bytes(&node, "guest") > 0).then_some(()));
    worker.kill().unwrap();
    let outcome = program.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
}

#[test]
fn a_broken_wire_is_a_stall_and_nothing_runs_twice() {
    let node = node(vec![tenant()]);
    let worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
    let relay = Relay::to(worker.address(), Wire::default()).unwrap();
    let path = workspace::program("app-loop").unwrap();
    let mut command = remote::command(&path, relay.address()).unwrap();
    let program = Program::start("app-loop", command.args(["--seconds", "4", "--sync-every", "50"])).unwrap();
    for cut in 0..5 {
        let before = relay.carried();
        eventually(&format!("it works before cut {cut}"), SOON, || {
            (relay.carried() > before + 50_000).then_some(())
        });
        relay.cut();
        relay.mend();
    }
    // The program compares its launches with what the kernel counted: one lost or done twice, and it fails.
    let counted = program.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
}

#[test]
fn on_one_host_a_session_goes_over_rings_and_ends_with_its_program() {
    let node = node(vec![tenant()]);
    for (transport, near) in [(Transport::Unix, true), (Transport::Tcp, false)] {
        let worker = Worker::in_tenant(&node, "guest", transport).unwrap();
        let path = workspace::program("app-loop").unwrap();
        let mut command = worker.command(&path).unwrap();
        let mut program =
            Program::start("app-loop", command.args(["--seconds", "0", "--sync-every", "5"])).unwrap();
        eventually("it works on the device", SOON, || (used_bytes(&node, "guest") > 0).then_some(()));
        assert_eq!(has_rings(program.pid()), near, "over {transport:?}");
        if near {
            // In the middle of whatever is in them.
            program.kill().unwrap();
            eventually_used(&node, "guest", 0, SOON);
        }
    }
}

/// Copies of some megabytes, which the program compares with what it sent, over a wire that breaks in the middle of them.
#[test]
fn copies_are_whole_over_every_wire_and_across_breaks() {
    let node = node(vec![tenant()]);
    let path = workspace::program("app-step").unwrap();
    let copies = ["--copy", "12345678"];
    for transport in [Transport::Unix, Transport::Tcp] {
        let worker = Worker::in_tenant(&node, "guest", transport).unwrap();
        run("app-step", worker.command(&path).unwrap(), &copies);
    }
    let worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
    let wire = Wire { bytes_per_second: 60_000_000, ..Wire::default() };
    let relay = Relay::to(worker.address(), wire).unwrap();
    let mut command = remote::command(&path, relay.address()).unwrap();
    let mut program = Program::start("app-step", command.args(copies)).unwrap();
    let cuts = cut_every(7_000_000, &relay, &mut program);
    let outcome = program.finish(PATIENCE).unwrap();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert!(cuts > 5, "{cuts} cuts in {} bytes", relay.carried());
}

/// Cuts the wire every so many bytes, both ways, at places that have nothing to do with where frames begin. How often.
fn cut_every(bytes: u64, relay: &Relay, program: &mut Program) -> u32 {
    let (mut cuts, mut before) = (0, 0);
    while program.is_running() {
        if relay.carried() > before + bytes {
            relay.cut();
            relay.mend();
            (cuts, before) = (cuts + 1, relay.carried());
        }
        std::thread::yield_now();
    }
    cuts
}

/// A program that fills pinned memory after the copy of it was enqueued, in a stream that it holds up. Its bytes must come past
/// a call that waits for that very stream, and past more than a client may be ahead by.
#[test]
fn pinned_memory_is_read_when_its_stream_has_come_there() {
    let node = node(vec![tenant()]);
    let path = workspace::program("app-late").unwrap();
    let much = ["--rounds", "2", "--bytes", "100000000", "--behind", "80000000"];
    for transport in [Transport::Unix, Transport::Tcp] {
        let worker = Worker::in_tenant(&node, "guest", transport).unwrap();
        let (native, remote) = natively_and_remotely(&node, &worker, "app-late", &[]);
        assert_eq!(native, remote, "over {transport:?}");
        let worker = Worker::in_tenant(&node, "guest", transport).unwrap();
        run("app-late", worker.command(&path).unwrap(), &much);
    }
    let worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
    let wire = Wire { bytes_per_second: 60_000_000, ..Wire::default() };
    let relay = Relay::to(worker.address(), wire).unwrap();
    let mut command = remote::command(&path, relay.address()).unwrap();
    let across = ["--rounds", "4", "--bytes", "12345678", "--behind", "1000000"];
    let mut program = Program::start("app-late", command.args(across)).unwrap();
    let cuts = cut_every(9_000_000, &relay, &mut program);
    let outcome = program.finish(PATIENCE).unwrap();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert!(cuts > 5, "{cuts} cuts in {} bytes", relay.carried());
}

#[test]
fn endless_copies_of_one_thread_do_not_hold_up_another_over_a_thin_wire() {
    let node = node(vec![tenant()]);
    let path = workspace::program("app-step").unwrap();
    // A full socket buffer of some MiB is ten times as long under way as a step takes.
    let wire = Wire { bytes_per_second: 125_000_000, ..Wire::default() };
    quiet::holds("a step beside copies over 1 Gbit/s takes less than 20 ms", || {
        let worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
        let relay = Relay::to(worker.address(), wire).unwrap();
        let command = remote::command(&path, relay.address()).unwrap();
        let arguments = ["--steps", "20", "--launches", "8", "--beside", "16777216"];
        let took = run("app-step", command, &arguments)["step_p50_us"].as_f64().unwrap() / 1e3;
        if took < 20.0 { Ok(()) } else { Err(took) }
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a cut of ten seconds lasts ten seconds")]
fn ten_seconds_without_a_wire_are_a_stall_and_nothing_runs_twice() {
    let node = node(vec![tenant()]);
    let worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
    let relay = Relay::to(worker.address(), Wire::default()).unwrap();
    let path = workspace::program("app-loop").unwrap();
    let mut command = remote::command(&path, relay.address()).unwrap();
    let program =
        Program::start("app-loop", command.args(["--seconds", "13", "--sync-every", "50"])).unwrap();
    eventually("it works", SOON, || (relay.carried() > 100_000).then_some(()));
    relay.cut();
    let since = Instant::now();
    eventually("ten seconds have passed", PATIENCE, || {
        (since.elapsed() > Duration::from_secs(10)).then_some(())
    });
    relay.mend();
    let counted = program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
    // The device's own word, besides the kernel's.
    let statistics = node.device().control().statistics().unwrap();
    let processes = statistics["processes"].as_array().unwrap();
    let ran: Vec<u64> = processes.iter().filter_map(|one| one["kernels"].as_u64()).collect();
    // It counts the one fill of the program's counter as a kernel.
    assert!(ran.contains(&(counted["launches"].as_u64().unwrap() + 1)), "{ran:?} of {counted}");
}

#[test]
fn a_wire_that_stays_broken_is_a_lost_device() {
    let node = node(vec![tenant()]);
    let mut worker = Worker::in_tenant(&node, "guest", Transport::Tcp).unwrap();
    let relay = Relay::to(worker.address(), Wire::default()).unwrap();
    let path = workspace::program("app-loop").unwrap();
    let mut command = remote::command(&path, relay.address()).unwrap();
    let program = Program::start("app-loop", command.args(["--seconds", "0", "--sync-every", "5"])).unwrap();
    eventually("it works on the device", SOON, || (relay.carried() > 50_000).then_some(()));
    relay.cut();
    worker.kill().unwrap();
    relay.mend();
    let outcome = program.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
}
