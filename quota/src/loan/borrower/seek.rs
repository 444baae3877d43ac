//! Looking for capacity, and giving back what is no longer needed.

use std::collections::VecDeque;

use core::cmp::Reverse;

use super::{Backoff, Borrowed, Borrower, Offer, Output, Phase};
use crate::loan::amount::Amount;
use crate::loan::ledger::Revision;
use crate::loan::limits::{BORROWED_MAX, OFFERS_MAX};
use crate::loan::names::{LoanId, Place, Tenant};
use crate::loan::policy::lend::rounded;
use crate::loan::record::What;
use crate::loan::terms::Terms;
use crate::loan::why::Why;
use crate::tenant::{Class, Mode};
use crate::units::{Micros, Share};

/// Loans are asked for in whole percents, like they are given.
const QUANTUM: Share = Share(10_000);

impl Borrower {
    pub(super) fn offered(&mut self, offers: Vec<Offer>) {
        for offer in offers {
            self.offers.retain(|(known, _)| known.place != offer.place);
            self.offers.push((offer, self.now));
        }
        self.offers.sort_by_key(|(offer, _)| offer.distance);
        self.offers.truncate(OFFERS_MAX);
    }

    /// What a device had to offer is not known any more, until it says so again.
    pub(super) fn forget_offer(&mut self, place: &Place) {
        for (offer, _) in self.offers.iter_mut().filter(|(offer, _)| offer.place == *place) {
            offer.amount = Amount::ZERO;
        }
    }

    pub(super) fn back_off(&mut self, place: &Place) {
        let known = self.backoffs.iter().find(|backoff| backoff.place == *place);
        let times = known.map_or(0, |backoff| backoff.times + 1).min(4);
        let pause = Micros(self.borrowing.backoff.0.saturating_mul(1 << times));
        self.backoffs.retain(|backoff| backoff.place != *place);
        let not_before = self.now.saturating_add(pause);
        self.backoffs.push(Backoff { place: place.clone(), not_before, times });
        if OFFERS_MAX < self.backoffs.len() {
            self.backoffs.remove(0);
        }
    }

    pub(super) fn seek(&mut self, out: &mut Vec<Output>) {
        let oldest = self.now.saturating_sub(self.borrowing.offer_holds);
        self.offers.retain(|(_, heard)| oldest <= *heard);
        for index in 0..self.clients.len() {
            self.give_back(index, out);
            self.ask_for_more(index, out);
        }
    }

    /// All that a tenant has, or is about to have.
    fn has(&self, tenant: &Tenant) -> Amount {
        let loans = self.loans.iter().filter(|loan| loan.tenant == *tenant && loan.counts());
        loans.map(|loan| loan.amount).sum()
    }

    /// Drains the youngest loan that the tenant can do without.
    fn give_back(&mut self, client: usize, out: &mut Vec<Output>) {
        let tenant = self.clients[client].client.tenant.clone();
        let (wants, has) = (self.clients[client].wants, self.has(&tenant));
        let spare = self.loans.iter().rposition(|loan| {
            let active = matches!(loan.phase, Phase::Active { .. });
            active && loan.tenant == tenant && wants.sm <= has.sm.saturating_sub(loan.amount.sm)
        });
        let Some(spare) = spare else {
            self.clients[client].spare_since = None;
            return;
        };
        let since = *self.clients[client].spare_since.get_or_insert(self.now);
        if since.saturating_add(self.borrowing.spare_for) <= self.now {
            self.clients[client].spare_since = None;
            self.drain(spare, Why::NoLongerNeeded { tenant }, out);
        }
    }

    fn ask_for_more(&mut self, index: usize, out: &mut Vec<Output>) {
        let client = self.clients[index].client.clone();
        let has = self.has(&client.tenant);
        let limit = client.borrowing_limit.unwrap_or(Amount { sm: Share(u64::MAX), ..Amount::ZERO });
        let missing = self.clients[index].wants.sm.saturating_sub(has.sm);
        let sm = missing.min(limit.sm.saturating_sub(has.sm));
        if client.mode == Mode::Hard || sm < self.borrowing.least {
            self.clients[index].short_since = None;
            return;
        }
        let since = *self.clients[index].short_since.get_or_insert(self.now);
        // One request at a time: what it brings decides how much is still missing.
        let asks =
            |loan: &Borrowed| loan.tenant == client.tenant && matches!(loan.phase, Phase::Asking { .. });
        if self.now < since.saturating_add(self.borrowing.need_for)
            || self.loans.iter().any(asks)
            || BORROWED_MAX <= self.loans.len()
        {
            return;
        }
        let memory = self.clients[index].wants.memory;
        if client.borrowing_limit.is_some_and(|limit| limit.memory < has.memory.saturating_add(memory)) {
            return;
        }
        let class = self.class_of(&client.tenant);
        let by = Amount { sm, memory };
        let Some(place) = self.nearest(by, class, client.data.may_leave_its_district()) else { return };
        self.last_number += 1;
        let id = LoanId { node: self.node.clone(), incarnation: self.incarnation, number: self.last_number };
        let again = self.now.saturating_add(self.borrowing.answer_within);
        // Rounded up: a little too much is lent back at the end, a little too little is asked for again.
        let amount = Amount { sm: rounded(Share(sm.0.saturating_add(QUANTUM.0 - 1)), QUANTUM), memory };
        let amount = Amount { sm: amount.sm.min(limit.sm.saturating_sub(has.sm)), ..amount };
        self.loans.push(Borrowed {
            id,
            tenant: client.tenant.clone(),
            place,
            data: client.data,
            amount,
            token: Revision::default(),
            until: Micros::ZERO,
            terms: Terms::default(),
            phase: Phase::Asking { again, tries: 1 },
            attempts: VecDeque::new(),
            last_attempt: 0,
        });
        let last = self.loans.len() - 1;
        out.push(self.record(What::Asked, last, Why::Short { tenant: client.tenant, by, class }));
        self.ask(last, out);
    }

    /// The nearest device that has something to lend. Express tenants ask where others would have to make room,
    /// if nobody has anything idle.
    fn nearest(&self, by: Amount, class: Class, may_leave: bool) -> Option<Place> {
        let open = self.offers.iter().map(|(offer, _)| offer).filter(|offer| {
            let waits = self.backoffs.iter().any(|b| b.place == offer.place && self.now < b.not_before);
            let home = offer.place.district == self.district;
            !waits && offer.place.node != self.node && (home || may_leave)
        });
        let idle =
            |offer: &Offer| self.borrowing.least <= offer.amount.sm && by.memory <= offer.amount.memory;
        open.filter(|offer| idle(offer) || class == Class::Express)
            .min_by_key(|offer| (!idle(offer), offer.distance, Reverse(offer.amount.sm.min(by.sm))))
            .map(|offer| offer.place.clone())
    }
}
