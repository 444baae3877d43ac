//! What the protocol needs of a store, as commands and replies: two operations on one value per device.
//!
//! Any store fits that can replace a value on condition that nobody else has, and that counts its changes:
//! an embedded database, JetStream's key-value buckets (the revision is the sequence), Kubernetes objects
//! (with a count of our own in the object, since `resourceVersion` is opaque). What a store must promise:
//!
//! 1. A swap that was confirmed is never lost, and every later read or swap sees it or something newer.
//! 2. A swap happens only if the revision is the expected one, and its new revision is greater.
//! 3. An operation may be carried out although its reply was lost, and late; never twice.
//!
//! A read that may lag (JetStream's direct gets) costs a conflict, not safety.

use super::ledger::{Ledger, Revision};
use super::names::Place;

/// Tells replies apart. Unique within one lender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// What the store is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreCommand {
    /// The newest ledger of a device.
    Read {
        /// Named in the reply.
        op: OpId,
        /// Whose ledger.
        place: Place,
    },
    /// Replace it if it has not changed.
    Swap {
        /// Named in the reply.
        op: OpId,
        /// Whose ledger.
        place: Place,
        /// The revision it must have; zero if there must be none.
        expected: Revision,
        /// What to write.
        ledger: Ledger,
    },
}

/// What it answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreReply {
    /// The ledger as it is; revision zero and an empty ledger if there is none.
    Read {
        /// Of the command.
        op: OpId,
        /// Its revision.
        revision: Revision,
        /// Its content.
        ledger: Ledger,
    },
    /// Written.
    Swapped {
        /// Of the command.
        op: OpId,
        /// The new revision.
        revision: Revision,
    },
    /// Not written: the ledger had another revision.
    Conflict {
        /// Of the command.
        op: OpId,
    },
    /// Nobody knows whether it was carried out.
    Failed {
        /// Of the command.
        op: OpId,
    },
}

impl StoreReply {
    /// Which command it answers.
    #[must_use]
    pub const fn op(&self) -> OpId {
        match self {
            Self::Read { op, .. }
            | Self::Swapped { op, .. }
            | Self::Conflict { op }
            | Self::Failed { op } => *op,
        }
    }
}
