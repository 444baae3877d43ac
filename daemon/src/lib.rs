//! The Headgate node daemon and its command line.
//!
//! The daemon knows its tenants by cgroup, hands their processes seats in shared memory, opens and closes their
//! gates by the policy in `headgate_quota`, and tells Prometheus what they use.
//!
//! It never decides policy itself, never trusts a word that a tenant can write, never gives an unknown process a
//! device without limits, and never stops a running program: when it ends, gates open and memory stays.
//!
//! Read in this order: [`config`] (what the operator says), [`node`] (all state, and the one function that changes
//! it), [`run`] (the loop around it), [`effects`] (carrying decisions out), [`control`] and [`identity`] (who says
//! hello), [`segments`] and [`gate`] (shared memory), [`loans`] (other nodes), [`remote`] (sessions
//! between them), [`probes`] with [`newcode`] and [`enforcement`] (the kernel's side), [`view`] and [`page`] (what
//! it looks like), [`cli`].

pub mod limits;
pub mod clock;
pub mod config;
pub mod node;
pub mod identity;
pub mod segments;
pub mod gate;
pub mod devices;
pub mod space;
pub mod drivers;
pub mod newcode;
pub mod probes;
pub mod enforcement;
pub mod effects;
pub mod loans;
pub mod remote;
pub mod view;
pub mod page;
pub mod control;
pub mod admin;
pub mod run;
pub mod cli;
pub mod telemetry;
mod sys;
