//! The writing end of a bundle.
//!
//! ```text
//! one strand      whoever writes does all of it: what is flushed is with the kernel
//! several         small, nothing waits, first strand idle:  written by whoever writes; what does not fit is left to its task
//!                 otherwise: into the queue, and whichever strand has room takes it from there
//! ```
//!
//! A chunk has its number before it is taken, and each strand takes from the queue's front; whoever writes goes past the
//! queue only while it is empty. So on each strand numbers go up, which readers rely on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, TryLockError};
use std::task::{Context, Poll, ready};

use headgate_remote::limits::CHUNK_BYTES_MAX;
use headgate_remote::wire::bundle::{Card, ChunkHead};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, WriteHalf};

use super::{Held, Seen, Shared, Wire, locked};
use crate::limits::{SESSION_CHUNKS_WAITING_MAX, SESSION_DIRECT_BYTES_MAX};

/// A chunk that waits for a strand.
#[derive(Debug)]
pub(super) struct Chunk {
    head: ChunkHead,
    bytes: Vec<u8>,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    next: u64,
    waiting: VecDeque<Chunk>,
    /// Nothing more comes.
    closing: bool,
    /// Strands with a task that sends, and those that have said farewell.
    pub(super) strands: usize,
    shut: usize,
}

impl Outbox {
    fn number(&mut self, bytes: usize) -> ChunkHead {
        let sequence = self.next;
        self.next += 1;
        ChunkHead { sequence, bytes }
    }
}

/// What a strand has to do next.
#[derive(Debug)]
enum Next {
    Send(Chunk),
    Wait,
    Shut,
}

/// The writing half of a connection, and what it has not taken yet.
#[derive(Debug)]
pub(super) struct Sender<W> {
    half: W,
    /// Goes with the first chunk.
    card: Vec<u8>,
    rest: Vec<u8>,
    at: usize,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// A strand on which something is said first, though there is no chunk yet.
    pub(super) fn new(half: W, first: Option<Card>) -> Self {
        let rest = first.map_or_else(Vec::new, |card| card.encode().to_vec());
        Self { half, card: Vec::new(), rest, at: 0 }
    }

    /// Until the kernel has everything.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.rest.len() {
            match ready!(Pin::new(&mut self.half).poll_write(cx, &self.rest[self.at..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.at += taken,
            }
        }
        self.rest.clear();
        self.at = 0;
        Pin::new(&mut self.half).poll_flush(cx)
    }

    /// Begins a chunk on a strand that has been drained. What it does not take is kept.
    fn begin(&mut self, cx: &mut Context<'_>, head: ChunkHead, bytes: &[u8]) -> io::Result<()> {
        let card = std::mem::take(&mut self.card);
        let head = head.encode();
        let parts = [&card[..], &head, bytes];
        let mut taken = match Pin::new(&mut self.half).poll_write_vectored(cx, &parts.map(IoSlice::new)) {
            Poll::Ready(taken) => taken?,
            Poll::Pending => 0,
        };
        for part in parts {
            let skipped = taken.min(part.len());
            self.rest.extend_from_slice(&part[skipped..]);
            taken -= skipped;
        }
        Ok(())
    }
}

/// The first strand, which whoever writes and its task have in turn.
#[derive(Debug)]
pub(super) struct First<W> {
    sender: Sender<W>,
    /// There are further strands, and this one has a task.
    pub(super) tasked: bool,
    /// The task is at work on it, or has been told to be. Only the task ends that.
    pub(super) busy: bool,
}

impl<W: AsyncWrite + Unpin> First<W> {
    pub(super) fn new(half: W, card: Option<Card>) -> Self {
        let card = card.map_or_else(Vec::new, |card| card.encode().to_vec());
        Self { sender: Sender { card, ..Sender::new(half, None) }, tasked: false, busy: false }
    }
}

/// See the head of this module.
#[derive(Debug)]
pub(in crate::remote) struct Writer<S> {
    pub(super) held: Arc<Held<S>>,
    plain: bool,
}

impl<S: Wire> Writer<S> {
    pub(super) fn new(held: Arc<Held<S>>, plain: bool) -> Self {
        Self { held, plain }
    }

    /// For whoever shows the session.
    pub(in crate::remote) fn seen(&self) -> Seen {
        Seen(Arc::downgrade(&self.held.0.strands))
    }
}

impl<S: Wire> Shared<S> {
    /// Writes past the queue, if whoever writes may; `None` if it may not.
    fn poll_direct(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<Option<usize>>> {
        let mut first = match self.first.try_lock() {
            Ok(first) => first,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Its task is at work on it, or begins to be.
            Err(TryLockError::WouldBlock) => return Poll::Ready(Ok(None)),
        };
        if !first.tasked {
            ready!(first.sender.poll_drained(cx))?;
            let bytes = &from[..from.len().min(CHUNK_BYTES_MAX)];
            let head = locked(&self.outbox).number(bytes.len());
            first.sender.begin(cx, head, bytes)?;
            self.moved(bytes.len());
            return Poll::Ready(Ok(Some(bytes.len())));
        }
        if first.busy || SESSION_DIRECT_BYTES_MAX < from.len() {
            return Poll::Ready(Ok(None));
        }
        let head = {
            let mut outbox = locked(&self.outbox);
            if !outbox.waiting.is_empty() {
                return Poll::Ready(Ok(None));
            }
            outbox.number(from.len())
        };
        first.sender.begin(cx, head, from)?;
        if first.sender.poll_drained(cx)?.is_pending() {
            first.busy = true;
            self.left.notify_one();
        }
        Poll::Ready(Ok(Some(from.len())))
    }

    /// Has a chunk wait for a strand; whoever writes is woken when there is room.
    fn poll_queue(&self, from: &[u8]) -> Poll<usize> {
        let mut outbox = locked(&self.outbox);
        if SESSION_CHUNKS_WAITING_MAX <= outbox.waiting.len() {
            return Poll::Pending;
        }
        let bytes = from[..from.len().min(CHUNK_BYTES_MAX)].to_vec();
        let (head, taken) = (outbox.number(bytes.len()), bytes.len());
        outbox.waiting.push_back(Chunk { head, bytes });
        drop(outbox);
        self.work.notify_one();
        self.moved(taken);
        Poll::Ready(taken)
    }

    fn next(&self) -> Next {
        let mut outbox = locked(&self.outbox);
        match outbox.waiting.pop_front() {
            Some(chunk) => {
                let more = !outbox.waiting.is_empty();
                drop(outbox);
                self.writer.wake();
                if more {
                    // Of two chunks that came at once only one may have woken somebody.
                    self.work.notify_one();
                }
                Next::Send(chunk)
            }
            None if outbox.closing => Next::Shut,
            None => Next::Wait,
        }
    }

    /// A strand's task has sent what there was and said farewell, or could not.
    fn sent(&self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => locked(&self.outbox).shut += 1,
            Err(error) => drop(self.fail(error)),
        }
        self.writer.wake();
    }

    fn poll_shut(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut outbox = locked(&self.outbox);
            if !outbox.closing {
                // Strands that come later have nothing to say but farewell.
                outbox.closing = true;
                self.work.notify_waiters();
            }
        }
        let mut first = locked(&self.first);
        if !first.tasked {
            ready!(first.sender.poll_drained(cx))?;
            return Pin::new(&mut first.sender.half).poll_shutdown(cx);
        }
        drop(first);
        let outbox = locked(&self.outbox);
        // The first one's task, besides.
        if outbox.shut == outbox.strands + 1 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<S: Wire> AsyncWrite for Writer<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &*self.held.0;
        if self.plain {
            return Pin::new(&mut locked(&shared.first).sender.half).poll_write(cx, from);
        }
        // Before it looks, so that what happens in between wakes it.
        shared.writer.register(cx.waker());
        shared.sound()?;
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(shared.poll_direct(cx, from)).map_err(|error| shared.fail(error))? {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => shared.poll_queue(from).map(Ok),
        }
    }

    /// Afterwards nothing of what was written needs whoever wrote it any more: it is with the kernel, or with a task.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &*self.held.0;
        if self.plain {
            return Pin::new(&mut locked(&shared.first).sender.half).poll_flush(cx);
        }
        shared.writer.register(cx.waker());
        shared.sound()?;
        let mut first = match shared.first.try_lock() {
            Ok(first) => first,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Poll::Ready(Ok(())),
        };
        if first.tasked {
            return Poll::Ready(Ok(()));
        }
        first.sender.poll_drained(cx).map_err(|error| shared.fail(error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &*self.held.0;
        if self.plain {
            return Pin::new(&mut locked(&shared.first).sender.half).poll_shutdown(cx);
        }
        shared.writer.register(cx.waker());
        // Of a bundle that broke no strand says farewell: the other side must not wait for the rest.
        shared.sound()?;
        shared.poll_shut(cx).map_err(|error| shared.fail(error))
    }
}

/// Sends on a further strand until nothing more comes.
pub(super) async fn further<S: Wire>(shared: &Shared<S>, mut sender: Sender<WriteHalf<S>>) {
    let sending = async {
        poll_fn(|cx| sender.poll_drained(cx)).await?;
        loop {
            let mut work = pin!(shared.work.notified());
            // Before it looks.
            work.as_mut().enable();
            match shared.next() {
                Next::Send(Chunk { head, bytes }) => {
                    poll_fn(|cx| Poll::Ready(sender.begin(cx, head, &bytes))).await?;
                    poll_fn(|cx| sender.poll_drained(cx)).await?;
                }
                Next::Wait => work.await,
                Next::Shut => return sender.half.shutdown().await,
            }
        }
    };
    let outcome: io::Result<()> = sending.await;
    shared.sent(outcome);
}

/// The same on the first one, which whoever writes uses as well.
pub(super) async fn first<S: Wire>(shared: Arc<Shared<S>>) {
    let sending = async {
        loop {
            poll_fn(|cx| locked(&shared.first).sender.poll_drained(cx)).await?;
            locked(&shared.first).busy = false;
            let chunk = loop {
                let (mut work, mut left) = (pin!(shared.work.notified()), pin!(shared.left.notified()));
                work.as_mut().enable();
                left.as_mut().enable();
                let next = {
                    let mut first = locked(&shared.first);
                    if first.busy {
                        break None;
                    }
                    let next = shared.next();
                    first.busy = !matches!(next, Next::Wait);
                    next
                };
                match next {
                    Next::Send(chunk) => break Some(chunk),
                    Next::Wait => tokio::select! {
                        () = work => {}
                        () = left => {}
                    },
                    Next::Shut => {
                        let shut = |cx: &mut Context<'_>| {
                            Pin::new(&mut locked(&shared.first).sender.half).poll_shutdown(cx)
                        };
                        return poll_fn(shut).await;
                    }
                }
            };
            if let Some(Chunk { head, bytes }) = chunk {
                poll_fn(|cx| Poll::Ready(locked(&shared.first).sender.begin(cx, head, &bytes))).await?;
            }
        }
    };
    let outcome: io::Result<()> = sending.await;
    shared.sent(outcome);
}
