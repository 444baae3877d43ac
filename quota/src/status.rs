//! One word for how a tenant stands, the same in the CLI, the metrics and the console.

/// How a tenant stands on a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// Within its nominal quota.
    Nominal,
    /// Using more than its nominal quota, with leave.
    Borrowing,
    /// Part of its quota is lent out.
    Lending,
    /// Taking back what it lent.
    Reclaiming,
    /// Wants more than it may have and waits.
    Throttled,
    /// Wants its nominal quota and does not get it.
    Starved,
    /// A process of it reached the device without a hook.
    Unenforced,
    /// A part of Headgate that should enforce it is missing or stale.
    Degraded,
}

impl Status {
    /// All of them, in the order of the definition.
    pub const ALL: [Self; 8] = [
        Self::Nominal,
        Self::Borrowing,
        Self::Lending,
        Self::Reclaiming,
        Self::Throttled,
        Self::Starved,
        Self::Unenforced,
        Self::Degraded,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nominal => "Nominal",
            Self::Borrowing => "Borrowing",
            Self::Lending => "Lending",
            Self::Reclaiming => "Reclaiming",
            Self::Throttled => "Throttled",
            Self::Starved => "Starved",
            Self::Unenforced => "Unenforced",
            Self::Degraded => "Degraded",
        }
    }
}
