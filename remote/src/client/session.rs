//! The client's end of a session: sending, waiting, and what comes unasked.

mod copies;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::credits::Credits;
use super::foreseen::{Answers, Foreseen};
use super::greeting::{Greeted, NoSession, greet};
use super::late::Late;
use super::objects::{Context, Event, Reached, Registry, lock};
use super::raw;
use crate::limits::{CLIENT_LOOKS_FOR, RECONNECT_PAUSE, RESUME_WITHIN};
use crate::link::{Address, Arrival, Batch, Bell, Frame, Inlet, Large, Outbox, Patience, ReadError};
use crate::wire::frame::{Kind, Ticket, Welcome};
use crate::wire::large::DataHead;
use crate::wire::operation::{Argument, Arguments, Notice, Operation, Shape, TEMPLATES};
use crate::wire::{Malformed, Reader};

/// Answers that nobody has fetched yet. A worker that sends more talks to itself.
const REPLIES_MAX: usize = 4096;
/// Launches with more bytes of parameters are not remembered.
const REMEMBERED_BYTES: usize = 512;

/// What is kept in step with the order of operations.
#[derive(Debug)]
pub(super) struct InOrder {
    /// The context that the last operation was in.
    context: u32,
    /// Launches that the worker remembers.
    remembered: Vec<Option<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    shape: Shape,
    parameters: Vec<u8>,
}

impl InOrder {
    fn new() -> Self {
        Self { context: 0, remembered: std::iter::repeat_with(|| None).take(TEMPLATES).collect() }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: CUresult,
    pub(super) results: Vec<u8>,
}

/// Something the worker will tell of.
#[derive(Debug)]
pub(super) struct Expected {
    /// What streams have reached then.
    pub(super) reached: Vec<Reached>,
    /// The event that is complete then, and the number of its recording.
    pub(super) event: Option<(Arc<Event>, u64)>,
    /// Host memory that is filled before: address and bytes.
    pub(super) memory: Option<(usize, u64)>,
    /// Whether host memory is read before.
    pub(super) late: bool,
    /// The context, to take note of what went wrong.
    pub(super) context: Arc<Context>,
}

#[derive(Debug, Default)]
struct Inbox {
    replies: HashMap<u64, Reply>,
    expected: HashMap<u64, Expected>,
    /// How many of the expected fill host memory.
    filling: usize,
    /// Status of expected things that came with one, by token, where somebody waits for it.
    failed: HashMap<u64, u32>,
    /// Threads that wait while another one reads.
    waiting: usize,
    /// The thread that reads is putting bytes into the program's memory.
    landing: bool,
}

impl Inbox {
    fn awaits(&self, address: usize, bytes: usize) -> bool {
        // Mostly nothing does, and every copy to the device asks.
        self.filling > 0
            && self.expected.values().filter_map(|expected| expected.memory).any(|(begin, length)| {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                begin < address.saturating_add(bytes) && address < begin.saturating_add(length)
            })
    }

    /// Where so many bytes of a read belong.
    fn place(&self, token: u64, offset: u64, bytes: usize) -> Result<usize, Malformed> {
        let Some((address, length)) = self.expected.get(&token).and_then(|expected| expected.memory) else {
            return Err(Malformed::Misplaced("bytes that nobody asked for"));
        };
        let end = offset.checked_add(bytes as u64);
        if end.is_none_or(|end| end > length) {
            return Err(Malformed::Misplaced("more bytes than were asked for"));
        }
        Ok(address + usize::try_from(offset).map_err(|_| Malformed::Overlong)?)
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) welcome: Welcome,
    address: Address,
    contexts: Arc<Registry<Context>>,
    out: Outbox<InOrder>,
    /// What comes, for whoever reads: a thread of its own when the bell rings, or one that waits for an answer.
    reader: Mutex<Inlet>,
    bell: Bell,
    /// Whether the session outlives its connection.
    resumes: bool,
    inbox: Mutex<Inbox>,
    arrival: Condvar,
    /// Device memory taken ahead.
    pub(super) credits: Credits,
    /// Answers that nobody waits for.
    answers: Answers,
    /// Copies whose bytes are read when their stream has come there.
    late: Arc<Late>,
    /// Held while the thread that sends those is started; whether it is.
    late_runs: Mutex<bool>,
    /// The program has put into a stream what waits for a word in memory. Whatever waits for such a stream may keep from
    /// the worker what would write that word.
    pub(super) waits_for_words: AtomicBool,
    /// Number of the last operation.
    placed: AtomicU64,
    lost: AtomicBool,
    ended: AtomicBool,
    tokens: AtomicU64,
    /// How often a call of the program had to wait for the worker.
    waits: AtomicU64,
}

/// Why nothing is read any more.
enum Stop {
    /// The session is over, and why.
    Over(String),
    /// The connection has ended, or what came is nothing of ours.
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Session {
    /// Connects, and starts the two threads that send and receive.
    pub(super) fn open(address: Address, contexts: &Arc<Registry<Context>>) -> Result<Arc<Self>, NoSession> {
        let Greeted { stream, inlet, welcome, may_break: resumes, .. } =
            greet(&address, Ticket::default(), 0)?;
        let session = Arc::new(Self {
            welcome,
            contexts: Arc::clone(contexts),
            out: Outbox::new(Arc::clone(&stream), resumes, InOrder::new()),
            address,
            resumes,
            bell: Bell::on(&stream).map_err(NoSession::NoThread)?,
            reader: Mutex::new(inlet),
            inbox: Mutex::default(),
            arrival: Condvar::new(),
            credits: Credits::default(),
            answers: Answers::default(),
            late: Arc::default(),
            late_runs: Mutex::new(false),
            waits_for_words: AtomicBool::new(false),
            placed: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            tokens: AtomicU64::new(1),
            waits: AtomicU64::new(0),
        });
        super::state::carried_by(Some(stream.descriptor()));
        let (sender, receiver) = (Arc::clone(&session), Arc::clone(&session));
        let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(move || {
                raw::block_signals();
                body();
            })
        };
        start("headgate-send", Box::new(move || sender.out.run())).map_err(NoSession::NoThread)?;
        start("headgate-receive", Box::new(move || receiver.receive())).map_err(NoSession::NoThread)?;
        Ok(session)
    }

    /// The bell's descriptor, for a forked child to close.
    pub(super) fn bell_descriptor(&self) -> i32 {
        self.bell.descriptor()
    }

    /// Number of the last operation; those of calls that have returned are not above it.
    pub(super) fn placed(&self) -> u64 {
        self.placed.load(Ordering::Acquire)
    }

    fn gone(&self) -> CUresult {
        match self.ended.load(Ordering::Acquire) {
            true => CUresult::ERROR_DEINITIALIZED,
            false => CUresult::ERROR_DEVICE_UNAVAILABLE,
        }
    }

    /// Whether the session still is.
    pub(super) fn check(&self) -> Result<(), CUresult> {
        if self.lost.load(Ordering::Acquire) { Err(self.gone()) } else { Ok(()) }
    }

    /// Has what follows be in a context.
    fn enter(batch: &mut Batch<InOrder>, context: u32) {
        if batch.state.context != context {
            batch.state.context = context;
            batch.push(|bytes| Operation::Context(context).encode(bytes));
        }
    }

    fn place(&self, batch: &mut Batch<InOrder>, context: u32, operation: &Operation<'_>) -> u64 {
        Self::enter(batch, context);
        let number = batch.push(|bytes| operation.encode(bytes));
        self.placed.store(number, Ordering::Release);
        number
    }

    /// Adds an operation that nobody waits for.
    pub(super) fn tell(&self, context: u32, operation: &Operation<'_>) -> Result<(), CUresult> {
        let told = self.out.add(|batch| self.place(batch, context, operation));
        told.map(|_| ()).map_err(|_| self.gone())
    }

    /// Adds an operation that is sent at once: the caller is going to wait for what comes of it.
    pub(super) fn tell_and_flush(&self, context: u32, operation: &Operation<'_>) -> Result<(), CUresult> {
        let told = self.out.add_and_flush(|batch| self.place(batch, context, operation));
        told.map(|_| ()).map_err(|_| self.gone())
    }

    /// Adds a launch: in full the first time, then by what has changed.
    pub(super) fn launch(
        &self,
        context: u32,
        shape: &Shape,
        stream: u32,
        parameters: &[u8],
    ) -> Result<(), CUresult> {
        if parameters.len() > REMEMBERED_BYTES {
            return self
                .tell(context, &Operation::Launch { shape: *shape, stream, attributes: &[], parameters });
        }
        let slot = slot(shape);
        let added = self.out.add(|batch| {
            let mut changed = 0u64;
            let mut words = [0u8; REMEMBERED_BYTES + 8];
            let mut used = 0;
            match &mut batch.state.remembered[usize::from(slot)] {
                Some(known) if known.shape == *shape && known.parameters.len() == parameters.len() => {
                    let pairs = known.parameters.chunks_mut(8).zip(parameters.chunks(8));
                    for (index, (old, new)) in pairs.enumerate().filter(|(_, (old, new))| *old != *new) {
                        old.copy_from_slice(new);
                        changed |= 1 << index;
                        words[used..used + new.len()].copy_from_slice(new);
                        used += 8;
                    }
                }
                place => {
                    *place = Some(Remembered { shape: *shape, parameters: parameters.to_vec() });
                    let template = Operation::Template { slot, shape: *shape, parameters };
                    batch.push(|bytes| template.encode(bytes));
                }
            }
            let again = Operation::Again { slot, stream, changed, words: &words[..used] };
            self.place(batch, context, &again)
        });
        added.map(|_| ()).map_err(|_| self.gone())
    }

    /// Adds an operation and waits for its answer. What fails for want of memory is tried again without the memory that was
    /// taken ahead and is not used.
    pub(super) fn ask(&self, context: u32, operation: &Operation<'_>) -> Result<Reply, CUresult> {
        let given = self.credits.given();
        let mut reply = self.ask_once(context, operation)?;
        let may_wait = !self.waits_for_words.load(Ordering::Acquire);
        // What another thread has given back meanwhile, because it was called back, came too late for this.
        if reply.status == CUresult::ERROR_OUT_OF_MEMORY
            && (self.give_back(0, may_wait)? || self.credits.given() != given)
        {
            reply = self.ask_once(context, operation)?;
        }
        // In a context that could not be made nothing else is worth telling.
        if !reply.status.is_success()
            && let Some(why) = self.contexts.get(context).and_then(|context| context.failure())
        {
            reply.status = why;
        }
        Ok(reply)
    }

    fn ask_once(&self, context: u32, operation: &Operation<'_>) -> Result<Reply, CUresult> {
        let asked = self.out.add_and_flush(|batch| self.place(batch, context, operation));
        let number = asked.map_err(|_| self.gone())?;
        self.wait(|inbox| inbox.replies.remove(&number))
    }

    /// Adds an operation whose answer nobody waits for.
    pub(super) fn foresee(
        &self,
        context: u32,
        operation: &Operation<'_>,
        foreseen: Foreseen,
    ) -> Result<(), CUresult> {
        let added = self.out.add_now(|batch| {
            let number = self.place(batch, context, operation);
            self.answers.expect(number, foreseen);
        });
        added.map_err(|_| self.gone())
    }

    /// Has memory taken ahead for a context, if what there is comes to its end.
    pub(super) fn take_ahead(&self, context: &Arc<Context>) -> Result<(), CUresult> {
        let Some(bytes) = self.credits.wants(context.id) else { return Ok(()) };
        let foreseen = Foreseen::Slab(Arc::clone(context), bytes);
        self.foresee(context.id, &Operation::Ahead { bytes }, foreseen)
    }

    /// Gives back memory that was taken ahead and that nothing is in, save so many slabs of a context. Whether there was any.
    /// The driver waits for a context's work when memory of it is freed: where nobody may be kept waiting, contexts at work keep
    /// their slabs.
    pub(super) fn give_back(&self, keep: usize, may_wait: bool) -> Result<bool, CUresult> {
        let is_done = |context: Arc<Context>| context.everything().iter().all(Reached::is_done);
        let may_lose = |context| may_wait || self.contexts.get(context).is_none_or(is_done);
        let unused = self.credits.take_unused(keep, may_lose);
        for &(base, context, _) in &unused {
            let mut arguments = Arguments::new();
            arguments.push(Argument::Word(base));
            let free = Operation::Call(Symbol::cuMemFree_v2, arguments);
            let added = self.out.add_now(|batch| self.place(batch, context, &free));
            added.map_err(|_| self.gone())?;
        }
        Ok(!unused.is_empty())
    }

    /// Gives back what nothing is in because another process of the guest would be refused memory, and says so. Nobody waits for it:
    /// what the worker cannot give back without waiting for work under way it leaves with this session.
    fn answer_call(&self, call: u32) -> Result<(), CUresult> {
        self.credits.be_modest();
        for (base, id, bytes) in self.credits.take_unused(0, |_| true) {
            // With a context that has ended, so has what was in it.
            let Some(context) = self.contexts.get(id) else { continue };
            let foreseen = Foreseen::Returned(context, base, bytes);
            self.foresee(id, &Operation::GiveBack { address: base }, foreseen)?;
        }
        let done = Operation::GaveBack { call };
        let added = self.out.add_now(|batch| batch.push(|bytes| done.encode(bytes)));
        added.map(|_| ()).map_err(|_| self.gone())
    }

    /// Says what the worker will tell of, and gives the token to ask it with.
    pub(super) fn expect(&self, expected: Expected) -> u64 {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let mut inbox = lock(&self.inbox);
        inbox.filling += usize::from(expected.memory.is_some());
        inbox.expected.insert(token, expected);
        token
    }

    /// Waits until the worker has told of something expected; its status.
    pub(super) fn wait_for(&self, token: u64) -> Result<CUresult, CUresult> {
        self.out.flush();
        self.wait(|inbox| {
            let told = !inbox.expected.contains_key(&token);
            told.then(|| CUresult(inbox.failed.remove(&token).unwrap_or(0)))
        })
    }

    /// Waits until something holds that becomes true by what the worker tells.
    pub(super) fn wait_until(&self, holds: impl Fn() -> bool) -> Result<(), CUresult> {
        self.out.flush();
        self.wait(|_| holds().then_some(()))
    }

    fn wait<T>(&self, mut look: impl FnMut(&mut Inbox) -> Option<T>) -> Result<T, CUresult> {
        if let Some(found) = look(&mut lock(&self.inbox)) {
            return Ok(found);
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut inlet) = self.reader.try_lock()
            && let Some(found) = self.read_until(&mut inlet, &mut look)
        {
            return Ok(found);
        }
        let mut inbox = lock(&self.inbox);
        loop {
            if let Some(found) = look(&mut inbox) {
                return Ok(found);
            }
            // The memory that the caller waits for is its own again only when nobody writes it.
            if !inbox.landing {
                self.check()?;
            }
            inbox.waiting += 1;
            inbox = self.arrival.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            inbox.waiting -= 1;
        }
    }

    /// Reads in the place of the receiving thread, until something is found. `None` when that thread has to go on:
    /// the connection has ended.
    fn read_until<T>(&self, inlet: &mut Inlet, look: &mut impl FnMut(&mut Inbox) -> Option<T>) -> Option<T> {
        self.bell.mute(inlet.stream());
        let mut patience = Patience::Looks(CLIENT_LOOKS_FOR);
        let outcome = loop {
            if let Some(found) = look(&mut lock(&self.inbox)) {
                break Ok(Some(found));
            }
            if self.lost.load(Ordering::Acquire) {
                break Ok(None);
            }
            match self.read(inlet, patience) {
                Ok(true) => {}
                Ok(false) => {
                    self.bell.mute_for_sleep(inlet.stream());
                    patience = Patience::Endless;
                }
                Err(stop) => break Err(stop),
            }
        };
        // What has come along is nobody else's to see: the bell rings only for what is still in the connection.
        let outcome = outcome.and_then(|found| {
            while self.read(inlet, Patience::None)? {}
            Ok(found)
        });
        let found = match outcome {
            Ok(found) => found,
            // The receiving thread comes to see this again.
            Err(Stop::Read(ReadError::Gone(_))) => None,
            Err(stop) => {
                self.stop(&stop);
                None
            }
        };
        self.bell.unmute(inlet.stream());
        // A program that has waited for its device goes on with the next step.
        self.out.rouse();
        found
    }

    /// Whether host memory is still to be filled by an earlier copy.
    pub(super) fn awaits_memory(&self, address: usize, bytes: usize) -> bool {
        lock(&self.inbox).awaits(address, bytes)
    }

    /// Waits until it is filled.
    pub(super) fn wait_for_memory(&self, address: usize, bytes: usize) -> Result<(), CUresult> {
        self.out.flush();
        self.wait(|inbox| (!inbox.awaits(address, bytes)).then_some(()))
    }

    /// Ends the session in good order.
    pub(super) fn end(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let waits = self.waits.load(Ordering::Relaxed);
        super::state::hint(&format_args!("the program ends after waiting {waits} times for its worker"));
        self.out.end(|bytes| Operation::Goodbye.encode(bytes));
        self.lose();
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.out.close();
        self.late.close();
        let inbox = lock(&self.inbox);
        self.arrival.notify_all();
        drop(inbox);
    }

    /// The receiving thread. It reads before it waits: what came along with a greeting rings no bell.
    fn receive(&self) {
        loop {
            let mut inlet = lock(&self.reader);
            if self.lost.load(Ordering::Acquire) {
                return;
            }
            self.bell.answer(inlet.stream());
            let stop = loop {
                match self.read(&mut inlet, Patience::Looks(Duration::ZERO)) {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(stop) => break Some(stop),
                }
            };
            match stop {
                None => {
                    let stream = Arc::clone(inlet.stream());
                    drop(inlet);
                    self.bell.wait(&stream);
                }
                Some(Stop::Read(ReadError::Gone(_))) if self.resumes => {
                    let next = self.reconnect(inlet.received());
                    let Some(next) = next.filter(|next| self.bell.follow(next.stream()).is_ok()) else {
                        return self.lose();
                    };
                    *inlet = next;
                }
                Some(stop) => return self.stop(&stop),
            }
        }
    }

    /// Takes a frame, if one comes. Whether one came.
    fn read(&self, inlet: &mut Inlet, patience: Patience) -> Result<bool, Stop> {
        if !inlet.ready(patience)? {
            return Ok(false);
        }
        match inlet.arrival()? {
            Arrival::Whole(frame) => self.take_frame(&frame)?,
            Arrival::Large(large) => self.take_large(large)?,
        }
        Ok(true)
    }

    fn take_frame(&self, frame: &Frame<'_>) -> Result<(), Stop> {
        match frame.header.kind {
            Kind::Operations => {
                let taken = self.take(frame.header.operations, frame.payload);
                self.out.received(&frame.header);
                taken.map_err(ReadError::Malformed)?;
            }
            Kind::Over => return Err(Stop::Over(String::from_utf8_lossy(frame.payload).into_owned())),
            _ => self.out.received(&frame.header),
        }
        Ok(())
    }

    /// Takes a large frame: bytes of a copy go straight to where the program wants them.
    fn take_large(&self, large: Large<'_>) -> Result<(), Stop> {
        let header = large.header();
        let head = DataHead::decode(large.beginning(), header.bytes).map_err(ReadError::Malformed)?;
        let Some((head, behind)) = head else { return self.take_frame(&large.whole()?) };
        let mut inbox = lock(&self.inbox);
        let address = inbox.place(head.token, head.offset, head.bytes).map_err(ReadError::Malformed)?;
        // The lock is not held while bytes come, which may take as long as a broken link. Instead, whoever waits for this
        // memory, and be it to hear that the session is over, waits until this is done.
        if self.lost.load(Ordering::Acquire) {
            return Err(Stop::Over("the program ends".to_owned()));
        }
        inbox.landing = true;
        drop(inbox);
        let landed = large.land(behind, raw::place(address, head.bytes));
        let mut inbox = lock(&self.inbox);
        inbox.landing = false;
        if inbox.waiting > 0 {
            self.arrival.notify_all();
        }
        drop(inbox);
        landed?;
        self.out.received(&header);
        Ok(())
    }

    /// Ends the session because of what was read.
    fn stop(&self, stop: &Stop) {
        let why: Option<&dyn std::fmt::Display> = match stop {
            Stop::Over(why) => Some(why),
            Stop::Read(ReadError::Gone(_)) => None,
            Stop::Read(error) => Some(error),
        };
        if let Some(why) = why.filter(|_| !self.ended.load(Ordering::Acquire)) {
            super::state::hint(&format_args!("the session is over: {why}"));
        }
        self.lose();
    }

    /// Comes back over a new connection within the time that the worker waits.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long to try is a matter of time; the thread is the client's own"
    )]
    fn reconnect(&self, received: u64) -> Option<Inlet> {
        super::state::carried_by(None);
        let since = Instant::now();
        while since.elapsed() < RESUME_WITHIN && !self.ended.load(Ordering::Acquire) {
            match greet(&self.address, self.welcome.ticket, received) {
                Ok(Greeted { stream, inlet, acknowledged, .. }) => {
                    super::state::carried_by(Some(stream.descriptor()));
                    self.out.resume(stream, acknowledged);
                    return Some(inlet);
                }
                Err(NoSession::Refused(why)) => {
                    super::state::hint(&format_args!("the session is over: {why}"));
                    return None;
                }
                Err(_) => thread::sleep(RECONNECT_PAUSE.min(Duration::from_secs(1))),
            }
        }
        None
    }

    /// Takes the notices of a frame.
    fn take(&self, notices: u32, payload: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(payload);
        for _ in 0..notices {
            match Notice::decode(&mut reader)? {
                Notice::Reply { operation, status, results }
                    if self.answers.take(&self.credits, operation, CUresult(status), results) => {}
                Notice::Idle => {
                    // A session that is over has given everything back.
                    let _gone = self.give_back(0, false);
                }
                Notice::CallBack { call } => {
                    // Likewise.
                    let _gone = self.answer_call(call);
                }
                Notice::Reply { operation, status, results } => {
                    let reply = Reply { status: CUresult(status), results: results.to_vec() };
                    let mut inbox = lock(&self.inbox);
                    inbox.replies.insert(operation, reply);
                    if inbox.replies.len() > REPLIES_MAX {
                        return Err(Malformed::Misplaced("answers to no question"));
                    }
                }
                Notice::Fault { context, status, .. } => {
                    if let Some(context) = self.contexts.get(context) {
                        context.note(status);
                    }
                }
                Notice::Done { token, status } => self.done(token, status),
                Notice::Reached { context, stream, operation } => {
                    let stream = self.contexts.get(context).and_then(|context| context.stream(stream));
                    if let Some(stream) = stream {
                        stream.reached(operation);
                    }
                }
                Notice::Fetch { token } => self.late.ask(token)?,
                Notice::Data { token, offset, bytes } => self.land(token, offset, bytes)?,
            }
        }
        if !reader.is_empty() {
            return Err(Malformed::Misplaced("bytes behind the last notice"));
        }
        let inbox = lock(&self.inbox);
        if inbox.waiting > 0 {
            self.arrival.notify_all();
        }
        drop(inbox);
        Ok(())
    }

    fn done(&self, token: u64, status: u32) {
        let mut inbox = lock(&self.inbox);
        let Some(expected) = inbox.expected.remove(&token) else { return };
        inbox.filling -= usize::from(expected.memory.is_some());
        if status != 0 {
            expected.context.note(status);
            if expected.memory.is_some() {
                inbox.failed.insert(token, status);
            }
        }
        for reached in &expected.reached {
            reached.complete();
        }
        if let Some((event, number)) = &expected.event {
            event.completed.fetch_max(*number, Ordering::AcqRel);
        }
        if expected.late {
            self.late.told(token);
        }
    }

    /// Puts read bytes where the program wants them.
    fn land(&self, token: u64, offset: u64, bytes: &[u8]) -> Result<(), Malformed> {
        // The lock is held meanwhile: whoever frees the memory first waits until it is no longer expected.
        let inbox = lock(&self.inbox);
        let address = inbox.place(token, offset, bytes.len())?;
        raw::put(std::ptr::with_exposed_provenance_mut(address), bytes);
        drop(inbox);
        Ok(())
    }
}

/// Where a launch is remembered.
fn slot(shape: &Shape) -> u8 {
    let sides =
        shape.grid.into_iter().chain(shape.block).chain([shape.shared_bytes, shape.cooperative.into()]);
    let mixed =
        sides.fold(shape.function, |mixed, side| mixed.rotate_left(5).wrapping_mul(0x9e37_79b1) ^ side);
    let mixed = mixed.wrapping_mul(0x85eb_ca6b) >> 26;
    u8::try_from(mixed).unwrap_or(0) % u8::try_from(TEMPLATES).unwrap_or(1)
}
