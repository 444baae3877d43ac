//! A simulated device and programs on it, natively or by way of a worker.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headgate_harness::relay::{Relay, Wire};
use headgate_harness::wait_for;
use serde_json::Value;

use crate::workspace::Artifacts;

/// Longest wait for a device to be ready.
const READY_WAIT: Duration = Duration::from_secs(20);

/// How a program reaches its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Native,
    Unix,
    Tcp,
    /// TCP over a wire that holds bytes back so many microseconds, each way.
    Far(u64),
    /// The same with a wire of 1 Gbit/s each way.
    Thin(u64),
}

/// Bytes a second of [`Way::Thin`].
const THIN: u64 = 125_000_000;

impl Way {
    pub(super) fn name(self) -> String {
        match self {
            Self::Native => "native".to_owned(),
            Self::Unix => "same host, rings".to_owned(),
            Self::Tcp => "loopback TCP".to_owned(),
            Self::Far(_) => format!("TCP, round trip {} ms", self.round_trip_us() / 1e3),
            Self::Thin(_) => format!("TCP, 1 Gbit/s, round trip {} ms", self.round_trip_us() / 1e3),
        }
    }

    /// What the wire adds to a round trip.
    pub(super) fn round_trip_us(self) -> f64 {
        match self {
            Self::Far(micros) | Self::Thin(micros) => {
                f64::from(u32::try_from(2 * micros).unwrap_or(u32::MAX))
            }
            _ => 0.0,
        }
    }
}

/// What a program printed, and how often it waited for its worker.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) printed: Value,
    waits: Option<u64>,
}

impl Found {
    pub(super) fn number(&self, field: &str) -> Result<f64> {
        let found = self.printed[field].as_f64();
        found.with_context(|| format!("the program printed no {field}: {}", self.printed))
    }

    pub(super) fn waits(&self) -> Result<f64> {
        let waits = self.waits.context("the client did not say how often it waited")?;
        Ok(f64::from(u32::try_from(waits)?))
    }
}

/// A simulated device, and the directories in which programs find one driver or the other.
#[derive(Debug)]
pub(super) struct Stage {
    _device: Option<Ended>,
    socket: PathBuf,
    worker: PathBuf,
    directory: tempfile::TempDir,
}

/// A process that ends with this value.
#[derive(Debug)]
pub(super) struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_or_killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Stage {
    pub(super) fn start(built: &Artifacts, config: &Value) -> Result<Self> {
        let stage = Self::with_driver(built, "headgate_simcuda")?;
        let file = stage.directory.path().join("device.json");
        fs::write(&file, config.to_string())?;
        let mut device = Command::new(built.path("headgate-simgpu")?);
        device.arg("--socket").arg(&stage.socket).arg("--config").arg(file).stdout(Stdio::null());
        let device = Ended(device.spawn().context("starting the simulated device")?);
        wait_for(READY_WAIT, || stage.socket.exists().then_some(()))
            .context("the simulated device did not come up")?;
        Ok(Self { _device: Some(device), ..stage })
    }

    /// Without a device: on a driver that does nothing, successfully.
    pub(super) fn on_nothing(built: &Artifacts) -> Result<Self> {
        let stage = Self::with_driver(built, "headgate_nullcuda")?;
        // Workers are told to let it through.
        fs::write(&stage.socket, [])?;
        Ok(stage)
    }

    fn with_driver(built: &Artifacts, driver: &str) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the bench")?;
        let path = |name: &str| directory.path().join(name);
        for (name, library) in [("native", driver), ("remote", "headgate_remote")] {
            fs::create_dir(path(name))?;
            symlink(built.path(library)?, path(name).join("libcuda.so.1"))?;
            symlink("libcuda.so.1", path(name).join("libcuda.so"))?;
        }
        let (socket, worker) = (path("device.sock"), built.path("headgate-worker")?.to_owned());
        Ok(Self { _device: None, socket, worker, directory })
    }

    /// A program whose driver is the simulated device's own.
    fn on_device(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.directory.path().join("native"));
        command.env("HEADGATE_SIMGPU_SOCKET", &self.socket).env("HEADGATE_WORKER_PATHS", &self.socket);
        command
    }

    /// A worker, and where it listens.
    pub(super) fn worker(&self, way: Way) -> Result<(Ended, String)> {
        let socket = self.directory.path().join("worker.sock");
        let listen = match way {
            Way::Unix => {
                // Of the worker before, if there was one.
                let _absent = fs::remove_file(&socket);
                format!("unix:{}", socket.display())
            }
            _ => "tcp:127.0.0.1:0".to_owned(),
        };
        let mut worker =
            self.on_device(&self.worker).args(["--listen", &listen]).stdout(Stdio::piped()).spawn()?;
        let output = worker.stdout.take().context("the worker's output")?;
        let worker = Ended(worker);
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        ensure!(!address.is_empty(), "the worker ended before it listened");
        Ok((worker, address.trim().to_owned()))
    }

    /// A program whose driver is the client of a worker at an address.
    pub(super) fn away(&self, program: &Path, address: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.directory.path().join("remote"));
        command.env("HEADGATE_REMOTE", address).env("HEADGATE_REMOTE_LOG", "1");
        command
    }

    /// Runs a program once.
    pub(super) fn run(&self, way: Way, program: &Path, arguments: &[&str]) -> Result<Found> {
        if way == Way::Native {
            return finish(self.on_device(program).args(arguments));
        }
        let (_worker, address) = self.worker(way)?;
        let wire = match way {
            Way::Far(micros) => Some((micros, 0)),
            Way::Thin(micros) => Some((micros, THIN)),
            _ => None,
        };
        let relay = wire.map(|(micros, bytes_per_second)| {
            let delay = Duration::from_micros(micros);
            Relay::to(&address, Wire { delay, bytes_per_second, ..Wire::default() })
        });
        let relay = relay.transpose()?;
        let address = relay.as_ref().map_or(address.as_str(), Relay::address);
        finish(self.away(program, address).args(arguments))
    }
}

fn finish(command: &mut Command) -> Result<Found> {
    let output = command.output().context("starting the program")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    let printed = serde_json::from_slice(&output.stdout).context("reading what the program printed")?;
    let waits = said.lines().find_map(|line| {
        let rest = line.strip_prefix("headgate remote: the program ends after waiting ")?;
        rest.split(' ').next()?.parse().ok()
    });
    Ok(Found { printed, waits })
}
