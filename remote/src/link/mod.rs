//! One session's connection: frames in order, each exactly once, whatever happens to the transport beneath.
//!
//! Every frame of operations has a number. The sender keeps it until it is acknowledged; after a break both ends say
//! how far they have received, and the sender sends the rest again. The receiver drops what it has had. So nothing is
//! executed twice and nothing is lost as long as both processes live and meet again within
//! [`RESUME_WITHIN`](crate::limits::RESUME_WITHIN).
//!
//! Between two processes of one host the bytes go through memory that both have ([`Near`]), otherwise through sockets; whoever
//! sends and receives frames does not see which. A large piece of a copy is written from where it is and received into its
//! place ([`Outbox::send_lent`], [`Large`]).
//!
//! Reading threads never write: two ends that both wait for the other to read would wait for ever. What a reader has to
//! say it leaves in the [`Outbox`], whose own thread sends it. A client's thread that waits for an answer has written
//! what it had to and reads itself until it has it; a [`Bell`] says whose turn it is.

mod address;
mod stream;
mod send;
#[cfg_attr(all(test, loom), path = "modelled.rs")]
mod memory;
mod ring;
mod near;
mod awaited;
#[cfg(all(test, loom))]
mod interleavings;
mod bell;
mod inlet;
mod outbox;

pub use address::{Address, Listener};
pub use awaited::Awaited;
pub(crate) use bell::Bell;
pub use inlet::{Arrival, Frame, Inlet, Large, Patience, ReadError};
pub(crate) use memory::Memory;
pub use near::Near;
pub(crate) use near::Side;
pub use outbox::{Batch, Closed, Outbox, Tail};
pub use send::nudge;
pub use stream::Stream;
