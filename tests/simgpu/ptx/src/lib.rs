//! PTX for the simulated GPU: a parser and an interpreter of the text that nvcc and NVRTC emit.
//!
//! ```text
//! text -> text::{token, syntax} -> decode -> code -> exec
//!         what the text says       what it    the     threads, blocks, barriers,
//!                                  means      program memory
//! ```
//! [`Module::parse`] takes a text, [`Module::place`] and [`Module::image`] put its variables into device memory, and
//! [`Kernel::launch`] runs a grid against a [`DeviceMemory`]. Results are those of a GPU: integers to the bit, IEEE
//! operations correctly rounded, the approximate functions within the error that PTX allows.
//!
//! What it never does: skip an instruction or modifier it does not know (that is a [`ParseError`]), touch memory that
//! the [`DeviceMemory`] does not grant (that is a [`Fault`]), panic on any text or any kernel, run without a bound, or
//! pretend to know how long a real GPU takes. Textures, tensor cores, asynchronous copies, clusters of more than one
//! block, 32-bit addresses and linking of modules are absent.
//!
//! Read `memory` for what the outside provides, `module` for what a module is, then `text`, `decode`, `code`, `alu` and
//! `exec` in the order of the drawing.

pub mod limits;

mod error;
mod fault;
mod memory;
mod module;
mod exec;
mod code;
mod types;
mod text;
mod decode;
mod alu;

pub use error::{ParseError, ParseErrorKind};
pub use exec::{ExecStats, LaunchConfig};
pub use fault::{ConfigError, Fault, FaultKind, LaunchError};
pub use memory::{DeviceMemory, Heap, LOCAL_WINDOW, NotMapped, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
pub use module::{Global, GlobalSpace, Kernel, Module, Param, Placement};

/// The newest PTX ISA version that is understood.
pub const VERSION_MAX: (u32, u32) = (9, 9);
/// The oldest compute capability whose code is taken, as `.target` writes it: what CUDA 12 drivers still compile for.
pub const TARGET_MIN: u32 = 50;
