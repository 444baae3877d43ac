//! What a machine takes for time.

/// A clock that starts anywhere and runs too fast or too slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    true_base: u64,
    local_base: u64,
    rate_ppm: u64,
}

impl Clock {
    pub(super) const fn new(true_base: u64, local_base: u64, rate_ppm: u64) -> Self {
        Self { true_base, local_base, rate_ppm }
    }

    /// What it shows at a true time.
    pub(super) const fn local(self, at: u64) -> u64 {
        self.local_base + at.saturating_sub(self.true_base) * self.rate_ppm / 1_000_000
    }

    /// The first true time at which it shows `local`.
    pub(super) const fn when(self, local: u64) -> u64 {
        let since = local.saturating_sub(self.local_base);
        self.true_base.saturating_add(since.saturating_mul(1_000_000).div_ceil(self.rate_ppm))
    }

    /// The clock after its machine was started again.
    pub(super) const fn restarted(self, at: u64) -> Self {
        Self::new(at, 1_000_000, self.rate_ppm)
    }
}
