//! The times of a loan, and how the two ends count them.
//!
//! Nobody compares two machines' clocks. The borrower counts from the moment it *sent* the request that was
//! answered, the lender from the moment it wrote the answer into its ledger, which is later whatever the network
//! did in between. So the borrower has stopped before the lender reuses, if
//!
//! ```text
//! stop_after * skew <= reuse_after        stop_after  = ttl - margin
//!                                         reuse_after = ttl * skew + margin
//! ```
//!
//! where `skew` is the ratio of the fastest clock's rate to the slowest's. No bound on the delay of a message
//! is needed. The margin pays for what no clock sees: work that is under way when the time is over.

use core::fmt;

use super::limits::TTL_MAX;
use crate::units::Micros;

/// The times of a loan. The lender sets them and the loan carries them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Terms {
    /// How long a promise holds without renewal.
    pub ttl: Micros,
    /// How often the borrower renews.
    pub renew: Micros,
    /// What the borrower stops early and the lender waits longer.
    pub margin: Micros,
    /// Greatest ratio of two clocks' rates that stays safe, in thousandths.
    pub skew_permille: u32,
    /// A loan is not taken back sooner, except for express demand, an incident or the operator.
    pub min_duration: Micros,
    /// A loan is given back after this long, so that shares are dealt anew.
    pub max_duration: Micros,
    /// Time between asking a loan back and taking it.
    pub notice: Micros,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            ttl: Micros::from_secs(15),
            renew: Micros::from_secs(5),
            margin: Micros::from_secs(2),
            skew_permille: 1_500,
            min_duration: Micros::from_secs(30),
            max_duration: Micros::from_secs(3_600),
            notice: Micros::from_secs(5),
        }
    }
}

impl Terms {
    /// How long after sending a request the borrower may use what was promised in answer to it.
    #[must_use]
    pub const fn stop_after(&self) -> Micros {
        self.ttl.saturating_sub(self.margin)
    }

    /// How long after writing a promise the lender may use the capacity again.
    #[must_use]
    pub const fn reuse_after(&self) -> Micros {
        self.stretched(self.ttl).saturating_add(self.margin)
    }

    /// How long after hearing a notice the borrower has stopped.
    #[must_use]
    pub const fn drain(&self) -> Micros {
        self.notice.saturating_sub(self.margin)
    }

    /// A span as the fastest clock counts it while the slowest counts `span`.
    #[must_use]
    pub const fn stretched(&self, span: Micros) -> Micros {
        Micros(span.0.saturating_mul(self.skew_permille as u64).div_ceil(1_000))
    }

    /// Whether the times fit together.
    pub fn check(&self) -> Result<(), BadTerms> {
        let zero = [self.ttl, self.renew, self.margin, self.notice].contains(&Micros::ZERO);
        let rules = [
            (zero, BadTerms::Zero),
            (TTL_MAX < self.ttl, BadTerms::TtlTooLong),
            (self.skew_permille < 1_000, BadTerms::SkewBelowOne),
            (4_000 < self.skew_permille, BadTerms::SkewTooGreat),
            (self.ttl <= self.margin, BadTerms::MarginTooLong),
            (self.stop_after().0 < self.renew.0.saturating_mul(2), BadTerms::RenewTooRare),
            (self.notice <= self.margin, BadTerms::NoticeTooShort),
            (self.notice < self.stretched(self.drain()), BadTerms::NoticeTooShort),
            (self.min_duration < self.notice, BadTerms::MinimumTooShort),
            (self.max_duration < self.min_duration, BadTerms::MaximumTooShort),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// Why terms cannot be used. The operator set them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadTerms {
    /// A time is zero that must not be.
    Zero,
    /// Longer than an hour.
    TtlTooLong,
    /// A ratio of a faster to a slower clock is at least one.
    SkewBelowOne,
    /// Four times is more than any clock that can be called one.
    SkewTooGreat,
    /// The margin eats the whole loan.
    MarginTooLong,
    /// Two renewals must fit, so that one lost message ends nothing.
    RenewTooRare,
    /// The borrower must have stopped within the notice, by the lender's clock.
    NoticeTooShort,
    /// A notice must fit into the shortest loan.
    MinimumTooShort,
    /// The longest loan is shorter than the shortest.
    MaximumTooShort,
}

impl fmt::Display for BadTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "ttl, renew, margin and notice must be longer than zero",
            Self::TtlTooLong => "ttl must be an hour at most",
            Self::SkewBelowOne => "the clock skew is a ratio of at least 1.0 (1000 thousandths)",
            Self::SkewTooGreat => "a clock skew above 4.0 (4000 thousandths) is not supported",
            Self::MarginTooLong => "the margin must be shorter than the ttl",
            Self::RenewTooRare => "two renewals must fit into ttl - margin",
            Self::NoticeTooShort => {
                "the notice must be longer than the margin, and at least (notice - margin) times the skew"
            }
            Self::MinimumTooShort => "the minimum duration must be at least the notice",
            Self::MaximumTooShort => "the maximum duration must be at least the minimum duration",
        })
    }
}

impl core::error::Error for BadTerms {}
