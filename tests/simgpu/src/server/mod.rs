//! The device server: one process, one node's GPUs.
//!
//! One thread does everything. Each turn it takes what clients have sent, sorts it by the moment it was sent, brings
//! the model up to each moment in turn, and sleeps until the model's next event. Interpreting a kernel delays the turn
//! but no moment of device time.
//!
//! Read `node` (requests), `operations` (commands for streams), `effects` (what they do), `holdings` and `pools` (memory that is more than an address), `mps` (clients that run side by side), `checkpoints` (processes whose memory is taken off the device for a while), `session` (what a client has), `admin` (what was measured).

mod admin;
mod checkpoints;
mod effects;
mod holdings;
mod journal;
mod meter;
mod mps;
mod node;
mod operations;
mod pools;
mod session;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headgate_abi::cuda::CUresult;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::config::{Config, ConfigError};
use crate::limits::{FRAMES_PER_TURN_MAX, SAMPLE_NS, SEND_WAIT_MS_MAX, SESSIONS_MAX};
use crate::model::{Model, Nanos};
use crate::protocol::Reply;
use crate::wire::{self, Frame};
use crate::{clock, sys};

use effects::Payload;
use node::{Node, SessionId};
use session::Session;

/// Why a server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration describes no possible node.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {error}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Waiting failed.
    #[error("waiting for clients: {0}")]
    Wait(Errno),
}

/// A simulated node that listens on a socket. Dropping it takes the socket away.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    model: Model<Payload>,
    node: Node,
    next_session: SessionId,
    poll_ns: Nanos,
    next_sample: Nanos,
}

impl Server {
    /// Makes a node and listens for its clients. A socket that a dead server left behind is replaced.
    ///
    /// # Errors
    /// When the configuration is wrong or the socket cannot be made.
    pub fn bind(path: &Path, config: Config) -> Result<Self, ServerError> {
        let devices = config.device_infos()?;
        let listen = || {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            // Tenants of other users load the stand-ins, too; the socket guards nothing.
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
            Ok(listener)
        };
        let listener = listen().map_err(|error| ServerError::Listen { path: path.to_owned(), error })?;
        let now = clock::now();
        Ok(Self {
            listener,
            path: path.to_owned(),
            model: Model::new(now, &config.specs(&devices)),
            poll_ns: config.poll_ns,
            node: Node::new(config, &devices, now),
            next_session: 1,
            next_sample: now,
        })
    }

    /// Serves until `stop` becomes readable.
    ///
    /// # Errors
    /// When the system refuses to wait; a client's misbehaviour only ends that client.
    pub fn run(&mut self, stop: BorrowedFd<'_>) -> Result<(), ServerError> {
        sys::exact_timers();
        loop {
            let timeout = self.timeout();
            let ready = match self.wait(stop, timeout) {
                Ok(None) => return Ok(()),
                Ok(Some(ready)) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(ServerError::Wait(error)),
            };
            self.accept();
            self.turn(&ready);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = clock::now();
        let mut until = self.model.next_event();
        let mut at_most = |moment: Nanos| until = Some(until.map_or(moment, |until| until.min(moment)));
        if self.model.is_waiting() {
            at_most(now + self.poll_ns);
        }
        if self.model.next_event().is_some() {
            at_most(self.next_sample);
        }
        if self.node.sessions.values().any(|session| session.inbox.is_pending()) {
            at_most(now);
        }
        until.map(|until| Duration::from_nanos(until.saturating_sub(now)))
    }

    /// Sleeps until a client speaks, a moment has come or the server is to stop (`None`).
    fn wait(&self, stop: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<Option<Vec<SessionId>>, Errno> {
        let mut ids = Vec::with_capacity(self.node.sessions.len());
        let mut fds = Vec::with_capacity(self.node.sessions.len() + 2);
        fds.push(PollFd::new(stop, PollFlags::POLLIN));
        fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        for (&id, session) in &self.node.sessions {
            ids.push(id);
            fds.push(PollFd::new(session.socket.as_fd(), PollFlags::POLLIN));
        }
        ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None)?;
        let spoke = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        if spoke(&fds[0]) {
            return Ok(None);
        }
        let spoken = ids.iter().zip(&fds[2..]).filter(|(_, fd)| spoke(fd)).map(|(&id, _)| id);
        Ok(Some(spoken.collect()))
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.node.sessions.len() >= SESSIONS_MAX {
                // Closing it tells the client: it finds no device.
                continue;
            }
            let Ok(peer) = getsockopt(&socket, sockopt::PeerCredentials) else { continue };
            let patience = TimeVal::milliseconds(i64::try_from(SEND_WAIT_MS_MAX).unwrap_or(i64::MAX));
            if setsockopt(&socket, sockopt::SendTimeout, &patience).is_err() {
                continue;
            }
            let pid = u32::try_from(peer.pid()).unwrap_or(0);
            let session = Session::new(socket, pid, self.node.devices.len(), self.model.now());
            self.node.sessions.insert(self.next_session, session);
            self.next_session += 1;
        }
    }

    /// Takes what has been sent, does it in the order of its moments, and lets everything due happen.
    fn turn(&mut self, ready: &[SessionId]) {
        let now = clock::now();
        let mut frames: Vec<(u64, SessionId, Frame)> = Vec::new();
        let mut gone = Vec::new();
        for (&id, session) in &mut self.node.sessions {
            let spoke = ready.binary_search(&id).is_ok();
            if spoke {
                match session.inbox.fill(&session.socket) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => gone.push(id),
                }
            }
            // One client's stamps never run backwards, whatever it says.
            let mut last = self.model.now();
            for _ in 0..FRAMES_PER_TURN_MAX {
                match session.inbox.next() {
                    Ok(Some(frame)) => {
                        last = frame.stamp.clamp(last, now.max(last));
                        frames.push((last, id, frame));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        session.doomed.get_or_insert_with(|| error.to_string());
                        break;
                    }
                }
            }
        }
        frames.sort_by_key(|(stamp, ..)| *stamp);
        if !self.node.exports.is_empty() {
            self.node.reap_exports();
        }
        for (stamp, id, frame) in frames {
            self.model.advance(stamp, &mut self.node);
            self.serve(id, frame);
        }
        self.model.advance(now, &mut self.node);
        if self.model.is_waiting() {
            self.model.poll(&mut self.node);
        }
        if self.model.now() >= self.next_sample {
            self.node.sample(&self.model);
            self.next_sample = self.model.now() + SAMPLE_NS;
        }
        let doomed = self.node.sessions.iter().filter(|(_, session)| session.doomed.is_some());
        gone.extend(doomed.map(|(&id, _)| id));
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().for_each(|id| self.bury(id));
    }

    fn serve(&mut self, id: SessionId, frame: Frame) {
        let (answer, file) = self.node.handle(&mut self.model, id, frame.request);
        let reply = match answer {
            Ok(reply) => reply,
            Err(refusal) => {
                if !frame.answered {
                    let reason = refusal.reason.as_str().into();
                    self.node.log(self.model.now(), id, "refused", Some(reason), None, refusal.status);
                }
                Reply::Refused { status: refusal.status.0, reason: refusal.reason }
            }
        };
        if !frame.answered {
            return;
        }
        let Some(session) = self.node.sessions.get_mut(&id) else { return };
        if let Err(error) = wire::send_reply(&session.socket, &reply, file.as_ref()) {
            session.doomed.get_or_insert_with(|| format!("it takes no reply: {error}"));
        }
    }

    /// Ends a client: all it had is free at once.
    fn bury(&mut self, id: SessionId) {
        self.node.remember(&self.model, id);
        self.node.put_back(id);
        self.node.end_mps(&mut self.model, id);
        let contexts: Vec<u32> = self
            .node
            .sessions
            .get(&id)
            .map(|session| session.contexts.keys().copied().collect())
            .unwrap_or_default();
        for context in contexts {
            // Closing what is known to exist cannot be refused, and nobody is left to tell.
            drop(self.node.handle(&mut self.model, id, crate::protocol::Request::CloseContext { context }));
        }
        self.node.drop_holdings(id);
        if let Some(why) = self.node.sessions.get(&id).and_then(|session| session.doomed.clone()) {
            self.node.log(self.model.now(), id, "expelled", Some(why.into()), None, CUresult::ERROR_UNKNOWN);
        }
        self.node.sessions.remove(&id);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody may have replaced or removed it already; then there is nothing to do.
        drop(std::fs::remove_file(&self.path));
    }
}
