//! Borrowed GPUs: a worker on a node's device, and programs whose driver is the remote client.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::device::Device;
use crate::node::Node;
use crate::workspace;

/// Where a worker listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A Unix socket.
    Unix,
    /// TCP on the loopback interface.
    Tcp,
}

/// A worker: one session on a node's device. Killed when dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    address: String,
}

impl Worker {
    /// Starts a worker in a tenant of a node, under the hook like any program.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn in_tenant(node: &Node, tenant: &str, transport: Transport) -> Result<Self> {
        let command = node.command(tenant, &workspace::program("headgate-worker")?)?;
        Self::start(node, command, transport)
    }

    /// Starts a worker that Headgate has no other part in.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn native(node: &Node, transport: Transport) -> Result<Self> {
        let command = node.native_command(&workspace::program("headgate-worker")?);
        Self::start(node, command, transport)
    }

    fn start(node: &Node, mut command: Command, transport: Transport) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static WORKERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("worker-{}.sock", WORKERS.fetch_add(1, Relaxed));
        let address = match transport {
            Transport::Unix => format!("unix:{}", node.path(&name).display()),
            Transport::Tcp => "tcp:127.0.0.1:0".to_owned(),
        };
        command.args(["--listen", &address]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a worker")?;
        let mut line = String::new();
        let output = child.stdout.take().context("the worker's output")?;
        let read = BufReader::new(output).read_line(&mut line);
        let worker = Self { child, address: line.trim().to_owned() };
        read.context("reading where the worker listens")?;
        ensure!(
            !worker.address.is_empty(),
            "the worker ended before it listened; its standard error says why"
        );
        Ok(worker)
    }

    /// Where it listens, as programs are told.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A command whose driver is the remote client of this worker. It knows nothing of the node or its device.
    ///
    /// # Errors
    /// When the build failed.
    pub fn command(&self, program: &Path) -> Result<Command> {
        command(program, &self.address)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing a worker")?;
        self.child.wait().context("waiting for a worker")?;
        Ok(())
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn ended(&mut self) -> Result<Option<bool>> {
        Ok(self.child.try_wait().context("asking after a worker")?.map(|status| status.success()))
    }
}

/// A command beside a device's driver, whose computing is done by a worker at an address.
///
/// # Errors
/// When the build failed.
pub fn redirected(program: &Path, device: &Device, address: &str) -> Result<Command> {
    let mut command = Command::new(program);
    device.add_to(&mut command);
    command.env("LD_PRELOAD", workspace::program("libheadgate_redirect.so")?);
    command.env("HEADGATE_REMOTE", address).env("HEADGATE_REMOTE_LOG", "1");
    Ok(command)
}

/// A command whose driver is the remote client of a worker at an address.
///
/// # Errors
/// When the build failed.
pub fn command(program: &Path, address: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", workspace::remote_directory()?);
    command.env("HEADGATE_REMOTE", address).env("HEADGATE_REMOTE_LOG", "1");
    command.env_remove("HEADGATE_SIMGPU_SOCKET");
    Ok(command)
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ended_or_killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
