//! What travels: frames, the operations in them, and the bytes these are made of. Nothing here knows a transport.
//!
//! ```text
//! frame     0 u32 magic  4 u8 version  5 u8 kind  6 u8 rings (0 to 2)  7 u8 zero  8 u32 bytes  12 u32 operations  16 u64 number  24 u64 acknowledged
//! payload   operations, one behind the other: a varint that says which, then its fields
//! ```
//!
//! All numbers are little-endian or varints (seven bits a byte, lowest first, at most ten bytes). There are no pointers:
//! handles travel as numbers that the client chose, each in the space of its kind.

pub mod codec;
mod table;
pub mod frame;
pub mod call;
pub mod bundle;
pub mod operation;
mod notice;
pub mod large;
pub mod described;
pub mod said;
pub mod gauges;

pub use call::{Claim, Wish};
pub use codec::{Malformed, Put, Reader};
pub use described::Described;
pub use frame::{Header, Hello, Kind, Welcome};
pub use gauges::{Gauges, uuid_text};
pub use said::Said;
