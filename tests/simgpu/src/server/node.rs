//! The node's books: who has what, and what requests do to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use headgate_abi::cuda::CUresult;

use super::effects::Payload;
use super::holdings::{Block, Exported, SharedAllocation};
use super::journal::{Entry, Journal};
use super::meter::Samples;
use super::mps::MpsServer;
use super::pools::PoolBook;
use super::session::{Module, Session, SessionContext, read_process};
use crate::code::{Image, PlacedVariable};
use crate::config::{Config, DeviceInfo};
use crate::limits::{CONNECTIONS_MAX, CONTEXTS_MAX, ENDED_MAX, IMAGE_BYTES_MAX, STREAMS_MAX};
use crate::memory::AddressSpace;
use crate::model::{ContextId, DeviceMeter, KernelTimes, Mark, Model, Nanos, Part, StreamId, StreamKind};
use crate::page::StatusPage;
use crate::protocol::{
    BlockId, ModuleInfo, NodeInfo, PROTOCOL, Remote, Reply, Request, Role, Share, VariableInfo,
};

/// Number of a connection; never used twice.
pub(crate) type SessionId = u64;

/// Everything but the model.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) info: NodeInfo,
    pub(crate) times: KernelTimes,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) devices: Vec<DeviceBook>,
    pub(crate) context_owner: HashMap<ContextId, (SessionId, u32)>,
    pub(crate) stream_owner: HashMap<StreamId, (SessionId, u32)>,
    pub(crate) journal: Journal,
    pub(crate) faults: Vec<InjectedFault>,
    pub(crate) ended: VecDeque<super::admin::EndedProcess>,
    pub(crate) blocks: BTreeMap<BlockId, Block>,
    pub(crate) blocks_made: BlockId,
    pub(crate) exports: Vec<Exported>,
    pub(crate) shared: BTreeMap<u64, SharedAllocation>,
    pub(crate) shared_made: u64,
    /// Events that several processes know: who made each, and its file.
    pub(crate) events: BTreeMap<u64, (SessionId, std::os::fd::OwnedFd)>,
    pub(crate) events_made: u64,
    pub(crate) group_limits: BTreeMap<(usize, String), GroupLimit>,
    pub(crate) mps: Vec<MpsServer>,
    /// Xid errors, each with its device.
    pub(crate) xids: Vec<(u32, u64)>,
    pub(crate) marked_at: Nanos,
    pub(crate) journal_all: bool,
}

/// A device's memory and what it measured at the mark.
#[derive(Debug)]
pub(crate) struct DeviceBook {
    pub(crate) info: DeviceInfo,
    pub(crate) used: u64,
    pub(crate) peak: u64,
    pub(crate) at_mark: DeviceMeter,
    pub(crate) busy: Samples,
    pub(crate) copying: Samples,
}

/// Limits of a control group on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupLimit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A failure that a test ordered.
#[derive(Debug)]
pub(crate) struct InjectedFault {
    pub(crate) call: String,
    pub(crate) status: u32,
    pub(crate) count: u32,
    pub(crate) pid: Option<u32>,
}

/// A request that is refused, with the status a driver would give.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: CUresult,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(status: CUresult, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub(crate) fn value(reason: impl Into<String>) -> Self {
        Self::new(CUresult::ERROR_INVALID_VALUE, reason)
    }

    pub(crate) fn handle(reason: impl Into<String>) -> Self {
        Self::new(CUresult::ERROR_INVALID_HANDLE, reason)
    }
}

/// A reply, or why there is none.
pub(crate) type Answer = Result<Reply, Refusal>;

impl Node {
    pub(crate) fn new(config: Config, devices: &[DeviceInfo], now: Nanos) -> Self {
        let book = |info: &DeviceInfo| DeviceBook {
            info: info.clone(),
            used: 0,
            peak: 0,
            at_mark: DeviceMeter::default(),
            busy: Samples::new(now),
            copying: Samples::new(now),
        };
        Self {
            info: NodeInfo {
                driver_version: config.driver_version,
                devices: devices.to_vec(),
                granule: config.pool_granule_bytes,
                lacks: config.lacks.clone(),
                server_pid: std::process::id(),
            },
            times: KernelTimes { default: config.kernel_default, named: config.kernels.clone() },
            sessions: BTreeMap::new(),
            devices: devices.iter().map(book).collect(),
            context_owner: HashMap::new(),
            stream_owner: HashMap::new(),
            journal: Journal::default(),
            faults: Vec::new(),
            ended: VecDeque::with_capacity(ENDED_MAX.min(64)),
            blocks: BTreeMap::new(),
            blocks_made: 0,
            exports: Vec::new(),
            shared: BTreeMap::new(),
            shared_made: 0,
            events: BTreeMap::new(),
            events_made: 0,
            group_limits: BTreeMap::new(),
            mps: Vec::new(),
            xids: Vec::new(),
            marked_at: now,
            journal_all: config.journal_all,
            config,
        }
    }

    /// Does what a client asks. `Err` is the client's to hear or, where it does not listen, the journal's.
    pub(crate) fn handle(
        &mut self,
        model: &mut Model<Payload>,
        id: SessionId,
        request: Request,
    ) -> (Answer, Option<std::os::fd::OwnedFd>) {
        let introduced = self.sessions.get(&id).is_some_and(|session| session.role.is_some());
        match request {
            Request::Hello { protocol, role } => match self.welcome(id, protocol, role) {
                Ok((reply, file)) => (Ok(reply), Some(file)),
                Err(refusal) => (Err(refusal), None),
            },
            _ if !introduced => {
                self.doom(id, "a request came before the introduction");
                (Err(Refusal::value("introduce yourself first")), None)
            }
            Request::Holding(request) => self.hold(model.now(), id, request),
            request => (self.serve(model, id, request), None),
        }
    }

    fn serve(&mut self, model: &mut Model<Payload>, id: SessionId, request: Request) -> Answer {
        match request {
            Request::Hello { .. } | Request::Holding(_) => Err(Refusal::value("already introduced")),
            Request::OpenContext { device, legacy_slot, connections } => {
                self.open_context(model, id, device, legacy_slot, connections)
            }
            Request::CloseContext { context } => self.close_context(model, id, context),
            Request::OpenStream { context, slot, blocking, priority, share } => {
                let kind = if blocking { StreamKind::Blocking } else { StreamKind::NonBlocking };
                self.bind_stream(model, id, context, slot, kind, priority)?;
                self.keep_to(model, id, slot, share)
            }
            Request::CloseStream { slot } => {
                let stream = self.session(id)?.slots.get(&slot).copied();
                model.close_stream(stream.ok_or_else(|| Refusal::handle("no such stream"))?);
                Ok(Reply::Done)
            }
            Request::Allocate { context, bytes } => self.allocate(model.now(), id, context, bytes),
            Request::Free { address } => {
                let pooled = self.leave_pool(id, address, u32::MAX);
                self.free(model.now(), id, address, pooled).map(|()| Reply::Done)
            }
            Request::Pin { range } => {
                self.session(id)?.pinned.insert(range.address, range.bytes);
                Ok(Reply::Done)
            }
            Request::Unpin { address } => {
                let removed = self.session(id)?.pinned.remove(&address);
                removed.map(|_| Reply::Done).ok_or_else(|| Refusal::value("was not pinned"))
            }
            Request::Memory { device } => {
                let book = self.device(device)?;
                let total = book.info.memory_bytes;
                let free = (total - book.used).min(self.group_room(id, device as usize));
                Ok(Reply::Memory { free, total })
            }
            Request::LoadModule { context, image } => self.load_module(model.now(), id, context, image),
            Request::UnloadModule { module } => self.unload_module(id, module),
            Request::Submit { slot, seq, command } => self.submit(model, id, slot, seq, command),
            Request::HostDone { slot, seq } => {
                let stream = self.session(id)?.slots.get(&slot).copied();
                let stream = stream.ok_or_else(|| Refusal::handle("no such stream"))?;
                model.finish_host(Mark { stream, seq }, self);
                Ok(Reply::Done)
            }
            Request::Elapsed { start, end } => {
                let events = &self.session(id)?.events;
                Ok(Reply::Moments(events.get(&start).copied(), events.get(&end).copied()))
            }
            Request::Xids { since } => {
                let since = usize::try_from(since).unwrap_or(usize::MAX);
                Ok(Reply::Xids(self.xids.get(since..).unwrap_or_default().to_vec()))
            }
            Request::TakeFault { call } => self.take_fault(id, &call),
            Request::Note { call, status } => {
                let pid = self.session(id)?.pid;
                self.note(Entry {
                    at_ns: model.now(),
                    pid,
                    call: call.into(),
                    detail: None,
                    bytes: None,
                    status,
                });
                Ok(Reply::Done)
            }
            Request::Processes { device } => self.processes(device),
            Request::Utilisation { device } => self.utilisation(model, device),
            Request::ProcessUtilisation { device, since_us } => {
                self.process_utilisation(model, device, since_us)
            }
            Request::Mps(request) => self.serve_mps(model, id, request),
            Request::Checkpoint { pid, step } => self.checkpoint(model, id, pid, step),
            Request::Admin(request) => self.administer(model, request),
        }
    }

    fn welcome(
        &mut self,
        id: SessionId,
        protocol: u32,
        role: Role,
    ) -> Result<(Reply, std::os::fd::OwnedFd), Refusal> {
        if protocol != PROTOCOL {
            self.doom(id, "it speaks another protocol");
            let reason = format!("the server speaks protocol {PROTOCOL}, not {protocol}: rebuild both");
            return Err(Refusal::value(reason));
        }
        let (page, file) = StatusPage::create()
            .map_err(|error| Refusal::new(CUresult::ERROR_OPERATING_SYSTEM, error.to_string()))?;
        page.arm_faults(!self.faults.is_empty());
        page.journal_all(self.journal_all);
        let session = self.session(id)?;
        session.role = Some(role);
        session.page = Some(page);
        Ok((Reply::Welcome(self.info.clone()), file))
    }

    fn open_context(
        &mut self,
        model: &mut Model<Payload>,
        id: SessionId,
        device: u32,
        legacy_slot: u32,
        connections: Option<u32>,
    ) -> Answer {
        let connections = connections.unwrap_or(self.config.connections).min(CONNECTIONS_MAX);
        if legacy_slot as usize >= STREAMS_MAX {
            return Err(Refusal::value("no such slot"));
        }
        let overhead = self.config.context_bytes;
        let book = self.device(device)?;
        let capacity = book.info.memory_bytes;
        let device = device as usize;
        let shared = self.mps_turn(id, device)?;
        if !self.has_room(id, device, overhead) {
            return Err(Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "no memory for a context"));
        }
        let session = self.session(id)?;
        let number = (0..CONTEXTS_MAX).find_map(|number| {
            u32::try_from(number).ok().filter(|number| !session.contexts.contains_key(number))
        });
        let number = number
            .ok_or_else(|| Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "too many contexts in the process"))?;
        if session.use_of[device].space.is_none() {
            let space = AddressSpace::new(device, capacity)
                .map_err(|error| Refusal::new(CUresult::ERROR_OPERATING_SYSTEM, error.to_string()))?;
            session.use_of[device].space = Some(space);
        }
        session.use_of[device].touched = true;
        // A pool of each device is there from the start, under the device's number.
        let granule = self.config.pool_granule_bytes;
        let devices = self.devices.len();
        let session = self.session(id)?;
        if session.pools_made == 0 {
            for device in 0..devices {
                session.pools.insert(session.pools_made, PoolBook::new(device, granule, 0));
                session.pools_made += 1;
            }
        }
        if let Some(page) = &session.page {
            page.set_error(number as usize, 0);
        }
        let context = model.open_context(device);
        if let Some((turn, part)) = shared {
            model.join_turn(context, turn, part);
        }
        model.use_channels(context, connections as usize);
        session.contexts.insert(number, SessionContext { id: context, device, overhead });
        self.context_owner.insert(context, (id, number));
        self.charge(id, device, overhead);
        self.bind_stream(model, id, number, legacy_slot, StreamKind::Legacy, 0)?;
        self.log(model.now(), id, "open_context", None, None, CUresult::SUCCESS);
        Ok(Reply::Context(number))
    }

    fn close_context(&mut self, model: &mut Model<Payload>, id: SessionId, number: u32) -> Answer {
        let session = self.session(id)?;
        let context = session.contexts.remove(&number).ok_or_else(|| Refusal::handle("no such context"))?;
        let is_last = session.contexts.values().all(|other| other.device != context.device);
        let overheads: u64 = session
            .modules
            .values()
            .filter(|module| module.context == number)
            .map(|module| module.overhead)
            .sum();
        let use_of = &mut session.use_of[context.device];
        let freed = use_of.space.as_mut().map_or(0, |space| space.free_context(number));
        session.modules.retain(|_, module| module.context != number);
        let managed = session.managed.iter().filter(|(_, managed)| managed.context == number);
        let managed: Vec<(u64, u64)> = managed.map(|(&address, managed)| (address, managed.bytes)).collect();
        for (address, _) in &managed {
            session.managed.remove(address);
            session.pinned.remove(address);
        }
        let managed: u64 = managed.into_iter().map(|(_, bytes)| bytes).sum();
        self.release(id, context.device, freed + context.overhead + overheads + managed);
        if is_last {
            self.drop_pools(id, context.device);
        }
        let meter = model.close_context(context.id, self);
        self.context_owner.remove(&context.id);
        let streams: Vec<_> = self.stream_owner.iter().filter(|(_, owner)| owner.0 == id).collect();
        let gone: Vec<_> = streams
            .into_iter()
            .filter(|(stream, _)| model.completed(**stream).is_none())
            .map(|(stream, (_, slot))| (*stream, *slot))
            .collect();
        for (stream, slot) in gone {
            self.stream_owner.remove(&stream);
            let session = self.session(id)?;
            if session.slots.get(&slot) == Some(&stream) {
                session.slots.remove(&slot);
            }
        }
        if let Some(meter) = meter {
            let ended = &mut self.session(id)?.use_of[context.device].ended;
            ended.busy_ns += meter.busy_ns;
            ended.sm_ns += meter.sm_ns;
            ended.kernels += meter.kernels;
        }
        self.log(model.now(), id, "close_context", None, None, CUresult::SUCCESS);
        Ok(Reply::Done)
    }

    /// Lets a stream's kernels keep to a part of the SMs.
    fn keep_to(
        &mut self,
        model: &mut Model<Payload>,
        id: SessionId,
        slot: u32,
        share: Option<Share>,
    ) -> Answer {
        let session = self.session(id)?;
        if let (Some(share), Some(&stream)) = (share, session.slots.get(&slot)) {
            session.shares.insert(slot, share);
            let name = u64::from(share.first) << 32 | u64::from(share.sms);
            model.keep_to(stream, Part { id: name, sms: share.sms });
        }
        Ok(Reply::Done)
    }

    fn bind_stream(
        &mut self,
        model: &mut Model<Payload>,
        id: SessionId,
        context: u32,
        slot: u32,
        kind: StreamKind,
        priority: i32,
    ) -> Answer {
        if slot as usize >= STREAMS_MAX {
            return Err(Refusal::value("no such slot"));
        }
        let session = self.session(id)?;
        let context = session.contexts.get(&context).ok_or_else(|| Refusal::handle("no such context"))?;
        let page = session.page.as_ref();
        let completed = page.map_or(0, |page| page.completed(slot as usize));
        let stream = model
            .open_stream(context.id, kind, priority, completed)
            .ok_or_else(|| Refusal::handle("no such context"))?;
        session.shares.remove(&slot);
        session.last_kernels.remove(&slot);
        if let Some(old) = session.slots.insert(slot, stream) {
            // The client reuses a slot only when its stream is done; the old name must not shadow the new one.
            model.close_stream(old);
            self.stream_owner.remove(&old);
        }
        self.stream_owner.insert(stream, (id, slot));
        Ok(Reply::Done)
    }

    fn allocate(&mut self, now: Nanos, id: SessionId, context: u32, bytes: u64) -> Answer {
        let session = self.session(id)?;
        let owner = session.contexts.get(&context).ok_or_else(|| Refusal::handle("no such context"))?;
        let device = owner.device;
        let charge = AddressSpace::charge(bytes);
        let Some(charge) = charge else {
            return Err(Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "more than any device has"));
        };
        self.take(now, id, device, charge, "allocate")?;
        let space = self.session(id)?.use_of[device].space.as_mut();
        let Some(address) = space.and_then(|space| space.allocate(bytes, context)) else {
            self.release(id, device, charge);
            return Err(Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "no address range is left"));
        };
        self.log(now, id, "allocate", None, Some(bytes), CUresult::SUCCESS);
        Ok(Reply::Address(address))
    }

    /// Gives an allocation back. One of a pool has left it when the free was called, and stays with the pool.
    pub(crate) fn free(
        &mut self,
        now: Nanos,
        id: SessionId,
        address: u64,
        pooled: bool,
    ) -> Result<(), Refusal> {
        if pooled {
            self.leave_pool_for_good(id, address);
            self.log(now, id, "free", None, None, CUresult::SUCCESS);
            return Ok(());
        }
        let session = self.session(id)?;
        let freed = session.space_of(address).and_then(|space| space.free(address));
        let device = AddressSpace::device_of(address);
        let Some((allocation, device)) = freed.zip(device) else {
            self.log(now, id, "free", None, None, CUresult::ERROR_INVALID_VALUE);
            return Err(Refusal::value(format!("{address:#x} is no allocation")));
        };
        self.release(id, device, allocation.bytes);
        self.log(now, id, "free", None, Some(allocation.bytes), CUresult::SUCCESS);
        Ok(())
    }

    /// Whether a process may take so much more of a device.
    pub(crate) fn has_room(&self, id: SessionId, device: usize, bytes: u64) -> bool {
        let book = &self.devices[device];
        bytes <= book.info.memory_bytes - book.used && bytes <= self.group_room(id, device)
    }

    /// Bytes that the limits of a process's control groups leave it.
    fn group_room(&self, id: SessionId, device: usize) -> u64 {
        let Some(session) = self.sessions.get(&id) else { return 0 };
        let limits = self.group_limits.iter();
        let own = limits.filter(|((on, group), _)| *on == device && session.is_in_group(group));
        own.map(|((_, group), limit)| limit.hard.saturating_sub(self.group_bytes(device, group)))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Bytes in use by the processes of a control group.
    pub(crate) fn group_bytes(&self, device: usize, group: &str) -> u64 {
        let members = self.sessions.values().filter(|session| session.is_in_group(group));
        members.map(|session| session.use_of[device].bytes).sum()
    }

    /// Charges a process, if there is room.
    pub(crate) fn take(
        &mut self,
        now: Nanos,
        id: SessionId,
        device: usize,
        bytes: u64,
        what: &'static str,
    ) -> Result<(), Refusal> {
        if self.has_room(id, device, bytes) {
            self.charge(id, device, bytes);
            return Ok(());
        }
        let free = self.devices[device].info.memory_bytes - self.devices[device].used;
        self.session(id)?.use_of[device].refused += 1;
        self.log(now, id, what, None, Some(bytes), CUresult::ERROR_OUT_OF_MEMORY);
        let reason = format!("{bytes} bytes asked for, {free} free");
        Err(Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, reason))
    }

    fn load_module(&mut self, now: Nanos, id: SessionId, context: u32, image: Remote) -> Answer {
        let text = self.read_image(id, image)?;
        let owner = self.session(id)?.contexts.get(&context).map(|context| context.device);
        let device = owner.ok_or_else(|| Refusal::handle("no such context"))?;
        let (major, minor) = self.devices[device].info.compute_capability;
        let image = Image::parse(&text, major * 10 + minor).map_err(|error| {
            let status = CUresult(error.status);
            self.log(now, id, "load_module", Some(error.message.as_str().into()), None, status);
            Refusal::new(status, error.message)
        })?;
        let overhead = self.config.module_bytes;
        self.take(now, id, device, overhead, "load_module")?;
        let storage = match image.storage_bytes() {
            0 => None,
            bytes => match self.allocate(now, id, context, bytes) {
                Ok(Reply::Address(address)) => Some(address),
                Ok(_) => None,
                Err(refusal) => {
                    self.release(id, device, overhead);
                    return Err(refusal);
                }
            },
        };
        let (ptx_version, target) = (image.ptx_version(), image.target());
        let code = image.place(storage.unwrap_or(0));
        let session = self.session(id)?;
        let mut variables = Vec::new();
        for variable in code.variables() {
            let length = variable.initial.len() as u64;
            let place = session.space_of(variable.address);
            let put = |bytes: &mut [u8]| bytes.copy_from_slice(&variable.initial);
            let done = place.map(|space| space.with(variable.address, length, put));
            debug_assert!(matches!(done, Some(Ok(()))), "the storage holds all variables");
            let PlacedVariable { name, address, bytes, .. } = variable;
            variables.push(VariableInfo { name, address, bytes });
        }
        let module = session.modules_made;
        session.modules_made += 1;
        let info = ModuleInfo { module, kernels: code.kernels().to_vec(), variables, ptx_version, target };
        let names = code.kernels().iter().map(|kernel| kernel.name.as_str().into()).collect();
        session.modules.insert(module, Arc::new(Module { code, names, storage, context, device, overhead }));
        self.log(now, id, "load_module", None, Some(text.len() as u64), CUresult::SUCCESS);
        Ok(Reply::Module(info))
    }

    fn read_image(&mut self, id: SessionId, image: Remote) -> Result<String, Refusal> {
        let length = usize::try_from(image.bytes).ok().filter(|&length| length <= IMAGE_BYTES_MAX);
        let length =
            length.ok_or_else(|| Refusal::new(CUresult::ERROR_INVALID_IMAGE, "the image is too large"))?;
        let mut bytes = vec![0; length];
        read_process(self.session(id)?.pid, image.address, &mut bytes)
            .map_err(|why| Refusal::value(format!("the module's text cannot be read: {why}")))?;
        String::from_utf8(bytes)
            .map_err(|_| Refusal::new(CUresult::ERROR_INVALID_PTX, "the module text is not UTF-8"))
    }

    fn unload_module(&mut self, id: SessionId, module: u32) -> Answer {
        let session = self.session(id)?;
        let module = session.modules.remove(&module).ok_or_else(|| Refusal::handle("no such module"))?;
        let device = module.device;
        if let Some(storage) = module.storage
            && let Some(allocation) = session.space_of(storage).and_then(|space| space.free(storage))
        {
            self.release(id, device, allocation.bytes);
        }
        self.release(id, device, module.overhead);
        Ok(Reply::Done)
    }

    fn take_fault(&mut self, id: SessionId, call: &str) -> Answer {
        let pid = self.session(id)?.pid;
        let found = self.faults.iter_mut().find(|fault| {
            fault.call == call && fault.count > 0 && fault.pid.is_none_or(|wanted| wanted == pid)
        });
        let status = found.map(|fault| {
            fault.count -= 1;
            fault.status
        });
        self.faults.retain(|fault| fault.count > 0);
        self.arm_pages();
        Ok(Reply::Fault(status))
    }

    pub(crate) fn arm_pages(&self) {
        for page in self.sessions.values().filter_map(|session| session.page.as_ref()) {
            page.arm_faults(!self.faults.is_empty());
            page.journal_all(self.journal_all);
        }
    }

    pub(crate) fn session(&mut self, id: SessionId) -> Result<&mut Session, Refusal> {
        self.sessions.get_mut(&id).ok_or_else(|| Refusal::handle("no such session"))
    }

    pub(crate) fn device(&self, device: u32) -> Result<&DeviceBook, Refusal> {
        self.devices
            .get(device as usize)
            .ok_or_else(|| Refusal::new(CUresult::ERROR_INVALID_DEVICE, format!("no device {device}")))
    }

    pub(crate) fn doom(&mut self, id: SessionId, why: &str) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.doomed.get_or_insert_with(|| why.to_owned());
        }
    }

    fn charge(&mut self, id: SessionId, device: usize, bytes: u64) {
        self.charge_to(Some(id), device, bytes);
    }

    /// Charges a device, and a process where one is to pay.
    pub(crate) fn charge_to(&mut self, id: Option<SessionId>, device: usize, bytes: u64) {
        let book = &mut self.devices[device];
        book.used += bytes;
        book.peak = book.peak.max(book.used);
        if let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) {
            let use_of = &mut session.use_of[device];
            use_of.bytes += bytes;
            use_of.bytes_peak = use_of.bytes_peak.max(use_of.bytes);
        }
    }

    pub(crate) fn release(&mut self, id: SessionId, device: usize, bytes: u64) {
        self.uncharge(Some(id), device, bytes);
    }

    /// The reverse of [`Self::charge_to`].
    pub(crate) fn uncharge(&mut self, id: Option<SessionId>, device: usize, bytes: u64) {
        self.devices[device].used -= bytes;
        if let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) {
            session.use_of[device].bytes -= bytes;
        }
    }

    pub(crate) fn log(
        &mut self,
        now: Nanos,
        id: SessionId,
        call: &'static str,
        detail: Option<Arc<str>>,
        bytes: Option<u64>,
        status: CUresult,
    ) {
        let pid = self.sessions.get(&id).map_or(0, |session| session.pid);
        self.note(Entry { at_ns: now, pid, call: call.into(), detail, bytes, status: status.0 });
    }

    pub(crate) fn note(&mut self, entry: Entry) {
        self.journal.note(entry);
    }
}
