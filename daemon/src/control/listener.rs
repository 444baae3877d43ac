//! Accepting, within bounds.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use headgate_abi::wire::RefusalReason;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::session;
use crate::limits::{CONNECTIONS_MAX, GREETINGS_PER_PROCESS_MAX};
use crate::node::{ConnectionId, Event};
use crate::run::{Input, Inputs, Trees};
use crate::telemetry::LogLimit;

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("socket {}: {step} failed: {source}; check the path, its permissions and that no other daemon uses it", path.display())]
pub struct ListenError {
    path: PathBuf,
    step: &'static str,
    source: io::Error,
}

/// A bound socket, removed on drop.
#[derive(Debug)]
pub struct Socket {
    /// The listener.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds `path` with the permissions `mode`. A socket left behind by a daemon that was killed is replaced:
    /// the state directory's lock has already shown that no other daemon of this node runs.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let fail = |step, source| ListenError { path: path.to_owned(), step, source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|source| fail("making its directory", source))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(fail("binding", io::ErrorKind::AddrInUse.into()));
                }
                fs::remove_file(path).map_err(|source| fail("removing the old socket", source))?;
            }
            Ok(_) => return Err(fail("binding", io::Error::other("something else than a socket is there"))),
            Err(_) => {}
        }
        // Bound to a private name, given its permissions, then renamed: at no moment is the socket there with
        // other permissions than the ones meant.
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let listener = UnixListener::bind(&draft).map_err(|source| fail("binding", source))?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(mode))
            .map_err(|source| fail("setting permissions", source))?;
        fs::rename(&draft, path).map_err(|source| fail("renaming", source))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(socket = %self.path.display(), %error, "the socket was gone already");
        }
    }
}

/// What connections need of the daemon.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Where events go.
    pub inputs: Inputs,
    /// Whether ancestors matter.
    pub trees: Trees,
    /// Logs that peers can trigger.
    pub logs: Arc<LogLimit>,
}

/// Accepts for as long as the task lives.
pub async fn listen(listener: Arc<Socket>, doors: Doors) {
    let Doors { inputs, logs, .. } = &doors;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let greeting = Greetings::default();
    let next = AtomicU64::new(1);
    loop {
        let stream = match listener.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if let Some(held_back) = logs.allows("accept") {
                    tracing::error!(%error, held_back, "cannot accept; is the limit of open files too low?");
                }
                // Out of descriptors does not pass by asking again at once.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            let text = format!("the daemon has {CONNECTIONS_MAX} connections already; try again later");
            turn_away(stream, text, inputs, logs).await;
            continue;
        };
        let held = match session::hold(&stream) {
            Ok(held) => held,
            Err(error) => {
                turn_away(stream, error.to_string(), inputs, logs).await;
                continue;
            }
        };
        let Some(greeted) = greeting.enter(held.process.pid) else {
            turn_away(stream, "one hello at a time for a process".to_owned(), inputs, logs).await;
            continue;
        };
        let connection = ConnectionId(next.fetch_add(1, Ordering::Relaxed));
        let doors = doors.clone();
        tokio::spawn(async move {
            session::serve(stream, connection, held, doors, greeted).await;
            drop(permit);
        });
    }
}

async fn turn_away(stream: UnixStream, text: String, inputs: &Inputs, logs: &LogLimit) {
    if let Some(held_back) = logs.allows("turned away") {
        tracing::warn!(reason = text, held_back, "a peer was turned away");
    }
    // Counted by the node like any other refusal; if it is gone, so is the count.
    let _gone = inputs.send(Input::Node(Event::TurnedAway { reason: RefusalReason::Internal })).await;
    tokio::spawn(session::turn_away(stream, text));
}

/// How many connections of each process have not been answered yet.
#[derive(Clone, Debug, Default)]
struct Greetings(Arc<Mutex<HashMap<u32, usize>>>);

/// One connection that has not been answered yet.
#[derive(Debug)]
pub struct Greeted {
    greetings: Greetings,
    pid: u32,
}

impl Greetings {
    fn enter(&self, pid: u32) -> Option<Greeted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(pid).or_insert(0);
        (*count < GREETINGS_PER_PROCESS_MAX).then(|| {
            *count += 1;
            Greeted { greetings: self.clone(), pid }
        })
    }
}

impl Drop for Greeted {
    fn drop(&mut self) {
        let mut counts = self.greetings.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.pid);
            }
        }
    }
}
