//! A borrowed GPU in the place of a node's own: programs that start as CUDA's runtime starts, beside a driver that tests who
//! it is (the simulated one, by a test of our own), compute elsewhere and leave the device beside them alone.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use headgate_harness::remote::{self, Transport, Worker};
use headgate_harness::{Device, Node, Program, TenantSpec, eventually, skipped, workspace};
use serde_json::{Value, json};
use support::{MIB, SOON, node, used_bytes};

const PATIENCE: Duration = Duration::from_secs(120);

/// What may be asked of the driver beside us: who it is, and whose private tables it has.
const IDENTITY: [&str; 12] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetUuid",
    "cuDeviceGetUuid_v2",
    "cuDeviceGetPCIBusId",
    "cuDeviceGetByPCIBusId",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuGetExportTable",
];

fn lender() -> Node {
    node(vec![TenantSpec::new("guest").sm(80).memory("1Gi")])
}

/// A node's own devices, unlike the lender's in everything.
fn local(devices: usize) -> Device {
    let device = |index: usize| {
        json!({
            "name": format!("Local Simulated GPU {index}"),
            "uuid": format!("GPU-10ca1000-0000-0000-0000-00000000000{index}"),
            "memory_bytes": 4u64 << 30,
            "sms": 8,
            "compute_capability": [8, 0],
        })
    };
    let devices: Vec<Value> = (0..devices).map(device).collect();
    Device::simulated(&json!({ "driver_version": 13_010, "devices": devices, "journal_all": true })).unwrap()
}

#[track_caller]
fn run(name: &str, mut command: Command, arguments: &[&str]) -> Value {
    let program = Program::start(name, command.args(arguments)).unwrap();
    program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

fn native(device: &Device, program: &Path) -> Command {
    let mut command = Command::new(program);
    device.add_to(&mut command);
    command
}

/// Nothing has happened on a device but that it was asked who it is.
#[track_caller]
fn untouched(device: &Device) {
    let statistics = device.control().statistics().unwrap();
    assert_eq!(statistics["processes"], json!([]), "no context, no allocation, no launch: {statistics}");
    for device in statistics["devices"].as_array().unwrap() {
        assert_eq!((&device["memory_peak_bytes"], &device["busy_ns"]), (&json!(0), &json!(0)), "{device}");
    }
    let journal = device.control().journal().unwrap();
    let calls = journal["entries"].as_array().unwrap().iter().map(|entry| entry["call"].as_str().unwrap());
    let calls: BTreeSet<&str> = calls.collect();
    let harmless = BTreeSet::from(IDENTITY);
    let others: Vec<_> = calls.difference(&harmless).collect();
    assert!(!calls.is_empty() && others.is_empty(), "the driver was asked {others:?}");
}

/// Kernels that a node's device has executed.
fn kernels(node: &Node) -> u64 {
    let statistics = node.device().control().statistics().unwrap();
    statistics["processes"].as_array().unwrap().iter().filter_map(|process| process["kernels"].as_u64()).sum()
}

/// What must be equal wherever a program runs, and what the device can do.
fn parted(mut printed: Value) -> (Value, Value) {
    let fields = printed.as_object_mut().unwrap();
    assert!(fields.remove("storage_get_ns").is_some());
    let can = fields.remove("can").unwrap();
    (printed, can)
}

/// Compiles a C file of the tests'; an error where there is no compiler.
fn compile(into: &Path, source: &str, flags: &[&OsStr]) -> Result<PathBuf, std::io::Error> {
    let output = into.join(source.trim_end_matches(".c"));
    let from = workspace::root().join("tests/e2e/tests/c").join(source);
    let status = Command::new("cc").arg("-o").arg(&output).arg(from).args(flags).arg("-ldl").status()?;
    assert!(status.success(), "cc {source}: {status}");
    Ok(output)
}

#[test]
fn a_runtime_s_driver_is_the_genuine_one_and_its_device_the_borrowed_one() {
    let lender = lender();
    let app = workspace::program("app-runtime").unwrap();
    for transport in [Transport::Unix, Transport::Tcp] {
        let own = local(1);
        let (at_home, own_can) = parted(run("natively", native(&own, &app), &["--fork", "yes"]));
        assert_eq!(own_can, json!({ "multiprocessors": 8, "memory_bytes": 4096 * MIB }));
        assert_eq!(at_home["devices"][0]["name"], "Local Simulated GPU 0");
        let own = local(1);
        let before = kernels(&lender);
        let worker = Worker::in_tenant(&lender, "guest", transport).unwrap();
        let command = remote::redirected(&app, &own, worker.address()).unwrap();
        let (redirected, can) = parted(run("redirected", command, &["--fork", "yes"]));
        assert_eq!(redirected, at_home, "who it is and what it computes, over {transport:?}");
        assert_eq!(can, json!({ "multiprocessors": 132, "memory_bytes": 1024 * MIB }), "the lender's quota");
        untouched(&own);
        // The device counts a fill as it counts a kernel, and each of the seven launches has one.
        eventually("all seven launches were the lender's", SOON, || {
            (kernels(&lender) - before == 14).then_some(())
        });
    }
    eventually("nothing is left", SOON, || (used_bytes(&lender, "guest") == 0).then_some(()));
}

#[test]
fn more_devices_than_were_borrowed_stay_who_they_are() {
    let lender = lender();
    let app = workspace::program("app-runtime").unwrap();
    let (at_home, _) = parted(run("natively", native(&local(2), &app), &[]));
    let own = local(2);
    let worker = Worker::in_tenant(&lender, "guest", Transport::Unix).unwrap();
    let command = remote::redirected(&app, &own, worker.address()).unwrap();
    let (redirected, _) = parted(run("redirected", command, &[]));
    assert_eq!(redirected, at_home);
    assert_eq!(redirected["devices"][1]["name"], "Local Simulated GPU 1");
    untouched(&own);
}

#[test]
fn driver_api_programs_compute_the_same_bit_for_bit() {
    let lender = lender();
    for app in ["app-saxpy", "app-matmul", "app-reduction"] {
        let path = workspace::program(app).unwrap();
        let at_home = run(app, native(&local(1), &path), &[]);
        let own = local(1);
        let worker = Worker::in_tenant(&lender, "guest", Transport::Unix).unwrap();
        let command = remote::redirected(&path, &own, worker.address()).unwrap();
        assert_eq!(run(app, command, &[]), at_home, "{app}");
        untouched(&own);
    }
}

#[test]
fn linked_and_looked_up_functions_are_one_and_what_does_not_travel_is_not_the_driver_s() {
    let name = "linked_and_looked_up_functions_are_one";
    let here = tempfile::tempdir().unwrap();
    let own = local(2);
    let driver = own.libcuda();
    let program = match compile(here.path(), "linked.c", &[driver.as_os_str()]) {
        Ok(program) => program,
        Err(error) => return skipped(name, &error),
    };
    let lender = lender();
    let worker = Worker::in_tenant(&lender, "guest", Transport::Unix).unwrap();
    let mut command = remote::redirected(&program, &own, worker.address()).unwrap();
    let outcome = Program::start("linked", &mut command).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains("cuIpcGetMemHandle is not offered"), "{}", outcome.stderr);
    untouched(&own);
}

#[test]
fn a_driver_whose_devices_are_not_who_it_says_fails_its_own_test() {
    let name = "a_driver_whose_devices_are_not_who_it_says_fails_its_own_test";
    let here = tempfile::tempdir().unwrap();
    let liar = match compile(here.path(), "liar.c", &["-shared".as_ref(), "-fPIC".as_ref()]) {
        Ok(liar) => liar,
        Err(error) => return skipped(name, &error),
    };
    let (lender, own) = (lender(), local(1));
    let app = workspace::program("app-runtime").unwrap();
    let worker = Worker::in_tenant(&lender, "guest", Transport::Unix).unwrap();
    let mut command = remote::redirected(&app, &own, worker.address()).unwrap();
    let redirect = workspace::program("libheadgate_redirect.so").unwrap();
    command.env("LD_PRELOAD", format!("{}:{}", redirect.display(), liar.display()));
    let outcome = Program::start("app-runtime", &mut command).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.stderr.contains("the self-test fails"), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn a_device_that_is_gone_stays_gone() {
    let lender = lender();
    let own = local(1);
    let mut worker = Worker::in_tenant(&lender, "guest", Transport::Unix).unwrap();
    let app = workspace::program("app-runtime").unwrap();
    let mut command = remote::redirected(&app, &own, worker.address()).unwrap();
    let program = Program::start("app-runtime", command.args(["--until", "lost"])).unwrap();
    eventually("it works on the device", SOON, || (kernels(&lender) > 20).then_some(()));
    worker.kill().unwrap();
    let lost = program.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(lost, json!({ "lost_with": 46, "again": [46, 46, 46], "kept": true }));
    untouched(&own);
}

#[test]
fn without_a_driver_to_stand_beside_there_is_no_device() {
    let mut command = Command::new(workspace::program("app-saxpy").unwrap());
    command.env("LD_PRELOAD", workspace::program("libheadgate_redirect.so").unwrap());
    command.env("HEADGATE_REMOTE", "unix:/nowhere").env("HEADGATE_REMOTE_LOG", "1");
    if headgate_harness::device::has_real_driver() {
        return skipped("without_a_driver_to_stand_beside_there_is_no_device", &"there is one here");
    }
    let outcome = Program::start("app-saxpy", &mut command).unwrap().finish(PATIENCE).unwrap();
    assert!(!outcome.status.success(), "{}", outcome.stdout);
}
