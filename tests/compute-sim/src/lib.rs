//! Compute quotas in virtual time: the real scheduler, the real shared words, the real device model.
//!
//! [`headgate_quota::WindowScheduler`] decides, `headgate_abi`'s seats and its law of progress carry what it sees
//! and says, [`headgate_simgpu::model`] is the device and its measurement of shares. Only the programs and the
//! hook's batching are modelled here ([`program`]). Ten simulated seconds take a fraction of one, and a seed
//! replays a run exactly.
//!
//! What this crate never does: read a clock, start a thread, or take a share from the scheduler's own account;
//! shares are the device's.
//!
//! Read in this order: [`program`] (what runs), [`device`] (the words the device reads and writes), [`node`] (the
//! loop), [`scenario`] (what is measured).

pub mod rng;
pub mod program;
pub mod device;
pub mod node;
pub mod scenario;

pub use node::{Node, Pace, TenantPlan};
pub use program::{Behaviour, Gate, ProgramPlan};
