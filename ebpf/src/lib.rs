//! Loader and aggregation for the kernel programs that witness what the hook cannot see.
//!
//! Three probes, each optional: what this kernel or this process' privileges do not allow is reported as missing with
//! the kernel's reason, and everything else works on. A feature is detected by using it, never by a version number.
//!
//! This crate never fails a node because a probe is missing, never decides policy, knows no tenant's name and no
//! district (it deals in slots; the daemon knows whose they are), starts no thread and blocks on nothing but the
//! kernel's own grace period when it detaches.
//!
//! Read in this order: [`probes`] (what the daemon holds), [`status`] (what it reports), [`figures`] (what it reads),
//! [`cgroup`] (whom it counts for), [`error`]; then the engine: `library` (one driver library, attached), `site` and
//! `decode` (where in it, and why there), `multi` (all of its sites by one link), `object` (the committed programs),
//! `sys` (the two `bpf(2)` calls that aya lacks), and `limits`.

pub mod probes;
pub mod status;
pub mod figures;
pub mod cgroup;
pub mod error;
pub mod limits;
mod library;
mod site;
mod decode;
mod multi;
mod object;
mod rows;
mod sys;

pub use cgroup::Cgroup;
pub use error::Error;
pub use figures::{Durations, Exit, SocketCounts};
pub use headgate_ebpf_records::{counters::Counter, slots::Slot};
pub use library::{Attached, LibraryId};
pub use probes::{AttachPreference, Config, Probes};
pub use status::{Mode, Probe, ProbeStatus, State};
