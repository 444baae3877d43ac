//! A bucket of device time that may go into debt.
//!
//! Tokens are microseconds of device time. They accrue at a share of wall time and stop at a cap; measured use
//! takes them out, below zero if it was more than was there. A kernel that cannot be stopped thus still gets
//! paid for: the tenant waits until the debt is repaid.

use crate::units::{Micros, Ppm};

/// Tokens in parts per million of a microsecond, so that no refill, however short, rounds away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    level_ppm_us: i64,
    cap_us: u32,
}

const SCALE: i64 = 1_000_000;

impl Bucket {
    /// A full bucket that holds at most `cap`. Caps above an hour are cut to one.
    #[must_use]
    pub fn full(cap: Micros) -> Self {
        let mut bucket = Self::default();
        bucket.set_cap(cap);
        bucket.level_ppm_us = i64::from(bucket.cap_us) * SCALE;
        bucket
    }

    /// A half-full bucket that holds at most `cap`: some credit to start with, some room to earn.
    #[must_use]
    pub fn half_full(cap: Micros) -> Self {
        let mut bucket = Self::full(cap);
        bucket.level_ppm_us /= 2;
        bucket
    }

    /// Changes the cap; tokens above it are lost.
    pub fn set_cap(&mut self, cap: Micros) {
        const HOUR_US: u32 = 3_600_000_000;
        self.cap_us = u32::try_from(cap.0).unwrap_or(HOUR_US).min(HOUR_US);
        self.level_ppm_us = self.level_ppm_us.min(i64::from(self.cap_us) * SCALE);
    }

    /// Changes the cap and keeps the bucket as full as it was; debt stays what it is.
    pub fn resize(&mut self, cap: Micros) {
        let (level, before) = (i128::from(self.level_ppm_us), i128::from(self.cap_us));
        if i128::from(cap.0) == before {
            return;
        }
        self.set_cap(cap);
        if 0 < level && 0 < before {
            let level = level * i128::from(self.cap_us) / before;
            self.level_ppm_us = i64::try_from(level).unwrap_or(i64::MAX).min(i64::from(self.cap_us) * SCALE);
        }
    }

    /// Most tokens it holds.
    #[must_use]
    pub fn cap(&self) -> Micros {
        Micros(u64::from(self.cap_us))
    }

    /// Adds `rate` of `elapsed`, up to the cap.
    pub fn refill(&mut self, elapsed: Micros, rate: Ppm) {
        self.refill_up_to(elapsed, rate, Micros::ZERO);
    }

    /// Adds `rate` of `elapsed`, up to `most` or the cap, whichever is more. What is above either stays until it
    /// is used.
    pub fn refill_up_to(&mut self, elapsed: Micros, rate: Ppm, most: Micros) {
        let elapsed = i64::try_from(elapsed.0).unwrap_or(i64::MAX);
        let added = elapsed.saturating_mul(i64::from(rate.get()));
        let most = i64::try_from(most.0).unwrap_or(i64::MAX).saturating_mul(SCALE);
        let top = most.max(i64::from(self.cap_us) * SCALE).max(self.level_ppm_us);
        self.level_ppm_us = self.level_ppm_us.saturating_add(added).min(top);
    }

    /// Takes out measured use, into debt if need be.
    pub fn charge(&mut self, used: Micros) {
        let used = i64::try_from(used.0).unwrap_or(i64::MAX).saturating_mul(SCALE);
        self.level_ppm_us = self.level_ppm_us.saturating_sub(used);
    }

    /// Tokens left in microseconds, rounded toward zero; negative is debt.
    #[must_use]
    pub fn level_us(&self) -> i64 {
        self.level_ppm_us / SCALE
    }

    /// Whether there is anything left to spend.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        0 < self.level_ppm_us
    }

    /// How full the bucket is, in parts per million of its cap; negative in debt. For comparison between
    /// tenants of different shares.
    #[must_use]
    pub fn fill_ppm(&self) -> i64 {
        self.level_ppm_us / i64::from(self.cap_us).max(1)
    }

    /// The exact level in millionths of a microsecond.
    #[must_use]
    pub fn level(&self) -> i64 {
        self.level_ppm_us
    }
}
