//! What a worker that was taken over can still do: a driver of ours tries, inside the worker that is shipped.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headgate_harness::remote::{self, Transport, Worker};
use headgate_harness::{Program, TenantSpec, eventually, is_root, skipped, workspace};
use support::{SOON, node};

const PATIENCE: Duration = Duration::from_secs(60);
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;

/// A process that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_or_killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The driver that tries, where a worker finds it.
fn rogue(directory: &Path) -> Result<PathBuf, String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/rogue.c");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(directory.join("libcuda.so.1")).arg(from).arg("-lpthread");
    let result = cc.output().map_err(|error| format!("no C compiler: {error}"))?;
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    Ok(directory.to_path_buf())
}

#[test]
fn a_driver_that_was_taken_over_reaches_nothing_of_its_host() {
    if !is_root() {
        return skipped("a_driver_that_was_taken_over", &"some of its attempts fail for anybody but root");
    }
    let directory = tempfile::tempdir().unwrap();
    let driver = match rogue(directory.path()) {
        Ok(driver) => driver,
        Err(why) => return skipped("a_driver_that_was_taken_over", &why),
    };
    let said = directory.path().join("said");
    let socket = directory.path().join("worker.sock");
    let mut worker = Command::new(workspace::program("headgate-worker").unwrap());
    worker.env("LD_LIBRARY_PATH", &driver).args(["--listen", &format!("unix:{}", socket.display())]);
    worker.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said).unwrap());
    let mut worker = Ended(worker.spawn().unwrap());
    let mut address = String::new();
    BufReader::new(worker.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let app = workspace::program("app-step").unwrap();
    let mut command = remote::command(&app, address.trim()).unwrap();
    let outcome = Program::start("app-step", &mut command).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.stderr.contains("ERROR_UNKNOWN"), "the driver answers in the end: {}", outcome.stderr);
    let text = fs::read_to_string(&said).unwrap();
    assert!(!text.contains("not confined"), "{text}");
    let mut found: BTreeMap<&str, i32> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("rogue ")) {
        let (name, result) = line.split_once(' ').unwrap();
        found.insert(name, result.parse().unwrap());
    }
    assert_eq!(found.get("done"), Some(&0), "it went through to the end: {text}");
    let allowed = ["socket_unix", "write_tmp", "thread", "done"];
    let others = [
        ("clone3", ENOSYS),
        ("read_etc_passwd", ENOENT),
        ("read_home", ENOENT),
        ("write_root", EROFS),
        ("write_usr", EROFS),
        ("write_proc", EROFS),
        ("others_seen", ESRCH),
        ("signal_outside", ESRCH),
    ];
    for (name, result) in found {
        if name == "write_sys" {
            assert!([ENOENT, EROFS].contains(&result), "{name}: {result}");
            continue;
        }
        let expected =
            others.iter().find(|(other, _)| *other == name).map_or(EPERM, |(_, expected)| *expected);
        let expected = if allowed.contains(&name) { 0 } else { expected };
        assert_eq!(result, expected, "{name}");
    }
}

/// The process that a worker's warden waits for.
fn confined(warden: u32) -> Option<u32> {
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        fs::read_to_string(format!("/proc/{number}/stat")).is_ok_and(|stat| parent(&stat) == Some(warden))
    })
}

#[test]
fn a_worker_has_a_root_of_its_own_and_no_rights() {
    if !is_root() {
        return skipped("a_worker_has_a_root_of_its_own", &"another process's root is root's to look at");
    }
    let node = node(vec![TenantSpec::new("guest").sm(80).memory("1Gi")]);
    let mut worker = Worker::in_tenant(&node, "guest", Transport::Unix).unwrap();
    let inside = eventually("the worker runs", SOON, || confined(worker.pid()));
    let status = eventually("its system calls are taken away", SOON, || {
        let status = fs::read_to_string(format!("/proc/{inside}/status")).ok()?;
        status.contains("Seccomp:\t2").then_some(status)
    });
    for (field, value) in [("CapEff", "0"), ("CapPrm", "0"), ("CapBnd", "0"), ("NoNewPrivs", "1")] {
        let found = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        let found = found.map(|found| found.trim_start_matches('0'));
        assert_eq!(found, Some(value.trim_start_matches('0')), "{field}");
    }
    for namespace in ["user", "mnt", "net", "pid", "ipc", "uts", "cgroup"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&inside.to_string()), of("self"), "{namespace}");
    }
    let root = PathBuf::from(format!("/proc/{inside}/root"));
    for absent in ["boot", "var/log", "etc/passwd", "dev/mem", "dev/kmsg", "run/systemd"] {
        assert!(!root.join(absent).exists(), "{absent}");
    }
    // Even root on the host cannot write through what the worker sees.
    for read_only in ["made", "usr/made", "etc/made", "dev/made"] {
        let error = File::create(root.join(read_only)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EROFS), "{read_only}");
    }
    let limits = fs::read_to_string(format!("/proc/{inside}/limits")).unwrap();
    let core =
        limits.lines().find_map(|line| line.strip_prefix("Max core file size")?.split_whitespace().next());
    assert_eq!(core, Some("1"), "less than any dump: {limits}");
    // It still is a tenant's program, and works.
    let app = workspace::program("app-matmul").unwrap();
    let outcome = Program::start("app-matmul", &mut worker.command(&app).unwrap()).unwrap();
    outcome.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{error:#}"));
    let well = eventually("the warden ends as its worker did", SOON, || worker.ended().unwrap());
    assert!(well);
    assert!(confined(worker.pid()).is_none());
}
