//! Loans: quota that one node's tenants leave idle, used by another node's for a while.
//!
//! A device has one lender, the daemon of its node, and one ledger in a store. A grant is one
//! compare-and-swap on that ledger, and the ledger's revision is the token that fences everything that follows.
//!
//! ```text
//!   borrower's node                       lender's node                          store
//!   ---------------                       -------------                          -----
//!   Borrower --Ask, Renew, Release--> Lender --Swap(expected revision)--> ledger of the device
//!      |    <--Promise, Notice, Over--   |   <--Swapped(revision)--
//!      v                                 v
//!   Allowances (what may be placed)   DevicePoint (who may use the device)
//! ```
//!
//! Everything here is sans-IO: [`Lender`] and [`Borrower`] take an input and the time, and say what is to be done.
//! The two enforcement points are functions of a table and the time; they outlive the daemon where the
//! gates do. Why it is safe: `docs/loans.md`. That it is: the module `sim` (feature `simulation`), which drives this very code.
//!
//! Read in this order: [`names`], [`amount`], [`data`], [`terms`], [`settings`], [`ledger`], [`codec`],
//! [`store`], [`message`], [`why`], [`record`], [`audit`], [`incident`], [`peaks`], [`policy`], [`point`],
//! [`allowances`], [`lender`], [`borrower`].

pub mod limits;
pub mod names;
pub mod amount;
pub mod data;
pub mod terms;
pub mod settings;
pub mod ledger;
pub mod codec;
pub mod store;
pub mod message;
pub mod why;
pub mod record;
pub mod audit;
pub mod incident;
pub mod peaks;
pub mod policy;
pub mod point;
pub mod allowances;
pub mod lender;
pub mod borrower;
pub mod flaw;

pub use allowances::{Allowance, Allowances};
pub use amount::Amount;
pub use borrower::Borrower;
pub use data::DataClass;
pub use incident::{Incident, Incidents};
pub use ledger::{Ledger, Loan, Owner, Revision, Standing};
pub use lender::Lender;
pub use message::{Ask, Peer, Promise, ToBorrower, ToLender};
pub use names::{Device, District, Guest, IncidentName, LoanId, Node, Place, Tenant};
pub use point::{DevicePoint, Limits, Line, Usage};
pub use record::{Record, What};
pub use settings::{Borrowing, Lending};
pub use store::{OpId, StoreCommand, StoreReply};
pub use terms::Terms;
pub use why::Why;
