//! Which tenants and loans remote sessions stand on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_quota::loan::{LoanId, Tenant as LoanTenant};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Default)]
struct Counts {
    wants: BTreeMap<LoanTenant, usize>,
    under: BTreeMap<LoanId, usize>,
    draining: BTreeSet<LoanId>,
}

/// See the head of this module.
#[derive(Debug)]
pub struct Uses {
    counts: Mutex<Counts>,
    /// Counts up whenever what may be placed changes, or something is to be drained.
    changes: watch::Sender<u64>,
    drained: mpsc::UnboundedSender<LoanId>,
    ended: Mutex<Option<mpsc::UnboundedReceiver<LoanId>>>,
}

impl Default for Uses {
    fn default() -> Self {
        // Bounded by the loans that were told to drain, each of which is told once.
        let (drained, ended) = mpsc::unbounded_channel();
        let changes = watch::channel(0).0;
        Self { counts: Mutex::default(), changes, drained, ended: Mutex::new(Some(ended)) }
    }
}

/// A program that uses, or waits for, a device of another node; counted until it is dropped.
#[derive(Debug)]
pub struct Wanting(Arc<Uses>, LoanTenant);

/// A session under a loan; counted until it is dropped.
#[derive(Debug)]
pub struct Using(Arc<Uses>, LoanId);

impl Uses {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts stay right whatever panicked: each is changed in one step.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program of a tenant wants a device of another node.
    #[must_use]
    pub fn want(self: &Arc<Self>, tenant: LoanTenant) -> Wanting {
        *self.lock().wants.entry(tenant.clone()).or_default() += 1;
        Wanting(Arc::clone(self), tenant)
    }

    /// How many do.
    #[must_use]
    pub fn wanting(&self, tenant: &LoanTenant) -> usize {
        self.lock().wants.get(tenant).copied().unwrap_or(0)
    }

    /// A session begins under a loan; `None` if that is being drained.
    #[must_use]
    pub fn under(self: &Arc<Self>, loan: LoanId) -> Option<Using> {
        let mut counts = self.lock();
        if counts.draining.contains(&loan) {
            return None;
        }
        *counts.under.entry(loan.clone()).or_default() += 1;
        drop(counts);
        Some(Using(Arc::clone(self), loan))
    }

    /// Tenants with programs that want a device of another node.
    #[must_use]
    pub fn placed(&self) -> Vec<LoanTenant> {
        self.lock().wants.keys().cloned().collect()
    }

    /// Nothing new begins under a loan, and what runs is told. Whether anything does.
    pub fn drain(&self, loan: &LoanId) -> bool {
        let mut counts = self.lock();
        let busy = counts.under.contains_key(loan);
        if busy {
            counts.draining.insert(loan.clone());
        }
        drop(counts);
        self.changed();
        busy
    }

    /// Whether a loan is being drained.
    #[must_use]
    pub fn is_draining(&self, loan: &LoanId) -> bool {
        self.lock().draining.contains(loan)
    }

    /// What may be placed has changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Changes from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Loans whose last session has ended after they were to be drained, for the first who asks.
    #[must_use]
    pub fn drained(&self) -> Option<mpsc::UnboundedReceiver<LoanId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Counts one less; whether it was the last.
fn less<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let left = counts.get(key).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        counts.remove(key);
    } else {
        counts.insert(key.clone(), left);
    }
    left == 0
}

impl Drop for Wanting {
    fn drop(&mut self) {
        less(&mut self.0.lock().wants, &self.1);
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        if less(&mut counts.under, &self.1) && counts.draining.remove(&self.1) {
            // Without a listener the daemon is ending, and loans with it.
            let _ending = self.0.drained.send(self.1.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_is_drained_when_its_last_session_has_ended() {
        let uses = Arc::new(Uses::default());
        let mut drained = uses.drained().unwrap();
        let loan: LoanId = "south.node/1/1".parse().unwrap();
        assert!(!uses.drain(&loan), "nothing runs under it");
        let (first, second) = (uses.under(loan.clone()).unwrap(), uses.under(loan.clone()).unwrap());
        assert!(uses.drain(&loan));
        assert!(uses.under(loan.clone()).is_none(), "nothing new");
        drop(first);
        assert!(drained.try_recv().is_err(), "one still runs");
        drop(second);
        assert_eq!(drained.try_recv().unwrap(), loan);
        assert!(!uses.is_draining(&loan));
    }

    #[test]
    fn who_wants_is_known_as_long_as_it_wants() {
        let uses = Arc::new(Uses::default());
        let tenant = LoanTenant::new("review").unwrap();
        let (first, second) = (uses.want(tenant.clone()), uses.want(tenant.clone()));
        drop(first);
        assert_eq!(uses.placed().as_slice(), std::slice::from_ref(&tenant));
        drop(second);
        assert!(uses.placed().is_empty());
        assert_eq!(uses.wanting(&tenant), 0);
    }
}
