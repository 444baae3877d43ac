//! Workers: one process for each session, in a tenant of this node like any program.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};

use super::Node;

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
        if let Some(device) = device {
            command.env("CUDA_VISIBLE_DEVICES", device);
        }
        command.stdin(Stdio::from(input)).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(kernel("starting a worker"))?;
        let kill = Arc::new(Notify::new());
        let (tell, ended) = watch::channel(None);
        tokio::spawn(wait(child, Arc::clone(&kill), tell, socket.clone()));
        Ok(Self { socket, kill, ended })
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
