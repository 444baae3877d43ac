//! Memory: the rule of a charge, and what a tenant is shown.
//!
//! [`MemoryAccount`] is the rule in its plainest form, one number after the other. The lock-free ledger that
//! processes share is held to it by tests.

use crate::units::Bytes;

/// A tenant's memory on one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryAccount {
    limit: Option<Bytes>,
    used: Bytes,
    peak: Bytes,
    denied: u64,
}

/// The quota has no room for a charge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverQuota {
    /// Bytes asked for.
    pub asked: Bytes,
    /// Bytes that were still free.
    pub free: Bytes,
}

impl MemoryAccount {
    /// An empty account. `None` limits nothing.
    #[must_use]
    pub fn new(limit: Option<Bytes>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> Bytes {
        self.used
    }

    /// Most bytes ever in use at once.
    #[must_use]
    pub fn peak(&self) -> Bytes {
        self.peak
    }

    /// Charges refused.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.denied
    }

    /// Takes `asked` bytes, all or nothing.
    pub fn charge(&mut self, asked: Bytes) -> Result<(), OverQuota> {
        let wanted = self.used.saturating_add(asked);
        if let Some(limit) = self.limit
            && limit < wanted
        {
            self.denied += 1;
            return Err(OverQuota { asked, free: limit.saturating_sub(self.used) });
        }
        self.used = wanted;
        self.peak = self.peak.max(wanted);
        Ok(())
    }

    /// Gives `bytes` back.
    pub fn credit(&mut self, bytes: Bytes) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Changes the limit. Shrinking below what is in use denies new charges and takes nothing away.
    pub fn set_limit(&mut self, limit: Option<Bytes>) {
        self.limit = limit;
    }
}

/// What a tenant sees as its device memory. Always `free <= total`, and `total` is the quota when it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryView {
    /// Total bytes shown.
    pub total: Bytes,
    /// Free bytes shown.
    pub free: Bytes,
}

impl MemoryView {
    /// The view under a quota of `limit` with `used` charged, on a device that really has `device`.
    ///
    /// A quota greater than the device shows the device. Free is also bounded by what the device really has
    /// left, because a neighbour may hold it: promising more would turn into an error at the next allocation.
    #[must_use]
    pub fn under(limit: Option<Bytes>, used: Bytes, device: Self) -> Self {
        match limit {
            None => device,
            Some(limit) => {
                let total = limit.min(device.total);
                Self { total, free: total.saturating_sub(used).min(device.free) }
            }
        }
    }

    /// Bytes shown as used.
    #[must_use]
    pub fn used(&self) -> Bytes {
        self.total.saturating_sub(self.free)
    }
}
