//! The enforcement point of one device: nominal quota and loans become effective limits, in one step.
//!
//! Limits are a function of the table and the time. A line lapses by itself, so that a daemon that is late,
//! paused or dead gives nobody more than was promised. Three orders change the table:
//!
//! | order | needs | does |
//! |---|---|---|
//! | [`install`](DevicePoint::install) | a token newer than the last | replaces the table |
//! | [`settle`](DevicePoint::settle) | the last token or a newer one | ends a line sooner: its borrower has stopped, or will have |
//! | [`take_all`](DevicePoint::take_all) | the last token | shuts all guests of an owner out, for its express demand |
//! | [`cut`](DevicePoint::cut) | nothing | shuts named guests out, for their owner's express demand |
//!
//! The last needs no token because it gives nothing away: whoever sends it, the guest's gate closes in the same
//! step in which the owner's opens, and a loan that was cut is never given again.

use core::fmt;

use super::amount::Amount;
use super::flaw::{Flaw, Flaws};
use super::ledger::{Owner, Revision};
use super::names::{Guest, LoanId, Tenant};
use crate::tenant::Class;
use crate::units::{Bytes, Micros};

/// A loan at the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Which loan.
    pub loan: LoanId,
    /// Whose quota it is.
    pub owner: Tenant,
    /// Who may use it.
    pub guest: Guest,
    /// How much.
    pub amount: Amount,
    /// When it ends by itself.
    pub lapses: Micros,
    /// Taken back without asking. For good: a loan that was cut never gives anything again.
    pub cut: bool,
}

/// Memory in use, as the device's ledger has it at this moment.
pub trait Usage {
    /// By a tenant that owns a part of the device.
    fn owner_memory(&self, tenant: &Tenant) -> Bytes;
    /// By a guest under a loan.
    fn guest_memory(&self, loan: &LoanId) -> Bytes;
}

/// What a tenant of the device may use now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnerLimit {
    /// The tenant.
    pub tenant: Tenant,
    /// Its limit.
    pub limit: Amount,
}

/// What a guest may use now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestLimit {
    /// Under which loan.
    pub loan: LoanId,
    /// The guest.
    pub guest: Guest,
    /// Its limit; nothing once the loan has ended.
    pub limit: Amount,
    /// Memory that counts as the guest's: its limit, or what it still holds if that is more.
    pub memory_counted: Bytes,
}

/// Memory a guest holds, be its loan over or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestMemory {
    /// Under which loan.
    pub loan: LoanId,
    /// Of whose quota.
    pub owner: Tenant,
    /// The guest.
    pub guest: Guest,
    /// How much.
    pub held: Bytes,
}

/// Every limit on the device, to be applied together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Tenants that own a part of it.
    pub owners: Vec<OwnerLimit>,
    /// Guests.
    pub guests: Vec<GuestLimit>,
}

impl Limits {
    /// The sum of all limits. Never more than the device.
    #[must_use]
    pub fn total(&self) -> Amount {
        let owners: Amount = self.owners.iter().map(|owner| owner.limit).sum();
        let guests = self.guests.iter().map(|g| Amount { sm: g.limit.sm, memory: g.memory_counted });
        owners.saturating_add(guests.sum())
    }

    /// An owner's limit.
    #[must_use]
    pub fn of_owner(&self, tenant: &Tenant) -> Option<Amount> {
        self.owners.iter().find(|owner| owner.tenant == *tenant).map(|owner| owner.limit)
    }

    /// A guest's limit.
    #[must_use]
    pub fn of_guest(&self, loan: &LoanId) -> Option<Amount> {
        self.guests.iter().find(|guest| guest.loan == *loan).map(|guest| guest.limit)
    }
}

/// What came of a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Accepted {
    /// New lines left out: their memory is in use by the owner.
    pub without_room: Vec<LoanId>,
    /// Lines that stay cut although the table has them active.
    pub cut: Vec<LoanId>,
}

/// The table's token is not newer than the last. Its sender is no longer the lender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stale {
    /// The token it carried.
    pub token: Revision,
    /// The last one applied.
    pub last: Revision,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} is not newer than {}, which is applied already", self.token, self.last)
    }
}

impl core::error::Error for Stale {}

/// The owners' nominal quotas add up to more than the device. The operator must lower them before it can lend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overcommitted {
    /// What they add up to.
    pub nominal: Amount,
    /// What the device has.
    pub capacity: Amount,
}

impl fmt::Display for Overcommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nominal quotas add up to {} of a device that has {}; lower them, or lend nothing of it",
            self.nominal, self.capacity
        )
    }
}

impl core::error::Error for Overcommitted {}

/// The enforcement point. It lives as long as the device's gates do, longer than the daemon if they do.
#[derive(Clone, Debug)]
pub struct DevicePoint {
    capacity: Amount,
    owners: Vec<Owner>,
    lines: Vec<Line>,
    token: Revision,
    /// Until then the lines are not known, and all that may be lent counts as lent.
    cold_until: Option<Micros>,
    /// Owners that took everything back while the lines were not known.
    overridden: Vec<Tenant>,
    stale: u64,
    flaws: Flaws,
}

impl DevicePoint {
    /// A point that knows of no loan, and so keeps owners at what they never lend, until the first table is
    /// installed or `reuse_after` has passed, in which every loan of an earlier life has lapsed.
    pub fn new(
        capacity: Amount,
        owners: Vec<Owner>,
        now: Micros,
        reuse_after: Micros,
    ) -> Result<Self, Overcommitted> {
        within(capacity, &owners)?;
        Ok(Self {
            capacity,
            owners,
            lines: Vec::new(),
            token: Revision::default(),
            cold_until: Some(now.saturating_add(reuse_after)),
            overridden: Vec::new(),
            stale: 0,
            flaws: Flaws::NONE,
        })
    }

    /// Takes a protection away.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn with_flaws(mut self, flaws: Flaws) -> Self {
        self.flaws = flaws;
        if flaws.has(Flaw::WarmStart) {
            self.cold_until = None;
        }
        self
    }

    /// Changes what the tenants own. What is out stays out; if it no longer fits, owners get less until it is
    /// back.
    pub fn configure(&mut self, owners: Vec<Owner>) -> Result<(), Overcommitted> {
        within(self.capacity, &owners)?;
        self.owners = owners;
        Ok(())
    }

    /// Replaces the table. Lines of the old table that are missing in the new one end now; what their guests
    /// still hold in memory counts on.
    pub fn install(
        &mut self,
        now: Micros,
        token: Revision,
        table: &[Line],
        usage: &impl Usage,
    ) -> Result<Accepted, Stale> {
        if token <= self.token && !self.flaws.has(Flaw::NoFencing) {
            self.stale += 1;
            return Err(Stale { token, last: self.token });
        }
        self.token = token;
        let mut accepted = Accepted::default();
        let old = core::mem::take(&mut self.lines);
        // What is live stays live: only lines that are new must find room.
        let is_live = |new: &Line| {
            old.iter().any(|line| line.loan == new.loan && line.amount == new.amount && live(line, now))
        };
        let (known, new): (Vec<&Line>, Vec<&Line>) = table.iter().partition(|line| is_live(line));
        for line in known {
            self.lines.push(line.clone());
        }
        for line in new {
            let was_cut = old.iter().any(|known| known.loan == line.loan && known.cut)
                || self.overridden.contains(&line.owner);
            let mut line = line.clone();
            if was_cut && !line.cut {
                line.cut = true;
                accepted.cut.push(line.loan.clone());
            }
            if live(&line, now) && !self.has_room(&line, now, usage) {
                accepted.without_room.push(line.loan.clone());
                continue;
            }
            self.lines.push(line);
        }
        for mut line in old {
            let gone = self.lines.iter().all(|known| known.loan != line.loan);
            if gone && usage.guest_memory(&line.loan) != Bytes::ZERO {
                line.lapses = line.lapses.min(now);
                self.lines.push(line);
            }
        }
        self.cold_until = None;
        self.overridden.clear();
        Ok(accepted)
    }

    /// Ends a line at `lapses` if that is sooner.
    pub fn settle(&mut self, token: Revision, loan: &LoanId, lapses: Micros) -> Result<(), Stale> {
        if token < self.token && !self.flaws.has(Flaw::NoFencing) {
            self.stale += 1;
            return Err(Stale { token, last: self.token });
        }
        for line in self.lines.iter_mut().filter(|line| line.loan == *loan) {
            line.lapses = line.lapses.min(lapses);
        }
        Ok(())
    }

    /// Shuts guests out.
    pub fn cut(&mut self, loans: &[LoanId]) {
        for line in self.lines.iter_mut().filter(|line| loans.contains(&line.loan)) {
            line.cut = true;
        }
    }

    /// Shuts out all guests of one owner, known or not, if no table was installed since `token`: a daemon that
    /// has not read its ledger speaks of the loans there were when it started.
    pub fn take_all(&mut self, token: Revision, owner: &Tenant) -> Result<(), Stale> {
        if token < self.token && !self.flaws.has(Flaw::NoFencing) {
            self.stale += 1;
            return Err(Stale { token, last: self.token });
        }
        for line in self.lines.iter_mut().filter(|line| line.owner == *owner) {
            line.cut = true;
        }
        if self.cold_until.is_some() && !self.overridden.contains(owner) {
            self.overridden.push(owner.clone());
        }
        Ok(())
    }

    /// All limits as they are at `now`.
    #[must_use]
    pub fn limits(&self, now: Micros, usage: &impl Usage) -> Limits {
        let mut limits = Limits::default();
        for line in &self.lines {
            let limit = if live(line, now) { line.amount } else { Amount::ZERO };
            limits.guests.push(GuestLimit {
                loan: line.loan.clone(),
                guest: line.guest.clone(),
                limit,
                memory_counted: limit.memory.max(usage.guest_memory(&line.loan)),
            });
        }
        for owner in &self.owners {
            let out = self.out_of(&owner.tenant, now, &limits.guests);
            limits
                .owners
                .push(OwnerLimit { tenant: owner.tenant.clone(), limit: owner.nominal.saturating_sub(out) });
        }
        self.fit(&mut limits);
        limits
    }

    /// All guests that hold memory; goes to the lender with what its owners want.
    #[must_use]
    pub fn guest_memory(&self, usage: &impl Usage) -> Vec<GuestMemory> {
        let all = self.lines.iter().map(|line| GuestMemory {
            loan: line.loan.clone(),
            owner: line.owner.clone(),
            guest: line.guest.clone(),
            held: usage.guest_memory(&line.loan),
        });
        all.filter(|guest| guest.held != Bytes::ZERO).collect()
    }

    /// When limits next change by themselves.
    #[must_use]
    pub fn next_change(&self, now: Micros) -> Option<Micros> {
        let lapses = self.lines.iter().filter(|line| live(line, now)).map(|line| line.lapses);
        lapses.chain(self.cold_until.filter(|until| now < *until)).min()
    }

    /// The last token applied.
    #[must_use]
    pub fn token(&self) -> Revision {
        self.token
    }

    /// Orders refused because a newer token was applied already.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// The table as installed.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn out_of(&self, owner: &Tenant, now: Micros, guests: &[GuestLimit]) -> Amount {
        let cold = self.cold_until.is_some_and(|until| now < until) && !self.overridden.contains(owner);
        let reserved = self.owners.iter().find(|known| cold && known.tenant == *owner);
        let reserved = reserved.map_or(Amount::ZERO, |known| known.lending_limit);
        let lines = self.lines.iter().zip(guests).filter(|(line, _)| line.owner == *owner);
        let lent = lines.map(|(_, guest)| Amount { sm: guest.limit.sm, memory: guest.memory_counted });
        reserved.max(lent.sum())
    }

    /// Loans may exceed a quota that was lowered after they were made. What they take too much, the owners of
    /// the lowest class do without.
    fn fit(&self, limits: &mut Limits) {
        let mut excess = limits.total().saturating_sub(self.capacity);
        for class in [Class::Batch, Class::Standard, Class::Express] {
            for (owner, limit) in self.owners.iter().zip(&mut limits.owners) {
                if owner.class == class {
                    let taken = limit.limit.min(excess);
                    limit.limit = limit.limit.saturating_sub(taken);
                    excess = excess.saturating_sub(taken);
                }
            }
        }
    }

    /// Whether a new line can be live: its memory must not be in use by its owner, and all lines together must
    /// fit the device, whatever the table says.
    fn has_room(&self, line: &Line, now: Micros, usage: &impl Usage) -> bool {
        let counted = |line: &Line| {
            let limit = if live(line, now) { line.amount } else { Amount::ZERO };
            Amount { sm: limit.sm, memory: limit.memory.max(usage.guest_memory(&line.loan)) }
        };
        let all: Amount = self.lines.iter().map(counted).sum::<Amount>().saturating_add(line.amount);
        let out: Bytes = self
            .lines
            .iter()
            .filter(|known| known.owner == line.owner)
            .map(|known| counted(known).memory)
            .fold(line.amount.memory, Bytes::saturating_add);
        let nominal = self.owners.iter().find(|owner| owner.tenant == line.owner);
        let nominal = nominal.map_or(Bytes::ZERO, |owner| owner.nominal.memory);
        let memory_free = line.amount.memory == Bytes::ZERO
            || out.saturating_add(usage.owner_memory(&line.owner)) <= nominal;
        all.fits(self.capacity) && memory_free
    }
}

fn live(line: &Line, now: Micros) -> bool {
    !line.cut && now < line.lapses
}

fn within(capacity: Amount, owners: &[Owner]) -> Result<(), Overcommitted> {
    let nominal: Amount = owners.iter().map(|owner| owner.nominal).sum();
    if nominal.fits(capacity) { Ok(()) } else { Err(Overcommitted { nominal, capacity }) }
}
