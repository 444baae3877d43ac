//! Whom to serve first, and with how much.
//!
//! Higher class first; within a class the district that has least for its weight (Kueue's fair sharing: lowest
//! share first, weight zero last); then the nearest; then who asked first. Only a higher class ever takes a loan
//! from a lower one, so two borrowers cannot take from each other in turn.

use core::cmp::Reverse;

use super::lend::rounded;
use crate::loan::amount::Amount;
use crate::loan::names::LoanId;
use crate::loan::settings::Lending;
use crate::tenant::Class;
use crate::units::{Micros, Share};

/// A request as the policy sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Its identity.
    pub loan: LoanId,
    /// The guest's class, raised by incidents.
    pub class: Class,
    /// The district's weight.
    pub weight: u32,
    /// What its district has borrowed on this device already.
    pub has: Share,
    /// How far it is.
    pub distance: u32,
    /// When it was first heard.
    pub since: Micros,
}

impl Request {
    /// What its district has, for its weight; greater is served later.
    #[must_use]
    pub fn weighted_share(&self) -> u64 {
        match self.weight {
            0 => u64::MAX,
            weight => self.has.0.saturating_mul(1_000) / u64::from(weight),
        }
    }

    fn key(&self) -> impl Ord + '_ {
        (Reverse(self.class), self.weighted_share(), self.distance, self.since, &self.loan)
    }
}

/// Puts requests in the order in which they are served.
pub fn rank(requests: &mut [Request]) {
    requests.sort_by(|a, b| a.key().cmp(&b.key()));
}

/// How much of `lendable` a request gets that asks for `asked`, when requests of `weights` altogether, its own
/// `weight` among them, wait in its class. `None` if less than is worth lending, or the memory is not there.
#[must_use]
pub fn portion(
    asked: Amount,
    lendable: Amount,
    weight: u32,
    weights: u64,
    lending: &Lending,
) -> Option<Amount> {
    if lendable.memory < asked.memory {
        return None;
    }
    let part = u128::from(lendable.sm.0) * u128::from(weight) / u128::from(weights.max(1));
    let part =
        if weights <= u64::from(weight) { lendable.sm.0 } else { u64::try_from(part).unwrap_or(u64::MAX) };
    // A part too small to be worth a loan is made whole: one loan that is of use beats several that are not.
    let sm = asked.sm.min(lendable.sm).min(Share(part.max(lending.least.0)));
    let sm = rounded(sm, lending.quantum);
    (lending.least <= sm).then_some(Amount { sm, memory: asked.memory })
}
