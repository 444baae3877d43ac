//! The first words over a connection: who the client is, what the worker says to that, and whether they go on over rings.

use std::sync::Arc;

use super::RINGS_ENV;
use crate::limits::{HELLO_WITHIN, RESUME_WITHIN};
use crate::link::{Address, Inlet, Memory, ReadError, Side, Stream};
use crate::wire::Malformed;
use crate::wire::frame::{Header, Hello, Kind, Rings, Ticket, Welcome};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    /// The worker cannot be reached.
    #[error("{address}: {error}")]
    Unreachable {
        /// Where it should be.
        address: Address,
        /// What the system said.
        error: std::io::Error,
    },
    /// It answers something else.
    #[error("{address} does not speak this protocol: {error}")]
    Stranger {
        /// Where it is.
        address: Address,
        /// What was wrong.
        error: ReadError,
    },
    /// It is of another release.
    #[error("{address}: {malformed}")]
    Release {
        /// Where it is.
        address: Address,
        /// What tells.
        malformed: Malformed,
    },
    /// It does not want this client.
    #[error("refused: {0}")]
    Refused(String),
    /// The system starts no thread, or has no descriptor left.
    #[error("no thread: {0}")]
    NoThread(std::io::Error),
}

/// A connection that goes on behind its first words.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) stream: Arc<Stream>,
    pub(super) inlet: Inlet,
    pub(super) welcome: Welcome,
    /// What the worker has received.
    pub(super) acknowledged: u64,
    /// Whether the session outlives this connection: the worker itself is at the end of no rings that it goes over.
    pub(super) may_break: bool,
}

/// Says hello over a new connection and reads the answer.
pub(super) fn greet(address: &Address, ticket: Ticket, received: u64) -> Result<Greeted, NoSession> {
    let unreachable = |error| NoSession::Unreachable { address: address.clone(), error };
    let stranger = |error: ReadError| match error {
        ReadError::Malformed(malformed @ (Malformed::Version { .. } | Malformed::Table)) => {
            NoSession::Release { address: address.clone(), malformed }
        }
        error => NoSession::Stranger { address: address.clone(), error },
    };
    let stream = Arc::new(address.connect().map_err(unreachable)?);
    let payload = Hello { ticket }.encode();
    // Who answers over this host's socket may be of this host.
    let near =
        matches!(*stream, Stream::Unix(_)) && std::env::var_os(RINGS_ENV).is_none_or(|value| value != "0");
    let rings = if near { Rings::Direct } else { Rings::None };
    let header = Header { acknowledged: received, rings, ..Header::unnumbered(Kind::Hello, payload.len()) };
    // Who refuses may have done so, and gone, before it was greeted. What it said is still there to be read.
    let greeted = stream.write_both(&header.encode(), &payload);
    stream.set_patience(Some(HELLO_WITHIN + RESUME_WITHIN)).map_err(unreachable)?;
    let mut inlet = Inlet::new(Arc::clone(&stream), received);
    let begun = if near { inlet.begin_with_descriptor() } else { Ok(None) };
    let (memory, frame) = match begun {
        Ok(memory) => (memory, inlet.frame()),
        Err(error) => (None, Err(error)),
    };
    let frame = match (frame, greeted) {
        (Ok(frame), _) => frame,
        (Err(_), Err(error)) => return Err(unreachable(error)),
        (Err(error), Ok(())) => return Err(stranger(error)),
    };
    let (acknowledged, rings) = (frame.header.acknowledged, frame.header.rings);
    let welcome = match frame.header.kind {
        Kind::Welcome => Welcome::decode(frame.payload).map_err(|malformed| stranger(malformed.into()))?,
        Kind::Refused | Kind::Over => {
            return Err(NoSession::Refused(String::from_utf8_lossy(frame.payload).into_owned()));
        }
        _ => return Err(stranger(Malformed::Misplaced("no answer to a greeting").into())),
    };
    stream.set_patience(None).map_err(unreachable)?;
    let may_break = address.may_break();
    if rings == Rings::None {
        return Ok(Greeted { stream, inlet, welcome, acknowledged, may_break });
    }
    // Where somebody passes the bytes on, the memory does not come along. What cannot be used is as good as none.
    let memory = memory.and_then(|descriptor| Memory::of(descriptor).ok());
    stream.write_both(&Kind::Rings.alone(&[memory.is_some().into()]), &[]).map_err(unreachable)?;
    let Some(memory) = memory else {
        return Ok(Greeted { stream, inlet, welcome, acknowledged, may_break });
    };
    drop(stream);
    let stream = inlet.into_stream().map_err(|malformed| stranger(malformed.into()))?;
    let stream = Arc::new(stream.over(memory, Side::Client).map_err(unreachable)?);
    let inlet = Inlet::new(Arc::clone(&stream), received);
    let may_break = may_break && rings == Rings::Carried;
    Ok(Greeted { stream, inlet, welcome, acknowledged, may_break })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::wire::frame::VERSION;

    #[test]
    fn a_worker_of_another_release_is_named_with_both_versions() {
        let path = std::env::temp_dir().join(format!("headgate-release-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let other = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut welcome = Kind::Welcome.alone(&Welcome::default().encode());
            welcome[4] = VERSION + 1;
            Stream::Unix(stream).write_both(&welcome, &[]).unwrap();
        });
        let error = greet(&Address::Unix(path.clone()), Ticket::default(), 0).map(|_| ()).unwrap_err();
        let said = error.to_string();
        let named = |version: u8| said.contains(&format!("version {version} "));
        assert!(named(VERSION) && named(VERSION + 1) && said.contains("same release"), "{said}");
        other.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_is_refused_before_the_greeting_hears_why() {
        const ROUNDS: usize = 100;
        let path = std::env::temp_dir().join(format!("headgate-refusal-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let refuser = thread::spawn(move || {
            for _ in 0..ROUNDS {
                let (stream, _) = listener.accept().unwrap();
                Stream::Unix(stream).write_both(&Kind::Refused.alone(b"not you"), &[]).unwrap();
            }
        });
        let address = Address::Unix(path.clone());
        for _ in 0..ROUNDS {
            let answer = greet(&address, Ticket::default(), 0).map(|_| ());
            assert!(matches!(&answer, Err(NoSession::Refused(why)) if why == "not you"), "{answer:?}");
        }
        refuser.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
