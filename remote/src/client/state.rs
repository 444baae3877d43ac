//! The process's state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use headgate_abi::cuda::types::CUresult;

use super::api::Link;
use super::capture::Captures;
use super::handles::Arena;
use super::objects::{
    Allocation, Context, Event, Function, HostRange, Library, Module, Registry, Stream, lock,
};
use super::session::Session;
use super::{ADDRESS_ENV, Answer, LOG_ENV, contract, raw};
use crate::link::Address;
use crate::wire::operation::{Digest, Operation};

/// The newest CUDA version whose rules this client knows.
const VERSION_MAX: u32 = 13_000;
/// The version told when there is no worker to ask.
const VERSION_ALONE: u32 = VERSION_MAX;

static CLIENT: OnceLock<Result<Client, CUresult>> = OnceLock::new();
static INITIALISED: AtomicBool = AtomicBool::new(false);
/// This is the child of a process that had a session. The session is the parent's; as the CUDA documentation says, the
/// driver cannot be used here.
static FORKED: AtomicBool = AtomicBool::new(false);
/// The connection's descriptor, for the child to close; none while the session has no connection.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
/// The bell's, likewise.
static BELL: AtomicI32 = AtomicI32::new(-1);

/// A device's primary context.
#[derive(Debug)]
pub(super) struct Primary {
    /// Its number, which it keeps while it is inactive.
    pub(super) id: u32,
    /// How often it is retained, and its flags.
    pub(super) state: Mutex<(u32, u32)>,
    /// It could not be made the last time.
    pub(super) failed: AtomicBool,
}

/// Everything a process with a session has.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) session: Arc<Session>,
    pub(super) arena: Arena,
    pub(super) contexts: Arc<Registry<Context>>,
    pub(super) streams: Registry<Stream>,
    pub(super) events: Registry<Event>,
    pub(super) modules: Registry<Module>,
    pub(super) functions: Registry<Function>,
    pub(super) libraries: Registry<Library>,
    /// Pools have no state here; the registry only gives them numbers.
    pub(super) pools: Registry<()>,
    /// Graphs and those made ready: live ones, and nothing else of them.
    pub(super) graphs: Registry<()>,
    pub(super) execs: Registry<()>,
    /// Physical memory, and the device it is of.
    pub(super) physical: Registry<usize>,
    pub(super) links: Registry<Link>,
    pub(super) captures: Captures,
    pub(super) primaries: Vec<Primary>,
    /// Numbers of the default pools and of those in their place, by device.
    pub(super) default_pools: Mutex<HashMap<usize, u32>>,
    pub(super) current_pools: Mutex<HashMap<usize, u32>>,
    pub(super) allocations: Mutex<BTreeMap<u64, Allocation>>,
    pub(super) host: Mutex<BTreeMap<usize, HostRange>>,
    /// Images the worker has.
    pub(super) sent: Mutex<HashSet<Digest>>,
    /// Whether memory was given back in stream order, so that waiting has the driver let go of some.
    pub(super) freed_in_order: AtomicBool,
}

extern "C" fn in_forked_child() {
    let bell = BELL.swap(-1, Ordering::AcqRel);
    if bell >= 0 {
        FORKED.store(true, Ordering::Release);
        raw::close(bell);
        let descriptor = DESCRIPTOR.swap(-1, Ordering::AcqRel);
        if descriptor >= 0 {
            raw::close(descriptor);
        }
    }
}

/// The session's connection is this one now, or none. A number that the program uses for a file of its own meanwhile must
/// not be closed in its children.
pub(super) fn carried_by(descriptor: Option<i32>) {
    DESCRIPTOR.store(descriptor.unwrap_or(-1), Ordering::Release);
}

extern "C" fn at_exit() {
    // A forked child that ends must not end its parent's session.
    if !FORKED.load(Ordering::Acquire)
        && let Some(Ok(client)) = CLIENT.get()
    {
        client.session.end();
    }
}

pub(super) fn hint(why: &dyn std::fmt::Display) {
    if std::env::var_os(LOG_ENV).is_some() {
        // A closed stderr is no reason to fail.
        drop(writeln!(std::io::stderr(), "headgate remote: {why}"));
    }
}

fn connect() -> Result<Client, CUresult> {
    let no_device = |why: &dyn std::fmt::Display| {
        hint(&format_args!("no device: {why}"));
        CUresult::ERROR_NO_DEVICE
    };
    let text =
        std::env::var(ADDRESS_ENV).map_err(|error| no_device(&format_args!("{ADDRESS_ENV}: {error}")))?;
    let address: Address = text.parse().map_err(|error| no_device(&error))?;
    let mut arena = Arena::reserve().ok_or_else(|| no_device(&"no addresses left for handles"))?;
    let contexts = Arc::new(Registry::new());
    let session = Session::open(address, &contexts).map_err(|error| no_device(&error))?;
    BELL.store(session.bell_descriptor(), Ordering::Release);
    raw::at_fork(in_forked_child);
    raw::at_exit(at_exit);
    let borrowed = session.welcome.devices.len();
    let handles = contract::primary_handles(borrowed).map_err(|why| no_device(&why))?;
    let primary = |index: usize| {
        let id = contexts.number();
        if let Some(&handle) = handles.get(index) {
            arena.give(id, handle);
        }
        Primary { id, state: Mutex::new((0, 0)), failed: AtomicBool::new(false) }
    };
    let primaries = (0..borrowed).map(primary).collect();
    Ok(Client {
        session,
        arena,
        contexts,
        streams: Registry::new(),
        events: Registry::new(),
        modules: Registry::new(),
        functions: Registry::new(),
        libraries: Registry::new(),
        pools: Registry::new(),
        graphs: Registry::new(),
        execs: Registry::new(),
        physical: Registry::new(),
        links: Registry::new(),
        captures: Captures::default(),
        primaries,
        default_pools: Mutex::default(),
        current_pools: Mutex::default(),
        allocations: Mutex::default(),
        host: Mutex::default(),
        sent: Mutex::default(),
        freed_in_order: AtomicBool::new(false),
    })
}

/// The session, started or not.
pub(super) fn connected() -> Result<&'static Client, CUresult> {
    CLIENT.get_or_init(connect).as_ref().map_err(|&status| status)
}

/// Whether this is a forked child of a process with a session.
pub(super) fn is_forked() -> bool {
    FORKED.load(Ordering::Acquire)
}

/// Starts the driver, and the one beside it before. Again and again is fine.
pub(super) fn initialise() -> Answer {
    if let Some(genuine) = contract::genuine() {
        genuine?.init(0)?;
    }
    if connected()?.session.welcome.devices.is_empty() {
        return Err(CUresult::ERROR_NO_DEVICE);
    }
    INITIALISED.store(true, Ordering::Release);
    Ok(())
}

/// CUDA version; may be asked before the driver is started.
pub(super) fn version() -> u32 {
    if let Some(Ok(genuine)) = contract::genuine() {
        let mut version = 0;
        let told = genuine.version(&raw mut version).ok().and_then(|()| u32::try_from(version).ok());
        return told.unwrap_or(VERSION_ALONE);
    }
    connected().map_or(VERSION_ALONE, |client| client.session.welcome.driver_version.min(VERSION_MAX))
}

/// The started driver.
pub(super) fn client() -> Result<&'static Client, CUresult> {
    if !INITIALISED.load(Ordering::Acquire) {
        return Err(CUresult::ERROR_NOT_INITIALIZED);
    }
    connected()
}

impl Client {
    /// Forgets what ends with a context.
    pub(super) fn end_context(&self, context: &Context) {
        context.alive.store(false, Ordering::Release);
        self.contexts.remove(context.id);
        self.session.credits.end(context.id);
        self.streams.retain(|stream| stream.context != context.id);
        self.events.retain(|event| event.context != context.id);
        self.modules.retain(|module| module.context != context.id);
        self.functions.retain(|function| function.of_library || function.context != context.id);
        lock(&self.allocations).retain(|_, allocation| allocation.context != context.id);
        super::capture::end_context(self, context.id);
        self.links.retain(|link| link.context() != context.id);
        for library in self.libraries.all() {
            lock(&library.modules).remove(&context.id);
        }
    }

    /// The program has waited for something of a context.
    pub(super) fn waited(&self, context: u32) -> Answer {
        if self.freed_in_order.load(Ordering::Acquire) {
            self.session.tell(context, &Operation::Settle)?;
        }
        Ok(())
    }

    /// The allocation an address is in: its first address, and what it is.
    pub(super) fn allocation(&self, address: u64) -> Option<(u64, Allocation)> {
        let allocations = lock(&self.allocations);
        let (&base, &found) = allocations.range(..=address).next_back()?;
        (address - base < found.bytes).then_some((base, found))
    }

    /// The pinned range that holds so many bytes from an address on.
    pub(super) fn pinned(&self, address: usize, bytes: usize) -> Option<(usize, HostRange)> {
        let host = lock(&self.host);
        let (&base, &found) = host.range(..=address).next_back()?;
        (address - base + bytes <= found.bytes).then_some((base, found))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;
    use std::path::PathBuf;

    use super::*;

    /// What is behind a descriptor; another file may have its number by the time it is asked for.
    fn behind(descriptor: i32) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()
    }

    #[test]
    fn a_child_closes_the_connection_of_the_moment_and_no_file_that_has_its_number_since() {
        let (connection, file) = std::io::pipe().unwrap();
        let (connection, file) = (connection.into_raw_fd(), file.into_raw_fd());
        for (carried, closed) in [(None, false), (Some(connection), true)] {
            let (bell, other) = std::io::pipe().unwrap();
            let bell = bell.into_raw_fd();
            let (was_bell, was) = (behind(bell).unwrap(), behind(connection).unwrap());
            BELL.store(bell, Ordering::Release);
            carried_by(Some(connection));
            carried_by(carried);
            in_forked_child();
            assert!(FORKED.swap(false, Ordering::AcqRel), "with a connection or without, it is a child");
            drop(other);
            assert_ne!(behind(bell), Some(was_bell));
            assert_eq!(behind(connection) != Some(was), closed);
        }
        raw::close(file);
    }
}
