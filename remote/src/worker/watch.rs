//! Completions: one thread looks at what streams have reached and tells the client, unasked.
//!
//! The dispatcher puts an event of its own behind whatever the client wants to hear of and hands it over here. Within a
//! stream things are told in order, so a read's bytes are on their way before the fence behind it. While nothing is
//! under way the thread sleeps; while something is, it looks again after a sixteenth of the time it has waited so far,
//! and more often around the time that the wait before took, within bounds: what it adds to a wait is a few percent of
//! it, and less in a program that goes round in a loop.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::driver::Driver;
use super::staging::{Piece, Word};
use crate::limits::{IDLE_AFTER, LARGE_BYTES};
use crate::link::Outbox;
use crate::wire::large::DataHead;
use crate::wire::operation::Notice;

/// Looks in a row before the thread begins to pause.
const LOOKS_AT_ONCE: u32 = 16;
/// Shortest and longest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_micros(2);
const PAUSE_MAX: Duration = Duration::from_micros(100);
/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u64 = 2;

/// What becomes of a completion.
#[derive(Debug)]
pub(super) enum Then {
    /// The client hears of it.
    Tell(u64),
    /// The client gets bytes, and hears of the end after the last of them.
    Send {
        /// Of which read.
        token: u64,
        /// Where they belong.
        offset: u64,
        /// The bytes.
        piece: Piece,
        /// Whether they are the last.
        last: bool,
    },
    /// The client is asked for bytes that the stream waits for.
    Fetch {
        /// Which.
        token: u64,
        /// In which round of looks the stream was seen to be there.
        seen: Option<u64>,
    },
    /// The bytes have come, and the stream has gone on: the client hears of it, and the word is free again.
    Landed {
        /// Which.
        token: u64,
        /// What the stream waited for.
        word: Word,
    },
    /// A copy has been read.
    Release(Piece),
    /// The client hears that the stream has come past an operation, though it did not ask. Of failures it hears when
    /// it does.
    Reached(u64),
}

/// What a stream is to reach.
#[derive(Debug)]
pub(super) struct Mark {
    /// The context and the client's number of the stream.
    pub(super) lane: (u32, u32),
    /// The driver's context.
    pub(super) context: u64,
    /// The event behind it, or what went wrong before there was one.
    pub(super) event: Result<u64, CUresult>,
    /// What then.
    pub(super) then: Then,
}

impl Mark {
    /// Whether it may be told, now that it is reached. The client is asked for bytes only after it was told of all that was done
    /// by then in any stream, since a copy from the device may have been to where it reads them: so there is a whole round of looks in
    /// between.
    fn is_due(&mut self, round: u64) -> bool {
        match &mut self.then {
            Then::Fetch { seen, .. } => *seen.get_or_insert(round) + 2 <= round,
            _ => true,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    arrived: Vec<Mark>,
    /// Marks not yet told, by context.
    open: HashMap<u32, usize>,
    /// Events to be used again, by context.
    events: HashMap<u32, Vec<u64>>,
    /// The client has taken memory ahead, and something has come since it last heard that nothing does.
    ahead: bool,
    closed: bool,
}

/// What is under way.
#[derive(Debug)]
pub(super) struct Watch {
    driver: Arc<Driver>,
    out: Arc<Outbox<()>>,
    state: Mutex<State>,
    arrival: Condvar,
    told: Condvar,
    /// Counts frames that were executed.
    executed: AtomicU64,
    /// The client has heard that nothing comes. What comes next may leave memory unused that was in use then.
    heard: AtomicBool,
}

impl Watch {
    pub(super) fn new(driver: Arc<Driver>, out: Arc<Outbox<()>>) -> Self {
        let (state, arrival, told) = (Mutex::default(), Condvar::new(), Condvar::new());
        let (executed, heard) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { driver, out, state, arrival, told, executed, heard }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event that was used before in a context.
    pub(super) fn event(&self, context: u32) -> Option<u64> {
        self.lock().events.get_mut(&context)?.pop()
    }

    /// An event of a context behind what a stream of it has been given. The context is current.
    pub(super) fn event_behind(&self, context: u32, stream: u64) -> Result<u64, CUresult> {
        let event = match self.event(context) {
            Some(event) => event,
            None => self.new_event()?,
        };
        match self.driver.call(Symbol::cuEventRecord, &[event, stream]) {
            CUresult::SUCCESS => Ok(event),
            status => Err(status),
        }
    }

    /// A new event of the current context.
    pub(super) fn new_event(&self) -> Result<u64, CUresult> {
        let mut event = 0u64;
        let place = (&raw mut event).expose_provenance() as u64;
        match self.driver.call(Symbol::cuEventCreate, &[place, DISABLE_TIMING]) {
            CUresult::SUCCESS => Ok(event),
            status => Err(status),
        }
    }

    /// Takes an event back that was taken for something else.
    pub(super) fn spare(&self, context: u32, event: u64) {
        self.lock().events.entry(context).or_default().push(event);
    }

    /// Whether everything of a context has been told.
    pub(super) fn is_quiet(&self, context: u32) -> bool {
        self.lock().open.get(&context).is_none_or(|open| *open == 0)
    }

    /// A frame has been executed.
    pub(super) fn executed(&self) {
        self.executed.fetch_add(1, Ordering::Relaxed);
        if self.heard.load(Ordering::Relaxed) && self.heard.swap(false, Ordering::AcqRel) {
            self.expect_idleness();
        }
    }

    /// Has the client told when nothing has come for a while.
    pub(super) fn expect_idleness(&self) {
        self.lock().ahead = true;
        self.arrival.notify_one();
    }

    /// Sleeps until something is under way, or nothing has come for a while and the client shall hear of it.
    fn sleep<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if !state.ahead {
            return self.arrival.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let before = self.executed.load(Ordering::Relaxed);
        let woken = self.arrival.wait_timeout(state, IDLE_AFTER);
        let (mut state, waited) = woken.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && self.executed.load(Ordering::Relaxed) == before {
            state.ahead = false;
            self.heard.store(true, Ordering::Release);
            // A session that is over has nobody to tell.
            let _closed = self.out.add_now(|batch| batch.push(|bytes| Notice::Idle.encode(bytes)));
        }
        state
    }

    /// Looks out for a mark.
    pub(super) fn add(&self, mark: Mark) {
        let mut state = self.lock();
        *state.open.entry(mark.lane.0).or_default() += 1;
        let sleeping = state.arrived.is_empty();
        state.arrived.push(mark);
        drop(state);
        if sleeping {
            self.arrival.notify_one();
        }
    }

    /// Waits until everything of a context has been told, and forgets its events: it is about to end.
    pub(super) fn drain(&self, context: u32) {
        let mut state = self.settled(context);
        state.open.remove(&context);
        state.events.remove(&context);
    }

    /// Waits until everything of a context has been told.
    pub(super) fn settle(&self, context: u32) {
        drop(self.settled(context));
    }

    fn settled(&self, context: u32) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.open.get(&context).is_some_and(|open| *open > 0) && !state.closed {
            state = self.told.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_all();
        self.told.notify_all();
    }

    /// The thread's body.
    #[expect(clippy::disallowed_methods, reason = "how long it has waited decides when it looks again")]
    pub(super) fn run(&self) {
        self.driver.relax_captures();
        super::timer::be_exact();
        let mut lanes: HashMap<(u32, u32), VecDeque<Mark>> = HashMap::new();
        let mut current = 0;
        let (mut looks, mut since) = (0u32, Instant::now());
        // How long it waited the last time. Programs that go round in a loop wait as long again.
        let mut before = Duration::ZERO;
        let mut round = 0u64;
        loop {
            let mut state = self.lock();
            while lanes.is_empty() && state.arrived.is_empty() && !state.closed {
                state = self.sleep(state);
                (looks, since) = (0, Instant::now());
            }
            if lanes.values().len() > 0 && state.arrived.is_empty() && looks > LOOKS_AT_ONCE {
                let waited = since.elapsed();
                let pause = (waited / 16).min(waited.abs_diff(before) / 4).clamp(PAUSE_MIN, PAUSE_MAX);
                (state, _) = self.arrival.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            for mark in state.arrived.drain(..) {
                lanes.entry(mark.lane).or_default().push_back(mark);
            }
            drop(state);
            let mut any = false;
            round += 1;
            for lane in lanes.values_mut() {
                while let Some(status) = lane.front().and_then(|mark| self.look(mark, &mut current)) {
                    any = true;
                    if !lane.front_mut().is_some_and(|mark| mark.is_due(round)) {
                        break;
                    }
                    let Some(mark) = lane.pop_front() else { break };
                    self.tell(mark, status);
                }
            }
            lanes.retain(|_, lane| !lane.is_empty());
            if any {
                self.out.flush();
                before = since.elapsed();
                (looks, since) = (0, Instant::now());
            } else {
                looks = looks.saturating_add(1);
                // On a small node the program itself may wait for this core.
                std::thread::yield_now();
            }
        }
    }

    /// What has come of a mark; `None` while it is not reached.
    fn look(&self, mark: &Mark, current: &mut u64) -> Option<CUresult> {
        let event = match mark.event {
            Ok(event) => event,
            Err(status) => return Some(status),
        };
        if *current != mark.context {
            let _status = self.driver.call(Symbol::cuCtxSetCurrent, &[mark.context]);
            *current = mark.context;
        }
        match self.driver.call(Symbol::cuEventQuery, &[event]) {
            CUresult::ERROR_NOT_READY => None,
            status => Some(status),
        }
    }

    fn tell(&self, mark: Mark, status: CUresult) {
        // This thread writes it itself when it has looked at all. A session that is over has nobody to tell; the memory is
        // given back all the same.
        let say = |notice: Notice<'_>| {
            let _closed = self.out.add_unsent(|batch| batch.push(|bytes| notice.encode(bytes)));
        };
        match mark.then {
            Then::Tell(token) => say(Notice::Done { token, status: status.0 }),
            Then::Send { token, offset, piece, last } => {
                if status.is_success() {
                    self.out.wait_for_room();
                    let bytes = piece.as_ref().len();
                    if bytes < LARGE_BYTES {
                        say(Notice::Data { token, offset, bytes: piece.as_ref() });
                    } else {
                        let head = DataHead { token, offset, bytes };
                        // Much of it may follow, which the sender's thread can write meanwhile. Else as above.
                        let _closed = self.out.add_now(|batch| {
                            batch.push_alone(|bytes| head.encode(bytes), Some(Box::new(piece)))
                        });
                    }
                }
                if last {
                    say(Notice::Done { token, status: status.0 });
                }
            }
            Then::Fetch { token, .. } => {
                // Where it went wrong, the end of the wait says so.
                if status.is_success() {
                    say(Notice::Fetch { token });
                }
            }
            Then::Landed { token, word } => {
                match status.is_success() {
                    true => drop(word),
                    // The stream may still wait for it.
                    false => std::mem::forget(word),
                }
                say(Notice::Done { token, status: status.0 });
            }
            Then::Release(piece) => drop(piece),
            Then::Reached(operation) if status.is_success() => {
                let (context, stream) = mark.lane;
                say(Notice::Reached { context, stream, operation });
            }
            Then::Reached(_) => {}
        }
        let mut state = self.lock();
        if let Ok(event) = mark.event {
            state.events.entry(mark.lane.0).or_default().push(event);
        }
        if let Some(open) = state.open.get_mut(&mark.lane.0) {
            *open = open.saturating_sub(1);
        }
        drop(state);
        self.told.notify_all();
    }
}
