//! Real clients three ways: natively, under the hook without limits, and under a quota.
//!
//! cudarc (Rust), NVIDIA's cuda-bindings and Numba (Python), each as its users write it. A run under the hook must
//! print exactly what the native run prints; under a quota the results stay right and exactly what does not fit is
//! refused. Programs on the CUDA runtime library are not here: it accepts no driver but NVIDIA's own, so they run
//! only where there is a GPU.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use headgate_harness::process::Outcome;
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

/// Runs a client three ways; `exact` are the arguments that make it go to the last byte.
#[track_caller]
fn three_ways(test: &str, node: &Node, program: &Path, arguments: &[&str], exact: &[&str]) {
    let hooked = |tenant: &str| with(node.command(tenant, program).unwrap(), arguments);
    let bare = good("natively", with(node.native_command(program), arguments));
    for line in bare.lines().filter_map(|line| line.strip_prefix("SKIPPED: ")) {
        skipped(test, &line);
    }
    assert_eq!(bare, good("under the hook", hooked("free")), "natively and under the hook");
    assert_eq!(bare, good("under a quota", hooked("limited")), "natively and under a quota that suffices");
    good("to the last byte", with(hooked("limited"), exact));
    assert!(!finish(hooked("tiny")).status.success(), "a quota of 16 KiB is too small for this client");
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
    three_ways("cudarc", &node, &tour, &[], &["--exact", "yes"]);
}

#[test]
fn cuda_bindings() {
    let Some(python) = python_or_skip("cuda_bindings") else { return };
    let (script, kernels) = (python::script("bindings.py"), python::kernels());
    let arguments = [script.to_str().unwrap(), kernels.to_str().unwrap()];
    three_ways("cuda_bindings", &node(tenants()), &python, &arguments, &["--exact"]);
}

#[test]
fn numba() {
    let Some(python) = python_or_skip("numba") else { return };
    let script = python::script("numba_kernels.py");
    three_ways("numba", &node(tenants()), &python, &[script.to_str().unwrap()], &["--exact"]);
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
}

#[test]
fn the_cuda_runtime_library() {
    if headgate_harness::device::has_real_driver() {
        // The kit that runs on GPU machines starts runtime programs; the suite's own clients do without one.
        return skipped("the_cuda_runtime_library", &"run by the GPU kit, not here");
    }
    skipped("the_cuda_runtime_library", &"libcudart accepts NVIDIA's own driver only: needs a GPU machine");
}
