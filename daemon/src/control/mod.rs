//! The control socket: hooks say hello, the daemon answers with a seat.
//!
//! ```text
//! accept --peer from the kernel--> read one hello --Event::Hello--> node --Reply--> answer and descriptors --> wait for the end
//!    |            |                      |
//!    bounded      refused by name        bounded bytes and time
//! ```
//!
//! A peer is a stranger: it gets two frames' worth of bytes, a second to say hello, and nothing it sends can make
//! more than one seat or more than a bounded number of log lines.
//!
//! Read in this order: [`listener`], [`session`], [`wire`].

pub mod listener;
pub mod session;
pub mod wire;

pub use listener::listen;
pub use session::Reply;
