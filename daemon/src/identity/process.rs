//! What `/proc/<pid>` says. Parsing is separate from reading, so that odd lines can be tested.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::limits::ANCESTORS_MAX;
use crate::node::Process;

/// A file by device and inode, as `/proc/<pid>/maps` and `fstat` both name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct FileId {
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Inode.
    pub inode: u64,
}

/// The process that has this id now.
pub fn process(pid: u32) -> io::Result<Process> {
    Ok(look(pid)?.0)
}

/// The process's parent, its parent's parent and so on, nearest first. Stops at what it cannot read.
#[must_use]
pub fn ancestors(of: Process) -> Vec<Process> {
    let mut line = Vec::new();
    let mut next = look(of.pid).map_or(0, |(_, parent)| parent);
    while next != 0 && line.len() < ANCESTORS_MAX {
        let Ok((process, parent)) = look(next) else { break };
        line.push(process);
        next = parent;
    }
    line
}

/// The process that has this id now, and its parent's id.
fn look(pid: u32) -> io::Result<(Process, u32)> {
    let stat = read(pid, "stat")?;
    let (parent, start_ticks) = parse_stat(&stat).ok_or_else(|| odd(pid, "stat"))?;
    Ok((Process { pid, start_ticks }, parent))
}

/// The process's cgroup below the cgroup2 root; `None` where the kernel has no cgroup2.
pub fn cgroup(pid: u32) -> io::Result<Option<String>> {
    Ok(parse_cgroup(&read(pid, "cgroup")?))
}

/// Address ranges at which the process has `file` mapped, as `/proc/<pid>/map_files` names them.
pub fn mappings(pid: u32, file: impl Fn(FileId) -> bool) -> io::Result<Vec<(String, FileId)>> {
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    let lines = maps.split(|&byte| byte == b'\n').filter_map(parse_mapping);
    Ok(lines.filter(|(_, id)| file(*id)).collect())
}

/// Whether the process has the file mapped.
pub fn maps(pid: u32, file: FileId) -> io::Result<bool> {
    Ok(!mappings(pid, |id| id == file)?.is_empty())
}

/// Every process there is.
pub fn all() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Path of one of the process's files in `/proc`.
#[must_use]
pub fn proc_path(pid: u32, rest: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{rest}"))
}

fn read(pid: u32, file: &str) -> io::Result<String> {
    // A process may name itself in any bytes; `stat` repeats them.
    Ok(String::from_utf8_lossy(&fs::read(proc_path(pid, file))?).into_owned())
}

fn odd(pid: u32, file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/{pid}/{file} has a form this build does not know"),
    )
}

/// Parent and start time. The process's own name stands in parentheses and may itself contain any.
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((parent, start))
}

fn parse_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// `start-end perms offset major:minor inode path`.
fn parse_mapping(line: &[u8]) -> Option<(String, FileId)> {
    let line = std::str::from_utf8(line.get(..line.len().min(256))?)
        .or_else(|error| std::str::from_utf8(&line[..error.valid_up_to()]))
        .ok()?;
    let mut fields = line.split_ascii_whitespace();
    let range = fields.next()?;
    let device = fields.nth(2)?;
    let (major, minor) = device.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    (inode != 0).then(|| (range.to_owned(), FileId { device, inode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_fields() {
        let stat = "42 (a) S 1 (b)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987 1 1";
        assert_eq!(parse_stat(stat), Some((7, 987)));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn the_unified_line_is_found_among_others() {
        assert_eq!(parse_cgroup("9:name=systemd:/x\n0::/a/b\n"), Some("/a/b".to_owned()));
        assert_eq!(parse_cgroup("4:memory:/x\n"), None);
    }

    #[test]
    fn mappings_are_found_by_device_and_inode() {
        let line = b"7f00a000-7f00b000 rw-s 00000000 00:01 77 /memfd:headgate-ledger (deleted)";
        let id = FileId { device: (0, 1), inode: 77 };
        assert_eq!(parse_mapping(line), Some(("7f00a000-7f00b000".to_owned(), id)));
        assert_eq!(parse_mapping(b"7f00a000-7f00b000 rw-p 00000000 00:00 0 [heap]"), None);
        assert_eq!(parse_mapping(b"\xff\xfe"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = process(std::process::id()).unwrap();
        assert!(0 < own.start_ticks);
        assert_eq!(process(std::process::id()).unwrap(), own);
        assert!(!ancestors(own).is_empty());
    }
}
