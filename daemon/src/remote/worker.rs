//! Workers: one process for each session, in a tenant of this node like any program.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};

use super::Node;
use crate::limits::{WORKER_LINE_BYTES_MAX, WORKER_LINES_MAX};

/// What of the daemon's environment a worker gets: where libraries and drivers are, and what they do.
const PASSED_ON: [&str; 5] = ["LD_LIBRARY_PATH", "CUDA_", "NVIDIA_", "HEADGATE_", "RUST_BACKTRACE"];

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoWorker {
    /// It is not installed.
    #[error("there is no headgate-worker beside the daemon's binary; install it there or in ../lib/headgate")]
    Missing,
    /// The kernel refused a step.
    #[error("{what}: {source}")]
    Kernel {
        /// Which.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// A program or library of Headgate's: beside this binary, or in `../lib/headgate`.
pub(super) fn beside_binary(name: &str) -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    let beside = binary.parent()?;
    let places = [beside.join(name), beside.join("../lib/headgate").join(name)];
    places.into_iter().find(|path| path.is_file())
}

/// A running worker. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Worker {
    /// Where it listens; `None` if it was given its one connection.
    socket: Option<PathBuf>,
    /// Its process, 0 before it has told.
    process: Arc<AtomicU32>,
    kill: Arc<Notify>,
    ended: watch::Receiver<Option<String>>,
}

impl Worker {
    /// Starts a worker that this daemon connects to, as often as the session's connection breaks.
    pub(super) fn start(node: &Node, tenant: &str, device: &str) -> Result<Self, NoWorker> {
        static WORKERS: AtomicU64 = AtomicU64::new(0);
        let kernel = |what| move |source| NoWorker::Kernel { what, source };
        let name = format!("worker-{}.sock", WORKERS.fetch_add(1, Relaxed));
        let socket = node.directory.join(name);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(kernel("removing a worker's old socket")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(kernel("binding a worker's socket"))?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o600))
            .map_err(kernel("giving a worker's socket its permissions"))?;
        Self::spawn(node, tenant, Some(device), listener.into(), Some(socket))
    }

    /// Starts a worker on a connection that a program of this node has made.
    pub(super) fn start_on(node: &Node, tenant: &str, stream: OwnedFd) -> Result<Self, NoWorker> {
        Self::spawn(node, tenant, None, stream, None)
    }

    fn spawn(
        node: &Node,
        tenant: &str,
        device: Option<&str>,
        input: OwnedFd,
        socket: Option<PathBuf>,
    ) -> Result<Self, NoWorker> {
        let kernel = |what| move |source| NoWorker::Kernel { what, source };
        let program = beside_binary("headgate-worker").ok_or(NoWorker::Missing)?;
        let own = std::env::current_exe().map_err(kernel("asking where this binary is"))?;
        // The way any program goes into a tenant: the cgroup, the hook, the quota.
        let mut command = Command::new(own);
        command.args(["run", "--tenant", tenant, "--admin-socket"]).arg(&node.setup.config.sockets.admin);
        if let Some(hook) = &node.setup.hook {
            command.arg("--hook").arg(hook);
        }
        command.arg("--").arg(program).arg("--at-standard-input");
        let passes = |name: &OsString| {
            name.to_str().is_some_and(|name| PASSED_ON.iter().any(|known| name.starts_with(known)))
        };
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| passes(name)));
        if let Some(device) = device {
            command.env("CUDA_VISIBLE_DEVICES", device);
        }
        command.stdin(Stdio::from(input)).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(kernel("starting a worker"))?;
        let process = Arc::new(AtomicU32::new(0));
        if let (Some(out), Some(said)) = (child.stdout.take(), child.stderr.take()) {
            let (told, tenant) = (Arc::clone(&process), tenant.to_owned());
            // `worker NUMBER`, from whoever waits for it: the worker itself has no output.
            tokio::spawn(lines(out, move |line| {
                let number = line.strip_prefix("worker ").and_then(|number| number.parse().ok());
                told.store(number.unwrap_or(0), Relaxed);
            }));
            tokio::spawn(lines(said, move |said| tracing::warn!(tenant, said, "a worker says")));
        }
        let kill = Arc::new(Notify::new());
        let (tell, ended) = watch::channel(None);
        tokio::spawn(wait(child, Arc::clone(&kill), tell, socket.clone()));
        Ok(Self { socket, process, kill, ended })
    }

    /// Its process id, once it is known.
    pub(super) fn process(&self) -> Option<u32> {
        Some(self.process.load(Relaxed)).filter(|process| *process != 0)
    }

    /// Connects.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        match &self.socket {
            Some(socket) => UnixStream::connect(socket).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits until it has ended; how.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let seen = ended.wait_for(Option::is_some).await;
        seen.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the daemon is shutting down".to_owned())
    }

    /// `kill -9`.
    pub(super) fn kill(&self) {
        self.kill.notify_one();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes the first lines of an output, none longer than it may be, and then lets the rest go.
async fn lines<R: AsyncRead + Unpin>(mut output: R, mut take: impl FnMut(&str)) {
    let (mut line, mut left) = (Vec::new(), WORKER_LINES_MAX);
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        for &byte in &buffer[..count] {
            let ends = byte == b'\n';
            if !ends && line.len() < WORKER_LINE_BYTES_MAX {
                line.push(byte);
            }
            if ends && left > 0 {
                left -= 1;
                take(String::from_utf8_lossy(&line).trim());
            }
            if ends {
                line.clear();
            }
        }
    }
    if left > 0 && !line.is_empty() {
        take(String::from_utf8_lossy(&line).trim());
    }
}

async fn wait(
    mut child: Child,
    kill: Arc<Notify>,
    tell: watch::Sender<Option<String>>,
    socket: Option<PathBuf>,
) {
    let outcome = tokio::select! {
        outcome = child.wait() => outcome,
        () = kill.notified() => {
            // It may be gone already.
            let _gone = child.start_kill();
            child.wait().await
        }
    };
    if let Some(socket) = &socket {
        remove(socket);
    }
    let why = match outcome {
        Ok(status) if status.success() => "the session is over".to_owned(),
        Ok(status) => format!("the worker ended: {}", ending(status)),
        Err(error) => format!("the worker was lost: {error}"),
    };
    // Nobody may be left to hear it.
    tell.send_replace(Some(why));
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}; the lender's log says why"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn remove(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::debug!(socket = %socket.display(), %error, "a worker's socket was gone already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_much_of_an_output_is_taken() {
        let long = "x".repeat(10 * WORKER_LINE_BYTES_MAX);
        let text = format!("first\n{long}\n{}end", "again\n".repeat(100));
        let mut taken = Vec::new();
        lines(text.as_bytes(), |line| taken.push(line.to_owned())).await;
        assert_eq!(taken.len(), WORKER_LINES_MAX);
        assert_eq!(taken[0], "first");
        assert_eq!(taken[1].len(), WORKER_LINE_BYTES_MAX);
        let mut taken = Vec::new();
        lines("worker 7".as_bytes(), |line| taken.push(line.to_owned())).await;
        assert_eq!(taken, ["worker 7"], "without its end, too");
    }
}
