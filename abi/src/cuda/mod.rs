//! The CUDA driver API as Headgate sees it: C types and the one symbol table.

pub mod types;
pub mod descriptors;
mod table;
pub mod symbols;
pub mod coverage;
pub mod remote;

pub use symbols::{Disposition, Family, OnFailure, Symbol, ThreadMode, by_elf_name, select};
pub use types::CUresult;
