//! NVML of the simulated GPU as `nvml-wrapper` sees it: a real server, the built library, and a process with work on
//! the device.
//!
//! A test runs twice: started by cargo it serves a device, puts work on it, and starts itself again in a process that
//! finds the library by `LD_LIBRARY_PATH`, as any program does.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU64;

use headgate_simgpu::client::{Connection, Control};
use headgate_simgpu::config::Config;
use headgate_simgpu::protocol::{Command as Order, Reply, Request, Role};
use headgate_simgpu::server::Server;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

const BODY_ENV: &str = "SIMNVML_TEST_BODY";
const GIB: u64 = 1 << 30;

fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    deps.join("libheadgate_simnvml.so")
}

/// A second name, or a copy, of a file that another build may be replacing at this moment.
fn keep(file: &Path, name: &Path) {
    for _ in 0..10_000_000 {
        if std::fs::hard_link(file, name).is_ok() || std::fs::copy(file, name).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("cargo built no {}", file.display());
}

/// Serves a device to `parent`, which may run this test's other half.
fn serve(config: &str, name: &str, parent: impl FnOnce(&Path, &mut dyn FnMut())) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("device");
    keep(&library(), &directory.path().join("libnvidia-ml.so.1"));
    std::os::unix::fs::symlink("libnvidia-ml.so.1", directory.path().join("libnvidia-ml.so")).unwrap();
    let mut server = Server::bind(&socket, Config::parse(config).unwrap()).unwrap();
    let (stopped, stop) = std::io::pipe().unwrap();
    let thread = std::thread::spawn(move || server.run(stopped.as_fd()).unwrap());
    let mut child = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("LD_LIBRARY_PATH", directory.path())
            .env("HEADGATE_SIMGPU_SOCKET", &socket)
            .env(BODY_ENV, std::process::id().to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    parent(&socket, &mut child);
    drop(stop);
    thread.join().unwrap();
}

/// The process with work on the device, in the half that asks about it.
fn worker() -> Option<u32> {
    std::env::var(BODY_ENV).ok().map(|pid| pid.parse().unwrap())
}

#[test]
fn devices_are_described() {
    if worker().is_none() {
        let config = r#"{"device_count": 2, "driver_version": 12080}"#;
        serve(config, "devices_are_described", |_, child| child());
        return;
    }
    let nvml = Nvml::init().unwrap();
    assert_eq!(nvml.device_count().unwrap(), 2);
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12_080);
    assert!(nvml.sys_driver_version().unwrap().contains("simulated"));
    let device = nvml.device_by_index(1).unwrap();
    assert_eq!(device.index().unwrap(), 1);
    assert!(device.name().unwrap().contains("Simulated GPU (132 SM)"));
    let uuid = device.uuid().unwrap();
    assert_eq!(uuid, "GPU-5eed6a7e-0000-4000-8000-000000000001");
    assert_eq!(nvml.device_by_uuid(uuid).unwrap().index().unwrap(), 1);
    assert_eq!(nvml.device_by_pci_bus_id("00000000:02:00.0").unwrap().index().unwrap(), 1);
    assert_eq!(device.pci_info().unwrap().bus_id, "00000000:02:00.0");
    assert_eq!(device.minor_number().unwrap(), 1);
    let capability = device.cuda_compute_capability().unwrap();
    assert_eq!((capability.major, capability.minor), (9, 0));
    assert!(matches!(nvml.device_by_index(2), Err(NvmlError::InvalidArg)));
    assert!(matches!(nvml.device_by_uuid("GPU-0"), Err(NvmlError::NotFound)));
    let memory = device.memory_info().unwrap();
    assert_eq!((memory.total, memory.used, memory.free), (80 * GIB, 0, 80 * GIB));
    assert!(device.running_compute_processes().unwrap().is_empty());
    assert_eq!(device.utilization_rates().unwrap().gpu, 0);
}

#[test]
fn processes_are_listed_with_what_they_use() {
    let name = "processes_are_listed_with_what_they_use";
    let Some(pid) = worker() else {
        serve(r#"{"context_bytes": 1048576}"#, name, |socket, child| {
            let work = Connection::open(socket, Role::Driver).unwrap();
            let context = match work
                .ask(&Request::OpenContext { device: 0, legacy_slot: 0, connections: None })
                .unwrap()
            {
                Reply::Context(context) => context,
                other => panic!("{other:?}"),
            };
            let bytes = 3 * GIB;
            assert!(matches!(work.ask(&Request::Allocate { context, bytes }).unwrap(), Reply::Address(_)));
            child();
        });
        return;
    };
    let nvml = Nvml::init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let memory = device.memory_info().unwrap();
    let used = 3 * GIB + (1 << 20);
    assert_eq!((memory.used, memory.free), (used, 80 * GIB - used));
    let processes = device.running_compute_processes().unwrap();
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0].pid, pid);
    assert_eq!(processes[0].used_gpu_memory, UsedGpuMemory::Used(used));
    let samples = device.process_utilization_stats(None::<u64>).unwrap();
    assert_eq!((samples.len(), samples[0].pid), (1, pid));
}

#[test]
fn utilisation_is_what_the_device_measured() {
    let name = "utilisation_is_what_the_device_measured";
    let Some(pid) = worker() else {
        serve(r#"{"copies": {"on_device_bytes_per_s": 1}}"#, name, |socket, child| {
            let work = Connection::open(socket, Role::Driver).unwrap();
            assert!(matches!(
                work.ask(&Request::OpenContext { device: 0, legacy_slot: 0, connections: None }).unwrap(),
                Reply::Context(0)
            ));
            let Reply::Address(at) = work.ask(&Request::Allocate { context: 0, bytes: 60 }).unwrap() else {
                panic!("no address")
            };
            // At a byte a second this fill outlasts the test.
            let fill = Order::Fill { at, pitch: 60, value: 1, element: 1, width: 60, height: 1 };
            work.submit(0, &AtomicU64::new(0), [fill], || true).unwrap();
            let control = Control::open(socket).unwrap();
            let busy = || control.statistics().unwrap()["devices"][0]["busy_ns"].as_u64().unwrap();
            while busy() < 300_000_000 {
                std::thread::yield_now();
            }
            child();
        });
        return;
    };
    let nvml = Nvml::init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert!(device.utilization_rates().unwrap().gpu >= 99);
    let samples = device.process_utilization_stats(None::<u64>).unwrap();
    assert_eq!((samples.len(), samples[0].pid), (1, pid));
    let last = samples[0].timestamp;
    let samples = device.process_utilization_stats(last).unwrap();
    assert!(samples[0].sm_util >= 99 && samples[0].timestamp >= last, "{samples:?}");
}
