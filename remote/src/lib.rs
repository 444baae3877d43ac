//! GPU-over-IP: a CUDA program here, a GPU there.
//!
//! A client ([`client`]) stands in the place of the driver library in an unmodified program and turns its calls into
//! operations ([`wire`]); a worker ([`worker`]), one process for each session, executes them with the real driver on
//! the lender's node, under the lender's quota like any tenant. Between them is a link ([`link`]) that gives each
//! operation exactly once even if the connection breaks meanwhile.
//!
//! Which calls travel and how stands in [`headgate_abi::cuda::remote`], the one table; a call that is not there is not
//! offered. What this crate never does: answer a call with something that was not done, execute an operation twice,
//! trust a number, length or handle that came over the wire, or answer the test by which NVIDIA's runtime knows its driver.
//!
//! Daemons on both nodes may carry a session between the two; what they count with is [`meter`].
//!
//! Read in this order: [`limits`], [`wire::operation`], [`link`], [`client`], [`worker`], [`meter`]; [`image`] beside
//! them.

pub mod limits;
pub mod wire;
pub mod link;
pub mod meter;
pub mod image;
mod word;
pub mod client;
mod exports;
pub mod worker;

pub use word::Word;
