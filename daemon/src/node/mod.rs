//! The node: all state, and the one function that changes it.
//!
//! ```text
//! sources --> Event --> step(state, event) --> Vec<Effect> --> carried out --> Event ...
//! ```
//!
//! [`step::step`] is pure: no clock, no file, no socket, no shared memory. What it needs to know about the world
//! comes in with the event (a process's cgroup, a seat's liveness), and what it decides goes out as effects.
//!
//! A seat's life:
//! ```text
//!          hello, tenant found                exit, exec, or a new hello of the same process
//!   free -----------------------> taken -----------------------------------------------------> free
//!                                   |  ^                         (what it held is given back)
//!            connection lost        |  |  hello naming the seat
//!                                   v  |
//!                                 taken, unconnected: the process lives on with its ledger
//! ```
//!
//! Read in this order: [`event`], [`state`], [`incidents`], [`loans`], [`census`], [`mod@step`], [`effect`].

pub mod census;
pub mod effect;
pub mod event;
pub mod identify;
pub mod incidents;
pub mod loans;
pub mod state;
pub mod step;

pub use effect::{Effect, RowLimits, TenantLimits};
pub use event::{AdoptedSeat, ConnectionId, DeviceFacts, Event, Peer, Process, RequestId, Resident};
pub use loans::{DeviceLoans, GuestLimits};
pub use state::{Row, SeatRef, State, TenantSlot};
pub use step::step;

#[cfg(test)]
mod incident_tests;
#[cfg(test)]
mod loan_tests;
#[cfg(test)]
mod tests;
