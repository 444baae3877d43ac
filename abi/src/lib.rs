//! What two Headgate processes must agree on, and nothing else.
//!
//! Three contracts live here: the **symbol tables** ([`cuda`], [`nvml`]: every driver entry point Headgate
//! knows, written once, with signature, family and failure policy), the **shared segments** ([`segment`]: the
//! memory a daemon and a tenant's processes share) and the **control frames** ([`wire`]: what they say over
//! the Unix socket). Beside them stand [`space`], what a program that shares a device by space finds in its
//! environment, [`told`], the one word more that goes to the kernel's probes, and [`ahead`], what the hook tells a worker
//! in its own process.
//!
//! This crate never decides policy, never talks to a driver, and never trusts the other side: every word read
//! from a segment or a frame is range-checked before it becomes a typed value.
//!
//! Read in this order: [`limits`], [`segment::layout`], [`wire::message`], [`cuda::symbols`].

pub mod limits;
pub mod segment;
pub mod told;
pub mod ahead;
pub mod wire;
pub mod cuda;
pub mod nvml;
pub mod space;
