//! What the kernel programs and their loader must agree on: map names, slot numbers, record layouts.
//!
//! This crate never touches the kernel, allocates or does IO; it compiles for `bpfel-unknown-none` and for the
//! host, and pins every layout by constant assertions so that the two sides cannot drift apart silently.
//!
//! Read in this order: [`limits`] (how much, and why), [`slots`] (whose numbers these are), [`histogram`] (the
//! bucket layout), [`counters`] (what is counted, losses first), [`events`] (the ring buffer), [`policy`] (a tenant's rules),
//! [`border`] (districts, budgets, refusals), [`gate`] (devices, attested processes), [`ledger`] (allocations, bypasses), [`ioctl`],
//! [`maps`] (names).

#![no_std]

pub mod limits;
pub mod slots;
pub mod histogram;
pub mod counters;
pub mod events;
pub mod policy;
pub mod border;
pub mod gate;
pub mod ledger;
pub mod ioctl;
pub mod maps;
#[cfg(feature = "user")]
mod user;
