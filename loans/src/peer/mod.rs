//! Nodes that speak to each other: gRPC over mutual TLS.
//!
//! ```text
//!   borrower's daemon                          lender's daemon
//!   Link --- Converse: asks, renewals, releases ---> Service --> desk
//!        <-- the same stream: promises, notices ---            <-- desk
//!   any node --- Exchange: what it has to lend ---> its district's lead --- Exchange ---> other leads
//!            <-- what all others have ---
//! ```
//!
//! A lender answers on the stream that its borrower opened, so it dials nobody and a district behind a firewall
//! can still borrow. Every message carries the start of its sender's daemon and a count: what is not greater than
//! the last of its kind is a repetition or was overtaken, and is refused. Nothing is queued for a peer that cannot
//! be reached: the protocol repeats what matters.
//!
//! Remote sessions come to the same port over connections of their own, told apart inside the handshake. Whoever
//! carries them ([`Peers::dial`], [`Peers::sessions`]) finds the other end's identity settled.

mod link;
mod service;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_quota::loan::{Node, ToBorrower, ToLender};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::identity::Identity;
use crate::limits::{LINKS_MAX, OUTBOX_MAX, SESSIONS_WAITING_MAX};
use crate::refused::{Reason, Refusals};
use crate::tls::{Purpose, Tls};
use crate::wire::{Body, Frame, Said, WireSummary};

pub use service::{Permit, Session};

/// A connection that this node has dialled, and one that it has accepted.
pub type Dialled = TlsStream<TcpStream>;
/// See [`Dialled`].
pub type Accepted = tokio_rustls::server::TlsStream<TcpStream>;

/// Has a connection say at once what it is given, and take no more than it can say before long.
fn tune(stream: &TcpStream, unsent_bytes_max: u32) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(unsent_bytes_max)
}

/// The same for a connection that is a session's second or later. What the kernel takes of all of them is ahead of what the
/// session says next.
///
/// # Errors
/// When the kernel refuses.
pub fn tune_further(stream: &TcpStream, unsent_bytes_max: u32) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(unsent_bytes_max)
}

/// What peers said.
#[derive(Debug)]
pub enum Heard {
    /// Something about a loan.
    Said {
        /// Who, as its certificate says.
        from: Identity,
        /// What.
        said: Said,
    },
    /// A load summary; it is answered with one.
    Summary {
        /// Who.
        from: Identity,
        /// What it has.
        summary: WireSummary,
        /// Where to answer.
        reply: oneshot::Sender<WireSummary>,
    },
}

/// How a peer stands, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkView {
    /// Who.
    pub node: Node,
    /// `dialled` or `accepted`.
    pub direction: &'static str,
    /// Where it was dialled, or came from.
    pub address: String,
    /// Whether something came back since it last broke.
    pub up: bool,
}

/// Kinds of what is counted in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    ToLender,
    ToBorrower,
    Summary,
    SummaryReply,
}

/// Where a sender is in what it says.
#[derive(Debug, Default)]
struct Order {
    heard: HashMap<(Kind, Node), (u64, u64)>,
}

impl Order {
    /// Whether this comes after everything that was heard before.
    fn admits(&mut self, kind: Kind, from: &Node, start: u64, sequence: u64) -> bool {
        let known = self.heard.get(&(kind, from.clone())).copied().unwrap_or_default();
        if (start, sequence) <= known {
            return false;
        }
        // Peers are few and authenticated; one entry for each of them stays.
        self.heard.insert((kind, from.clone()), (start, sequence));
        true
    }
}

#[derive(Debug)]
struct Shared {
    tls: Tls,
    start: u64,
    unsent_bytes_max: u32,
    sent: AtomicU64,
    heard: mpsc::Sender<Heard>,
    sessions: mpsc::Sender<Session>,
    arrivals: Mutex<Option<mpsc::Receiver<Session>>>,
    refusals: Arc<Refusals>,
    order: Mutex<Order>,
    /// Streams that borrowers opened: the way back to them.
    back: Mutex<HashMap<Node, Back>>,
    links: Mutex<HashMap<Node, Link>>,
    channels: Mutex<HashMap<Node, (String, Channel)>>,
}

#[derive(Debug)]
struct Back {
    /// Tells two streams of one node apart.
    stream: u64,
    from: SocketAddr,
    outbox: mpsc::Sender<Result<Frame, tonic::Status>>,
}

#[derive(Debug)]
struct Link {
    address: String,
    outbox: mpsc::Sender<ToLender>,
    up: watch::Receiver<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps of handles stay whole whatever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn next(&self) -> u64 {
        self.sent.fetch_add(1, Relaxed) + 1
    }

    fn frame(&self, body: Body) -> Frame {
        Frame { start: self.start, sequence: self.next(), body: Some(body) }
    }

    /// Reads a frame of a peer, or counts why not.
    fn admit(&self, kind: Kind, from: &Identity, frame: Frame) -> Option<Said> {
        let refuse = |reason| {
            self.refusals.count(reason, &from.to_string());
            None
        };
        if !locked(&self.order).admits(kind, from.node(), frame.start, frame.sequence) {
            return refuse(Reason::Replayed);
        }
        match frame.body.map(Said::try_from) {
            Some(Ok(said)) if matches!(said, Said::ToLender(_)) == (kind == Kind::ToLender) => Some(said),
            _ => refuse(Reason::Malformed),
        }
    }

    /// Hands on what was heard. A desk that is behind loses it: peers repeat themselves.
    fn hand_on(&self, from: &Identity, said: Said) {
        if self.heard.try_send(Heard::Said { from: from.clone(), said }).is_err() {
            self.refusals.count(Reason::Crowded, &from.to_string());
        }
    }
}

/// All peers of this node.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Shared>);

impl Peers {
    /// Peers that are heard on `heard`. `start` must be greater than that of any earlier start of this daemon;
    /// `unsent_bytes_max` is of [`PeerSettings`](crate::settings::PeerSettings).
    #[must_use]
    pub fn new(
        tls: Tls,
        start: u64,
        unsent_bytes_max: u32,
        heard: mpsc::Sender<Heard>,
        refusals: Arc<Refusals>,
    ) -> Self {
        let (sessions, arrivals) = mpsc::channel(SESSIONS_WAITING_MAX);
        Self(Arc::new(Shared {
            tls,
            start,
            unsent_bytes_max,
            sent: AtomicU64::new(0),
            heard,
            sessions,
            arrivals: Mutex::new(Some(arrivals)),
            refusals,
            order: Mutex::default(),
            back: Mutex::default(),
            links: Mutex::default(),
            channels: Mutex::default(),
        }))
    }

    /// Accepts peers until `stop`.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        service::serve(Arc::clone(&self.0), listener, stop).await;
    }

    /// Remote sessions that peers open, for the first who asks. While nobody takes them they are refused.
    #[must_use]
    pub fn sessions(&self) -> Option<mpsc::Receiver<Session>> {
        locked(&self.0.arrivals).take()
    }

    /// Opens a connection for a remote session. What it is for in the end is what its handshake agreed upon.
    ///
    /// # Errors
    /// When the node cannot be reached in time, or is another one.
    pub async fn dial(
        &self,
        to: &Identity,
        address: &str,
        purpose: Purpose,
    ) -> io::Result<TlsStream<TcpStream>> {
        link::dial(&self.0, to, address, purpose).await
    }

    /// Tells a lender, at the address where its node is known to listen.
    pub fn tell_lender(&self, to: &Identity, address: &str, message: ToLender) {
        let mut links = locked(&self.0.links);
        if links.get(to.node()).is_none_or(|link| link.address != address || link.outbox.is_closed()) {
            if LINKS_MAX <= links.len() && !links.contains_key(to.node()) {
                self.0.refusals.count(Reason::Crowded, &to.to_string());
                return;
            }
            let (outbox, inbox) = mpsc::channel(OUTBOX_MAX);
            let (up, seen) = watch::channel(false);
            tokio::spawn(link::run(Arc::clone(&self.0), to.clone(), address.to_owned(), inbox, up));
            links.insert(to.node().clone(), Link { address: address.to_owned(), outbox, up: seen });
        }
        if let Some(link) = links.get(to.node()) {
            // A full outbox is a peer that does not answer; what matters is said again.
            let _lost = link.outbox.try_send(message);
        }
    }

    /// Tells a borrower, if it has a stream open. If not, it will ask again.
    pub fn tell_borrower(&self, to: &Node, message: ToBorrower) {
        let back = locked(&self.0.back);
        if let Some(back) = back.get(to) {
            // Counted under the lock, so that frames leave in the order of their counts.
            let _lost = back.outbox.try_send(Ok(self.0.frame(message.into())));
        }
    }

    /// Sends a load summary and returns the peer's.
    pub async fn exchange(
        &self,
        to: &Identity,
        address: &str,
        mut summary: WireSummary,
        patience: Duration,
    ) -> Option<WireSummary> {
        summary.start = self.0.start;
        summary.sequence = self.0.next();
        let channel = link::channel(&self.0, to, address)?;
        let reply = tokio::time::timeout(patience, link::exchange(channel, summary)).await.ok()??;
        if locked(&self.0.order).admits(Kind::SummaryReply, to.node(), reply.start, reply.sequence) {
            Some(reply)
        } else {
            self.0.refusals.count(Reason::Replayed, &to.to_string());
            None
        }
    }

    /// A summary with this node's count in it, for an answer.
    #[must_use]
    pub fn numbered(&self, mut summary: WireSummary) -> WireSummary {
        summary.start = self.0.start;
        summary.sequence = self.0.next();
        summary
    }

    /// How the peers stand.
    #[must_use]
    pub fn links(&self) -> Vec<LinkView> {
        let dialled = locked(&self.0.links)
            .iter()
            .map(|(node, link)| LinkView {
                node: node.clone(),
                direction: "dialled",
                address: link.address.clone(),
                up: *link.up.borrow(),
            })
            .collect::<Vec<_>>();
        let accepted = locked(&self.0.back)
            .iter()
            .map(|(node, back)| LinkView {
                node: node.clone(),
                direction: "accepted",
                address: back.from.to_string(),
                up: true,
            })
            .collect::<Vec<_>>();
        let mut all = [dialled, accepted].concat();
        all.sort_by(|a, b| (&a.node, a.direction).cmp(&(&b.node, b.direction)));
        all
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod order {
    use super::*;

    #[test]
    fn what_is_repeated_or_overtaken_is_not_admitted() {
        let (a, b) = (Node::new("north.a").unwrap(), Node::new("south.b").unwrap());
        let mut order = Order::default();
        assert!(order.admits(Kind::ToLender, &a, 7, 1));
        assert!(!order.admits(Kind::ToLender, &a, 7, 1), "repeated");
        assert!(order.admits(Kind::ToLender, &a, 7, 5), "lost ones leave gaps");
        assert!(!order.admits(Kind::ToLender, &a, 7, 3), "overtaken");
        assert!(order.admits(Kind::ToLender, &b, 7, 3), "another sender");
        assert!(order.admits(Kind::Summary, &a, 7, 3), "another kind");
        assert!(order.admits(Kind::ToLender, &a, 8, 1), "a later start counts anew");
        assert!(!order.admits(Kind::ToLender, &a, 7, 99), "of an earlier start");
    }
}
