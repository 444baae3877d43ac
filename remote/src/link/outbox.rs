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

use std::collections::VecDeque;
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

/// Operations that gather until they are sent, and what has to be kept in step with their order.
#[derive(Debug)]
pub struct Batch<S> {
    bytes: Vec<u8>,
    operations: u32,
    total: u64,
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
}

#[derive(Debug)]
struct Sent {
    number: u64,
    operations: u32,
    payload: Arc<Vec<u8>>,
}

#[derive(Debug)]
struct Pending<S> {
    batch: Batch<S>,
    /// Number of the last frame.
    number: u64,
    journal: VecDeque<Sent>,
    journal_bytes: usize,
    /// Operations of the journal's frames.
    ahead: u64,
    spare: Vec<Vec<u8>>,
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
        self.batch.operations == 0 && !self.acknowledge
    }

    /// Whether the other side has enough to do.
    fn full(&self) -> bool {
        self.journal_bytes > JOURNAL_BYTES_MAX || self.ahead > AHEAD_OPERATIONS_MAX
    }

    /// Whether as much as may has gathered.
    fn crowded(&self) -> bool {
        self.batch.bytes.len() >= PENDING_BYTES_MAX || self.batch.operations >= PENDING_OPERATIONS_MAX
    }
}

/// Buffers given back by acknowledged frames that are kept for the next.
const SPARE: usize = 16;
/// Larger buffers than this are not kept.
const SPARE_BYTES: usize = 2 * PENDING_BYTES_MAX;

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
        let batch =
            Batch { bytes: Vec::with_capacity(PENDING_BYTES_MAX / 4), operations: 0, total: 0, state };
        let pending = Pending {
            batch,
            number: 0,
            journal: VecDeque::new(),
            journal_bytes: 0,
            ahead: 0,
            spare: Vec::new(),
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
            let mut pending = lock(&self.pending);
            if pending.idle() || pending.full() {
                return;
            }
            pending.acknowledge = false;
            let frame = self.take(&mut pending);
            let crowd = pending.crowd;
            drop(pending);
            if crowd > 0 {
                self.room.notify_all();
            }
            let Some(stream) = wire.as_ref() else { continue };
            let (header, payload) = match &frame {
                Some(frame) => (self.header(frame), frame.payload.as_slice()),
                None => (self.acknowledgement(), &[][..]),
            };
            if stream.write_both(&header.encode(), payload).is_err() {
                // The reading thread sees the end and decides what becomes of the session.
                stream.shut();
                *wire = None;
            }
            if let Some(frame) = frame.filter(|_| !self.resumes) {
                recycle(&mut lock(&self.pending), frame.payload);
            }
        }
    }

    /// Makes a frame of the pending operations.
    fn take(&self, pending: &mut Pending<S>) -> Option<Sent> {
        if pending.batch.operations == 0 {
            return None;
        }
        let next = pending.spare.pop().unwrap_or_default();
        let payload = Arc::new(std::mem::replace(&mut pending.batch.bytes, next));
        pending.number += 1;
        let operations = std::mem::take(&mut pending.batch.operations);
        let sent = |payload| Sent { number: pending.number, operations, payload };
        let frame = sent(Arc::clone(&payload));
        // Without a connection to come back, only the count is kept: of how far the other side is behind.
        let kept = sent(if self.resumes { payload } else { Arc::default() });
        pending.journal_bytes += kept.payload.len();
        pending.ahead += u64::from(operations);
        pending.journal.push_back(kept);
        Some(frame)
    }

    fn header(&self, frame: &Sent) -> Header {
        Header {
            kind: Kind::Operations,
            bytes: frame.payload.len(),
            operations: frame.operations,
            number: frame.number,
            acknowledged: self.received.load(Ordering::Acquire),
        }
    }

    fn acknowledgement(&self) -> Header {
        let acknowledged = self.received.load(Ordering::Acquire);
        Header { kind: Kind::Acknowledge, bytes: 0, operations: 0, number: 0, acknowledged }
    }

    /// Sends until the session is over. This is the body of a thread.
    pub fn run(&self) {
        loop {
            let mut pending = lock(&self.pending);
            while (pending.idle() || pending.full()) && !pending.closed {
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
        if drop_acknowledged(&mut pending, header.acknowledged) && pending.crowd > 0 {
            self.room.notify_all();
        }
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

    /// Goes on over a new connection: what the other side has not received is sent again.
    pub fn resume(&self, stream: Arc<Stream>, acknowledged: u64) {
        *lock(&self.open) = Arc::clone(&stream);
        let mut wire = lock(&self.wire);
        let mut pending = lock(&self.pending);
        let _any = drop_acknowledged(&mut pending, acknowledged);
        self.room.notify_all();
        let again: Vec<Sent> =
            pending.journal.iter().map(|sent| Sent { payload: Arc::clone(&sent.payload), ..*sent }).collect();
        self.wake(&mut pending);
        drop(pending);
        let whole =
            again.iter().all(|frame| stream.write_both(&self.header(frame).encode(), &frame.payload).is_ok());
        *wire = if whole {
            Some(stream)
        } else {
            stream.shut();
            None
        };
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

    /// Waits while so much is pending that more would only gather.
    pub fn wait_for_room(&self) {
        let mut pending = lock(&self.pending);
        while (pending.batch.bytes.len() >= PENDING_BYTES_MAX / 2 || pending.full()) && !pending.closed {
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
        pending.journal_bytes -= sent.payload.len();
        pending.ahead -= u64::from(sent.operations);
        recycle(pending, sent.payload);
        any = true;
    }
    any
}

/// Keeps a buffer for another frame.
fn recycle<S>(pending: &mut Pending<S>, payload: Arc<Vec<u8>>) {
    if pending.spare.len() < SPARE
        && let Ok(mut buffer) = Arc::try_unwrap(payload)
        && buffer.capacity() <= SPARE_BYTES
    {
        buffer.clear();
        pending.spare.push(buffer);
    }
}
