//! What borrowers say.

use super::{Lender, NEVER, Output, Pending, Phase, Waiting, send};
use crate::loan::flaw::Flaw;
use crate::loan::ledger::Loan;
use crate::loan::limits::WAITING_MAX;
use crate::loan::message::{Ask, Peer, ToBorrower, ToLender};
use crate::loan::names::LoanId;
use crate::loan::record::{Record, What};
use crate::loan::why::Why;
use crate::units::Micros;

impl Lender {
    pub(super) fn hear(&mut self, from: Peer, message: ToLender, out: &mut Vec<Output>) {
        // Before the ledger is read nothing can be answered truly; borrowers repeat themselves.
        if !self.desk.is_claimed() {
            return;
        }
        let any_speaker = self.flaws.has(Flaw::AnySpeaker);
        if message.loan().node != from.node && !any_speaker {
            self.counters.foreign_messages += 1;
            return;
        }
        match message {
            ToLender::Ask(ask) => self.asked(from, ask, out),
            ToLender::Renew { loan, incarnation, attempt, class } => {
                let pending = Pending { holder: incarnation, attempt, class };
                self.renew(&loan, pending, out);
            }
            ToLender::Acknowledge { loan, incarnation } => self.acknowledged(&loan, incarnation, out),
            ToLender::Release { loan, incarnation } => self.released(&loan, incarnation, out),
        }
    }

    fn asked(&mut self, from: Peer, ask: Ask, out: &mut Vec<Output>) {
        let home = &self.place.district;
        let leaves = ask.guest.district != *home;
        let refusal = if ask.place != self.place {
            Some(Why::WrongPlace)
        } else if ask.guest.district != from.district && !self.flaws.has(Flaw::AnySpeaker) {
            Some(Why::NotYours { claimed: ask.guest.clone(), by: from.district.clone() })
        } else if leaves && !ask.data.may_leave_its_district() && !self.flaws.has(Flaw::RawCrosses) {
            Some(Why::RawStaysHome { from: ask.guest.district.clone(), to: home.clone() })
        } else if ask.amount.sm < self.lending.least {
            Some(Why::AskedTooLittle { least: self.lending.least })
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.refuse(&ask, why, out);
        }
        if self.position(&ask.loan).is_some() {
            // Asked again: the answer was lost, or is under way. A new answer needs a new promise.
            let pending = Pending { holder: ask.loan.incarnation, attempt: ask.attempt, class: ask.class };
            return self.renew(&ask.loan.clone(), pending, out);
        }
        let class = self.incidents.class_of(&ask.guest, ask.class).0;
        let ask = Ask { class, ..ask };
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ask.loan == ask.loan) {
            if waiting.ask.attempt < ask.attempt {
                waiting.ask = ask;
            }
        } else if WAITING_MAX <= self.waiting.len() {
            self.refuse(&ask, Why::Crowded, out);
        } else {
            self.waiting.push(Waiting { from, ask, since: self.now });
        }
    }

    fn renew(&mut self, loan: &LoanId, pending: Pending, out: &mut Vec<Output>) {
        let Some(index) = self.position(loan) else {
            // Its borrower believes in something that is not on record: it must stop.
            out.push(self.over(loan, &Why::Unknown.to_string()));
            return;
        };
        let token = self.desk.revision();
        let held = &mut self.loans[index];
        if pending.holder < held.loan.holder && !self.flaws.has(Flaw::AnyHolder) {
            self.counters.stale_messages += 1;
            return;
        }
        match &held.phase {
            Phase::Granting | Phase::Active => {
                // A sending that was answered already needs no other answer: the borrower sends anew if it
                // did not hear it.
                if held.answered < Some((pending.holder, pending.attempt)) {
                    held.pending = held.pending.max(Some(pending));
                    self.desk.touch();
                }
            }
            Phase::Noticed { why, .. } => {
                let notice = ToBorrower::Notice { loan: loan.clone(), token, why: why.clone() };
                out.push(send(loan, notice));
            }
            Phase::Cut { why, .. } => {
                let over = ToBorrower::Over { loan: loan.clone(), token, why: why.clone() };
                out.push(send(loan, over));
            }
        }
    }

    /// The borrower drains. It never takes the loan up again in this life, so the lender need not wait for the
    /// last promise to run out.
    fn acknowledged(&mut self, loan: &LoanId, incarnation: u64, out: &mut Vec<Output>) {
        let Some(index) = self.current(loan, incarnation) else { return };
        let stopped_at = if self.flaws.has(Flaw::AckIsRelease) {
            self.now
        } else {
            self.now.saturating_add(self.loans[index].loan.terms.notice)
        };
        let held = &mut self.loans[index];
        match &mut held.phase {
            Phase::Noticed { acknowledged, .. } => *acknowledged = true,
            Phase::Active => {
                // This lender was restarted since it gave the notice.
                let why = "it was called back".into();
                held.phase = Phase::Noticed { acknowledged: true, again: NEVER, why };
            }
            Phase::Granting | Phase::Cut { .. } => return,
        }
        if stopped_at < held.lapses {
            held.lapses = stopped_at;
            out.push(self.settle(loan, stopped_at));
        }
    }

    /// The borrower has stopped, for good.
    fn released(&mut self, loan: &LoanId, incarnation: u64, out: &mut Vec<Output>) {
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.ask.loan == *loan) {
            self.waiting.remove(index);
        }
        if self.position(loan).is_some() {
            let Some(index) = self.current(loan, incarnation) else { return };
            let why = if self.loans[index].phase == Phase::Granting { Why::Withdrawn } else { Why::Released };
            out.push(self.settle(loan, self.now));
            self.close(index, why, out);
        }
        out.push(send(loan, ToBorrower::Closed { loan: loan.clone() }));
    }

    /// The loan, unless it was taken up by a later start of the borrower's daemon than this one.
    fn current(&mut self, loan: &LoanId, incarnation: u64) -> Option<usize> {
        let index = self.position(loan)?;
        if incarnation < self.loans[index].loan.holder && !self.flaws.has(Flaw::AnyHolder) {
            self.counters.stale_messages += 1;
            return None;
        }
        Some(index)
    }

    fn settle(&self, loan: &LoanId, lapses: Micros) -> Output {
        Output::Settle { token: self.desk.revision(), loan: loan.clone(), lapses }
    }

    pub(super) fn refuse(&self, ask: &Ask, why: Why, out: &mut Vec<Output>) {
        let text = why.to_string().into();
        out.push(Output::Record(Record {
            what: What::Refused,
            loan: ask.loan.clone(),
            place: self.place.clone(),
            owner: None,
            guest: ask.guest.clone(),
            data: Some(ask.data),
            amount: ask.amount,
            token: self.desk.revision(),
            why,
        }));
        out.push(send(&ask.loan, ToBorrower::Refuse { loan: ask.loan.clone(), why: text }));
    }

    pub(super) fn loan_of(&self, ask: &Ask, owner: crate::loan::Tenant, amount: crate::loan::Amount) -> Loan {
        Loan {
            id: ask.loan.clone(),
            owner,
            guest: ask.guest.clone(),
            data: ask.data,
            class: ask.class,
            amount,
            terms: self.lending.terms,
            holder: ask.loan.incarnation,
            age: Micros::ZERO,
            standing: crate::loan::Standing::Active,
        }
    }
}
