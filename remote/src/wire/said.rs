//! What a compiler or linker told of its work.

use super::codec::{Malformed, Put, Reader};
use crate::limits::COMPILER_LOG_BYTES;

/// Both logs, and how long it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Said<'a> {
    /// What is wrong.
    pub errors: &'a str,
    /// What else there is to say.
    pub information: &'a str,
    /// Bits of the milliseconds it took, as a single.
    pub wall_time: u32,
}

impl<'a> Said<'a> {
    /// Adds it to a payload. Logs are cut to what the other side takes.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.run(cut(self.errors).as_bytes());
        to.run(cut(self.information).as_bytes());
        to.varint(self.wall_time.into());
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (errors, information) = (from.text(COMPILER_LOG_BYTES)?, from.text(COMPILER_LOG_BYTES)?);
        Ok(Self { errors, information, wall_time: from.varint32()? })
    }
}

/// A text of no more bytes than a log may have, without half a character at its end.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(COMPILER_LOG_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_come_back_and_are_cut_between_characters() {
        let said = Said { errors: "no such register", information: "", wall_time: 1.5f32.to_bits() };
        let mut bytes = Vec::new();
        said.encode(&mut bytes);
        assert_eq!(Said::decode(&mut Reader::new(&bytes)), Ok(said));
        for end in 0..bytes.len() {
            assert!(Said::decode(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
        let long = format!("x{}", "\u{fc}".repeat(COMPILER_LOG_BYTES));
        bytes.clear();
        Said { errors: &long, ..Said::default() }.encode(&mut bytes);
        let found = Said::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(found.errors.len(), COMPILER_LOG_BYTES - 1, "two bytes a character behind one of one");
    }
}
