//! The client's end: what libcuda, libnvidia-ml and the harness talk to the server through.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_abi::cuda::CUresult;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::clock;
use crate::limits::{LOST_CHECK_MS, PENDING_MAX, REPLY_WAIT_S_MAX};
use crate::model::KernelRule;
use crate::page::StatusPage;
use crate::protocol::{Admin, Command, Mps, NodeInfo, PROTOCOL, Reply, Request, Role};
use crate::{sys, wire};

/// The server is gone, or does not speak this build's protocol any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the simulated device's server is gone")]
pub struct Lost;

/// A connection to the device server. Threads may share it.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    /// Held while a frame is put on the socket, so that numbers and frames are in one order. Never while waiting for
    /// an answer.
    outbox: Mutex<Vec<u8>>,
    /// Held from a question to its answer. Answers never need device time.
    question: Mutex<()>,
    page: StatusPage,
    node: NodeInfo,
    lost: AtomicBool,
}

impl Connection {
    /// Connects and introduces itself.
    ///
    /// # Errors
    /// When there is no server at `path`, or one of another build.
    pub fn open(path: &Path, role: Role) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        // Room for a full stream's operations. Root gets all of it; for others the system's own limit is enough.
        let room = 4 << 20;
        if setsockopt(&socket, sockopt::SndBufForce, &room).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &room)?;
        }
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(REPLY_WAIT_S_MAX))?;
        let mut outbox = Vec::new();
        let hello = Request::Hello { protocol: PROTOCOL, role };
        wire::encode_request(&mut outbox, clock::now(), true, &hello)?;
        wire::send_all(&socket, &outbox)?;
        let (reply, file) = wire::receive_reply_with_file(&socket)?;
        let node = match reply {
            Reply::Welcome(node) => node,
            Reply::Refused { reason, .. } => return Err(io::Error::other(reason)),
            other => return Err(io::Error::other(format!("unexpected answer {other:?}"))),
        };
        let file = file.ok_or_else(|| io::Error::other("the server sent no status page"))?;
        let page = StatusPage::open(&file)?;
        if role == Role::Driver {
            sys::allow_access_by(node.server_pid);
        }
        Ok(Self {
            socket,
            outbox: Mutex::new(outbox),
            question: Mutex::new(()),
            page,
            node,
            lost: AtomicBool::new(false),
        })
    }

    /// Becomes a client of the MPS control program of a pipe directory, and sees the node as such a one from now on.
    ///
    /// # Errors
    /// The status that the server refuses it with.
    pub fn join_mps(
        &mut self,
        pipe: String,
        partition: Option<String>,
        percentage: Option<u32>,
    ) -> Result<(), CUresult> {
        let join = Request::Mps(Mps::Join { pipe, partition, percentage });
        match self.ask(&join) {
            Ok(Reply::Welcome(node)) => {
                self.node = node;
                Ok(())
            }
            Ok(Reply::Refused { status, .. }) => Err(CUresult(status)),
            Ok(_) | Err(Lost) => Err(CUresult::ERROR_DEVICE_UNAVAILABLE),
        }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeInfo {
        &self.node
    }

    /// The status page.
    #[must_use]
    pub fn page(&self) -> &StatusPage {
        &self.page
    }

    /// Whether the server is known to be gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Sends a request that needs no answer.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn post(&self, request: &Request) -> Result<(), Lost> {
        self.send(&mut self.lock_outbox(), false, request)
    }

    /// Sends a request that means nothing to a server that is gone.
    pub fn tell(&self, request: &Request) {
        if self.post(request).is_err() {
            // The connection remembers; whoever needs the server next hears of it.
            debug_assert!(self.is_lost());
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn ask(&self, request: &Request) -> Result<Reply, Lost> {
        let question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(&mut self.lock_outbox(), true, request)?;
        let reply = wire::receive_reply(&self.socket).map_err(|_| self.lose());
        drop(question);
        reply
    }

    /// Asks, and takes the descriptor that comes with the answer.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn ask_for_file(&self, request: &Request) -> Result<(Reply, Option<OwnedFd>), Lost> {
        let question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(&mut self.lock_outbox(), true, request)?;
        let reply = wire::receive_reply_with_file(&self.socket).map_err(|_| self.lose());
        drop(question);
        reply
    }

    /// Hands commands to a stream, in one piece and without waiting for them, and returns the number of the last.
    /// `submitted` is the number of the stream's last command; only this function and [`Self::submit_staged`] change
    /// it. Blocks while the stream is full, for as long as `keep_on` says so.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn submit(
        &self,
        slot: u32,
        submitted: &AtomicU64,
        commands: impl IntoIterator<Item = Command>,
        keep_on: impl Fn() -> bool,
    ) -> Result<u64, Lost> {
        let last = submitted.load(Ordering::Acquire);
        if last >= self.page.completed(slot as usize).saturating_add(PENDING_MAX) {
            self.wait(slot, last - PENDING_MAX + 1, keep_on)?;
        }
        let mut outbox = self.lock_outbox();
        let mut seq = submitted.load(Ordering::Acquire);
        outbox.clear();
        for command in commands {
            seq += 1;
            self.add(&mut outbox, false, &Request::Submit { slot, seq, command })?;
        }
        self.flush(&outbox)?;
        submitted.store(seq, Ordering::Release);
        Ok(seq)
    }

    /// Like [`Self::submit`], but returns only when the server has taken what the command needs of this process's
    /// memory.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn submit_staged(
        &self,
        slot: u32,
        submitted: &AtomicU64,
        command: Command,
    ) -> Result<(u64, Reply), Lost> {
        let question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = {
            let mut outbox = self.lock_outbox();
            let seq = submitted.load(Ordering::Acquire) + 1;
            self.send(&mut outbox, true, &Request::Submit { slot, seq, command })?;
            submitted.store(seq, Ordering::Release);
            seq
        };
        let reply = wire::receive_reply(&self.socket).map_err(|_| self.lose())?;
        drop(question);
        Ok((seq, reply))
    }

    /// Waits until a stream has completed `seq`, for as long as `keep_on` says so. Returns whether it has.
    ///
    /// # Errors
    /// When the server goes away meanwhile.
    pub fn wait(&self, slot: u32, seq: u64, keep_on: impl Fn() -> bool) -> Result<bool, Lost> {
        while !self.page.wait(slot as usize, seq, Duration::from_millis(LOST_CHECK_MS)) {
            if self.is_lost() || self.has_hung_up() {
                return Err(self.lose());
            }
            if !keep_on() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The socket's descriptor number, for a forked child to close: a copy that outlives its process would keep the
    /// server from noticing the death.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    fn lock_outbox(&self) -> MutexGuard<'_, Vec<u8>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, outbox: &mut Vec<u8>, answered: bool, request: &Request) -> Result<(), Lost> {
        outbox.clear();
        self.add(outbox, answered, request)?;
        self.flush(outbox)
    }

    fn add(&self, outbox: &mut Vec<u8>, answered: bool, request: &Request) -> Result<(), Lost> {
        wire::encode_request(outbox, clock::now(), answered, request).map_err(|_| self.lose())
    }

    fn flush(&self, outbox: &[u8]) -> Result<(), Lost> {
        if self.is_lost() {
            return Err(Lost);
        }
        wire::send_all(&self.socket, outbox).map_err(|_| self.lose())
    }

    fn lose(&self) -> Lost {
        self.lost.store(true, Ordering::Release);
        Lost
    }

    fn has_hung_up(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        matches!(recv(self.socket.as_raw_fd(), &mut [0], flags), Ok(0) | Err(nix::errno::Errno::ECONNRESET))
    }
}

/// What can go wrong in the harness's requests.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Connecting failed.
    #[error("cannot reach the simulated device's server: {0}")]
    Connect(#[from] io::Error),
    /// It went away.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// It refused.
    #[error("the simulated device's server refused: {0}")]
    Refused(String),
    /// It answered something that does not belong to the question.
    #[error("the simulated device's server answered {0} out of turn")]
    Unexpected(String),
    /// Its JSON is not JSON.
    #[error("the simulated device's server sent malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The harness's end: sets kernel times, injects faults, reads what the device measured.
#[derive(Debug)]
pub struct Control {
    connection: Connection,
}

impl Control {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        Ok(Self { connection: Connection::open(path, Role::Admin)? })
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeInfo {
        self.connection.node()
    }

    /// Sets how long a kernel takes; `None` for all kernels without a rule of their own.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn set_kernel(&self, name: Option<&str>, rule: KernelRule) -> Result<(), ControlError> {
        self.tell(Admin::SetKernel { name: name.map(str::to_owned), rule })
    }

    /// Makes the next `count` calls of an entry point return `status`, in one process or in any.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn inject_fault(
        &self,
        call: &str,
        status: u32,
        count: u32,
        pid: Option<u32>,
    ) -> Result<(), ControlError> {
        self.tell(Admin::InjectFault { call: call.to_owned(), status, count, pid })
    }

    /// Kills every context on a device with a status that sticks.
    ///
    /// # Errors
    /// When there is no such device or the server is gone.
    pub fn lose_device(&self, device: u32, status: u32) -> Result<(), ControlError> {
        self.tell(Admin::LoseDevice { device, status })
    }

    /// Has NVML report an Xid error of a device.
    ///
    /// # Errors
    /// When there is no such device, there were too many, or the server is gone.
    pub fn xid(&self, device: u32, code: u64) -> Result<(), ControlError> {
        self.tell(Admin::Xid { device, code })
    }

    /// Begins a new measurement.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn mark(&self) -> Result<(), ControlError> {
        self.tell(Admin::Mark)
    }

    /// What the devices measured since the mark; see [`crate`] for its form.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn statistics(&self) -> Result<serde_json::Value, ControlError> {
        self.json(Admin::Statistics)
    }

    /// The journal, oldest entry first.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn journal(&self) -> Result<serde_json::Value, ControlError> {
        self.json(Admin::Journal)
    }

    /// Forgets the journal.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn clear_journal(&self) -> Result<(), ControlError> {
        self.tell(Admin::ClearJournal)
    }

    /// Chooses whether the journal notes every call or only those that reach the server.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn journal_all(&self, all: bool) -> Result<(), ControlError> {
        self.tell(Admin::JournalAll(all))
    }

    fn ask(&self, request: Admin) -> Result<Reply, ControlError> {
        match self.connection.ask(&Request::Admin(request))? {
            Reply::Refused { reason, .. } => Err(ControlError::Refused(reason)),
            reply => Ok(reply),
        }
    }

    fn tell(&self, request: Admin) -> Result<(), ControlError> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => Err(ControlError::Unexpected(format!("{other:?}"))),
        }
    }

    fn json(&self, request: Admin) -> Result<serde_json::Value, ControlError> {
        match self.ask(request)? {
            Reply::Json(text) => Ok(serde_json::from_str(&text)?),
            other => Err(ControlError::Unexpected(format!("{other:?}"))),
        }
    }
}
