//! The device that tests and the demo run on: a device server of the simulated GPU, or this machine's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use headgate_simgpu::client::Control;
use tempfile::TempDir;

use crate::process::Program;
use crate::{wait_for, workspace};

/// A running device server.
#[derive(Debug)]
pub struct Device {
    socket: PathBuf,
    drivers: PathBuf,
    control: Control,
    node: Option<PathBuf>,
    // The server before its directory: fields drop in order.
    _server: Program,
    _directory: TempDir,
}

impl Device {
    /// Starts a device server with a configuration (`{}` for one 132-SM, 80 GiB device).
    ///
    /// # Errors
    /// When it does not come up; its standard error goes to ours.
    pub fn simulated(config: &serde_json::Value) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("headgate-device-").tempdir()?;
        let socket = directory.path().join("simgpu.sock");
        let file = directory.path().join("simgpu.json");
        std::fs::write(&file, config.to_string())?;
        let mut command = Command::new(workspace::program("headgate-simgpu")?);
        command.arg("--socket").arg(&socket).arg("--config").arg(&file).stdout(std::process::Stdio::null());
        let mut server = Program::start_as_is("the simulated device", &mut command)?;
        let control = wait_for(Duration::from_secs(20), || match Control::open(&socket) {
            Ok(control) => Some(Ok(control)),
            Err(_) if server.is_running() => None,
            Err(error) => Some(Err(error)),
        })
        .context("the simulated device did not come up within 20 s")?
        .context("the simulated device ended at once; its standard error says why")?;
        Ok(Self {
            socket,
            drivers: workspace::driver_directory()?,
            control,
            node: None,
            _server: server,
            _directory: directory,
        })
    }

    /// Gives the driver a device node to open when it starts, as a real driver has. It must be a character device.
    pub fn set_node(&mut self, node: PathBuf) {
        self.node = Some(node);
    }

    /// That node.
    #[must_use]
    pub fn node(&self) -> Option<&Path> {
        self.node.as_deref()
    }

    /// The harness's own line to the device: kernel times, faults, what it measured.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Lets a command find this device's driver libraries.
    pub fn add_to(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", joined_library_path(&self.drivers));
        command.env("HEADGATE_SIMGPU_SOCKET", &self.socket);
        // What this driver needs and no real one does: a worker's root has it besides.
        let mut needed = self.socket.as_os_str().to_owned();
        if let Some(node) = &self.node {
            command.env("HEADGATE_SIMGPU_DEVICE_NODE", node);
            needed.push(":");
            needed.push(node);
        }
        command.env("HEADGATE_WORKER_PATHS", needed);
    }

    /// Path of the simulated `libcuda.so.1`.
    #[must_use]
    pub fn libcuda(&self) -> PathBuf {
        self.drivers.join("libcuda.so.1")
    }
}

/// Whether this machine has an NVIDIA driver of its own. The device file alone does not say so: NVIDIA's libraries make it
/// when root runs them, driver or not; only a driver lets it be opened.
#[must_use]
pub fn has_real_driver() -> bool {
    std::fs::File::open("/dev/nvidiactl").is_ok()
}

fn joined_library_path(first: &Path) -> std::ffi::OsString {
    let mut path = first.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("LD_LIBRARY_PATH").filter(|rest| !rest.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}
