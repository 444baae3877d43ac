//! How much: compute and memory of one device, together.

use core::fmt;

use crate::units::{Bytes, Share};

/// A part of a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Amount {
    /// SM-time.
    pub sm: Share,
    /// Device memory.
    pub memory: Bytes,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { sm: Share::ZERO, memory: Bytes::ZERO };

    /// SM-time alone.
    #[must_use]
    pub const fn compute(sm: Share) -> Self {
        Self { sm, memory: Bytes::ZERO }
    }

    /// Both sums.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self { sm: self.sm.saturating_add(other.sm), memory: self.memory.saturating_add(other.memory) }
    }

    /// Both differences, stopping at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self { sm: self.sm.saturating_sub(other.sm), memory: self.memory.saturating_sub(other.memory) }
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { sm: self.sm.min(other.sm), memory: self.memory.min(other.memory) }
    }

    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { sm: self.sm.max(other.sm), memory: self.memory.max(other.memory) }
    }

    /// Whether neither part exceeds the other's.
    #[must_use]
    pub fn fits(self, within: Self) -> bool {
        self.sm <= within.sm && self.memory <= within.memory
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl core::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        if self.memory == Bytes::ZERO {
            return write!(f, "{}", self.sm);
        }
        if self.memory.0.is_multiple_of(MIB) {
            write!(f, "{} and {} MiB", self.sm, self.memory.0 / MIB)
        } else {
            write!(f, "{} and {} bytes", self.sm, self.memory.0)
        }
    }
}
