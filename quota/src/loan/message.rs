//! What lender and borrower say to each other.
//!
//! Any message may be lost, doubled, delayed or overtaken. Whoever speaks for a node has been authenticated by
//! the transport: [`Peer`] is what its certificate says, never what a message says.

use std::sync::Arc;

use super::amount::Amount;
use super::data::DataClass;
use super::ledger::Revision;
use super::names::{District, Guest, LoanId, Node, Place};
use super::terms::Terms;
use crate::tenant::Class;

/// The other end, as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its node.
    pub node: Node,
    /// Its district.
    pub district: District,
    /// Its part when districts compete for the same idle quota; zero comes last always.
    pub weight: u32,
    /// How far it is, in any unit that is the same for all: round trips in microseconds, say.
    pub distance: u32,
}

/// From borrower to lender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToLender {
    /// A new loan, please.
    Ask(Ask),
    /// I still use it.
    Renew {
        /// The loan.
        loan: LoanId,
        /// Which start of the borrower's daemon speaks.
        incarnation: u64,
        /// Named in the answer.
        attempt: u64,
        /// The guest's class now.
        class: Class,
    },
    /// I heard the notice and will have stopped in time.
    Acknowledge {
        /// The loan.
        loan: LoanId,
        /// Which start of the borrower's daemon speaks.
        incarnation: u64,
    },
    /// I have stopped, for good.
    Release {
        /// The loan.
        loan: LoanId,
        /// Which start of the borrower's daemon speaks.
        incarnation: u64,
    },
}

/// A request for a loan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Made by the borrower, never used again.
    pub loan: LoanId,
    /// Named in the answer.
    pub attempt: u64,
    /// The device.
    pub place: Place,
    /// For whom.
    pub guest: Guest,
    /// The guest's class.
    pub class: Class,
    /// What it will send there.
    pub data: DataClass,
    /// Compute: this much at most. Memory: this much or nothing.
    pub amount: Amount,
}

/// From lender to borrower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToBorrower {
    /// Granted or renewed: use it until [`Terms::stop_after`] from when you sent that attempt.
    Promise(Promise),
    /// No.
    Refuse {
        /// The loan asked for.
        loan: LoanId,
        /// Why, in a sentence.
        why: Arc<str>,
    },
    /// Stop within [`Terms::drain`]; there will be no renewal.
    Notice {
        /// The loan.
        loan: LoanId,
        /// The ledger's revision.
        token: Revision,
        /// Why, in a sentence.
        why: Arc<str>,
    },
    /// It is over: the device no longer lets you in.
    Over {
        /// The loan.
        loan: LoanId,
        /// The ledger's revision.
        token: Revision,
        /// Why, in a sentence.
        why: Arc<str>,
    },
    /// Your release was heard.
    Closed {
        /// The loan.
        loan: LoanId,
    },
}

/// A loan granted or renewed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// The loan.
    pub loan: LoanId,
    /// The start of the borrower's daemon it is made to.
    pub holder: u64,
    /// The sending that is answered.
    pub attempt: u64,
    /// The fencing token: the revision that records it.
    pub token: Revision,
    /// Where.
    pub place: Place,
    /// How much.
    pub amount: Amount,
    /// Its times.
    pub terms: Terms,
}

impl ToLender {
    /// The loan it is about.
    #[must_use]
    pub const fn loan(&self) -> &LoanId {
        match self {
            Self::Ask(ask) => &ask.loan,
            Self::Renew { loan, .. } | Self::Acknowledge { loan, .. } | Self::Release { loan, .. } => loan,
        }
    }

    /// The word for it in metrics and traces.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ask(_) => "ask",
            Self::Renew { .. } => "renew",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Release { .. } => "release",
        }
    }
}

impl ToBorrower {
    /// The loan it is about.
    #[must_use]
    pub const fn loan(&self) -> &LoanId {
        match self {
            Self::Promise(promise) => &promise.loan,
            Self::Refuse { loan, .. }
            | Self::Notice { loan, .. }
            | Self::Over { loan, .. }
            | Self::Closed { loan } => loan,
        }
    }

    /// The word for it in metrics and traces.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Promise(_) => "promise",
            Self::Refuse { .. } => "refuse",
            Self::Notice { .. } => "notice",
            Self::Over { .. } => "over",
            Self::Closed { .. } => "closed",
        }
    }
}
