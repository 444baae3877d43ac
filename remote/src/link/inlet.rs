//! The receiving half of a connection.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::Stream;
use crate::limits::{FRAME_BYTES_MAX, LARGE_BYTES};
use crate::wire::Malformed;
use crate::wire::frame::{HEADER_BYTES, Header, Kind};
use crate::wire::large::BEGINNING_BYTES;

/// First size of the buffer: what one system call usually brings.
const BUFFER_BYTES: usize = 256 << 10;
/// What is read of the frame behind a large one before it is known whether it is another: its header and beginning.
const GLANCE_BYTES: usize = HEADER_BYTES + BEGINNING_BYTES;

/// Why no frame came.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Gone(io::Error),
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Malformed(#[from] Malformed),
    /// The memory that the bytes are for cannot be written.
    #[error("received bytes cannot be put where the program wants them: {0}")]
    Place(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::EFAULT) {
            return Self::Place(error);
        }
        match error.kind() {
            io::ErrorKind::InvalidData => Malformed::Misplaced("indices that no ring has").into(),
            _ => Self::Gone(error),
        }
    }
}

/// How long to look for a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Only among what has been read already, whole.
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

/// What comes.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A frame that is there whole.
    Whole(Frame<'a>),
    /// One of which only the beginning need be there.
    Large(Large<'a>),
}

/// A frame of one operation and many bytes. It counts as received once it has been taken whole, one way or the other.
#[derive(Debug)]
pub struct Large<'a> {
    inlet: &'a mut Inlet,
    header: Header,
}

impl<'a> Large<'a> {
    /// Its header.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// How its payload begins: [`BEGINNING_BYTES`] of it.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        &self.inlet.buffer[self.inlet.begin + HEADER_BYTES..][..BEGINNING_BYTES]
    }

    /// Receives what comes behind so many bytes of the payload straight into its place, which must be as long.
    ///
    /// # Errors
    /// When the connection ends; the place then holds some of the bytes.
    pub fn land(self, behind: usize, place: &mut [u8]) -> Result<(), ReadError> {
        debug_assert_eq!(behind + place.len(), self.header.bytes, "the place is as long as what is left");
        let inlet = self.inlet;
        let begin = inlet.begin + HEADER_BYTES + behind;
        let held = (inlet.end - begin).min(place.len());
        let (here, mut rest) = place.split_at_mut(held);
        here.copy_from_slice(&inlet.buffer[begin..begin + held]);
        if rest.is_empty() {
            inlet.begin = begin + held;
        }
        let mut beyond = 0;
        while !rest.is_empty() {
            // What the buffer held is in its place, and what comes behind the frame may go there.
            let glance = &mut inlet.buffer[..GLANCE_BYTES];
            match inlet.stream.read_two(rest, glance) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => {
                    beyond = count.saturating_sub(rest.len());
                    rest = &mut std::mem::take(&mut rest)[count - beyond..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            (inlet.begin, inlet.end) = (0, beyond);
        }
        inlet.after_large = true;
        inlet.received = self.header.number;
        Ok(())
    }

    /// Receives it as any frame is.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn whole(self) -> Result<Frame<'a>, ReadError> {
        self.inlet.finish(self.header)
    }
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
    /// The last frame was large, so the next one may be: of it no more is read ahead than shows that.
    after_large: bool,
}

impl Inlet {
    /// Reads a connection, going on behind the frame `received`.
    #[must_use]
    pub fn new(stream: Arc<Stream>, received: u64) -> Self {
        Self { stream, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0, received, after_large: false }
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

    /// Gives the connection back, to go on over it in another way.
    ///
    /// # Errors
    /// When more has come than was read, or somebody else has the connection, too.
    pub fn into_stream(self) -> Result<Stream, Malformed> {
        if self.begin != self.end {
            return Err(Malformed::Misplaced("bytes before the rings were agreed on"));
        }
        Arc::try_unwrap(self.stream).map_err(|_| Malformed::Misplaced("a connection with two owners"))
    }

    /// Waits for the first bytes, and for a descriptor that may come with them.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn begin_with_descriptor(&mut self) -> Result<Option<OwnedFd>, ReadError> {
        loop {
            match self.stream.read_with(&mut self.buffer[self.end..]) {
                Ok((0, _)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok((count, descriptor)) => {
                    self.end += count;
                    return Ok(descriptor);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether something is at hand, so that [`Inlet::arrival`] does not wait for anything but the rest of a large frame; looks
    /// for it with so much patience. Frames that came before are left out.
    ///
    /// # Errors
    /// When the connection ends or what comes is no frame.
    #[expect(clippy::disallowed_methods, reason = "how long to look is a matter of time")]
    pub fn ready(&mut self, patience: Patience) -> Result<bool, ReadError> {
        let mut since = None;
        loop {
            let held = self.end - self.begin;
            let wanted = match self.head()? {
                Some(header)
                    if self.is_large(&header) && held >= GLANCE_BYTES && patience != Patience::None =>
                {
                    return Ok(true);
                }
                Some(header) if held >= HEADER_BYTES + header.bytes => {
                    if header.kind != Kind::Operations || header.number > self.received {
                        return Ok(true);
                    }
                    self.begin += HEADER_BYTES + header.bytes;
                    continue;
                }
                Some(header) if self.is_large(&header) => GLANCE_BYTES,
                Some(header) => HEADER_BYTES + header.bytes,
                None => HEADER_BYTES,
            };
            let length = match patience {
                Patience::None => return Ok(false),
                Patience::Endless => {
                    self.read_some(wanted)?;
                    continue;
                }
                Patience::Looks(_) => {
                    let place = self.room(wanted);
                    self.stream.read_now(&mut self.buffer[place])?
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

    /// Whether a frame is one operation, with as many bytes as are worth a place of their own, and new.
    fn is_large(&self, header: &Header) -> bool {
        header.kind == Kind::Operations
            && header.operations == 1
            && header.bytes >= LARGE_BYTES
            && header.number > self.received
    }

    /// What comes next. Frames that came before are left out; a gap is the other side's fault.
    ///
    /// # Errors
    /// When the connection ends or what comes is no frame.
    pub fn arrival(&mut self) -> Result<Arrival<'_>, ReadError> {
        self.ready(Patience::Endless)?;
        let Some(header) = self.head()? else { return Err(Malformed::Short.into()) };
        if header.kind == Kind::Operations && header.number != self.received + 1 {
            return Err(Malformed::Misplaced("a frame that leaves others out").into());
        }
        if self.is_large(&header) {
            return Ok(Arrival::Large(Large { inlet: self, header }));
        }
        self.finish(header).map(Arrival::Whole)
    }

    /// The next frame, whole.
    ///
    /// # Errors
    /// As [`Inlet::arrival`].
    pub fn frame(&mut self) -> Result<Frame<'_>, ReadError> {
        match self.arrival()? {
            Arrival::Whole(frame) => Ok(frame),
            Arrival::Large(large) => large.whole(),
        }
    }

    /// The frame whose header is at hand, once it is whole.
    fn finish(&mut self, header: Header) -> Result<Frame<'_>, ReadError> {
        while self.end - self.begin < HEADER_BYTES + header.bytes {
            self.after_large = false;
            self.read_some(HEADER_BYTES + header.bytes)?;
        }
        self.after_large = false;
        if header.kind == Kind::Operations {
            self.received = header.number;
        }
        let begin = self.begin + HEADER_BYTES;
        self.begin = begin + header.bytes;
        Ok(Frame { header, payload: &self.buffer[begin..self.begin] })
    }

    /// Where the next bytes go: room for so many from the next frame's begin on, or more.
    fn room(&mut self, wanted: usize) -> std::ops::Range<usize> {
        self.make_room(wanted);
        let most = match self.end - self.begin {
            held if self.after_large && held < GLANCE_BYTES => GLANCE_BYTES - held,
            _ => self.buffer.len() - self.end,
        };
        self.end..self.end + most
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

    /// Waits for more, until which so many bytes are wanted.
    fn read_some(&mut self, wanted: usize) -> Result<(), ReadError> {
        let place = self.room(wanted);
        loop {
            match self.stream.read(&mut self.buffer[place.clone()]) {
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
