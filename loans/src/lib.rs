//! Loans between nodes: what turns the pure protocol of `headgate_quota::loan` into something that runs.
//!
//! It keeps ledgers in a store, talks to peers over mutual TLS, writes the audit log, and drives lenders and the
//! borrower in real time. It decides nothing: every decision is the state machines'.
//!
//! It never touches a device or a tenant: limits go out to the node as values, demands come in as values. It
//! never believes a peer about who it is: that stands in its certificate.
//!
//! Read in this order: [`limits`], [`store`], [`identity`], [`certs`], [`refused`], [`tls`], [`wire`], [`peer`],
//! [`audit`], [`demand`], [`settings`], [`desk`].

#![forbid(unsafe_code)]

pub mod limits;
pub mod store;
pub mod identity;
pub mod certs;
pub mod refused;
pub mod tls;
pub mod wire;
pub mod peer;
pub mod audit;
pub mod demand;
pub mod settings;
pub mod desk;
