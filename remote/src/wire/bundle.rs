//! Several connections between two daemons that carry one stream of bytes.
//!
//! ```text
//! first connection     dialler: Open,  then chunks        acceptor: Opened (a ticket, how many), then chunks
//! a further one        dialler: Join (the ticket)         acceptor: Joined, then chunks, or Refused
//!                      .. once it has heard Joined: chunks
//! card      0 u32 magic  4 u8 which  5 u8 number  6 u16 zero  8 u64 name  16 [u8; 16] secret
//! chunk     0 u64 sequence  8 u32 bytes  12 the bytes
//! ```
//!
//! Chunks of a direction are numbered from 0 across all connections, and on each of them they come in that order. Both
//! sides know of bundles by the protocol that their handshake agreed upon; who does not is never told of any.

use super::codec::{Malformed, Put, Reader};
use super::frame::Ticket;
use crate::limits::CHUNK_BYTES_MAX;

/// Bytes of a card.
pub const CARD_BYTES: usize = 32;
/// Bytes in front of a chunk.
pub const CHUNK_HEAD_BYTES: usize = 12;
const MAGIC: u32 = u32::from_le_bytes(*b"HGB1");

/// What the two ends of a connection say before its first chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Card {
    /// A stream begins here.
    Open,
    /// It may have further connections.
    Opened {
        /// Names the stream, and proves a claim to it.
        ticket: Ticket,
        /// How many connections it may have, with this one.
        most: u8,
    },
    /// This is a further connection of a stream.
    Join {
        /// Which.
        ticket: Ticket,
    },
    /// So it is: chunks may come over it.
    Joined,
    /// It is not.
    Refused(Refusal),
}

/// Why a connection is no part of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// There is no such stream, or it is another node's: nobody is told which.
    #[error("no such session is carried there, or it is another node's")]
    Unknown = 1,
    /// It has as many connections as it may have.
    #[error("the session has as many connections there as it may have")]
    Full = 2,
}

impl Card {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; CARD_BYTES] {
        let (which, number, ticket) = match *self {
            Self::Open => (1, 0, Ticket::default()),
            Self::Opened { ticket, most } => (2, most, ticket),
            Self::Join { ticket } => (3, 0, ticket),
            Self::Joined => (4, 0, Ticket::default()),
            Self::Refused(refusal) => (5, refusal as u8, Ticket::default()),
        };
        let mut bytes = [0; CARD_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&[which, number]);
        bytes[8..16].copy_from_slice(&ticket.session.to_le_bytes());
        bytes[16..].copy_from_slice(&ticket.secret);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &[u8; CARD_BYTES]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let magic = u32::from_le_bytes(reader.exact(4)?.try_into().unwrap_or_default());
        if magic != MAGIC {
            return Err(Malformed::Unknown { what: "bundle of connections", value: magic.into() });
        }
        let [which, number] = reader.exact(2)?.try_into().unwrap_or_default();
        reader.exact(2)?;
        let session = reader.word()?;
        let ticket = Ticket { session, secret: reader.exact(16)?.try_into().unwrap_or_default() };
        Ok(match (which, number) {
            (1, _) => Self::Open,
            (2, most) => Self::Opened { ticket, most },
            (3, _) => Self::Join { ticket },
            (4, _) => Self::Joined,
            (5, 1) => Self::Refused(Refusal::Unknown),
            (5, 2) => Self::Refused(Refusal::Full),
            (5, reason) => {
                return Err(Malformed::Unknown { what: "reason for a refusal", value: reason.into() });
            }
            _ => return Err(Malformed::Unknown { what: "card of a connection", value: which.into() }),
        })
    }
}

/// What stands in front of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkHead {
    /// Its number, from 0, among all chunks of its direction.
    pub sequence: u64,
    /// Bytes behind this, at least one.
    pub bytes: usize,
}

impl ChunkHead {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; CHUNK_HEAD_BYTES] {
        let mut encoded = Vec::with_capacity(CHUNK_HEAD_BYTES);
        encoded.word(self.sequence);
        encoded.extend_from_slice(&u32::try_from(self.bytes).unwrap_or(u32::MAX).to_le_bytes());
        encoded.try_into().unwrap_or_default()
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it announces nothing, or more than a chunk may hold.
    pub fn decode(bytes: &[u8; CHUNK_HEAD_BYTES]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let sequence = reader.word()?;
        let length = u32::from_le_bytes(reader.exact(4)?.try_into().unwrap_or_default());
        match usize::try_from(length) {
            Ok(0) => Err(Malformed::Misplaced("an empty chunk")),
            Ok(bytes) if bytes <= CHUNK_BYTES_MAX => Ok(Self { sequence, bytes }),
            _ => Err(Malformed::TooLong { length: length.into(), most: CHUNK_BYTES_MAX }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_come_back_and_strangers_are_refused() {
        let ticket = Ticket { session: u64::MAX - 7, secret: [5; 16] };
        let cards = [
            Card::Open,
            Card::Opened { ticket, most: 4 },
            Card::Join { ticket },
            Card::Joined,
            Card::Refused(Refusal::Unknown),
            Card::Refused(Refusal::Full),
        ];
        for card in cards {
            let bytes = card.encode();
            assert_eq!(Card::decode(&bytes), Ok(card));
            for (at, value) in [(0, 0), (4, 0), (4, 6)] {
                let mut wrong = bytes;
                wrong[at] = value;
                assert!(Card::decode(&wrong).is_err(), "{card:?} with {value} at {at}");
            }
        }
        let mut senseless = Card::Refused(Refusal::Full).encode();
        senseless[5] = 3;
        assert!(Card::decode(&senseless).is_err(), "no such reason");
    }

    #[test]
    fn chunks_are_neither_empty_nor_longer_than_they_may_be() {
        let head = ChunkHead { sequence: 1 << 40, bytes: CHUNK_BYTES_MAX };
        assert_eq!(ChunkHead::decode(&head.encode()), Ok(head));
        for bytes in [0, CHUNK_BYTES_MAX + 1, u32::MAX as usize] {
            assert!(ChunkHead::decode(&ChunkHead { bytes, ..head }.encode()).is_err(), "{bytes}");
        }
    }
}
