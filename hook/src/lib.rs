//! `libheadgate_hook.so`: the library preloaded into every process of a tenant.
//!
//! It stands between a program and NVIDIA's driver library. Calls that take, give back or report device
//! memory are held against the tenant's quota; launches are gathered into batches that report their completion
//! and wait at a gate while it is another tenant's turn. Who the tenant is and what it owns the daemon says;
//! nothing in the program's environment can change it.
//!
//! What it never does in a stranger's process: exit, abort, let a panic cross the boundary, install a signal
//! handler, change the umask, take a lock across a driver call, wait without a bound, or refuse to give memory
//! back. It starts one thread, and only when the GPU is first told to wait at a gate: somebody must open the
//! gate should the daemon die ([`watch`]).
//!
//! The way of a call: an exported shell ([`exports`]) enters the boundary ([`boundary`]: re-entrance guard,
//! panic guard), asks for the meaning of the call (`meaning.rs`, [`intercept`]), gets a [`verdict::Verdict`], and acts on it
//! with the real driver's function ([`resolve`]). Read in that order, then [`session`], [`ledger`], [`recall`] and [`ahead`] (what
//! is called back before an allocation is refused), [`pace`], and, for drivers that cannot do everything, [`rung`] and [`reports`].

#[macro_use]
mod meaning;
mod exports;
mod boundary;
mod verdict;
mod intercept;
mod resolve;
mod elf;
mod driver;
mod session;
mod space;
mod green;
mod ledger;
mod recall;
mod ahead;
mod pace;
mod awaited;
mod lanes;
mod ended;
mod rung;
mod reports;
mod watch;
mod config;
mod log;
mod sys;
