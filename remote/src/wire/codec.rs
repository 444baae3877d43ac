//! Bytes in and out.

use thiserror::Error;

/// What the other side sent is not what it may send. The session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// It ends in the middle of something.
    #[error("cut short")]
    Short,
    /// A number has more digits than fit.
    #[error("a number that does not fit")]
    Overlong,
    /// A length beyond its bound.
    #[error("{length} bytes where {most} may be")]
    TooLong {
        /// What was announced.
        length: u64,
        /// What is allowed.
        most: usize,
    },
    /// A value that means nothing.
    #[error("{what}: {value} means nothing")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// Another version of the wire: another release of Headgate.
    #[error(
        "version {theirs} of the wire over there and version {ours} here; install the same release of Headgate on both nodes"
    )]
    Version {
        /// The other side's.
        theirs: u8,
        /// This side's.
        ours: u8,
    },
    /// The same version of the wire, and another table of calls.
    #[error("another table of calls over there; install the same release of Headgate on both nodes")]
    Table,
    /// Something in the wrong place: too many arguments, bytes behind the last operation.
    #[error("{0}")]
    Misplaced(&'static str),
}

/// Adds values to a payload.
pub trait Put {
    /// A number of unknown size.
    fn varint(&mut self, value: u64);
    /// Eight bytes.
    fn word(&mut self, value: u64);
    /// Length and bytes.
    fn run(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.push(value.to_le_bytes()[0]);
    }

    fn word(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn run(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

/// Takes values from a payload.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the beginning.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(first)
    }

    /// A number.
    ///
    /// # Errors
    /// When it is cut short or does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let digits = u64::from(byte & 0x7f);
            if shift == 63 && digits > 1 {
                return Err(Malformed::Overlong);
            }
            value |= digits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Overlong)
    }

    /// A number of at most 32 bits.
    ///
    /// # Errors
    /// As [`Reader::varint`].
    pub fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed::Overlong)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn word(&mut self) -> Result<u64, Malformed> {
        let (word, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*word))
    }

    /// As many bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn exact(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Length and bytes, at most so many.
    ///
    /// # Errors
    /// When they are cut short or more.
    pub fn run(&mut self, most: usize) -> Result<&'a [u8], Malformed> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(fits) if fits <= most => self.exact(fits),
            _ => Err(Malformed::TooLong { length, most }),
        }
    }

    /// A text of at most so many bytes.
    ///
    /// # Errors
    /// As [`Reader::run`], and when it is not UTF-8.
    pub fn text(&mut self, most: usize) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.run(most)?).map_err(|_| Malformed::Misplaced("a text that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(values: Vec<u64>) {
            let mut bytes = Vec::new();
            for &value in &values {
                bytes.varint(value);
                bytes.word(value);
            }
            let mut reader = Reader::new(&bytes);
            for &value in &values {
                prop_assert_eq!(reader.varint(), Ok(value));
                prop_assert_eq!(reader.word(), Ok(value));
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn noise_is_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while let Ok(run) = reader.run(64) {
                prop_assert!(run.len() <= 64);
                if reader.is_empty() { break }
            }
        }
    }

    #[test]
    fn no_number_has_an_eleventh_byte() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed::Overlong));
        assert_eq!(Reader::new(&[0xff; 3]).varint(), Err(Malformed::Short));
        let mut most = vec![0xff; 9];
        most.push(1);
        assert_eq!(Reader::new(&most).varint(), Ok(u64::MAX));
        most[9] = 2;
        assert_eq!(Reader::new(&most).varint(), Err(Malformed::Overlong));
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_taken() {
        let mut bytes = Vec::new();
        bytes.varint(u64::MAX);
        assert_eq!(Reader::new(&bytes).run(10), Err(Malformed::TooLong { length: u64::MAX, most: 10 }));
    }
}
