//! The receiving half of a connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// How long to look for a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Only among what has been read already.
    None,
    /// For so long, without sleeping; 0 for once.
    Looks(Duration),
    /// Until one comes.
    Endless,
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

    /// The connection.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Whether a frame is at hand, so that [`Inlet::frame`] does not wait; looks for one with so much patience. Frames that
    /// came before are left out.
    ///
    /// # Errors
    /// When the connection ends or what comes is no frame.
    #[expect(clippy::disallowed_methods, reason = "how long to look is a matter of time")]
    pub fn ready(&mut self, patience: Patience) -> Result<bool, ReadError> {
        let mut since = None;
        loop {
            let wanted = match self.head()? {
                Some(header) if self.end - self.begin >= HEADER_BYTES + header.bytes => {
                    if header.kind != Kind::Operations || header.number > self.received {
                        return Ok(true);
                    }
                    self.begin += HEADER_BYTES + header.bytes;
                    continue;
                }
                Some(header) => HEADER_BYTES + header.bytes,
                None => HEADER_BYTES,
            };
            let length = match patience {
                Patience::None => return Ok(false),
                Patience::Endless => {
                    self.make_room(wanted);
                    self.read_some()?;
                    continue;
                }
                Patience::Looks(_) => {
                    self.make_room(wanted);
                    self.stream.read_now(&mut self.buffer[self.end..])?
                }
            };
            match (length, patience) {
                (Some(0), _) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                (Some(count), _) => self.end += count,
                (None, Patience::Looks(most)) if !most.is_zero() => {
                    if since.get_or_insert_with(Instant::now).elapsed() >= most {
                        return Ok(false);
                    }
                    // Whoever is to bring it may need this core.
                    std::thread::yield_now();
                }
                (None, _) => return Ok(false),
            }
        }
    }

    /// The header of what comes next, if it is at hand.
    fn head(&self) -> Result<Option<Header>, Malformed> {
        self.buffer[self.begin..self.end].first_chunk().map(Header::decode).transpose()
    }

    /// The next frame. Frames that came before are left out; a gap is the other side's fault.
    ///
    /// # Errors
    /// When the connection ends or what comes is no frame.
    pub fn frame(&mut self) -> Result<Frame<'_>, ReadError> {
        self.ready(Patience::Endless)?;
        let Some(header) = self.head()? else { return Err(Malformed::Short.into()) };
        if header.kind == Kind::Operations {
            if header.number != self.received + 1 {
                return Err(Malformed::Misplaced("a frame that leaves others out").into());
            }
            self.received = header.number;
        }
        let begin = self.begin + HEADER_BYTES;
        self.begin = begin + header.bytes;
        Ok(Frame { header, payload: &self.buffer[begin..self.begin] })
    }

    /// Has room for so many bytes from the next frame's begin on.
    fn make_room(&mut self, wanted: usize) {
        debug_assert!(wanted <= HEADER_BYTES + FRAME_BYTES_MAX, "headers are checked");
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        if self.begin + wanted > self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if wanted > self.buffer.len() {
                self.buffer.resize(wanted, 0);
            }
        }
    }

    /// Waits for more.
    fn read_some(&mut self) -> Result<(), ReadError> {
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
