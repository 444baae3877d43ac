//! Connections of every kind, as their two ends use them.

use std::io::{self, Read as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::memory::Memory;
use super::near::{Near, Side};
use super::send::{bound_unsent, receive, receive_two, receive_with, send, send_with};
use crate::limits::UNSENT_BYTES_MAX;

/// A connection. Reading and writing go through shared references: one thread reads, another writes.
#[derive(Debug)]
pub enum Stream {
    /// Of this host.
    Unix(UnixStream),
    /// Of the network.
    Tcp(TcpStream),
    /// Of this host, over rings.
    Near(Near),
}

impl Stream {
    /// Of the network, as a session needs it.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        // Batches are made here; Nagle would only delay them.
        stream.set_nodelay(true)?;
        bound_unsent(stream.as_fd(), UNSENT_BYTES_MAX)?;
        Ok(Self::Tcp(stream))
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Near(near) => near.socket(),
        }
    }

    /// Goes on over rings that came with a welcome, as the program's end.
    ///
    /// # Errors
    /// When the descriptor is of no such memory, or this is no connection of this host.
    pub fn over_rings(self, descriptor: OwnedFd) -> io::Result<Self> {
        self.over(Memory::of(descriptor)?, Side::Client)
    }

    /// Goes on over rings.
    ///
    /// # Errors
    /// When this is no connection of this host.
    pub(crate) fn over(self, memory: Memory, side: Side) -> io::Result<Self> {
        match self {
            Self::Unix(socket) => Ok(Self::Near(Near::new(socket, memory, side))),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The rings, if it goes over them.
    pub(super) fn near(&self) -> Option<&Near> {
        match self {
            Self::Near(near) => Some(near),
            _ => None,
        }
    }

    /// Ends both directions, so that a thread that reads sees the end.
    pub fn shut(&self) {
        // A connection that is gone already cannot be shut, which is as well.
        let _gone = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Near(near) => {
                near.shut();
                Ok(())
            }
        };
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }

    /// Bounds how long a read may wait; `None` for as long as it takes.
    ///
    /// # Errors
    /// The system's own.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(patience),
            Self::Tcp(stream) => stream.set_read_timeout(patience),
            Self::Near(near) => near.set_read_patience(patience),
        }
    }

    /// Bounds how long a write may wait.
    ///
    /// # Errors
    /// The system's own.
    pub fn set_write_patience(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(patience)),
            Self::Tcp(stream) => stream.set_write_timeout(Some(patience)),
            Self::Near(near) => {
                near.set_write_patience(patience);
                Ok(())
            }
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// The system's own.
    pub fn read(&self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).read(to),
            Self::Tcp(stream) => (&*stream).read(to),
            Self::Near(near) => near.read(to, &mut []),
        }
    }

    /// Reads what is there; what is left when the first place is full goes into the second.
    ///
    /// # Errors
    /// The system's own.
    pub(super) fn read_two(&self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        match self.near() {
            Some(near) => near.read(first, second),
            None => receive_two(self.as_fd(), first, second),
        }
    }

    /// Reads what is there, without waiting for more; `None` where nothing is.
    ///
    /// # Errors
    /// The system's own.
    pub fn read_now(&self, to: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(near) = self.near() {
            return near.read_now(to, &mut []);
        }
        match receive(self.as_fd(), to) {
            Ok(count) => Ok(Some(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what is there, and a descriptor that may come with it.
    ///
    /// # Errors
    /// The system's own.
    pub(super) fn read_with(&self, to: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        receive_with(self.as_fd(), to)
    }

    /// Writes bytes, whole, and a descriptor with the first of them.
    ///
    /// # Errors
    /// The system's own; part may have been written.
    pub(crate) fn write_with(&self, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            match send_with(self.as_fd(), bytes, descriptor) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return self.write_both(&bytes[written..], &[]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes two runs of bytes, whole.
    ///
    /// # Errors
    /// The system's own; part may have been written.
    pub fn write_both(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        self.write([first, second, &[]])
    }

    /// Writes runs of bytes, whole.
    ///
    /// # Errors
    /// The system's own; part may have been written.
    pub(super) fn write(&self, mut parts: [&[u8]; 3]) -> io::Result<()> {
        if let Some(near) = self.near() {
            return near.write(parts);
        }
        while parts.iter().any(|part| !part.is_empty()) {
            match send(self.as_fd(), parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(mut written) => {
                    for part in &mut parts {
                        let gone = written.min(part.len());
                        *part = &part[gone..];
                        written -= gone;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
