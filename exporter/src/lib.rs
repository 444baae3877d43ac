//! What Headgate tells Prometheus: metric families, their collection, and the HTTP endpoint.
//!
//! Every family stands once, in the table of [`families`], from which both the page and `docs/metrics.md` are
//! made. Values come from a [`Snapshot`] that the daemon hands over whole; this crate keeps no counters of its
//! own, so a tenant that leaves takes its series along and nothing can go stale.
//!
//! This crate can do nothing but read: it holds no file, no device and no segment, and knows nothing of the
//! daemon beyond [`Source`]. It never labels by process, address or kernel name; the number of series is
//! bounded by tenants, devices and districts.
//!
//! Read in this order: [`snapshot`], [`families`], [`mod@page`], [`http`], [`document`].

#![forbid(unsafe_code)]

pub mod snapshot;
pub mod kernel;
pub mod loans;
pub mod remote;
pub mod families;
pub mod page;
pub mod http;
pub mod document;

pub use http::{Source, serve};
pub use page::page;
pub use snapshot::Snapshot;
