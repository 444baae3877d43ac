//! The process at the other end of a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::process;
use crate::node::{Peer, Process};
use crate::{clock, sys};

/// Why a peer cannot be identified.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel refused a step.
    #[error("kernel: {step} failed: {source}")]
    Kernel {
        /// Which step.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The peer runs in a pid namespace that the daemon cannot see into.
    #[error(
        "the process is in a pid namespace the daemon cannot see; run the daemon in the host's (hostPID)"
    )]
    Invisible,
    /// The peer ended before it could be looked at.
    #[error("the process ended during the hello")]
    Gone,
}

/// A peer's process, held by a descriptor: as long as that is not readable, its id means this process.
#[derive(Debug)]
pub struct Held {
    /// The process.
    pub process: Process,
    /// Readable once the process has ended.
    pub pidfd: OwnedFd,
}

/// The process that connected.
///
/// With `SO_PEERPIDFD` (Linux 6.5) the kernel names it without a race. Before that its id is opened by number,
/// and a process that started after this function was entered is taken for what it is: another one.
pub fn hold(socket: BorrowedFd<'_>) -> Result<Held, PeerError> {
    let entered = clock::boot_ticks();
    let credentials = getsockopt(&socket, sockopt::PeerCredentials)
        .map_err(|errno| PeerError::Kernel { step: "SO_PEERCRED", source: errno.into() })?;
    let pid = u32::try_from(credentials.pid()).ok().filter(|&pid| pid != 0).ok_or(PeerError::Invisible)?;
    let (pidfd, by_number) = match getsockopt(&socket, sockopt::PeerPidfd) {
        Ok(pidfd) => (pidfd, false),
        Err(Errno::ENOPROTOOPT | Errno::EINVAL) => {
            let pidfd = sys::pidfd_open(pid)
                .map_err(|source| PeerError::Kernel { step: "pidfd_open of the peer", source })?;
            (pidfd, true)
        }
        Err(Errno::ESRCH) => return Err(PeerError::Gone),
        Err(errno) => return Err(PeerError::Kernel { step: "SO_PEERPIDFD", source: errno.into() }),
    };
    let process = process::process(pid)
        .map_err(|source| PeerError::Kernel { step: "reading /proc/<pid>/stat", source })?;
    let held = Held { process, pidfd };
    let another = by_number && entered < process.start_ticks;
    if another || ended(held.pidfd.as_fd()) { Err(PeerError::Gone) } else { Ok(held) }
}

/// What the kernel says about a held process. What was read is about that process and no other, because it
/// was still there afterwards. Ancestors are looked up only where processes are known by their tree.
pub fn facts(held: &Held, by_tree: bool) -> Result<Peer, PeerError> {
    let process = held.process;
    let cgroup = process::cgroup(process.pid)
        .map_err(|source| PeerError::Kernel { step: "reading /proc/<pid>/cgroup", source })?;
    let ancestors = if by_tree { process::ancestors(process) } else { Vec::new() };
    if ended(held.pidfd.as_fd()) {
        return Err(PeerError::Gone);
    }
    Ok(Peer { process, cgroup, ancestors })
}

/// Opens a process found by other means and makes sure that it is still the same.
pub fn open(process: Process) -> Result<Held, PeerError> {
    let pidfd = sys::pidfd_open(process.pid)
        .map_err(|source| PeerError::Kernel { step: "pidfd_open of a seat's process", source })?;
    match process::process(process.pid) {
        Ok(now) if now == process && !ended(pidfd.as_fd()) => Ok(Held { process, pidfd }),
        _ => Err(PeerError::Gone),
    }
}

/// Whether the process behind a pidfd has ended.
#[must_use]
pub fn ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| 0 < ready)
}
