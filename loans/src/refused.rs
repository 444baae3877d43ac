//! What was refused at the door: counted always, logged once for each reason and peer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::limits::REFUSALS_LOGGED_MAX;

/// Why a peer or what it said was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// A certificate that names no node, or several.
    NoIdentity,
    /// A certificate of a district without an authority here.
    UnknownDistrict,
    /// A certificate whose time is over, or has not begun.
    Expired,
    /// A certificate that the authority of the district it names has not signed.
    UntrustedIssuer,
    /// Another node answered than was dialled.
    WrongPeer,
    /// The handshake broke for another reason, or took too long.
    Handshake,
    /// A message that was seen before, or was overtaken by a later one.
    Replayed,
    /// A message longer than messages are.
    Oversized,
    /// A message that is none.
    Malformed,
    /// A message about what is not the sender's to speak of.
    NotYours,
    /// More connections or messages than can be kept.
    Crowded,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NoIdentity,
        Self::UnknownDistrict,
        Self::Expired,
        Self::UntrustedIssuer,
        Self::WrongPeer,
        Self::Handshake,
        Self::Replayed,
        Self::Oversized,
        Self::Malformed,
        Self::NotYours,
        Self::Crowded,
    ];

    /// The word for it in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::UnknownDistrict => "unknown_district",
            Self::Expired => "expired",
            Self::UntrustedIssuer => "untrusted_issuer",
            Self::WrongPeer => "wrong_peer",
            Self::Handshake => "handshake",
            Self::Replayed => "replayed",
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::NotYours => "not_yours",
            Self::Crowded => "crowded",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoIdentity => {
                "its certificate names no node, or several; issue one with `headgate certs issue`"
            }
            Self::UnknownDistrict => {
                "no authority is configured for its district; add one to spec.loans.peers.tls.authorities"
            }
            Self::Expired => "its certificate is not valid now; renew it, or set the clock",
            Self::UntrustedIssuer => "the authority of the district it names did not sign its certificate",
            Self::WrongPeer => "it is not the node that was dialled; correct the address",
            Self::Handshake => "the TLS handshake broke",
            Self::Replayed => "it repeated a message, or an earlier one came after a later one",
            Self::Oversized => "its message is longer than messages are",
            Self::Malformed => "its message cannot be read; is it another version?",
            Self::NotYours => "it spoke for another node or district than its own",
            Self::Crowded => "more peers or messages than can be kept",
        })
    }
}

/// Counts of what was refused.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Reason::ALL.len()],
    logged: Mutex<BTreeSet<(Reason, String)>>,
}

impl Refusals {
    /// Counts one, and logs the first of its kind.
    pub fn count(&self, reason: Reason, who: &str) {
        let place = Reason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|place| self.counts.get(place)) {
            count.fetch_add(1, Relaxed);
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < REFUSALS_LOGGED_MAX && logged.insert((reason, who.to_owned())) {
            tracing::warn!(peer = who, reason = reason.word(), "a peer was refused: {reason}");
        }
    }

    /// What was counted, by reason.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }

    /// One count.
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.counts().find(|(known, _)| *known == reason).map_or(0, |(_, count)| count)
    }
}
