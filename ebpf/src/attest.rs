//! What code a process has mapped, by file and not by name: is the hook really there, and which drivers are?

use std::{collections::BTreeMap, fs, io, ops::Range, path::PathBuf};

use crate::{library::LibraryId, sys};

/// Where a file's code lies in a process; `None` if the process has not mapped it as code.
///
/// The file is known by device and inode, so a file of another content under the hook's name does not pass. The pieces of
/// one mapping (a linker may split it) count as one range.
///
/// # Errors
/// If the process is gone or may not be looked at.
pub fn code_of(process: u32, file: LibraryId) -> io::Result<Option<Range<u64>>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut range: Option<Range<u64>> = None;
    for line in maps.lines() {
        let Some((start, end, inode)) = executable(line) else { continue };
        if inode != file.inode || !is_same_file(process, start, end, file) {
            continue;
        }
        range = Some(match range {
            Some(known) => known.start.min(start)..known.end.max(end),
            None => start..end,
        });
    }
    Ok(range)
}

/// As [`code_of`], looking first where the process says that its hook is: one question to the kernel (Linux 6.11) instead
/// of a reading of the whole memory map. What is there is checked as anywhere else.
///
/// # Errors
/// As [`code_of`].
pub fn code_near(process: u32, hint: u64, file: LibraryId) -> io::Result<Option<Range<u64>>> {
    if let Ok(range) = sys::code_mapping(process, hint)
        && is_same_file(process, range.start, range.end, file)
    {
        return Ok(Some(range));
    }
    code_of(process, file)
}

/// The files that a process has mapped as code, each with a path that leads to it whatever became of its name.
pub(crate) fn code_files(process: u32) -> io::Result<BTreeMap<LibraryId, PathBuf>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut files = BTreeMap::new();
    for (start, end, _) in maps.lines().filter_map(executable) {
        let path = map_file(process, start, end);
        // A mapping may be gone again.
        if let Ok(file) = LibraryId::of(&path) {
            files.entry(file).or_insert(path);
        }
    }
    Ok(files)
}

fn map_file(process: u32, start: u64, end: u64) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/map_files/{start:x}-{end:x}"))
}

/// The mapping as the file itself: the device number in `maps` is not that of `stat` on layered file systems.
fn is_same_file(process: u32, start: u64, end: u64, file: LibraryId) -> bool {
    LibraryId::of(&map_file(process, start, end)).is_ok_and(|found| found == file)
}

/// Start, end and inode of a line of `maps` if it maps a file's code.
fn executable(line: &str) -> Option<(u64, u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let inode = fields.nth(2)?.parse().ok()?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    (permissions.as_bytes().get(2) == Some(&b'x') && inode != 0).then_some(())?;
    Some((address(start)?, address(end)?, inode))
}

#[cfg(test)]
mod tests {
    use super::{LibraryId, code_near, code_of, executable};

    #[test]
    fn only_code_of_files_is_looked_at() {
        assert_eq!(
            executable("7f1200000000-7f1200021000 r-xp 00002000 fd:00 1311   /usr/lib/libx.so"),
            Some((0x7f12_0000_0000, 0x7f12_0002_1000, 1311))
        );
        assert_eq!(executable("7f1200000000-7f1200021000 rw-p 00002000 fd:00 1311 /usr/lib/libx.so"), None);
        assert_eq!(executable("7ffd0000-7ffd1000 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(executable(""), None);
    }

    #[test]
    fn a_process_finds_its_own_program() {
        let program =
            LibraryId::of(&std::env::current_exe().expect("a test has a program")).expect("it is a file");
        let me = std::process::id();
        let code = code_of(me, program).expect("our own").expect("it runs");
        let here = (a_process_finds_its_own_program as fn()) as usize as u64;
        assert!(code.contains(&here), "{here:x} in {code:x?}");
        let near = code_near(me, here, program).expect("our own").expect("it runs");
        assert!(near.contains(&here), "{here:x} in {near:x?}");
        assert_eq!(
            code_near(me, 0, program).expect("our own"),
            Some(code),
            "a wrong hint only costs a reading"
        );
        assert_eq!(
            code_of(me, LibraryId { inode: program.inode, device: program.device + 1 }).expect("our own"),
            None
        );
    }
}
