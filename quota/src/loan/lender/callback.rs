//! Taking back: what lapsed, what the owner wants, what was called back for another reason.

use std::sync::Arc;

use super::{Held, Lender, NEVER, Output, Overdue, Phase, send};
use crate::loan::amount::Amount;
use crate::loan::flaw::Flaw;
use crate::loan::message::ToBorrower;
use crate::loan::names::{Guest, Tenant};
use crate::loan::policy::reclaim::{Candidate, victims};
use crate::loan::record::{Record, What};
use crate::loan::why::Why;
use crate::tenant::Class;

impl Lender {
    /// Closes what has ended by itself.
    pub(super) fn lapse(&mut self, out: &mut Vec<Output>) {
        while let Some(index) = self.loans.iter().position(|held| held.lapses <= self.now) {
            let held = &self.loans[index];
            let loan = held.loan.id.clone();
            let why = match &held.phase {
                Phase::Noticed { acknowledged: true, .. } => Why::Released,
                Phase::Cut { why, .. } => Why::Told(Arc::clone(why)),
                _ => Why::Silent { waited: self.reuse_after(&held.loan.terms) },
            };
            out.push(self.over(&loan, &why.to_string()));
            self.close(index, why, out);
        }
    }

    /// Sees that owners get what they want of their own: express ones at once, the others with notice and not
    /// before a loan has run its minimum.
    pub(super) fn meet_owners(&mut self, out: &mut Vec<Output>) {
        for index in 0..self.owners.len() {
            let state = &self.owners[index];
            let owner = state.owner.tenant.clone();
            let class = self.class_of(&state.owner);
            let wants = state.wants.min(state.owner.nominal);
            let has = self.has(index);
            let short = wants.saturating_sub(has);
            if short.is_zero() {
                self.owners[index].short_since = None;
                continue;
            }
            let since = *self.owners[index].short_since.get_or_insert(self.now);
            let why = Why::OwnerWants { owner: owner.clone(), class, wants, has };
            if class == Class::Express && !self.flaws.has(Flaw::ExpressWaits) {
                self.cut_for(index, &owner, short, &why, out);
            } else if since.saturating_add(self.lending.rise_for) <= self.now
                && !self.flaws.has(Flaw::OwnerIgnored)
            {
                self.notify_for(index, &owner, short, &why, out);
            }
        }
    }

    /// What an owner has: nominal, less what is out, less memory that guests keep too long.
    fn has(&self, index: usize) -> Amount {
        let owner = &self.owners[index].owner;
        let promised = self
            .loans
            .iter()
            .filter(|held| held.loan.owner == owner.tenant && held.is_out() && held.phase != Phase::Granting);
        let out: Amount = promised.map(|held| held.loan.amount).sum();
        owner.nominal.saturating_sub(out)
    }

    fn cut_for(&mut self, index: usize, owner: &Tenant, short: Amount, why: &Why, out: &mut Vec<Output>) {
        let candidates = self
            .candidates(|held| held.loan.owner == *owner && held.is_out() && held.phase != Phase::Granting);
        let chosen = victims(candidates, short);
        if chosen.is_empty() {
            return;
        }
        let cut = chosen.iter().map(|&victim| self.loans[victim].loan.id.clone()).collect();
        // First the device, then everyone else.
        out.push(Output::Cut(cut));
        let text: Arc<str> = why.to_string().into();
        for &victim in &chosen {
            self.mark_cut(victim, Arc::clone(&text));
            let loan = self.loans[victim].loan.clone();
            out.push(self.record(What::Cut, &loan, why.clone()));
            out.push(self.over(&loan.id, &text));
        }
        self.rest(index);
        if self.flaws.has(Flaw::ForgetCut) {
            self.loans.retain(Held::is_out);
        }
    }

    pub(super) fn mark_cut(&mut self, index: usize, why: Arc<str>) {
        let (now, resend) = (self.now, self.lending.resend);
        let held = &mut self.loans[index];
        let evict_at = now.saturating_add(held.loan.terms.notice);
        held.pending = None;
        held.phase = Phase::Cut { again: now.saturating_add(resend), evict_at, why };
        self.desk.touch();
    }

    fn notify_for(&mut self, index: usize, owner: &Tenant, short: Amount, why: &Why, out: &mut Vec<Output>) {
        let coming = self.coming(|held| held.loan.owner == *owner);
        let needed = short.saturating_sub(coming);
        if needed.is_zero() {
            return;
        }
        let candidates = self.candidates(|held| {
            held.loan.owner == *owner && held.is_active() && self.may_be_called_at(held) <= self.now
        });
        let chosen = victims(candidates, needed);
        if !chosen.is_empty() {
            self.rest(index);
        }
        for victim in chosen {
            self.notify(victim, why.clone(), out);
        }
    }

    /// Calls back for reasons other than the owner's demand.
    pub(super) fn call_back(&mut self, out: &mut Vec<Output>) {
        for index in 0..self.loans.len() {
            if self.loans[index].is_active()
                && let Some(why) = self.must_return(&self.loans[index])
            {
                self.notify(index, why, out);
            }
        }
        for index in 0..self.owners.len() {
            let owner = &self.owners[index].owner;
            let limit = owner.lending_limit.min(owner.nominal);
            let tenant = owner.tenant.clone();
            let lent = self.lent(&tenant);
            let coming = self.coming(|held| held.loan.owner == tenant);
            let excess = lent.saturating_sub(coming).saturating_sub(limit);
            if excess.is_zero() {
                continue;
            }
            let why = Why::LimitLowered { owner: tenant.clone(), lent, limit };
            let candidates = self.candidates(|held| held.loan.owner == tenant && held.is_active());
            for victim in victims(candidates, excess) {
                self.notify(victim, why.clone(), out);
            }
        }
    }

    fn must_return(&self, held: &Held) -> Option<Why> {
        let owner = &held.loan.owner;
        if self.owners.iter().all(|state| state.owner.tenant != *owner) {
            return Some(Why::OwnerGone { owner: owner.clone() });
        }
        let guest = Guest { district: self.place.district.clone(), tenant: owner.clone() };
        if let Some(incident) = self.incidents.reclaiming(&guest) {
            let (issuer, name) = (incident.issuer.clone(), incident.name.clone());
            return Some(Why::Incident { owner: owner.clone(), issuer, name });
        }
        let after = held.loan.terms.max_duration;
        (after <= held.age(self.now)).then_some(Why::TermOver { after })
    }

    /// Makes room for a guest of a higher class, from loans of lower ones that have run their minimum.
    pub(super) fn make_room(&mut self, guest: &Guest, class: Class, short: Amount, out: &mut Vec<Output>) {
        let short = Amount::compute(short.sm.saturating_sub(self.coming(|_| true).sm));
        let candidates = self.candidates(|held| {
            let other = held.loan.guest != *guest && held.loan.class < class;
            other && held.is_active() && self.may_be_called_at(held) <= self.now
        });
        for victim in victims(candidates, short) {
            self.notify(victim, Why::HigherClassWaits { guest: guest.clone(), class }, out);
        }
    }

    fn notify(&mut self, index: usize, why: Why, out: &mut Vec<Output>) {
        let (now, resend, token) = (self.now, self.lending.resend, self.desk.revision());
        let text: Arc<str> = why.to_string().into();
        let held = &mut self.loans[index];
        held.pending = None;
        held.phase =
            Phase::Noticed { acknowledged: false, again: now.saturating_add(resend), why: Arc::clone(&text) };
        let loan = held.loan.clone();
        out.push(self.record(What::Noticed, &loan, why));
        out.push(send(&loan.id, ToBorrower::Notice { loan: loan.id.clone(), token, why: text }));
    }

    /// Says again what was not acknowledged.
    pub(super) fn repeat_notices(&mut self, out: &mut Vec<Output>) {
        let (now, next, token) =
            (self.now, self.now.saturating_add(self.lending.resend), self.desk.revision());
        for held in &mut self.loans {
            let loan = held.loan.id.clone();
            match &mut held.phase {
                Phase::Noticed { acknowledged: false, again, why } if *again <= now => {
                    *again = next;
                    out.push(send(&loan, ToBorrower::Notice { loan: loan.clone(), token, why: why.clone() }));
                }
                Phase::Noticed { acknowledged: true, again, .. } => *again = NEVER,
                Phase::Cut { again, why, .. } if *again <= now => {
                    *again = next;
                    out.push(send(&loan, ToBorrower::Over { loan: loan.clone(), token, why: why.clone() }));
                }
                _ => {}
            }
        }
    }

    /// Stops guests that keep memory past their loan: at once if the loan is over, for they had their time to
    /// drain; within the notice if it was cut.
    pub(super) fn evict(&mut self, out: &mut Vec<Output>) {
        let overdue = core::mem::take(&mut self.overdue);
        if !self.lending.evict || self.flaws.has(Flaw::NoEviction) {
            return;
        }
        let next = self.now.saturating_add(self.lending.resend);
        for guest in &self.guests {
            if self.is_out(&guest.loan) {
                continue;
            }
            let known = overdue.iter().find(|overdue| overdue.loan == guest.loan);
            let cut = self.loans.iter().find(|held| held.loan.id == guest.loan).map(|held| &held.phase);
            let mut evict_at = match (known, cut) {
                (Some(known), _) => known.evict_at,
                (None, Some(Phase::Cut { evict_at, .. })) => *evict_at,
                // What was seen may be a moment old: a guest that has just left is not hunted.
                _ => next,
            };
            if evict_at <= self.now {
                evict_at = next;
                let held = Amount { memory: guest.held, ..Amount::ZERO };
                out.push(Output::Record(Record {
                    what: What::Evicted,
                    loan: guest.loan.clone(),
                    place: self.place.clone(),
                    owner: Some(guest.owner.clone()),
                    guest: guest.guest.clone(),
                    data: None,
                    amount: held,
                    token: self.desk.revision(),
                    why: Why::KeepsMemory { held },
                }));
                out.push(Output::Evict(guest.loan.clone()));
            }
            self.overdue.push(Overdue { loan: guest.loan.clone(), evict_at });
        }
    }

    /// While the loans are not known, an express owner that wants what may be lent takes all of it.
    pub(super) fn override_for_express(&mut self, out: &mut Vec<Output>) {
        for index in 0..self.owners.len() {
            let state = &self.owners[index];
            let kept = state.owner.nominal.saturating_sub(state.owner.lending_limit);
            let wants = state.wants.min(state.owner.nominal);
            let express = self.class_of(&state.owner) == Class::Express;
            if express && !wants.fits(kept) && !state.overrode {
                let owner = state.owner.tenant.clone();
                out.push(Output::TakeAll { token: self.found, owner });
                self.owners[index].overrode = true;
            }
        }
    }

    fn rest(&mut self, index: usize) {
        self.owners[index].rests_until = self.now.saturating_add(self.lending.rest);
    }

    /// What has been called back and is on its way.
    fn coming(&self, of: impl Fn(&Held) -> bool) -> Amount {
        let noticed =
            self.loans.iter().filter(|held| matches!(held.phase, Phase::Noticed { .. }) && of(held));
        noticed.map(|held| held.loan.amount).sum()
    }

    fn candidates(&self, of: impl Fn(&Held) -> bool) -> Vec<Candidate> {
        let held = self.loans.iter().enumerate().filter(|(_, held)| of(held));
        held.map(|(index, held)| Candidate {
            index,
            class: held.loan.class,
            age: held.age(self.now),
            amount: held.loan.amount,
        })
        .collect()
    }
}
