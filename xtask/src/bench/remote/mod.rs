//! What borrowing a GPU over the network costs a program: the same binary natively and remotely, in turn, on the
//! simulated device, whose kernels take the time they are told to.
//!
//! The network is a relay in user space that holds bytes back, each way. The figures are of the simulated device: what a
//! real driver's own calls cost is not in them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headgate_harness::relay::{Relay, Wire};
use headgate_harness::wait_for;
use serde_json::{Value, json};

use super::{Figure, Settings, Subject};
use crate::workspace::{self, Artifacts, Profile};

const PACKAGES: [&str; 5] = [
    "headgate-simgpu",
    "headgate-simgpu-libcuda",
    "headgate-remote",
    "headgate-remote-libcuda",
    "headgate-apps",
];
/// A step: so many launches of so long a kernel, then the program waits. About as long as a vision model's.
const LAUNCHES: u64 = 64;
const KERNEL_NS: u64 = 100_000;
/// Bytes of a bulk copy.
const COPY_BYTES: u64 = 64 << 20;
/// Longest wait for a device or a worker to be ready.
const READY_WAIT: Duration = Duration::from_secs(20);

/// Runs the bench.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let built = workspace::build(Profile::Release, &PACKAGES)?;
    let subject =
        Subject { bench: "remote", device: "simulated".to_owned(), commit: settings.commit.clone() };
    let rounds = if settings.quick { 2 } else { 10 };
    let mut figures = calls(&subject, &built, rounds)?;
    figures.extend(steps(&subject, &built, if settings.quick { 2 } else { 5 })?);
    figures.extend(copies(&subject, &built, if settings.quick { 1 } else { 5 })?);
    Ok(figures)
}

/// How a program reaches its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Native,
    Unix,
    Tcp,
    /// TCP over a wire that holds bytes back so many microseconds, each way.
    Far(u64),
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Native => "native".to_owned(),
            Self::Unix => "same host, Unix socket".to_owned(),
            Self::Tcp => "loopback TCP".to_owned(),
            Self::Far(micros) => {
                format!("TCP, round trip {} ms", f64::from(u32::try_from(2 * micros).unwrap_or(0)) / 1e3)
            }
        }
    }
}

/// Client time of a launch and of waiting for an idle stream. Kernels take no time worth mentioning.
fn calls(subject: &Subject, built: &Artifacts, rounds: usize) -> Result<Vec<Figure>> {
    let stage =
        Stage::start(built, &json!({ "kernels": { "spin": { "base_ns": 1_000, "execute": false } } }))?;
    let mut figures = Vec::new();
    for (way, sync_goal) in [(Way::Native, None), (Way::Unix, Some(6.0)), (Way::Tcp, Some(20.0))] {
        let (mut call, mut cpu, mut sync) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let found = stage.run(way, &["--steps", "50", "--launches", "64", "--idle-syncs", "100"])?;
            call.push(number(&found, "launch_p50_us")?);
            cpu.push(number(&found, "launch_cpu_us")?);
            sync.push(number(&found, "idle_sync_p50_us")?);
        }
        let goal = sync_goal.map(|_| 0.5);
        figures.push(subject.lower("launch, remembered: call", way.name(), "us", goal, &call)?);
        figures.push(subject.lower(
            "launch: CPU of its thread",
            way.name(),
            "us",
            sync_goal.map(|_| 1.5),
            &cpu,
        )?);
        figures.push(subject.lower("sync of an idle stream", way.name(), "us", sync_goal, &sync)?);
    }
    Ok(figures)
}

/// How much longer steps take.
fn steps(subject: &Subject, built: &Artifacts, rounds: usize) -> Result<Vec<Figure>> {
    let stage =
        Stage::start(built, &json!({ "kernels": { "spin": { "base_ns": KERNEL_NS, "execute": false } } }))?;
    let launches = LAUNCHES.to_string();
    let arguments = ["--steps", "40", "--launches", launches.as_str()];
    let mut figures = Vec::new();
    let mut cold_nearby = Vec::new();
    let ways = [(Way::Unix, 3.0), (Way::Tcp, 3.0), (Way::Far(300), 8.0), (Way::Far(1_000), 30.0)];
    for (way, goal) in ways {
        let (mut slower, mut beyond, mut cold) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let native = stage.run(Way::Native, &arguments)?;
            let remote = stage.run(way, &arguments)?;
            let (alone, away) = (number(&native, "step_p50_us")?, number(&remote, "step_p50_us")?);
            slower.push((away / alone - 1.0) * 100.0);
            // One round trip a step is the program's own: it waits for the device.
            if let Way::Far(micros) = way {
                let floor = alone + f64::from(u32::try_from(2 * micros)?);
                beyond.push((away / floor - 1.0) * 100.0);
            }
            cold.push(number(&remote, "first_result_us")?);
        }
        figures.push(subject.lower("slowdown of a step", way.name(), "%", Some(goal), &slower)?);
        match way {
            Way::Far(micros) => {
                figures.push(subject.lower("beyond the round trip", way.name(), "%", Some(2.0), &beyond)?);
                let near = super::figure::Spread::of(&cold_nearby)
                    .context("no nearby start to compare with")?
                    .median;
                let trip = f64::from(u32::try_from(2 * micros)?);
                let trips: Vec<f64> = cold.iter().map(|cold| (cold - near) / trip).collect();
                figures.push(subject.lower("first result: round trips", way.name(), "RTT", None, &trips)?);
            }
            _ => cold_nearby = cold,
        }
    }
    Ok(figures)
}

/// Bulk copies, beside what TCP itself carries here.
fn copies(subject: &Subject, built: &Artifacts, rounds: usize) -> Result<Vec<Figure>> {
    let stage = Stage::start(built, &json!({}))?;
    let bytes = COPY_BYTES.to_string();
    let rate = |micros: f64| COPY_BYTES as f64 / micros / 1e3;
    let mut figures = Vec::new();
    let raw: Vec<f64> = (0..rounds).map(|_| raw_tcp()).collect::<Result<_>>()?;
    figures.push(subject.higher("bulk copy", "raw TCP, one stream", "GB/s", None, &raw)?);
    let ninety = super::figure::Spread::of(&raw).map(|spread| (spread.median * 0.9).min(6.0));
    for way in [Way::Native, Way::Unix, Way::Tcp] {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let found = stage.run(way, &["--copy", &bytes])?;
            down.push(rate(number(&found, "to_device_us")?));
            up.push(rate(number(&found, "to_host_us")?));
        }
        let goal = ninety.filter(|_| way != Way::Native);
        figures.push(subject.higher(
            "bulk copy",
            format!("to the device, {}", way.name()),
            "GB/s",
            goal,
            &down,
        )?);
        figures.push(subject.higher(
            "bulk copy",
            format!("to the host, {}", way.name()),
            "GB/s",
            goal,
            &up,
        )?);
    }
    Ok(figures)
}

/// What one TCP stream carries on this machine, in GB/s.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn raw_tcp() -> Result<f64> {
    const PIECE: usize = 256 << 10;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let reader = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; PIECE];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                count => total += count as u64,
            }
        }
    });
    let mut stream = TcpStream::connect(address)?;
    let piece = vec![7; PIECE];
    let begin = Instant::now();
    for _ in 0..COPY_BYTES / PIECE as u64 {
        stream.write_all(&piece)?;
    }
    drop(stream);
    let Ok(total) = reader.join() else { bail!("the reading thread panicked") };
    ensure!(total? == COPY_BYTES, "TCP lost bytes");
    Ok(COPY_BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9)
}

fn number(found: &Value, field: &str) -> Result<f64> {
    found[field].as_f64().with_context(|| format!("the program printed no {field}: {found}"))
}

/// A simulated device, and the directories in which programs find one driver or the other.
#[derive(Debug)]
struct Stage {
    _device: Ended,
    socket: PathBuf,
    worker: PathBuf,
    program: PathBuf,
    directory: tempfile::TempDir,
}

/// A process that ends with this value.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_or_killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Stage {
    fn start(built: &Artifacts, config: &Value) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the bench")?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("device.json"), config.to_string())?;
        for (name, library) in [("native", "headgate_simcuda"), ("remote", "headgate_remote")] {
            fs::create_dir(path(name))?;
            symlink(built.path(library)?, path(name).join("libcuda.so.1"))?;
            symlink("libcuda.so.1", path(name).join("libcuda.so"))?;
        }
        let socket = path("device.sock");
        let mut device = Command::new(built.path("headgate-simgpu")?);
        device.arg("--socket").arg(&socket).arg("--config").arg(path("device.json")).stdout(Stdio::null());
        let device = Ended(device.spawn().context("starting the simulated device")?);
        wait_for(READY_WAIT, || socket.exists().then_some(()))
            .context("the simulated device did not come up")?;
        let (worker, program) =
            (built.path("headgate-worker")?.to_owned(), built.path("app-step")?.to_owned());
        Ok(Self { _device: device, socket, worker, program, directory })
    }

    fn on_device(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.directory.path().join("native"));
        command.env("HEADGATE_SIMGPU_SOCKET", &self.socket);
        command
    }

    /// Runs the program once and gives what it printed.
    fn run(&self, way: Way, arguments: &[&str]) -> Result<Value> {
        if way == Way::Native {
            return finish(self.on_device(&self.program).args(arguments));
        }
        let socket = self.directory.path().join("worker.sock");
        let listen = match way {
            Way::Unix => format!("unix:{}", socket.display()),
            _ => "tcp:127.0.0.1:0".to_owned(),
        };
        let mut worker =
            self.on_device(&self.worker).args(["--listen", &listen]).stdout(Stdio::piped()).spawn()?;
        let output = worker.stdout.take().context("the worker's output")?;
        let _worker = Ended(worker);
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let address = address.trim();
        let relay = match way {
            Way::Far(micros) => {
                Some(Relay::to(address, Wire { delay: Duration::from_micros(micros), ..Wire::default() })?)
            }
            _ => None,
        };
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", self.directory.path().join("remote")).env("HEADGATE_REMOTE_LOG", "1");
        command.env("HEADGATE_REMOTE", relay.as_ref().map_or(address, Relay::address));
        let found = finish(command.args(arguments));
        if way == Way::Unix {
            fs::remove_file(&socket).context("removing the worker's socket")?;
        }
        found
    }
}

fn finish(command: &mut Command) -> Result<Value> {
    let output = command.stderr(Stdio::inherit()).output().context("starting the program")?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("reading what the program printed")
}
