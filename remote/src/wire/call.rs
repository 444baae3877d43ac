//! What is said before a greeting where daemons carry a session.
//!
//! Neither is believed: who speaks is known from the kernel, or from a certificate. They say what is asked for.

use super::codec::{Malformed, Put, Reader};

/// Longest name in them: a loan's, with a node's and two numbers.
const TEXT_BYTES_MAX: usize = 256;

/// A program to its own daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// The district whose device it shall be; empty for whichever lends.
    pub lender: String,
}

impl Wish {
    /// Its payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.run(self.lender.as_bytes());
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let lender = reader.text(TEXT_BYTES_MAX)?.to_owned();
        whole(&reader)?;
        Ok(Self { lender })
    }
}

/// A borrower's daemon to a lender's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claim {
    /// The loan the session stands on.
    pub loan: String,
    /// The tenant it is for, as its own district calls it.
    pub tenant: String,
    /// The device.
    pub device: String,
}

impl Claim {
    /// Its payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in [&self.loan, &self.tenant, &self.device] {
            bytes.run(text.as_bytes());
        }
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut text = || reader.text(TEXT_BYTES_MAX).map(str::to_owned);
        let claim = Self { loan: text()?, tenant: text()?, device: text()? };
        whole(&reader)?;
        Ok(claim)
    }
}

fn whole(reader: &Reader<'_>) -> Result<(), Malformed> {
    if reader.is_empty() { Ok(()) } else { Err(Malformed::Misplaced("bytes behind a call")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_back_and_never_in_part() {
        let claim = Claim {
            loan: "south.node/17/3".to_owned(),
            tenant: "review".to_owned(),
            device: "GPU-7".to_owned(),
        };
        let bytes = claim.encode();
        assert_eq!(Claim::decode(&bytes), Ok(claim));
        for cut in 0..bytes.len() {
            assert!(Claim::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let wish = Wish { lender: "north".to_owned() };
        let mut bytes = wish.encode();
        assert_eq!(Wish::decode(&bytes), Ok(wish));
        bytes.push(0);
        assert!(Wish::decode(&bytes).is_err(), "bytes behind it");
    }
}
