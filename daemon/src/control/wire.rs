//! Frames over a Unix socket, with and without descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};

use headgate_abi::limits::FRAME_BYTES_MAX;
use headgate_abi::wire::{Answer, Frame, FrameError, Hello};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::UnixStream;

use crate::segments::TenantSegments;

/// Why no hello came.
#[derive(Debug)]
pub enum HelloError {
    /// The peer went away before it said anything. Port scanners and liveness checks do that.
    Closed,
    /// The peer went away in the middle, or the socket failed.
    Broken(io::Error),
    /// What came is no hello.
    Malformed(FrameError),
}

/// Reads exactly one hello. Never holds more than one frame of a peer's bytes.
pub async fn read_hello(stream: &mut UnixStream) -> Result<Hello, HelloError> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES_MAX);
    loop {
        match Frame::parse(&bytes).map_err(HelloError::Malformed)? {
            Some((frame, length)) if length == bytes.len() => {
                return Hello::decode(frame).map_err(HelloError::Malformed);
            }
            Some((_, length)) => {
                let bytes = bytes.len() - length;
                return Err(HelloError::Malformed(FrameError::Trailing { bytes }));
            }
            None => {}
        }
        let room = FRAME_BYTES_MAX - bytes.len();
        let mut limited = (&mut *stream).take(room as u64);
        match limited.read_buf(&mut bytes).await {
            Ok(0) if bytes.is_empty() => return Err(HelloError::Closed),
            Ok(0) => return Err(HelloError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(HelloError::Broken(error)),
        }
    }
}

/// Sends an answer; a welcome brings the tenant's descriptors along.
pub async fn send(stream: &UnixStream, answer: &Answer, segments: Option<&TenantSegments>) -> io::Result<()> {
    let frame = answer.encode();
    let descriptors: Vec<RawFd> =
        segments.map(|s| s.descriptors().iter().map(AsRawFd::as_raw_fd).collect()).unwrap_or_default();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let slices = [IoSlice::new(&frame)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg::<()>(stream.as_raw_fd(), &slices, control, flags, None)?)
        })
        .await?;
    // A frame fits a socket buffer many times over; a part sent means a peer that made its buffer tiny.
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
