//! Tells the probes' thread of new code in processes' memory, on a thread that waits in the kernel for it.
//!
//! Most of what is mapped on a node is mapped again and again: what has been looked at is not told twice.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headgate_ebpf::mappings::{Mapping, Mappings};

use crate::identity::process;
use crate::limits::FILES_KNOWN_MAX;
use crate::probes::Whose;

/// Between two looks: whatever is mapped meanwhile is told together.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest wait before it is asked whether anyone still listens.
const WAIT: Duration = Duration::from_millis(500);

/// Files that need no look any more.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles {
    known: Arc<Mutex<HashSet<(u32, u32, u64)>>>,
    missed: Arc<AtomicBool>,
}

impl KnownFiles {
    /// A file has been looked at.
    pub fn insert(&self, file: (u32, u32, u64)) {
        // A panic between two insertions leaves a set.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Inodes come again in time; forgetting all of them now and then costs a few looks.
        if FILES_KNOWN_MAX <= known.len() {
            known.clear();
        }
        known.insert(file);
    }

    /// Whether mappings were lost since the last time that was asked.
    #[must_use]
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Relaxed)
    }

    /// Mappings were lost.
    pub fn miss(&self) {
        self.missed.store(true, Relaxed);
    }

    /// Whether a file has been looked at.
    #[must_use]
    pub fn contains(&self, file: (u32, u32, u64)) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&file)
    }
}

/// Hands new mappings to `tell` until that answers `false`, on a thread of its own.
pub fn watch(
    mut mappings: Mappings,
    known: KnownFiles,
    mut tell: impl FnMut(Vec<Mapping>) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let body = move || {
        loop {
            if let Err(error) = mappings.wait(WAIT) {
                tracing::warn!(%error, "new drivers are found every few seconds only");
                return;
            }
            let mut fresh = Vec::new();
            let lost = mappings.drain(|mapping| {
                if !known.contains(mapping.file) {
                    fresh.push(mapping);
                }
            });
            if 0 < lost {
                known.miss();
                tracing::debug!(lost, "mappings of code that nobody looked at; the next round finds them");
            }
            if !tell(fresh) {
                return;
            }
            std::thread::park_timeout(PAUSE);
        }
    };
    std::thread::Builder::new().name("headgate-newcode".to_owned()).spawn(body).map(|_runs_by_itself| ())
}

/// Whether a process is in a tenant's cgroup or below it.
#[must_use]
pub fn is_of(tenants: &[Whose], pid: u32) -> bool {
    let Some(mount) = headgate_ebpf::cgroup::unified_mount() else { return false };
    let Ok(text) = fs::read_to_string(process::proc_path(pid, "cgroup")) else { return false };
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let directory = mount.join(path);
    let mut directories = tenants.iter().filter_map(|tenant| tenant.directory.as_deref());
    directories.any(|tenant| directory.starts_with(tenant))
}

/// The processes in a cgroup and in all below it. What is gone meanwhile is left out.
#[must_use]
pub fn processes_below(directory: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
    found
}
