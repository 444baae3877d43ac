//! Instructions that move bits about.

use crate::code::Ternary;

/// `lop3`: each result bit is the entry of the table at index `a b c`.
pub(crate) fn lop3(a: u64, b: u64, c: u64, table: u8) -> u64 {
    let mut result = 0;
    for row in 0..8u8 {
        if table >> row & 1 == 1 {
            let pick = |value: u64, bit: u8| if row >> bit & 1 == 1 { value } else { !value };
            result |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    result & 0xffff_ffff
}

/// `bfi`: puts the low `length` bits of `a` into `b` at `position`.
pub(crate) fn bit_insert(a: u64, b: u64, position: u64, length: u64, wide: bool) -> u64 {
    let width = if wide { 64 } else { 32 };
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width || length == 0 {
        return b;
    }
    let field = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    let mask = field << position & if wide { u64::MAX } else { 0xffff_ffff };
    b & !mask | a << position & mask
}

/// `shf`: shifts the 64 bits `b a` and keeps the upper (left) or lower (right) half.
pub(crate) fn funnel_shift(left: bool, wrap: bool) -> Ternary {
    match (left, wrap) {
        (true, true) => |a, b, n| (b << 32 | a) << (n & 31) >> 32,
        (true, false) => |a, b, n| (b << 32 | a) << n.min(32) >> 32,
        (false, true) => |a, b, n| (b << 32 | a) >> (n & 31) & 0xffff_ffff,
        (false, false) => |a, b, n| (b << 32 | a) >> n.min(32) & 0xffff_ffff,
    }
}

/// `prmt` in each of its modes; `None` for a mode that does not exist.
pub(crate) fn byte_permute(mode: &str) -> Option<Ternary> {
    Some(match mode {
        "" => |a, b, c| {
            let bytes = b << 32 | a;
            let mut result = 0;
            for lane in 0..4 {
                let selector = c >> (4 * lane);
                let byte = bytes >> (8 * (selector & 7)) & 0xff;
                // The top bit of a selector repeats the sign of the byte.
                let byte = if selector & 8 == 0 {
                    byte
                } else if byte & 0x80 == 0 {
                    0
                } else {
                    0xff
                };
                result |= byte << (8 * lane);
            }
            result
        },
        "f4e" => |a, b, c| permute(a, b, |lane| (c & 3) + lane),
        "b4e" => |a, b, c| permute(a, b, |lane| (c & 3).wrapping_sub(lane) & 7),
        "rc8" => |a, b, c| permute(a, b, |_| c & 3),
        "ecl" => |a, b, c| permute(a, b, |lane| lane.max(c & 3)),
        "ecr" => |a, b, c| permute(a, b, |lane| lane.min(c & 3)),
        "rc16" => |a, b, c| permute(a, b, |lane| (c & 1) * 2 + (lane & 1)),
        _ => return None,
    })
}

fn permute(a: u64, b: u64, pick: impl Fn(u64) -> u64) -> u64 {
    let bytes = b << 32 | a;
    (0..4).map(|lane| (bytes >> (8 * pick(lane)) & 0xff) << (8 * lane)).sum()
}
