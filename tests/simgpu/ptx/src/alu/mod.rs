//! Arithmetic on register bits. A register holds its value in the low bits of a `u64`, the rest zero; every function
//! here takes and returns such values.
//!
//! `int` and `bits` have exact integer semantics, `soft` is IEEE 754 for every format and rounding mode in integers,
//! `float` runs the common cases on the host's floating point and the others on `soft`, `convert` is `cvt`.

mod bits;
mod convert;
mod float;
mod int;
mod soft;

pub(crate) use bits::{bit_insert, byte_permute, funnel_shift, lop3};
pub(crate) use convert::{Conversion, narrowing};
pub(crate) use float::{
    FloatOp, Operation, Plain, add_f32, add_half, approximate, compare as compare_float,
    compare_flushed as compare_float_flushed, plain as plain_float,
};
pub(crate) use int::{
    Comparison, binary as integer_binary, compare as compare_integer, dot_product, sad,
    ternary as integer_ternary, unary as integer_unary, wide as integer_wide,
};
pub(crate) use soft::{Format, Rounding, convert as soft_convert};
