//! The enforcement point of a borrowing node: what its tenants may place on other nodes' devices.
//!
//! An allowance ends by itself. It is raised only by a promise newer than the last, and only by the newest start
//! of the node's daemon; anyone of that start may lower it.

use core::fmt;

use super::amount::Amount;
use super::flaw::{Flaw, Flaws};
use super::ledger::Revision;
use super::names::{LoanId, Place, Tenant};
use crate::units::Micros;

/// What a loan allows one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// The loan.
    pub loan: LoanId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where.
    pub place: Place,
    /// How much.
    pub amount: Amount,
    /// The promise it rests on.
    pub token: Revision,
    /// When it ends by itself.
    pub until: Micros,
}

/// An order that came too late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A newer promise was applied already.
    StaleToken {
        /// The token it carried.
        token: Revision,
        /// The last one applied.
        last: Revision,
    },
    /// The daemon was started again since.
    OldIncarnation {
        /// Which start it came from.
        by: u64,
        /// The newest.
        newest: u64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleToken { token, last } => {
                write!(f, "token {token} is not newer than {last}, which is applied already")
            }
            Self::OldIncarnation { by, newest } => {
                write!(f, "start {by} of the daemon was followed by start {newest}")
            }
        }
    }
}

impl core::error::Error for Refused {}

/// All allowances of a node.
#[derive(Clone, Debug, Default)]
pub struct Allowances {
    incarnation: u64,
    lines: Vec<Allowance>,
    stale: u64,
    flaws: Flaws,
}

impl Allowances {
    /// A node that borrows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a protection away.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn with_flaws(mut self, flaws: Flaws) -> Self {
        self.flaws = flaws;
        self
    }

    /// From now on only this start of the daemon, or a later one, is listened to. What earlier ones raised
    /// holds until it ends.
    pub fn adopt(&mut self, incarnation: u64) {
        self.incarnation = self.incarnation.max(incarnation);
    }

    /// Raises or renews an allowance.
    pub fn raise(&mut self, by: u64, allowance: Allowance) -> Result<(), Refused> {
        self.admit(by)?;
        match self.lines.iter_mut().find(|line| line.loan == allowance.loan) {
            Some(line) if allowance.token <= line.token && !self.flaws.has(Flaw::StalePromise) => {
                self.stale += 1;
                return Err(Refused::StaleToken { token: allowance.token, last: line.token });
            }
            Some(line) => *line = allowance,
            None => self.lines.push(allowance),
        }
        Ok(())
    }

    /// Ends an allowance at `until` if that is sooner.
    pub fn shorten(&mut self, by: u64, loan: &LoanId, until: Micros) -> Result<(), Refused> {
        self.admit(by)?;
        for line in self.lines.iter_mut().filter(|line| line.loan == *loan) {
            line.until = line.until.min(until);
        }
        Ok(())
    }

    /// Ends an allowance now.
    pub fn drop(&mut self, by: u64, loan: &LoanId) -> Result<(), Refused> {
        self.admit(by)?;
        self.lines.retain(|line| line.loan != *loan);
        Ok(())
    }

    /// What holds at `now`.
    pub fn held(&self, now: Micros) -> impl Iterator<Item = &Allowance> {
        self.lines.iter().filter(move |line| now < line.until)
    }

    /// When an allowance next ends by itself.
    #[must_use]
    pub fn next_change(&self, now: Micros) -> Option<Micros> {
        self.held(now).map(|line| line.until).min()
    }

    /// Orders refused.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    fn admit(&mut self, by: u64) -> Result<(), Refused> {
        if by < self.incarnation && !self.flaws.has(Flaw::OldIncarnation) {
            self.stale += 1;
            return Err(Refused::OldIncarnation { by, newest: self.incarnation });
        }
        Ok(())
    }
}
