//! What is written down: one ledger a device, kept by its lender, changed by compare-and-swap as a whole.
//!
//! The revision the store gives a ledger is the fencing token of everything that follows from it.

use core::fmt;

use super::amount::Amount;
use super::data::DataClass;
use super::names::{Guest, LoanId, Tenant};
use super::terms::Terms;
use crate::tenant::Class;
use crate::units::Micros;

/// A store's count of a ledger's changes; zero is a ledger that was never written. Grows with every write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a tenant owns on one device, and how much of it may be lent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The tenant, of the device's district.
    pub tenant: Tenant,
    /// Its class when no incident raises it.
    pub class: Class,
    /// What it owns.
    pub nominal: Amount,
    /// Most of it that may be out at once. Memory comes back slowly, so its limit is zero unless asked for.
    pub lending_limit: Amount,
}

/// Whether a recorded loan still gives anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// The borrower may use it.
    Active,
    /// Taken back at the device without asking. Kept until the borrower cannot believe in it any more.
    Cut,
}

/// One loan as recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loan {
    /// Its identity.
    pub id: LoanId,
    /// Whose quota it is.
    pub owner: Tenant,
    /// Who may use it.
    pub guest: Guest,
    /// What the guest may send to the device.
    pub data: DataClass,
    /// The guest's class when it last renewed.
    pub class: Class,
    /// How much.
    pub amount: Amount,
    /// Its times.
    pub terms: Terms,
    /// Which start of the borrower's daemon holds it. Grows when a restarted daemon takes the loan up again.
    pub holder: u64,
    /// How old it was when last written, by the lender's clock. A span, so that it survives a restart.
    pub age: Micros,
    /// Whether it still gives anything.
    pub standing: Standing,
}

/// All loans of one device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Counts the lenders that took the ledger over. One lender, one epoch.
    pub epoch: u64,
    /// Loans not yet over.
    pub loans: Vec<Loan>,
}

impl Ledger {
    /// What is out of an owner's quota.
    #[must_use]
    pub fn lent(&self, owner: &Tenant) -> Amount {
        self.loans
            .iter()
            .filter(|loan| loan.owner == *owner && loan.standing == Standing::Active)
            .map(|loan| loan.amount)
            .sum()
    }
}
