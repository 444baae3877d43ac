//! What the configuration says about loans between nodes.

pub mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use headgate_quota::loan::{Amount, Borrowing, DataClass, Lending};

use super::model::Name;

/// `spec.loans`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loans {
    /// Where ledgers are kept.
    pub store: Store,
    /// Other nodes.
    pub peers: Option<Peers>,
    /// How this node's tenants lend.
    pub lending: Lending,
    /// How they borrow.
    pub borrowing: Borrowing,
    /// Most bytes of guests' device memory that are kept in this node's memory while their loans are over.
    pub set_aside: headgate_quota::Bytes,
    /// Connections to another node that one remote session may go over; as its processors suggest if it does not say.
    pub connections: Option<u8>,
}

/// Where ledgers are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Store {
    /// In the state directory.
    #[default]
    Embedded,
    /// In NATS.
    Nats(NatsStore),
}

/// A NATS bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsStore {
    /// Servers.
    pub urls: Vec<String>,
    /// The bucket.
    pub bucket: String,
    /// Copies that a cluster keeps.
    pub replicas: usize,
    /// A file that holds the token.
    pub token: Option<PathBuf>,
    /// Roots for the server's certificate.
    pub ca: Option<PathBuf>,
    /// This client's certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How this node speaks to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peers {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others find it.
    pub advertise: String,
    /// Its certificate.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// Authorities by the district they may vouch for.
    pub authorities: BTreeMap<Name, PathBuf>,
    /// The lead of its district; `None` if it is the lead itself.
    pub lead: Option<PeerNode>,
    /// Leads of other districts.
    pub leads: Vec<PeerNode>,
    /// How often load summaries go out.
    pub summary_every: Duration,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerNode {
    /// Its district.
    pub district: Name,
    /// Its name.
    pub node: Name,
    /// `host:port`.
    pub address: String,
}

/// What a tenant may borrow on other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Borrow {
    /// The most it may have at once.
    pub limit: Amount,
    /// Memory that each loan must bring along.
    pub memory: headgate_quota::Bytes,
    /// What it sends there.
    pub data: DataClass,
    /// How much its sessions may send to another district; `None` for as much as they like.
    pub budget: Option<ByteBudget>,
    /// Which of its programs start there.
    pub programs: BorrowedPrograms,
    /// How long a program whose device was taken back waits to have it again. Zero: it hears at once that it is gone.
    pub patience: Duration,
}

/// Which programs of a tenant that borrows start on the borrowed device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BorrowedPrograms {
    /// Those that are started with `headgate run --remote`.
    #[default]
    Asked,
    /// While there is a loan, every one that `headgate run` starts, unless it is told `--local`.
    Next,
}

/// Bytes that are granted anew in each period. What is left of one lapses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteBudget {
    /// How many, everything on the wire included.
    pub bytes: headgate_quota::Bytes,
    /// How often.
    pub every: Duration,
}
