//! Where a worker listens, and connections of either kind.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::send::send;

/// Where a worker listens: `unix:PATH` or `tcp:HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A Unix socket on this host.
    Unix(PathBuf),
    /// A TCP endpoint.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", host)) if host.contains(':') => Ok(Self::Tcp(host.to_owned())),
            _ => Err(format!("`{text}` is neither unix:PATH nor tcp:HOST:PORT")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// The system's own.
    pub fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp(host) => {
                let stream = TcpStream::connect(host)?;
                // Batches are made here; Nagle would only delay them.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// Whether a connection may break while both ends live. A Unix socket ends only with one of them.
    #[must_use]
    pub fn may_break(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Of this host.
    Unix(UnixListener),
    /// Of the network.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// The system's own.
    pub fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => UnixListener::bind(path).map(Self::Unix),
            Address::Tcp(host) => TcpListener::bind(host).map(Self::Tcp),
        }
    }

    /// Where it listens, the port chosen by the system filled in.
    ///
    /// # Errors
    /// The system's own.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Unix(listener) => {
                let bound = listener.local_addr()?;
                Ok(Address::Unix(bound.as_pathname().unwrap_or_else(|| "".as_ref()).to_path_buf()))
            }
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?.to_string())),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's own.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// A connection of either kind. Reading and writing go through shared references: one thread reads, others write.
#[derive(Debug)]
pub enum Stream {
    /// Of this host.
    Unix(UnixStream),
    /// Of the network.
    Tcp(TcpStream),
}

impl Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }

    /// Ends both directions, so that a thread that reads sees the end.
    pub fn shut(&self) {
        // A connection that is gone already cannot be shut, which is as well.
        let _gone = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
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
        }
    }

    /// Writes two runs of bytes, whole.
    ///
    /// # Errors
    /// The system's own; part may have been written.
    pub fn write_both(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        while !first.is_empty() || !second.is_empty() {
            let outcome = send(self.as_fd(), first, second);
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let of_first = written.min(first.len());
                    first = &first[of_first..];
                    second = &second[written - of_first..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed_alike() {
        for text in ["unix:/run/x.sock", "tcp:127.0.0.1:70", "tcp:[::1]:70"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:host", "udp:host:1", "/run/x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
