//! What lenders say.

use super::{Borrowed, Borrower, Output, Phase};
use crate::loan::allowances::Allowance;
use crate::loan::flaw::Flaw;
use crate::loan::message::{Promise, ToBorrower, ToLender};
use crate::loan::names::{LoanId, Node};
use crate::loan::record::What;
use crate::loan::why::Why;

impl Borrower {
    pub(super) fn hear(&mut self, from: &Node, message: ToBorrower, out: &mut Vec<Output>) {
        let id = message.loan().clone();
        let known = self.position(&id);
        if id.node != self.node || known.is_some_and(|index| self.loans[index].place.node != *from) {
            self.counters.foreign_messages += 1;
            return;
        }
        let Some(index) = known else {
            // The lender must know that nothing here uses it, or it waits for nothing.
            if !matches!(message, ToBorrower::Closed { .. } | ToBorrower::Refuse { .. }) {
                self.disown(id, from, out);
            }
            return;
        };
        match message {
            ToBorrower::Promise(promise) => self.promised(index, promise, out),
            ToBorrower::Refuse { why, .. } => {
                if matches!(self.loans[index].phase, Phase::Asking { .. }) {
                    out.push(self.record(What::Refused, index, Why::Told(why)));
                    let loan = self.loans.remove(index);
                    self.back_off(&loan.place);
                    self.forget_offer(&loan.place);
                }
            }
            ToBorrower::Notice { token, why, .. } => {
                if token < self.loans[index].token {
                    self.counters.stale_messages += 1;
                    return;
                }
                match self.loans[index].phase {
                    Phase::Active { .. } | Phase::Resuming { .. } => {
                        self.drain(index, Why::Told(why), out);
                        self.acknowledge(index, from, out);
                    }
                    Phase::Draining => self.acknowledge(index, from, out),
                    Phase::Asking { .. } | Phase::Closing { .. } => {}
                }
            }
            ToBorrower::Over { token, why, .. } => {
                if token < self.loans[index].token {
                    self.counters.stale_messages += 1;
                    return;
                }
                if !matches!(self.loans[index].phase, Phase::Closing { .. }) {
                    out.push(self.record(What::Stopped, index, Why::Told(why)));
                }
                self.loans.remove(index);
                self.disown(id, from, out);
            }
            ToBorrower::Closed { .. } => {
                if matches!(self.loans[index].phase, Phase::Closing { .. }) {
                    self.loans.remove(index);
                }
            }
        }
    }

    fn promised(&mut self, index: usize, promise: Promise, out: &mut Vec<Output>) {
        let now = self.now;
        let loan = &self.loans[index];
        let sent = loan.attempts.iter().find(|(attempt, _)| *attempt == promise.attempt).map(|(_, at)| *at);
        let stale = promise.token <= loan.token && !self.flaws.has(Flaw::StalePromise);
        let final_phase = matches!(loan.phase, Phase::Draining | Phase::Closing { .. });
        let (Some(sent), false, false) = (sent, stale || promise.holder != self.incarnation, final_phase)
        else {
            self.counters.stale_messages += 1;
            return;
        };
        let from = if self.flaws.has(Flaw::CountFromReceipt) { now } else { sent };
        let mut until = from.saturating_add(self.stop_after(&promise.terms));
        let first = !matches!(loan.phase, Phase::Active { .. });
        if !first {
            until = until.max(loan.until);
        }
        if until <= now {
            // The answer took longer than what it promised.
            return self.stop(index, Why::NotRenewed, out);
        }
        let renew_at = sent.saturating_add(promise.terms.renew);
        let loan = &mut self.loans[index];
        loan.token = promise.token;
        loan.amount = promise.amount;
        loan.terms = promise.terms;
        loan.until = until;
        loan.phase = Phase::Active { renew_at };
        loan.attempts.retain(|(attempt, _)| promise.attempt <= *attempt);
        out.push(Output::Raise(Allowance {
            loan: loan.id.clone(),
            tenant: loan.tenant.clone(),
            place: loan.place.clone(),
            amount: loan.amount,
            token: loan.token,
            until,
        }));
        if first {
            let place = loan.place.clone();
            let (tenant, by) = (loan.tenant.clone(), loan.amount);
            self.backoffs.retain(|backoff| backoff.place != place);
            self.forget_offer(&place);
            let class = self.class_of(&tenant);
            out.push(self.record(What::Borrowed, index, Why::Short { tenant, by, class }));
        }
    }

    /// Says that a notice was heard. As with a release, the allowance is shortened first, each time.
    fn acknowledge(&self, index: usize, to: &Node, out: &mut Vec<Output>) {
        let Borrowed { id, until, .. } = &self.loans[index];
        let loan = id.clone();
        out.push(Output::Shorten { loan: loan.clone(), until: *until });
        let message = ToLender::Acknowledge { loan, incarnation: self.incarnation };
        out.push(Output::Send { to: to.clone(), message });
    }

    /// Releases a loan that is not known, or no longer. An earlier start of this daemon may have left an
    /// allowance behind, so that goes first.
    fn disown(&self, loan: LoanId, to: &Node, out: &mut Vec<Output>) {
        out.push(Output::Drop(loan.clone()));
        let message = ToLender::Release { loan, incarnation: self.incarnation };
        out.push(Output::Send { to: to.clone(), message });
    }
}
