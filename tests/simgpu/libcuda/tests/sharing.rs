//! Several processes and one simulated device: sharing, death on either side, forks, ordered failures.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, Write};
use std::time::Duration;

use cudarc::driver::sys::CUresult;
use support::*;

#[test]
fn without_a_server_there_is_no_device() {
    let name = "without_a_server_there_is_no_device";
    if body().is_some() {
        assert_eq!(cu!(cuInit(0)), Err(CUresult::CUDA_ERROR_NO_DEVICE));
        return;
    }
    let device = Device::serve("{}");
    let exe = std::env::current_exe().unwrap();
    let mut command = device.command(exe);
    command.env("HEADGATE_SIMGPU_SOCKET", "/nonexistent/socket").env("SIMCUDA_TEST_BODY", "body");
    let output = command.args([name, "--exact", "--nocapture"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no device: /nonexistent/socket"));
}

#[test]
fn a_forked_child_cannot_use_the_driver() {
    in_child("a_forked_child_cannot_use_the_driver", "{}", || {
        context();
        // SAFETY: the child makes calls that take no lock here, and ends.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let refused = [cu!(cuInit(0)), allocate(1).map(|_| ()), cu!(cuCtxSynchronize())];
                let all = refused.iter().all(|status| *status == Err(CUresult::CUDA_ERROR_NOT_INITIALIZED));
                // SAFETY: ends the child without running the test harness's exit handlers.
                unsafe { libc::_exit(if all { 0 } else { 1 }) };
            }
            nix::unistd::ForkResult::Parent { child } => {
                let ended = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
                assert!(allocate(1).is_ok(), "the parent goes on");
            }
        }
    });
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let name = "a_killed_process_leaves_nothing_behind";
    if body().is_some() {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let address = allocate(1 << 30).unwrap();
        launch(spin, 1, NULL, [param(&address)]).unwrap();
        println!("holding");
        std::io::stdout().flush().unwrap();
        // The kernel never ends.
        assert!(cu!(cuCtxSynchronize()).is_err());
        return;
    }
    let device = Device::serve(r#"{"kernels": {"spin": {"hangs": true}}}"#);
    let mut children = [device.start(name, "one"), device.start(name, "two")];
    for child in &mut children {
        let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("holding")));
    }
    assert!(device.used_bytes() >= 2 << 30);
    let [mut one, mut two] = children;
    one.kill().unwrap();
    one.wait().unwrap();
    eventually("the memory of the killed is free", || (1 << 30..2 << 30).contains(&device.used_bytes()));
    two.kill().unwrap();
    two.wait().unwrap();
    eventually("all memory is free", || device.used_bytes() == 0);
    let statistics = device.control.statistics().unwrap();
    let processes = statistics["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 2, "the dead are remembered until the next mark");
    assert!(processes.iter().all(|process| process["alive"] == false));
    assert!(processes.iter().any(|process| process["busy_ns"] != 0));
    device.control.mark().unwrap();
    assert!(device.control.statistics().unwrap()["processes"].as_array().unwrap().is_empty());
}

#[test]
fn a_dead_server_is_a_lost_device() {
    let name = "a_dead_server_is_a_lost_device";
    if body().is_some() {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let address = allocate(8).unwrap();
        launch(spin, 1, NULL, [param(&address)]).unwrap();
        println!("ready");
        std::io::stdout().flush().unwrap();
        assert_eq!(cu!(cuCtxSynchronize()), Err(CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE));
        assert_eq!(allocate(8), Err(CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE));
        return;
    }
    let device = Device::serve(r#"{"kernels": {"spin": {"hangs": true}}}"#);
    let mut child = device.start(name, "body");
    {
        let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("ready")));
    }
    drop(device);
    assert!(child.wait().unwrap().success());
}

#[test]
fn processes_share_the_device_in_equal_parts() {
    let name = "processes_share_the_device_in_equal_parts";
    if body().is_some() {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let counter = allocate(8).unwrap();
        println!("running");
        std::io::stdout().flush().unwrap();
        loop {
            if launch(spin, 1, NULL, [param(&counter)]).is_err() {
                return;
            }
        }
    }
    let device = Device::serve(r#"{"kernels": {"spin": {"base_ns": 200000, "execute": false}}}"#);
    let mut children = [device.start(name, "one"), device.start(name, "two")];
    for child in &mut children {
        let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("running")));
    }
    let kernels = |index: usize| {
        let statistics = device.control.statistics().unwrap();
        statistics["processes"][index]["kernels"].as_u64().unwrap_or(0)
    };
    eventually("both are at work", || kernels(0) > 10 && kernels(1) > 10);
    device.control.mark().unwrap();
    pause(Duration::from_millis(500));
    let statistics = device.control.statistics().unwrap();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let measured = &statistics["devices"][0];
    let (busy, idle, switching) =
        (number(&measured["busy_ns"]), number(&measured["idle_ns"]), number(&measured["switch_ns"]));
    assert_eq!(busy + idle + switching, number(&statistics["elapsed_ns"]));
    let processes = statistics["processes"].as_array().unwrap();
    let shares: Vec<u64> = processes.iter().map(|process| number(&process["busy_ns"])).collect();
    assert_eq!(shares.iter().sum::<u64>(), busy);
    // Two slices of a millisecond at most, plus what a program that was kept from the CPU could not submit.
    assert!(shares[0].abs_diff(shares[1]) <= busy / 20, "{statistics}");
}

#[test]
fn ordered_failures_happen_and_are_journaled() {
    let name = "ordered_failures_happen_and_are_journaled";
    if body().is_some() {
        context();
        let mut line = String::new();
        println!("ready");
        std::io::stdout().flush().unwrap();
        std::io::stdin().read_line(&mut line).unwrap();
        assert_eq!(allocate(1), Err(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE));
        assert_eq!(allocate(1), Err(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE));
        assert!(allocate(1).is_ok());
        return;
    }
    let device = Device::serve("{}");
    let mut child = device.start(name, "body");
    {
        let lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("ready")));
    }
    device.control.journal_all(true).unwrap();
    device.control.inject_fault("cuMemAlloc_v2", 214, 2, Some(child.id())).unwrap();
    device.control.inject_fault("cuMemAlloc_v2", 999, 1, Some(1)).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let journal = device.control.journal().unwrap();
    let entries = journal["entries"].as_array().unwrap();
    let allocations = entries.iter().filter(|entry| entry["call"] == "cuMemAlloc_v2");
    assert_eq!(allocations.clone().count(), 3, "{journal}");
    assert_eq!(allocations.filter(|entry| entry["status"] == 214).count(), 2);
    assert_eq!(journal["simulated"], true);
}
