//! How idle an owner has been: the highest demand within a sliding span.

use std::collections::VecDeque;

use super::amount::Amount;
use super::limits::PEAKS_MAX;
use crate::units::Micros;

/// Demand over time, as far as it is still of interest.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    /// Demand from each moment on, oldest first.
    changes: VecDeque<(Micros, Amount)>,
}

impl Peaks {
    /// From `now` on, demand is `demand`. `span` is how far back anyone will ask.
    pub fn set(&mut self, now: Micros, demand: Amount, span: Micros) {
        if self.changes.back().is_some_and(|(_, last)| *last == demand) {
            return;
        }
        self.changes.push_back((now, demand));
        let horizon = now.saturating_sub(span);
        while self.changes.get(1).is_some_and(|(until, _)| *until <= horizon) {
            self.changes.pop_front();
        }
        if PEAKS_MAX < self.changes.len()
            && let Some((_, oldest)) = self.changes.remove(1)
            && let Some(first) = self.changes.front_mut()
        {
            first.1 = first.1.max(oldest);
        }
    }

    /// The highest demand since `now - span`; `None` if it was not watched for all of it.
    #[must_use]
    pub fn peak(&self, now: Micros, span: Micros) -> Option<Amount> {
        let from = now.0.checked_sub(span.0).map(Micros)?;
        let (since, _) = self.changes.front()?;
        if from < *since {
            return None;
        }
        let ends = self.changes.iter().skip(1).map(|(at, _)| *at).chain([Micros(u64::MAX)]);
        let within = self.changes.iter().zip(ends).filter(|(_, end)| from < *end);
        Some(within.fold(Amount::ZERO, |peak, ((_, demand), _)| peak.max(*demand)))
    }

    /// When `span` of watching will be complete.
    #[must_use]
    pub fn complete_at(&self, span: Micros) -> Option<Micros> {
        self.changes.front().map(|(since, _)| since.saturating_add(span))
    }
}
