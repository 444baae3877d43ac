//! What goes into a lender and what comes out.

use crate::loan::amount::Amount;
use crate::loan::incident::Incident;
use crate::loan::ledger::{Owner, Revision};
use crate::loan::message::{Peer, ToBorrower, ToLender};
use crate::loan::names::{District, LoanId, Node, Tenant};
use crate::loan::point::{Accepted, GuestMemory, Line, Stale};
use crate::loan::record::Record;
use crate::loan::store::{StoreCommand, StoreReply};

/// What a tenant that owns a part of the device wants of it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demand {
    /// The tenant.
    pub tenant: Tenant,
    /// What it uses and would use more; may exceed what it owns.
    pub wants: Amount,
    /// Whether it borrows on another node.
    pub borrows: bool,
}

/// What the daemon sees at the device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Tenants whose demand changed.
    pub demands: Vec<Demand>,
    /// Every guest that holds memory: [`DevicePoint::guest_memory`](crate::loan::DevicePoint::guest_memory).
    pub guests: Vec<GuestMemory>,
}

/// Something happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The device was looked at.
    Observed(Observed),
    /// A borrower spoke.
    Heard {
        /// Who, as authenticated.
        from: Peer,
        /// What it said.
        message: ToLender,
    },
    /// The store answered.
    Store(StoreReply),
    /// The enforcement point answered [`Output::Install`].
    Installed(Result<Accepted, Stale>),
    /// The enforcement point refused [`Output::TakeAll`].
    NotTaken {
        /// Whose guests.
        owner: Tenant,
        /// Why.
        stale: Stale,
    },
    /// The operator changed what the tenants own.
    Configure(Vec<Owner>),
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
    /// Ask the store; its reply is an [`Input::Store`].
    Store(StoreCommand),
    /// [`DevicePoint::install`](crate::loan::DevicePoint::install); its result is an [`Input::Installed`].
    Install {
        /// The fencing token.
        token: Revision,
        /// All lines.
        table: Vec<Line>,
    },
    /// [`DevicePoint::settle`](crate::loan::DevicePoint::settle).
    Settle {
        /// The token it rests on.
        token: Revision,
        /// Which line.
        loan: LoanId,
        /// When it ends.
        lapses: crate::units::Micros,
    },
    /// [`DevicePoint::cut`](crate::loan::DevicePoint::cut), at once.
    Cut(Vec<LoanId>),
    /// [`DevicePoint::take_all`](crate::loan::DevicePoint::take_all), at once: the loans are not known yet. A
    /// refusal is an [`Input::NotTaken`].
    TakeAll {
        /// The device's last token that this lender knows of.
        token: Revision,
        /// Whose guests.
        owner: Tenant,
    },
    /// Stop a guest's worker: its loan is over and it still holds memory.
    Evict(LoanId),
    /// Tell a borrower.
    Send {
        /// Its node.
        to: Node,
        /// What.
        message: ToBorrower,
    },
    /// Write into the audit log.
    Record(Record),
    /// Another lender has taken the ledger over. This one does nothing any more; the daemon makes a new one or
    /// stays out of it.
    Fenced,
}

/// What a lender counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Messages of an earlier start of a borrower's daemon.
    pub stale_messages: u64,
    /// Messages about another node's loans.
    pub foreign_messages: u64,
    /// Swaps that met a changed ledger.
    pub conflicts: u64,
    /// Store operations whose outcome was not heard.
    pub store_unanswered: u64,
    /// Swaps confirmed.
    pub swaps: u64,
    /// Declarations that did not count.
    pub incidents_refused: u64,
}
