//! The audit log on disk: lines chained by SHA-256, written before what they record takes effect elsewhere.
//!
//! ```text
//! audit.log.000000000001    full: its name is the number of its first line
//! audit.log.000000048211    full: its first line carries the digest of the last line of the file before
//! audit.log                 written on
//! ```
//!
//! A line is in the kernel's hands when [`Audit::write`] returns, so a killed daemon loses none; [`Audit::sync`]
//! carries them to the disk. A full file is renamed and never touched again: it is the operator's to archive, and
//! what was archived can be checked by itself, because each file says where it goes on from.
//!
//! A daemon that starts follows the file that it will write on and the one before. A log that is broken is not
//! written on, because whoever reads it later must be able to tell when it broke.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use headgate_quota::loan::audit::{self, Broken, Digest, Head};
use headgate_quota::loan::limits::AUDIT_LINE_BYTES_MAX;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::{AUDIT_FILE_BYTES_MAX, AUDIT_LISTINGS_MAX};

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    Digest(out)
}

/// What is wrong with a log file.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its chain is broken.
    #[error("{}: {broken}; keep the file as evidence and move it away", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where and how.
        broken: Broken,
    },
}

/// What following a log showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Followed {
    /// Where it goes on from: nothing, or what earlier files ended with that are not here.
    pub from: Head,
    /// Where it ends.
    pub head: Head,
    /// How many files it is in.
    pub files: usize,
    /// Bytes of whole lines in the last one.
    pub whole_bytes: u64,
    /// Whether something without a line feed follows: the daemon died while it wrote.
    pub torn: bool,
}

/// Follows a log line by line through all its files: those that were full, and the one that is written on.
pub fn follow(path: &Path) -> Result<Followed, AuditError> {
    let mut listing = full_files(path)?;
    for _ in 0..AUDIT_LISTINGS_MAX {
        let followed = follow_files(&listing, path);
        // The daemon may have filled a file meanwhile.
        let now = full_files(path)?;
        if now == listing {
            return followed;
        }
        listing = now;
    }
    follow_files(&listing, path)
}

fn follow_files(full: &[PathBuf], path: &Path) -> Result<Followed, AuditError> {
    let mut followed: Option<Followed> = None;
    for file in full {
        let next = follow_file(file, followed.map(|before| before.head))?;
        if next.torn {
            // It was renamed after a whole line.
            let line = next.head.sequence - next.from.sequence + 1;
            return Err(AuditError::Broken { path: file.clone(), broken: Broken::Malformed { line } });
        }
        followed = Some(continued(followed, next));
    }
    match (follow_file(path, followed.map(|before| before.head)), followed) {
        // A daemon that died between two files has not begun the next.
        (Err(AuditError::File { source, .. }), Some(before)) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Followed { whole_bytes: 0, ..before })
        }
        (next, before) => next.map(|next| continued(before, next)),
    }
}

fn continued(before: Option<Followed>, next: Followed) -> Followed {
    let (from, files) = before.map_or((next.from, 0), |before| (before.from, before.files));
    Followed { from, files: files + 1, ..next }
}

/// Files of a log that are full, oldest first.
fn full_files(path: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| AuditError::File { path: directory.to_owned(), source };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut numbered = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let known = entry.file_name();
        let of_this =
            known.to_str().and_then(|known| known.rsplit_once('.')).is_some_and(|(of, _)| of == name);
        numbered.extend(first_of(&entry.path()).filter(|_| of_this).map(|first| (first, entry.path())));
    }
    numbered.sort_unstable();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// The name of a file that is full.
fn full_name(path: &Path, first: u64) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(format!(".{first:012}"));
    name.into()
}

/// The number of a full file's first line, by its name.
fn first_of(path: &Path) -> Option<u64> {
    let (_, digits) = path.file_name()?.to_str()?.rsplit_once('.')?;
    let plain = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

impl Followed {
    fn beginning(from: Option<Head>) -> Self {
        let from = from.unwrap_or_default();
        Self { from, head: from, files: 0, whole_bytes: 0, torn: false }
    }
}

/// Follows one file from where the one before ended. Without that, a full file goes on from what its first line says,
/// which must be the line it is named after; any other begins with the first line of all.
fn follow_file(path: &Path, from: Option<Head>) -> Result<Followed, AuditError> {
    let failed = |source| AuditError::File { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let first = first_of(path).filter(|_| from.is_none());
    let mut followed = Followed::beginning(from);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        number += 1;
        // A line longer than lines are is refused before it fills the memory.
        let bound = u64::try_from(AUDIT_LINE_BYTES_MAX).unwrap_or(u64::MAX) + 2;
        let read = io::Read::take(&mut reader, bound).read_until(b'\n', &mut line).map_err(failed)?;
        let broken = |broken| AuditError::Broken { path: path.to_owned(), broken };
        if read == 0 {
            return Ok(followed);
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            if u64::try_from(read).unwrap_or(u64::MAX) == bound {
                return Err(broken(Broken::Malformed { line: number }));
            }
            followed.torn = true;
            return Ok(followed);
        };
        let text = std::str::from_utf8(text).map_err(|_| broken(Broken::Malformed { line: number }))?;
        if number == 1
            && let Some(first) = first
        {
            let before = audit::before(text).ok_or_else(|| broken(Broken::Malformed { line: 1 }))?;
            if before.sequence + 1 != first {
                return Err(broken(Broken::Gap { line: 1, expected: first }));
            }
            (followed.from, followed.head) = (before, before);
        }
        followed.head = audit::verify(followed.head, [text], sha256).map_err(|found| {
            // It was shown one line; the file has more.
            broken(match found {
                Broken::Malformed { .. } => Broken::Malformed { line: number },
                Broken::Gap { expected, .. } => Broken::Gap { line: number, expected },
                Broken::Forged { .. } => Broken::Forged { line: number },
            })
        })?;
        followed.whole_bytes += u64::try_from(read).unwrap_or(u64::MAX);
    }
}

/// An open log.
#[derive(Debug)]
pub struct Audit {
    file: File,
    path: PathBuf,
    head: Head,
    /// The number of the file's first line, and the bytes in it.
    first: u64,
    bytes: u64,
    bytes_max: u64,
    /// Files that were written to and not yet carried to the disk, besides this one.
    full: Vec<File>,
    dirty: bool,
}

impl Audit {
    /// Opens a log, or begins one. A last line that was cut off by the daemon's death is taken away: what it
    /// would have recorded has not taken effect.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        Self::open_bounded(path, AUDIT_FILE_BYTES_MAX)
    }

    /// As [`open`](Self::open), with another bound on a file's size.
    pub fn open_bounded(path: &Path, bytes_max: u64) -> Result<Self, AuditError> {
        let failed = |source| AuditError::File { path: path.to_owned(), source };
        let full = full_files(path)?;
        let file = begin(path).map_err(failed)?;
        let last = full.last().map_or(&[][..], std::slice::from_ref);
        let followed = follow_files(last, path)?;
        if followed.torn {
            tracing::warn!(path = %path.display(), "the audit log's last line was cut off and is taken away");
            file.set_len(followed.whole_bytes).map_err(failed)?;
        }
        // What is before it ends where it goes on.
        let first = match last {
            [] => followed.from.sequence + 1,
            [last, ..] => follow_file(last, None)?.head.sequence + 1,
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            head: followed.head,
            first,
            bytes: followed.whole_bytes,
            bytes_max,
            full: Vec::new(),
            dirty: false,
        })
    }

    /// Appends a record, as it prints itself.
    pub fn write(&mut self, at: SystemTime, record: &impl fmt::Display) -> Result<(), AuditError> {
        let at = OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default();
        let (mut line, head) = audit::append(self.head, &at, record, sha256);
        line.push('\n');
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.bytes != 0 && self.bytes_max < self.bytes.saturating_add(length) {
            self.turn_over()?;
        }
        match self.file.write_all(line.as_bytes()) {
            Ok(()) => {
                self.head = head;
                self.bytes += length;
                self.dirty = true;
                Ok(())
            }
            Err(source) => {
                let failed = |source| AuditError::File { path: self.path.clone(), source };
                // Half a line would break the chain for the next one.
                self.file.set_len(self.bytes).map_err(failed)?;
                Err(failed(source))
            }
        }
    }

    /// Puts the full file aside and begins the next. If the daemon dies in between, the next start begins it.
    fn turn_over(&mut self) -> Result<(), AuditError> {
        let aside = full_name(&self.path, self.first);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AuditError::File { path, source }
        };
        fs::rename(&self.path, &aside).map_err(failed(&aside))?;
        let next = match begin(&self.path) {
            Ok(next) => next,
            Err(source) => {
                // Otherwise what comes would be written into the file that was put aside.
                fs::rename(&aside, &self.path).map_err(failed(&self.path))?;
                return Err(failed(&self.path)(source));
            }
        };
        let full = core::mem::replace(&mut self.file, next);
        if core::mem::take(&mut self.dirty) {
            self.full.push(full);
        }
        self.first = self.head.sequence + 1;
        self.bytes = 0;
        Ok(())
    }

    /// Carries what was written to the disk. Slow; what it returns is to be called where waiting hurts nobody.
    pub fn sync(&mut self) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static> {
        if !core::mem::take(&mut self.dirty) && self.full.is_empty() {
            return None;
        }
        let full = core::mem::take(&mut self.full);
        let file = self.file.try_clone();
        let directory = self.path.parent().map(Path::to_owned);
        Some(move || {
            full.iter().try_for_each(File::sync_data)?;
            if !full.is_empty()
                && let Some(directory) = directory
            {
                // The names changed.
                File::open(directory)?.sync_all()?;
            }
            file?.sync_data()
        })
    }

    /// Where the log ends.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }
}

fn begin(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}
