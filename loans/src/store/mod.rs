//! Where ledgers are kept: one trait, two back ends, one suite of tests for both.
//!
//! | back end | what it is | districts |
//! |---|---|---|
//! | [`Embedded`] | a file on the node, transactions flushed to disk | each keeps its own devices' ledgers |
//! | [`Nats`] | JetStream's key-value buckets | one bucket for all |
//!
//! A grant is one [`LoanStore::swap`]. What a store promises is said in [`headgate_quota::loan::store`]; the
//! one thing added here is [`LoanStore::start`], the number of a daemon's start.

mod embedded;
mod nats;

use std::fmt;

use futures_util::future::BoxFuture;
use headgate_quota::loan::codec::BadLedger;
use headgate_quota::loan::{Ledger, Node, Place, Revision};

pub use embedded::Embedded;
pub use nats::{Nats, NatsOptions};

/// What came of a swap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Swap {
    /// Written, as this revision.
    Done(Revision),
    /// Not written: the ledger has another revision.
    Conflict,
}

/// A ledger as a store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Whose.
    pub place: Place,
    /// Its revision.
    pub revision: Revision,
    /// Its content.
    pub ledger: Ledger,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's file or the disk under it.
    #[error("loan store {}: {what}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What happened, and what to do.
        what: String,
    },
    /// Nobody knows whether it was carried out.
    #[error("NATS ({step}): {what}")]
    Unanswered {
        /// Which step.
        step: &'static str,
        /// What the client said.
        what: String,
    },
    /// What is kept under a key is no ledger of this version.
    #[error("the ledger of {key}: {source}")]
    Unreadable {
        /// The key.
        key: String,
        /// Why not.
        source: BadLedger,
    },
}

/// Keeps ledgers.
pub trait LoanStore: fmt::Debug + Send + Sync {
    /// The word for it in configuration and metrics.
    fn word(&self) -> &'static str;

    /// The newest ledger of a device; revision zero and an empty ledger if it was never written.
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<(Revision, Ledger), StoreError>>;

    /// Replaces a ledger if its revision is the expected one, zero for one that must not exist.
    fn swap<'a>(
        &'a self,
        place: &'a Place,
        expected: Revision,
        ledger: &'a Ledger,
    ) -> BoxFuture<'a, Result<Swap, StoreError>>;

    /// Counts a start of a node's daemon. Each number is greater than any before it, for this node.
    fn start<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Every ledger this store has.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>>;
}
