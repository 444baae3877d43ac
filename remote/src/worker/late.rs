//! Host memory that is read when its stream has come there, because what it holds then is what the program means.
//!
//! ```text
//! dispatcher  --Hold-->   stream: .. event | wait for a word | ..
//! watch       event reached: Fetch -->  client reads its memory
//! reader      <-- Late bytes:  side stream: copy, copy, write the word       (stream goes on)
//! watch       wait is over: Done -->   the memory is the program's own again
//! ```
//!
//! The bytes go past the dispatcher, which may be in a call of the driver that waits for this very stream: whoever uses this has
//! frames read ahead ([`super::reader`]). The side stream is of the same context and waits for nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CU_STREAM_WAIT_VALUE_GEQ, CUresult};

use super::driver::Driver;
use super::session::{End, Session};
use super::staging::{Staging, Words};
use super::watch::{Mark, Then, Watch};
use crate::link::Outbox;
use crate::wire::Malformed;
use crate::wire::operation::Notice;

/// `CU_STREAM_NON_BLOCKING`: the legacy stream does not wait for it, nor it for that.
const NON_BLOCKING: u64 = 1;
/// What the watch knows side streams by: no client's number.
const SIDE: u32 = u32::MAX;

/// A stream that waits.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// Its context, by the client's number and for the driver.
    context: (u32, u64),
    /// The stream that the bytes are copied in.
    side: u64,
    /// Where the word is that it waits for, and what that must become.
    word: (u64, u32),
}

#[derive(Debug, Default)]
struct State {
    holds: HashMap<u64, Hold>,
    /// Side streams by context.
    sides: HashMap<u32, u64>,
}

/// Streams that wait for bytes.
#[derive(Debug)]
pub(super) struct Late {
    driver: Arc<Driver>,
    staging: Arc<Staging>,
    words: Arc<Words>,
    watch: Arc<Watch>,
    out: Arc<Outbox<()>>,
    used: AtomicBool,
    state: Mutex<State>,
}

impl Late {
    pub(super) fn new(
        driver: Arc<Driver>,
        staging: Arc<Staging>,
        watch: Arc<Watch>,
        out: Arc<Outbox<()>>,
    ) -> Self {
        let (words, used, state) = (Arc::default(), AtomicBool::new(false), Mutex::default());
        Self { driver, staging, words, watch, out, used, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stream was ever to wait for bytes, so that frames have to be read ahead.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// The side stream of the current context.
    fn side(&self, context: u32) -> Result<u64, CUresult> {
        if let Some(&side) = self.state().sides.get(&context) {
            return Ok(side);
        }
        let mut side = 0u64;
        let place = (&raw mut side).expose_provenance() as u64;
        match self.driver.call(Symbol::cuStreamCreate, &[place, NON_BLOCKING]) {
            CUresult::SUCCESS => {
                self.state().sides.insert(context, side);
                Ok(side)
            }
            status => Err(status),
        }
    }

    /// A context has ended, and with it what waited there. What still comes for it is dropped.
    pub(super) fn ended(&self, context: u32) {
        let mut state = self.state();
        state.sides.remove(&context);
        state.holds.retain(|_, hold| hold.context.0 != context);
    }

    /// Bytes have come: puts them into their place, and lets the stream go on behind the last of them.
    pub(super) fn land(&self, token: u64, to: u64, last: bool, bytes: &[u8]) {
        let mut state = self.state();
        let hold = if last { state.holds.remove(&token) } else { state.holds.get(&token).copied() };
        drop(state);
        let Some(hold) = hold else { return };
        let (context, real) = hold.context;
        let entered = self.driver.call(Symbol::cuCtxSetCurrent, &[real]);
        let mut status = if entered.is_success() { self.copy(&hold, to, bytes) } else { entered };
        if last {
            // The stream goes on whatever became of the copy, as it does behind one of its own that failed.
            let (word, value) = hold.word;
            let let_go =
                self.driver.call(Symbol::cuStreamWriteValue32_v2, &[hold.side, word, value.into(), 0]);
            status = if status.is_success() { let_go } else { status };
        }
        if !status.is_success() {
            let notice = Notice::Fault { operation: 0, context, status: status.0 };
            // A session that is over has nobody to tell.
            let _closed = self.out.add_now(|batch| batch.push(|bytes| notice.encode(bytes)));
        }
    }

    fn copy(&self, hold: &Hold, to: u64, bytes: &[u8]) -> CUresult {
        if bytes.is_empty() {
            return CUresult::SUCCESS;
        }
        let copy = |from: u64| {
            let words = [to, from, bytes.len() as u64, hold.side];
            self.driver.call(Symbol::cuMemcpyHtoDAsync_v2, &words)
        };
        let Some(mut piece) = self.staging.take(&self.driver, bytes.len()) else {
            // As natively: without pinned memory the copy is waited for. Nothing else is in this stream.
            let status = copy(bytes.as_ptr().expose_provenance() as u64);
            let waited = self.driver.call(Symbol::cuStreamSynchronize, &[hold.side]);
            return if status.is_success() { waited } else { status };
        };
        piece.space().copy_from_slice(bytes);
        let status = copy(piece.address());
        let (context, real) = hold.context;
        let event = self.watch.event_behind(context, hold.side);
        self.watch.add(Mark { lane: (context, SIDE), context: real, event, then: Then::Release(piece) });
        status
    }
}

impl Session {
    /// Has a stream wait until the client has sent bytes that it reads only then.
    pub(super) fn hold(&mut self, stream: u32, token: u64) -> Result<(), End> {
        let late = Arc::clone(&self.late);
        if token == 0 || late.state().holds.contains_key(&token) {
            return Err(Malformed::Misplaced("a wait without a name of its own").into());
        }
        late.used.store(true, Ordering::Release);
        if let Err(status) = self.try_hold(&late, stream, token) {
            late.state().holds.remove(&token);
            self.mark_or(stream, status, Then::Tell(token));
        }
        Ok(())
    }

    fn try_hold(&mut self, late: &Late, stream: u32, token: u64) -> Result<(), CUresult> {
        let real = self.handles.real(Kind::Stream, stream)?;
        let context = self.handles.real(Kind::Context, self.current)?;
        let side = late.side(self.current)?;
        let word = late.words.take(&self.driver).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
        let event = self.event_behind(stream)?;
        let hold = Hold { context: (self.current, context), side, word: (word.address(), word.value()) };
        // Before anybody can ask for the bytes.
        late.state().holds.insert(token, hold);
        let wait = [real, word.address(), word.value().into(), CU_STREAM_WAIT_VALUE_GEQ.into()];
        let status = self.driver.call(Symbol::cuStreamWaitValue32_v2, &wait);
        if !status.is_success() {
            self.watch.spare(self.current, event);
            return Err(status);
        }
        let mark = |event, then| Mark { lane: (self.current, stream), context, event, then };
        self.watch.add(mark(Ok(event), Then::Fetch { token, seen: None }));
        let behind = self.event_behind(stream);
        self.watch.add(mark(behind, Then::Landed { token, word }));
        Ok(())
    }
}
