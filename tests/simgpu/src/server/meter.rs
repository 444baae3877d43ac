//! Use over time, as NVML reports it: samples of busy time, taken when something happens and at least a period apart.

use std::collections::VecDeque;

use crate::limits::{SAMPLE_NS, SAMPLES_MAX};
use crate::model::Nanos;

/// Busy time sampled over time.
#[derive(Debug)]
pub(crate) struct Samples {
    taken: VecDeque<(Nanos, Nanos)>,
}

impl Samples {
    pub(crate) fn new(now: Nanos) -> Self {
        Self { taken: VecDeque::from([(now, 0)]) }
    }

    /// Notes how much had been used by `now`, unless the last sample is younger than a period.
    pub(crate) fn take(&mut self, now: Nanos, busy: Nanos) {
        if self.taken.back().is_some_and(|&(at, _)| now.saturating_sub(at) < SAMPLE_NS) {
            return;
        }
        if self.taken.len() == SAMPLES_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back((now, busy));
    }

    /// Percent of the time from the last sample at or before `since` (but one period ago at least) until now.
    pub(crate) fn percent(&self, since: Nanos, now: Nanos, busy: Nanos) -> Option<u32> {
        let until = since.min(now.saturating_sub(SAMPLE_NS));
        let usable = self.taken.iter().rev().find(|(at, _)| *at <= until).or(self.taken.front());
        let &(at, before) = usable?;
        let span = now.checked_sub(at).filter(|&span| span > 0)?;
        let percent =
            (u128::from(busy.saturating_sub(before)) * 100 + u128::from(span) / 2) / u128::from(span);
        u32::try_from(percent.min(100)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_cover_the_asked_span() {
        let mut samples = Samples::new(0);
        for period in 1..=10 {
            samples.take(period * SAMPLE_NS, period * SAMPLE_NS / 2);
        }
        let now = 10 * SAMPLE_NS;
        assert_eq!(samples.percent(0, now, now / 2), Some(50));
        assert_eq!(samples.percent(now, now, now / 2), Some(50), "a period at least");
        assert_eq!(samples.percent(0, now * 2, now / 2), Some(25), "idle since");
        samples.take(now + 1, 0);
        assert_eq!(samples.taken.len(), 11, "too soon for another sample");
    }
}
