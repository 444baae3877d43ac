//! Integer arithmetic, as `fn` pointers chosen by opcode and type.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    reason = "registers are bit patterns; reinterpreting and narrowing them is what these instructions do"
)]

use crate::code::{Binary, Compare, Ternary, Unary};
use crate::types::Type;

/// Sees the register as the type, computes, and puts the bits of the result back.
macro_rules! on {
    (@as $a:ident $b:ident $body:expr; $value:ty, $bits:ty) => {
        Some((|x: u64, y: u64| -> u64 {
            let ($a, $b) = (x as $value, y as $value);
            ($body) as $bits as u64
        }) as Binary)
    };
    ($type:expr, |$a:ident, $b:ident| $body:expr) => {
        match $type {
            Type::U16 | Type::B16 => on!(@as $a $b $body; u16, u16),
            Type::U32 | Type::B32 => on!(@as $a $b $body; u32, u32),
            Type::U64 | Type::B64 => on!(@as $a $b $body; u64, u64),
            Type::S16 => on!(@as $a $b $body; i16, u16),
            Type::S32 => on!(@as $a $b $body; i32, u32),
            Type::S64 => on!(@as $a $b $body; i64, u64),
            _ => None,
        }
    };
    (@one $a:ident $body:expr; $value:ty, $bits:ty) => {
        Some((|x: u64| -> u64 {
            let $a = x as $value;
            ($body) as $bits as u64
        }) as Unary)
    };
    ($type:expr, |$a:ident| $body:expr) => {
        match $type {
            Type::U16 | Type::B16 => on!(@one $a $body; u16, u16),
            Type::U32 | Type::B32 => on!(@one $a $body; u32, u32),
            Type::U64 | Type::B64 => on!(@one $a $body; u64, u64),
            Type::S16 => on!(@one $a $body; i16, u16),
            Type::S32 => on!(@one $a $body; i32, u32),
            Type::S64 => on!(@one $a $body; i64, u64),
            _ => None,
        }
    };
}

/// `checked_div` of the type, or all bits set: what NVIDIA hardware gives for a division by zero, which PTX leaves
/// unspecified. The one signed overflow wraps.
macro_rules! divide {
    ($value:ty, $bits:ty) => {
        Some(
            (|x: u64, y: u64| -> u64 {
                let (a, b) = (x as $value, y as $value);
                (if b == 0 { !0 } else { a.wrapping_div(b) }) as $bits as u64
            }) as Binary,
        )
    };
}

/// The remainder; of a division by zero, the dividend.
macro_rules! remainder {
    ($value:ty, $bits:ty) => {
        Some(
            (|x: u64, y: u64| -> u64 {
                let (a, b) = (x as $value, y as $value);
                (if b == 0 { a } else { a.wrapping_rem(b) }) as $bits as u64
            }) as Binary,
        )
    };
}

/// Instructions of two integers whose result has their type.
pub(crate) fn binary(name: &str, ty: Type) -> Option<Binary> {
    match name {
        "mul.hi" | "mul24.lo" | "mul24.hi" => product(name, ty),
        "shl" | "shr" | "szext.clamp" | "szext.wrap" | "bmsk.clamp" | "bmsk.wrap" => shift(name, ty),
        "add" => on!(ty, |a, b| a.wrapping_add(b)),
        "add.sat" if ty == Type::S32 => on!(ty, |a, b| a.saturating_add(b)),
        "sub" => on!(ty, |a, b| a.wrapping_sub(b)),
        "sub.sat" if ty == Type::S32 => on!(ty, |a, b| a.saturating_sub(b)),
        "mul.lo" => on!(ty, |a, b| a.wrapping_mul(b)),
        "div" => match ty {
            Type::U16 => divide!(u16, u16),
            Type::U32 => divide!(u32, u32),
            Type::U64 => divide!(u64, u64),
            Type::S16 => divide!(i16, u16),
            Type::S32 => divide!(i32, u32),
            Type::S64 => divide!(i64, u64),
            _ => None,
        },
        "rem" => match ty {
            Type::U16 => remainder!(u16, u16),
            Type::U32 => remainder!(u32, u32),
            Type::U64 => remainder!(u64, u64),
            Type::S16 => remainder!(i16, u16),
            Type::S32 => remainder!(i32, u32),
            Type::S64 => remainder!(i64, u64),
            _ => None,
        },
        "min" if !ty.is_untyped() => on!(ty, |a, b| a.min(b)),
        "max" if !ty.is_untyped() => on!(ty, |a, b| a.max(b)),
        "and" | "or" | "xor" if !(ty.is_untyped() || ty == Type::Pred) => None,
        "and" => Some(|x, y| x & y),
        "or" => Some(|x, y| x | y),
        "xor" => Some(|x, y| x ^ y),
        _ => None,
    }
}

/// Products that are not just the low half.
fn product(name: &str, ty: Type) -> Option<Binary> {
    match name {
        "mul.hi" => match ty {
            Type::U16 => Some(|x, y| ((x as u16 as u32 * y as u16 as u32) >> 16) as u64),
            Type::S16 => Some(|x, y| ((x as i16 as i32 * y as i16 as i32) >> 16) as u16 as u64),
            Type::U32 => Some(|x, y| (x as u32 as u64 * y as u32 as u64) >> 32),
            Type::S32 => Some(|x, y| ((x as i32 as i64 * y as i32 as i64) >> 32) as u32 as u64),
            Type::U64 => Some(|x, y| ((x as u128 * y as u128) >> 64) as u64),
            Type::S64 => Some(|x, y| ((x as i64 as i128 * y as i64 as i128) >> 64) as u64),
            _ => None,
        },
        "mul24.lo" => match ty {
            Type::U32 => Some(|x, y| ((x & 0xff_ffff) * (y & 0xff_ffff)) as u32 as u64),
            Type::S32 => Some(|x, y| (low_24(x) * low_24(y)) as u32 as u64),
            _ => None,
        },
        "mul24.hi" => match ty {
            Type::U32 => Some(|x, y| (((x & 0xff_ffff) * (y & 0xff_ffff)) >> 16) as u32 as u64),
            Type::S32 => Some(|x, y| ((low_24(x) * low_24(y)) >> 16) as u32 as u64),
            _ => None,
        },
        _ => None,
    }
}

/// Shifts and what is built from them.
fn shift(name: &str, ty: Type) -> Option<Binary> {
    match name {
        // The count is a 32-bit register whatever the type; counts beyond the width act as the width.
        "shl" if ty.is_untyped() => match ty {
            Type::B16 => Some(|x, n| if n < 16 { (x << n) as u16 as u64 } else { 0 }),
            Type::B32 => Some(|x, n| if n < 32 { (x << n) as u32 as u64 } else { 0 }),
            Type::B64 => Some(|x, n| if n < 64 { x << n } else { 0 }),
            _ => None,
        },
        "shr" => match ty {
            Type::B16 | Type::U16 | Type::B32 | Type::U32 | Type::B64 | Type::U64 => {
                Some(|x, n| if n < 64 { x >> n } else { 0 })
            }
            Type::S16 => Some(|x, n| (x as i16 >> n.min(15)) as u16 as u64),
            Type::S32 => Some(|x, n| (x as i32 >> n.min(31)) as u32 as u64),
            Type::S64 => Some(|x, n| (x as i64 >> n.min(63)) as u64),
            _ => None,
        },
        "szext.clamp" => match ty {
            Type::U32 => Some(|x, n| if n < 32 { x & ((1 << n) - 1) } else { x }),
            Type::S32 => Some(|x, n| match n {
                0 => 0,
                1..32 => ((((x as u32) << (32 - n)) as i32) >> (32 - n)) as u32 as u64,
                _ => x,
            }),
            _ => None,
        },
        "szext.wrap" => match ty {
            Type::U32 => Some(|x, n| x & ((1 << (n & 31)) - 1)),
            Type::S32 => Some(|x, n| match n & 31 {
                0 => 0,
                n => ((((x as u32) << (32 - n)) as i32) >> (32 - n)) as u32 as u64,
            }),
            _ => None,
        },
        "bmsk.clamp" if ty == Type::B32 => {
            Some(|a, b| if a >= 32 { 0 } else { ones(b.min(32)).wrapping_shl(a as u32) as u32 as u64 })
        }
        "bmsk.wrap" if ty == Type::B32 => Some(|a, b| (ones(b & 31) << (a & 31)) as u32 as u64),
        _ => None,
    }
}

fn ones(count: u64) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

fn low_24(x: u64) -> i64 {
    ((x as u32) << 8) as i32 as i64 >> 8
}

/// `mul.wide`: the result has twice the width.
pub(crate) fn wide(ty: Type) -> Option<Binary> {
    match ty {
        Type::U16 | Type::U32 => Some(|x, y| x * y),
        Type::S16 => Some(|x, y| (x as i16 as i32 * y as i16 as i32) as u32 as u64),
        Type::S32 => Some(|x, y| (x as i32 as i64 * y as i32 as i64) as u64),
        _ => None,
    }
}

/// `mad`, `mad24` and the bit-field extraction: three operands.
pub(crate) fn ternary(name: &str, ty: Type) -> Option<Ternary> {
    match (name, ty) {
        ("mad.lo", Type::U16 | Type::S16) => Some(|x, y, z| x.wrapping_mul(y).wrapping_add(z) as u16 as u64),
        ("mad.lo", Type::U32 | Type::S32) => Some(|x, y, z| x.wrapping_mul(y).wrapping_add(z) as u32 as u64),
        ("mad.lo", Type::U64 | Type::S64) => Some(|x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        ("mad.hi", Type::U16) => Some(|x, y, z| (((x * y) >> 16) + z) as u16 as u64),
        ("mad.hi", Type::S16) => {
            Some(|x, y, z| (((x as i16 as i64 * y as i16 as i64) >> 16) + z as i64) as u16 as u64)
        }
        ("mad.hi", Type::U32) => Some(|x, y, z| (((x * y) >> 32) + z) as u32 as u64),
        ("mad.hi", Type::S32) => {
            Some(|x, y, z| (((x as i32 as i64 * y as i32 as i64) >> 32) + z as i64) as u32 as u64)
        }
        ("mad.hi", Type::U64) => Some(|x, y, z| (((x as u128 * y as u128) >> 64) as u64).wrapping_add(z)),
        ("mad.hi", Type::S64) => {
            Some(|x, y, z| (((x as i64 as i128 * y as i64 as i128) >> 64) as u64).wrapping_add(z))
        }
        ("mad.hi.sat", Type::S32) => Some(|x, y, z| {
            let high = ((x as i32 as i64 * y as i32 as i64) >> 32) as i32;
            high.saturating_add(z as i32) as u32 as u64
        }),
        ("mad.wide", Type::U16) => Some(|x, y, z| (x * y + z) as u32 as u64),
        ("mad.wide", Type::S16) => {
            Some(|x, y, z| ((x as i16 as i64 * y as i16 as i64) + z as i64) as u32 as u64)
        }
        ("mad.wide", Type::U32) => Some(|x, y, z| (x * y).wrapping_add(z)),
        ("mad.wide", Type::S32) => {
            Some(|x, y, z| ((x as i32 as i64 * y as i32 as i64) as u64).wrapping_add(z))
        }
        ("mad24.lo", Type::U32) => Some(|x, y, z| ((x & 0xff_ffff) * (y & 0xff_ffff) + z) as u32 as u64),
        ("mad24.lo", Type::S32) => Some(|x, y, z| (low_24(x) * low_24(y) + z as i64) as u32 as u64),
        ("mad24.hi", Type::U32) => {
            Some(|x, y, z| ((((x & 0xff_ffff) * (y & 0xff_ffff)) >> 16) as u32 as u64 + z) as u32 as u64)
        }
        ("mad24.hi", Type::S32) => Some(|x, y, z| (((low_24(x) * low_24(y)) >> 16) + z as i64) as u32 as u64),
        ("bfe", Type::U32) => Some(|x, p, n| extract_unsigned(x, p, n, 32)),
        ("bfe", Type::U64) => Some(|x, p, n| extract_unsigned(x, p, n, 64)),
        ("bfe", Type::S32) => Some(|x, p, n| extract_signed(x as i32 as i64, p, n, 32) as u32 as u64),
        ("bfe", Type::S64) => Some(|x, p, n| extract_signed(x as i64, p, n, 64)),
        _ => None,
    }
}

/// `bfe` of unsigned types; position and length are the low eight bits of their registers.
fn extract_unsigned(x: u64, position: u64, length: u64, width: u64) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width { 0 } else { (x >> position) & ones(length) }
}

/// `bfe` of signed types: bits beyond the field, and beyond the register, repeat the sign (PTX ISA, "bfe").
fn extract_signed(x: i64, position: u64, length: u64, width: u64) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let last = (position + length - 1).min(width - 1);
    if position > last {
        return (x >> (width - 1)) as u64;
    }
    let field = last - position + 1;
    let shifted = ((x as u64) << (63 - last)) as i64;
    (shifted >> (64 - field)) as u64
}

/// Instructions of one integer.
pub(crate) fn unary(name: &str, ty: Type) -> Option<Unary> {
    match name {
        "abs" if ty.is_signed() => match ty {
            Type::S16 => Some(|x| (x as i16).wrapping_abs() as u16 as u64),
            Type::S32 => Some(|x| (x as i32).wrapping_abs() as u32 as u64),
            Type::S64 => Some(|x| (x as i64).wrapping_abs() as u64),
            _ => None,
        },
        "neg" if ty.is_signed() => on!(ty, |a| a.wrapping_neg()),
        "not" if ty.is_untyped() => on!(ty, |a| !a),
        "not" if ty == Type::Pred => Some(|x| x ^ 1),
        "cnot" if ty.is_untyped() => on!(ty, |a| a == 0),
        "popc" => match ty {
            Type::B32 | Type::B64 => Some(|x| x.count_ones() as u64),
            _ => None,
        },
        "clz" => match ty {
            Type::B32 => Some(|x| (x as u32).leading_zeros() as u64),
            Type::B64 => Some(|x| x.leading_zeros() as u64),
            _ => None,
        },
        "brev" => match ty {
            Type::B32 => Some(|x| (x as u32).reverse_bits() as u64),
            Type::B64 => Some(|x| x.reverse_bits()),
            _ => None,
        },
        "bfind" => match ty {
            Type::U32 | Type::U64 => Some(highest),
            Type::S32 => Some(|x| highest((x as u32 ^ ((x as i32) >> 31) as u32) as u64)),
            Type::S64 => Some(|x| highest(x ^ ((x as i64) >> 63) as u64)),
            _ => None,
        },
        "bfind.shiftamt" => match ty {
            Type::U32 => Some(|x| shift_to_top(highest(x), 31)),
            Type::U64 => Some(|x| shift_to_top(highest(x), 63)),
            Type::S32 => Some(|x| shift_to_top(highest((x as u32 ^ ((x as i32) >> 31) as u32) as u64), 31)),
            Type::S64 => Some(|x| shift_to_top(highest(x ^ ((x as i64) >> 63) as u64), 63)),
            _ => None,
        },
        _ => None,
    }
}

/// Position of the highest set bit, or 2^32 - 1 when none is.
fn highest(x: u64) -> u64 {
    if x == 0 { u32::MAX as u64 } else { 63 - x.leading_zeros() as u64 }
}

fn shift_to_top(position: u64, top: u64) -> u64 {
    if position > top { position } else { top - position }
}

/// The comparison of `setp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Compares two integers.
pub(crate) fn compare(comparison: Comparison, ty: Type) -> Option<Compare> {
    macro_rules! signed {
        ($op:tt) => {
            match ty {
                Type::S16 => Some((|x, y| (x as i16) $op (y as i16)) as Compare),
                Type::S32 => Some((|x, y| (x as i32) $op (y as i32)) as Compare),
                Type::S64 => Some((|x, y| (x as i64) $op (y as i64)) as Compare),
                Type::U16 | Type::U32 | Type::U64 => Some((|x, y| x $op y) as Compare),
                _ => None,
            }
        };
    }
    if !(ty.is_integer() || ty.is_untyped()) {
        return None;
    }
    match comparison {
        Comparison::Equal => Some(|x, y| x == y),
        Comparison::NotEqual => Some(|x, y| x != y),
        Comparison::Less => signed!(<),
        Comparison::LessEqual => signed!(<=),
        Comparison::Greater => signed!(>),
        Comparison::GreaterEqual => signed!(>=),
    }
}

/// `sad`: c + |a - b|.
pub(crate) fn sad(ty: Type) -> Option<Ternary> {
    match ty {
        Type::U16 => Some(|x, y, z| x.abs_diff(y).wrapping_add(z) as u16 as u64),
        Type::U32 => Some(|x, y, z| x.abs_diff(y).wrapping_add(z) as u32 as u64),
        Type::U64 => Some(|x, y, z| x.abs_diff(y).wrapping_add(z)),
        Type::S16 => Some(|x, y, z| ((x as i16).abs_diff(y as i16) as u64).wrapping_add(z) as u16 as u64),
        Type::S32 => Some(|x, y, z| ((x as i32).abs_diff(y as i32) as u64).wrapping_add(z) as u32 as u64),
        Type::S64 => Some(|x, y, z| (x as i64).abs_diff(y as i64).wrapping_add(z)),
        _ => None,
    }
}

/// `dp4a` and `dp2a`: sums of products of bytes. For `dp2a`, `high` picks the upper two bytes of `b`.
pub(crate) fn dot_product(name: &str, a: Type, b: Type) -> Option<Ternary> {
    macro_rules! dot {
        ($lanes:expr, $shift:expr, $x:ty, $y:ty) => {
            Some(
                (|a: u64, b: u64, c: u64| {
                    let mut sum = c as i64;
                    for lane in 0..$lanes {
                        let x = (a >> (lane * 32 / $lanes)) as $x as i64;
                        let y = (b >> (lane * 8 + $shift)) as $y as i64;
                        sum = sum.wrapping_add(x * y);
                    }
                    sum as u32 as u64
                }) as Ternary,
            )
        };
    }
    match (name, a, b) {
        ("dp4a", Type::U32, Type::U32) => dot!(4, 0, u8, u8),
        ("dp4a", Type::U32, Type::S32) => dot!(4, 0, u8, i8),
        ("dp4a", Type::S32, Type::U32) => dot!(4, 0, i8, u8),
        ("dp4a", Type::S32, Type::S32) => dot!(4, 0, i8, i8),
        ("dp2a.lo", Type::U32, Type::U32) => dot!(2, 0, u16, u8),
        ("dp2a.lo", Type::U32, Type::S32) => dot!(2, 0, u16, i8),
        ("dp2a.lo", Type::S32, Type::U32) => dot!(2, 0, i16, u8),
        ("dp2a.lo", Type::S32, Type::S32) => dot!(2, 0, i16, i8),
        ("dp2a.hi", Type::U32, Type::U32) => dot!(2, 16, u16, u8),
        ("dp2a.hi", Type::U32, Type::S32) => dot!(2, 16, u16, i8),
        ("dp2a.hi", Type::S32, Type::U32) => dot!(2, 16, i16, u8),
        ("dp2a.hi", Type::S32, Type::S32) => dot!(2, 16, i16, i8),
        _ => None,
    }
}

/// Extends a value of `from` to 64 bits by its sign, or not at all when it has none. The caller narrows to the
/// destination.
pub(crate) fn sign_extend(from: Type) -> Unary {
    match from {
        Type::S8 => |x| x as i8 as i64 as u64,
        Type::S16 => |x| x as i16 as i64 as u64,
        Type::S32 => |x| x as i32 as i64 as u64,
        _ => |x| x,
    }
}
