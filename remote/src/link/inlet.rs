//! The receiving half of a connection.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::Stream;
use crate::limits::FRAME_BYTES_MAX;
use crate::wire::Malformed;
use crate::wire::frame::{HEADER_BYTES, Header, Kind};

/// First size of the buffer: what one system call usually brings.
const BUFFER_BYTES: usize = 256 << 10;

/// Why no frame came.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Gone(#[from] io::Error),
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Malformed(#[from] Malformed),
}

/// A received frame.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Reads frames, many with one system call where many are there.
#[derive(Debug)]
pub struct Inlet {
    stream: Arc<Stream>,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// Number of the last frame of operations.
    received: u64,
}

impl Inlet {
    /// Reads a connection, going on behind the frame `received`.
    #[must_use]
    pub fn new(stream: Arc<Stream>, received: u64) -> Self {
        Self { stream, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0, received }
    }

    /// Number of the last frame of operations that was handed out.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Goes on behind a frame: for a connection whose greeting has been read.
    #[must_use]
    pub fn behind(mut self, received: u64) -> Self {
        self.received = received;
        self
    }

    /// The next frame. Frames that came before are left out; a gap is the other side's fault.
    ///
    /// # Errors
    /// When the connection ends or what comes is no frame.
    pub fn frame(&mut self) -> Result<Frame<'_>, ReadError> {
        let (header, begin, end) = loop {
            self.fill(HEADER_BYTES)?;
            let Some(head) = self.buffer[self.begin..self.end].first_chunk() else {
                return Err(Malformed::Short.into());
            };
            let header = Header::decode(head)?;
            self.fill(HEADER_BYTES + header.bytes)?;
            let begin = self.begin + HEADER_BYTES;
            let end = begin + header.bytes;
            self.begin = end;
            if header.kind != Kind::Operations || header.number == self.received + 1 {
                break (header, begin, end);
            }
            if header.number > self.received {
                return Err(Malformed::Misplaced("a frame that leaves others out").into());
            }
        };
        if header.kind == Kind::Operations {
            self.received = header.number;
        }
        Ok(Frame { header, payload: &self.buffer[begin..end] })
    }

    /// Has at least so many bytes at hand.
    fn fill(&mut self, wanted: usize) -> Result<(), ReadError> {
        debug_assert!(wanted <= HEADER_BYTES + FRAME_BYTES_MAX, "headers are checked");
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        if self.end - self.begin >= wanted {
            return Ok(());
        }
        if self.begin + wanted > self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if wanted > self.buffer.len() {
                self.buffer.resize(wanted, 0);
            }
        }
        while self.end - self.begin < wanted {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
