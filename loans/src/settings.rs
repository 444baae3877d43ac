//! What a desk is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use headgate_quota::loan::{Amount, Borrowing, Device, Lending, Owner, borrower};

use crate::identity::Identity;
use crate::store::NatsOptions;
use crate::tls::TlsFiles;

/// Where ledgers are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreChoice {
    /// In a file of the desk's directory.
    Embedded,
    /// In a NATS bucket.
    Nats(NatsOptions),
}

/// A peer and where it listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerAddress {
    /// Who.
    pub identity: Identity,
    /// `host:port`.
    pub address: String,
}

/// How a node speaks to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    /// Where this node listens.
    pub listen: SocketAddr,
    /// Where others find it.
    pub advertise: String,
    /// Certificates.
    pub tls: TlsFiles,
    /// The lead of its district; `None` if this node is it.
    pub lead: Option<PeerAddress>,
    /// Leads of other districts, if this node is the lead of its own.
    pub leads: Vec<PeerAddress>,
    /// How often load summaries go out.
    pub summary_every: Duration,
    /// Bytes that the kernel holds of a connection and has not put on the wire yet, before more is taken: what remote sessions,
    /// which come over the same port, allow at their ends.
    pub unsent_bytes_max: u32,
}

/// Everything that only changes when the daemon starts again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// This node.
    pub own: Identity,
    /// Where the embedded store, the audit log and the count of starts are.
    pub directory: PathBuf,
    /// Where ledgers are kept.
    pub store: StoreChoice,
    /// Other nodes; `None` lends and borrows nothing beyond this one.
    pub peers: Option<PeerSettings>,
    /// How this district lends.
    pub lending: Lending,
    /// How this node borrows.
    pub borrowing: Borrowing,
}

/// What may change while the desk runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holdings {
    /// Devices of this node.
    pub devices: Vec<DeviceHolding>,
    /// Tenants that may borrow elsewhere.
    pub clients: Vec<borrower::Client>,
    /// Memory that a loan of each such tenant must bring, in the same order.
    pub client_memory: Vec<headgate_quota::Bytes>,
}

/// A device and who owns it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceHolding {
    /// Which.
    pub device: Device,
    /// All of it.
    pub capacity: Amount,
    /// Who owns which part.
    pub owners: Vec<Owner>,
}
