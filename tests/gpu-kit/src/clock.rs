//! The kit's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for deadlines.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where the kit reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, to date results.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "as above")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "measurements last as long as they were told to")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// A day as `2026-11-22`, in UTC.
#[must_use]
pub fn date(unix_seconds: u64) -> String {
    // Days since 0000-03-01, so that the leap day is the last of its year.
    let days = unix_seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_795_320_000, "2026-11-22"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
