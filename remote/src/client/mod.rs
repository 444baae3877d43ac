//! The client: the driver API in a program whose GPU is somewhere else.
//!
//! Everything a program can be told without asking is told without asking: devices are known since the handshake,
//! handles are numbers the client makes up, kernels' parameters are read from their image, completions are pushed. What
//! has to travel is copied into a batch and sent by another thread, so that a launch costs the program a lookup and a
//! copy.
//!
//! What it never does: exit or panic in its program, wait without the session's end to end the wait, use the session in
//! a forked child, or offer a function that it does not have.
//!
//! Read in this order: [`greeting`], [`late`], [`session`], [`handles`], [`objects`], [`credits`], [`foreseen`], [`current`], [`capture`],
//! [`travel`], then [`api`]; [`contract`] for what is different beside a genuine driver, [`nvml`] beside it all.

pub mod api;
pub mod contract;
mod greeting;
mod late;
mod session;
mod handles;
mod objects;
mod credits;
mod foreseen;
mod current;
mod capture;
mod travel;
mod raw;
mod state;
pub mod nvml;
pub mod shell;

pub use travel::plain;

use headgate_abi::cuda::types::CUresult;

/// What a call comes to.
pub type Answer = Result<(), CUresult>;

/// Names the worker, as [`Address`](crate::link::Address) reads it.
pub const ADDRESS_ENV: &str = "HEADGATE_REMOTE";
/// Anything in it has the client say on standard error why there is no device, or no longer.
pub const LOG_ENV: &str = "HEADGATE_REMOTE_LOG";
/// `0` has the client ask for no rings, so that a session on one host goes over its socket.
pub const RINGS_ENV: &str = "HEADGATE_REMOTE_RINGS";
