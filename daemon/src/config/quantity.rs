//! Shares and sizes as people write them, to exact integers.

use headgate_quota::{Bytes, Ppm};

/// Reads a share: `70`, `70%`, `12.5%`. At most four digits after the point, which is one part per million.
pub fn share(text: &str) -> Option<Ppm> {
    let number = text.strip_suffix('%').map_or(text, str::trim_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || 4 < fraction.len() {
        return None;
    }
    let whole = digits(whole)?.checked_mul(10_000)?;
    let scale = 10u64.pow(4 - u32::try_from(fraction.len()).ok()?);
    let ppm = whole.checked_add(digits(fraction)? * scale)?;
    Ppm::new(u32::try_from(ppm).ok()?)
}

/// Reads a size: bytes, or a number (with a fraction if need be) and one of `k M G T Ki Mi Gi Ti`. The result
/// must be a whole number of bytes.
pub fn size(text: &str) -> Option<Bytes> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?.trim_end(), *unit)))
        .unwrap_or((text, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || 9 < fraction.len() {
        return None;
    }
    let parts = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = u128::from(digits(fraction)?) * u128::from(unit);
    if scaled % parts != 0 {
        return None;
    }
    let bytes = u128::from(digits(whole)?) * u128::from(unit) + scaled / parts;
    // The greatest value stands for "no limit" in shared memory, so it is no size.
    u64::try_from(bytes).ok().filter(|&bytes| bytes < u64::MAX).map(Bytes)
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        assert_eq!(share("70"), Ppm::new(700_000));
        assert_eq!(share("70 %"), Ppm::new(700_000));
        assert_eq!(share("12.5%"), Ppm::new(125_000));
        assert_eq!(share("0.0001%"), Ppm::new(1));
        for bad in ["", "%", "-1", "101", "1e2", "0.00001", ".5", "5.", "7O", "99999999999999999999"] {
            assert_eq!(share(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_exact() {
        assert_eq!(size("8Gi"), Some(Bytes(8 << 30)));
        assert_eq!(size("1.5Gi"), Some(Bytes(3 << 29)));
        assert_eq!(size("500 M"), Some(Bytes(500_000_000)));
        assert_eq!(size("4096"), Some(Bytes(4096)));
        for bad in ["", "Gi", "8GB", "8gi", "-1", "0.3Ki", "18446744073709551615", "99999999Ti", "1.Gi"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
