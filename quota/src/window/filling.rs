//! Which of a tenant's open batches count as work.
//!
//! What was launched into a batch that its program has not closed yet runs already. How much that is, is bounded by the
//! batch; a program that stops launching leaves it open for good, and is at rest all the same.

use super::settings::WindowSettings;
use crate::units::Micros;

/// The open batches of one tenant that were seen past the gate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filling {
    seen: Vec<Open>,
    /// What the look before saw; kept, so that a look takes no memory.
    before: Vec<Open>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Open {
    process: usize,
    lane: usize,
    batch: u32,
    since: Micros,
    young: bool,
}

impl Filling {
    /// Looks at the tenant's open batches, given by process, lane and number. Each has its own time: others that come and
    /// go beside it make it no younger.
    pub fn look(
        &mut self,
        now: Micros,
        open: impl Iterator<Item = (usize, usize, u32)>,
        settings: &WindowSettings,
    ) {
        let Self { seen, before } = self;
        core::mem::swap(seen, before);
        seen.clear();
        seen.extend(open.map(|(process, lane, batch)| {
            let known =
                before.iter().find(|one| (one.process, one.lane, one.batch) == (process, lane, batch));
            let since = known.map_or(now, |one| one.since);
            Open { process, lane, batch, since, young: now.saturating_sub(since) <= settings.filling_max }
        }));
    }

    /// Whether any of a process's open batches counts as work.
    #[must_use]
    pub fn works(&self, process: usize) -> bool {
        self.seen.iter().any(|one| one.process == process && one.young)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_counts_for_its_own_time_whatever_goes_on_beside_it() {
        let mut filling = Filling::default();
        let mut at = |now, open: &[(usize, usize, u32)]| {
            filling.look(Micros(now), open.iter().copied(), &WindowSettings::default());
            (filling.works(3), filling.works(4))
        };
        let most = WindowSettings::default().filling_max.0;
        let abandoned = (3, 0, 7);
        assert_eq!(at(0, &[abandoned]), (true, false));
        assert_eq!(at(most, &[abandoned]), (true, false), "its time is not over");
        assert_eq!(at(most + 1, &[abandoned]), (false, false));
        assert_eq!(at(most + 2, &[abandoned, (4, 0, 7)]), (false, true), "another process");
        assert_eq!(at(most + 3, &[abandoned, (3, 1, 1)]), (true, false), "another lane");
        assert_eq!(at(most + 4, &[abandoned]), (false, false), "neither made the first any younger");
        assert_eq!(at(most + 5, &[(3, 0, 8)]), (true, false), "the next batch of the same lane");
        assert_eq!(at(most + 6, &[]), (false, false));
    }
}
