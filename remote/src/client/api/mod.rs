//! The calls that have functions of their own, room by room. Their names and signatures are those of the table, whose
//! columns say which they are; `remote/libcuda` exports them.
#![allow(non_snake_case, reason = "the names are those of the driver API")]
#![allow(clippy::missing_errors_doc, reason = "the errors are the driver API's")]
#![allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
#![allow(missing_docs, reason = "the driver API's documentation is theirs")]

mod start;
mod device;
mod context;
mod memory;
mod physical;
mod pool;
mod host;
mod copy;
mod rectangle;
mod compiler;
mod module;
mod link;
mod function;
mod launch;
mod stream;
mod event;
mod graph;

pub use context::*;
pub use copy::*;
pub use device::*;
pub use event::*;
pub use function::*;
pub use graph::*;
pub use host::*;
pub use launch::*;
pub use link::*;
pub use memory::*;
pub use module::*;
pub use physical::*;
pub use pool::*;
pub use rectangle::*;
pub use start::*;
pub use stream::*;

pub(super) use link::Link;

/// Gives the export of a name, for look-ups; set once by the library that exports.
pub use start::set_exports;
