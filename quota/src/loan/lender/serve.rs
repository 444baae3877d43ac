//! Granting: ranked requests, and what the owners leave idle.

use super::{Held, Lender, NEVER, Output, OwnerState, Pending, Phase};
use crate::loan::amount::Amount;
use crate::loan::ledger::Owner;
use crate::loan::limits::LOANS_PER_DEVICE_MAX;
use crate::loan::message::Ask;
use crate::loan::names::{Guest, Tenant};
use crate::loan::policy::lend::{OwnerView, lendable};
use crate::loan::policy::rank::{Request, portion, rank};
use crate::loan::why::Why;
use crate::tenant::Class;
use crate::units::Share;

impl Lender {
    /// Grants what can be granted, in order, and refuses who has waited long enough.
    pub(super) fn serve(&mut self, out: &mut Vec<Output>) {
        for request in self.ranked() {
            let Some(place) = self.waiting.iter().position(|w| w.ask.loan == request.loan) else { continue };
            // What cannot be written soon is not promised: the borrower may find it elsewhere.
            if !self.desk.is_well() || self.grant(place, &request) {
                continue;
            }
            let ask = self.waiting[place].ask.clone();
            let short = ask.amount.saturating_sub(self.offer());
            self.make_room(&ask.guest, request.class, short, out);
        }
        while let Some(index) = self
            .waiting
            .iter()
            .position(|waiting| waiting.since.saturating_add(self.lending.wait_for) <= self.now)
        {
            let ask = self.waiting.remove(index).ask;
            let why = self.why_not(&ask);
            self.refuse(&ask, why, out);
        }
    }

    /// Requests that have been gathered for long enough, the first to be served first.
    fn ranked(&self) -> Vec<Request> {
        let gathered =
            self.waiting.iter().filter(|w| w.since.saturating_add(self.lending.gather) <= self.now);
        let mut requests: Vec<Request> = gathered
            .map(|waiting| Request {
                loan: waiting.ask.loan.clone(),
                class: self.incidents.class_of(&waiting.ask.guest, waiting.ask.class).0,
                weight: waiting.from.weight,
                has: self.borrowed_by(&waiting.ask.guest),
                distance: waiting.from.distance,
                since: waiting.since,
            })
            .collect();
        rank(&mut requests);
        requests
    }

    fn borrowed_by(&self, guest: &Guest) -> Share {
        let loans =
            self.loans.iter().filter(|held| held.loan.guest.district == guest.district && held.is_out());
        loans.map(|held| held.loan.amount.sm).fold(Share::ZERO, Share::saturating_add)
    }

    fn grant(&mut self, place: usize, request: &Request) -> bool {
        if LOANS_PER_DEVICE_MAX <= self.loans.len() {
            return false;
        }
        let asked = self.waiting[place].ask.amount;
        let Some((owner, lendable)) = self.best_owner(asked) else { return false };
        let rivals = self.waiting.iter().filter(|waiting| waiting.ask.class == request.class);
        let weights = rivals.map(|waiting| u64::from(waiting.from.weight)).sum();
        let Some(amount) = portion(asked, lendable, request.weight, weights, &self.lending) else {
            return false;
        };
        let waiting = self.waiting.remove(place);
        let peak = self.peak_of(&owner);
        let loan = self.loan_of(&waiting.ask, owner.clone(), amount);
        self.loans.push(Held {
            pending: Some(Pending {
                holder: loan.holder,
                attempt: waiting.ask.attempt,
                class: request.class,
            }),
            loan,
            phase: Phase::Granting,
            since: self.now,
            // A grant has no end before it is written.
            lapses: NEVER,
            answered: None,
            granted_because: Some(Why::Idle {
                owner,
                peak,
                watched: self.lending.idle_for,
                class: request.class,
            }),
        });
        self.desk.touch();
        true
    }

    /// Who can lend best: the owner of the lowest class, whose demand takes back the most gently; among those
    /// the one with the most to lend.
    fn best_owner(&self, asked: Amount) -> Option<(Tenant, Amount)> {
        let able = self.owners.iter().filter_map(|state| {
            let amount = self.lendable(state).ok()?;
            let enough = self.lending.least <= amount.sm && asked.memory <= amount.memory;
            enough.then_some((state, amount))
        });
        able.min_by_key(|(state, amount)| (self.class_of(&state.owner), core::cmp::Reverse(amount.sm)))
            .map(|(state, amount)| (state.owner.tenant.clone(), amount))
    }

    fn peak_of(&self, owner: &Tenant) -> Amount {
        let state = self.owners.iter().find(|state| state.owner.tenant == *owner);
        let peak = state.and_then(|state| state.peaks.peak(self.now, self.lending.idle_for));
        peak.unwrap_or(Amount::ZERO)
    }

    /// What an owner may lend now.
    pub(super) fn lendable(&self, state: &OwnerState) -> Result<Amount, Why> {
        let owner: &Owner = &state.owner;
        let guest = Guest { district: self.place.district.clone(), tenant: owner.tenant.clone() };
        let incident = self.incidents.reclaiming(&guest);
        let mut lent = self.lent(&owner.tenant);
        lent.memory = lent.memory.saturating_add(self.overdue_of(&owner.tenant));
        let view = OwnerView {
            owner,
            peak: state.peaks.peak(self.now, self.lending.idle_for),
            wants: state.wants,
            lent,
            rests_until: state.rests_until,
            borrows: state.borrows,
            called_back_by: incident.map(|incident| (&incident.issuer, &incident.name)),
        };
        lendable(&view, self.spare(), &self.lending, self.now, self.flaws)
    }

    /// Compute that no local tenant used while it was watched, be it its own or not, and that is not lent.
    fn spare(&self) -> Share {
        let used = self.owners.iter().map(|state| {
            let peak = state.peaks.peak(self.now, self.lending.idle_for);
            peak.map_or(state.wants.sm, |peak| peak.sm.max(state.wants.sm))
        });
        let lent = self.loans.iter().filter(|held| held.is_out()).map(|held| held.loan.amount.sm);
        self.capacity.sm.saturating_sub(used.chain(lent).fold(Share::ZERO, Share::saturating_add))
    }

    fn why_not(&self, ask: &Ask) -> Why {
        if LOANS_PER_DEVICE_MAX <= self.loans.len() {
            return Why::LedgerFull;
        }
        let mut most = Amount::ZERO;
        let mut reason = None;
        for state in &self.owners {
            match self.lendable(state) {
                Ok(amount) => most = most.max(amount),
                Err(why) => reason = Some(why),
            }
        }
        match reason {
            Some(why) if most.is_zero() => why,
            _ if most.sm < self.lending.least => Why::NothingIdle { most, least: self.lending.least },
            _ if most.memory < ask.amount.memory => Why::NoMemory { most },
            _ => Why::NothingIdle { most, least: self.lending.least },
        }
    }

    /// The effective class of a tenant of this device.
    #[must_use]
    pub fn class(&self, tenant: &Tenant) -> Option<Class> {
        let state = self.owners.iter().find(|state| state.owner.tenant == *tenant)?;
        Some(self.class_of(&state.owner))
    }
}
