//! Memory taken ahead is called back: another process of the guest is about to be refused, and its hook asks this one's.
//!
//! ```text
//! other process: refused -> hook ~~ledger~~> hook -> this thread --CallBack--> client
//!                   tries again <~~ledger~~ hook <- dispatcher <--GiveBack.., GaveBack-- what nothing is in
//! ```
//!
//! The hook of the other process waits for a bounded time; the client answers when it can. Without a hook nobody calls.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::driver::Ahead;
use crate::limits::{MODEST_FOR, QUIET_AT_LEAST, QUIET_REST, QUIET_WITHIN};
use crate::link::Outbox;
use crate::wire::operation::Notice;

#[derive(Clone, Copy, Debug)]
struct Slab {
    context: u32,
    device: i32,
}

#[derive(Debug, Default)]
struct State {
    /// What is held, by address.
    slabs: HashMap<u64, Slab>,
    /// The device of the slab that is being taken.
    taking: Option<i32>,
    /// The last call that concerns what is held.
    seen: u32,
    /// When it came.
    called: Option<Instant>,
    /// Until when operations may be held up for it, and from when on for a later one.
    quiet_until: Option<Instant>,
    rest_until: Option<Instant>,
    closed: bool,
}

/// What the client has taken ahead, and the thread that hears when it is called back.
#[derive(Debug)]
pub(super) struct Recall {
    hook: Option<Ahead>,
    out: Arc<Outbox<()>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What is held, while nobody is told to give it back.
#[derive(Debug)]
pub(super) struct Books<'a> {
    recall: &'a Recall,
    state: MutexGuard<'a, State>,
}

impl Recall {
    pub(super) fn new(hook: Option<Ahead>, out: Arc<Outbox<()>>) -> Self {
        Self { hook, out, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether anybody can call: there is a hook.
    pub(super) fn may_be_called(&self) -> bool {
        self.hook.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the books.
    pub(super) fn open(&self) -> Books<'_> {
        Books { recall: self, state: self.lock() }
    }

    /// Whether something begins there that was taken ahead, in a context.
    pub(super) fn has(&self, address: u64, context: u32) -> bool {
        self.lock().slabs.get(&address).is_some_and(|slab| slab.context == context)
    }

    /// Some memory has been freed.
    pub(super) fn freed(&self, address: u64) {
        let mut state = self.lock();
        if let Some(slab) = state.slabs.remove(&address) {
            self.tell(&mut state, slab.device);
        }
    }

    /// A context has ended, and with it what was in it.
    pub(super) fn ended(&self, context: u32) {
        let mut state = self.lock();
        let gone: Vec<Slab> =
            state.slabs.extract_if(|_, slab| slab.context == context).map(|(_, slab)| slab).collect();
        for slab in gone {
            self.tell(&mut state, slab.device);
        }
    }

    /// Has others know whether anything is held on a device.
    fn tell(&self, state: &mut State, device: i32) {
        let Some(hook) = self.hook else { return };
        let any = state.taking == Some(device) || state.slabs.values().any(|slab| slab.device == device);
        let first = any && state.slabs.is_empty();
        let last = (hook.holds)(device, any.into());
        if first {
            state.seen = last;
            self.changed.notify_one();
        }
    }

    /// The client has given back what it could at a call.
    pub(super) fn gave_back(&self, call: u32) {
        let seen = self.lock().seen;
        if let Some(hook) = self.hook.filter(|_| call == seen) {
            (hook.answered)(call);
        }
    }

    /// Until when operations may be held up so that a context becomes quiet.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        self.lock().quiet_until
    }

    /// They have been held up since.
    #[expect(clippy::disallowed_methods, reason = "what was waited counts")]
    pub(super) fn held_up(&self, since: Instant) {
        let (mut state, now) = (self.lock(), Instant::now());
        let rest = now.saturating_duration_since(since) * QUIET_REST;
        state.rest_until = Some(state.rest_until.map_or(now, |until| until.max(now)) + rest);
    }

    /// Listens until the session is over. This is the body of a thread.
    pub(super) fn run(&self) {
        let Some(hook) = self.hook else { return };
        loop {
            let mut state = self.lock();
            while state.slabs.is_empty() && !state.closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            let seen = state.seen;
            drop(state);
            self.pass_on((hook.called)(seen));
        }
    }

    /// Has the client asked. A session that is over has nobody to ask, and gives everything back.
    #[expect(clippy::disallowed_methods, reason = "for a while after it nothing is taken ahead")]
    fn pass_on(&self, call: u32) {
        let mut state = self.lock();
        if state.seen == call {
            // It was made before anything was held.
            return;
        }
        let now = Instant::now();
        let rested = state.rest_until.is_none_or(|until| until <= now);
        state.quiet_until = Some(now + if rested { QUIET_WITHIN } else { QUIET_AT_LEAST });
        state.called = Some(now);
        state.seen = call;
        if state.slabs.is_empty() {
            return;
        }
        let asked = self.out.add_now(|batch| batch.push(|bytes| Notice::CallBack { call }.encode(bytes)));
        drop(state);
        if asked.is_ok() {
            self.out.flush();
        }
    }

    /// Ends the thread, as soon as it looks.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Books<'_> {
    /// Something of a context was taken.
    pub(super) fn took(&mut self, address: u64, context: u32, device: i32) {
        self.state.slabs.insert(address, Slab { context, device });
    }

    /// Whether nothing is taken for now: others were short of memory a moment ago.
    pub(super) fn is_modest(&self) -> bool {
        self.state.called.is_some_and(|called| called.elapsed() < MODEST_FOR)
    }

    /// Takes something on a device. Others know before it is there, so that none of them is refused in between.
    pub(super) fn holding<T, E>(&mut self, device: i32, take: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.state.taking = Some(device);
        self.recall.tell(&mut self.state, device);
        let taken = take();
        self.state.taking = None;
        if taken.is_err() {
            self.recall.tell(&mut self.state, device);
        }
        taken
    }
}
