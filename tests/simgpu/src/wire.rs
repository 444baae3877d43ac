//! Frames on the socket: see [`crate::protocol`].

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, send, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{FRAME_BYTES_MAX, REPLY_BYTES_MAX};
use crate::protocol::{Reply, Request};

/// Bytes before a request: length, stamp, whether an answer is wanted.
const HEADER: usize = 4 + 8 + 1;

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) stamp: u64,
    pub(crate) answered: bool,
    pub(crate) request: Request,
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn encode_into(buffer: Vec<u8>, value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, buffer).map_err(|error| malformed(format!("cannot encode: {error}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(malformed("a frame has bytes behind its end")),
        Err(error) => Err(malformed(format!("cannot decode: {error}"))),
    }
}

/// Appends a request to `buffer`.
pub(crate) fn encode_request(
    buffer: &mut Vec<u8>,
    stamp: u64,
    answered: bool,
    request: &Request,
) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&stamp.to_le_bytes());
    buffer.push(answered.into());
    *buffer = encode_into(std::mem::take(buffer), request)?;
    set_length(&mut buffer[start..], FRAME_BYTES_MAX)
}

fn set_length(frame: &mut [u8], most: usize) -> io::Result<()> {
    let length = frame.len();
    if length > most {
        return Err(malformed(format!("a frame of {length} bytes is over the limit of {most}")));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Sends all of `bytes`, waiting for room.
pub(crate) fn send_all(socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends a reply, with a descriptor beside its first bytes where there is one.
pub(crate) fn send_reply(socket: &UnixStream, reply: &Reply, file: Option<&OwnedFd>) -> io::Result<()> {
    let mut bytes = encode_into(vec![0; 4], reply)?;
    set_length(&mut bytes, REPLY_BYTES_MAX)?;
    let Some(file) = file else { return send_all(socket, &bytes) };
    let fds = [file.as_raw_fd()];
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    send_all(socket, &bytes[sent..])
}

/// Receives a reply.
pub(crate) fn receive_reply(socket: &UnixStream) -> io::Result<Reply> {
    let mut length = [0; 4];
    receive_exactly(socket, &mut length)?;
    receive_rest(socket, length)
}

/// Receives a reply that carries a descriptor.
pub(crate) fn receive_reply_with_file(socket: &UnixStream) -> io::Result<(Reply, Option<OwnedFd>)> {
    let mut length = [0; 4];
    let mut control = cmsg_space!([i32; 1]);
    let (received, file) = {
        let mut parts = [IoSliceMut::new(&mut length)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let mut file = None;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                file = fds.first().map(|&fd| adopt(fd));
            }
        }
        (message.bytes, file)
    };
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    receive_exactly(socket, &mut length[received..])?;
    Ok((receive_rest(socket, length)?, file))
}

#[expect(unsafe_code, reason = "SCM_RIGHTS hands descriptors over as numbers")]
fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn receive_rest(socket: &UnixStream, length: [u8; 4]) -> io::Result<Reply> {
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if !(4..=REPLY_BYTES_MAX).contains(&length) {
        return Err(malformed(format!("a reply of {length} bytes")));
    }
    let mut bytes = vec![0; length - 4];
    receive_exactly(socket, &mut bytes)?;
    decode(&bytes)
}

fn receive_exactly(socket: &UnixStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match recv(socket.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => bytes = &mut bytes[received..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The server's end of a connection: bytes that have arrived and are not yet frames.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// Takes what has arrived without waiting. `Ok(false)` says that the client has gone.
    pub(crate) fn fill(&mut self, socket: &UnixStream) -> io::Result<bool> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let mut chunk = [0; 32 << 10];
        while self.bytes.len() < 4 * FRAME_BYTES_MAX {
            match recv(socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(false),
                Ok(received) => self.bytes.extend_from_slice(&chunk[..received]),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some((header, _)) = self.bytes[self.start..].split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, stamp @ .., answered] = *header;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(io::Error::other)?;
        if !(HEADER..=FRAME_BYTES_MAX).contains(&length) {
            return Err(malformed(format!("a frame of {length} bytes")));
        }
        let Some(frame) = self.bytes.get(self.start..self.start + length) else { return Ok(None) };
        let request = decode(&frame[HEADER..])?;
        self.start += length;
        Ok(Some(Frame { stamp: u64::from_le_bytes(stamp), answered: answered != 0, request }))
    }

    /// Whether a frame may be waiting here although the socket is silent.
    pub(crate) fn is_pending(&self) -> bool {
        self.bytes.len() - self.start >= HEADER
    }
}
