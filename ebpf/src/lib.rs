//! Loader and aggregation for the kernel programs that witness what the hook cannot see.
//!
//! Two halves. [`Probes`] watches: what this kernel or this process' privileges do not allow is reported as missing with
//! the kernel's reason, and everything else works on. [`Enforcement`] refuses: where tenants' data may go, who may open a GPU;
//! it is pinned in the kernel and stands whether or not a daemon holds it. A feature is detected by using it, never by a
//! version number.
//!
//! This crate never fails a node because a probe is missing, never decides policy (it is told whose cgroups, districts
//! and budgets they are), starts no thread and blocks on nothing but the kernel's own grace periods. Probes deal in slots, the
//! daemon knows whose they are; enforcement deals in names, because it outlives the daemon that gave out the slots.
//!
//! Read in this order: [`probes`] and [`enforce`] (what the daemon holds), [`status`] (what it reports), [`figures`] (what it
//! reads), [`cgroup`] (whom it counts for), [`attest`] (whether a process has the hook), [`mappings`] (when a process loads a driver), [`error`]; then the engine:
//! `library` (one driver library, attached), `wait` (synchronous calls and launches) with `cells` (whose on which GPU),
//! `network` (connections), `ledger` (the second ledger and the witness), `ioctl` (an audit), `site` and `decode` (where in it, and why there; `survey` tells of it without attaching), `multi` (all of its sites by
//! one link), `object` (the committed programs), `rows` and `mapped` (the kernel's tables), `sys` (what of `bpf(2)` aya
//! lacks), and `limits`.

pub mod probes;
mod objects;
pub mod status;
pub mod figures;
pub mod cgroup;
pub mod enforce;
pub mod attest;
pub mod mappings;
pub mod error;
pub mod limits;
mod library;
mod wait;
mod network;
mod cells;
mod ledger;
mod ioctl;
mod site;
mod survey;
mod decode;
mod multi;
mod object;
mod rows;
mod mapped;
mod sys;

pub use cgroup::Cgroup;
pub use enforce::{Cidr, Devices, Enforcement, EnforcementConfig, Peer, Rules, Side};
pub use error::Error;
pub use figures::{Durations, Exit, Latency, SocketCounts};
pub use headgate_ebpf_records::{border::Reason, counters::Counter, policy::Mode as RuleMode, slots::Slot};
pub use headgate_ebpf_records::{events::DEVICE_MARK, ledger::Bypass};
pub use ioctl::{IoctlCount, IoctlReport};
pub use ledger::{BypassCount, ProcessMemory, Witnessed};
pub use library::{Attached, LibraryId};
pub use network::{PeerCounts, Peers};
pub use probes::{AttachPreference, Config, Probes};
pub use status::{Mode, Part, PartStatus, Probe, ProbeStatus, State};
pub use survey::{Surveyed, survey};
