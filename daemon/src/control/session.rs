//! One connection from accept to end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use headgate_abi::wire::{Answer, RefusalReason};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::listener::{Doors, Greeted};
use super::wire::{self, HelloError};
use crate::identity::peer::{self, Held};
use crate::limits::{ANSWER_WAIT, HELLO_WAIT};
use crate::node::{ConnectionId, Event};
use crate::run::{Input, Inputs};
use crate::segments::TenantSegments;

/// What the node says to a connection.
#[derive(Debug)]
pub enum Reply {
    /// An answer, and the segments whose descriptors go with it.
    Answer(Answer, Option<Arc<TenantSegments>>),
    /// Close without a word.
    Close,
}

/// A connection the node can answer.
#[derive(Debug)]
pub struct Opened {
    /// Which.
    pub connection: ConnectionId,
    /// Where answers go.
    pub replies: mpsc::Sender<Reply>,
    /// The peer's process; taken by whoever watches its seat.
    pub pidfd: OwnedFd,
}

/// Serves one connection. `greeted` is held until the first answer is out.
pub async fn serve(
    mut stream: UnixStream,
    connection: ConnectionId,
    held: Held,
    doors: Doors,
    greeted: Greeted,
) {
    let Doors { inputs, trees, .. } = doors;
    let hello = match timeout(HELLO_WAIT, wire::read_hello(&mut stream)).await {
        Ok(Ok(hello)) => Ok(hello),
        // Nobody to answer, and nothing was asked.
        Ok(Err(HelloError::Closed)) => return,
        Ok(Err(HelloError::Broken(error))) => {
            tracing::debug!(pid = held.process.pid, %error, "a peer went away during its hello");
            return;
        }
        Ok(Err(HelloError::Malformed(error))) => Err(error.to_string()),
        Err(_) => Err(format!("no whole hello within {} ms", HELLO_WAIT.as_millis())),
    };
    let event = match hello {
        Ok(hello) => match peer::facts(&held, trees.load(Acquire)) {
            Ok(peer) => Event::Hello { connection, peer, hello },
            Err(error) => Event::Unidentified { connection, text: error.to_string() },
        },
        Err(text) => Event::Malformed { connection, text },
    };
    // Two replies may be under way at once: a welcome, and the close of a session taken over elsewhere.
    let (replies, mut answers) = mpsc::channel(2);
    let opened = Opened { connection, replies, pidfd: held.pidfd };
    if inputs.send(Input::Opened(opened, event)).await.is_err() {
        return;
    }
    converse(&mut stream, connection, &mut answers, &inputs, greeted).await;
    // The node may be gone already; then there is nobody to tell.
    let _gone = inputs.send(Input::Node(Event::Closed { connection })).await;
}

async fn converse(
    stream: &mut UnixStream,
    connection: ConnectionId,
    answers: &mut mpsc::Receiver<Reply>,
    inputs: &Inputs,
    greeted: Greeted,
) {
    let mut greeted = Some(greeted);
    let mut welcomed = false;
    let mut byte = [0u8; 1];
    loop {
        tokio::select! {
            reply = answers.recv() => match reply {
                Some(Reply::Answer(answer, segments)) => {
                    welcomed = matches!(answer, Answer::Welcome(_));
                    let sent = timeout(ANSWER_WAIT, wire::send(stream, &answer, segments.as_deref())).await;
                    greeted.take();
                    if !welcomed || !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                Some(Reply::Close) | None => return,
            },
            read = stream.read(&mut byte), if welcomed => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = "a session says hello once; nothing may follow it".to_owned();
                    if inputs.send(Input::Node(Event::Malformed { connection, text })).await.is_err() {
                        return;
                    }
                    welcomed = false;
                }
            },
        }
    }
}

/// A peer that cannot be held gets its refusal without the node: there is no process to speak of.
pub async fn turn_away(stream: UnixStream, text: String) {
    let answer = Answer::Refused { reason: RefusalReason::Internal, text };
    if let Ok(Err(error)) = timeout(ANSWER_WAIT, wire::send(&stream, &answer, None)).await {
        tracing::debug!(%error, "a peer that was turned away did not stay to hear why");
    }
}

/// The process at the other end.
pub fn hold(stream: &UnixStream) -> Result<Held, peer::PeerError> {
    peer::hold(stream.as_fd())
}
