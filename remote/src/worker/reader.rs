//! Who reads the connection: the dispatcher itself, or, once a stream was to wait for bytes, a thread that reads ahead of it.
//!
//! A dispatcher that reads for itself hears of a frame soonest. But while it is in a call of the driver nobody reads, and such a
//! call may wait for a stream that waits for bytes of the program. So a session with such a stream ([`super::late`]) has its frames read
//! by a thread of their own from then on: those bytes go where they belong at once, everything else waits for the dispatcher in
//! the order it came.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Greeted;
use super::driver::Driver;
use super::late::Late;
use crate::limits::{BACKLOG_BYTES_MAX, RESUME_WITHIN};
use crate::link::{Inlet, Outbox, ReadError};
use crate::wire::frame::{HEADER_BYTES, Header, Kind, Ticket, Welcome};
use crate::wire::large::LateHead;
use crate::wire::operation::Operation;
use crate::wire::{Malformed, Reader as Fields};

/// Reads frame after frame, over one connection after the other.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) inlet: Inlet,
    pub(super) ticket: Ticket,
    pub(super) out: Arc<Outbox<()>>,
    /// Where the client comes back, where it can.
    pub(super) again: Option<Receiver<Greeted>>,
}

impl Reader {
    /// The connection has ended: waits for the client to come back. Whether it has.
    pub(super) fn resume(&mut self) -> bool {
        let next = self.again.as_ref().and_then(|again| again.recv_timeout(RESUME_WITHIN).ok());
        let Some(greeted) = next else { return false };
        // Only here is it settled what has been received, so only here may it be told.
        let received = self.inlet.received();
        let answer = Welcome { ticket: self.ticket, ..Welcome::default() };
        self.inlet = greeted.inlet.behind(received);
        if super::answer_hello(&greeted.stream, &answer, received).is_ok() {
            self.out.resume(greeted.stream, greeted.acknowledged);
        }
        true
    }

    /// Has a thread read from now on.
    pub(super) fn go_ahead(self, driver: Arc<Driver>, late: Arc<Late>) -> io::Result<Arc<Backlog>> {
        let backlog = Arc::new(Backlog::default());
        let items = Arc::clone(&backlog);
        let body = move || {
            driver.relax_captures();
            self.read_ahead(&late, &items);
        };
        thread::Builder::new().name("reader".to_owned()).spawn(body)?;
        Ok(backlog)
    }

    fn read_ahead(mut self, late: &Late, items: &Backlog) {
        loop {
            let error = match self.next(late) {
                Ok(item) => {
                    items.add(item);
                    continue;
                }
                Err(ReadError::Gone(_)) if self.resume() => continue,
                Err(error) => error,
            };
            return items.add(Item::End(error));
        }
    }

    fn next(&mut self, late: &Late) -> Result<Item, ReadError> {
        let frame = self.inlet.frame()?;
        let header = frame.header;
        // Heard at once: what is told meanwhile waits for room.
        self.out.heard(header.acknowledged);
        if header.kind == Kind::Operations && header.operations == 1 && LateHead::begins(frame.payload) {
            let mut fields = Fields::new(frame.payload);
            let operation = Operation::decode(&mut fields)?;
            if let (Operation::Late { token, to, last, bytes }, true) = (operation, fields.is_empty()) {
                late.land(token, to, last, bytes);
                return Ok(Item::Landed(header));
            }
            return Err(Malformed::Misplaced("bytes behind the last operation").into());
        }
        Ok(Item::Frame(header, frame.payload.to_vec()))
    }
}

/// What was read.
#[derive(Debug)]
pub(super) enum Item {
    /// A frame that is to be dealt with.
    Frame(Header, Vec<u8>),
    /// One that has been, and is to be acknowledged in its turn.
    Landed(Header),
    /// There will be no more.
    End(ReadError),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Frame(_, payload) => HEADER_BYTES + payload.len(),
            Self::Landed(_) | Self::End(_) => HEADER_BYTES,
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    items: VecDeque<Item>,
    bytes: usize,
}

/// What was read ahead. A client that keeps to what it may be ahead by never fills it.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    held: Mutex<Held>,
    came: Condvar,
    room: Condvar,
}

impl Backlog {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, item: Item) {
        let mut held = self.held();
        while held.bytes > BACKLOG_BYTES_MAX {
            held = self.room.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.bytes += item.bytes();
        held.items.push_back(item);
        drop(held);
        self.came.notify_one();
    }

    /// What comes next; nothing if it does not come in time.
    pub(super) fn take_within(&self, patience: Duration) -> Option<Item> {
        let held = self.held();
        let waited = self.came.wait_timeout_while(held, patience, |held| held.items.is_empty());
        let (held, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.first(held)
    }

    /// What comes next.
    pub(super) fn take(&self) -> Item {
        loop {
            let held = self.held();
            let held = self.came.wait_while(held, |held| held.items.is_empty());
            if let Some(item) = self.first(held.unwrap_or_else(PoisonError::into_inner)) {
                return item;
            }
        }
    }

    fn first(&self, mut held: MutexGuard<'_, Held>) -> Option<Item> {
        let item = held.items.pop_front()?;
        held.bytes -= item.bytes();
        drop(held);
        self.room.notify_one();
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Item {
        Item::Frame(Header::unnumbered(Kind::Operations, bytes), vec![0; bytes])
    }

    #[test]
    fn what_was_read_ahead_keeps_its_order_and_its_bound() {
        let backlog = Arc::new(Backlog::default());
        assert!(backlog.take_within(Duration::ZERO).is_none());
        let filling = Arc::clone(&backlog);
        let filler = thread::spawn(move || {
            for _ in 0..4 {
                filling.add(frame(BACKLOG_BYTES_MAX / 2 + 1));
            }
            filling.add(Item::End(Malformed::Short.into()));
        });
        for _ in 0..4 {
            assert!(matches!(backlog.take(), Item::Frame(..)));
            assert!(backlog.held().bytes <= 2 * BACKLOG_BYTES_MAX, "one frame beyond the bound at most");
        }
        assert!(matches!(backlog.take(), Item::End(_)));
        assert_eq!(backlog.held().bytes, 0);
        filler.join().unwrap();
    }
}
