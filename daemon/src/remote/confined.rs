//! What a worker is confined by, as the kernel tells it: not by the worker's word.

use std::fs;

use serde::{Deserialize, Serialize};

/// Parts of a worker's confinement.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// Those that stand.
    pub stands: Vec<String>,
    /// Those that do not: the kernel refused them, or the worker is only starting.
    pub missing: Vec<String>,
}

/// Namespaces it has of its own, by their files in `/proc`.
const NAMESPACES: [(&str, &str); 7] = [
    ("user", "own users"),
    ("mnt", "own mounts"),
    ("net", "own network"),
    ("ipc", "own shared memory"),
    ("pid", "own processes"),
    ("uts", "own host name"),
    ("cgroup", "own cgroups"),
];

impl Confinement {
    /// Looks at a process.
    pub(super) fn of(process: u32) -> Self {
        let mut found = Self::default();
        let mut note = |part: &str, stands: bool| {
            if stands { &mut found.stands } else { &mut found.missing }.push(part.to_owned());
        };
        for (file, part) in NAMESPACES {
            let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{file}")).ok();
            let theirs = of(&process.to_string());
            note(part, theirs.is_some() && theirs != of("self"));
        }
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let none = |name| field(name).is_some_and(|set| set.bytes().all(|digit| digit == b'0'));
        note("no capabilities", ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"].into_iter().all(none));
        note("no new privileges", field("NoNewPrivs") == Some("1"));
        note("system calls", field("Seccomp") == Some("2"));
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        note("read-only root", read_only_root(&mounts));
        found
    }
}

/// Whether what is mounted at a root cannot be written.
fn read_only_root(mounts: &str) -> bool {
    let of_root = |line: &str| {
        let mut fields = line.split(' ').skip(4);
        let (place, options) = (fields.next()?, fields.next()?);
        (place == "/").then(|| options.split(',').any(|option| option == "ro"))
    };
    // The last one mounted is the one that is seen.
    mounts.lines().filter_map(of_root).next_back().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_shares_everything_with_itself() {
        let found = Confinement::of(std::process::id());
        for (_, part) in NAMESPACES {
            assert!(found.missing.contains(&part.to_owned()), "{part}: {found:?}");
        }
        let nobody = Confinement::of(u32::MAX);
        assert!(nobody.stands.is_empty(), "{nobody:?}");
    }

    #[test]
    fn only_the_root_that_is_seen_counts() {
        let line =
            |place: &str, options: &str| format!("36 35 98:0 / {place} {options} master:1 - ext4 x rw");
        assert!(read_only_root(&line("/", "ro,nosuid")));
        assert!(!read_only_root(&line("/", "rw,relatime")));
        assert!(!read_only_root(&line("/usr", "ro")));
        assert!(!read_only_root(&[line("/", "ro"), line("/", "rw")].join("\n")));
        assert!(!read_only_root(""));
    }
}
