//! Borrowing: one borrower for all tenants of the node.

use std::collections::VecDeque;

use headgate_quota::Bytes;
use headgate_quota::loan::{Amount, Borrower, Loan, Place, borrower};
use headgate_quota::units::Share;

use super::Desk;

impl Desk {
    /// The store has counted this start: from now on this node can borrow.
    pub(super) fn claimed(&mut self, incarnation: u64, found: Vec<(Place, Loan)>) {
        let now = self.ground.now();
        self.allowances.adopt(incarnation);
        let mut borrower = Borrower::new(
            self.own_node().clone(),
            self.own_district().clone(),
            incarnation,
            self.settings.borrowing,
            self.holdings.clients.clone(),
            now,
        );
        for incident in self.directory.holding(now) {
            // Nothing follows from it before anybody wants something.
            let _nothing = borrower.handle(now, borrower::Input::Declared(incident));
        }
        self.borrower = Some(borrower);
        self.wants.clear();
        self.borrow(borrower::Input::Found(found));
        self.borrow(borrower::Input::Offers(self.directory.offers()));
    }

    /// Tells the borrower what its tenants miss here.
    pub(super) fn tell_wants(&mut self) {
        if self.borrower.is_none() {
            return;
        }
        let mut changed = Vec::new();
        let placed = self.ground.placed();
        for (index, client) in self.holdings.clients.iter().enumerate() {
            let memory = self.holdings.client_memory.get(index).copied().unwrap_or(Bytes::ZERO);
            let mut sm = self.demands.unmet(&client.tenant);
            if placed.contains(&client.tenant) {
                // How much a device elsewhere would be used is not seen before there is one.
                sm = sm.max(client.borrowing_limit.map_or(Share::WHOLE, |limit| limit.sm));
            }
            let amount = Amount { sm, memory };
            if self.wants.insert(client.tenant.clone(), amount) != Some(amount) {
                changed.push(borrower::Want { tenant: client.tenant.clone(), amount });
            }
        }
        if !changed.is_empty() {
            self.borrow(borrower::Input::Wants(changed));
        }
    }

    /// Gives the borrower an input and carries out what it decides, in order.
    pub(super) fn borrow(&mut self, input: borrower::Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.ground.now();
            let Some(borrower) = &mut self.borrower else { return };
            let by = borrower.incarnation();
            for output in borrower.handle(now, input) {
                let done = match output {
                    borrower::Output::Raise(allowance) => self.allowances.raise(by, allowance).is_ok(),
                    borrower::Output::Shorten { loan, until } => {
                        self.allowances.shorten(by, &loan, until).is_ok()
                    }
                    borrower::Output::Drop(loan) => self.allowances.drop(by, &loan).is_ok(),
                    borrower::Output::Drain(loan) => {
                        // If something runs under it, the node says when it has ended.
                        if !self.ground.drain(&loan) {
                            inputs.push_back(borrower::Input::Drained(loan));
                        }
                        true
                    }
                    borrower::Output::Send { to, message } => {
                        if let (Some(peers), Some((identity, address))) =
                            (&self.peers, self.directory.address(&to))
                        {
                            peers.tell_lender(&identity, &address, message);
                        }
                        true
                    }
                    borrower::Output::Record(record) => self.record(&record),
                };
                if !done {
                    break;
                }
            }
        }
        self.tell_allowances();
    }

    /// Tells the node what may be placed elsewhere, if that changed.
    pub(super) fn tell_allowances(&mut self) {
        let now = self.ground.now();
        let held: Vec<_> = self.allowances.held(now).cloned().collect();
        if held != self.allowed {
            self.allowed.clone_from(&held);
            self.ground.allow(held);
        }
    }
}
