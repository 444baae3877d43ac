//! Asking a daemon over its admin socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::admin::Request;
use crate::limits::{ADMIN_ANSWER_BYTES_MAX, ADMIN_WAIT};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers at {}: {source}; start `headgate daemon --config FILE`, or name its socket with \
         --admin-socket or --config", path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the daemon at {} broke off: {source}; look at its log", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks once.
pub(super) fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, ClientError> {
    ask_for(path, request, Duration::ZERO)
}

/// Asks once for something that takes a while by its nature.
pub(super) fn ask_for<T: DeserializeOwned>(
    path: &Path,
    request: &Request,
    span: Duration,
) -> Result<T, ClientError> {
    let stream = UnixStream::connect(path)
        .map_err(|source| ClientError::Unreachable { path: path.to_owned(), source })?;
    let line = exchange(&stream, request, span)
        .map_err(|source| ClientError::Broken { path: path.to_owned(), source })?;
    let garbled =
        |source: serde_json::Error| ClientError::Broken { path: path.to_owned(), source: source.into() };
    let outcome: Outcome = serde_json::from_str(&line).map_err(garbled)?;
    if !outcome.ok {
        return Err(ClientError::Refused(outcome.error.unwrap_or_else(|| "no reason given".to_owned())));
    }
    serde_json::from_str(&line).map_err(garbled)
}

/// The part that every answer has.
#[derive(serde::Deserialize)]
struct Outcome {
    ok: bool,
    error: Option<String>,
}

fn exchange(mut stream: &UnixStream, request: &Request, span: Duration) -> io::Result<String> {
    // The daemon itself gives up after its own wait; this one only covers a daemon that hangs.
    stream.set_read_timeout(Some(span + ADMIN_WAIT * 2))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(ADMIN_ANSWER_BYTES_MAX as u64)).read_line(&mut answer)?;
    Ok(answer)
}
