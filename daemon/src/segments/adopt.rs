//! Finding the ledgers of an earlier run in the processes that still have them mapped.
//!
//! ```text
//! recorded inodes --> /proc/*/maps --> who maps which --> reopen --> check the header --> seats of those processes
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};

use headgate_abi::limits::SEATS_MAX;
use headgate_abi::segment::SeatIndex;
use headgate_abi::segment::layout::SEAT_FREE;
use headgate_abi::segment::map::LedgerSegment;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::record::LedgerRecord;
use super::tenant::{file_id, path_id};
use crate::identity::peer;
use crate::identity::process::{self, FileId};
use crate::node::{AdoptedSeat, Peer};

/// A ledger that is still in use.
#[derive(Debug)]
pub struct Found {
    /// The tenant it was made for.
    pub tenant: String,
    /// The file, open for reading and writing.
    pub file: OwnedFd,
    /// Its seats that are not free.
    pub seats: Vec<AdoptedSeat>,
}

/// Finds those of `records` that some process still has mapped.
#[must_use]
pub fn find(records: &[LedgerRecord]) -> Vec<Found> {
    if records.is_empty() {
        return Vec::new();
    }
    let holders = holders(records);
    let mut found = Vec::new();
    for record in records {
        let Some(holders) = holders.get(&record.file) else {
            tracing::debug!(tenant = record.tenant, "no process has the ledger any more; it is dropped");
            continue;
        };
        match holders.iter().find_map(|(pid, range)| reopen(*pid, range, record.file)) {
            Some(file) => found.extend(examine(record, file, holders)),
            None => tracing::error!(
                tenant = record.tenant,
                processes = holders.len(),
                "processes still use a ledger of an earlier run that this daemon may not open (it needs root); \
                 what they hold is unknown until they say hello again"
            ),
        }
    }
    found
}

/// Who has which recorded file mapped, and where.
fn holders(records: &[LedgerRecord]) -> HashMap<FileId, BTreeMap<u32, String>> {
    let mut holders: HashMap<FileId, BTreeMap<u32, String>> = HashMap::new();
    for pid in process::all().unwrap_or_default() {
        // A process may end between the listing and the look, and others may be out of bounds for us.
        let Ok(mappings) = process::mappings(pid, |id| records.iter().any(|record| record.file == id)) else {
            continue;
        };
        for (range, file) in mappings {
            holders.entry(file).or_default().entry(pid).or_insert(range);
        }
    }
    holders
}

/// Opens a file by way of a process that has it mapped: `map_files` needs privilege, `fd` works for one's own.
fn reopen(pid: u32, range: &str, file: FileId) -> Option<OwnedFd> {
    let open = |path: std::path::PathBuf| {
        // Looked at before it is opened: opening a stranger's device or pipe could have consequences.
        (path_id(&path)? == file).then_some(())?;
        let opened: OwnedFd = OpenOptions::new().read(true).write(true).open(path).ok()?.into();
        (file_id(opened.as_fd()).ok()? == file).then_some(opened)
    };
    if let Some(file) = open(process::proc_path(pid, "map_files").join(range)) {
        return Some(file);
    }
    let descriptors = fs::read_dir(process::proc_path(pid, "fd")).ok()?;
    descriptors.filter_map(Result::ok).find_map(|entry| open(entry.path()))
}

/// Checks a reopened ledger and reads who sits where. Its words are the tenant's to write, so each seat counts
/// only if the process it names has this very file mapped.
fn examine(record: &LedgerRecord, file: OwnedFd, holders: &BTreeMap<u32, String>) -> Option<Found> {
    let ledger = match LedgerSegment::open(file.as_fd()) {
        Ok(ledger) => ledger,
        Err(error) => {
            tracing::error!(tenant = record.tenant, %error, "a recorded ledger is damaged and not adopted");
            return None;
        }
    };
    let high = ledger.header().seats_high.load(Acquire) as usize;
    let mut seats = Vec::new();
    for index in 0..high.min(SEATS_MAX) {
        let row = ledger.seat(index);
        if row.state.load(Acquire) == SEAT_FREE {
            continue;
        }
        let pid = row.pid.load(Relaxed);
        let peer = if holders.contains_key(&pid) { identify(pid) } else { None };
        let Some(seat) = u32::try_from(index).ok().and_then(SeatIndex::new) else { continue };
        seats.push(AdoptedSeat { seat, generation: row.generation.load(Relaxed), peer });
    }
    Some(Found { tenant: record.tenant.clone(), file, seats })
}

fn identify(pid: u32) -> Option<Peer> {
    let held = peer::open(process::process(pid).ok()?).ok()?;
    peer::facts(&held, true).ok()
}
