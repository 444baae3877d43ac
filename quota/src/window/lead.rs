//! Which of a tenant's processes has the tenant's window.
//!
//! Left alone, the device takes turns between the processes of one tenant as well, a millisecond each, and every change
//! of context costs the tenant a part of its own window. So in an exclusive window one of them goes at a time: the next one
//! in each window, or when the one before has nothing to do, or has had the device for long enough.

use crate::units::Micros;

/// The process whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lead {
    who: Option<usize>,
    since: Micros,
    /// Whether the tenant's gate was open at the last tick.
    open: bool,
}

impl Lead {
    /// The only process whose gate is to be open, by its key; `None` where all have their tenant's gate. `processes` are
    /// keys, ascending, and whether each shows work; `exclusive` says that the tenant has the device for itself.
    pub fn choose(
        &mut self,
        now: Micros,
        open: bool,
        exclusive: bool,
        processes: &[(usize, bool)],
        turn: Micros,
    ) -> Option<usize> {
        let anew = open && !self.open;
        self.open = open;
        let busy = |who: usize| processes.iter().any(|&(key, works)| key == who && works);
        if !open || !exclusive || processes.iter().filter(|(_, works)| *works).count() < 2 {
            return None;
        }
        let goes_on = self.who.filter(|&who| !anew && busy(who) && now.saturating_sub(self.since) < turn);
        if goes_on.is_none() {
            let after = |&&(key, works): &&(usize, bool)| works && self.who.is_none_or(|who| who < key);
            let next = processes.iter().find(after).or_else(|| processes.iter().find(|(_, works)| *works));
            self.who = next.map(|&(key, _)| key);
            self.since = now;
        }
        self.who
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Micros = Micros(5_000);

    #[test]
    fn processes_take_turns_by_window_and_within_a_long_one() {
        let mut lead = Lead::default();
        let all = [(3, true), (5, true), (9, true)];
        let at = |lead: &mut Lead, now, open| lead.choose(Micros(now), open, true, &all, TURN);
        assert_eq!(at(&mut lead, 0, true), Some(3));
        assert_eq!(at(&mut lead, 1_000, true), Some(3));
        assert_eq!(at(&mut lead, 5_000, true), Some(5), "long enough");
        assert_eq!(at(&mut lead, 6_000, false), None);
        assert_eq!(at(&mut lead, 7_000, true), Some(9), "the next window");
        assert_eq!(at(&mut lead, 8_000, false), None);
        assert_eq!(at(&mut lead, 9_000, true), Some(3), "round");
    }

    #[test]
    fn who_has_nothing_to_do_gives_way_and_a_lone_one_shares_nothing() {
        let mut lead = Lead::default();
        let choose = |lead: &mut Lead, processes: &[(usize, bool)]| {
            lead.choose(Micros(10), true, true, processes, TURN)
        };
        assert_eq!(choose(&mut lead, &[(1, true), (2, true), (3, true)]), Some(1));
        assert_eq!(choose(&mut lead, &[(1, false), (2, true), (3, true)]), Some(2));
        assert_eq!(choose(&mut lead, &[(1, false), (2, true), (3, false)]), None, "all gates alike");
        assert_eq!(choose(&mut lead, &[]), None);
        assert_eq!(lead.choose(Micros(20), true, false, &[(1, true), (2, true)], TURN), None);
    }
}
