//! The cgroup2 hierarchy: where it is, and moving processes into it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::config::model::CgroupPath;

/// The mounted cgroup2 root, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cgroups {
    root: Option<PathBuf>,
}

impl Cgroups {
    /// Uses `configured`, else looks the mount up.
    #[must_use]
    pub fn find(configured: Option<&Path>) -> Self {
        let mounts = || parse_mounts(&fs::read_to_string("/proc/self/mountinfo").ok()?);
        Self { root: configured.map(Path::to_owned).or_else(mounts) }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The directory of a cgroup.
    #[must_use]
    pub fn directory(&self, cgroup: &CgroupPath) -> Option<PathBuf> {
        // A `CgroupPath` has no `..`, so it cannot leave the root.
        Some(self.root()?.join(cgroup.as_str().trim_start_matches('/')))
    }

    /// Why this process may not move others between cgroups; `None` when it may.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let Some(root) = self.root() else {
            return Some("this kernel has no cgroup2 mount".to_owned());
        };
        // The kernel asks for write access to the cgroup.procs of the common ancestor, which is the root's.
        nix::unistd::access(&root.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK)
            .err()
            .map(|error| format!("{} is not writable for the daemon: {}", root.display(), error.desc()))
    }

    /// Makes the cgroup if need be. The directory.
    pub fn make(&self, cgroup: &CgroupPath) -> io::Result<PathBuf> {
        let directory = self.directory(cgroup).ok_or_else(|| io::Error::other("no cgroup2 mount"))?;
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Moves a process into a cgroup, making the cgroup if need be.
    pub fn place(&self, cgroup: &CgroupPath, pid: u32) -> io::Result<()> {
        let directory = self.make(cgroup)?;
        let mut procs = fs::OpenOptions::new().write(true).open(directory.join("cgroup.procs"))?;
        procs.write_all(pid.to_string().as_bytes())
    }
}

/// The first cgroup2 mount of a `mountinfo`, preferring one that shows the whole hierarchy.
fn parse_mounts(text: &str) -> Option<PathBuf> {
    let mounts = text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split_ascii_whitespace().next()? == "cgroup2").then_some(())?;
        let mut fields = before.split_ascii_whitespace().skip(3);
        let (shown, at) = (fields.next()?, fields.next()?);
        Some((shown != "/", PathBuf::from(unescape(at))))
    });
    mounts.min_by_key(|(partial, _)| *partial).map(|(_, at)| at)
}

/// `mountinfo` writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hierarchy_is_preferred() {
        let text = "24 30 0:22 / /sys rw - sysfs sysfs rw\n\
                    50 24 0:40 /pod /sys/fs/cgroup/part rw - cgroup2 none rw\n\
                    51 24 0:41 / /sys/fs/cgroup\\040x rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_mounts(text), Some(PathBuf::from("/sys/fs/cgroup x")));
        assert_eq!(parse_mounts("24 30 0:22 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
