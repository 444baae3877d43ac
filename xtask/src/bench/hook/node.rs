//! The least daemon a hook needs: a socket, segments, an open gate and a heartbeat.
//!
//! One tenant, with a memory quota of 8 GiB and a compute quota (host gate), on whatever devices the first hook
//! names. One thread: it renews the heartbeat, answers hellos and takes seats back when connections end.

use std::io::{ErrorKind, IoSlice, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use headgate_abi::limits::{DEVICES_MAX, FRAME_BYTES_MAX, HEARTBEAT_PERIOD_US};
use headgate_abi::segment::layout::{FAIL_OPEN, GATE_HOST, GATE_OPEN_BIT};
use headgate_abi::segment::map::{LedgerSegment, LimitsSegment};
use headgate_abi::segment::{Ledger, SeatIndex};
use headgate_abi::wire::{Answer, Frame, Hello, Welcome};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::clock;

/// The tenant's memory quota.
pub(super) const MEMORY_BYTES: u64 = 8 << 30;
/// As the real daemon sets them.
const BATCH_US: u32 = 250;
const BATCH_LAUNCHES_MAX: u32 = 64;
const BATCHES_AHEAD_MAX: u32 = 2;
/// 50 % of a device.
const SM_PPM: u32 = 500_000;
/// Half the heartbeat's period, so that a late wake-up is no stale heartbeat.
const TICK_MS: u16 = 10;
/// Longest wait for a connection that has ended to be noticed.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

const _: () = assert!(TICK_MS as u64 * 1_000 * 2 <= HEARTBEAT_PERIOD_US);

/// What the seats of ended sessions had counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) sessions: u64,
    pub(super) launches: u64,
    pub(super) batches: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sessions: AtomicU64,
    launches: AtomicU64,
    batches: AtomicU64,
}

/// The stand-in daemon. Ends with this value.
pub(super) struct Node {
    directory: tempfile::TempDir,
    shared: Arc<Shared>,
    /// One message for each session that ended.
    left: mpsc::Receiver<()>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Node {
    pub(super) fn start() -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the socket")?;
        let listener = UnixListener::bind(socket_in(directory.path())).context("binding the socket")?;
        listener.set_nonblocking(true).context("setting up the socket")?;
        let shared = Arc::new(Shared::default());
        let (tell, left) = mpsc::channel();
        let mut service = Service::new(listener, Arc::clone(&shared), tell)?;
        let thread = std::thread::Builder::new()
            .name("stand-in".to_owned())
            .spawn(move || service.serve())
            .context("starting the stand-in's thread")?;
        Ok(Self { directory, shared, left, thread: Some(thread) })
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }

    /// What all sessions that have ended had counted.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            sessions: self.shared.sessions.load(Acquire),
            launches: self.shared.launches.load(Acquire),
            batches: self.shared.batches.load(Acquire),
        }
    }

    /// The same, once so many sessions have ended in all.
    pub(super) fn counts_once_left(&self, sessions: u64) -> Result<Counts> {
        while self.counts().sessions < sessions {
            self.left.recv_timeout(LEAVE_WAIT).map_err(|error| {
                anyhow!("no session ended ({error}): did the hook reach the stand-in daemon at all?")
            })?;
        }
        Ok(self.counts())
    }

    /// Ends the thread and gives its verdict.
    pub(super) fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(anyhow!("the stand-in daemon panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("bench: the stand-in daemon panicked");
        }
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

struct Service {
    listener: UnixListener,
    limits: LimitsSegment,
    limits_fd: OwnedFd,
    ledger: Ledger,
    ledger_fd: OwnedFd,
    peers: Vec<Peer>,
    generation: u64,
    shared: Arc<Shared>,
    tell: mpsc::Sender<()>,
}

struct Peer {
    stream: UnixStream,
    received: Vec<u8>,
    seat: Option<SeatIndex>,
}

impl Service {
    fn new(listener: UnixListener, shared: Arc<Shared>, tell: mpsc::Sender<()>) -> Result<Self> {
        let (limits, limits_fd) = LimitsSegment::create()?;
        let (ledger, ledger_fd) = LedgerSegment::create()?;
        limits.header().fail_policy.store(FAIL_OPEN, Relaxed);
        limits.header().epoch.store(1, Relaxed);
        let ledger = Ledger::new(ledger);
        let service = Self {
            listener,
            limits,
            limits_fd,
            ledger,
            ledger_fd,
            peers: vec![],
            generation: 0,
            shared,
            tell,
        };
        service.beat()?;
        Ok(service)
    }

    fn beat(&self) -> Result<()> {
        self.limits.header().heartbeat_us.store(clock::now_ns()? / 1_000, Release);
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        while !self.shared.stop.load(Acquire) {
            self.beat()?;
            let ready = self.wait()?;
            // From the back, so that removing one does not move those still to come.
            for index in (0..self.peers.len()).rev() {
                if ready[index + 1] && !self.hear(index)? {
                    let peer = self.peers.swap_remove(index);
                    self.take_back(&peer)?;
                }
            }
            if ready[0] {
                self.accept()?;
            }
        }
        Ok(())
    }

    /// Which of the listener and the peers have something for us.
    fn wait(&self) -> Result<Vec<bool>> {
        let streams = self.peers.iter().map(|peer| peer.stream.as_fd());
        let mut watched: Vec<PollFd<'_>> = std::iter::once(self.listener.as_fd())
            .chain(streams)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut watched, PollTimeout::from(TICK_MS)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for hooks"),
        }
        Ok(watched.iter().map(|fd| fd.any().unwrap_or(false)).collect())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).context("setting up a connection")?;
                    self.peers.push(Peer { stream, received: Vec::new(), seat: None });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting a hook"),
            }
        }
    }

    /// Reads what a peer sent and answers its hello. `false` when it has gone.
    fn hear(&mut self, index: usize) -> Result<bool> {
        let peer = &mut self.peers[index];
        let mut buffer = [0u8; FRAME_BYTES_MAX];
        match peer.stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => peer.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error).context("hearing a hook"),
        }
        let hello = match Frame::parse(&peer.received)? {
            Some((frame, _)) => Hello::decode(frame)?,
            None => return Ok(true),
        };
        ensure!(peer.seat.is_none(), "a hook said hello twice");
        peer.received.clear();
        self.generation += 1;
        let seat = self.ledger.take_seat(0, self.generation).context("more hooks than seats")?;
        self.peers[index].seat = Some(seat);
        let welcome = self.welcome(&hello, seat);
        let descriptors = [self.limits_fd.as_raw_fd(), self.ledger_fd.as_raw_fd()];
        sendmsg::<()>(
            self.peers[index].stream.as_raw_fd(),
            &[IoSlice::new(&Answer::Welcome(welcome).encode())],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .context("welcoming a hook")?;
        Ok(true)
    }

    /// Governs the devices the hook names, in its order, and gives it a seat.
    fn welcome(&self, hello: &Hello, seat: SeatIndex) -> Welcome {
        for (row, uuid) in hello.devices.iter().enumerate().take(DEVICES_MAX) {
            let device = self.limits.device(row);
            let half = |at: usize| {
                uuid[at..].iter().take(8).rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte))
            };
            device.memory_bytes_max.store(MEMORY_BYTES, Relaxed);
            device.batch_us.store(BATCH_US, Relaxed);
            device.batch_launches_max.store(BATCH_LAUNCHES_MAX, Relaxed);
            device.batches_ahead_max.store(BATCHES_AHEAD_MAX, Relaxed);
            device.sm_ppm.store(SM_PPM, Relaxed);
            device.gate_mode.store(GATE_HOST, Relaxed);
            device.gate.store(GATE_OPEN_BIT, Release);
            device.uuid[0].store(half(0), Release);
            device.uuid[1].store(half(8), Release);
        }
        Welcome {
            tenant: 0,
            seat,
            generation: self.generation,
            fresh: true,
            off: false,
            rows: (0..hello.devices.len()).map(|row| u8::try_from(row).ok()).collect(),
            tenant_name: "bench".to_owned(),
        }
    }

    fn take_back(&self, peer: &Peer) -> Result<()> {
        let Some(seat) = peer.seat else { return Ok(()) };
        for counters in &self.ledger.seat(seat).counters {
            self.shared.launches.fetch_add(counters.launches.load(Acquire), Relaxed);
            self.shared.batches.fetch_add(counters.batches.load(Acquire), Relaxed);
        }
        self.ledger.reap(seat);
        self.shared.sessions.fetch_add(1, Release);
        // Nobody may be listening for it; the count stands either way.
        let _told = self.tell.send(());
        Ok(())
    }
}
