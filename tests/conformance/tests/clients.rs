//! Real clients four ways: natively, under the hook without limits, under a quota, and on a borrowed GPU.
//!
//! cudarc (Rust), NVIDIA's cuda-bindings and Numba (Python), each as its users write it. A run under the hook must
//! print exactly what the native run prints; under a quota the results stay right and exactly what does not fit is
//! refused. From afar, over either transport, they print the same as well, save what is said here not to travel; and
//! the lender's quota holds to the last byte. Programs on the CUDA runtime library are not here: it accepts no driver but NVIDIA's own, so they run
//! only where there is a GPU.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use headgate_harness::process::Outcome;
use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Node, Program, TenantSpec, eventually, skipped, workspace};
use support::{PATIENCE, node, python, used_bytes};

/// A tenant without limits, one with a quota that the clients fit into, and one that cannot hold them.
fn tenants() -> Vec<TenantSpec> {
    vec![
        TenantSpec::new("free"),
        TenantSpec::new("limited").memory("256Mi").sm(50),
        TenantSpec::new("tiny").memory("16Ki"),
    ]
}

fn finish(mut command: Command) -> Outcome {
    Program::start("client", &mut command).unwrap().finish(PATIENCE).unwrap()
}

#[track_caller]
fn good(how: &str, command: Command) -> String {
    let outcome = finish(command);
    assert!(outcome.status.success(), "{how}: {}\n{}{}", outcome.status, outcome.stdout, outcome.stderr);
    outcome.stdout
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// Lines that differ from afar: what a native run prints, and what stands in its place.
type Differences = [(&'static str, &'static str)];

/// What is to be printed from afar. Each difference must be one, so that none outlives what it excuses.
#[track_caller]
fn from_afar(native: &str, differences: &Differences) -> String {
    let mut lines: Vec<&str> = native.lines().collect();
    for (here, there) in differences {
        let place = lines.iter_mut().find(|line| *line == here);
        *place.unwrap_or_else(|| panic!("no line {here:?} in\n{native}")) = there;
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Runs a client on a worker's device.
#[track_caller]
fn remotely(node: &Node, transport: Transport, program: &Path, arguments: &[&str]) -> String {
    let worker = Worker::in_tenant(node, "limited", transport).unwrap();
    good(&format!("over {transport:?}"), with(worker.command(program).unwrap(), arguments))
}

/// Runs a client four ways; `exact` are the arguments that make it go to the last byte.
#[track_caller]
fn four_ways(
    test: &str,
    node: &Node,
    program: &Path,
    arguments: &[&str],
    exact: &[&str],
    differences: &Differences,
) {
    let hooked = |tenant: &str| with(node.command(tenant, program).unwrap(), arguments);
    let bare = good("natively", with(node.native_command(program), arguments));
    for line in bare.lines().filter_map(|line| line.strip_prefix("SKIPPED: ")) {
        skipped(test, &line);
    }
    assert_eq!(bare, good("under the hook", hooked("free")), "natively and under the hook");
    assert_eq!(bare, good("under a quota", hooked("limited")), "natively and under a quota that suffices");
    good("to the last byte", with(hooked("limited"), exact));
    assert!(!finish(hooked("tiny")).status.success(), "a quota of 16 KiB is too small for this client");
    for transport in [Transport::Unix, Transport::Tcp] {
        let there = remotely(node, transport, program, arguments);
        assert_eq!(from_afar(&bare, differences), there, "natively and over {transport:?}");
    }
    remotely(node, Transport::Unix, program, &[arguments, exact].concat());
    for tenant in ["free", "limited", "tiny"] {
        eventually("a program that ended holds nothing", PATIENCE, || {
            (used_bytes(node, tenant) == 0).then_some(())
        });
    }
}

/// The clients' Python, or a skip by name.
fn python_or_skip(test: &str) -> Option<PathBuf> {
    match python::python().unwrap() {
        Ok(python) => Some(python),
        Err(why) => {
            skipped(test, &why);
            None
        }
    }
}

#[test]
fn cudarc() {
    let node = node(tenants());
    let tour = workspace::program("app-tour").unwrap();
    four_ways("cudarc", &node, &tour, &[], &["--exact", "yes"], &[]);
}

#[test]
fn cuda_bindings() {
    let Some(python) = python_or_skip("cuda_bindings") else { return };
    let (script, kernels) = (python::script("bindings.py"), python::kernels());
    let arguments = [script.to_str().unwrap(), kernels.to_str().unwrap()];
    let differences = [
        // A form of 32-bit addresses, which the client does not have.
        ("cuMemAlloc 2000 0: 0 True 0", "cuMemAlloc 2000 0: 0 False 1"),
        // It would need page faults across the link; the device says so.
        ("take_managed: takes 2097152, leaves 0", "take_managed: not on this device"),
    ];
    four_ways("cuda_bindings", &node(tenants()), &python, &arguments, &["--exact"], &differences);
}

#[test]
fn numba() {
    let Some(python) = python_or_skip("numba") else { return };
    let script = python::script("numba_kernels.py");
    four_ways("numba", &node(tenants()), &python, &[script.to_str().unwrap()], &["--exact"], &[]);
}

#[test]
fn kernels_by_nvcc() {
    let Some(python) = python_or_skip("kernels_by_nvcc") else { return };
    let (script, kernels) = (python::script("compiled.py"), python::kernels());
    let scratch = tempfile::tempdir().unwrap();
    let arguments = [script.to_str().unwrap(), kernels.to_str().unwrap(), scratch.path().to_str().unwrap()];
    let node = node(tenants());
    let bare = finish(with(node.native_command(&python), &arguments));
    if bare.status.code() == Some(77) {
        return skipped("kernels_by_nvcc", &bare.stdout.trim());
    }
    assert!(bare.status.success(), "{}{}", bare.stdout, bare.stderr);
    for tenant in ["free", "limited"] {
        let hooked = with(node.command(tenant, &python).unwrap(), &arguments);
        assert_eq!(bare.stdout, good(tenant, hooked));
    }
    assert_eq!(bare.stdout, remotely(&node, Transport::Tcp, &python, &arguments));
}

#[test]
fn the_cuda_runtime_library() {
    if headgate_harness::device::has_real_driver() {
        // The kit that runs on GPU machines starts runtime programs; the suite's own clients do without one.
        return skipped("the_cuda_runtime_library", &"run by the GPU kit, not here");
    }
    skipped("the_cuda_runtime_library", &"libcudart accepts NVIDIA's own driver only: needs a GPU machine");
}
