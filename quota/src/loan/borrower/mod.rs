//! The borrower of one node: a state machine without IO, for all its tenants.
//!
//! A loan's life, as its borrower sees it:
//! ```text
//!                        promise                    renewed: a newer token, a later end
//!   asking ----------------------------> active <---------+
//!     |                          ^        |  |  +---------+
//!     | refused, over            | promise|  |
//!     v                          |        |  | notice; or needed no longer
//!    gone      resuming ---------+        |  +----------> draining
//!              (found in a ledger         |                  |
//!               after a restart)          | lapsed           | drained, or the time is over
//!                                         v                  v
//!   gone <--closed, or nobody answers-- closing <------------+
//! ```
//! Draining and closing never lead back: once a borrower has acknowledged a notice or released a loan, no
//! message that comes late can bring it to life again. The lender relies on that.

mod hear;
mod io;
mod seek;

pub use io::{Client, Counters, Input, Offer, Output, Want};

use std::collections::VecDeque;

use super::amount::Amount;
use super::data::DataClass;
use super::flaw::{Flaw, Flaws};
use super::incident::Incidents;
use super::ledger::{Loan, Revision, Standing};
use super::limits::{ATTEMPTS_MAX, BORROWED_MAX};
use super::message::{Ask, ToLender};
use super::names::{District, Guest, LoanId, Node, Place, Tenant};
use super::record::{Record, What};
use super::settings::Borrowing;
use super::terms::Terms;
use super::why::Why;
use crate::tenant::Class;
use crate::units::Micros;

#[derive(Clone, Debug)]
struct ClientState {
    client: Client,
    wants: Amount,
    short_since: Option<Micros>,
    spare_since: Option<Micros>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Asking { again: Micros, tries: u32 },
    Resuming { again: Micros, gives_up: Micros },
    Active { renew_at: Micros },
    Draining,
    Closing { again: Micros, tries: u32 },
}

#[derive(Clone, Debug)]
struct Borrowed {
    id: LoanId,
    tenant: Tenant,
    place: Place,
    data: DataClass,
    /// Asked for, and once promised what was promised.
    amount: Amount,
    token: Revision,
    until: Micros,
    terms: Terms,
    phase: Phase,
    /// Sendings that may still be answered, and when they were sent.
    attempts: VecDeque<(u64, Micros)>,
    last_attempt: u64,
}

impl Borrowed {
    /// Notes a new sending.
    fn attempt(&mut self, now: Micros) -> u64 {
        self.last_attempt += 1;
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.pop_front();
        }
        self.attempts.push_back((self.last_attempt, now));
        self.last_attempt
    }

    /// Whether it counts as what the tenant has or is about to have.
    fn counts(&self) -> bool {
        matches!(self.phase, Phase::Asking { .. } | Phase::Resuming { .. } | Phase::Active { .. })
    }
}

/// A lender that refused, and when it may be asked again.
#[derive(Clone, Debug)]
struct Backoff {
    place: Place,
    not_before: Micros,
    times: u32,
}

/// The borrower of one node.
#[derive(Clone, Debug)]
pub struct Borrower {
    node: Node,
    district: District,
    incarnation: u64,
    borrowing: Borrowing,
    clients: Vec<ClientState>,
    incidents: Incidents,
    loans: Vec<Borrowed>,
    offers: Vec<(Offer, Micros)>,
    backoffs: Vec<Backoff>,
    last_number: u64,
    now: Micros,
    counters: Counters,
    flaws: Flaws,
}

/// A loan as shown to people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BorrowedView {
    /// The loan.
    pub loan: LoanId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where.
    pub place: Place,
    /// How much; in phase `asking` what was asked for.
    pub amount: Amount,
    /// `asking`, `resuming`, `active`, `draining` or `closing`.
    pub phase: &'static str,
}

impl Borrower {
    /// A borrower without loans. `incarnation` must be greater than that of any earlier start of this node's
    /// daemon: the revision of a key of the store that the daemon writes when it starts.
    #[must_use]
    pub fn new(
        node: Node,
        district: District,
        incarnation: u64,
        borrowing: Borrowing,
        clients: Vec<Client>,
        now: Micros,
    ) -> Self {
        let mut borrower = Self {
            node,
            district,
            incarnation,
            borrowing,
            clients: Vec::new(),
            incidents: Incidents::new(),
            loans: Vec::new(),
            offers: Vec::new(),
            backoffs: Vec::new(),
            last_number: 0,
            now,
            counters: Counters::default(),
            flaws: Flaws::NONE,
        };
        borrower.configure(clients);
        borrower
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
        self.now = self.now.max(now);
        self.incidents.expire(self.now);
        match input {
            Input::Tick => {}
            Input::Wants(wants) => {
                for want in wants {
                    let known = self.clients.iter_mut().find(|state| state.client.tenant == want.tenant);
                    if let Some(state) = known {
                        state.wants = want.amount;
                    }
                }
            }
            Input::Offers(offers) => self.offered(offers),
            Input::Heard { from, message } => self.hear(&from, message, &mut out),
            Input::Drained(loan) => self.drained(&loan, &mut out),
            Input::Found(found) => self.found(found, &mut out),
            Input::Configure(clients) => self.configure(clients),
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
        self.keep_alive(&mut out);
        self.seek(&mut out);
        out
    }

    /// When to call [`handle`](Self::handle) with [`Input::Tick`] if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Micros> {
        let mut times = Vec::new();
        times.extend(self.incidents.next_end());
        for loan in &self.loans {
            match loan.phase {
                Phase::Asking { again, .. } | Phase::Closing { again, .. } => times.push(again),
                Phase::Resuming { again, gives_up } => times.extend([again, gives_up]),
                Phase::Active { renew_at } => times.extend([renew_at, loan.until]),
                Phase::Draining => times.push(loan.until),
            }
        }
        for state in &self.clients {
            if let Some(since) = state.short_since {
                times.push(since.saturating_add(self.borrowing.need_for));
                times.extend(self.backoffs.iter().map(|backoff| backoff.not_before));
            }
            times.extend(state.spare_since.map(|since| since.saturating_add(self.borrowing.spare_for)));
        }
        times.into_iter().filter(|at| self.now < *at).min()
    }

    /// Which start of the daemon this is; goes with every order to the allowances.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// All loans, asked for and held.
    pub fn loans(&self) -> impl Iterator<Item = BorrowedView> + '_ {
        self.loans.iter().map(|loan| BorrowedView {
            loan: loan.id.clone(),
            tenant: loan.tenant.clone(),
            place: loan.place.clone(),
            amount: loan.amount,
            phase: match loan.phase {
                Phase::Asking { .. } => "asking",
                Phase::Resuming { .. } => "resuming",
                Phase::Active { .. } => "active",
                Phase::Draining => "draining",
                Phase::Closing { .. } => "closing",
            },
        })
    }

    /// Whether a tenant borrows or is about to, so that nothing of its own is lent.
    #[must_use]
    pub fn borrows(&self, tenant: &Tenant) -> bool {
        self.loans.iter().any(|loan| loan.tenant == *tenant && loan.counts())
    }

    /// What was counted since it was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn configure(&mut self, clients: Vec<Client>) {
        let mut old = core::mem::take(&mut self.clients);
        for client in clients {
            let known = old.iter().position(|state| state.client.tenant == client.tenant);
            let state = match known {
                Some(index) => ClientState { client, ..old.swap_remove(index) },
                None => ClientState { client, wants: Amount::ZERO, short_since: None, spare_since: None },
            };
            self.clients.push(state);
        }
    }

    fn guest(&self, tenant: &Tenant) -> Guest {
        Guest { district: self.district.clone(), tenant: tenant.clone() }
    }

    fn class_of(&self, tenant: &Tenant) -> Class {
        let own = self.clients.iter().find(|state| state.client.tenant == *tenant);
        let own = own.map_or(Class::Batch, |state| state.client.class);
        self.incidents.class_of(&self.guest(tenant), own).0
    }

    /// Repeats what was not answered, renews, and ends what is over.
    fn keep_alive(&mut self, out: &mut Vec<Output>) {
        let now = self.now;
        let again = now.saturating_add(self.borrowing.answer_within);
        let mut index = 0;
        while index < self.loans.len() {
            match self.loans[index].phase {
                Phase::Asking { again: at, tries } if at <= now => {
                    if tries < self.borrowing.tries {
                        self.loans[index].phase = Phase::Asking { again, tries: tries + 1 };
                        self.ask(index, out);
                    } else {
                        let place = self.loans[index].place.clone();
                        self.back_off(&place);
                        self.stop(index, Why::Unanswered { tries }, out);
                    }
                }
                Phase::Resuming { gives_up, .. } if gives_up <= now => {
                    self.stop(index, Why::NotRenewed, out);
                }
                Phase::Resuming { again: at, gives_up } if at <= now => {
                    self.loans[index].phase = Phase::Resuming { again, gives_up };
                    self.renew(index, out);
                }
                Phase::Active { .. } if self.loans[index].until <= now => {
                    self.counters.not_renewed += 1;
                    self.stop(index, Why::NotRenewed, out);
                }
                Phase::Active { renew_at } if renew_at <= now => {
                    self.loans[index].phase = Phase::Active { renew_at: again };
                    self.renew(index, out);
                }
                Phase::Draining if self.loans[index].until <= now => {
                    self.stop(index, Why::Released, out);
                }
                Phase::Closing { again: at, tries } if at <= now => {
                    if self.borrowing.tries <= tries {
                        self.loans.remove(index);
                        continue;
                    }
                    self.loans[index].phase = Phase::Closing { again, tries: tries + 1 };
                    self.release(index, out);
                }
                _ => {}
            }
            index += 1;
        }
    }

    fn ask(&mut self, index: usize, out: &mut Vec<Output>) {
        let class = self.class_of(&self.loans[index].tenant);
        let guest = self.guest(&self.loans[index].tenant);
        let loan = &mut self.loans[index];
        let attempt = loan.attempt(self.now);
        let message = ToLender::Ask(Ask {
            loan: loan.id.clone(),
            attempt,
            place: loan.place.clone(),
            guest,
            class,
            data: loan.data,
            amount: loan.amount,
        });
        out.push(Output::Send { to: loan.place.node.clone(), message });
    }

    fn renew(&mut self, index: usize, out: &mut Vec<Output>) {
        let class = self.class_of(&self.loans[index].tenant);
        let incarnation = self.incarnation;
        let loan = &mut self.loans[index];
        let attempt = loan.attempt(self.now);
        let message = ToLender::Renew { loan: loan.id.clone(), incarnation, attempt, class };
        out.push(Output::Send { to: loan.place.node.clone(), message });
    }

    /// Says that a loan is not used any more. Each time the allowance goes first: if that order is refused, a
    /// later start of this daemon uses the loan, and nothing may be said.
    fn release(&mut self, index: usize, out: &mut Vec<Output>) {
        let loan = &self.loans[index];
        out.push(Output::Drop(loan.id.clone()));
        let message = ToLender::Release { loan: loan.id.clone(), incarnation: self.incarnation };
        out.push(Output::Send { to: loan.place.node.clone(), message });
    }

    /// Stops using a loan and says so until the lender has heard it.
    fn stop(&mut self, index: usize, why: Why, out: &mut Vec<Output>) {
        let again = self.now.saturating_add(self.borrowing.answer_within);
        self.loans[index].phase = Phase::Closing { again, tries: 1 };
        self.release(index, out);
        out.push(self.record(What::Stopped, index, why));
    }

    /// Ends a loan soon: nothing new is placed, what is under way may finish.
    fn drain(&mut self, index: usize, why: Why, out: &mut Vec<Output>) {
        let loan = &mut self.loans[index];
        loan.phase = Phase::Draining;
        loan.until = loan.until.min(self.now.saturating_add(loan.terms.drain()));
        let (id, until) = (loan.id.clone(), loan.until);
        out.push(Output::Shorten { loan: id.clone(), until });
        out.push(Output::Drain(id));
        out.push(self.record(What::Draining, index, why));
    }

    fn drained(&mut self, loan: &LoanId, out: &mut Vec<Output>) {
        let index = self.position(loan).filter(|&index| self.loans[index].phase == Phase::Draining);
        if let Some(index) = index {
            self.stop(index, Why::Released, out);
        }
    }

    /// Takes loans of an earlier start of this daemon up again, or gives them back.
    fn found(&mut self, found: Vec<(Place, Loan)>, out: &mut Vec<Output>) {
        for (place, loan) in found {
            let mine = loan.id.node == self.node && loan.id.incarnation < self.incarnation;
            let room = self.loans.len() < BORROWED_MAX;
            if !mine || !room || loan.standing == Standing::Cut || self.position(&loan.id).is_some() {
                continue;
            }
            let tenant = loan.guest.tenant.clone();
            let wanted = self.clients.iter().any(|state| state.client.tenant == tenant);
            let again = self.now.saturating_add(self.borrowing.answer_within);
            let gives_up = self.now.saturating_add(loan.terms.stop_after());
            self.loans.push(Borrowed {
                id: loan.id,
                tenant,
                place,
                data: loan.data,
                amount: loan.amount,
                token: Revision::default(),
                // What the earlier start was promised may hold that long.
                until: gives_up,
                terms: loan.terms,
                phase: Phase::Resuming { again, gives_up },
                attempts: VecDeque::new(),
                last_attempt: 0,
            });
            let index = self.loans.len() - 1;
            if wanted {
                self.renew(index, out);
            } else {
                self.stop(index, Why::NoLongerNeeded { tenant: self.loans[index].tenant.clone() }, out);
            }
        }
    }

    fn stop_after(&self, terms: &Terms) -> Micros {
        if self.flaws.has(Flaw::NoMargin) { terms.ttl } else { terms.stop_after() }
    }

    fn position(&self, loan: &LoanId) -> Option<usize> {
        self.loans.iter().position(|borrowed| borrowed.id == *loan)
    }

    fn record(&self, what: What, index: usize, why: Why) -> Output {
        let loan = &self.loans[index];
        Output::Record(Record {
            what,
            loan: loan.id.clone(),
            place: loan.place.clone(),
            owner: None,
            guest: self.guest(&loan.tenant),
            data: Some(loan.data),
            amount: loan.amount,
            token: loan.token,
            why,
        })
    }
}
