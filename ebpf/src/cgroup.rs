//! Cgroups as the kernel programs know them: by number.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use crate::error::Error;

/// An open cgroup v2 directory and its number.
///
/// It stays open so that what is attached to is what was named, even if the directory is removed and made again.
#[derive(Debug)]
pub struct Cgroup {
    directory: OwnedFd,
    id: u64,
}

impl Cgroup {
    /// Opens the cgroup at an absolute path of the file system, such as `/sys/fs/cgroup/headgate/alerts`.
    ///
    /// # Errors
    /// [`Error::NotCgroup`] if the path cannot be opened or is on another file system.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::NotCgroup { path: path.to_owned(), reason };
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| refused(error.to_string()))?;
        Self::from_fd(directory.into()).map_err(|error| match error {
            Error::NotCgroup { reason, .. } => refused(reason),
            other => other,
        })
    }

    /// Takes an open cgroup directory.
    ///
    /// # Errors
    /// [`Error::NotCgroup`] if it is on another file system.
    pub fn from_fd(directory: OwnedFd) -> Result<Self, Error> {
        let file = File::from(directory);
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        if !is_cgroup2(file.as_fd()) {
            return Err(Error::NotCgroup { path, reason: "it is on another kind of file system".to_owned() });
        }
        // The kernel numbers a cgroup by its directory's inode on 64-bit machines.
        let id = file.metadata().map_err(|error| Error::NotCgroup { path, reason: error.to_string() })?.ino();
        Ok(Self { directory: file.into(), id })
    }

    /// The number that `bpf_get_current_cgroup_id` answers inside it.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

#[expect(unsafe_code, reason = "the standard library has no fstatfs")]
fn is_cgroup2(fd: BorrowedFd<'_>) -> bool {
    let mut buffer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open and the buffer is of the type the call fills.
    let answer = unsafe { libc::fstatfs(fd.as_raw_fd(), buffer.as_mut_ptr()) };
    if answer != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it filled the buffer.
    let filled = unsafe { buffer.assume_init() };
    filled.f_type == libc::CGROUP2_SUPER_MAGIC
}

/// Where cgroup v2 is mounted: usually `/sys/fs/cgroup`, on hybrid hosts below it. `None` without one.
#[must_use]
pub fn unified_mount() -> Option<PathBuf> {
    let mounts = BufReader::new(File::open("/proc/self/mounts").ok()?);
    mounts.lines().map_while(Result::ok).find_map(|line| mount_point_of_cgroup2(&line))
}

/// The mount point in a line of `/proc/mounts` if it mounts cgroup v2.
fn mount_point_of_cgroup2(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(' ');
    let (_, mount_point, kind) = (fields.next()?, fields.next()?, fields.next()?);
    (kind == "cgroup2").then(|| PathBuf::from(mount_point.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unified_hierarchy_is_found() {
        assert_eq!(mount_point_of_cgroup2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0"), None);
        assert_eq!(
            mount_point_of_cgroup2("cgroup2 /sys/fs/cgroup\\040x cgroup2 rw 0 0"),
            Some(PathBuf::from("/sys/fs/cgroup x"))
        );
        assert_eq!(mount_point_of_cgroup2("cgroup2"), None);
    }

    #[test]
    fn an_ordinary_directory_is_no_cgroup() {
        let error = Cgroup::open(Path::new("/tmp")).expect_err("/tmp is not on cgroup v2");
        assert!(error.to_string().contains("another kind of file system"), "{error}");
        assert!(Cgroup::open(Path::new("/nonexistent")).is_err());
    }
}
