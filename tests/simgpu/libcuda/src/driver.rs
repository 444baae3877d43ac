//! The process's state, and what every call goes through.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use headgate_abi::cuda::symbols::{ROWS, Row, Symbol};
use headgate_abi::cuda::types::CUresult;
use headgate_simgpu::client::{Connection, Lost};
use headgate_simgpu::limits::STREAMS_MAX;
use headgate_simgpu::protocol::{
    Command, DEVICE_NODE_ENV, Holding, LOG_ENV, Reply, Request, Role, SOCKET_ENV,
};
use headgate_simgpu::shared_event::SharedEvent;

use crate::api::Link;
use crate::capture::{self, Capture};
use crate::graph::memory::NodeMemory;
use crate::graph::{Executable, Graph};
use crate::host_functions::HostFunctions;
use crate::objects::{
    Allocation, Array, Block, Context, Event, Function, Green, HostRange, Kernel, Library, Mipmap, Module,
    Pool, Primary, Share, Stream,
};
use crate::table::{Kind, Table};
use crate::{mps, raw};

/// What a call comes to.
pub(crate) type Answer = Result<(), CUresult>;

/// The version told when no server can be asked.
const VERSION_WITHOUT_SERVER: u32 = 13_000;

static DRIVER: OnceLock<Result<Driver, CUresult>> = OnceLock::new();
static INITIALISED: AtomicBool = AtomicBool::new(false);
/// This is the child of a process that had connected. The connection is the parent's; as the CUDA documentation says,
/// the driver cannot be used here.
static FORKED: AtomicBool = AtomicBool::new(false);
/// The connection's descriptor, for the child to close.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

/// The device node, open for as long as the process lives.
static NODE: OnceLock<std::fs::File> = OnceLock::new();

/// Everything a process that uses the driver has.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) connection: Connection,
    pub(crate) contexts: Table<Context>,
    pub(crate) streams: Table<Stream>,
    pub(crate) events: Table<Event>,
    /// Memory of events that several processes know. It is kept for good: work may come to a record after the event was
    /// destroyed.
    pub(crate) event_memory: Mutex<Vec<Arc<SharedEvent>>>,
    pub(crate) modules: Table<Module>,
    pub(crate) functions: Table<Function>,
    pub(crate) libraries: Table<Library>,
    pub(crate) kernels: Table<Kernel>,
    pub(crate) links: Table<Link>,
    pub(crate) primaries: Vec<Primary>,
    pub(crate) pools: Table<Pool>,
    /// Handles of the default pools and of those in their place, by device.
    pub(crate) default_pools: Vec<usize>,
    pub(crate) current_pools: Mutex<Vec<usize>>,
    /// Whether a pool may hold memory, so that waiting for the device gives some back.
    pub(crate) pools_used: AtomicBool,
    pub(crate) arrays: Table<Array>,
    pub(crate) mipmaps: Table<Mipmap>,
    /// Imported memory of other interfaces: its block.
    pub(crate) external: Table<u64>,
    pub(crate) blocks: Mutex<BTreeMap<u64, Block>>,
    /// `CUmemAccess_flags` of mapped ranges, by first address.
    pub(crate) access: Mutex<BTreeMap<u64, u32>>,
    pub(crate) graphs: Table<Graph>,
    /// Which graph each node belongs to.
    pub(crate) graph_nodes: Table<Graph>,
    pub(crate) executables: Table<Executable>,
    /// Memory of allocation nodes, by address.
    pub(crate) node_memory: Mutex<BTreeMap<u64, Weak<NodeMemory>>>,
    /// Of these, what has been allocated by a launch and not freed.
    pub(crate) live_nodes: Mutex<BTreeMap<u64, Arc<NodeMemory>>>,
    pub(crate) greens: Table<Green>,
    /// Described parts of a device's SMs.
    pub(crate) resource_descs: Table<Share>,
    pub(crate) captures: Mutex<Vec<Arc<Capture>>>,
    /// How many there are.
    pub(crate) capturing: AtomicUsize,
    /// Reserved addresses.
    pub(crate) reserved: Mutex<BTreeMap<u64, u64>>,
    pub(crate) allocations: RwLock<BTreeMap<u64, Allocation>>,
    pub(crate) host_ranges: RwLock<BTreeMap<u64, HostRange>>,
    pub(crate) host_functions: HostFunctions,
    /// Entry points that this driver does not support, by index.
    lacks: Vec<usize>,
    slots: Mutex<Slots>,
    event_ids: AtomicU64,
}

#[derive(Debug, Default)]
struct Slots {
    made: u32,
    /// Given back, with the number of their last command; they can be used again once that is done.
    free: VecDeque<(u32, u64)>,
}

extern "C" fn in_forked_child() {
    FORKED.store(true, Ordering::Release);
    let descriptor = DESCRIPTOR.swap(-1, Ordering::AcqRel);
    if descriptor >= 0 {
        raw::close_in_child(descriptor);
    }
}

fn hint(why: &dyn std::fmt::Display) {
    if std::env::var_os(LOG_ENV).is_some() {
        // A closed stderr is no reason to fail.
        drop(writeln!(std::io::stderr(), "headgate simulated libcuda: {why}"));
    }
}

/// Opens the device node, if there is to be one. A driver that may not open it sees no device.
fn open_node() -> Result<(), CUresult> {
    let Some(path) = std::env::var_os(DEVICE_NODE_ENV).map(PathBuf::from) else { return Ok(()) };
    let node = std::fs::File::options().read(true).write(true).open(&path).map_err(|error| {
        hint(&format_args!("no device: {}: {error}", path.display()));
        CUresult::ERROR_NO_DEVICE
    })?;
    // Threads that start the driver at once keep the first one's.
    drop(NODE.set(node));
    Ok(())
}

fn connect() -> Result<Driver, CUresult> {
    raw::at_fork(in_forked_child);
    let Some(path) = std::env::var_os(SOCKET_ENV).map(PathBuf::from) else {
        hint(&format_args!("no device: {SOCKET_ENV} is not set"));
        return Err(CUresult::ERROR_NO_DEVICE);
    };
    let mut connection = Connection::open(&path, Role::Driver).map_err(|error| {
        hint(&format_args!("no device: {}: {error}", path.display()));
        CUresult::ERROR_NO_DEVICE
    })?;
    DESCRIPTOR.store(connection.descriptor(), Ordering::Release);
    mps::join(&mut connection)
        .inspect_err(|status| hint(&format_args!("MPS refuses this client: {status:?}")))?;
    let contexts = Table::new(Kind::Context);
    let pools: Table<Pool> = Table::new(Kind::Pool);
    let devices = connection.node().devices.len();
    let primaries = (0..devices).map(|_| Primary::new(contexts.reserve())).collect();
    let default_pools: Vec<usize> = (0..devices)
        .map(|device| {
            let handle = pools.reserve();
            let number = u32::try_from(device).unwrap_or(u32::MAX);
            pools.insert(handle, Arc::new(Pool::new(number, device, true, 0)));
            handle
        })
        .collect();
    let named =
        |row: &Row| connection.node().lacks.iter().any(|start| row.elf_name.starts_with(start.as_str()));
    let lacks = ROWS.iter().enumerate().filter(|(_, row)| named(row)).map(|(index, _)| index).collect();
    Ok(Driver {
        lacks,
        connection,
        contexts,
        streams: Table::new(Kind::Stream),
        event_memory: Mutex::default(),
        events: Table::new(Kind::Event),
        modules: Table::new(Kind::Module),
        functions: Table::new(Kind::Function),
        libraries: Table::new(Kind::Library),
        kernels: Table::new(Kind::Kernel),
        links: Table::new(Kind::Link),
        primaries,
        current_pools: Mutex::new(default_pools.clone()),
        pools,
        default_pools,
        pools_used: AtomicBool::new(false),
        arrays: Table::new(Kind::Array),
        mipmaps: Table::new(Kind::Mipmap),
        external: Table::new(Kind::External),
        blocks: Mutex::new(BTreeMap::new()),
        access: Mutex::new(BTreeMap::new()),
        graphs: Table::new(Kind::Graph),
        graph_nodes: Table::new(Kind::GraphNode),
        executables: Table::new(Kind::GraphExec),
        node_memory: Mutex::new(BTreeMap::new()),
        live_nodes: Mutex::new(BTreeMap::new()),
        greens: Table::new(Kind::Green),
        resource_descs: Table::new(Kind::Resources),
        captures: Mutex::new(Vec::new()),
        capturing: AtomicUsize::new(0),
        reserved: Mutex::new(BTreeMap::new()),
        allocations: RwLock::new(BTreeMap::new()),
        host_ranges: RwLock::new(BTreeMap::new()),
        host_functions: HostFunctions::default(),
        slots: Mutex::new(Slots::default()),
        event_ids: AtomicU64::new(1),
    })
}

fn connected() -> Result<&'static Driver, CUresult> {
    DRIVER.get_or_init(connect).as_ref().map_err(|&status| status)
}

/// Starts the driver. Again and again is fine.
pub(crate) fn initialise() -> Answer {
    if !INITIALISED.load(Ordering::Acquire) {
        open_node()?;
    }
    let driver = connected()?;
    if driver.connection.node().devices.is_empty() {
        return Err(CUresult::ERROR_NO_DEVICE);
    }
    INITIALISED.store(true, Ordering::Release);
    Ok(())
}

/// CUDA version of the driver; may be asked before it is started.
pub(crate) fn version() -> u32 {
    connected().map_or(VERSION_WITHOUT_SERVER, |driver| driver.connection.node().driver_version)
}

/// The started driver.
pub(crate) fn driver() -> Result<&'static Driver, CUresult> {
    if FORKED.load(Ordering::Acquire) || !INITIALISED.load(Ordering::Acquire) {
        return Err(CUresult::ERROR_NOT_INITIALIZED);
    }
    connected()
}

/// What every exported function does around its own work.
pub(crate) fn shell(symbol: Symbol, work: impl FnOnce() -> Answer) -> CUresult {
    if FORKED.load(Ordering::Acquire) {
        return CUresult::ERROR_NOT_INITIALIZED;
    }
    let Some(driver) = DRIVER.get().and_then(|driver| driver.as_ref().ok()) else {
        return guarded(work);
    };
    let page = driver.connection.page();
    page.count_call(symbol.index());
    // Whoever checkpoints this very process must not be kept out by its own lock.
    if symbol.row().elf_name.starts_with("cuCheckpoint") {
        return in_shell(driver, symbol, work);
    }
    page.enter();
    let status = in_shell(driver, symbol, work);
    page.leave();
    status
}

fn in_shell(driver: &Driver, symbol: Symbol, work: impl FnOnce() -> Answer) -> CUresult {
    let page = driver.connection.page();
    let ordered = if page.faults_armed() { driver.injected_fault(symbol) } else { None };
    let status = if !driver.lacks.is_empty() && driver.lacks.contains(&symbol.index()) {
        CUresult::ERROR_NOT_SUPPORTED
    } else {
        ordered.unwrap_or_else(|| guarded(work))
    };
    if page.journals_all() {
        driver.note(symbol, status);
    }
    status
}

/// What functions of the private tables do around their own work. They have no row, so nothing counts or journals them.
pub(crate) fn unlisted(work: impl FnOnce() -> Answer) -> CUresult {
    if FORKED.load(Ordering::Acquire) { CUresult::ERROR_NOT_INITIALIZED } else { guarded(work) }
}

/// A panic must not reach the caller, who is C.
fn guarded(work: impl FnOnce() -> Answer) -> CUresult {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => CUresult::SUCCESS,
        Ok(Err(status)) => status,
        Err(_) => CUresult::ERROR_UNKNOWN,
    }
}

/// The answer of a row that has no function of its own.
pub(crate) fn not_supported(symbol: Symbol) -> Answer {
    let driver = driver()?;
    if !driver.connection.page().journals_all() {
        driver.note(symbol, CUresult::ERROR_NOT_SUPPORTED);
    }
    Err(CUresult::ERROR_NOT_SUPPORTED)
}

/// A lost server is a lost device.
pub(crate) fn lost(_: Lost) -> CUresult {
    CUresult::ERROR_DEVICE_UNAVAILABLE
}

impl Driver {
    fn injected_fault(&self, symbol: Symbol) -> Option<CUresult> {
        let call = symbol.row().elf_name.to_owned();
        match self.connection.ask(&Request::TakeFault { call }) {
            Ok(Reply::Fault(Some(status))) => Some(CUresult(status)),
            _ => None,
        }
    }

    fn note(&self, symbol: Symbol, status: CUresult) {
        let note = Request::Note { call: symbol.row().elf_name.to_owned(), status: status.0 };
        self.connection.tell(&note);
    }

    /// Asks the server, and takes a refusal's status as the call's.
    pub(crate) fn ask(&self, request: &Request) -> Result<Reply, CUresult> {
        accept(self.connection.ask(request).map_err(lost)?)
    }

    /// Hands commands to a stream.
    pub(crate) fn submit(
        &self,
        stream: &Stream,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<u64, CUresult> {
        if self.capturing.load(Ordering::Acquire) > 0 {
            let commands: Vec<Command> = commands.into_iter().collect();
            if capture::divert(self, stream, &commands)? {
                return Ok(stream.last());
            }
            return self.send(stream, commands);
        }
        self.send(stream, commands)
    }

    fn send(&self, stream: &Stream, commands: impl IntoIterator<Item = Command>) -> Result<u64, CUresult> {
        let keep_on = || stream.context_is_alive();
        self.connection.submit(stream.slot, &stream.submitted, commands, keep_on).map_err(lost)
    }

    /// Hands a command to a stream, whose host bytes the server takes at once.
    pub(crate) fn submit_staged(&self, stream: &Stream, command: Command) -> Answer {
        capture::forbid_implied(self, stream)?;
        let staged = self.connection.submit_staged(stream.slot, &stream.submitted, command);
        let (_, reply) = staged.map_err(lost)?;
        accept(reply).map(|_| ())
    }

    /// The program has waited for the device: pools may give back what they need not keep.
    pub(crate) fn synchronised(&self) {
        if self.pools_used.load(Ordering::Acquire) {
            self.connection.tell(&Request::Holding(Holding::Synchronised));
        }
    }

    /// Asks about memory that is more than an address.
    pub(crate) fn hold(&self, request: Holding) -> Result<Reply, CUresult> {
        self.ask(&Request::Holding(request))
    }

    /// Waits for a command of a stream, and answers with what stuck to its context meanwhile.
    pub(crate) fn wait(&self, stream: &Stream, seq: u64) -> Answer {
        let keep_on = || stream.context_is_alive();
        if !self.connection.wait(stream.slot, seq, keep_on).map_err(lost)? {
            return Err(CUresult::ERROR_CONTEXT_IS_DESTROYED);
        }
        self.context_error(stream.context_number)
    }

    /// Whether a stream has completed a command.
    pub(crate) fn is_done(&self, slot: u32, seq: u64) -> bool {
        self.connection.page().completed(slot as usize) >= seq
    }

    /// The error stuck to a context.
    pub(crate) fn context_error(&self, number: u32) -> Answer {
        match self.connection.page().error(number as usize) {
            0 => Ok(()),
            status => Err(CUresult(status)),
        }
    }

    /// A slot whose work is all done, and the number it goes on from.
    pub(crate) fn take_slot(&self) -> Result<(u32, u64), CUresult> {
        let page = self.connection.page();
        let mut slots = self.lock_slots();
        for _ in 0..slots.free.len() {
            let Some((slot, last)) = slots.free.pop_front() else { break };
            if page.completed(slot as usize) >= last {
                return Ok((slot, page.completed(slot as usize)));
            }
            slots.free.push_back((slot, last));
        }
        if slots.made as usize >= STREAMS_MAX {
            return Err(CUresult::ERROR_OUT_OF_MEMORY);
        }
        slots.made += 1;
        Ok((slots.made - 1, 0))
    }

    /// Gives a slot back; it is used again when `last` is done. One that was given back before is given back earlier:
    /// its stream was destroyed with work pending, and now its context is.
    pub(crate) fn give_slot(&self, slot: u32, last: u64) {
        let mut slots = self.lock_slots();
        match slots.free.iter_mut().find(|(free, _)| *free == slot) {
            Some((_, known)) => *known = last.min(*known),
            None => slots.free.push_back((slot, last)),
        }
    }

    fn lock_slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_event_id(&self) -> u64 {
        self.event_ids.fetch_add(1, Ordering::Relaxed)
    }
}

pub(crate) fn accept(reply: Reply) -> Result<Reply, CUresult> {
    match reply {
        Reply::Refused { status, reason } => {
            hint(&reason);
            Err(CUresult(status))
        }
        reply => Ok(reply),
    }
}
