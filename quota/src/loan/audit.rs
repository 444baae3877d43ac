//! The audit log: append-only lines, each carrying the digest of the line before it.
//!
//! ```text
//! 1 2026-01-01T00:00:00Z 0000..00 granted loan=south-1/12/3 place=north/n1/GPU-7 ... why=...
//! | |                    |        the record
//! | |                    digest of the line before, in hexadecimal; zeros in the first
//! | when, as the caller writes it
//! sequence, from one, without gaps
//! ```
//!
//! Whoever changes, removes or inserts a line breaks every line after it. Who cuts lines off the end, or writes
//! the whole log anew, is found by the [`Head`] that was noted elsewhere: in the store, or with the other district,
//! which keeps its own log of the same loans.
//!
//! Nothing here hashes. The caller brings the digest, SHA-256 in the daemon.

use core::fmt::{self, Write as _};

use super::limits::AUDIT_LINE_BYTES_MAX;

/// Thirty-two bytes that stand for a line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Head {
    /// The last line's sequence; zero if there is none.
    pub sequence: u64,
    /// The last line's digest; zeros if there is none.
    pub digest: Digest,
}

/// What is wrong with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The line is no line of an audit log.
    Malformed {
        /// Counted from one.
        line: u64,
    },
    /// The line's sequence does not follow the last.
    Gap {
        /// Counted from one.
        line: u64,
        /// What should be there.
        expected: u64,
    },
    /// The line does not carry the digest of the one before it: one of the two was changed.
    Forged {
        /// Counted from one.
        line: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { line } => write!(f, "line {line} is no line of an audit log"),
            Self::Gap { line, expected } => {
                write!(f, "line {line} is not number {expected}: lines were removed or inserted")
            }
            Self::Forged { line } => {
                write!(
                    f,
                    "line {line} does not carry the digest of the line before it: one of them was changed"
                )
            }
        }
    }
}

impl core::error::Error for Broken {}

/// The next line of a log that ends at `head`, without its line feed, and the log's new head.
///
/// `at` is the time as text; anything in it that could end or split the line is replaced. A record longer
/// than a line may be is cut off, marked with `...`.
#[must_use]
pub fn append(
    head: Head,
    at: &str,
    record: &impl fmt::Display,
    digest: impl Fn(&[u8]) -> Digest,
) -> (String, Head) {
    let sequence = head.sequence + 1;
    let at: String = at.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    let at = if at.is_empty() { "-" } else { &at };
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(line, "{sequence} {at} {} {record}", head.digest);
    let mut line: String = line.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    if AUDIT_LINE_BYTES_MAX < line.len() {
        let cut = (0..=AUDIT_LINE_BYTES_MAX - 3).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(cut);
        line.push_str("...");
    }
    let head = Head { sequence, digest: digest(line.as_bytes()) };
    (line, head)
}

/// Where the log ended before this line, by what the line says of it. `None` if it is no line of a log.
#[must_use]
pub fn before(line: &str) -> Option<Head> {
    let mut fields = line.splitn(4, ' ');
    let sequence: u64 = fields.next()?.parse().ok()?;
    let hexadecimal = fields.nth(1)?.as_bytes();
    let mut digest = [0; 32];
    if hexadecimal.len() != 2 * digest.len() {
        return None;
    }
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in digest.iter_mut().zip(hexadecimal.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    let head = Head { sequence: sequence.checked_sub(1)?, digest: Digest(digest) };
    // Nothing is before the first line.
    (head.sequence != 0 || head == Head::default()).then_some(head)
}

/// Follows a log from `from` on and says where it ends.
pub fn verify<'a>(
    from: Head,
    lines: impl IntoIterator<Item = &'a str>,
    digest: impl Fn(&[u8]) -> Digest,
) -> Result<Head, Broken> {
    let mut head = from;
    for (line, text) in (1..).zip(lines) {
        let mut fields = text.splitn(4, ' ');
        let sequence = fields.next().and_then(|field| field.parse::<u64>().ok());
        let (Some(sequence), Some(_at), Some(before), Some(_record)) =
            (sequence, fields.next(), fields.next(), fields.next())
        else {
            return Err(Broken::Malformed { line });
        };
        if AUDIT_LINE_BYTES_MAX < text.len() {
            return Err(Broken::Malformed { line });
        }
        if sequence != head.sequence + 1 {
            return Err(Broken::Gap { line, expected: head.sequence + 1 });
        }
        if before != head.digest.to_string() {
            return Err(Broken::Forged { line });
        }
        head = Head { sequence, digest: digest(text.as_bytes()) };
    }
    Ok(head)
}
