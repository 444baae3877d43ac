//! What is written into the audit log: every grant, refusal, renewal and reclaim, with its reason.

use core::fmt;

use super::amount::Amount;
use super::data::DataClass;
use super::ledger::Revision;
use super::names::{Guest, LoanId, Place, Tenant};
use super::why::Why;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum What {
    /// The lender granted a loan.
    Granted,
    /// The lender refused one; also written by the borrower that hears it.
    Refused,
    /// The lender renewed one.
    Renewed,
    /// The lender called one back.
    Noticed,
    /// The lender took one back at once.
    Cut,
    /// The lender stopped a guest that kept memory.
    Evicted,
    /// The lender closed one.
    Closed,
    /// The borrower asked for one.
    Asked,
    /// The borrower took one up.
    Borrowed,
    /// The borrower began to drain one.
    Draining,
    /// The borrower stopped using one.
    Stopped,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Granted,
        Self::Refused,
        Self::Renewed,
        Self::Noticed,
        Self::Cut,
        Self::Evicted,
        Self::Closed,
        Self::Asked,
        Self::Borrowed,
        Self::Draining,
        Self::Stopped,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Renewed => "renewed",
            Self::Noticed => "noticed",
            Self::Cut => "cut",
            Self::Evicted => "evicted",
            Self::Closed => "closed",
            Self::Asked => "asked",
            Self::Borrowed => "borrowed",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What was done.
    pub what: What,
    /// To which loan.
    pub loan: LoanId,
    /// On which device, of which district.
    pub place: Place,
    /// Whose quota, where the writer knows.
    pub owner: Option<Tenant>,
    /// For whom.
    pub guest: Guest,
    /// What data it lets out, where the writer knows.
    pub data: Option<DataClass>,
    /// How much.
    pub amount: Amount,
    /// The revision of the ledger it rests on.
    pub token: Revision,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} loan={} place={} owner=", self.what, self.loan, self.place)?;
        match &self.owner {
            Some(owner) => write!(f, "{owner}")?,
            None => f.write_str("-")?,
        }
        write!(
            f,
            " guest={} data={} sm={} memory={} token={} why={}",
            self.guest,
            self.data.map_or("-", DataClass::word),
            self.amount.sm.0,
            self.amount.memory.0,
            self.token,
            self.why
        )
    }
}
