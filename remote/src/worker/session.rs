//! The dispatcher: takes operations in the session's one order and hands them to the driver.
//!
//! It waits for nothing on the device: a fence is an event and somebody else's business ([`super::watch`]).

use std::collections::HashMap;
use std::sync::Arc;

use headgate_abi::cuda::remote::{Class, Kind};
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::CUresult;

use super::driver::Driver;
use super::gauges::Nvml;
use super::handles::{Entry, Handles};
use super::images::Images;
use super::late::Late;
use super::link::Link;
use super::recall::Recall;
use super::staging::Staging;
use super::watch::{Mark, Then, Watch};
use crate::limits::STAGING_PIECE_BYTES;
use crate::link::{Closed, Large, Outbox, ReadError};
use crate::wire::large::WriteHead;
use crate::wire::operation::{Argument, Arguments, Notice, Operation, Shape, TEMPLATES};
use crate::wire::{Gauges, Malformed, Reader};

/// Copies to the device up to this size go straight from the frame: the driver stages them itself before it returns.
const DIRECT_BYTES: usize = 16 << 10;

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The client said goodbye.
    Goodbye,
    /// The client broke the protocol.
    Malformed(Malformed),
    /// Nobody listens any more.
    Closed,
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Why no more is executed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The lender's daemon wants the device back.
    Drain,
    /// The same, and would have what is there kept for later.
    Aside,
    /// The device is lent again.
    Return,
    /// The session ends.
    Session(End),
    /// The connection has ended, or what came is nothing of ours.
    Read(ReadError),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::Session(end)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// A remembered launch.
#[derive(Clone, Debug)]
struct Template {
    shape: Shape,
    parameters: Vec<u8>,
}

/// What the dispatcher knows.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) driver: Arc<Driver>,
    pub(super) handles: Handles,
    /// The client's number of the current context, 0 for none.
    pub(super) current: u32,
    /// Numbers of primary contexts by device.
    pub(super) primaries: HashMap<u64, u32>,
    pub(super) images: Images,
    /// Links under way.
    pub(super) links: HashMap<u32, Link>,
    pub(super) watch: Arc<Watch>,
    /// What the client has taken ahead, and who calls it back.
    pub(super) recall: Arc<Recall>,
    /// Streams that wait for bytes.
    pub(super) late: Arc<Late>,
    /// NVML, if there is one.
    nvml: Option<Nvml>,
    templates: Vec<Option<Template>>,
    staging: Arc<Staging>,
    out: Arc<Outbox<()>>,
    /// Number of the operation that is being executed.
    operation: u64,
    must_flush: bool,
    /// Streams, with their contexts, that were given work which the client has not asked about.
    untold: Vec<(u32, u32)>,
    /// Streams in which captures were begun, likewise.
    capturing: Vec<(u32, u32)>,
    /// What is on the device is put aside, and the driver lets nobody in.
    pub(super) aside: bool,
}

/// Streams that are told of unasked. The client asks about others.
const UNTOLD_MAX: usize = 32;
/// `CU_STREAM_CAPTURE_STATUS_NONE`.
const NOT_CAPTURING: u32 = 0;

impl Session {
    pub(super) fn new(
        driver: Arc<Driver>,
        nvml: Option<Nvml>,
        staging: Arc<Staging>,
        watch: Arc<Watch>,
        recall: Arc<Recall>,
        out: Arc<Outbox<()>>,
    ) -> Self {
        let late = Late::new(Arc::clone(&driver), Arc::clone(&staging), Arc::clone(&watch), Arc::clone(&out));
        Self {
            late: Arc::new(late),
            driver,
            handles: Handles::default(),
            current: 0,
            primaries: HashMap::new(),
            images: Images::default(),
            links: HashMap::new(),
            watch,
            recall,
            nvml,
            templates: vec![None; TEMPLATES],
            staging,
            out,
            operation: 0,
            must_flush: false,
            untold: Vec::new(),
            capturing: Vec::new(),
            aside: false,
        }
    }

    /// Executes the operations of a frame.
    pub(super) fn execute(&mut self, operations: u32, payload: &[u8]) -> Result<(), End> {
        self.must_be_here()?;
        let mut reader = Reader::new(payload);
        for _ in 0..operations {
            let operation = Operation::decode(&mut reader)?;
            self.operation += 1;
            self.step(&operation)?;
        }
        if !reader.is_empty() {
            return Err(Malformed::Misplaced("bytes behind the last operation").into());
        }
        self.speak();
        Ok(())
    }

    fn step(&mut self, operation: &Operation<'_>) -> Result<(), End> {
        match *operation {
            Operation::Call(symbol, ref arguments) => {
                let Some(line) = symbol.line() else { return Ok(()) };
                let (status, results) = self.call(symbol, line, arguments);
                self.note_streams(symbol, status, arguments);
                match line.class {
                    Class::Reply | Class::Sync => self.reply(status, &results),
                    _ => self.settle(symbol, status),
                }
            }
            Operation::Context(id) => {
                let status = self.enter(id);
                self.fault(status)
            }
            Operation::Launch { ref shape, stream, attributes, parameters } => {
                self.note(stream);
                let status = self.launch(shape, stream, attributes, parameters);
                self.fault(status)
            }
            Operation::Template { slot, shape, parameters } => {
                self.templates[usize::from(slot)] = Some(Template { shape, parameters: parameters.to_vec() });
                Ok(())
            }
            Operation::Again { slot, stream, changed, words } => {
                self.note(stream);
                let status = self.again(slot, stream, changed, words)?;
                self.fault(status)
            }
            Operation::Write { stream, to, bytes } => {
                self.note(stream);
                let status = self.write(stream, to, bytes);
                self.fault(status)
            }
            Operation::Read { stream, from, bytes, token } => self.read(stream, from, bytes, token),
            Operation::Fence { stream, token } => self.fence(stream, token),
            Operation::Record { event, stream, flags, token } => {
                let status = self.record(event, stream, flags);
                // Nobody waits for an event in a stream that is captured: it is none that happens.
                if token != 0 {
                    self.mark_or(stream, status, Then::Tell(token));
                }
                self.fault(status)
            }
            Operation::Goodbye => Err(End::Goodbye),
            ref rare => self.step_rare(rare),
        }
    }

    fn step_rare(&mut self, operation: &Operation<'_>) -> Result<(), End> {
        match *operation {
            Operation::Image { digest, total, offset, bytes } => {
                let fits = |value: u64| usize::try_from(value).map_err(|_| Malformed::Overlong);
                self.images.piece(digest, fits(total)?, fits(offset)?, bytes)?;
                Ok(())
            }
            Operation::Load { module, ref digest, options, kernels } => {
                let (status, results) = self.load(module, digest, options, kernels)?;
                self.reply(status, &results)
            }
            Operation::LoadLibrary { library, ref digest, options } => {
                let (status, results) = self.load_library(library, digest, options);
                self.reply(status, &results)
            }
            Operation::Describe { function } => {
                let mut results = Vec::new();
                let status = match self.describe(function) {
                    Ok(described) => {
                        described.encode(&mut results);
                        CUresult::SUCCESS
                    }
                    Err(status) => status,
                };
                self.reply(status, &results)
            }
            Operation::LinkCreate { link, options } => {
                let (status, results) = self.link_create(link, options);
                self.reply(status, &results)
            }
            Operation::LinkAdd { link, kind, ref digest, name, options } => {
                let (status, results) = self.link_add(link, kind, digest, name, options);
                self.reply(status, &results)
            }
            Operation::LinkComplete { link } => {
                let (status, results) = self.link_complete(link);
                self.reply(status, &results)
            }
            Operation::Linked { ref digest, offset } => {
                let (status, results) = self.linked(digest, offset);
                self.reply(status, &results)
            }
            Operation::Settle => {
                self.settle_pools();
                Ok(())
            }
            Operation::Ahead { bytes } => self.ahead(bytes),
            Operation::GiveBack { address } => {
                let status = self.give_back(address);
                self.reply(status, &[])
            }
            Operation::GaveBack { call } => {
                self.recall.gave_back(call);
                Ok(())
            }
            Operation::Hold { stream, token } => {
                self.note(stream);
                self.hold(stream, token)
            }
            // Whoever reads deals with them, and they come for streams that wait.
            Operation::Late { .. } => Err(Malformed::Misplaced("bytes that nobody waits for").into()),
            Operation::Barrier => {
                let status = self.barrier();
                self.fault(status)
            }
            Operation::Observe { device } => {
                let mut results = Vec::new();
                let status = match self.observe(device) {
                    Some(gauges) => {
                        gauges.encode(&mut results);
                        CUresult::SUCCESS
                    }
                    None => CUresult::ERROR_NOT_SUPPORTED,
                };
                self.reply(status, &results)
            }
            Operation::DefaultPool { device, pool } => {
                let status = self.default_pool(device, pool);
                self.reply(status, &[])
            }
            _ => Ok(()),
        }
    }

    /// Makes a context current for what follows.
    pub(super) fn enter(&mut self, id: u32) -> CUresult {
        match self.handles.real(Kind::Context, id) {
            Ok(real) => {
                // What streams of another context have reached, the client asks.
                self.untold.retain(|(context, _)| *context == id);
                self.current = id;
                self.driver.call(Symbol::cuCtxSetCurrent, &[real])
            }
            Err(status) => {
                // What follows must not land in the context of before.
                self.current = 0;
                let _status = self.driver.call(Symbol::cuCtxSetCurrent, &[0]);
                status
            }
        }
    }

    pub(super) fn reply(&mut self, status: CUresult, results: &[u8]) -> Result<(), End> {
        let notice = Notice::Reply { operation: self.operation, status: status.0, results };
        self.must_flush = true;
        self.out.add_now(|batch| batch.push(|bytes| notice.encode(bytes)))?;
        Ok(())
    }

    /// Tells of a failure that the client does not wait for.
    fn fault(&mut self, status: CUresult) -> Result<(), End> {
        if status.is_success() {
            return Ok(());
        }
        let notice = Notice::Fault { operation: self.operation, context: self.current, status: status.0 };
        self.must_flush = true;
        self.out.add_now(|batch| batch.push(|bytes| notice.encode(bytes)))?;
        Ok(())
    }

    /// What comes of a call whose client has returned. A kernel that is not there is noticed by whoever uses it, and
    /// what a stream still does when it is destroyed is nobody's failure.
    fn settle(&mut self, symbol: Symbol, status: CUresult) -> Result<(), End> {
        match symbol {
            Symbol::cuModuleGetFunction | Symbol::cuLibraryGetKernel => Ok(()),
            _ => self.fault(status),
        }
    }

    fn launch(&self, shape: &Shape, stream: u32, attributes: &[u8], parameters: &[u8]) -> CUresult {
        let function = match self.handles.real(Kind::Function, shape.function) {
            Ok(real) if real != 0 => real,
            _ => return CUresult::ERROR_INVALID_HANDLE,
        };
        let stream = match self.handles.real(Kind::Stream, stream) {
            Ok(real) => real,
            Err(status) => return status,
        };
        super::launch::launch(&self.driver, function, shape, stream, attributes, parameters)
    }

    fn again(&mut self, slot: u8, stream: u32, changed: u64, words: &[u8]) -> Result<CUresult, End> {
        let Some(mut template) = self.templates[usize::from(slot)].take() else {
            return Err(Malformed::Misplaced("a launch that was not remembered").into());
        };
        let mut words = words.chunks_exact(8);
        for index in (0..64).filter(|index| changed >> index & 1 == 1) {
            let word = words.next().unwrap_or_default();
            let rest = template.parameters.get_mut(8 * index..);
            let Some(place) = rest.filter(|rest| !rest.is_empty()) else {
                return Err(Malformed::Misplaced("parameters beyond a launch's").into());
            };
            let length = place.len().min(word.len());
            place[..length].copy_from_slice(&word[..length]);
        }
        let status = self.launch(&template.shape, stream, &[], &template.parameters);
        self.templates[usize::from(slot)] = Some(template);
        Ok(status)
    }

    fn write(&mut self, stream: u32, to: u64, bytes: &[u8]) -> CUresult {
        let real = match self.handles.real(Kind::Stream, stream) {
            Ok(real) => real,
            Err(status) => return status,
        };
        let copy =
            |from: u64| self.driver.call(Symbol::cuMemcpyHtoDAsync_v2, &[to, from, bytes.len() as u64, real]);
        let direct = || copy(bytes.as_ptr().expose_provenance() as u64);
        if bytes.len() <= DIRECT_BYTES {
            return direct();
        }
        match self.staging.take(&self.driver, bytes.len()) {
            Some(mut piece) => {
                piece.space().copy_from_slice(bytes);
                let status = copy(piece.address());
                self.mark(stream, Then::Release(piece));
                status
            }
            None => direct(),
        }
    }

    /// Executes a large frame: bytes for the device are received straight into the memory it reads them from. Nothing is done
    /// before they are there, so a connection that breaks meanwhile leaves nothing half done.
    pub(super) fn execute_large(&mut self, large: Large<'_>) -> Result<(), Stop> {
        self.must_be_here()?;
        let header = large.header();
        let head = WriteHead::decode(large.beginning(), header.bytes).map_err(End::Malformed)?;
        let piece = head
            .and_then(|(head, behind)| Some((head, behind, self.staging.take(&self.driver, head.bytes)?)));
        let Some((head, behind, mut piece)) = piece else {
            let frame = large.whole()?;
            return Ok(self.execute(header.operations, frame.payload)?);
        };
        large.land(behind, piece.space())?;
        self.operation += 1;
        self.note(head.stream);
        let status = match self.handles.real(Kind::Stream, head.stream) {
            Ok(real) => {
                let words = [head.to, piece.address(), head.bytes as u64, real];
                let status = self.driver.call(Symbol::cuMemcpyHtoDAsync_v2, &words);
                self.mark(head.stream, Then::Release(piece));
                status
            }
            Err(status) => status,
        };
        self.fault(status)?;
        self.speak();
        Ok(())
    }

    /// A frame has been executed: sends at once what the client waits for.
    fn speak(&mut self) {
        self.watch.executed();
        if std::mem::take(&mut self.must_flush) {
            self.out.flush();
        }
    }

    fn read(&mut self, stream: u32, from: u64, bytes: u64, token: u64) -> Result<(), End> {
        let real = match self.handles.real(Kind::Stream, stream) {
            Ok(real) => real,
            Err(status) => {
                self.mark_or(stream, status, Then::Tell(token));
                return Ok(());
            }
        };
        let mut offset = 0;
        while offset < bytes {
            let length = usize::try_from(bytes - offset)
                .map_or(STAGING_PIECE_BYTES, |left| left.min(STAGING_PIECE_BYTES));
            let address = from.wrapping_add(offset);
            let last = offset + length as u64 == bytes;
            if let Some(piece) = self.staging.take(&self.driver, length) {
                let words = [piece.address(), address, length as u64, real];
                let status = self.driver.call(Symbol::cuMemcpyDtoHAsync_v2, &words);
                self.mark_or(
                    stream,
                    status,
                    Then::Send { token, offset, piece, last: last || !status.is_success() },
                );
                if !status.is_success() {
                    return Ok(());
                }
            } else {
                // As natively: without pinned memory to land in, the copy is waited for.
                self.out.wait_for_room();
                let mut landing = vec![0u8; length];
                let words = [landing.as_mut_ptr().expose_provenance() as u64, address, length as u64, real];
                let mut status = self.driver.call(Symbol::cuMemcpyDtoHAsync_v2, &words);
                if status.is_success() {
                    status = self.driver.call(Symbol::cuStreamSynchronize, &[real]);
                }
                if status.is_success() {
                    let notice = Notice::Data { token, offset, bytes: &landing };
                    self.out.add_now(|batch| batch.push(|bytes| notice.encode(bytes)))?;
                }
                if last || !status.is_success() {
                    self.mark_or(stream, status, Then::Tell(token));
                    return Ok(());
                }
            }
            offset += length as u64;
        }
        if bytes == 0 {
            self.mark(stream, Then::Tell(token));
        }
        Ok(())
    }

    fn record(&self, event: u32, stream: u32, flags: u32) -> CUresult {
        let real = |kind, id| self.handles.real(kind, id);
        match (real(Kind::Event, event), real(Kind::Stream, stream)) {
            (Ok(event), Ok(stream)) if flags == 0 => {
                self.driver.call(Symbol::cuEventRecord, &[event, stream])
            }
            (Ok(event), Ok(stream)) => {
                self.driver.call(Symbol::cuEventRecordWithFlags, &[event, stream, flags.into()])
            }
            (Err(status), _) | (_, Err(status)) => status,
        }
    }

    /// Tells when a stream has come here: at once if it has nothing to do, and nothing of it is still to be told.
    fn fence(&mut self, stream: u32, token: u64) -> Result<(), End> {
        self.untold.retain(|lane| *lane != (self.current, stream));
        if !self.is_idle(stream) {
            self.mark(stream, Then::Tell(token));
            return Ok(());
        }
        let notice = Notice::Done { token, status: 0 };
        self.must_flush = true;
        self.out.add_unsent(|batch| batch.push(|bytes| notice.encode(bytes)))?;
        Ok(())
    }

    /// Whether a stream has nothing to do, and nothing of its context is still to be told.
    fn is_idle(&self, stream: u32) -> bool {
        // What the legacy stream has to wait for, an event behind it knows and a query of it may not.
        stream != 0
            && self.watch.is_quiet(self.current)
            && self
                .handles
                .real(Kind::Stream, stream)
                .is_ok_and(|real| self.driver.call(Symbol::cuStreamQuery, &[real]).is_success())
    }

    /// A stream has been given work.
    fn note(&mut self, stream: u32) {
        let lane = (self.current, stream);
        if self.untold.last() != Some(&lane) && !self.untold.contains(&lane) && self.untold.len() < UNTOLD_MAX
        {
            self.untold.push(lane);
        }
    }

    fn note_streams(&mut self, symbol: Symbol, status: CUresult, arguments: &Arguments<'_>) {
        let begins = symbol == Symbol::cuStreamBeginCapture_v2 && status.is_success();
        for argument in arguments.all() {
            if let Argument::Handle(Kind::Stream, stream) = *argument {
                self.note(stream);
                if begins {
                    self.capturing.push((self.current, stream));
                }
            }
        }
    }

    /// Whether the client may hear more than it has asked for.
    pub(super) fn owes_word(&self) -> bool {
        !self.aside && !self.untold.is_empty()
    }

    /// While what is on the device is aside, a call would wait for good, and with it the frame that brings it back.
    fn must_be_here(&self) -> Result<(), End> {
        if self.aside {
            Err(Malformed::Misplaced("work for a device that was taken back").into())
        } else {
            Ok(())
        }
    }

    /// Has the client hear how far streams have come, though it has not asked: when it does, it need not wait.
    pub(super) fn tell_unasked(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if self.is_capturing() {
            // An event in a stream that is captured would be recorded, and a question would harm the capture.
            return;
        }
        let current = self.current;
        for (context, stream) in untold.into_iter().filter(|(context, _)| *context == current) {
            if self.is_idle(stream) {
                let notice = Notice::Reached { context, stream, operation: self.operation };
                // A session that is over has nobody to tell.
                let _closed = self.out.add_unsent(|batch| batch.push(|bytes| notice.encode(bytes)));
            } else if self.handles.real(Kind::Stream, stream).is_ok() {
                self.mark(stream, Then::Reached(self.operation));
            }
        }
        self.out.flush();
    }

    /// Waits for what the current context has been given. A client sends none while it captures; if one of its threads has
    /// begun to just now, the other streams are waited for one by one.
    fn barrier(&mut self) -> CUresult {
        if !self.is_capturing() {
            return self.driver.call(Symbol::cuCtxSynchronize, &[]);
        }
        let (driver, handles, current) = (&self.driver, &self.handles, self.current);
        let captured: Vec<u64> =
            self.capturing.iter().filter_map(|&(_, id)| handles.real(Kind::Stream, id).ok()).collect();
        for stream in handles.streams(current).into_iter().filter(|stream| !captured.contains(stream)) {
            let status = driver.call(Symbol::cuStreamSynchronize, &[stream]);
            if !status.is_success() {
                return status;
            }
        }
        CUresult::SUCCESS
    }

    /// Whether a stream is captured.
    pub(super) fn is_capturing(&mut self) -> bool {
        let (driver, handles) = (&self.driver, &self.handles);
        self.capturing.retain(|&(_, stream)| {
            let mut found = NOT_CAPTURING;
            let place = (&raw mut found).expose_provenance() as u64;
            handles.real(Kind::Stream, stream).is_ok_and(|real| {
                let told = driver.call(Symbol::cuStreamIsCapturing, &[real, place]);
                !told.is_success() || found != NOT_CAPTURING
            })
        });
        !self.capturing.is_empty()
    }

    /// Has something done when a stream has come here.
    fn mark(&mut self, stream: u32, then: Then) {
        self.mark_or(stream, CUresult::SUCCESS, then);
    }

    /// The same, if all went well so far; otherwise in its turn among what the stream was told before.
    pub(super) fn mark_or(&mut self, stream: u32, status: CUresult, then: Then) {
        let event = match status {
            CUresult::SUCCESS => self.event_behind(stream),
            status => Err(status),
        };
        let context = self.handles.real(Kind::Context, self.current).unwrap_or(0);
        self.watch.add(Mark { lane: (self.current, stream), context, event, then });
    }

    /// An event of the current context that nothing waits for.
    pub(super) fn spare_event(&self) -> Result<u64, CUresult> {
        self.watch.event(self.current).map_or_else(|| self.watch.new_event(), Ok)
    }

    /// Waits for an event that has long happened, so that the driver lets go of what pools keep beyond their threshold.
    fn settle_pools(&self) {
        if let Ok(event) = self.spare_event() {
            // What it comes to was told to whoever waited.
            let _status = self.driver.call(Symbol::cuEventSynchronize, &[event]);
            self.watch.spare(self.current, event);
        }
    }

    pub(super) fn event_behind(&self, stream: u32) -> Result<u64, CUresult> {
        self.watch.event_behind(self.current, self.handles.real(Kind::Stream, stream)?)
    }

    /// What NVML here says of a device, if there is an NVML.
    fn observe(&self, device: u32) -> Option<Gauges> {
        let mut uuid = [0u8; 16];
        let place = uuid.as_mut_ptr().expose_provenance() as u64;
        let found = self.driver.call(Symbol::cuDeviceGetUuid_v2, &[place, device.into()]);
        self.nvml.as_ref().filter(|_| found.is_success())?.look(&uuid)
    }

    fn default_pool(&mut self, device: u32, pool: u32) -> CUresult {
        if let Err(status) = self.handles.check_new(Kind::Pool, pool) {
            return status;
        }
        let mut real = 0u64;
        let place = (&raw mut real).expose_provenance() as u64;
        let status = self.driver.call(Symbol::cuDeviceGetDefaultMemPool, &[place, device.into()]);
        if status.is_success() {
            self.handles.insert(Kind::Pool, pool, Entry { real, context: 0, parent: 0, of_library: false });
        }
        status
    }

    /// Finishes what is under way and has the client told of it.
    pub(super) fn drain(&mut self) {
        for (id, real) in self.handles.contexts() {
            if self.driver.call(Symbol::cuCtxSetCurrent, &[real]).is_success() {
                // What the work came to, the marks behind it tell.
                let _status = self.driver.call(Symbol::cuCtxSynchronize, &[]);
            }
            self.watch.settle(id);
        }
        // Whatever comes next is for the context that was current.
        let current = self.handles.real(Kind::Context, self.current).unwrap_or(0);
        let _status = self.driver.call(Symbol::cuCtxSetCurrent, &[current]);
        self.out.flush();
    }

    /// Ends what the session had.
    pub(super) fn finish(&mut self) {
        self.watch.close();
        self.recall.close();
        self.out.close();
    }
}
