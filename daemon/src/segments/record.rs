//! What must outlive a restart: which device has which row, which file is whose ledger, who was placed where, and
//! which incidents hold.
//!
//! Names of memory files can be forged by anyone; device and inode cannot. After a restart only files recorded
//! here are taken for ledgers, and only within the same boot, because inode numbers and process ids start over with the kernel.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use headgate_quota::Micros;
use headgate_quota::loan::{District, Incident, IncidentName};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::identity::process::FileId;
use crate::limits::STATE_BYTES_MAX;
use crate::node::Process;

const FILE: &str = "ledgers.json";
const LOCK: &str = "lock";
const VERSION: u32 = 1;

/// The content of the state file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    version: u32,
    boot_id: String,
    /// UUIDs by device row, as text.
    pub devices: Vec<String>,
    /// Ledgers.
    pub ledgers: Vec<LedgerRecord>,
    /// Process-tree roots.
    pub roots: Vec<RootRecord>,
    /// Incidents.
    #[serde(default)]
    pub incidents: Vec<IncidentRecord>,
    /// Whether it was written in this boot.
    #[serde(skip)]
    pub this_boot: bool,
}

/// One ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerRecord {
    /// The tenant's name.
    pub tenant: String,
    /// The file.
    pub file: FileId,
}

/// One process-tree root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RootRecord {
    /// The process that was placed.
    pub root: Process,
    /// The tenant's name.
    pub tenant: String,
}

/// One incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IncidentRecord {
    issuer: String,
    number: u64,
    name: String,
    tenants: Vec<String>,
    class: String,
    reclaim: bool,
    ended: bool,
    /// When it is over, in microseconds since boot. Nobody can set that clock, but it starts over with the machine.
    until_us: u64,
    /// The same in microseconds since 1970, for the next boot.
    until_wall_us: u64,
}

/// The time, by both clocks in which an incident's end is written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BothClocks {
    /// Since boot.
    pub boot: Micros,
    /// Since 1970.
    pub wall: Micros,
}

impl IncidentRecord {
    /// As it is written: `incident` with what is left of it.
    #[must_use]
    pub fn of(incident: &Incident, ended: bool, now: BothClocks) -> Self {
        Self {
            issuer: incident.issuer.to_string(),
            number: incident.number,
            name: incident.name.to_string(),
            tenants: incident.tenants.iter().map(ToString::to_string).collect(),
            class: incident.class.word().to_owned(),
            reclaim: incident.reclaim,
            ended,
            until_us: now.boot.saturating_add(incident.duration).0,
            until_wall_us: now.wall.saturating_add(incident.duration).0,
        }
    }

    /// As it was meant, with what is left of it, and whether it was ended. `None` if it is over, or if the file was
    /// tampered with.
    #[must_use]
    pub fn read(&self, this_boot: bool, now: BothClocks) -> Option<(Incident, bool)> {
        let (until, now) = if this_boot { (self.until_us, now.boot) } else { (self.until_wall_us, now.wall) };
        let duration = Micros(until).saturating_sub(now);
        let incident = Incident {
            issuer: District::new(&self.issuer)?,
            number: self.number,
            name: IncidentName::new(&self.name)?,
            tenants: self.tenants.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?,
            class: self.class.parse().ok()?,
            duration,
            reclaim: self.reclaim,
        };
        (duration != Micros::ZERO).then_some((incident, self.ended))
    }
}

/// Why the state directory cannot be used. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel refused a step.
    #[error("state directory {}: {step} failed: {source}; check spec.stateDir and its permissions", path.display())]
    Kernel {
        /// The directory or file.
        path: PathBuf,
        /// Which step.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Another daemon uses it.
    #[error("state directory {} is in use by another headgate daemon; stop it, or give this one its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// The state directory, held by a lock: two daemons on one node would hand out the same seats.
#[derive(Debug)]
pub struct StateDir {
    directory: PathBuf,
    boot_id: String,
    _lock: Flock<fs::File>,
}

impl StateDir {
    /// Opens the directory, making it if need be.
    pub fn open(directory: &Path) -> Result<Self, RecordError> {
        let kernel = |step, source| RecordError::Kernel { path: directory.to_owned(), step, source };
        let mut builder = fs::DirBuilder::new();
        // Whoever could write here could have any file taken for a ledger.
        builder
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| kernel("making it", source))?;
        let lock =
            fs::File::create(directory.join(LOCK)).map_err(|source| kernel("making the lock", source))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => RecordError::InUse { path: directory.to_owned() },
            errno => kernel("locking", errno.into()),
        })?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|source| kernel("reading the boot id", source))?;
        Ok(Self { directory: directory.to_owned(), boot_id: boot_id.trim().to_owned(), _lock: lock })
    }

    /// What an earlier run of this boot left. A file that cannot be read or understood is as good as none: its
    /// ledgers can then not be adopted, which the log says.
    #[must_use]
    pub fn read(&self) -> Record {
        let path = self.directory.join(FILE);
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Record::default(),
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "cannot read; earlier ledgers are not adopted");
                return Record::default();
            }
        };
        match serde_json::from_str::<Record>(&text) {
            Ok(record) if record.version != VERSION => {
                tracing::error!(
                    file = %path.display(), version = record.version,
                    "written by another version of Headgate; earlier ledgers are not adopted"
                );
                Record::default()
            }
            Ok(record) if record.boot_id != self.boot_id => {
                Record { devices: record.devices, incidents: record.incidents, ..Record::default() }
            }
            Ok(record) => Record { this_boot: true, ..record },
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "damaged; earlier ledgers are not adopted");
                Record::default()
            }
        }
    }

    /// Replaces the file whole, so that a crash leaves the old or the new one.
    pub fn write(
        &self,
        devices: Vec<String>,
        ledgers: Vec<LedgerRecord>,
        roots: Vec<RootRecord>,
        incidents: Vec<IncidentRecord>,
    ) -> Result<(), RecordError> {
        let path = self.directory.join(FILE);
        let kernel = |step, source| RecordError::Kernel { path: path.clone(), step, source };
        let record = Record {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            devices,
            ledgers,
            roots,
            incidents,
            this_boot: true,
        };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|error| kernel("encoding", io::Error::other(error)))?;
        let draft = self.directory.join(format!("{FILE}.new"));
        fs::write(&draft, text).map_err(|source| kernel("writing", source))?;
        fs::rename(&draft, &path).map_err(|source| kernel("renaming", source))
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(STATE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_within_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.read(), Record::default());
        let file = FileId { device: (0, 1), inode: 42 };
        let ledger = LedgerRecord { tenant: "alerts".to_owned(), file };
        let incident = Incident {
            issuer: District::new("north").unwrap(),
            number: 7,
            name: IncidentName::new("fire").unwrap(),
            tenants: vec!["south/review".parse().unwrap()],
            class: headgate_quota::Class::Express,
            duration: Micros::from_secs(60),
            reclaim: true,
        };
        let now = BothClocks { boot: Micros::from_secs(500), wall: Micros::from_secs(9_000) };
        let written = IncidentRecord::of(&incident, false, now);
        state.write(vec!["GPU-x".to_owned()], vec![ledger.clone()], Vec::new(), vec![written]).unwrap();
        let read = state.read();
        assert_eq!(read.ledgers, [ledger]);
        let later = BothClocks { boot: Micros::from_secs(540), wall: Micros::from_secs(1) };
        let left = Incident { duration: Micros::from_secs(20), ..incident.clone() };
        assert_eq!(
            read.incidents[0].read(read.this_boot, later),
            Some((left, false)),
            "whatever the wall clock says"
        );
        let over = BothClocks { boot: Micros::from_secs(560), ..later };
        assert_eq!(read.incidents[0].read(read.this_boot, over), None);
        state.boot_id = "another".to_owned();
        let later = state.read();
        assert_eq!((later.devices.len(), later.ledgers.len()), (1, 0), "rows outlive a boot, inodes do not");
        let rebooted = BothClocks { boot: Micros::from_secs(3), wall: Micros::from_secs(9_045) };
        let left = Incident { duration: Micros::from_secs(15), ..incident };
        assert_eq!(later.incidents[0].read(later.this_boot, rebooted), Some((left, false)));
    }

    #[test]
    fn a_second_daemon_is_refused_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(RecordError::InUse { .. })));
        fs::write(dir.path().join(FILE), "{not json").unwrap();
        assert_eq!(state.read(), Record::default());
    }
}
