//! `cvt`: between any two scalar types.

#![expect(
    clippy::cast_possible_truncation,
    reason = "registers are bit patterns; reinterpreting and narrowing them is what this instruction does"
)]

use super::float::format;
use super::int::sign_extend;
use super::soft::{self, Integral, Rounding};
use crate::types::Type;

/// One conversion with its modifiers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conversion {
    pub(crate) from: Type,
    pub(crate) to: Type,
    pub(crate) rounding: Rounding,
    /// `.rni` and its like: the result is integral even when its type is a float.
    pub(crate) integral: bool,
    pub(crate) saturate: bool,
    pub(crate) flush: bool,
}

/// `cvt.f16x2.f32` and its like: two `f32` into one register, the first in the upper half.
pub(crate) fn narrowing(to: Type, rounding: Rounding) -> Option<crate::code::Binary> {
    fn pair(to: Type, rounding: Rounding, a: u64, b: u64) -> u64 {
        let one =
            Conversion { from: Type::F32, to, rounding, integral: false, saturate: false, flush: false };
        one.apply(a) << 16 | one.apply(b)
    }
    Some(match (to, rounding) {
        (Type::F16x2, Rounding::NearestEven) => |a, b| pair(Type::F16, Rounding::NearestEven, a, b),
        (Type::F16x2, Rounding::Zero) => |a, b| pair(Type::F16, Rounding::Zero, a, b),
        (Type::Bf16x2, Rounding::NearestEven) => |a, b| pair(Type::Bf16, Rounding::NearestEven, a, b),
        (Type::Bf16x2, Rounding::Zero) => |a, b| pair(Type::Bf16, Rounding::Zero, a, b),
        _ => return None,
    })
}

impl Conversion {
    /// Converts the low bits of a register. The result is as wide as the destination type.
    pub(crate) fn apply(self, bits: u64) -> u64 {
        let bits = bits & self.from.mask();
        match (format(self.from), format(self.to)) {
            (None, None) => self.integer_to_integer(bits),
            (None, Some((to, _))) => {
                let (negative, magnitude) = self.sign_and_magnitude(bits);
                let result = soft::from_integer(to, self.rounding, negative, magnitude);
                if self.saturate { to.saturate(result) } else { result }
            }
            (Some(_), None) => self.float_to_integer(bits),
            (Some((from, _)), Some((to, _))) => {
                let bits = if self.flush && self.from == Type::F32 { from.flush(bits) } else { bits };
                let result = if self.integral {
                    let rounded = soft::round_to_integral(from, self.rounding, bits);
                    soft::convert(from, to, Rounding::NearestEven, rounded)
                } else {
                    soft::convert(from, to, self.rounding, bits)
                };
                let result = if self.flush && self.to == Type::F32 { to.flush(result) } else { result };
                if self.saturate { to.saturate(result) } else { result }
            }
        }
    }

    fn sign_and_magnitude(self, bits: u64) -> (bool, u64) {
        let wide = sign_extend(self.from)(bits);
        if self.from.is_signed() { ((wide as i64) < 0, (wide as i64).unsigned_abs()) } else { (false, wide) }
    }

    fn integer_to_integer(self, bits: u64) -> u64 {
        let (negative, magnitude) = self.sign_and_magnitude(bits);
        if self.saturate {
            return self.clamp(negative, u128::from(magnitude));
        }
        sign_extend(self.from)(bits) & self.to.mask()
    }

    /// The nearest value that the destination type has.
    fn clamp(self, negative: bool, magnitude: u128) -> u64 {
        let width = self.to.bits();
        let limit = match (self.to.is_signed(), negative) {
            (true, true) => 1u128 << (width - 1),
            (true, false) => (1 << (width - 1)) - 1,
            (false, true) => 0,
            (false, false) => u128::from(self.to.mask()),
        };
        let magnitude = magnitude.min(limit) as u64;
        (if negative { magnitude.wrapping_neg() } else { magnitude }) & self.to.mask()
    }

    /// Clamps to the destination's range whether or not `.sat` says so. NaN becomes zero, except that conversions from
    /// or to 64 bits give the lowest signed value (PTX ISA, "cvt").
    fn float_to_integer(self, bits: u64) -> u64 {
        let Some((from, _)) = format(self.from) else { return 0 };
        let bits = if self.flush { from.flush(bits) } else { bits };
        match soft::to_integer(from, self.rounding, bits) {
            Integral::Nan if self.from == Type::F64 || self.to.bits() == 64 => 1 << (self.to.bits() - 1),
            Integral::Nan => 0,
            Integral::Value { negative, magnitude } => self.clamp(negative, magnitude),
        }
    }
}
