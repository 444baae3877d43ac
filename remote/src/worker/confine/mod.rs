//! What a worker gives up before it reads the first byte of a stranger's.
//!
//! ```text
//! enclose   one thread, no driver yet        own user, network, IPC, host-name and cgroup namespaces; descriptors closed
//!    └─ fork: the warden waits outside       own process ids; dies with the warden
//!         own root (root.rs)                 what a driver needs, read-only; its own empty /tmp and /dev/shm
//!         no capabilities, no new privileges, limits, no terminal
//! the driver loads, devices are asked
//! seal      all threads                      the system calls that a running driver needs (filter.rs)
//! the session's first byte is read
//! ```
//!
//! This contains what a hostile image makes of the driver's compiler, or a hostile message of this program. It is no wall
//! around the driver: whoever takes the process over still has the device's files, as the guest's quota still holds for it.
//! Each part stands where the kernel lets it; what the kernel refuses is said on standard error, and the lender's daemon
//! reads in `/proc` which parts stand. The worker keeps its user: a device's files may be that user's alone, and what it
//! could write as that user is not in its root.

mod sys;
mod root;
mod filter;

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::limits::{WORKER_DESCRIPTORS_MAX, WORKER_TASKS_MAX};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Enclosed {
    /// The worker, confined. With what the kernel refused.
    Worker(Vec<String>),
    /// Whoever waits for it, outside.
    Warden(Warden),
}

/// The process that started the worker, and ends as it ends.
#[derive(Debug)]
pub struct Warden {
    worker: i32,
    /// Closed with this process: the worker may look whether it still is.
    _alive: OwnedFd,
}

impl Warden {
    /// The worker's process id, as this process's namespace has it.
    #[must_use]
    pub fn worker(&self) -> i32 {
        self.worker
    }

    /// Waits until the worker has ended: its exit status. If a signal ended it, this process ends by the same.
    ///
    /// # Errors
    /// When the worker cannot be waited for.
    pub fn wait(&self) -> io::Result<u8> {
        match sys::wait(self.worker)? {
            sys::Ended::Status(status) => Ok(status),
            sys::Ended::Signal(signal) => {
                sys::end_by(signal);
                Err(io::Error::other(format!("the worker was ended by signal {signal}")))
            }
        }
    }
}

/// Leaves what a worker needs nothing of. Of its descriptors it keeps standard error and the session's.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// When the kernel refuses a step that cannot be taken back.
pub fn enclose(session: Option<RawFd>) -> io::Result<Enclosed> {
    let mut refused = Vec::new();
    let mut note = |what: &str, outcome: io::Result<()>| {
        let stands = outcome.is_ok();
        if let Err(error) = outcome {
            refused.push(format!("{what}: {error}"));
        }
        stands
    };
    // Standard input may be the session's connection, which ends when nobody has it any more.
    sys::silence(libc::STDIN_FILENO)?;
    note("closed descriptors", sys::close_others(session));
    // What the root is made of is looked up while everything can still be seen.
    let kept = root::Kept::collect();
    // First: its owner may make the others.
    let own_users = note("user namespace", sys::own_users());
    note("network namespace", sys::unshare(libc::CLONE_NEWNET));
    note("host name namespace", sys::unshare(libc::CLONE_NEWUTS));
    note("cgroup namespace", sys::unshare(libc::CLONE_NEWCGROUP));
    // The processes of a multi-process service share memory with its server.
    if !kept.shares_memory() {
        note("IPC namespace", sys::unshare(libc::CLONE_NEWIPC));
    }
    if note("process namespace", sys::unshare(libc::CLONE_NEWPID)) {
        let (alive, mine) = sys::pipe()?;
        match sys::fork()? {
            0 => {
                drop(mine);
                sys::die_with_parent()?;
                if sys::hung_up(&alive) {
                    return Err(io::Error::other("whoever started this worker is gone"));
                }
            }
            worker => {
                drop(alive);
                return Ok(Enclosed::Warden(Warden { worker, _alive: mine }));
            }
        }
    }
    sys::silence(libc::STDOUT_FILENO)?;
    if note("mount namespace", sys::unshare(libc::CLONE_NEWNS).and_then(|()| root::begin())) {
        // From here on there is no way back: a root half made is none to work in.
        refused.extend(root::build(&kept)?);
    }
    limit(own_users, &mut refused);
    Ok(Enclosed::Worker(refused))
}

fn limit(own_users: bool, refused: &mut Vec<String>) {
    let mut note = |what: &str, outcome: io::Result<()>| {
        if let Err(error) = outcome {
            refused.push(format!("{what}: {error}"));
        }
    };
    // One byte is less than any dump, and a limit of one also keeps a dump from being piped to a program.
    note("limit of core dumps", sys::limit(libc::RLIMIT_CORE, 1));
    note("limit of descriptors", sys::limit(libc::RLIMIT_NOFILE, WORKER_DESCRIPTORS_MAX));
    note("limit of message queues", sys::limit(libc::RLIMIT_MSGQUEUE, 0));
    note("limit of priority", sys::limit(libc::RLIMIT_RTPRIO, 0));
    if own_users {
        // Elsewhere the limit would count the threads of all the user's processes.
        note("limit of threads", sys::limit(libc::RLIMIT_NPROC, WORKER_TASKS_MAX));
    }
    // A leader of a session has no terminal. Whoever leads one already stays what it is.
    let _leads_already = sys::leave_terminal();
    note("lack of capabilities", sys::drop_capabilities());
    note("lack of new privileges", sys::no_new_privileges());
}

/// Takes the system calls away that no running driver needs, from all threads of the process.
///
/// # Errors
/// When the kernel refuses.
pub fn seal() -> io::Result<()> {
    filter::install()
}
