//! Floating-point arithmetic. `f32` and `f64` in the default mode run on the host, which computes them as IEEE 754
//! demands; other formats and modes go through [`super::soft`].

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_lossless,
    reason = "registers are bit patterns; reinterpreting and narrowing them is what these instructions do"
)]

use std::cmp::Ordering;

use super::soft::{self, Format, Rounding};
use crate::code::{Binary, Compare, Ternary, Unary};
use crate::types::Type;

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// NVIDIA hardware has one NaN for single precision (PTX ISA, "Floating-Point Instructions").
fn bits_of(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() as u64 }
}

/// Which operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    FusedMultiplyAdd,
    Divide,
    Reciprocal,
    SquareRoot,
    Minimum,
    Maximum,
    /// `min.NaN`: a NaN operand makes the result NaN.
    MinimumNan,
    MaximumNan,
    Absolute,
    Negate,
}

/// An operation in one format and mode. For the packed types it acts on both halves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatOp {
    pub(crate) operation: Operation,
    pub(crate) ty: Type,
    pub(crate) rounding: Rounding,
    pub(crate) flush: bool,
    pub(crate) saturate: bool,
    /// `fma.relu`: negative results and NaN become zero, NaN stays.
    pub(crate) relu: bool,
}

/// The format of one element, and how many a register holds.
pub(crate) fn format(ty: Type) -> Option<(Format, u32)> {
    Some(match ty {
        Type::F16 => (Format::F16, 1),
        Type::F16x2 => (Format::F16, 2),
        Type::Bf16 => (Format::BF16, 1),
        Type::Bf16x2 => (Format::BF16, 2),
        Type::F32 => (Format::F32, 1),
        Type::F64 => (Format::F64, 1),
        _ => return None,
    })
}

impl FloatOp {
    pub(crate) fn apply(self, a: u64, b: u64, c: u64) -> u64 {
        let Some((format, lanes)) = format(self.ty) else { return 0 };
        if lanes == 1 {
            return self.one(format, a, b, c);
        }
        let high = self.one(format, a >> 16, b >> 16, c >> 16);
        high << 16 | self.one(format, a & 0xffff, b & 0xffff, c & 0xffff)
    }

    fn one(self, format: Format, a: u64, b: u64, c: u64) -> u64 {
        let flush = |bits| if self.flush { format.flush(bits) } else { bits };
        let (a, b, c) = (flush(a), flush(b), flush(c));
        let rounding = self.rounding;
        let result = match self.operation {
            Operation::Add => soft::add(format, rounding, a, b),
            Operation::Subtract => soft::add(format, rounding, a, b ^ format.sign_bit()),
            Operation::Multiply => soft::multiply(format, rounding, a, b),
            Operation::FusedMultiplyAdd => soft::fused_multiply_add(format, rounding, a, b, c),
            Operation::Divide => soft::divide(format, rounding, a, b),
            Operation::Reciprocal => {
                let one = soft::from_integer(format, rounding, false, 1);
                soft::divide(format, rounding, one, a)
            }
            Operation::SquareRoot => soft::square_root(format, rounding, a),
            Operation::Minimum => pick(format, a, b, false, false),
            Operation::Maximum => pick(format, a, b, true, false),
            Operation::MinimumNan => pick(format, a, b, false, true),
            Operation::MaximumNan => pick(format, a, b, true, true),
            Operation::Absolute if format.is_nan(a) => format.nan(),
            Operation::Absolute => a & (format.sign_bit() - 1),
            Operation::Negate if format.is_nan(a) => format.nan(),
            Operation::Negate => a ^ format.sign_bit(),
        };
        let result = flush(result);
        if self.saturate {
            format.saturate(result)
        } else if self.relu && result & format.sign_bit() != 0 {
            0
        } else {
            result
        }
    }
}

/// The smaller or larger of two; -0 is smaller than +0.
fn pick(format: Format, a: u64, b: u64, larger: bool, nan_wins: bool) -> u64 {
    match (format.is_nan(a), format.is_nan(b)) {
        (true, true) => return format.nan(),
        (true, false) | (false, true) if nan_wins => return format.nan(),
        (true, false) => return b,
        (false, true) => return a,
        (false, false) => {}
    }
    // Sign and magnitude order as integers once negatives are turned round.
    let key = |bits: u64| {
        let magnitude = (bits & (format.sign_bit() - 1)) as i64;
        if bits & format.sign_bit() != 0 { -magnitude - 1 } else { magnitude }
    };
    if (key(a) > key(b)) == larger { a } else { b }
}

/// An operation on the host's own floating point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plain {
    Unary(Unary),
    Binary(Binary),
    Ternary(Ternary),
}

/// The fast path: round to nearest, no flushing, no saturation. `None` where only [`FloatOp`] will do.
pub(crate) fn plain(op: FloatOp) -> Option<Plain> {
    let default = op.rounding == Rounding::NearestEven && !op.flush && !op.saturate && !op.relu;
    if !default {
        return None;
    }
    macro_rules! single {
        (|$a:ident| $body:expr) => {
            Plain::Unary(|x| {
                let $a = f32_of(x);
                bits_of($body)
            })
        };
        (|$a:ident, $b:ident| $body:expr) => {
            Plain::Binary(|x, y| {
                let ($a, $b) = (f32_of(x), f32_of(y));
                bits_of($body)
            })
        };
    }
    macro_rules! double {
        (|$a:ident| $body:expr) => {
            Plain::Unary(|x| {
                let $a = f64::from_bits(x);
                ($body).to_bits()
            })
        };
        (|$a:ident, $b:ident| $body:expr) => {
            Plain::Binary(|x, y| {
                let ($a, $b) = (f64::from_bits(x), f64::from_bits(y));
                ($body).to_bits()
            })
        };
    }
    Some(match (op.operation, op.ty) {
        (Operation::Add, Type::F32) => single!(|a, b| a + b),
        (Operation::Subtract, Type::F32) => single!(|a, b| a - b),
        (Operation::Multiply, Type::F32) => single!(|a, b| a * b),
        (Operation::Divide, Type::F32) => single!(|a, b| a / b),
        (Operation::Reciprocal, Type::F32) => single!(|a| 1.0 / a),
        (Operation::SquareRoot, Type::F32) => single!(|a| a.sqrt()),
        (Operation::Absolute, Type::F32) => single!(|a| a.abs()),
        (Operation::Negate, Type::F32) => single!(|a| -a),
        (Operation::FusedMultiplyAdd, Type::F32) => {
            Plain::Ternary(|x, y, z| bits_of(f32_of(x).mul_add(f32_of(y), f32_of(z))))
        }
        (Operation::Add, Type::F64) => double!(|a, b| a + b),
        (Operation::Subtract, Type::F64) => double!(|a, b| a - b),
        (Operation::Multiply, Type::F64) => double!(|a, b| a * b),
        (Operation::Divide, Type::F64) => double!(|a, b| a / b),
        (Operation::Reciprocal, Type::F64) => double!(|a| 1.0 / a),
        (Operation::SquareRoot, Type::F64) => double!(|a| a.sqrt()),
        (Operation::Absolute, Type::F64) => double!(|a| a.abs()),
        (Operation::Negate, Type::F64) => double!(|a| -a),
        (Operation::FusedMultiplyAdd, Type::F64) => Plain::Ternary(|x, y, z| {
            f64::from_bits(x).mul_add(f64::from_bits(y), f64::from_bits(z)).to_bits()
        }),
        _ => return None,
    })
}

/// The approximate functions. Real hardware is within a few units of the last place; these are the host's values
/// rounded once, which lies within every bound that PTX states. `flush` flushes operand and result.
pub(crate) fn approximate(name: &str, ty: Type, flush: bool) -> Option<Unary> {
    macro_rules! single {
        (|$a:ident| $body:expr) => {
            if flush {
                |x| {
                    let $a = f32_of(Format::F32.flush(x)) as f64;
                    Format::F32.flush(bits_of(($body) as f32))
                }
            } else {
                |x| {
                    let $a = f32_of(x) as f64;
                    bits_of(($body) as f32)
                }
            }
        };
    }
    macro_rules! half {
        ($format:expr, |$a:ident| $body:expr) => {
            |x| {
                let wide = soft::convert($format, Format::F64, Rounding::NearestEven, x);
                let $a = f64::from_bits(wide);
                soft::convert(Format::F64, $format, Rounding::NearestEven, f64::to_bits($body))
            }
        };
    }
    Some(match (name, ty) {
        ("rcp", Type::F32) => single!(|a| 1.0 / a),
        ("sqrt", Type::F32) => single!(|a| a.sqrt()),
        ("rsqrt", Type::F32) => single!(|a| 1.0 / a.sqrt()),
        ("sin", Type::F32) => single!(|a| a.sin()),
        ("cos", Type::F32) => single!(|a| a.cos()),
        ("lg2", Type::F32) => single!(|a| a.log2()),
        ("ex2", Type::F32) => single!(|a| a.exp2()),
        ("tanh", Type::F32) => single!(|a| a.tanh()),
        ("tanh", Type::F16) => half!(Format::F16, |a| a.tanh()),
        ("tanh", Type::Bf16) => half!(Format::BF16, |a| a.tanh()),
        ("ex2", Type::F16) => half!(Format::F16, |a| a.exp2()),
        ("ex2", Type::Bf16) => half!(Format::BF16, |a| a.exp2()),
        // The gross approximations of double precision: the low 32 bits of operand and result count as zero.
        ("rcp", Type::F64) if flush => |x| gross(x, |a| 1.0 / a),
        ("rsqrt", Type::F64) => |x| gross(x, |a| 1.0 / a.sqrt()),
        _ => return None,
    })
}

fn gross(x: u64, f: fn(f64) -> f64) -> u64 {
    const HIGH: u64 = 0xffff_ffff_0000_0000;
    let value = f64::from_bits(Format::F64.flush(x & HIGH));
    let result = f(value);
    if result.is_nan() { Format::F64.nan() } else { Format::F64.flush(result.to_bits() & HIGH) }
}

/// A plain `fn` for each comparison, over a way to see a register as `f64`.
macro_rules! comparison {
    ($name:expr, |$x:ident| $wide:expr) => {{
        fn wide($x: u64) -> f64 {
            $wide
        }
        fn order(x: u64, y: u64) -> Option<Ordering> {
            wide(x).partial_cmp(&wide(y))
        }
        let compare: Compare = match $name {
            "eq" => |x, y| order(x, y) == Some(Ordering::Equal),
            "ne" => |x, y| order(x, y).is_some_and(Ordering::is_ne),
            "lt" => |x, y| order(x, y).is_some_and(Ordering::is_lt),
            "le" => |x, y| order(x, y).is_some_and(Ordering::is_le),
            "gt" => |x, y| order(x, y).is_some_and(Ordering::is_gt),
            "ge" => |x, y| order(x, y).is_some_and(Ordering::is_ge),
            "equ" => |x, y| order(x, y).is_none_or(Ordering::is_eq),
            "neu" => |x, y| order(x, y).is_none_or(Ordering::is_ne),
            "ltu" => |x, y| order(x, y).is_none_or(Ordering::is_lt),
            "leu" => |x, y| order(x, y).is_none_or(Ordering::is_le),
            "gtu" => |x, y| order(x, y).is_none_or(Ordering::is_gt),
            "geu" => |x, y| order(x, y).is_none_or(Ordering::is_ge),
            "num" => |x, y| order(x, y).is_some(),
            "nan" => |x, y| order(x, y).is_none(),
            _ => return None,
        };
        Some(compare)
    }};
}
/// The comparison of two floats by the name that `setp` has for it. Every format widens to `f64` exactly.
pub(crate) fn compare(name: &str, ty: Type) -> Option<Compare> {
    match ty {
        Type::F32 => comparison!(name, |x| f32_of(x) as f64),
        Type::F64 => comparison!(name, |x| f64::from_bits(x)),
        Type::F16 => comparison!(name, |x| widen(Format::F16, x)),
        Type::Bf16 => comparison!(name, |x| widen(Format::BF16, x)),
        _ => None,
    }
}

/// The same with `.ftz`: subnormal operands count as zero.
pub(crate) fn compare_flushed(name: &str, ty: Type) -> Option<Compare> {
    match ty {
        Type::F32 => comparison!(name, |x| f32_of(Format::F32.flush(x)) as f64),
        Type::F16 => comparison!(name, |x| widen(Format::F16, Format::F16.flush(x))),
        _ => None,
    }
}

fn widen(format: Format, bits: u64) -> f64 {
    f64::from_bits(soft::convert(format, Format::F64, Rounding::NearestEven, bits))
}

/// Addition for atomics.
pub(crate) fn add_f32(a: u64, b: u64, flush: bool) -> u64 {
    let flushed = |bits| if flush { Format::F32.flush(bits) } else { bits };
    flushed(bits_of(f32_of(flushed(a)) + f32_of(flushed(b))))
}

/// Addition of the narrow formats for atomics.
pub(crate) fn add_half(ty: Type) -> Option<Ternary> {
    fn add(ty: Type, a: u64, b: u64) -> u64 {
        FloatOp {
            operation: Operation::Add,
            ty,
            rounding: Rounding::NearestEven,
            flush: false,
            saturate: false,
            relu: false,
        }
        .apply(a, b, 0)
    }
    Some(match ty {
        Type::F16 => |a, b, _| add(Type::F16, a, b),
        Type::F16x2 => |a, b, _| add(Type::F16x2, a, b),
        Type::Bf16 => |a, b, _| add(Type::Bf16, a, b),
        Type::Bf16x2 => |a, b, _| add(Type::Bf16x2, a, b),
        _ => return None,
    })
}
