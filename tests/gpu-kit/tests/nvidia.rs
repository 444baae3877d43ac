//! The hook in front of NVIDIA's own libraries, on a machine without a device: what a program sees is what it sees natively.
//!
//! Everything here runs the genuine driver library, runtimes and bindings that `tests/gpu-kit/fetch-nvidia` lays out; where they
//! are not, each test says SKIPPED. What needs a device the kit proves on one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, Program, TenantSpec, is_root, skipped, wait_for, workspace};

/// How long a script may take on a busy two-core machine.
const PATIENCE: Duration = Duration::from_secs(120);
const SERIES: [&str; 2] = ["535", "550"];

fn fetched() -> PathBuf {
    workspace::root().join("target/nvidia")
}

/// Folders with a genuine driver library; the test is skipped by name when there is none.
fn drivers(test: &str) -> Vec<PathBuf> {
    let folders = SERIES.map(|series| fetched().join(format!("driver-{series}")));
    let there: Vec<PathBuf> =
        folders.into_iter().filter(|folder| folder.join("libcuda.so.1").exists()).collect();
    if there.is_empty() {
        skipped(test, &"NVIDIA's driver libraries are not there; tests/gpu-kit/fetch-nvidia fetches them");
    }
    there
}

fn script(name: &str) -> PathBuf {
    workspace::root().join("tests/gpu-kit/python").join(name)
}

/// What starts Python. As root NVIDIA's libraries make `/dev/nvidiactl`, driver or not, and what they leave behind would look
/// like a driver; so they may not.
fn starter() -> &'static [&'static str] {
    if is_root() { &["setpriv", "--bounding-set=-mknod", "python3"] } else { &["python3"] }
}

/// Python with a genuine driver library, natively.
fn python(driver: &Path, name: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new(starter()[0]);
    command.args(&starter()[1..]);
    command.arg(script(name)).args(arguments);
    command.env("LD_LIBRARY_PATH", driver).env("PYTHONPATH", fetched().join("python"));
    command
}

/// The same under the hook, with nobody at its socket.
fn hooked(driver: &Path, name: &str, arguments: &[&Path]) -> Command {
    let mut command = python(driver, name, arguments);
    command.env("LD_PRELOAD", workspace::hook().unwrap()).env("HEADGATE_SOCKET", "/nonexistent/control.sock");
    command
}

/// Standard output, one line each. `None` when the script says that something is not installed.
fn lines(mut command: Command) -> Option<Vec<String>> {
    let outcome = Program::start("python3", &mut command).unwrap().finish(PATIENCE).unwrap();
    if outcome.status.code() == Some(77) {
        return None;
    }
    assert!(
        outcome.status.success(),
        "{command:?}: {}\n{}{}",
        outcome.status,
        outcome.stdout,
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("headgate:"), "the hook had something to say: {}", outcome.stderr);
    Some(outcome.stdout.lines().map(str::to_owned).collect())
}

fn assert_same(what: &str, native: &[String], hooked: &[String]) {
    assert!(!native.is_empty(), "{what}: it printed nothing");
    for (native, hooked) in native.iter().zip(hooked) {
        assert_eq!(hooked, native, "{what}");
    }
    assert_eq!(hooked.len(), native.len(), "{what}");
}

#[test]
fn calls_and_look_ups_answer_as_without_the_hook() {
    for driver in drivers("calls_and_look_ups_answer_as_without_the_hook") {
        let native = lines(python(&driver, "without_device.py", &[])).unwrap();
        assert!(native.contains(&"cuInit 100".to_owned()), "no device, and the driver says so");
        assert!(native.len() > 30_000, "every name at every version: {}", native.len());
        let hooked = lines(hooked(&driver, "without_device.py", &[])).unwrap();
        assert_same(&driver.display().to_string(), &native, &hooked);
    }
}

#[test]
fn what_is_hooked_is_handed_out_by_every_way_to_ask() {
    for driver in drivers("what_is_hooked_is_handed_out_by_every_way_to_ask") {
        let owned = lines(hooked(&driver, "without_device.py", &[Path::new("--owner")])).unwrap();
        for asked in [
            "dlsym cuMemAlloc_v2",
            "dlsym cuLaunchKernel_ptsz",
            "dlsym cuGetProcAddress_v2",
            "v1 cuGetProcAddress 12000 0 0",
            "v2 cuMemAlloc 12000 0 0 0",
            "v2 cuMemAllocAsync 12000 2 0 0",
            "v2 cuLaunchKernel 12000 2 0 0",
            "v2 null cuGraphLaunch 12000 0 0",
        ] {
            let answer = owned.iter().find(|line| line.starts_with(&format!("{asked} ")));
            let ours = answer.is_some_and(|line| line.contains(" libheadgate_hook.so:"));
            assert!(ours, "{asked} on {}: {answer:?}", driver.display());
        }
        let passed = owned.iter().filter(|line| line.contains("libcuda.so")).count();
        assert!(passed > 1_000, "what is not hooked is the driver's own: {passed}");
    }
}

#[test]
fn the_cuda_runtimes_answer_as_without_the_hook() {
    for driver in drivers("the_cuda_runtimes_answer_as_without_the_hook") {
        for runtime in ["cuda_runtime/lib/libcudart.so.12", "cu13/lib/libcudart.so.13"] {
            let runtime = fetched().join("python/nvidia").join(runtime);
            if !runtime.exists() {
                skipped("the_cuda_runtimes_answer_as_without_the_hook", &format!("no {}", runtime.display()));
                continue;
            }
            let native = lines(python(&driver, "runtime.py", &[&runtime])).unwrap();
            let hooked = lines(hooked(&driver, "runtime.py", &[&runtime])).unwrap();
            assert_same(&runtime.display().to_string(), &native, &hooked);
        }
    }
}

#[test]
fn nvidias_bindings_and_nvml_answer_as_without_the_hook() {
    for driver in drivers("nvidias_bindings_and_nvml_answer_as_without_the_hook") {
        for name in ["bindings.py", "management.py"] {
            let Some(native) = lines(python(&driver, name, &[])) else {
                skipped("nvidias_bindings_and_nvml_answer_as_without_the_hook", &"no cuda-bindings");
                continue;
            };
            let hooked = lines(hooked(&driver, name, &[])).unwrap();
            assert_same(name, &native, &hooked);
        }
    }
}

/// Probes on the genuine library's own code, where the decoder puts them: every call of a tenant is counted, none dearly.
#[test]
fn probes_sit_on_the_genuine_library_and_count_every_wait() {
    const NAME: &str = "probes_sit_on_the_genuine_library_and_count_every_wait";
    if !is_root() {
        return skipped(NAME, &"kernel probes need root");
    }
    for driver in drivers(NAME) {
        count_waits(NAME, &driver);
    }
}

fn count_waits(test: &str, driver: &Path) {
    const CALLS: u32 = 200;
    let tenants = vec![TenantSpec::new("alerts").memory("1Gi")];
    let node = Node::start(NodeOptions::simulated(tenants)).unwrap();
    // A program on the genuine library gets no seat here, so the daemon has to be told of the library.
    let library = format!("    libraries:\n      - {}\n", driver.join("libcuda.so.1").display());
    let config = std::fs::read_to_string(node.config_file()).unwrap();
    let config = config.replacen("    libraries:\n", &library, 1);
    std::fs::write(node.config_file(), config).unwrap();
    let path = driver.display().to_string();
    let probed = wait_for(Duration::from_secs(15), || {
        let log = node.log();
        let probed = |line: &&str| line.contains("driver library probed") && line.contains(&path);
        log.lines().find(probed).map(str::to_owned)
    });
    let Some(probed) = probed else {
        return skipped(test, &node.status().unwrap()["probes"]);
    };
    assert!(probed.contains("single_stepped=0"), "a site on a single-stepped instruction: {probed}");

    let code = format!(
        "import ctypes; c = ctypes.CDLL('libcuda.so.1'); c.cuInit(0); [c.cuCtxSynchronize() for _ in range({CALLS})]"
    );
    let mut plain = node.command("alerts", Path::new("env")).unwrap();
    plain.args(starter());
    let mut unhooked = node.command("alerts", Path::new("env")).unwrap();
    unhooked.args(["-u", "LD_PRELOAD"]).args(starter());
    // In the tenant's cgroup and without the hook, the kernel sees it all the same.
    for (calls, mut command) in [(CALLS, plain), (2 * CALLS, unhooked)] {
        command.args(["-c", &code]).env("LD_LIBRARY_PATH", driver);
        let outcome = Program::start("python3", &mut command).unwrap().finish(PATIENCE).unwrap();
        assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
        let page = node.metrics().unwrap();
        let seen = page.value("headgate_gpu_wait_seconds_count", &["tenant=\"alerts\""]);
        assert_eq!(seen, Some(f64::from(calls)), "{}", node.log());
    }
}
