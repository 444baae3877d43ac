//! Frames of a session over asynchronous connections.

use std::io;

use headgate_remote::wire::Malformed;
use headgate_remote::wire::frame::{HEADER_BYTES, Header, Kind, Rings};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::limits::SESSION_READ_BYTES;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The connection is gone, perhaps in the middle of a frame.
    #[error("the connection is gone: {0}")]
    Gone(io::Error),
    /// What came is no frame.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        // A connection over rings may say so of itself.
        error.downcast().map_or_else(Self::Gone, Self::Malformed)
    }
}

/// A frame that has arrived whole.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    /// Its header.
    pub(super) header: Header,
    /// Its payload.
    pub(super) payload: &'a [u8],
    /// Bytes of both.
    pub(super) bytes: usize,
}

/// The reading half of a connection. It holds one frame and one reading at most.
#[derive(Debug)]
pub(super) struct Frames<R> {
    reader: R,
    buffer: Vec<u8>,
    begin: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), begin: 0 }
    }

    /// Waits until a frame is whole; `false` at the end of the stream. May be dropped while it waits without losing
    /// anything.
    pub(super) async fn arrive(&mut self) -> Result<bool, FrameError> {
        while self.seen(0)?.is_none() {
            self.buffer.drain(..self.begin);
            self.begin = 0;
            self.buffer.reserve(SESSION_READ_BYTES);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                let whole = self.buffer.is_empty();
                return if whole {
                    Ok(false)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
        Ok(true)
    }

    /// The frame that begins `skip` bytes from here, if it is whole.
    pub(super) fn seen(&self, skip: usize) -> Result<Option<Seen<'_>>, Malformed> {
        let rest = self.buffer.get(self.begin + skip..).unwrap_or_default();
        let Some(head) = rest.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(head)?;
        let bytes = HEADER_BYTES + header.bytes;
        Ok(rest.get(HEADER_BYTES..bytes).map(|payload| Seen { header, payload, bytes }))
    }

    /// Takes a wish for rings out of the frame that comes next; whether there was one. They are between the program and
    /// its own daemon, and nobody else's matter.
    pub(super) fn take_wish(&mut self) -> bool {
        let head = self.buffer.get_mut(self.begin..).and_then(<[u8]>::first_chunk_mut::<HEADER_BYTES>);
        let Some((head, header)) =
            head.and_then(|head| Header::decode(head).ok().map(|header| (head, header)))
        else {
            return false;
        };
        *head = Header { rings: Rings::None, ..header }.encode();
        header.rings == Rings::Direct
    }

    /// The connection, without what has arrived.
    #[cfg(test)]
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// So many bytes from here on.
    pub(super) fn run(&self, from: usize, to: usize) -> &[u8] {
        self.buffer.get(self.begin + from..self.begin + to).unwrap_or_default()
    }

    /// Goes on behind so many bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.begin = (self.begin + bytes).min(self.buffer.len());
    }
}

/// Writes a frame without a number.
pub(super) async fn say<W: AsyncWrite + Unpin>(to: &mut W, kind: Kind, payload: &[u8]) -> io::Result<()> {
    to.write_all(&kind.alone(payload)).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_were_cut() {
        let sent =
            [Kind::Hello.alone(&[1; 24]), Kind::Acknowledge.alone(&[]), Kind::Over.alone(b"why")].concat();
        for piece in 1..40 {
            let (mut from, to) = tokio::io::duplex(16);
            let bytes = sent.clone();
            let writing = tokio::spawn(async move {
                for run in bytes.chunks(piece) {
                    from.write_all(run).await.unwrap();
                }
            });
            let mut frames = Frames::new(to);
            let mut kinds = Vec::new();
            while frames.arrive().await.unwrap() {
                let seen = frames.seen(0).unwrap().unwrap();
                kinds.push((seen.header.kind, seen.payload.len()));
                let bytes = seen.bytes;
                frames.consume(bytes);
            }
            assert_eq!(kinds, [(Kind::Hello, 24), (Kind::Acknowledge, 0), (Kind::Over, 3)]);
            writing.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_off_is_a_broken_connection() {
        let (mut from, to) = tokio::io::duplex(64);
        from.write_all(&Kind::Hello.alone(&[1; 24])[..40]).await.unwrap();
        drop(from);
        assert!(matches!(Frames::new(to).arrive().await, Err(FrameError::Gone(_))));
    }
}
