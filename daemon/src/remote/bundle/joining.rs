//! How further strands come to a bundle.
//!
//! ```text
//! dialler                                         acceptor
//! bytes in bulk, and the ticket is known
//!    -- another TLS connection: Join, ticket -->  the same node by its certificate, the ticket's secret, room
//!    <------------------------------- Joined ---  takes it in, and sends chunks on it
//! takes it in, and sends chunks on it
//! ```
//!
//! Neither sends on a strand before the other side reads from it: the acceptor says `Joined` when its task is there, and
//! behind it on the same connection may come chunks. What cannot be opened is left: the session goes on with what it has.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use futures_util::future::{BoxFuture, join_all};
use headgate_loans::identity::Identity;
use headgate_remote::wire::Malformed;
use headgate_remote::wire::bundle::{CARD_BYTES, Card, Refusal};
use headgate_remote::wire::frame::Ticket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{Reader, Shared, Way, Wire, Writer, locked, made};
use crate::limits::{SESSION_BULK_BYTES, SESSION_JOIN_WAIT};
use crate::remote::frames::FrameError;

/// Why a further connection did not come about. The network's fault, or the other daemon's.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    /// It cannot be reached, or went away.
    #[error(transparent)]
    Gone(#[from] io::Error),
    /// It said something else.
    #[error("the other daemon broke the protocol: {0}")]
    Malformed(#[from] Malformed),
    /// It does not want it.
    #[error(transparent)]
    Refused(Refusal),
    /// It does not answer.
    #[error("no answer within {} s", SESSION_JOIN_WAIT.as_secs())]
    Late,
}

/// What a connection that was accepted begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::remote) enum Opening {
    /// A bundle.
    First,
    /// It is a further strand of one.
    Further(Ticket),
}

async fn card<S: Wire>(stream: &mut S) -> Result<Card, FrameError> {
    let mut bytes = [0; CARD_BYTES];
    stream.read_exact(&mut bytes).await?;
    Ok(Card::decode(&bytes)?)
}

/// What a connection that was accepted begins.
pub(in crate::remote) async fn opening<S: Wire>(stream: &mut S) -> Result<Opening, FrameError> {
    match card(stream).await? {
        Card::Open => Ok(Opening::First),
        Card::Join { ticket } => Ok(Opening::Further(ticket)),
        _ => Err(Malformed::Misplaced("a card that only answers").into()),
    }
}

/// Says that a connection is no part of anything.
pub(in crate::remote) async fn refuse<S: Wire>(mut stream: S, refusal: Refusal) -> io::Result<()> {
    stream.write_all(&Card::Refused(refusal).encode()).await?;
    stream.shutdown().await
}

/// Bundles that others dialled, by their names.
#[derive(Debug)]
pub(in crate::remote) struct Bundles<S>(Mutex<HashMap<u64, Entry<S>>>);

#[derive(Debug)]
struct Entry<S> {
    from: Identity,
    secret: [u8; 16],
    bundle: Weak<Shared<S>>,
}

impl<S> Default for Bundles<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A name and a secret that nobody can guess.
fn ticket() -> io::Result<Ticket> {
    use std::io::Read as _;
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (name, secret) = bytes.split_at(8);
    let session = u64::from_le_bytes(name.try_into().unwrap_or_default());
    Ok(Ticket { session, secret: secret.try_into().unwrap_or_default() })
}

impl<S: Wire> Bundles<S> {
    /// Begins a bundle of at most so many strands with a connection of a node's.
    pub(in crate::remote) fn begin(
        &self,
        from: &Identity,
        stream: S,
        most: u8,
    ) -> io::Result<(Reader<S>, Writer<S>)> {
        let ticket = ticket()?;
        let (reader, writer) = made(stream, Way::Accepted { ticket, most });
        let entry =
            Entry { from: from.clone(), secret: ticket.secret, bundle: Arc::downgrade(&writer.held.0) };
        let mut known = locked(&self.0);
        // As many as connections are accepted, and those that ended since the last one began.
        known.retain(|_, entry| entry.bundle.strong_count() > 0);
        known.insert(ticket.session, entry);
        Ok((reader, writer))
    }

    /// Takes a connection of a node's into the bundle that it names; `Err` with why not. `keep` is held as long as it lives.
    pub(in crate::remote) fn join(
        &self,
        from: &Identity,
        ticket: Ticket,
        stream: S,
        keep: impl Send + 'static,
    ) -> Result<(), (Refusal, S)> {
        let known = {
            let known = locked(&self.0);
            let same = |entry: &&Entry<S>| entry.from == *from && entry.secret == ticket.secret;
            known.get(&ticket.session).filter(same).and_then(|entry| entry.bundle.upgrade())
        };
        match known {
            Some(bundle) => bundle.add(stream, Some(Card::Joined), keep),
            None => Err((Refusal::Unknown, stream)),
        }
    }
}

/// Opens a connection and has it taken for a further strand.
async fn join<S: Wire>(dialling: BoxFuture<'static, io::Result<S>>, ticket: Ticket) -> Result<S, JoinError> {
    let joining = async {
        let mut stream = dialling.await?;
        stream.write_all(&Card::Join { ticket }.encode()).await?;
        stream.flush().await?;
        let answer = card(&mut stream).await.map_err(|error| match error {
            FrameError::Gone(error) => JoinError::Gone(error),
            FrameError::Malformed(what) => JoinError::Malformed(what),
        })?;
        match answer {
            Card::Joined => Ok(stream),
            Card::Refused(refusal) => Err(JoinError::Refused(refusal)),
            _ => Err(Malformed::Misplaced("another card than was due").into()),
        }
    };
    timeout(SESSION_JOIN_WAIT, joining).await.unwrap_or(Err(JoinError::Late))
}

impl<S: Wire> Writer<S> {
    /// Has the bundle open further strands by itself once it moves bytes in bulk.
    pub(in crate::remote) fn grow(
        &self,
        dial: impl Fn() -> BoxFuture<'static, io::Result<S>> + Send + Sync + 'static,
    ) {
        let shared = Arc::clone(&self.held.0);
        let growing = async move {
            let (ticket, theirs) = loop {
                shared.grown.notified().await;
                let in_bulk = SESSION_BULK_BYTES <= shared.bulk.load(Ordering::Relaxed);
                if let Some(answer) = shared.answer.get().filter(|_| in_bulk) {
                    break *answer;
                }
            };
            let further = shared.most.min(theirs.into()).saturating_sub(1);
            locked(&shared.inbox).joining = further;
            join_all((0..further).map(|_| async {
                match join(dial(), ticket).await {
                    // Else the session is over.
                    Ok(stream) => drop(shared.add(stream, None, ())),
                    Err(error) => {
                        tracing::info!(%error, "a remote session goes on without a further connection");
                    }
                }
                locked(&shared.inbox).joining -= 1;
                shared.reader.wake();
            }))
            .await;
        };
        if let Some(tasks) = locked(&self.held.0.tasks).as_mut() {
            tasks.push(tokio::spawn(growing).abort_handle());
        }
    }
}
