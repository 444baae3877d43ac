//! System calls of the confinement, one function each.
#![expect(unsafe_code, reason = "system calls that have no safe form in the standard library")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn done_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Namespaces of its own, by their flags.
pub(super) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes flags only.
    done(unsafe { libc::unshare(flags) })
}

/// A user namespace of its own in which it is who it was and nobody else exists.
pub(super) fn own_users() -> io::Result<()> {
    // SAFETY: takes nothing and cannot fail.
    let (user, group) = (unsafe { libc::geteuid() }, effective_group());
    unshare(libc::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

fn effective_group() -> libc::gid_t {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getegid() }
}

/// Points a standard stream at nothing.
pub(super) fn silence(stream: RawFd) -> io::Result<()> {
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: an open descriptor, and the number of a standard stream.
    done_long(unsafe { libc::dup2(nothing.as_raw_fd(), stream) }.into()).map(|_| ())
}

/// Closes every descriptor but the standard ones and one more.
pub(super) fn close_others(keep: Option<RawFd>) -> io::Result<()> {
    const FIRST: u32 = 3;
    let close = |first: u32, last: u32| {
        // SAFETY: nothing in this process uses what it was not told of: it has just started.
        done_long(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(|_| ())
    };
    match keep.and_then(|keep| u32::try_from(keep).ok()).filter(|&keep| keep >= FIRST) {
        Some(FIRST) => close(FIRST + 1, u32::MAX),
        Some(keep) => close(FIRST, keep - 1).and_then(|()| close(keep + 1, u32::MAX)),
        None => close(FIRST, u32::MAX),
    }
}

/// Two ends of a pipe: to read, and to write.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    done(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read, write] = ends;
    // SAFETY: just made, and nobody else's.
    let read = unsafe { OwnedFd::from_raw_fd(read) };
    // SAFETY: as above.
    Ok((read, unsafe { OwnedFd::from_raw_fd(write) }))
}

/// Whether the other end of a pipe is closed.
pub(super) fn hung_up(pipe: &OwnedFd) -> bool {
    let mut look = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    let found = unsafe { libc::poll(&raw mut look, 1, 0) };
    found > 0 && look.revents & libc::POLLHUP != 0
}

/// Makes a second process; 0 there, its number here.
pub(super) fn fork() -> io::Result<i32> {
    // SAFETY: the process has one thread, so the second one may do what it likes.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        process => Ok(process),
    }
}

/// Has this process killed when the one that forked it ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    // SAFETY: takes numbers here.
    done(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    Status(u8),
    Signal(i32),
}

/// Waits for the end of a process that was forked here.
pub(super) fn wait(process: i32) -> io::Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: room for a status.
        if unsafe { libc::waitpid(process, &raw mut status, 0) } == process {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFSIGNALED(status) {
        return Ok(Ended::Signal(libc::WTERMSIG(status)));
    }
    Ok(Ended::Status(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)))
}

/// Ends this process by a signal, without a dump. Returns only if the signal ends nothing.
pub(super) fn end_by(signal: i32) {
    let _dumps_then = limit(libc::RLIMIT_CORE, 1);
    // SAFETY: this process has set no handlers; the default is what the worker ended by.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: a signal to this thread.
    unsafe { libc::raise(signal) };
}

/// Lowers a limit for good.
pub(super) fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit.
    done(unsafe { libc::getrlimit(resource, &raw mut now) })?;
    let most = most.min(now.rlim_max);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the limit outlives the call.
    done(unsafe { libc::setrlimit(resource, &raw const limit) })
}

/// Leaves the terminal, if there is one.
pub(super) fn leave_terminal() -> io::Result<()> {
    // SAFETY: takes nothing.
    done_long(unsafe { libc::setsid() }.into()).map(|_| ())
}

/// Gives up every capability, and the right to have one again.
pub(super) fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Head {
        version: u32,
        process: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const _: () = assert!(size_of::<Head>() == 8 && size_of::<Sets>() == 12);
    // As many as the kernel knows; the first it does not know ends it. Without the right to, there is none to lose.
    for capability in 0..64 {
        // SAFETY: takes numbers here.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    // SAFETY: takes numbers here.
    done(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let head = Head { version: VERSION, process: 0 };
    let none = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both structures are as the kernel's version 3 has them, and outlive the call.
    done_long(unsafe { libc::syscall(libc::SYS_capset, &raw const head, none.as_ptr()) }).map(|_| ())
}

/// No program this process becomes has more rights than it.
pub(super) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers here.
    done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// `mount(2)`.
pub(super) fn mount(
    source: &Path,
    target: &Path,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    let (source, target) = (text(source)?, text(target)?);
    // SAFETY: four terminated texts, which outlive the call.
    done(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) })
}

/// Adds attributes (`MOUNT_ATTR_*`) to a mount, or to it and all below.
pub(super) fn add_attributes(target: &Path, attributes: u64, all: bool) -> io::Result<()> {
    let target = text(target)?;
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = if all { libc::AT_RECURSIVE } else { 0 };
    let (call, bytes) = (libc::SYS_mount_setattr, size_of::<libc::mount_attr>());
    // SAFETY: a terminated text and a structure of the size told, which outlive the call.
    let result =
        unsafe { libc::syscall(call, libc::AT_FDCWD, target.as_ptr(), flags, &raw const change, bytes) };
    done_long(result).map(|_| ())
}

/// Detaches what is mounted somewhere.
pub(super) fn detach(target: &Path) -> io::Result<()> {
    let target = text(target)?;
    // SAFETY: a terminated text.
    done(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
}

/// Makes a mount the root and has the old one under it.
pub(super) fn pivot(new: &Path, old: &Path) -> io::Result<()> {
    let (new, old) = (text(new)?, text(old)?);
    // SAFETY: two terminated texts.
    done_long(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) }).map(|_| ())
}

/// The same in one place: the old root is under the new one until the current directory is detached.
pub(super) fn swap_root(new: &Path) -> io::Result<()> {
    let old = std::fs::File::open("/")?;
    std::env::set_current_dir(new)?;
    pivot(Path::new("."), Path::new("."))?;
    // SAFETY: a descriptor of a directory.
    done(unsafe { libc::fchdir(old.as_raw_fd()) })?;
    detach(Path::new("."))?;
    std::env::set_current_dir("/")
}
