//! One stream of bytes over several connections between two daemons: a bundle, whose connections are its strands.
//!
//! ```text
//! carry ==> Writer ==+== strand 0: written by whoever writes, while nothing waits ==+==> Reader ==> carry
//!                    |                                                              |
//!                    +-- queue --+-- strand 1: a task of its own at each end -------+
//!                                +-- strand 2                                       |
//!                                +-- ..      ---------------------------------------+ by their numbers
//! ```
//!
//! A bundle begins as one connection, and as long as it is one there is no task, no queue and no copy. Once it has moved
//! bytes in bulk, whoever dialled it opens more, beside the session's work ([`joining`]). Then what is written is cut into
//! numbered chunks, and each strand takes the next one when it has room: a slow strand takes fewer. A small chunk does
//! not wait for that: while nothing waits in front of it, it goes to the first strand at once.
//!
//! Whoever reads puts chunks together by their numbers ([`receiving`]). A strand that breaks breaks the bundle, and the session goes
//! on over a new one, as it does over a new connection. Nothing of it is known to what it carries: frames, meters, budgets
//! and the books are the same, whatever the number of strands.
//!
//! A peer that knows no bundles is met by one strand, without chunks.

mod receiving;
mod sending;
mod joining;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use futures_util::task::AtomicWaker;
use headgate_remote::wire::Malformed;
use headgate_remote::wire::bundle::{Card, Refusal};
use headgate_remote::wire::frame::Ticket;
use tokio::io::{AsyncRead, AsyncWrite, WriteHalf, split};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::limits::{SESSION_BULK_BYTES, SESSION_BULK_CHUNK_BYTES};
use receiving::{Inbox, Strand};
use sending::{First, Outbox, Sender};

pub(super) use joining::{Bundles, Opening, opening, refuse};
pub(super) use receiving::Reader;
pub(super) use sending::Writer;

/// A connection, as bundles need it.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for S {}

/// What its ends and its tasks share.
#[derive(Debug)]
struct Shared<S> {
    /// Locked before any other of these.
    first: Mutex<First<WriteHalf<S>>>,
    outbox: Mutex<Outbox>,
    inbox: Mutex<Inbox>,
    /// Whoever writes into the bundle, and whoever reads from it.
    writer: AtomicWaker,
    reader: AtomicWaker,
    /// Chunks wait, or none will come any more.
    work: Notify,
    /// Whoever writes has left the first strand to its task.
    left: Notify,
    /// Bytes moved in bulk, both ways, and who waits for them to be many.
    bulk: AtomicU64,
    grown: Notify,
    /// What the other side said of further strands.
    answer: OnceLock<(Ticket, u8)>,
    broken: OnceLock<Broken>,
    /// How many strands there are, and may be.
    strands: Arc<AtomicUsize>,
    most: usize,
    /// Ended with the bundle; `None` once it has.
    tasks: Mutex<Option<Vec<AbortHandle>>>,
}

/// Why a bundle is of no use any more.
#[derive(Clone, Debug)]
enum Broken {
    /// The network, or the other side has gone.
    Gone(io::ErrorKind, String),
    /// The other side sent what it may not.
    Malformed(Malformed),
}

impl From<&Broken> for io::Error {
    fn from(broken: &Broken) -> Self {
        match broken {
            Broken::Gone(kind, why) => Self::new(*kind, why.clone()),
            // Told apart by whoever reads frames.
            Broken::Malformed(what) => Self::new(io::ErrorKind::InvalidData, *what),
        }
    }
}

impl From<Malformed> for Broken {
    fn from(what: Malformed) -> Self {
        Self::Malformed(what)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.kind(), error.to_string())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left behind is a stream with a gap at worst, which its reader notices.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Shared<S> {
    /// It broke. The first reason is the one that is told.
    fn fail(&self, broken: impl Into<Broken>) -> io::Error {
        let told = io::Error::from(self.broken.get_or_init(|| broken.into()));
        self.reader.wake();
        self.writer.wake();
        told
    }

    fn sound(&self) -> io::Result<()> {
        self.broken.get().map_or(Ok(()), |broken| Err(broken.into()))
    }

    /// A chunk has gone or come.
    fn moved(&self, bytes: usize) {
        if bytes < SESSION_BULK_CHUNK_BYTES {
            return;
        }
        let before = self.bulk.fetch_add(bytes as u64, Ordering::Relaxed);
        if before < SESSION_BULK_BYTES && SESSION_BULK_BYTES <= before + bytes as u64 {
            self.grown.notify_one();
        }
    }
}

/// Ends the tasks with whoever holds the bundle: its two ends.
#[derive(Debug)]
struct Held<S>(Arc<Shared<S>>);

impl<S> Drop for Held<S> {
    fn drop(&mut self) {
        for task in locked(&self.0.tasks).take().unwrap_or_default() {
            task.abort();
        }
    }
}

/// How many connections a session goes over, for whoever shows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Weak<AtomicUsize>);

impl Seen {
    pub(super) fn connections(&self) -> usize {
        self.0.upgrade().map_or(0, |strands| strands.load(Ordering::Relaxed))
    }
}

/// How a bundle begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Without chunks.
    Plain,
    Dialled {
        most: u8,
    },
    Accepted {
        ticket: Ticket,
        most: u8,
    },
}

fn made<S: Wire>(stream: S, way: Way) -> (Reader<S>, Writer<S>) {
    let (half, to) = split(stream);
    let (card, most) = match way {
        Way::Plain => (None, 1),
        Way::Dialled { most } => (Some(Card::Open), most),
        Way::Accepted { ticket, most } => (Some(Card::Opened { ticket, most }), most),
    };
    let shared = Arc::new(Shared {
        first: Mutex::new(First::new(to, card)),
        outbox: Mutex::default(),
        inbox: Mutex::new(Inbox::new()),
        writer: AtomicWaker::new(),
        reader: AtomicWaker::new(),
        work: Notify::new(),
        left: Notify::new(),
        bulk: AtomicU64::new(0),
        grown: Notify::new(),
        answer: OnceLock::new(),
        broken: OnceLock::new(),
        strands: Arc::new(AtomicUsize::new(1)),
        most: most.into(),
        tasks: Mutex::new(Some(Vec::new())),
    });
    let held = Arc::new(Held(shared));
    (Reader::new(Arc::clone(&held), half, &way), Writer::new(held, way == Way::Plain))
}

/// A connection to a peer that knows no bundles: nothing is added to what it carries.
pub(super) fn plain<S: Wire>(stream: S) -> (Reader<S>, Writer<S>) {
    made(stream, Way::Plain)
}

/// The first strand of a bundle of so many, at whoever dialled it. Nothing is waited for.
pub(super) fn dialled<S: Wire>(stream: S, most: u8) -> (Reader<S>, Writer<S>) {
    made(stream, Way::Dialled { most })
}

impl<S: Wire> Shared<S> {
    /// Takes a further strand in, and says on it what is to be said first. `keep` is held for as long as the strand lives. What
    /// is not taken in is given back.
    fn add(
        self: &Arc<Self>,
        stream: S,
        first: Option<Card>,
        keep: impl Send + 'static,
    ) -> Result<(), (Refusal, S)> {
        let mut tasks = locked(&self.tasks);
        let Some(tasks) = tasks.as_mut() else { return Err((Refusal::Unknown, stream)) };
        if self.most <= self.strands.load(Ordering::Relaxed) {
            return Err((Refusal::Full, stream));
        }
        let (reader, half) = split(stream);
        {
            let mut first = locked(&self.first);
            if !first.tasked {
                // From now on what is left on it is its task's to finish.
                (first.tasked, first.busy) = (true, true);
                tasks.push(tokio::spawn(sending::first(Arc::clone(self))).abort_handle());
            }
        }
        let (strand, returned) = Strand::new();
        let index = locked(&self.inbox).add(strand);
        locked(&self.outbox).strands += 1;
        self.strands.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(self);
        let sender = Sender::new(half, first);
        let task = async move {
            let _kept = keep;
            tokio::join!(
                sending::further(&shared, sender),
                receiving::further(&shared, reader, index, returned)
            );
        };
        tasks.push(tokio::spawn(task).abort_handle());
        // What it waits for may be others' to do now.
        self.writer.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
