//! A store as the protocol knows it: it keeps what it confirmed, and promises nothing else.

use std::collections::BTreeMap;

use crate::loan::{Ledger, Loan, Node, Place, Revision, StoreCommand, StoreReply};

/// Ledgers and claims, with one count of changes for all, as a stream has.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    ledgers: BTreeMap<Place, (Revision, Ledger)>,
    /// What each ledger was before its last change, for reads that lag.
    before: BTreeMap<Place, (Revision, Ledger)>,
    changes: u64,
}

impl SimStore {
    /// Carries a command out. `lagging` reads see the last ledger but one.
    pub fn carry_out(&mut self, command: StoreCommand, lagging: bool) -> StoreReply {
        match command {
            StoreCommand::Read { op, place } => {
                let from = if lagging { &self.before } else { &self.ledgers };
                let (revision, ledger) = from.get(&place).cloned().unwrap_or_default();
                StoreReply::Read { op, revision, ledger }
            }
            StoreCommand::Swap { op, place, expected, ledger } => {
                let current = self.ledgers.get(&place).map_or(Revision::default(), |(revision, _)| *revision);
                if current != expected {
                    return StoreReply::Conflict { op };
                }
                self.changes += 1;
                let revision = Revision(self.changes);
                if let Some(old) = self.ledgers.insert(place.clone(), (revision, ledger)) {
                    self.before.insert(place, old);
                }
                StoreReply::Swapped { op, revision }
            }
        }
    }

    /// A daemon's start: its number, and what its node has borrowed.
    pub fn claim(&mut self, node: &Node) -> (u64, Vec<(Place, Loan)>) {
        self.changes += 1;
        let mut found = Vec::new();
        for (place, (_, ledger)) in &self.ledgers {
            let own = ledger.loans.iter().filter(|loan| loan.id.node == *node);
            found.extend(own.map(|loan| (place.clone(), loan.clone())));
        }
        (self.changes, found)
    }

    /// A ledger as it is.
    #[must_use]
    pub fn ledger(&self, place: &Place) -> Option<&Ledger> {
        self.ledgers.get(place).map(|(_, ledger)| ledger)
    }
}
