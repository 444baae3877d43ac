//! The lender of one device: a state machine without IO.
//!
//! A loan's life, as its lender sees it:
//! ```text
//!            ranked, idle quota found             swap confirmed, table installed: promised
//!   waiting -------------------------> granting ---------------------------------> active <--+
//!      |                                   |                                       |  |  |   | renewed: the same
//!      | refused                           | released                    called    |  |  +---+ swap and install
//!      v                                   v                             back      |  |
//!     gone                               closed <----- lapsed, released ---+-------+  | express owner
//!                                          ^                               |          v
//!                                          |                            noticed      cut
//!                                          |   lapsed (sooner, once it     |          |
//!                                          +------- is acknowledged) ------+----------+
//! ```
//!
//! And the ledger's:
//! ```text
//!   unread --read--> claiming (epoch + 1) --swapped--> installing --installed--> settled
//!     ^                                                    ^                       | something changed
//!     |  conflict, no answer: read again                   +------ swapping <------+
//!     +--------------------------------------------------------------+
//!   a ledger of another epoch, or a table that is refused as stale: fenced, for good
//! ```
//!
//! One swap is under way at a time and carries everything that changed since the last, so a hundred renewals
//! at once cost one write.

mod callback;
mod desk;
mod hear;
mod io;
mod serve;

pub use io::{Counters, Demand, Input, Observed, Output};

use std::sync::Arc;

use self::desk::Desk;
use super::amount::Amount;
use super::flaw::{Flaw, Flaws};
use super::incident::Incidents;
use super::ledger::{Ledger, Loan, Owner, Revision, Standing};
use super::message::{Ask, Peer, ToBorrower};
use super::names::{Guest, LoanId, Place, Tenant};
use super::peaks::Peaks;
use super::point::{GuestMemory, Line};
use super::record::{Record, What};
use super::settings::Lending;
use super::terms::{BadTerms, Terms};
use super::why::Why;
use crate::tenant::Class;
use crate::units::{Bytes, Micros};

/// A tenant that owns a part of the device.
#[derive(Clone, Debug)]
struct OwnerState {
    owner: Owner,
    wants: Amount,
    borrows: bool,
    peaks: Peaks,
    /// Since when its demand is not met.
    short_since: Option<Micros>,
    rests_until: Micros,
    /// Whether it took everything back before the ledger was read.
    overrode: bool,
}

/// Where a loan is in its life.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// Decided, not yet written. Nobody was told.
    Granting,
    /// Promised.
    Active,
    /// Called back.
    Noticed { acknowledged: bool, again: Micros, why: Arc<str> },
    /// Shut out. Remembered until its borrower cannot believe in it any more.
    Cut { again: Micros, evict_at: Micros, why: Arc<str> },
}

/// What a borrower waits for: a promise in answer to this sending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Pending {
    holder: u64,
    attempt: u64,
    class: Class,
}

/// A loan that is out.
#[derive(Clone, Debug)]
struct Held {
    loan: Loan,
    phase: Phase,
    /// When the age in the record was right.
    since: Micros,
    lapses: Micros,
    /// A grant or renewal not yet written.
    pending: Option<Pending>,
    /// The last sending that was answered, and by which revision.
    answered: Option<(u64, u64)>,
    /// Why it was granted, until that is on record.
    granted_because: Option<Why>,
}

impl Held {
    fn age(&self, now: Micros) -> Micros {
        self.loan.age.saturating_add(now.saturating_sub(self.since))
    }

    /// Whether it takes from its owner.
    fn is_out(&self) -> bool {
        !matches!(self.phase, Phase::Cut { .. })
    }

    fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }
}

/// A request that has not been decided.
#[derive(Clone, Debug)]
struct Waiting {
    from: Peer,
    ask: Ask,
    since: Micros,
}

/// A guest that holds memory without a loan that says so.
#[derive(Clone, Debug)]
struct Overdue {
    loan: LoanId,
    evict_at: Micros,
}

/// The lender of one device.
#[derive(Clone, Debug)]
pub struct Lender {
    place: Place,
    capacity: Amount,
    lending: Lending,
    owners: Vec<OwnerState>,
    incidents: Incidents,
    desk: Desk,
    /// The device's last token that this lender knows of, as long as it has none of its own.
    found: Revision,
    loans: Vec<Held>,
    waiting: Vec<Waiting>,
    overdue: Vec<Overdue>,
    /// Memory that guests held when last looked at.
    guests: Vec<GuestMemory>,
    now: Micros,
    counters: Counters,
    flaws: Flaws,
}

/// A loan as shown to people: `headgate loans`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoanView {
    /// The loan as it would be recorded now.
    pub loan: Loan,
    /// Where it is in its life: `granting`, `active`, `noticed` or `cut`.
    pub phase: &'static str,
    /// How long until it ends by itself.
    pub left: Micros,
}

impl Lender {
    /// A lender that has yet to read its ledger. Nothing happens before the first [`handle`](Self::handle).
    /// `installed` is the last token of the device's [`DevicePoint`](super::DevicePoint), zero if that is new.
    pub fn new(
        place: Place,
        capacity: Amount,
        lending: Lending,
        owners: Vec<Owner>,
        installed: Revision,
        now: Micros,
    ) -> Result<Self, BadTerms> {
        lending.terms.check()?;
        let mut lender = Self {
            place,
            capacity,
            lending,
            owners: Vec::new(),
            incidents: Incidents::new(),
            desk: Desk::new(),
            found: installed,
            loans: Vec::new(),
            waiting: Vec::new(),
            overdue: Vec::new(),
            guests: Vec::new(),
            now,
            counters: Counters::default(),
            flaws: Flaws::NONE,
        };
        lender.configure(owners);
        Ok(lender)
    }

    /// Takes a protection away.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn with_flaws(mut self, flaws: Flaws) -> Self {
        self.flaws = flaws;
        self
    }

    /// Takes an input in and says what is to be done.
    pub fn handle(&mut self, now: Micros, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.desk.is_fenced() {
            return out;
        }
        self.now = self.now.max(now);
        self.incidents.expire(self.now);
        match input {
            Input::Tick => {}
            Input::Observed(observed) => self.observe(observed),
            Input::Heard { from, message } => self.hear(from, message, &mut out),
            Input::Store(reply) => self.stored(reply, &mut out),
            Input::Installed(result) => self.installed(result, &mut out),
            Input::NotTaken { owner, stale } => {
                // Somebody else was the lender in between. Whether it is still needed is decided anew.
                self.found = self.found.max(stale.last);
                for state in self.owners.iter_mut().filter(|state| state.owner.tenant == owner) {
                    state.overrode = false;
                }
            }
            Input::Configure(owners) => self.configure(owners),
            Input::Declared(incident) => {
                if self.incidents.declare(self.now, incident).is_err() {
                    self.counters.incidents_refused += 1;
                }
            }
            Input::Ended { issuer, number } => {
                // One that is not known cannot hold.
                let _ended = self.incidents.end(&issuer, number);
            }
        }
        self.reconsider(&mut out);
        out
    }

    /// When to call [`handle`](Self::handle) with [`Input::Tick`] if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Micros> {
        let mut times = Vec::new();
        times.extend(self.desk.wake_at());
        times.extend(self.incidents.next_end());
        times.extend(self.overdue.iter().map(|overdue| overdue.evict_at));
        for held in &self.loans {
            times.push(held.lapses);
            match held.phase {
                Phase::Noticed { again, .. } => times.push(again),
                Phase::Cut { again, .. } => times.push(again),
                Phase::Active => {
                    let max_left = held.loan.terms.max_duration.saturating_sub(held.age(self.now));
                    times.extend([self.may_be_called_at(held), self.now.saturating_add(max_left)]);
                }
                Phase::Granting => {}
            }
        }
        for waiting in &self.waiting {
            times.push(waiting.since.saturating_add(self.lending.gather));
            times.push(waiting.since.saturating_add(self.lending.wait_for));
        }
        for state in &self.owners {
            times.extend(state.short_since.map(|since| since.saturating_add(self.lending.rise_for)));
            if !self.waiting.is_empty() {
                times.push(state.rests_until);
                times.extend(state.peaks.complete_at(self.lending.idle_for));
            }
        }
        times.into_iter().filter(|at| self.now < *at && *at != NEVER).min()
    }

    /// What this device could lend in one loan now; goes into the load summary.
    #[must_use]
    pub fn offer(&self) -> Amount {
        if !self.desk.is_claimed() {
            return Amount::ZERO;
        }
        let idle = self.owners.iter().filter_map(|state| self.lendable(state).ok());
        idle.max_by_key(|amount| (amount.sm, amount.memory)).unwrap_or(Amount::ZERO)
    }

    /// All loans that are out.
    pub fn loans(&self) -> impl Iterator<Item = LoanView> + '_ {
        self.loans.iter().map(|held| LoanView {
            loan: self.recorded(held),
            phase: match held.phase {
                Phase::Granting => "granting",
                Phase::Active => "active",
                Phase::Noticed { .. } => "noticed",
                Phase::Cut { .. } => "cut",
            },
            left: held.lapses.saturating_sub(self.now),
        })
    }

    /// What was counted since it was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the ledger was read and claimed, so that requests are served.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.desk.is_claimed()
    }

    /// The revision of the ledger as last written or read.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.desk.revision()
    }

    fn configure(&mut self, owners: Vec<Owner>) {
        let mut old = core::mem::take(&mut self.owners);
        for owner in owners {
            let known = old.iter().position(|state| state.owner.tenant == owner.tenant);
            let state = match known {
                Some(index) => OwnerState { owner, ..old.swap_remove(index) },
                None => OwnerState {
                    owner,
                    wants: Amount::ZERO,
                    borrows: false,
                    peaks: Peaks::default(),
                    short_since: None,
                    rests_until: Micros::ZERO,
                    overrode: false,
                },
            };
            self.owners.push(state);
        }
    }

    fn observe(&mut self, observed: Observed) {
        for demand in observed.demands {
            let state = self.owners.iter_mut().find(|state| state.owner.tenant == demand.tenant);
            if let Some(state) = state {
                state.wants = demand.wants;
                state.borrows = demand.borrows;
                state.peaks.set(self.now, demand.wants, self.lending.idle_for);
            }
        }
        self.guests = observed.guests;
    }

    /// Everything that follows from the state and the time.
    fn reconsider(&mut self, out: &mut Vec<Output>) {
        self.mind_the_store(out);
        if self.desk.is_fenced() {
            return;
        }
        if self.desk.is_claimed() {
            self.lapse(out);
            self.meet_owners(out);
            self.call_back(out);
            self.repeat_notices(out);
            self.serve(out);
            self.evict(out);
        } else {
            self.override_for_express(out);
        }
        self.write(out);
    }

    /// An owner's class now.
    fn class_of(&self, owner: &Owner) -> Class {
        let guest = Guest { district: self.place.district.clone(), tenant: owner.tenant.clone() };
        self.incidents.class_of(&guest, owner.class).0
    }

    /// What is out of an owner's quota.
    fn lent(&self, owner: &Tenant) -> Amount {
        let out = self.loans.iter().filter(|held| held.loan.owner == *owner && held.is_out());
        out.map(|held| held.loan.amount).sum()
    }

    /// Memory that guests of an owner hold although nothing of it is lent to them any more.
    fn overdue_of(&self, owner: &Tenant) -> Bytes {
        let overdue = self.guests.iter().filter(|guest| guest.owner == *owner && !self.is_out(&guest.loan));
        overdue.map(|guest| guest.held).fold(Bytes::ZERO, Bytes::saturating_add)
    }

    fn is_out(&self, loan: &LoanId) -> bool {
        self.loans.iter().any(|held| held.loan.id == *loan && held.is_out())
    }

    /// The earliest time at which a loan can be called back for an ordinary reason: notice included, it will have
    /// run its minimum.
    fn may_be_called_at(&self, held: &Held) -> Micros {
        if self.flaws.has(Flaw::NoMinimum) {
            return Micros::ZERO;
        }
        let terms = &held.loan.terms;
        let left = terms.min_duration.saturating_sub(terms.notice).saturating_sub(held.age(self.now));
        self.now.saturating_add(left)
    }

    fn reuse_after(&self, terms: &Terms) -> Micros {
        if self.flaws.has(Flaw::NoMargin) {
            terms.ttl
        } else if self.flaws.has(Flaw::NoSkew) {
            terms.ttl.saturating_add(terms.margin)
        } else {
            terms.reuse_after()
        }
    }

    fn recorded(&self, held: &Held) -> Loan {
        let mut loan = held.loan.clone();
        // A loan's life begins when it is written.
        loan.age = if held.phase == Phase::Granting { Micros::ZERO } else { held.age(self.now) };
        if matches!(held.phase, Phase::Cut { .. }) {
            loan.standing = Standing::Cut;
        }
        loan
    }

    /// The ledger as it should be.
    fn ledger(&self, epoch: u64) -> Ledger {
        Ledger { epoch, loans: self.loans.iter().map(|held| self.recorded(held)).collect() }
    }

    /// The table as it should be at the device.
    fn table(&self) -> Vec<Line> {
        let written = self.loans.iter().filter(|held| held.phase != Phase::Granting);
        written
            .map(|held| Line {
                loan: held.loan.id.clone(),
                owner: held.loan.owner.clone(),
                guest: held.loan.guest.clone(),
                amount: held.loan.amount,
                lapses: held.lapses,
                cut: !held.is_out(),
            })
            .collect()
    }

    fn record(&self, what: What, loan: &Loan, why: Why) -> Output {
        Output::Record(Record {
            what,
            loan: loan.id.clone(),
            place: self.place.clone(),
            owner: Some(loan.owner.clone()),
            guest: loan.guest.clone(),
            data: Some(loan.data),
            amount: loan.amount,
            token: self.desk.revision(),
            why,
        })
    }

    /// Forgets a loan.
    fn close(&mut self, index: usize, why: Why, out: &mut Vec<Output>) {
        let held = self.loans.remove(index);
        self.desk.touch();
        out.push(self.record(What::Closed, &held.loan, why));
    }

    fn position(&self, loan: &LoanId) -> Option<usize> {
        self.loans.iter().position(|held| held.loan.id == *loan)
    }

    fn over(&self, loan: &LoanId, why: &str) -> Output {
        let token = self.desk.revision();
        send(loan, ToBorrower::Over { loan: loan.clone(), token, why: why.into() })
    }
}

/// No time at all.
const NEVER: Micros = Micros(u64::MAX);

fn send(loan: &LoanId, message: ToBorrower) -> Output {
    Output::Send { to: loan.node.clone(), message }
}
