//! The audit log on disk: lines chained by SHA-256, written before what they record takes effect elsewhere.
//!
//! A line is in the kernel's hands when [`Audit::write`] returns, so a killed daemon loses none; [`Audit::sync`]
//! carries them to the disk. A daemon that starts follows the whole chain first: a log that is broken is not
//! written on, because whoever reads it later must be able to tell when it broke.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use headgate_quota::loan::Record;
use headgate_quota::loan::audit::{self, Broken, Digest, Head};
use headgate_quota::loan::limits::AUDIT_LINE_BYTES_MAX;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    /// Where it ends.
    pub head: Head,
    /// Bytes of whole lines.
    pub whole_bytes: u64,
    /// Whether something without a line feed follows: the daemon died while it wrote.
    pub torn: bool,
}

/// Follows a log from its beginning, line by line.
pub fn follow(path: &Path) -> Result<Followed, AuditError> {
    let failed = |source| AuditError::File { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut followed = Followed { head: Head::default(), whole_bytes: 0, torn: false };
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
    dirty: bool,
}

impl Audit {
    /// Opens a log, or begins one. A last line that was cut off by the daemon's death is taken away: what it
    /// would have recorded has not taken effect.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::File { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path).map_err(failed)?;
        let followed = follow(path)?;
        if followed.torn {
            tracing::warn!(path = %path.display(), "the audit log's last line was cut off and is taken away");
            file.set_len(followed.whole_bytes).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
        }
        Ok(Self { file, path: path.to_owned(), head: followed.head, dirty: false })
    }

    /// Appends a record.
    pub fn write(&mut self, at: SystemTime, record: &Record) -> Result<(), AuditError> {
        let at = OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default();
        let (mut line, head) = audit::append(self.head, &at, record, sha256);
        line.push('\n');
        match self.file.write_all(line.as_bytes()) {
            Ok(()) => {
                self.head = head;
                self.dirty = true;
                Ok(())
            }
            Err(source) => {
                // Half a line would break the chain for the next one.
                let whole = follow(&self.path)?.whole_bytes;
                let failed = |source| AuditError::File { path: self.path.clone(), source };
                self.file.set_len(whole).map_err(failed)?;
                Err(failed(source))
            }
        }
    }

    /// Carries what was written to the disk. Slow; what it returns is to be called where waiting hurts nobody.
    pub fn sync(&mut self) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static> {
        if !core::mem::take(&mut self.dirty) {
            return None;
        }
        let file = self.file.try_clone();
        Some(move || file?.sync_data())
    }

    /// Where the log ends.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }
}
