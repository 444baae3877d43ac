//! Where a worker listens, and where a client connects.

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use super::Stream;
use crate::wire::Wish;
use crate::wire::frame::Kind;

/// Where a session begins: at a worker, `unix:PATH` or `tcp:HOST:PORT`, or at the node's own daemon, `daemon:PATH` or
/// `daemon:DISTRICT@PATH`, which finds one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A Unix socket on this host.
    Unix(PathBuf),
    /// A TCP endpoint.
    Tcp(String),
    /// The daemon's socket on this host, and the district whose device it shall be.
    Daemon {
        /// The socket.
        path: PathBuf,
        /// The district; empty for whichever lends.
        lender: String,
    },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", host)) if host.contains(':') => Ok(Self::Tcp(host.to_owned())),
            Some(("daemon", rest)) if rest.contains('/') => {
                let (lender, path) = rest.split_at(rest.find('/').unwrap_or(0));
                match lender.strip_suffix('@') {
                    Some(lender) => Ok(Self::Daemon { path: path.into(), lender: lender.to_owned() }),
                    None if lender.is_empty() => {
                        Ok(Self::Daemon { path: path.into(), lender: String::new() })
                    }
                    None => Err(format!("`{text}` is no daemon:DISTRICT@PATH")),
                }
            }
            _ => Err(format!("`{text}` is none of unix:PATH, tcp:HOST:PORT and daemon:PATH")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
            Self::Daemon { path, lender } if lender.is_empty() => write!(f, "daemon:{}", path.display()),
            Self::Daemon { path, lender } => write!(f, "daemon:{lender}@{}", path.display()),
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
            Self::Tcp(host) => Stream::tcp(TcpStream::connect(host)?),
            Self::Daemon { path, lender } => {
                let stream = Stream::Unix(UnixStream::connect(path)?);
                let wish = Wish { lender: lender.clone() };
                stream.write_both(&Kind::Call.alone(&wish.encode()), &[])?;
                Ok(stream)
            }
        }
    }

    /// Whether a connection may break while both ends live. A worker's Unix socket ends only with one of them.
    #[must_use]
    pub fn may_break(&self) -> bool {
        !matches!(self, Self::Unix(_))
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Of this host.
    Unix(UnixListener),
    /// Of the network.
    Tcp(TcpListener),
    /// Of this host, where a daemon connects and carries the session on over a network.
    Carried(UnixListener),
    /// A connection that was made already, until it is taken.
    Connected(Mutex<Option<UnixStream>>),
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
            Address::Daemon { .. } => Err(io::Error::other("a daemon's socket is its own to listen at")),
        }
    }

    /// The Unix socket at standard input: one that listens, where a daemon carries the session, or the client's own.
    ///
    /// # Errors
    /// When there is none.
    pub fn at_standard_input() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let stream = UnixStream::from(socket.try_clone()?);
        Ok(match stream.peer_addr() {
            Ok(_) => Self::Connected(Mutex::new(Some(stream))),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Self::Carried(socket.into()),
            Err(error) => return Err(error),
        })
    }

    /// Whether a connection may break while both ends live.
    #[must_use]
    pub fn may_break(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Carried(_))
    }

    /// Whether whoever connects is a process of this host, with nobody in between.
    #[must_use]
    pub fn is_near(&self) -> bool {
        matches!(self, Self::Unix(_) | Self::Connected(_))
    }

    /// Its descriptor, or its connection's; `None` once that is taken.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Unix(listener) | Self::Carried(listener) => Some(listener.as_raw_fd()),
            Self::Tcp(listener) => Some(listener.as_raw_fd()),
            Self::Connected(stream) => {
                stream.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(AsRawFd::as_raw_fd)
            }
        }
    }

    /// Where it listens, the port chosen by the system filled in.
    ///
    /// # Errors
    /// The system's own.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Unix(listener) | Self::Carried(listener) => {
                let bound = listener.local_addr()?;
                Ok(Address::Unix(bound.as_pathname().unwrap_or_else(|| "".as_ref()).to_path_buf()))
            }
            Self::Connected(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?.to_string())),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's own.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) | Self::Carried(listener) => {
                listener.accept().map(|(stream, _)| Stream::Unix(stream))
            }
            Self::Connected(stream) => {
                let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                taken.map(Stream::Unix).ok_or_else(|| io::ErrorKind::NotConnected.into())
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                Stream::tcp(stream)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed_alike() {
        for text in [
            "unix:/run/x.sock",
            "tcp:127.0.0.1:70",
            "tcp:[::1]:70",
            "daemon:/run/headgate/remote.sock",
            "daemon:north@/run/headgate/remote.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:host", "udp:host:1", "/run/x", "daemon:", "daemon:north/run/x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
