//! Copies to the device whose bytes are read when their stream has come there.
//!
//! Mostly what pinned memory holds when the call is made is what the device would read, and it is taken then. But a program may hold a
//! stream up by a word in memory, and fill the memory before it writes that word. Where it has such waits, the worker has
//! the stream wait once more, asks when it has come there, and a thread of its own sends the bytes from where they are.
//!
//! ```text
//! offered --asked--> being sent --> sent --told--> (gone)
//! ```
//!
//! The program's memory is in use until the worker has told that the bytes are on the device: who frees it waits for that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

use super::objects::lock;
use crate::limits::PIECE_BYTES_MAX;
use crate::link::{Closed, Outbox};
use crate::wire::Malformed;
use crate::wire::large::LateHead;

/// Bytes that lie together, here and there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Device address.
    pub(super) to: u64,
    /// The program's memory, lent until the worker has told that it has it.
    pub(super) from: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Offered,
    /// Asked for. Whether the worker has told already what became of it, which it may where that is an error.
    Sending {
        told: bool,
    },
    Sent,
}

#[derive(Debug)]
struct Copy {
    rows: Vec<Row>,
    phase: Phase,
}

impl Copy {
    fn uses(&self, address: usize, bytes: usize) -> bool {
        self.rows.iter().any(|row| {
            let begin = row.from.as_ptr().addr();
            begin < address.saturating_add(bytes) && address < begin + row.from.len()
        })
    }
}

#[derive(Debug, Default)]
struct State {
    copies: HashMap<u64, Copy>,
    asked: VecDeque<u64>,
    closed: bool,
}

/// All of a session.
#[derive(Debug, Default)]
pub(super) struct Late {
    state: Mutex<State>,
    changed: Condvar,
}

impl Late {
    /// A copy whose bytes will be asked for by this token.
    pub(super) fn offer(&self, token: u64, rows: Vec<Row>) {
        lock(&self.state).copies.insert(token, Copy { rows, phase: Phase::Offered });
    }

    /// The worker asks for it.
    pub(super) fn ask(&self, token: u64) -> Result<(), Malformed> {
        let mut state = lock(&self.state);
        match state.copies.get_mut(&token) {
            Some(copy) if copy.phase == Phase::Offered => {
                copy.phase = Phase::Sending { told: false };
                state.asked.push_back(token);
                drop(state);
                self.changed.notify_all();
                Ok(())
            }
            _ => Err(Malformed::Misplaced("a question for bytes that were not offered")),
        }
    }

    /// The worker has told what became of it.
    pub(super) fn told(&self, token: u64) {
        let mut state = lock(&self.state);
        let Some(copy) = state.copies.get_mut(&token) else { return };
        match &mut copy.phase {
            Phase::Sending { told } => *told = true,
            Phase::Offered | Phase::Sent => {
                state.copies.remove(&token);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Copies that the worker has not told of, the first of them first.
    pub(super) fn open(&self) -> Vec<u64> {
        let mut tokens: Vec<u64> = lock(&self.state).copies.keys().copied().collect();
        tokens.sort_unstable();
        tokens
    }

    /// Those that read memory of a range.
    pub(super) fn using(&self, address: usize, bytes: usize) -> Vec<u64> {
        let state = lock(&self.state);
        let using = state.copies.iter().filter(|(_, copy)| copy.uses(address, bytes));
        using.map(|(&token, _)| token).collect()
    }

    /// Waits until this node's own thread reads nothing of a range any more, of copies that the worker has told of.
    pub(super) fn settle(&self, address: usize, bytes: usize) {
        let state = lock(&self.state);
        let reads =
            |state: &mut State| !state.closed && state.copies.values().any(|copy| copy.uses(address, bytes));
        drop(self.changed.wait_while(state, reads).unwrap_or_else(PoisonError::into_inner));
    }

    /// The session is over.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Sends what is asked for, until the session is over. This is the body of a thread.
    pub(super) fn run<S>(&self, out: &Outbox<S>) {
        loop {
            let state = lock(&self.state);
            let idle = |state: &mut State| !state.closed && state.asked.is_empty();
            let mut state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            let Some(token) = state.asked.pop_front() else { continue };
            let rows = state.copies.get(&token).map(|copy| copy.rows.clone()).unwrap_or_default();
            drop(state);
            if send(out, token, &rows).is_err() {
                return self.close();
            }
            let mut state = lock(&self.state);
            if let Some(copy) = state.copies.get_mut(&token) {
                match copy.phase {
                    Phase::Sending { told: true } => {
                        state.copies.remove(&token);
                    }
                    _ => copy.phase = Phase::Sent,
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

fn send<S>(out: &Outbox<S>, token: u64, rows: &[Row]) -> Result<(), Closed> {
    let pieces = rows.iter().flat_map(|row| {
        let pieces = row.from.chunks(PIECE_BYTES_MAX).enumerate();
        pieces.map(|(index, from)| (row.to + (index * PIECE_BYTES_MAX) as u64, from))
    });
    let mut pieces = pieces.peekable();
    while let Some((to, from)) = pieces.next() {
        let mut head = Vec::new();
        LateHead { token, to, last: pieces.peek().is_none(), bytes: from.len() }.encode(&mut head);
        out.send_late(head, Box::new(from))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(from: &'static [u8]) -> Row {
        Row { to: 4096, from }
    }

    #[test]
    fn memory_is_in_use_until_the_worker_has_told_and_nobody_sends_it() {
        static MEMORY: [u8; 64] = [7; 64];
        let late = Late::default();
        let (begin, middle) = (MEMORY.as_ptr().addr(), &MEMORY[16..32]);
        late.offer(1, vec![row(middle)]);
        assert_eq!(late.using(begin, 64), [1]);
        assert!(late.using(begin, 16).is_empty() && late.using(begin + 32, 32).is_empty(), "beside it");
        assert!(late.ask(2).is_err(), "nobody offered that");
        late.ask(1).unwrap();
        assert!(late.ask(1).is_err(), "asked for twice");
        late.told(1);
        assert_eq!(late.using(begin, 64), [1], "somebody may be sending it");
        late.close();
        late.settle(begin, 64);
        late.offer(3, vec![row(middle)]);
        late.told(3);
        assert_eq!(late.open(), [1], "one that never began is over at once");
    }
}
