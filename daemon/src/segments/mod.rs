//! A tenant's shared memory, as the daemon holds it.
//!
//! Read in this order: [`tenant`] (both segments of a tenant), [`gate`] (the gate word), [`counts`] (reading a
//! seat without trusting it), [`record`] (what outlives a restart), [`adopt`] (finding it again).

pub mod adopt;
pub mod counts;
pub mod gate;
pub mod record;
pub mod tenant;

pub use tenant::{RowAccount, TenantSegments};
