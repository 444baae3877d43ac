//! What is taken back first.

use core::cmp::Reverse;

use crate::loan::amount::Amount;
use crate::tenant::Class;
use crate::units::Micros;

/// A loan that could be taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The caller's name for it.
    pub index: usize,
    /// The guest's class.
    pub class: Class,
    /// How old it is.
    pub age: Micros,
    /// What it would give back.
    pub amount: Amount,
}

/// Loans that together give back `short`, or all that do any good if they do not: lowest class first, then
/// the youngest, less those that turn out not to be needed (Kueue's order of preemption).
#[must_use]
pub fn victims(mut candidates: Vec<Candidate>, short: Amount) -> Vec<usize> {
    candidates.sort_by_key(|candidate| (candidate.class, candidate.age, Reverse(candidate.index)));
    let mut chosen: Vec<Candidate> = Vec::new();
    let mut left = short;
    for candidate in candidates {
        if !candidate.amount.min(left).is_zero() {
            left = left.saturating_sub(candidate.amount);
            chosen.push(candidate);
        }
    }
    let met = short.saturating_sub(left);
    let mut kept = chosen.clone();
    for candidate in chosen {
        let without: Amount =
            kept.iter().filter(|other| other.index != candidate.index).map(|other| other.amount).sum();
        if met.fits(without) {
            kept.retain(|other| other.index != candidate.index);
        }
    }
    kept.into_iter().map(|candidate| candidate.index).collect()
}
