//! One thread: it renews the heartbeat, answers hellos and takes seats back when connections end.
#![expect(clippy::print_stdout, reason = "what it counted is its output")]

use std::collections::HashMap;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use headgate_abi::limits::{FRAME_BYTES_MAX, HEARTBEAT_PERIOD_US};
use headgate_abi::segment::SeatIndex;
use headgate_abi::wire::{Answer, Frame, Hello};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::tenant::{MEMORY_BYTES, Tenant};

/// Half the heartbeat's period, so that a late wake-up makes no stale heartbeat.
const TICK_MS: u16 = 8;
/// Events taken from the kernel at once.
const EVENTS: usize = 64;
/// Tokens of the two descriptors that are no session; sessions count up from [`FIRST`].
const LISTENER: u64 = 0;
const STDIN: u64 = 1;
const FIRST: u64 = 2;

const _: () = assert!(TICK_MS as u64 * 1_000 * 2 <= HEARTBEAT_PERIOD_US);

struct Session {
    stream: UnixStream,
    received: Vec<u8>,
    seat: Option<SeatIndex>,
}

struct Service {
    epoll: Epoll,
    listener: UnixListener,
    tenant: Tenant,
    sessions: HashMap<u64, Session>,
    next: u64,
}

/// Serves until standard input ends.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let mut service = Service::listen(socket)?;
    let stdin = std::io::stdin();
    service
        .epoll
        .add(stdin.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, STDIN))
        .context("watching standard input")?;
    say(format_args!("listening {MEMORY_BYTES}"))?;

    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        service.tenant.beat()?;
        let count = match service.epoll.wait(&mut events, EpollTimeout::from(TICK_MS)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context("waiting for hooks"),
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => service.accept()?,
                STDIN => return Ok(()),
                token => service.hear(token)?,
            }
        }
    }
}

impl Service {
    fn listen(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("binding {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll")?;
        epoll
            .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
            .context("watching the socket")?;
        Ok(Self { epoll, listener, tenant: Tenant::new()?, sessions: HashMap::new(), next: FIRST })
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    let token = self.next;
                    self.next += 1;
                    self.epoll
                        .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))
                        .context("watching a session")?;
                    self.sessions.insert(token, Session { stream, received: Vec::new(), seat: None });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting a hook"),
            }
        }
    }

    /// Reads what a hook sent, and answers its hello or notes that it has gone.
    fn hear(&mut self, token: u64) -> Result<()> {
        let session = self.sessions.get_mut(&token).context("an event of a session that is gone")?;
        let mut buffer = [0u8; FRAME_BYTES_MAX];
        match session.stream.read(&mut buffer) {
            Ok(0) => return self.leave(token),
            Ok(count) => session.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return self.leave(token),
            Err(error) => return Err(error).context("hearing a hook"),
        }
        let hello = match Frame::parse(&session.received)? {
            Some((frame, _)) => Hello::decode(frame)?,
            None => return Ok(()),
        };
        ensure!(session.seat.is_none(), "a hook said hello twice");
        session.received.clear();
        let (seat, welcome) = self.tenant.welcome(&hello)?;
        session.seat = Some(seat);
        let sent = sendmsg::<()>(
            session.stream.as_raw_fd(),
            &[IoSlice::new(&Answer::Welcome(welcome).encode())],
            &[ControlMessage::ScmRights(&self.tenant.descriptors())],
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Ok(_) => Ok(()),
            // On a busy machine a hook may have stopped waiting. Its program says so; the others go on.
            Err(Errno::EPIPE | Errno::ECONNRESET) => self.leave(token),
            Err(error) => Err(error).context("welcoming a hook"),
        }
    }

    fn leave(&mut self, token: u64) -> Result<()> {
        let seat = self.sessions.remove(&token).and_then(|session| session.seat);
        let Some(counts) = seat.map(|seat| self.tenant.take_back(seat)) else { return Ok(()) };
        say(format_args!("left {} {}", counts.launches, counts.batches))
    }
}

fn say(line: std::fmt::Arguments<'_>) -> Result<()> {
    println!("{line}");
    std::io::stdout().flush().context("telling the bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_has_stopped_waiting_takes_nobody_along() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let mut service = Service::listen(&socket).unwrap();
        let hello =
            Hello { driver_version: 13_000, text_start: 0, text_end: 0, seat: None, devices: vec![[1; 16]] };
        let mut impatient = UnixStream::connect(&socket).unwrap();
        impatient.write_all(&hello.encode()).unwrap();
        drop(impatient);
        service.accept().unwrap();
        service.hear(FIRST).unwrap();
        assert!(service.sessions.is_empty(), "its seat is free again");

        let mut patient = UnixStream::connect(&socket).unwrap();
        patient.write_all(&hello.encode()).unwrap();
        service.accept().unwrap();
        service.hear(FIRST + 1).unwrap();
        let mut answer = [0; FRAME_BYTES_MAX];
        let count = patient.read(&mut answer).unwrap();
        let (frame, _) = Frame::parse(&answer[..count]).unwrap().unwrap();
        let Answer::Welcome(welcome) = Answer::decode(frame).unwrap() else { panic!("refused") };
        assert_eq!(welcome.seat.to_u32(), 0, "the first seat was taken back");
    }
}
