//! A root of the worker's own: what a driver needs, and nothing else of the host's files.
//!
//! ```text
//! /usr /lib* /etc/ld.so.* /sys      the host's, read-only       LD_LIBRARY_PATH, NVIDIA's sockets, HEADGATE_WORKER_PATHS likewise
//! /dev                              null, zero, full, random, urandom, nvidia*
//! /proc                             its own processes only, read-only
//! /tmp /dev/shm                     its own, empty, bounded, nothing in them can be executed
//! ```

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};

use super::sys;
use crate::limits::WORKER_PATHS_MAX;

/// Further files and directories that this node's driver needs, separated by colons.
const PATHS_ENV: &str = "HEADGATE_WORKER_PATHS";
/// Where the hook finds its daemon.
const DAEMON_ENV: &str = "HEADGATE_SOCKET";
/// Where programs find the server of NVIDIA's multi-process service, and where that is without it.
const SERVICE_ENV: &str = "CUDA_MPS_PIPE_DIRECTORY";
const SERVICE: &str = "/tmp/nvidia-mps";

/// What every dynamically linked program and NVIDIA's libraries look at. What is not there is left out.
const SYSTEM: [&str; 17] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/run/opengl-driver",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/nvidia",
    "/etc/nvidia-container-runtime",
    "/run/nvidia-persistenced",
    "/run/nvidia-fabricmanager",
    "/sys",
];
/// Devices that are not NVIDIA's.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// NVIDIA's devices that computing needs nothing of: setting modes, and the profilers'.
const OTHER_DEVICES: [&str; 2] = ["nvidia-modeset", "nvidia-uvm-tools"];

const QUIET: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
const PLAIN: &CStr = c"";
/// Bytes and files of `/tmp` and of `/dev/shm`.
const SCRATCH: &CStr = c"mode=1777,size=64m,nr_inodes=4096";
const SMALL: &CStr = c"mode=755,size=1m,nr_inodes=4096";

/// What of the host's files the worker shall see.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Where things really are.
    things: Vec<PathBuf>,
    /// Other names of them.
    links: BTreeMap<PathBuf, PathBuf>,
    shares_memory: bool,
}

impl Kept {
    /// Looks it up.
    pub(super) fn collect() -> Self {
        let mut kept = Self::default();
        for path in SYSTEM.iter().chain(&DEVICES) {
            kept.add(Path::new(path));
        }
        for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let known = name.to_str().filter(|name| name.starts_with("nvidia"));
            if known.is_some_and(|name| !OTHER_DEVICES.contains(&name)) {
                kept.add(&entry.path());
            }
        }
        for directory in paths(env::var_os("LD_LIBRARY_PATH").as_deref()) {
            kept.add(&directory);
            // A library may be a link to somewhere else.
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                    kept.add_target(&entry.path());
                }
            }
        }
        for path in [PATHS_ENV, DAEMON_ENV].iter().flat_map(|name| paths(env::var_os(name).as_deref())) {
            kept.add(&path);
        }
        let service = env::var_os(SERVICE_ENV).map_or_else(|| SERVICE.into(), PathBuf::from);
        if service.is_dir() {
            kept.add(&service);
            kept.add(Path::new("/dev/shm"));
            kept.shares_memory = true;
        }
        kept
    }

    /// Whether the worker shares memory with a service of this node.
    pub(super) fn shares_memory(&self) -> bool {
        self.shares_memory
    }

    fn add(&mut self, path: &Path) {
        if let Some(real) = self.add_target(path)
            && real != path
        {
            self.links.insert(path.to_path_buf(), real);
        }
    }

    /// Adds what a path leads to, unless it is part of what is there.
    fn add_target(&mut self, path: &Path) -> Option<PathBuf> {
        let real = fs::canonicalize(path).ok().filter(|_| path.is_absolute())?;
        let covered = self.things.iter().any(|thing| real.starts_with(thing));
        // The whole of the host's root is not what anybody means by a path.
        if !covered && real != Path::new("/") && self.things.len() < WORKER_PATHS_MAX {
            self.things.push(real.clone());
        }
        Some(real)
    }
}

fn paths(list: Option<&OsStr>) -> Vec<PathBuf> {
    list.map(|list| env::split_paths(list).filter(|path| path.is_absolute()).collect()).unwrap_or_default()
}

/// Keeps what follows to this process.
pub(super) fn begin() -> io::Result<()> {
    sys::mount(Path::new("none"), Path::new("/"), PLAIN, libc::MS_REC | libc::MS_PRIVATE, PLAIN)
}

fn file_system(kind: &CStr, target: &str, flags: libc::c_ulong, data: &CStr) -> io::Result<()> {
    let flags = flags | libc::MS_NOSUID | libc::MS_NODEV;
    sys::mount(Path::new("none"), Path::new(target), kind, flags, data)
        .map_err(|error| io::Error::new(error.kind(), format!("{target}: {error}")))
}

/// Makes the root and enters it. What could not be had, where it can be done without.
pub(super) fn build(kept: &Kept) -> io::Result<Vec<String>> {
    let mut refused = Vec::new();
    // The new root grows in a file system of its own, with the host's under `/old` meanwhile.
    file_system(c"tmpfs", "/tmp", 0, SMALL)?;
    env::set_current_dir("/tmp")?;
    fs::create_dir("new")?;
    fs::create_dir("old")?;
    sys::mount(Path::new("new"), Path::new("new"), PLAIN, libc::MS_BIND | libc::MS_REC, PLAIN)?;
    sys::pivot(Path::new("."), Path::new("old"))?;
    env::set_current_dir("/")?;
    for directory in ["/new/tmp", "/new/dev", "/new/proc"] {
        fs::create_dir(directory)?;
    }
    file_system(c"tmpfs", "/new/tmp", libc::MS_NOEXEC, SCRATCH)?;
    file_system(c"tmpfs", "/new/dev", libc::MS_NOEXEC, SMALL)?;
    if !kept.shares_memory {
        fs::create_dir("/new/dev/shm")?;
        file_system(c"tmpfs", "/new/dev/shm", libc::MS_NOEXEC, SCRATCH)?;
    }
    for thing in &kept.things {
        if let Err(error) = bring(thing) {
            refused.push(format!("{} in its root: {error}", thing.display()));
        }
    }
    for (name, real) in &kept.links {
        let place = under("/new", name);
        if place.symlink_metadata().is_err() {
            let made = parents(&place).and_then(|()| symlink(real, &place));
            refused.extend(made.err().map(|error| format!("{} in its root: {error}", name.display())));
        }
    }
    // Without process numbers of its own, or below masks, the kernel refuses a new view of them.
    let own = file_system(c"proc", "/new/proc", libc::MS_NOEXEC | libc::MS_RDONLY, PLAIN);
    if let Err(error) = own {
        refused.push(format!("a view of its own processes only: {error}"));
        sys::mount(
            Path::new("/old/proc"),
            Path::new("/new/proc"),
            PLAIN,
            libc::MS_BIND | libc::MS_REC,
            PLAIN,
        )?;
        sys::add_attributes(Path::new("/new/proc"), QUIET, true)?;
    }
    sys::mount(Path::new("none"), Path::new("/old"), PLAIN, libc::MS_REC | libc::MS_PRIVATE, PLAIN)?;
    sys::detach(Path::new("/old"))?;
    sys::swap_root(Path::new("/new"))?;
    for place in ["/", "/dev"] {
        sys::add_attributes(Path::new(place), QUIET, false)?;
    }
    Ok(refused)
}

/// A path of the host as it is named below another.
fn under(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

fn parents(place: &Path) -> io::Result<()> {
    place.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Brings one thing of the host into the new root, read-only.
fn bring(thing: &Path) -> io::Result<()> {
    let (from, to) = (under("/old", thing), under("/new", thing));
    let kind = fs::metadata(&from)?.file_type();
    parents(&to)?;
    if kind.is_dir() {
        fs::create_dir_all(&to)?;
    } else {
        drop(fs::File::create(&to)?);
    }
    sys::mount(&from, &to, PLAIN, libc::MS_BIND | libc::MS_REC, PLAIN)?;
    let is_device = kind.is_char_device() || thing.starts_with("/dev");
    let quiet = if is_device { QUIET } else { QUIET | libc::MOUNT_ATTR_NODEV };
    if thing == Path::new("/dev/shm") {
        return Ok(());
    }
    sys::add_attributes(&to, quiet, true)
}
