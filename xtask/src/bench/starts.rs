//! What starting many programs at once costs under the real daemon: the hook's part and the daemon's (credentials,
//! cgroup, seat, pidfd) together, which is what users see.
//!
//! The driver is the null driver, as in the bench `hook`, so that its own start does not hide ours. The daemon
//! finds its device by the simulated NVML, which is told to show the null driver's UUID.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headgate_harness::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::stopwatch::{self, Daemon, Stopwatch};
use super::{Figure, Settings, Subject};
use crate::workspace::{self, Artifacts, Profile};

/// Numbers of programs that start at once, each with its goal in added milliseconds.
const STARTS: [(usize, Option<f64>); 3] = [(1, None), (50, None), (200, Some(50.0))];
/// The null driver's one device.
const DEVICE_UUID: &str = "GPU-6e756c6c-6472-6976-6572-000000000000";
const QUOTA_GIB: u64 = 8;
/// Longest wait for the device server and for the daemon to be ready.
const READY_WAIT: Duration = Duration::from_secs(20);

/// Runs the bench.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let own = ["headgate", "headgate-simgpu", "headgate-simgpu-libnvml"];
    let packages: Vec<&str> = stopwatch::PACKAGES.into_iter().chain(own).collect();
    let built = workspace::build(Profile::Release, &packages)?;
    let mut node = Node::start(&built)?;
    let figures = starts(settings, &built, &node);
    node.check_alive()?;
    figures
}

fn starts(settings: &Settings, built: &Artifacts, node: &Node) -> Result<Vec<Figure>> {
    let program = Stopwatch::new(built, &node.socket())?;
    let subject =
        Subject { bench: "starts", device: "null driver".to_owned(), commit: settings.commit.clone() };
    let rounds = if settings.quick { 2 } else { 5 };
    let mut figures = Vec::new();
    for (count, goal) in STARTS {
        // Once for nothing: the first start reads programs and libraries from disk.
        program.starts(count, false)?;
        program.starts(count, true)?;
        let (mut native, mut added) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let without = program.starts(count, false)?;
            native.push(without);
            added.push(program.starts(count, true)? - without);
        }
        let case = format!("start of {count}, real daemon");
        figures.push(subject.lower("native", case.clone(), "ms", None, &native)?);
        figures.push(subject.lower("added", case, "ms", goal, &added)?);
    }
    Ok(figures)
}

/// A device server and a daemon. Both end with this value.
#[derive(Debug)]
struct Node {
    daemon: Service,
    _device: Service,
    directory: tempfile::TempDir,
}

impl Node {
    fn start(built: &Artifacts) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the daemon")?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("device.json"), json!({ "devices": [{ "uuid": DEVICE_UUID }] }).to_string())?;
        let mut device = Command::new(built.path("headgate-simgpu")?);
        device.arg("--socket").arg(path("device.sock")).arg("--config").arg(path("device.json"));
        let device = Service::start("the simulated device", device, path("device.log"))?;
        device.wait_until("it listens", || path("device.sock").exists())?;

        let library = built.path("headgate_simnvml")?;
        for name in ["libnvidia-ml.so.1", "libnvidia-ml.so"] {
            symlink(library, path(name)).context("linking the simulated NVML")?;
        }
        fs::write(path("node.yaml"), configuration(&path("")))?;
        let mut daemon = Command::new(built.path("headgate")?);
        daemon.args(["daemon", "--config"]).arg(path("node.yaml"));
        daemon.env("LD_LIBRARY_PATH", directory.path()).env("HEADGATE_SIMGPU_SOCKET", path("device.sock"));
        let daemon = Service::start("the daemon", daemon, path("daemon.log"))?;
        let program = built.path("headgate")?;
        daemon.wait_until("it shows its device", || {
            let status = Command::new(program)
                .args(["status", "--json", "--admin-socket"])
                .arg(path("admin.sock"))
                .stderr(Stdio::null())
                .output();
            status.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(DEVICE_UUID))
        })?;
        Ok(Self { daemon, _device: device, directory })
    }

    fn socket(&self) -> Daemon {
        Daemon { socket: self.directory.path().join("control.sock"), quota_bytes: QUOTA_GIB << 30 }
    }

    fn check_alive(&mut self) -> Result<()> {
        let ended = self.daemon.child.try_wait()?;
        ensure!(ended.is_none(), "the daemon ended while it was measured\n{}", self.daemon.said());
        Ok(())
    }
}

fn configuration(directory: &std::path::Path) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata: {{ name: bench }}\nspec:\n  \
         district: north\n  sockets: {{ control: {}, admin: {} }}\n  http: {{ listen: \"off\" }}\n  stateDir: {}\n  \
         defaultTenant: bench\n  tenants:\n    - name: bench\n      quota: {{ \"*\": {{ sm: 50%, memory: {QUOTA_GIB}Gi }} }}\n",
        at("control.sock"),
        at("admin.sock"),
        at("state")
    )
}

/// A process that serves until it is told to end, with its output in a file.
#[derive(Debug)]
struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    fn start(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        wait_for(READY_WAIT, || done().then_some(())).with_context(|| {
            format!("{}: waited {READY_WAIT:?} until {what}; it said:\n{}", self.name, self.said())
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        // It may have ended by itself; then there is nobody to tell.
        let _told = pid.map(|pid| kill(pid, Signal::SIGTERM));
        if let Err(error) = self.child.wait() {
            eprintln!("bench: waiting for {}: {error}", self.name);
        }
    }
}
