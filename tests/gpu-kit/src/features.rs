//! What the machine's kernel offers, found out by using it. What is missing is named; the daemon's own probes say the rest.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Map, Value, json};

/// Each feature: `true`, or why not.
#[must_use]
pub fn survey() -> Value {
    let mut found = Map::new();
    let mut note = |name: &str, outcome: Result<(), String>| {
        found.insert(name.to_owned(), outcome.map_or_else(|why| json!(why), |()| json!(true)));
    };
    note("root", headgate_harness::is_root().then_some(()).ok_or_else(|| "not root".to_owned()));
    note("cgroup_v2", cgroups());
    note("memfd_sealing", sealing());
    note("pidfd", pidfd());
    note("kernel_btf", readable("/sys/kernel/btf/vmlinux"));
    note("nvidia_driver", opens("/dev/nvidiactl"));
    let text =
        |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    found.insert("kernel".to_owned(), json!(text("/proc/sys/kernel/osrelease")));
    found.insert(
        "driver".to_owned(),
        json!(text("/proc/driver/nvidia/version").lines().next().unwrap_or_default()),
    );
    found.insert("cpus".to_owned(), json!(std::thread::available_parallelism().map_or(0, usize::from)));
    Value::Object(found)
}

fn readable(path: &str) -> Result<(), String> {
    std::fs::metadata(path).map(drop).map_err(|error| format!("{path}: {error}"))
}

fn opens(path: &str) -> Result<(), String> {
    std::fs::File::open(path).map(drop).map_err(|error| format!("{path}: {error}"))
}

/// Whether a cgroup can be made, which is what telling tenants apart needs.
fn cgroups() -> Result<(), String> {
    let root = headgate_harness::node::cgroup_root().ok_or("no cgroup2 file system is mounted")?;
    let path = root.join(format!("headgate-kit-{}", std::process::id()));
    std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    std::fs::remove_dir(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn sealing() -> Result<(), String> {
    let file = memfd_create(c"kit", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC)
        .map_err(|error| format!("memfd_create: {error}"))?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))
        .map(drop)
        .map_err(|error| format!("F_ADD_SEALS: {error}"))
}

#[expect(unsafe_code, reason = "pidfd_open(2) has no wrapper here")]
fn pidfd() -> Result<(), String> {
    // SAFETY: our own process, no flags.
    let file = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, std::process::id(), 0) };
    let file = i32::try_from(file).ok().filter(|file| 0 <= *file);
    let file = file.ok_or_else(|| format!("pidfd_open: {}", std::io::Error::last_os_error()))?;
    // SAFETY: a descriptor that was just opened and is nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    (0 <= file.as_raw_fd()).then_some(()).ok_or_else(|| "pidfd_open".to_owned())
}
