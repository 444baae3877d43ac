//! Quota policy: what a tenant may use, whose turn it is, and what it owes.
//!
//! Pure and deterministic. It reads no clock (`now` is an argument), does no IO, has no dependency, uses
//! integers only and forbids unsafe code, so that the very code the daemon runs can be driven by seeds through
//! simulated hours.
//!
//! It never talks to a device, a socket or a file, and it knows nothing of shared memory: the daemon observes,
//! calls [`window::WindowScheduler::tick`] or [`loan::Lender::handle`], and carries the decisions out.
//!
//! Read in this order: [`units`], [`tenant`], [`memory`], [`bucket`], [`window`], [`space`], [`groups`], [`status`], [`loan`].

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod units;
pub mod tenant;
pub mod memory;
pub mod bucket;
pub mod window;
pub mod space;
pub mod groups;
pub mod status;
pub mod loan;
#[cfg(feature = "simulation")]
pub mod sim;

pub use bucket::Bucket;
pub use memory::{MemoryAccount, MemoryView};
pub use status::Status;
pub use tenant::{Class, ComputeQuota, MemoryQuota, Mode};
pub use units::{Bytes, Micros, Ppm};
pub use window::{Observation, Room, WindowScheduler, WindowSettings};
