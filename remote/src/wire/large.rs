//! What is mostly bytes: a piece of a copy, its beginning told apart from its bytes.
//!
//! A piece of at least [`LARGE_BYTES`](crate::limits::LARGE_BYTES) travels in a frame of its own, so that its bytes need be
//! nowhere but where they come from and where they belong: whoever sends it writes the beginning and then the memory itself,
//! and whoever receives it reads the beginning and then the rest into its place. On the wire it is a frame like any other, and
//! may be received like any other.

use super::codec::{Malformed, Put as _, Reader};
use super::notice::DATA;
use super::operation::code;
use crate::limits::PIECE_BYTES_MAX;

/// No beginning is longer: a code and three numbers.
pub const BEGINNING_BYTES: usize = 32;

/// The beginning of [`Operation::Write`](super::operation::Operation::Write).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteHead {
    /// In which stream.
    pub stream: u32,
    /// Device address.
    pub to: u64,
    /// How many bytes follow.
    pub bytes: usize,
}

/// The beginning of [`Operation::Late`](super::operation::Operation::Late).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LateHead {
    /// For which stream that waits.
    pub token: u64,
    /// Device address.
    pub to: u64,
    /// Whether they are the last.
    pub last: bool,
    /// How many bytes follow.
    pub bytes: usize,
}

/// The beginning of [`Notice::Data`](super::operation::Notice::Data).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHead {
    /// Of which read.
    pub token: u64,
    /// Where the bytes belong.
    pub offset: u64,
    /// How many follow.
    pub bytes: usize,
}

impl WriteHead {
    /// Adds it to a payload; the bytes themselves come next.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.push(code::WRITE);
        to.varint(self.stream.into());
        to.varint(self.to);
        to.varint(self.bytes as u64);
    }

    /// Reads the beginning of a payload that holds one operation and is `payload` bytes long: what it is, and how long
    /// the beginning was; `None` if the operation is another.
    ///
    /// # Errors
    /// When the bytes that follow are not as many as it says, or too many.
    pub fn decode(beginning: &[u8], payload: usize) -> Result<Option<(Self, usize)>, Malformed> {
        let mut reader = Reader::new(beginning);
        if reader.byte()? != code::WRITE {
            return Ok(None);
        }
        let (stream, to) = (reader.varint32()?, reader.varint()?);
        let (bytes, length) = rest(&mut reader, beginning, payload)?;
        Ok(Some((Self { stream, to, bytes }, length)))
    }
}

impl LateHead {
    /// Adds it to a payload; the bytes themselves come next.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.push(code::LATE);
        to.varint(self.token);
        to.varint(self.to);
        to.push(self.last.into());
        to.varint(self.bytes as u64);
    }

    /// Whether a payload of one operation is such bytes.
    #[must_use]
    pub fn begins(payload: &[u8]) -> bool {
        payload.first() == Some(&code::LATE)
    }
}

impl DataHead {
    /// Adds it to a payload; the bytes themselves come next.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.push(DATA);
        to.varint(self.token);
        to.varint(self.offset);
        to.varint(self.bytes as u64);
    }

    /// Reads the beginning of a payload that holds one notice, as [`WriteHead::decode`] does.
    ///
    /// # Errors
    /// Likewise.
    pub fn decode(beginning: &[u8], payload: usize) -> Result<Option<(Self, usize)>, Malformed> {
        let mut reader = Reader::new(beginning);
        if reader.byte()? != DATA {
            return Ok(None);
        }
        let (token, offset) = (reader.varint()?, reader.varint()?);
        let (bytes, length) = rest(&mut reader, beginning, payload)?;
        Ok(Some((Self { token, offset, bytes }, length)))
    }
}

/// How many bytes follow, which must be all that is left of the payload, and how long the beginning was.
fn rest(reader: &mut Reader<'_>, beginning: &[u8], payload: usize) -> Result<(usize, usize), Malformed> {
    let told = reader.varint()?;
    let bytes = usize::try_from(told).ok().filter(|&bytes| bytes <= PIECE_BYTES_MAX);
    let bytes = bytes.ok_or(Malformed::TooLong { length: told, most: PIECE_BYTES_MAX })?;
    let length = beginning.len() - reader.left();
    match length + bytes {
        all if all < payload => Err(Malformed::Misplaced("bytes behind the last operation")),
        all if all > payload => Err(Malformed::Short),
        _ => Ok((bytes, length)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::operation::{Notice, Operation};

    proptest! {
        #[test]
        fn a_beginning_is_that_of_the_whole(
            stream: u32, to: u64, token: u64, offset: u64, bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut payload = Vec::new();
            Operation::Write { stream, to, bytes: &bytes }.encode(&mut payload);
            let beginning = &payload[..payload.len().min(BEGINNING_BYTES)];
            let (head, length) = WriteHead::decode(beginning, payload.len()).unwrap().unwrap();
            prop_assert_eq!(head, WriteHead { stream, to, bytes: bytes.len() });
            prop_assert_eq!(&payload[length..], &bytes[..]);
            prop_assert_eq!(DataHead::decode(beginning, payload.len()), Ok(None));
            for wrong in [payload.len() - 1, payload.len() + 1] {
                prop_assert!(WriteHead::decode(beginning, wrong).is_err());
            }
            payload.clear();
            Notice::Data { token, offset, bytes: &bytes }.encode(&mut payload);
            let beginning = &payload[..payload.len().min(BEGINNING_BYTES)];
            let (head, length) = DataHead::decode(beginning, payload.len()).unwrap().unwrap();
            prop_assert_eq!(head, DataHead { token, offset, bytes: bytes.len() });
            prop_assert_eq!(&payload[length..], &bytes[..]);
        }

        #[test]
        fn noise_is_read_or_refused(beginning: [u8; BEGINNING_BYTES], payload in 0usize..(5 << 20)) {
            if let Ok(Some((head, length))) = WriteHead::decode(&beginning, payload) {
                prop_assert!(head.bytes <= PIECE_BYTES_MAX && head.bytes + length == payload);
            }
            if let Ok(Some((head, length))) = DataHead::decode(&beginning, payload) {
                prop_assert!(head.bytes <= PIECE_BYTES_MAX && head.bytes + length == payload);
            }
        }
    }
}
