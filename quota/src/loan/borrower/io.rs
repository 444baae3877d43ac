//! What goes into a borrower and what comes out.

use crate::loan::allowances::Allowance;
use crate::loan::amount::Amount;
use crate::loan::data::DataClass;
use crate::loan::incident::Incident;
use crate::loan::ledger::Loan;
use crate::loan::message::{ToBorrower, ToLender};
use crate::loan::names::{District, LoanId, Node, Place, Tenant};
use crate::loan::record::Record;
use crate::tenant::{Class, Mode};
use crate::units::Micros;

/// A tenant that may borrow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// The tenant, of this node's district.
    pub tenant: Tenant,
    /// Its class when no incident raises it.
    pub class: Class,
    /// Whether it borrows at all.
    pub mode: Mode,
    /// Most it may have borrowed at once; `None` is no cap.
    pub borrowing_limit: Option<Amount>,
    /// What it sends to a device.
    pub data: DataClass,
}

/// What a tenant would use on other nodes' devices now: its demand, less what it gets here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want {
    /// The tenant.
    pub tenant: Tenant,
    /// How much. Memory is what one loan must bring along.
    pub amount: Amount,
}

/// What another node's device has to lend, from the load summaries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The device.
    pub place: Place,
    /// The most it lends in one loan.
    pub amount: Amount,
    /// How far it is, in the unit of [`Peer::distance`](crate::loan::Peer::distance).
    pub distance: u32,
}

/// Something happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// Tenants whose want changed.
    Wants(Vec<Want>),
    /// What others have to lend; each replaces what was known of its device.
    Offers(Vec<Offer>),
    /// A lender spoke.
    Heard {
        /// Its node, as authenticated.
        from: Node,
        /// What it said.
        message: ToBorrower,
    },
    /// The tenant has nothing under way under the loan any more, nor memory.
    Drained(LoanId),
    /// After a restart: this node's loans as their ledgers have them.
    Found(Vec<(Place, Loan)>),
    /// The operator changed who may borrow.
    Configure(Vec<Client>),
    /// An incident was declared.
    Declared(Incident),
    /// An incident was ended before its time.
    Ended {
        /// Who declared it.
        issuer: District,
        /// Its number.
        number: u64,
    },
}

/// Something is to be done. In this order: if one cannot be carried out, what follows must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// [`Allowances::raise`](crate::loan::Allowances::raise).
    Raise(Allowance),
    /// [`Allowances::shorten`](crate::loan::Allowances::shorten).
    Shorten {
        /// Which.
        loan: LoanId,
        /// When it ends.
        until: Micros,
    },
    /// [`Allowances::drop`](crate::loan::Allowances::drop).
    Drop(LoanId),
    /// Place nothing new under the loan; say [`Input::Drained`] when nothing is left.
    Drain(LoanId),
    /// Tell a lender.
    Send {
        /// Its node.
        to: Node,
        /// What.
        message: ToLender,
    },
    /// Write into the audit log.
    Record(Record),
}

/// What a borrower counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Messages overtaken by newer ones, or meant for an earlier start of this daemon.
    pub stale_messages: u64,
    /// Messages about loans of another lender or another borrower.
    pub foreign_messages: u64,
    /// Loans that ended because they could not be renewed.
    pub not_renewed: u64,
    /// Declarations that did not count.
    pub incidents_refused: u64,
}
