//! The sending half of a session. It outlives connections.
//!
//! ```text
//! add ──> batch ──flush──> frame n ──write──> connection
//!                             └──> journal, until the other side has received it
//! ```
//!
//! Whoever adds operations only copies bytes; a thread of its own writes them ([`Outbox::run`]), and while it is in
//! one system call the next batch gathers. A caller that is going to wait for an answer writes at once
//! ([`Outbox::flush`]), which saves waking that thread.
//!
//! A large piece of a copy has a frame of its own ([`Batch::push_alone`]) and is not gathered with others. A caller may
//! lend its memory for as long as its copy lasts and write the pieces from where they are ([`Outbox::send_lent`]). Where the
//! connection ends only with the session, that is all. Where the session outlives its connection, a frame must be there to be
//! sent again until it is acknowledged: until the copy ends the journal holds what was lent, and then a copy of what is not
//! acknowledged by then ([`Outbox::keep`]). To wait for that instead would cost each copy a round trip of the wire, which
//! is more than to copy the rest once; the program may change its memory as soon as the call returns.
//!
//! What is lent is in frames of the journal only, and whoever reads those holds the lock of the wire.
//!
//! Over a new connection the journal is written again by whoever writes next, before anything else, and never by the thread
//! that reads: the other side may be doing the same, and then only reading lets both go on.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Stream;
use crate::limits::{
    ACK_BYTES, ACK_FRAMES, ACK_OPERATIONS, AHEAD_OPERATIONS_MAX, GOODBYE_WITHIN, JOURNAL_BYTES_MAX,
    PENDING_BYTES_MAX, PENDING_OPERATIONS_MAX, SENDER_LINGERS,
};
use crate::wire::frame::{Header, Kind};

/// The session is over; nothing is sent any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

/// Memory that a frame ends with and that is written from where it is.
pub trait Tail: AsRef<[u8]> + fmt::Debug + Send + Sync {}

impl<T: AsRef<[u8]> + fmt::Debug + Send + Sync> Tail for T {}

/// What a frame holds.
#[derive(Debug, Default)]
struct Payload {
    bytes: Vec<u8>,
    tail: Option<Box<dyn Tail>>,
    lent: Lent,
}

/// Whose the memory is that a frame ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Lent {
    /// The frame's own.
    #[default]
    No,
    /// The caller's, until it calls [`Outbox::keep`].
    ForCall,
    /// The program's, until somebody calls [`Outbox::keep_late`].
    Late,
}

impl Payload {
    fn tail(&self) -> &[u8] {
        self.tail.as_deref().map_or(&[], AsRef::as_ref)
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.tail().len()
    }
}

/// Operations that gather until they are sent, and what has to be kept in step with their order.
#[derive(Debug)]
pub struct Batch<S> {
    /// Frames to be, before what gathers: how many operations, and what.
    sealed: VecDeque<(u32, Payload)>,
    sealed_bytes: usize,
    sealed_operations: u32,
    bytes: Vec<u8>,
    operations: u32,
    total: u64,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// The owner's own state, changed only in the order of operations.
    pub state: S,
}

impl<S> Batch<S> {
    /// Adds an operation and gives its number.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> u64 {
        encode(&mut self.bytes);
        self.operations += 1;
        self.total += 1;
        self.total
    }

    /// Adds an operation that has a frame for itself, and the memory it ends with, if that is not among what is encoded.
    pub fn push_alone(&mut self, encode: impl FnOnce(&mut Vec<u8>), tail: Option<Box<dyn Tail>>) -> u64 {
        self.seal(None);
        let number = self.push(encode);
        self.seal(tail);
        number
    }

    /// Makes a frame of what has gathered.
    fn seal(&mut self, tail: Option<Box<dyn Tail>>) {
        if self.operations == 0 {
            return;
        }
        let next = self.spare();
        let bytes = std::mem::replace(&mut self.bytes, next);
        let payload = Payload { bytes, tail, lent: Lent::No };
        self.sealed_bytes += payload.len();
        self.sealed_operations += self.operations;
        self.sealed.push_back((std::mem::take(&mut self.operations), payload));
    }

    /// The next frame, if there is anything to be sent.
    fn next(&mut self) -> Option<(u32, Payload)> {
        if self.sealed.is_empty() {
            self.seal(None);
        }
        let (operations, payload) = self.sealed.pop_front()?;
        self.sealed_bytes -= payload.len();
        self.sealed_operations -= operations;
        Some((operations, payload))
    }

    fn is_empty(&self) -> bool {
        self.operations == 0 && self.sealed.is_empty()
    }

    /// Bytes that gather.
    fn held_bytes(&self) -> usize {
        self.sealed_bytes + self.bytes.len()
    }

    /// A buffer, used before if there is one.
    fn spare(&mut self) -> Vec<u8> {
        let spare = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= spare.capacity();
        spare
    }

    /// Keeps a buffer for another frame.
    fn recycle(&mut self, payload: Arc<Payload>) {
        if let Ok(Payload { mut bytes, .. }) = Arc::try_unwrap(payload)
            && bytes.capacity() > 0
            && self.spare_bytes + bytes.capacity() <= SPARE_BYTES
        {
            bytes.clear();
            self.spare_bytes += bytes.capacity();
            self.spare.push(bytes);
        }
    }
}

#[derive(Debug)]
struct Sent {
    number: u64,
    operations: u32,
    /// Of the payload, which is not kept where it will not be sent again.
    bytes: usize,
    payload: Arc<Payload>,
}

#[derive(Debug)]
struct Pending<S> {
    batch: Batch<S>,
    /// Number of the last frame.
    number: u64,
    journal: VecDeque<Sent>,
    journal_bytes: usize,
    /// Frames of the journal from this number on are still to be written to a new connection.
    again: Option<u64>,
    /// Operations of the journal's frames.
    ahead: u64,
    acknowledge: bool,
    sender_sleeps: bool,
    /// Something is going to be sent soon.
    roused: bool,
    /// Threads that wait for room.
    crowd: u32,
    closed: bool,
}

impl<S> Pending<S> {
    fn idle(&self) -> bool {
        self.batch.is_empty() && !self.acknowledge
    }

    /// Whether the other side has enough to do.
    fn full(&self) -> bool {
        self.journal_bytes > JOURNAL_BYTES_MAX || self.ahead > AHEAD_OPERATIONS_MAX
    }

    /// Whether there is something that may be sent. An acknowledgement always may: where both sides have enough to do, it is what
    /// lets the other one go on.
    fn has_something_to_send(&self) -> bool {
        self.acknowledge || !(self.idle() || self.full())
    }

    /// Whether as much as may has gathered.
    fn crowded(&self) -> bool {
        self.batch.held_bytes() >= PENDING_BYTES_MAX
            || self.batch.sealed_operations + self.batch.operations >= PENDING_OPERATIONS_MAX
    }
}

/// Bytes of buffers given back by acknowledged frames that are kept for the next: as much as is under way where a wire is
/// near. A new buffer costs more than what is copied into it.
const SPARE_BYTES: usize = 16 << 20;

/// The sending half of a session.
#[derive(Debug)]
pub struct Outbox<S> {
    pending: Mutex<Pending<S>>,
    work: Condvar,
    room: Condvar,
    /// The connection, `None` while there is none. Locked while a frame is written, so that frames keep their order.
    wire: Mutex<Option<Arc<Stream>>>,
    /// The same connection, to be shut while somebody waits in a write.
    open: Mutex<Arc<Stream>>,
    /// Number of the last frame received in the other direction.
    received: AtomicU64,
    unacknowledged_bytes: AtomicU64,
    unacknowledged_frames: AtomicU32,
    unacknowledged_operations: AtomicU64,
    /// Whether the session outlives its connection, so that frames are kept whole.
    resumes: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Outbox<S> {
    /// For a session over a connection.
    #[must_use]
    pub fn new(stream: Arc<Stream>, resumes: bool, state: S) -> Self {
        let batch = Batch {
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            sealed_operations: 0,
            bytes: Vec::with_capacity(PENDING_BYTES_MAX / 4),
            operations: 0,
            total: 0,
            spare: Vec::new(),
            spare_bytes: 0,
            state,
        };
        let pending = Pending {
            batch,
            number: 0,
            journal: VecDeque::new(),
            journal_bytes: 0,
            again: None,
            ahead: 0,
            acknowledge: false,
            sender_sleeps: false,
            roused: false,
            crowd: 0,
            closed: false,
        };
        Self {
            pending: Mutex::new(pending),
            work: Condvar::new(),
            room: Condvar::new(),
            open: Mutex::new(Arc::clone(&stream)),
            wire: Mutex::new(Some(stream)),
            received: AtomicU64::new(0),
            unacknowledged_bytes: AtomicU64::new(0),
            unacknowledged_frames: AtomicU32::new(0),
            unacknowledged_operations: AtomicU64::new(0),
            resumes,
        }
    }

    /// Adds operations; waits while too much is pending.
    ///
    /// # Errors
    /// When the session is over.
    pub fn add<R>(&self, encode: impl FnOnce(&mut Batch<S>) -> R) -> Result<R, Closed> {
        let mut pending = lock(&self.pending);
        while pending.crowded() && !pending.closed {
            pending = self.wait_in_crowd(pending);
        }
        self.add_locked(pending, encode)
    }

    /// Adds operations without waiting: for threads that others wait for.
    ///
    /// # Errors
    /// When the session is over.
    pub fn add_now<R>(&self, encode: impl FnOnce(&mut Batch<S>) -> R) -> Result<R, Closed> {
        self.add_locked(lock(&self.pending), encode)
    }

    /// Adds operations without waiting, and without waking whoever sends: the caller is about to [`Outbox::flush`].
    ///
    /// # Errors
    /// When the session is over.
    pub fn add_unsent<R>(&self, encode: impl FnOnce(&mut Batch<S>) -> R) -> Result<R, Closed> {
        let mut pending = lock(&self.pending);
        if pending.closed { Err(Closed) } else { Ok(encode(&mut pending.batch)) }
    }

    fn add_locked<R>(
        &self,
        mut pending: MutexGuard<'_, Pending<S>>,
        encode: impl FnOnce(&mut Batch<S>) -> R,
    ) -> Result<R, Closed> {
        if pending.closed {
            return Err(Closed);
        }
        let result = encode(&mut pending.batch);
        self.wake(&mut pending);
        Ok(result)
    }

    /// Adds operations and leaves it to the caller to [`Outbox::flush`] them.
    ///
    /// # Errors
    /// When the session is over.
    pub fn add_and_flush<R>(&self, encode: impl FnOnce(&mut Batch<S>) -> R) -> Result<R, Closed> {
        let result = self.add_unsent(encode)?;
        self.flush();
        Ok(result)
    }

    fn wake(&self, pending: &mut Pending<S>) {
        if pending.sender_sleeps {
            pending.sender_sleeps = false;
            self.work.notify_one();
        }
    }

    /// Writes what is pending, unless the other side is far behind; then the sender's thread will.
    pub fn flush(&self) {
        let mut wire = lock(&self.wire);
        loop {
            self.catch_up(&mut wire);
            let mut pending = lock(&self.pending);
            if !pending.has_something_to_send() {
                return;
            }
            pending.acknowledge = false;
            // All at once: whoever waits for room is woken once for it.
            let mut frames =
                std::iter::from_fn(|| if pending.full() { None } else { self.take(&mut pending) });
            let frame = frames.next();
            let more: Vec<Sent> = frames.collect();
            let crowd = pending.crowd;
            drop(pending);
            if crowd > 0 {
                self.room.notify_all();
            }
            let Some(stream) = wire.as_ref() else { continue };
            let written = match &frame {
                Some(frame) => {
                    [frame].into_iter().chain(&more).try_for_each(|frame| self.write(stream, frame))
                }
                None => stream.write_both(&self.acknowledgement().encode(), &[]),
            };
            if written.is_err() {
                // The reading thread sees the end and decides what becomes of the session.
                stream.shut();
                *wire = None;
            }
            if !self.resumes && frame.is_some() {
                let mut pending = lock(&self.pending);
                frame.into_iter().chain(more).for_each(|sent| pending.batch.recycle(sent.payload));
            }
        }
    }

    fn write(&self, stream: &Stream, frame: &Sent) -> io::Result<()> {
        stream.write([&self.header(frame).encode(), &frame.payload.bytes, frame.payload.tail()])
    }

    /// Sends an operation that ends with the caller's memory, in a frame of its own, behind what is pending and what
    /// `before` adds. The operation's number. The memory is lent until the caller has called [`Outbox::keep`]; of a
    /// session that ends with its connection, until this returns.
    ///
    /// # Errors
    /// When the session is over.
    pub fn send_lent(
        &self,
        before: impl Fn(&mut Batch<S>),
        head: impl Fn(&mut Vec<u8>),
        tail: Box<dyn Tail>,
    ) -> Result<u64, Closed> {
        loop {
            self.wait_for_room();
            let mut wire = lock(&self.wire);
            self.catch_up(&mut wire);
            let mut pending = lock(&self.pending);
            if pending.closed {
                return Err(Closed);
            }
            if pending.full() {
                continue;
            }
            before(&mut pending.batch);
            let number = pending.batch.push_alone(&head, Some(tail));
            if let Some((_, payload)) = pending.batch.sealed.back_mut() {
                payload.lent = Lent::ForCall;
            }
            // All of it, so that nothing lent is left among what is pending.
            let frames: Vec<Sent> = std::iter::from_fn(|| self.take(&mut pending)).collect();
            pending.acknowledge = false;
            let crowd = pending.crowd;
            drop(pending);
            if crowd > 0 {
                self.room.notify_all();
            }
            let written = wire
                .as_ref()
                .map_or(Ok(()), |stream| frames.iter().try_for_each(|frame| self.write(stream, frame)));
            if let Some(stream) = wire.as_ref().filter(|_| written.is_err()) {
                // As above.
                stream.shut();
                *wire = None;
            }
            let mut pending = lock(&self.pending);
            frames.into_iter().for_each(|sent| pending.batch.recycle(sent.payload));
            return Ok(number);
        }
    }

    /// Gives back what was lent: of frames that the other side has not acknowledged, copies are kept.
    pub fn keep(&self) {
        self.keep_lent(Lent::ForCall);
    }

    /// The same for what was sent late ([`Outbox::send_late`]), once the other side has all of it.
    pub fn keep_late(&self) {
        self.keep_lent(Lent::Late);
    }

    fn keep_lent(&self, lent: Lent) {
        if !self.resumes {
            return;
        }
        // Nobody reads what was lent while this is held.
        let wire = lock(&self.wire);
        let mut pending = lock(&self.pending);
        let Pending { journal, batch, .. } = &mut *pending;
        for sent in journal.iter_mut().filter(|sent| sent.payload.lent == lent) {
            let mut bytes = batch.spare();
            bytes.extend_from_slice(&sent.payload.bytes);
            bytes.extend_from_slice(sent.payload.tail());
            sent.payload = Arc::new(Payload { bytes, tail: None, lent: Lent::No });
        }
        drop(pending);
        drop(wire);
    }

    /// Sends an operation that ends with the program's memory, in a frame of its own and past everything that is pending, even where
    /// the other side has enough to do: it waits for this. It has no number among the operations. The memory is lent until the other
    /// side has told that it has all of it and somebody has called [`Outbox::keep_late`].
    ///
    /// # Errors
    /// When the session is over.
    pub fn send_late(&self, head: Vec<u8>, tail: Box<dyn Tail>) -> Result<(), Closed> {
        let mut wire = lock(&self.wire);
        self.catch_up(&mut wire);
        let mut pending = lock(&self.pending);
        if pending.closed {
            return Err(Closed);
        }
        let frame = self.number(&mut pending, 1, Payload { bytes: head, tail: Some(tail), lent: Lent::Late });
        drop(pending);
        if let Some(stream) = wire.as_ref()
            && self.write(stream, &frame).is_err()
        {
            // As above.
            stream.shut();
            *wire = None;
        }
        Ok(())
    }

    /// Makes a frame of the pending operations.
    fn take(&self, pending: &mut Pending<S>) -> Option<Sent> {
        let (operations, payload) = pending.batch.next()?;
        Some(self.number(pending, operations, payload))
    }

    /// Gives a frame its number, and notes it in the journal.
    fn number(&self, pending: &mut Pending<S>, operations: u32, payload: Payload) -> Sent {
        let payload = Arc::new(payload);
        pending.number += 1;
        let bytes = payload.len();
        let sent = |payload| Sent { number: pending.number, operations, bytes, payload };
        let frame = sent(Arc::clone(&payload));
        // Without a connection to come back, only the count is kept: of how far the other side is behind.
        let kept = sent(if self.resumes { payload } else { Arc::default() });
        pending.journal_bytes += bytes;
        pending.ahead += u64::from(operations);
        pending.journal.push_back(kept);
        frame
    }

    fn header(&self, frame: &Sent) -> Header {
        Header {
            operations: frame.operations,
            number: frame.number,
            acknowledged: self.received.load(Ordering::Acquire),
            ..Header::unnumbered(Kind::Operations, frame.payload.len())
        }
    }

    fn acknowledgement(&self) -> Header {
        let acknowledged = self.received.load(Ordering::Acquire);
        Header { acknowledged, ..Header::unnumbered(Kind::Acknowledge, 0) }
    }

    /// Sends until the session is over. This is the body of a thread.
    pub fn run(&self) {
        loop {
            let mut pending = lock(&self.pending);
            while !pending.has_something_to_send() && pending.again.is_none() && !pending.closed {
                if std::mem::take(&mut pending.roused) {
                    drop(pending);
                    self.linger();
                    pending = lock(&self.pending);
                    continue;
                }
                pending.sender_sleeps = true;
                pending = self.work.wait(pending).unwrap_or_else(PoisonError::into_inner);
                pending.sender_sleeps = false;
            }
            if pending.closed {
                return;
            }
            pending.roused = true;
            drop(pending);
            self.flush();
        }
    }

    /// Has the sender's thread wake for what is going to be sent soon.
    pub fn rouse(&self) {
        let mut pending = lock(&self.pending);
        pending.roused = true;
        self.wake(&mut pending);
    }

    /// Stays awake for a moment: while the sender's thread looks, whoever adds something need not wake it.
    #[expect(clippy::disallowed_methods, reason = "how long to look is a matter of time")]
    fn linger(&self) {
        let since = Instant::now();
        while since.elapsed() < SENDER_LINGERS {
            std::thread::yield_now();
            let pending = lock(&self.pending);
            if !pending.idle() || pending.closed {
                return;
            }
        }
    }

    /// A frame has been received and dealt with: it is acknowledged with the next frame, or before long on its own.
    /// `acknowledged` is what the other side has received.
    pub fn received(&self, header: &Header) {
        if header.kind == Kind::Operations {
            self.received.store(header.number, Ordering::Release);
        }
        let operations = u64::from(header.operations);
        let operations = self.unacknowledged_operations.fetch_add(operations, Ordering::Relaxed) + operations;
        let bytes =
            self.unacknowledged_bytes.fetch_add(header.bytes as u64, Ordering::Relaxed) + header.bytes as u64;
        let frames = self.unacknowledged_frames.fetch_add(1, Ordering::Relaxed) + 1;
        let much = bytes >= ACK_BYTES as u64 || frames >= ACK_FRAMES || operations >= ACK_OPERATIONS;
        let due = header.kind == Kind::Operations && much;
        let mut pending = lock(&self.pending);
        self.hear(&mut pending, header.acknowledged);
        if due {
            self.unacknowledged_bytes.store(0, Ordering::Relaxed);
            self.unacknowledged_frames.store(0, Ordering::Relaxed);
            self.unacknowledged_operations.store(0, Ordering::Relaxed);
            pending.acknowledge = true;
        }
        if !pending.idle() {
            self.wake(&mut pending);
        }
    }

    /// The other side has received everything up to a frame.
    pub fn heard(&self, acknowledged: u64) {
        self.hear(&mut lock(&self.pending), acknowledged);
    }

    fn hear(&self, pending: &mut Pending<S>, acknowledged: u64) {
        if drop_acknowledged(pending, acknowledged) && pending.crowd > 0 {
            self.room.notify_all();
        }
    }

    /// Goes on over a new connection: what the other side has not received is sent again.
    pub fn resume(&self, stream: Arc<Stream>, acknowledged: u64) {
        let old = std::mem::replace(&mut *lock(&self.open), Arc::clone(&stream));
        // Who still waits to write there would wait for as long as its other end answers, and be it that it takes nothing.
        old.shut();
        let mut wire = lock(&self.wire);
        let mut pending = lock(&self.pending);
        let _any = drop_acknowledged(&mut pending, acknowledged);
        self.room.notify_all();
        pending.again = pending.journal.front().map(|sent| sent.number);
        *wire = Some(stream);
        self.wake(&mut pending);
    }

    /// Writes to a new connection what the other side had not received over the one before.
    fn catch_up(&self, wire: &mut Option<Arc<Stream>>) {
        loop {
            let mut pending = lock(&self.pending);
            let Some(from) = pending.again else { return };
            let next = pending.journal.iter().find(|sent| from <= sent.number);
            let next = next.map(|sent| Sent { payload: Arc::clone(&sent.payload), ..*sent });
            let (Some(stream), Some(frame)) = (wire.as_ref(), next) else {
                pending.again = None;
                return;
            };
            pending.again = Some(frame.number + 1);
            drop(pending);
            if self.write(stream, &frame).is_err() {
                // As above; the next connection begins anew.
                stream.shut();
                *wire = None;
            }
        }
    }

    /// Ends the session: nobody waits for room any more, and nothing is sent.
    pub fn close(&self) {
        let mut pending = lock(&self.pending);
        pending.closed = true;
        self.work.notify_all();
        self.room.notify_all();
        drop(pending);
        // Whoever waits in a write is let go by this.
        lock(&self.open).shut();
    }

    /// Sends a last operation, if that is possible within [`GOODBYE_WITHIN`], and ends the session.
    #[expect(
        clippy::disallowed_methods,
        reason = "a program that ends waits a bounded time for another thread's write"
    )]
    pub fn end(&self, last: impl FnOnce(&mut Vec<u8>)) {
        let _closed = self.add_now(|batch| batch.push(last));
        // Without a bound on writes, an end that nobody listens to would never come.
        let bounded = lock(&self.open).set_write_patience(GOODBYE_WITHIN / 2).is_ok();
        let since = Instant::now();
        while bounded && since.elapsed() < GOODBYE_WITHIN / 2 {
            if let Ok(wire) = self.wire.try_lock() {
                drop(wire);
                self.flush();
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.close();
    }

    /// Sends what is pending and a frame without a number behind it, as far as the other side takes them.
    pub fn last_word(&self, kind: Kind, text: &str) {
        self.flush();
        let mut wire = lock(&self.wire);
        if let Some(stream) = wire.take() {
            // Whoever is gone needs no last word.
            let _gone = stream.write_both(&kind.alone(text.as_bytes()), &[]);
        }
    }

    /// Sends what is pending and a frame without a number behind it; the session goes on.
    pub fn say(&self, kind: Kind) {
        self.flush();
        let wire = lock(&self.wire);
        if let Some(stream) = &*wire {
            // Whoever reads the connection notices if it is gone.
            let _gone = stream.write_both(&kind.alone(&[]), &[]);
        }
    }

    /// Waits while so much is pending that more would only gather.
    pub fn wait_for_room(&self) {
        let mut pending = lock(&self.pending);
        while (pending.batch.held_bytes() >= PENDING_BYTES_MAX / 2 || pending.full()) && !pending.closed {
            pending = self.wait_in_crowd(pending);
        }
    }

    fn wait_in_crowd<'a>(&self, mut pending: MutexGuard<'a, Pending<S>>) -> MutexGuard<'a, Pending<S>> {
        self.wake(&mut pending);
        pending.crowd += 1;
        let mut pending = self.room.wait(pending).unwrap_or_else(PoisonError::into_inner);
        pending.crowd -= 1;
        pending
    }
}

/// Forgets what the other side has received. Whether there was any.
fn drop_acknowledged<S>(pending: &mut Pending<S>, acknowledged: u64) -> bool {
    let mut any = false;
    while pending.journal.front().is_some_and(|sent| sent.number <= acknowledged) {
        let Some(sent) = pending.journal.pop_front() else { break };
        pending.journal_bytes -= sent.bytes;
        pending.ahead -= u64::from(sent.operations);
        pending.batch.recycle(sent.payload);
        any = true;
    }
    any
}
