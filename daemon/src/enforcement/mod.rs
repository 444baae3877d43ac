//! What the kernel holds against tenants, as the daemon asks for it.
//!
//! ```text
//! configuration --Plan::of--> plan --(probes' thread)--> Warden --> tables and links pinned in the kernel
//!                                                          |
//!                 seated processes --attest--> gate, witness            figures, what stands --> metrics, status, readiness
//! ```
//!
//! The kernel decides about every packet and every open; the warden only writes the tables it decides by. So a daemon
//! that is killed changes nothing, budgets included: they are spent to their end, and renewed by the next daemon when
//! their period is over and not before ([`book`]).
//!
//! Read in this order: [`plan`] (what is to hold), [`warden`] (making it so), [`book`] (when budgets are granted),
//! [`figures`] (what it came to),
//! [`ledgers`] (whose word on memory agrees with whose).

pub mod plan;
pub mod warden;
pub mod book;
pub mod figures;
pub mod audits;
pub mod ioctls;
pub mod ledgers;

pub use audits::Audits;
pub use figures::{Figures, PartState};
pub use plan::{Plan, TenantPlan};
pub use warden::{Standing, Warden};
