//! IEEE 754 in integers: every format and rounding mode by one path. Slower than the host's floating point and
//! independent of it, so the tests hold the two against each other.

use std::cmp::Ordering;

/// A binary interchange format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// Bits of the significand with the hidden one.
    precision: u32,
    /// Bits of the exponent field.
    exponent_bits: u32,
}

impl Format {
    pub(crate) const F16: Self = Self { precision: 11, exponent_bits: 5 };
    pub(crate) const BF16: Self = Self { precision: 8, exponent_bits: 8 };
    pub(crate) const F32: Self = Self { precision: 24, exponent_bits: 8 };
    pub(crate) const F64: Self = Self { precision: 53, exponent_bits: 11 };

    fn exponent_mask(self) -> u64 {
        (1 << self.exponent_bits) - 1
    }

    fn fraction_bits(self) -> u32 {
        self.precision - 1
    }

    fn fraction_mask(self) -> u64 {
        (1 << self.fraction_bits()) - 1
    }

    pub(crate) fn sign_bit(self) -> u64 {
        1 << (self.fraction_bits() + self.exponent_bits)
    }

    /// Exponent of the lowest bit of a subnormal.
    fn exponent_min(self) -> i32 {
        let bias = (1i32 << (self.exponent_bits - 1)) - 1;
        1 - bias - self.fraction_bits().cast_signed()
    }

    fn infinity(self, negative: bool) -> u64 {
        self.signed(negative, self.exponent_mask() << self.fraction_bits())
    }

    fn largest(self, negative: bool) -> u64 {
        self.infinity(negative) - 1
    }

    pub(crate) fn zero(self, negative: bool) -> u64 {
        self.signed(negative, 0)
    }

    fn signed(self, negative: bool, bits: u64) -> u64 {
        if negative { bits | self.sign_bit() } else { bits }
    }

    /// The NaN that arithmetic makes: all bits but the sign for the narrow formats, the quiet NaN for `f64`
    /// (PTX ISA, "Floating-Point Instructions").
    pub(crate) fn nan(self) -> u64 {
        match self {
            Self::F64 => 0x7ff8_0000_0000_0000,
            _ => self.sign_bit() - 1,
        }
    }

    pub(crate) fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign_bit() - 1) > self.infinity(false)
    }

    pub(crate) fn is_subnormal(self, bits: u64) -> bool {
        let magnitude = bits & (self.sign_bit() - 1);
        magnitude != 0 && magnitude <= self.fraction_mask()
    }

    /// A subnormal becomes the zero of its sign.
    pub(crate) fn flush(self, bits: u64) -> u64 {
        if self.is_subnormal(bits) { bits & self.sign_bit() } else { bits }
    }

    /// Clamps to 0..=1; NaN becomes zero.
    pub(crate) fn saturate(self, bits: u64) -> u64 {
        let bias = self.exponent_mask() >> 1;
        let one = bias << self.fraction_bits();
        if self.is_nan(bits) || bits & self.sign_bit() != 0 { 0 } else { bits.min(one) }
    }
}

/// How a result between two values of the format is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    NearestEven,
    /// Ties away from zero, `.rna`.
    NearestAway,
    Zero,
    Down,
    Up,
}

/// A value taken apart. `Finite` is `mantissa * 2^exponent`; the mantissa of a zero is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Nan,
    Infinite { negative: bool },
    Finite { negative: bool, mantissa: u128, exponent: i32 },
}

fn unpack(format: Format, bits: u64) -> Value {
    let negative = bits & format.sign_bit() != 0;
    let fraction = bits & format.fraction_mask();
    let field = bits >> format.fraction_bits() & format.exponent_mask();
    if field == format.exponent_mask() {
        return if fraction == 0 { Value::Infinite { negative } } else { Value::Nan };
    }
    let hidden = if field == 0 { 0 } else { 1 << format.fraction_bits() };
    // The field has at most eleven bits.
    let above = i32::try_from(field.max(1) - 1).unwrap_or(0);
    Value::Finite {
        negative,
        mantissa: u128::from(fraction | hidden),
        exponent: format.exponent_min() + above,
    }
}

/// Rounds `mantissa * 2^exponent`, plus a little more when `sticky`, into the format.
fn pack(
    format: Format,
    rounding: Rounding,
    negative: bool,
    mantissa: u128,
    exponent: i32,
    sticky: bool,
) -> u64 {
    if mantissa == 0 && !sticky {
        return format.zero(negative);
    }
    let length = 128 - mantissa.leading_zeros();
    // How many low bits do not fit: those beyond the precision, or those below the smallest subnormal.
    let beyond = length.cast_signed() - format.precision.cast_signed();
    let below = format.exponent_min().saturating_sub(exponent);
    let drop = beyond.max(below);
    let (mut kept, half, rest);
    if drop <= 0 {
        // Exact unless sticky, whose bit then lies far below the last place.
        kept = mantissa << drop.unsigned_abs().min(127);
        (half, rest) = (false, sticky);
    } else {
        let drop = drop.unsigned_abs();
        kept = mantissa.checked_shr(drop).unwrap_or(0);
        half = drop <= 128 && mantissa >> (drop - 1) & 1 == 1;
        let low = if drop > 128 { mantissa } else { mantissa & ((1 << (drop - 1)) - 1) };
        rest = sticky || low != 0;
    }
    let up = match rounding {
        Rounding::NearestEven => half && (rest || kept & 1 == 1),
        Rounding::NearestAway => half,
        Rounding::Zero => false,
        Rounding::Down => negative && (half || rest),
        Rounding::Up => !negative && (half || rest),
    };
    kept += u128::from(up);
    let mut exponent = exponent.saturating_add(drop);
    if kept >> format.precision != 0 {
        kept >>= 1;
        exponent += 1;
    }
    let fraction = u64::try_from(kept).unwrap_or(u64::MAX);
    if fraction >> format.fraction_bits() == 0 {
        return format.signed(negative, fraction);
    }
    let field = u64::try_from(exponent - format.exponent_min() + 1).unwrap_or(0);
    if field >= format.exponent_mask() {
        return match rounding {
            Rounding::NearestEven | Rounding::NearestAway => format.infinity(negative),
            Rounding::Down if negative => format.infinity(negative),
            Rounding::Up if !negative => format.infinity(negative),
            _ => format.largest(negative),
        };
    }
    format.signed(negative, field << format.fraction_bits() | fraction & format.fraction_mask())
}

/// Shifts the mantissa so that its highest bit is bit 125, which leaves room for one carry.
fn normalise(mantissa: u128, exponent: i32) -> (u128, i32) {
    let shift = mantissa.leading_zeros().saturating_sub(2);
    (mantissa << shift, exponent - shift.cast_signed())
}

fn add_values(format: Format, rounding: Rounding, a: Value, b: Value) -> u64 {
    let (a, b) = match (a, b) {
        (Value::Nan, _) | (_, Value::Nan) => return format.nan(),
        (Value::Infinite { negative: a }, Value::Infinite { negative: b }) if a != b => return format.nan(),
        (Value::Infinite { negative }, _) | (_, Value::Infinite { negative }) => {
            return format.infinity(negative);
        }
        (
            Value::Finite { negative: an, mantissa: am, exponent: ae },
            Value::Finite { negative: bn, mantissa: bm, exponent: be },
        ) => ((an, am, ae), (bn, bm, be)),
    };
    match (a.1, b.1) {
        (0, 0) if a.0 == b.0 => return format.zero(a.0),
        (0, 0) => return format.zero(rounding == Rounding::Down),
        (0, _) => return pack(format, rounding, b.0, b.1, b.2, false),
        (_, 0) => return pack(format, rounding, a.0, a.1, a.2, false),
        _ => {}
    }
    let (am, ae) = normalise(a.1, a.2);
    let (bm, be) = normalise(b.1, b.2);
    let (large, small) = match ae.cmp(&be).then(am.cmp(&bm)) {
        Ordering::Less => ((b.0, bm, be), (a.0, am, ae)),
        _ => ((a.0, am, ae), (b.0, bm, be)),
    };
    let shift = large.2.abs_diff(small.2);
    let aligned = small.1.checked_shr(shift).unwrap_or(0);
    let lost = if shift >= 128 { true } else { small.1 & ((1 << shift) - 1) != 0 };
    if large.0 == small.0 {
        return pack(format, rounding, large.0, large.1 + aligned, large.2, lost);
    }
    // A subtraction borrows one from the lowest place for what was shifted out.
    let difference = large.1 - aligned - u128::from(lost);
    if difference == 0 && !lost {
        return format.zero(rounding == Rounding::Down);
    }
    pack(format, rounding, large.0, difference, large.2, lost)
}

/// The exact product as a value.
fn multiply_values(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Nan, _) | (_, Value::Nan) => Value::Nan,
        (Value::Infinite { .. }, Value::Finite { mantissa: 0, .. })
        | (Value::Finite { mantissa: 0, .. }, Value::Infinite { .. }) => Value::Nan,
        (
            Value::Infinite { negative: a },
            Value::Infinite { negative: b } | Value::Finite { negative: b, .. },
        )
        | (Value::Finite { negative: a, .. }, Value::Infinite { negative: b }) => {
            Value::Infinite { negative: a != b }
        }
        (
            Value::Finite { negative: an, mantissa: am, exponent: ae },
            Value::Finite { negative: bn, mantissa: bm, exponent: be },
        ) => Value::Finite { negative: an != bn, mantissa: am * bm, exponent: ae + be },
    }
}

pub(crate) fn add(format: Format, rounding: Rounding, a: u64, b: u64) -> u64 {
    add_values(format, rounding, unpack(format, a), unpack(format, b))
}

pub(crate) fn multiply(format: Format, rounding: Rounding, a: u64, b: u64) -> u64 {
    match multiply_values(unpack(format, a), unpack(format, b)) {
        Value::Nan => format.nan(),
        Value::Infinite { negative } => format.infinity(negative),
        Value::Finite { negative, mantissa, exponent } => {
            pack(format, rounding, negative, mantissa, exponent, false)
        }
    }
}

pub(crate) fn fused_multiply_add(format: Format, rounding: Rounding, a: u64, b: u64, c: u64) -> u64 {
    let product = multiply_values(unpack(format, a), unpack(format, b));
    add_values(format, rounding, product, unpack(format, c))
}

pub(crate) fn divide(format: Format, rounding: Rounding, a: u64, b: u64) -> u64 {
    match (unpack(format, a), unpack(format, b)) {
        (Value::Nan, _) | (_, Value::Nan) | (Value::Infinite { .. }, Value::Infinite { .. }) => format.nan(),
        (Value::Infinite { negative: a }, Value::Finite { negative: b, .. }) => format.infinity(a != b),
        (Value::Finite { negative: a, .. }, Value::Infinite { negative: b }) => format.zero(a != b),
        (
            Value::Finite { negative: an, mantissa: am, exponent: ae },
            Value::Finite { negative: bn, mantissa: bm, exponent: be },
        ) => match (am, bm) {
            (0, 0) => format.nan(),
            (_, 0) => format.infinity(an != bn),
            (0, _) => format.zero(an != bn),
            _ => {
                let (am, ae) = normalise(am, ae);
                let (quotient, remainder) = (am / bm, am % bm);
                pack(format, rounding, an != bn, quotient, ae - be, remainder != 0)
            }
        },
    }
}

pub(crate) fn square_root(format: Format, rounding: Rounding, a: u64) -> u64 {
    match unpack(format, a) {
        Value::Nan | Value::Infinite { negative: true } => format.nan(),
        Value::Infinite { negative: false } => format.infinity(false),
        Value::Finite { mantissa: 0, negative, .. } => format.zero(negative),
        Value::Finite { negative: true, .. } => format.nan(),
        Value::Finite { mantissa, exponent, .. } => {
            let (mut mantissa, mut exponent) = normalise(mantissa, exponent);
            if exponent & 1 != 0 {
                mantissa <<= 1;
                exponent -= 1;
            }
            let root = mantissa.isqrt();
            pack(format, rounding, false, root, exponent / 2, root * root != mantissa)
        }
    }
}

/// From one format to another.
pub(crate) fn convert(from: Format, to: Format, rounding: Rounding, bits: u64) -> u64 {
    match unpack(from, bits) {
        Value::Nan => to.nan(),
        Value::Infinite { negative } => to.infinity(negative),
        Value::Finite { negative, mantissa, exponent } => {
            pack(to, rounding, negative, mantissa, exponent, false)
        }
    }
}

/// From an integer given by sign and magnitude.
pub(crate) fn from_integer(to: Format, rounding: Rounding, negative: bool, magnitude: u64) -> u64 {
    pack(to, rounding, negative && magnitude != 0, u128::from(magnitude), 0, false)
}

/// Rounds to an integral value of the same format.
pub(crate) fn round_to_integral(format: Format, rounding: Rounding, bits: u64) -> u64 {
    match unpack(format, bits) {
        Value::Nan => format.nan(),
        Value::Infinite { .. } => bits,
        Value::Finite { negative, mantissa, exponent } if exponent < 0 => {
            let magnitude = integral(rounding, negative, mantissa, exponent);
            pack(format, Rounding::NearestEven, negative, magnitude, 0, false)
        }
        Value::Finite { .. } => bits,
    }
}

/// What a float is as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integral {
    Nan,
    /// Sign and magnitude; magnitudes beyond 2^127 are given as that.
    Value {
        negative: bool,
        magnitude: u128,
    },
}

pub(crate) fn to_integer(format: Format, rounding: Rounding, bits: u64) -> Integral {
    match unpack(format, bits) {
        Value::Nan => Integral::Nan,
        Value::Infinite { negative } => Integral::Value { negative, magnitude: 1 << 127 },
        Value::Finite { negative, mantissa, exponent } if exponent < 0 => {
            Integral::Value { negative, magnitude: integral(rounding, negative, mantissa, exponent) }
        }
        Value::Finite { negative, mantissa, exponent } => {
            let fits = exponent.unsigned_abs() < mantissa.leading_zeros();
            let magnitude = if mantissa == 0 {
                0
            } else if fits {
                mantissa << exponent
            } else {
                1 << 127
            };
            Integral::Value { negative, magnitude }
        }
    }
}

/// `mantissa * 2^exponent` for a negative exponent, rounded to an integer.
fn integral(rounding: Rounding, negative: bool, mantissa: u128, exponent: i32) -> u128 {
    let drop = exponent.unsigned_abs();
    let kept = mantissa.checked_shr(drop).unwrap_or(0);
    let half = drop <= 128 && mantissa >> (drop - 1) & 1 == 1;
    let rest = if drop > 128 { mantissa != 0 } else { mantissa & ((1 << (drop - 1)) - 1) != 0 };
    let up = match rounding {
        Rounding::NearestEven => half && (rest || kept & 1 == 1),
        Rounding::NearestAway => half,
        Rounding::Zero => false,
        Rounding::Down => negative && (half || rest),
        Rounding::Up => !negative && (half || rest),
    };
    kept + u128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit patterns with many zeros, subnormals, infinities, and neighbours of powers of two.
    fn pattern() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            any::<u64>().prop_map(|bits| bits & 0x8000_ffff_0000_ffff),
            any::<u64>().prop_map(|bits| bits | 0x7fe0_0000_7f00_0000),
            (any::<u64>(), 0u32..64).prop_map(|(bits, keep)| bits & (u64::MAX << keep)),
            Just(0),
            Just(1 << 63),
        ]
    }

    fn same_f32(got: u64, want: f32) -> bool {
        if want.is_nan() { got == Format::F32.nan() } else { got == u64::from(want.to_bits()) }
    }

    fn same_f64(got: u64, want: f64) -> bool {
        if want.is_nan() { got == Format::F64.nan() } else { got == want.to_bits() }
    }

    fn single(bits: u64) -> (u64, f32) {
        let low = u32::try_from(bits & 0xffff_ffff).unwrap();
        (u64::from(low), f32::from_bits(low))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Round to nearest in integers is what the host's floating point does.
        #[test]
        fn agrees_with_the_host(a in pattern(), b in pattern(), c in pattern()) {
            let near = Rounding::NearestEven;
            let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
            let f = Format::F64;
            prop_assert!(same_f64(add(f, near, a, b), x + y));
            prop_assert!(same_f64(multiply(f, near, a, b), x * y));
            prop_assert!(same_f64(divide(f, near, a, b), x / y));
            prop_assert!(same_f64(square_root(f, near, a), x.sqrt()));
            prop_assert!(same_f64(fused_multiply_add(f, near, a, b, c), x.mul_add(y, z)));
            let ((a, x), (b, y), (c, z)) = (single(a), single(b), single(c));
            let f = Format::F32;
            prop_assert!(same_f32(add(f, near, a, b), x + y));
            prop_assert!(same_f32(multiply(f, near, a, b), x * y));
            prop_assert!(same_f32(divide(f, near, a, b), x / y));
            prop_assert!(same_f32(square_root(f, near, a), x.sqrt()));
            prop_assert!(same_f32(fused_multiply_add(f, near, a, b, c), x.mul_add(y, z)));
        }

        /// Conversions agree with the casts of the host, where those are defined alike.
        #[test]
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "the rounding of these casts is what is tested"
        )]
        fn converts_like_the_host(a in pattern()) {
            let near = Rounding::NearestEven;
            let x = f64::from_bits(a);
            prop_assert!(same_f32(convert(Format::F64, Format::F32, near, a), x as f32));
            let (low, y) = single(a);
            prop_assert!(same_f64(convert(Format::F32, Format::F64, near, low), f64::from(y)));
            prop_assert!(same_f64(from_integer(Format::F64, near, false, a), a as f64));
            prop_assert!(same_f32(from_integer(Format::F32, near, false, a), a as f32));
            for (rounding, want) in [
                (Rounding::NearestEven, x.round_ties_even()),
                (Rounding::NearestAway, x.round()),
                (Rounding::Zero, x.trunc()),
                (Rounding::Down, x.floor()),
                (Rounding::Up, x.ceil()),
            ] {
                prop_assert!(same_f64(round_to_integral(Format::F64, rounding, a), want), "{:?} {:e}", rounding, x);
            }
        }

        /// Down and up bracket the exact result and are neighbours; nearest is one of them, zero the one nearer to zero.
        #[test]
        fn directed_roundings_bracket(a in pattern(), b in pattern(), c in pattern()) {
            type Operation = fn(Format, Rounding, u64, u64, u64) -> u64;
            let operations: [Operation; 4] = [
                |f, r, a, b, _| add(f, r, a, b),
                |f, r, a, b, _| multiply(f, r, a, b),
                |f, r, a, b, _| divide(f, r, a, b),
                fused_multiply_add,
            ];
            for operation in operations {
                let at = |rounding| operation(Format::F64, rounding, a, b, c);
                let value = |rounding| f64::from_bits(at(rounding));
                let (down, up) = (value(Rounding::Down), value(Rounding::Up));
                if down.is_nan() {
                    continue;
                }
                prop_assert!(down <= up);
                prop_assert!(down == up || down.next_up() == up, "{:e} {:e}", down, up);
                let near = at(Rounding::NearestEven);
                prop_assert!(near == at(Rounding::Down) || near == at(Rounding::Up));
                let zero = value(Rounding::Zero);
                prop_assert!(zero.abs() == down.abs().min(up.abs()));
            }
        }

        /// Narrowing in one step and comparing distances: half precision has no host type to compare with.
        #[test]
        fn half_is_the_nearest(a in any::<u32>()) {
            let x = f64::from(f32::from_bits(a));
            // Beyond the largest half there is no nearest; NaN has none either.
            if x.abs().partial_cmp(&65_504.0) != Some(Ordering::Less) {
                return Ok(());
            }
            for format in [Format::F16, Format::BF16] {
                let half = convert(Format::F32, format, Rounding::NearestEven, u64::from(a));
                let widen = |bits| f64::from_bits(convert(format, Format::F64, Rounding::NearestEven, bits));
                let error = (widen(half) - x).abs();
                let magnitude = half & (format.sign_bit() - 1);
                for neighbour in [half + 1, half - u64::from(magnitude != 0)] {
                    let other = widen(neighbour);
                    prop_assert!(other.is_nan() || error <= (other - x).abs(), "{:e}", x);
                }
            }
        }
    }
}
