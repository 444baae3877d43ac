//! Byte budgets: how much a tenant's sessions may carry to another district in each period.
//!
//! The kernel holds what a tenant sends itself ([`crate::enforcement`]); what its daemon sends for it is held here, by the
//! same words of the configuration. Every byte of a frame counts, whatever it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many bytes, granted anew so often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    /// How many.
    pub(super) bytes: u64,
    /// How often.
    pub(super) every: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Period {
    began: Duration,
    used: u64,
}

/// What has been used of the budgets, by tenant and district.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<BTreeMap<(String, String), Period>>);

impl Budgets {
    /// Takes bytes out of a budget; `false` if they are not left, and then nothing is taken.
    pub(super) fn take(&self, whose: &(String, String), grant: Grant, now: Duration, bytes: u64) -> bool {
        let mut periods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let period = periods.entry(whose.clone()).or_insert(Period { began: now, used: 0 });
        if period.began + grant.every <= now {
            // What was left of a period lapses.
            *period = Period { began: now, used: 0 };
        }
        match period.used.checked_add(bytes).filter(|used| *used <= grant.bytes) {
            Some(used) => {
                period.used = used;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_exact_and_granted_once_a_period() {
        let budgets = Budgets::default();
        let whose = ("review".to_owned(), "north".to_owned());
        let grant = Grant { bytes: 100, every: Duration::from_secs(10) };
        let take = |at: u64, bytes| budgets.take(&whose, grant, Duration::from_secs(at), bytes);
        assert!(take(5, 60));
        assert!(!take(6, 41), "not in part");
        assert!(take(7, 40), "to the last byte");
        assert!(!take(14, 1));
        assert!(take(15, 100), "the next period");
        assert!(!take(16, u64::MAX), "no sum wraps");
        let other = ("review".to_owned(), "east".to_owned());
        assert!(budgets.take(&other, grant, Duration::from_secs(16), 100), "each district for itself");
    }
}
