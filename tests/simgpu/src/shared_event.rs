//! An event that several processes know.
//!
//! Its records are numbered, whoever makes them, and the device writes the number of a record when a stream comes to it.
//! What is waited for is the last one. Two processes that record the same event at once are on their own, as with CUDA.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::protocol::Remote;
use crate::sys::SharedMapping;

/// What all of them share.
#[repr(C)]
#[derive(Debug)]
pub struct Words {
    recorded: AtomicU64,
    completed: AtomicU64,
}

/// One process's view of it.
#[derive(Debug)]
pub struct SharedEvent {
    mapping: SharedMapping<Words>,
}

/// A fresh one's file.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let file = memfd_create(c"headgate-simgpu-event", MFdFlags::MFD_CLOEXEC)?;
    nix::unistd::ftruncate(&file, i64::try_from(size_of::<Words>()).map_err(io::Error::other)?)?;
    Ok(file)
}

impl SharedEvent {
    /// Maps the file that the server sent.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn open(file: &OwnedFd) -> io::Result<Self> {
        Ok(Self { mapping: SharedMapping::new(file.as_fd())? })
    }

    /// The number of a new record, which is the last one from now on.
    #[must_use]
    pub fn record(&self) -> u64 {
        self.mapping.recorded.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last record, 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.mapping.recorded.load(Ordering::SeqCst)
    }

    /// Whether a stream has come to a record.
    #[must_use]
    pub fn is_reached(&self, record: u64) -> bool {
        record <= self.mapping.completed.load(Ordering::SeqCst)
    }

    /// Where the device writes the number of a record that a stream has come to.
    #[must_use]
    pub fn word(&self) -> u64 {
        self.mapping.completed.as_ptr().expose_provenance() as u64
    }

    /// The memory that the device must be able to reach for that.
    #[must_use]
    pub fn range(&self) -> Remote {
        Remote { address: self.word(), bytes: size_of::<AtomicU64>() as u64 }
    }
}
