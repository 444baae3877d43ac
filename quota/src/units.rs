//! Quantities with their units. All integers; arithmetic saturates or carries remainders, never rounds away.

use core::fmt;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// Sum, stopping at the greatest value.
            #[must_use]
            pub const fn saturating_add(self, other: Self) -> Self { Self(self.0.saturating_add(other.0)) }

            /// Difference, stopping at zero.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self { Self(self.0.saturating_sub(other.0)) }
        }
    };
}

quantity! {
    /// Device memory in bytes.
    Bytes
}
quantity! {
    /// A span or a point of monotonic time in microseconds.
    Micros
}

impl Micros {
    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }
}

quantity! {
    /// SM-time in parts per million of one device. Unlike [`Ppm`] it may exceed a device, so that a sum never
    /// hides what was promised twice.
    Share
}

impl Share {
    /// A whole device.
    pub const WHOLE: Self = Self(1_000_000);

    /// The share as a part of one device, cut to the whole of it.
    #[must_use]
    pub fn on_one_device(self) -> Ppm {
        u32::try_from(self.0).ok().and_then(Ppm::new).unwrap_or(Ppm::WHOLE)
    }
}

impl From<Ppm> for Share {
    fn from(ppm: Ppm) -> Self {
        Self(u64::from(ppm.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 { write!(f, "{whole} %") } else { write!(f, "{whole}.{rest:04} %") }
    }
}

/// A share of one device's SM-time in parts per million, 0 to 1,000,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ppm(u32);

impl Ppm {
    /// The whole device.
    pub const WHOLE: Self = Self(1_000_000);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A share in parts per million; `None` above the whole.
    #[must_use]
    pub const fn new(ppm: u32) -> Option<Self> {
        if Self::WHOLE.0 < ppm { None } else { Some(Self(ppm)) }
    }

    /// A share in percent; `None` above 100.
    #[must_use]
    pub const fn from_percent(percent: u32) -> Option<Self> {
        match percent.checked_mul(10_000) {
            Some(ppm) => Self::new(ppm),
            None => None,
        }
    }

    /// Parts per million.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Sum, stopping at the whole.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        let sum = self.0.saturating_add(other.0);
        Self(if Self::WHOLE.0 < sum { Self::WHOLE.0 } else { sum })
    }
}

impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 { write!(f, "{whole} %") } else { write!(f, "{whole}.{rest:04} %") }
    }
}
