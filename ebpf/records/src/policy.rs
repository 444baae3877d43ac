//! A tenant's rules in one 64-bit word, so that a program sees the old rules or the new ones and never half of each.
//!
//! ```text
//! bit 0        8        16                32       40                     64
//!     | border | home   | channel port     | gate   | reserved, zero       |
//! ```

/// What happens to what a rule forbids.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Nothing is looked at.
    #[default]
    Off = 0,
    /// It is let through and counted.
    Audit = 1,
    /// It is refused and counted.
    Enforce = 2,
}

impl Mode {
    /// The mode with this number; a number without one enforces, so that damage closes the border and not opens it.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Off,
            1 => Self::Audit,
            _ => Self::Enforce,
        }
    }

    /// The name in configuration, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

/// A tenant's rules. All zeros: nothing is looked at.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy(pub u64);

impl Policy {
    /// Puts the rules into one word.
    #[must_use]
    pub const fn new(border: Mode, home: u8, channel_port: u16, gate: Mode) -> Self {
        Self(border as u64 | (home as u64) << 8 | (channel_port as u64) << 16 | (gate as u64) << 32)
    }

    /// What happens to traffic that would leave the home district.
    #[inline(always)]
    #[must_use]
    pub const fn border(self) -> Mode {
        Mode::from_bits(self.0.to_le_bytes()[0])
    }

    /// The district that the tenant's data may not leave.
    #[inline(always)]
    #[must_use]
    pub const fn home(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// The one port on which it may leave, within the budget. Zero: none.
    #[inline(always)]
    #[must_use]
    pub const fn channel_port(self) -> u16 {
        let [_, _, low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// What happens to a process that opens a device without an attested hook.
    #[inline(always)]
    #[must_use]
    pub const fn gate(self) -> Mode {
        Mode::from_bits(self.0.to_le_bytes()[4])
    }
}

const _: () = {
    let policy = Policy::new(Mode::Audit, 7, 4791, Mode::Enforce);
    assert!(matches!(policy.border(), Mode::Audit) && matches!(policy.gate(), Mode::Enforce));
    assert!(policy.home() == 7 && policy.channel_port() == 4791);
    assert!(matches!(Policy(0).border(), Mode::Off) && matches!(Policy(u64::MAX).border(), Mode::Enforce));
};
