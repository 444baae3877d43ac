//! The lender and its ledger: reading, claiming, writing, and telling the device and the borrowers in this order.

use super::{Held, Lender, Output, Pending, Phase, send};
use crate::loan::flaw::Flaw;
use crate::loan::ledger::{Ledger, Revision, Standing};
use crate::loan::message::{Promise, ToBorrower};
use crate::loan::names::LoanId;
use crate::loan::point::{Accepted, Stale};
use crate::loan::record::What;
use crate::loan::store::{OpId, StoreCommand, StoreReply};
use crate::loan::why::Why;
use crate::units::Micros;

/// A promise that is being written.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    loan: LoanId,
    pending: Pending,
}

#[derive(Clone, Debug)]
enum State {
    /// The ledger must be read, but not before.
    Unread {
        not_before: Micros,
    },
    Reading {
        op: OpId,
        deadline: Micros,
    },
    Claiming {
        op: OpId,
        deadline: Micros,
        ledger: Ledger,
    },
    Swapping {
        op: OpId,
        deadline: Micros,
        covers: Vec<Cover>,
    },
    Installing {
        covers: Vec<Cover>,
    },
    Settled,
    Fenced,
}

/// What the lender knows of its ledger.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    state: State,
    /// Set once the ledger is this lender's.
    epoch: Option<u64>,
    revision: Revision,
    ops: u64,
    /// Whether the ledger should be written.
    dirty: bool,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            state: State::Unread { not_before: Micros::ZERO },
            epoch: None,
            revision: Revision::default(),
            ops: 0,
            dirty: false,
        }
    }

    pub(super) fn is_fenced(&self) -> bool {
        matches!(self.state, State::Fenced)
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.epoch.is_some()
    }

    /// Whether the store answers: what is decided now will be written soon.
    pub(super) fn is_well(&self) -> bool {
        self.is_claimed()
            && matches!(self.state, State::Swapping { .. } | State::Installing { .. } | State::Settled)
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    pub(super) fn wake_at(&self) -> Option<Micros> {
        match self.state {
            State::Unread { not_before } => Some(not_before),
            State::Reading { deadline, .. }
            | State::Claiming { deadline, .. }
            | State::Swapping { deadline, .. } => Some(deadline),
            State::Installing { .. } | State::Settled | State::Fenced => None,
        }
    }

    fn op(&mut self) -> OpId {
        self.ops += 1;
        OpId(self.ops)
    }

    fn awaits(&self, reply: OpId) -> bool {
        match self.state {
            State::Reading { op, .. } | State::Claiming { op, .. } | State::Swapping { op, .. } => {
                op == reply
            }
            _ => false,
        }
    }
}

impl Lender {
    /// Reads the ledger when it must be read, and gives up on answers that do not come.
    pub(super) fn mind_the_store(&mut self, out: &mut Vec<Output>) {
        let overdue = match &self.desk.state {
            State::Reading { deadline, .. }
            | State::Claiming { deadline, .. }
            | State::Swapping { deadline, .. } => *deadline <= self.now,
            _ => false,
        };
        if overdue {
            self.counters.store_unanswered += 1;
            self.read_again(self.now);
        }
        if let State::Unread { not_before } = self.desk.state
            && not_before <= self.now
        {
            let op = self.desk.op();
            self.desk.state =
                State::Reading { op, deadline: self.now.saturating_add(self.lending.store_within) };
            out.push(Output::Store(StoreCommand::Read { op, place: self.place.clone() }));
        }
    }

    /// Writes the ledger if it should be and can be.
    pub(super) fn write(&mut self, out: &mut Vec<Output>) {
        let (State::Settled, Some(epoch), true) = (&self.desk.state, self.desk.epoch, self.desk.dirty) else {
            return;
        };
        self.desk.dirty = false;
        let mut covers = Vec::new();
        for held in &mut self.loans {
            if let Some(pending) = held.pending.take() {
                covers.push(Cover { loan: held.loan.id.clone(), pending });
                held.loan.holder = held.loan.holder.max(pending.holder);
                held.loan.class = pending.class;
            }
        }
        let ledger = self.ledger(epoch);
        if self.flaws.has(Flaw::PromiseEarly) {
            self.promise(&covers, out);
        }
        let op = self.desk.op();
        let deadline = self.now.saturating_add(self.lending.store_within);
        self.desk.state = State::Swapping { op, deadline, covers };
        let (place, expected) = (self.place.clone(), self.desk.revision);
        out.push(Output::Store(StoreCommand::Swap { op, place, expected, ledger }));
    }

    /// The store answered.
    pub(super) fn stored(&mut self, reply: StoreReply, out: &mut Vec<Output>) {
        // What comes too late has been given up on; reading again showed what became of it.
        if !self.desk.awaits(reply.op()) {
            return;
        }
        match reply {
            StoreReply::Read { revision, ledger, .. } => self.read(revision, ledger, out),
            StoreReply::Swapped { revision, .. } => self.swapped(revision, out),
            StoreReply::Conflict { .. } => {
                self.counters.conflicts += 1;
                self.read_again(self.now);
            }
            StoreReply::Failed { .. } => {
                self.counters.store_unanswered += 1;
                self.read_again(self.now.saturating_add(self.lending.resend));
            }
        }
    }

    /// Goes back to reading. What was being promised waits for the next swap.
    fn read_again(&mut self, not_before: Micros) {
        let state = core::mem::replace(&mut self.desk.state, State::Unread { not_before });
        if let State::Swapping { covers, .. } = state {
            for cover in covers {
                let held = self.loans.iter_mut().find(|held| held.loan.id == cover.loan);
                if let Some(held) = held {
                    held.pending = held.pending.max(Some(cover.pending));
                }
            }
            self.desk.dirty = true;
        }
    }

    fn read(&mut self, revision: Revision, ledger: Ledger, out: &mut Vec<Output>) {
        match self.desk.epoch {
            // A store may let a read lag behind what it confirmed. It will catch up.
            Some(_) if revision < self.desk.revision => {
                self.read_again(self.now.saturating_add(self.lending.resend));
            }
            Some(epoch) if ledger.epoch <= epoch => {
                self.desk.revision = revision;
                self.desk.state = State::Settled;
                self.desk.dirty = true;
            }
            Some(_) => self.fence(out),
            None => {
                let claimed = Ledger { epoch: ledger.epoch.saturating_add(1), loans: ledger.loans };
                let op = self.desk.op();
                let deadline = self.now.saturating_add(self.lending.store_within);
                self.desk.state = State::Claiming { op, deadline, ledger: claimed.clone() };
                let place = self.place.clone();
                out.push(Output::Store(StoreCommand::Swap {
                    op,
                    place,
                    expected: revision,
                    ledger: claimed,
                }));
            }
        }
    }

    fn swapped(&mut self, revision: Revision, out: &mut Vec<Output>) {
        self.desk.revision = revision;
        let covers = match core::mem::replace(&mut self.desk.state, State::Settled) {
            State::Claiming { ledger, .. } => {
                self.take_over(ledger);
                Vec::new()
            }
            State::Swapping { covers, .. } => covers,
            // Only those two have a swap under way.
            other => {
                self.desk.state = other;
                return;
            }
        };
        self.counters.swaps += 1;
        for cover in &covers {
            self.extend(cover, out);
        }
        self.desk.state = State::Installing { covers };
        out.push(Output::Install { token: revision, table: self.table() });
    }

    /// The ledger is this lender's now, with all that its predecessors have promised. Any of it may have been
    /// promised just now, so all of it counts from now.
    fn take_over(&mut self, ledger: Ledger) {
        self.desk.epoch = Some(ledger.epoch);
        let forgetful = self.flaws.has(Flaw::ForgetAtRestart);
        for loan in ledger.loans {
            if forgetful {
                self.desk.dirty = true;
                continue;
            }
            let phase = match loan.standing {
                Standing::Active => Phase::Active,
                Standing::Cut => {
                    Phase::Cut { again: self.now, evict_at: self.now, why: "it was taken back".into() }
                }
            };
            let lapses = self.now.saturating_add(self.reuse_after(&loan.terms));
            self.loans.push(Held {
                loan,
                phase,
                since: self.now,
                lapses,
                pending: None,
                answered: None,
                granted_because: None,
            });
        }
    }

    /// A promise is written: from now on the capacity is not this lender's until it lapses.
    fn extend(&mut self, cover: &Cover, out: &mut Vec<Output>) {
        let Some(index) = self.position(&cover.loan) else { return };
        if self.loans[index].phase == Phase::Granting && !self.still_fits(&self.loans[index]) {
            // Its owner woke up while it was written. Nobody was promised anything.
            let loan = self.loans[index].loan.id.clone();
            let why: std::sync::Arc<str> = format!("{} wants it itself", self.loans[index].loan.owner).into();
            out.push(send(&loan, ToBorrower::Refuse { loan: loan.clone(), why }));
            self.close(index, Why::Withdrawn, out);
            return;
        }
        let (now, silent) = (self.now, self.flaws.has(Flaw::SilentRenewal));
        let lapses = now.saturating_add(self.reuse_after(&self.loans[index].loan.terms));
        let held = &mut self.loans[index];
        match held.phase {
            Phase::Granting => {
                held.phase = Phase::Active;
                held.since = now;
                held.lapses = lapses;
            }
            Phase::Active if !silent => held.lapses = lapses,
            Phase::Active | Phase::Noticed { .. } | Phase::Cut { .. } => {}
        }
    }

    fn still_fits(&self, held: &Held) -> bool {
        let owner = self.owners.iter().find(|state| state.owner.tenant == held.loan.owner);
        owner.is_some_and(|state| {
            let kept = state.owner.nominal.saturating_sub(self.lent(&held.loan.owner));
            let rested = state.rests_until <= self.now || self.flaws.has(Flaw::NoRest);
            rested && state.wants.min(state.owner.nominal).fits(kept)
        })
    }

    /// The device has the table, or refused it.
    pub(super) fn installed(&mut self, result: Result<Accepted, Stale>, out: &mut Vec<Output>) {
        let State::Installing { covers } = core::mem::replace(&mut self.desk.state, State::Settled) else {
            return;
        };
        let accepted = match result {
            Ok(accepted) => accepted,
            Err(_) => return self.fence(out),
        };
        for loan in accepted.without_room {
            if let Some(index) = self.position(&loan) {
                out.push(self.over(&loan, &Why::NoRoom.to_string()));
                self.close(index, Why::NoRoom, out);
            }
        }
        for loan in accepted.cut {
            if let Some(index) = self.position(&loan) {
                self.mark_cut(index, "it was taken back".into());
            }
        }
        if !self.flaws.has(Flaw::PromiseEarly) {
            self.promise(&covers, out);
        }
    }

    fn promise(&mut self, covers: &[Cover], out: &mut Vec<Output>) {
        for Cover { loan, pending } in covers {
            let Some(index) = self.position(loan) else { continue };
            let early = self.flaws.has(Flaw::PromiseEarly);
            let held = &mut self.loans[index];
            if !held.is_active() && !early {
                continue;
            }
            held.answered = held.answered.max(Some((pending.holder, pending.attempt)));
            let granted = held.granted_because.take();
            let promise = Promise {
                loan: loan.clone(),
                holder: pending.holder,
                attempt: pending.attempt,
                token: Revision(self.desk.revision.0 + u64::from(early)),
                place: self.place.clone(),
                amount: held.loan.amount,
                terms: held.loan.terms,
            };
            let loan = held.loan.clone();
            out.push(match granted {
                Some(why) => self.record(What::Granted, &loan, why),
                None => self.record(What::Renewed, &loan, Why::StillIdle { owner: loan.owner.clone() }),
            });
            out.push(send(&loan.id, ToBorrower::Promise(promise)));
        }
    }

    fn fence(&mut self, out: &mut Vec<Output>) {
        self.desk.state = State::Fenced;
        self.waiting.clear();
        out.push(Output::Fenced);
    }
}
