//! Sessions as the status shows them.

use serde::{Deserialize, Serialize};

use super::carry::{Role, Session};
use super::confined::Confinement;

/// A session that both daemons carry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionView {
    /// `borrower` or `lender`: which end is here.
    pub role: String,
    /// The tenant on this node: the program's, or the guest.
    pub tenant: String,
    /// The node at the other end, `district.name`.
    pub peer: String,
    /// The loan it stands on.
    pub loan: String,
    /// What may be sent: the class of data.
    pub data: String,
    /// Whether it has a connection now.
    pub connected: bool,
    /// `going`, or what becomes of it while its loan is over: `parting`, `aside`, `returning`.
    #[serde(default)]
    pub phase: String,
    /// Whether the program, which is here, shares rings with this daemon. Otherwise its bytes come over its socket.
    #[serde(default)]
    pub rings: bool,
    /// Connections to the other daemon that it goes over now.
    #[serde(default)]
    pub connections: usize,
    /// Bytes of numbered frames to the device, and back.
    pub up_bytes: u64,
    /// See `up_bytes`.
    pub down_bytes: u64,
    /// Process id of its worker, where that is here.
    pub worker: Option<u32>,
    /// What the worker is confined by, where it is here.
    pub confined: Option<Confinement>,
}

impl SessionView {
    pub(super) fn of(role: Role, tenant: &str, peer: &str, session: &Session) -> Self {
        let (about, (up, down)) = (session.about(), session.marks());
        Self {
            role: role.word().to_owned(),
            tenant: tenant.to_owned(),
            peer: peer.to_owned(),
            loan: about.loan.clone(),
            data: about.data.to_owned(),
            connected: session.is_connected(),
            phase: session.phases().now().word().to_owned(),
            rings: false,
            connections: 0,
            up_bytes: up.counts.total(),
            down_bytes: down.counts.total(),
            worker: None,
            confined: None,
        }
    }

    /// The district at the other end.
    pub(super) fn peer_district(&self) -> &str {
        self.peer.split('.').next().unwrap_or_default()
    }
}
