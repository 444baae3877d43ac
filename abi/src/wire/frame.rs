//! Bounded, length-prefixed frames.
//!
//! ```text
//! 0 u32 length of the whole frame   4 u16 kind   6 u16 version   8 payload
//! ```
//!
//! Little-endian. A frame is at most [`FRAME_BYTES_MAX`] long; the length is checked before a byte of payload
//! is read.

use std::fmt;

use crate::limits::{FRAME_BYTES_MAX, FRAME_TEXT_BYTES_MAX};

/// Version of the frames; a peer that speaks another is refused by name.
pub const WIRE_VERSION: u16 = 1;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 8;

/// What is wrong with a frame. The peer that sent it is at fault; the text says where and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is below a head or above the bound.
    Length {
        /// The length found.
        found: u32,
    },
    /// The peer speaks another version.
    Version {
        /// The version found.
        found: u16,
    },
    /// The kind is unknown or not expected here.
    Kind {
        /// The kind found.
        found: u16,
    },
    /// The payload ends inside a field.
    Short {
        /// The field.
        field: &'static str,
        /// Offset in the payload where it should start.
        offset: usize,
    },
    /// Bytes are left after the last field.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A field has a value outside its range.
    Range {
        /// The field.
        field: &'static str,
        /// The value.
        found: u64,
        /// The greatest allowed.
        max: u64,
    },
    /// A text field is not UTF-8.
    Text {
        /// The field.
        field: &'static str,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found } => {
                write!(
                    f,
                    "frame length {found} is outside {HEAD_BYTES}..={FRAME_BYTES_MAX}; is this a Headgate peer?"
                )
            }
            Self::Version { found } => write!(
                f,
                "frame version {found} but this build speaks {WIRE_VERSION}; \
                 install the same Headgate version for daemon and hook"
            ),
            Self::Kind { found } => write!(f, "frame kind {found} is not expected here"),
            Self::Short { field, offset } => {
                write!(f, "frame ends inside field `{field}` at payload byte {offset}")
            }
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the last field of the frame"),
            Self::Range { field, found, max } => write!(f, "field `{field}` is {found}, above {max}"),
            Self::Text { field } => write!(f, "field `{field}` is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A checked head and its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: u16,
    /// The bytes after the head.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits the first frame off `bytes`. `Ok(None)` means more bytes are needed.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let found = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = found as usize;
        if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(FrameError::Length { found });
        }
        let version = u16::from_le_bytes([head[6], head[7]]);
        if version != WIRE_VERSION {
            return Err(FrameError::Version { found: version });
        }
        let kind = u16::from_le_bytes([head[4], head[5]]);
        Ok(bytes.get(HEAD_BYTES..length).map(|payload| (Self { kind, payload }, length)))
    }
}

/// Builds one frame.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&WIRE_VERSION.to_le_bytes());
        Self(bytes)
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// Text, cut at a character boundary if it is longer than the bound: a long reason is better cut than lost.
    pub(super) fn text(&mut self, value: &str) {
        let end = value.floor_char_boundary(FRAME_TEXT_BYTES_MAX);
        let cut = &value.as_bytes()[..end];
        self.u16(u16::try_from(cut.len()).unwrap_or(u16::MAX));
        self.bytes(cut);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

/// Reads one payload field by field.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    payload: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { payload, offset: 0 }
    }

    pub(super) fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], FrameError> {
        let end = self.offset.saturating_add(length);
        let bytes =
            self.payload.get(self.offset..end).ok_or(FrameError::Short { field, offset: self.offset })?;
        self.offset = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let offset = self.offset;
        self.take(field, N)?.try_into().map_err(|_| FrameError::Short { field, offset })
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<[u8; 16], FrameError> {
        self.array(field)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, FrameError> {
        let length = usize::from(self.u16(field)?);
        if FRAME_TEXT_BYTES_MAX < length {
            return Err(FrameError::Range { field, found: length as u64, max: FRAME_TEXT_BYTES_MAX as u64 });
        }
        let bytes = self.take(field, length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::Text { field })
    }

    pub(super) fn end(self) -> Result<(), FrameError> {
        match self.payload.len() - self.offset {
            0 => Ok(()),
            bytes => Err(FrameError::Trailing { bytes }),
        }
    }
}
