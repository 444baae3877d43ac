//! The memory a daemon and a tenant's processes share.
//!
//! Two segments per tenant, both sealed memfds made by the daemon:
//! * the **limits** segment, which only the daemon can write: limits, gate words, heartbeat;
//! * the **ledger** segment, which the tenant's processes write: totals, and one seat per process.
//!
//! Neither side trusts what it reads from the other: each word is read once, range-checked and converted.
//! There are no locks, no pointers, no bool and no enum in shared memory.
//!
//! Read in this order: [`layout`], [`ledger`] (the protocol of a charge), [`recall`] (of calling memory back), [`progress`] and
//! [`busy`] (what the device has of a process), [`map`] (the one unsafe room). Under `--cfg loom` the protocol
//! of a charge stands on a segment of the model checker's (`cargo xtask loom`); [`recall`] is not modelled.

pub mod layout;
pub mod ledger;
#[cfg(not(all(test, loom)))]
pub mod recall;
pub mod progress;
pub mod busy;
#[cfg(not(all(test, loom)))]
pub mod map;
#[cfg(all(test, loom))]
#[path = "model.rs"]
pub mod map;
pub mod sync;
#[cfg(all(test, loom))]
mod interleavings;

pub use ledger::{Charge, Ledger, Refusal, SeatIndex};
#[cfg(not(all(test, loom)))]
pub use map::{Mapping, SegmentError};
