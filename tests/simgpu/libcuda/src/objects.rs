//! What handles name.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use headgate_simgpu::protocol::Share;
use headgate_simgpu::protocol::{KernelInfo, ModuleInfo};
use headgate_simgpu::shared_event::SharedEvent;

use crate::capture::Capture;
use crate::format::Shape;

/// Locks, whatever a panicking thread left: everything behind these locks is valid at any moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) handle: usize,
    /// The context that memory, code and events made here are of: itself, or the primary one for a green context.
    pub(crate) home: usize,
    /// The server's number for it.
    pub(crate) number: u32,
    pub(crate) device: usize,
    pub(crate) flags: u32,
    pub(crate) is_primary: bool,
    /// Who made it, and everybody attached to it.
    pub(crate) users: AtomicU32,
    pub(crate) alive: Arc<AtomicBool>,
    pub(crate) legacy: Arc<Stream>,
    /// All streams that may have work, the default ones included.
    pub(crate) streams: Mutex<Vec<Arc<Stream>>>,
    pub(crate) limits: Mutex<HashMap<u32, usize>>,
    /// The SMs its kernels must keep to: it is a green context's.
    pub(crate) share: Option<Share>,
}

/// A green context: a context of its own handle that shares the device's primary one.
#[derive(Debug)]
pub(crate) struct Green {
    pub(crate) context: Arc<Context>,
    pub(crate) device: usize,
}

/// A device's primary context: its handle is the same whether it is active or not.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) handle: usize,
    pub(crate) state: Mutex<PrimaryState>,
}

#[derive(Debug, Default)]
pub(crate) struct PrimaryState {
    pub(crate) retained: u32,
    pub(crate) flags: u32,
}

impl Primary {
    pub(crate) fn new(handle: usize) -> Self {
        Self { handle, state: Mutex::new(PrimaryState::default()) }
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) handle: usize,
    pub(crate) slot: u32,
    pub(crate) context: usize,
    /// As its context's.
    pub(crate) home: usize,
    pub(crate) context_number: u32,
    pub(crate) context_alive: Arc<AtomicBool>,
    pub(crate) kind: StreamKind,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    pub(crate) submitted: AtomicU64,
    /// The capture that records its work.
    pub(crate) capture: Mutex<Option<Arc<Capture>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamKind {
    Legacy,
    Blocking,
    NonBlocking,
}

impl Stream {
    pub(crate) fn context_is_alive(&self) -> bool {
        self.context_alive.load(Ordering::Acquire)
    }

    pub(crate) fn last(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) timing: bool,
    pub(crate) context: usize,
    /// What other processes know of it, too.
    pub(crate) shared: Option<Shared>,
    /// Where it was last recorded.
    pub(crate) recorded: Mutex<Option<Recorded>>,
    /// The capture it was last recorded in instead, and what it stands for there.
    pub(crate) captured: Mutex<Option<(Arc<Capture>, BTreeSet<usize>)>>,
}

/// An event that several processes know.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) event: Arc<SharedEvent>,
    /// How others ask for it; `None` when it is another process's.
    pub(crate) token: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) stream: Arc<Stream>,
    pub(crate) seq: u64,
}

#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) handle: usize,
    pub(crate) context: usize,
    pub(crate) info: ModuleInfo,
    /// Functions asked for so far, by index of their kernel.
    pub(crate) functions: Mutex<HashMap<usize, usize>>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) module: Arc<Module>,
    pub(crate) kernel: u32,
    pub(crate) name: CString,
    pub(crate) dynamic_shared_max: AtomicU32,
    /// What the oldest form of launching keeps with the function.
    pub(crate) setup: Mutex<Setup>,
}

/// Block shape, dynamic shared memory and parameters of the next `cuLaunch`.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) parameters: Vec<u8>,
}

impl Function {
    pub(crate) fn info(&self) -> &KernelInfo {
        &self.module.info.kernels[self.kernel as usize]
    }
}

/// Code that is not bound to a context; it is loaded into each when it is first used there.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) text: Vec<u8>,
    /// Modules by context.
    pub(crate) modules: Mutex<HashMap<usize, usize>>,
    /// Kernels asked for so far, by name.
    pub(crate) kernels: Mutex<HashMap<String, usize>>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) library: usize,
    pub(crate) name: String,
}

/// Where an address range of the device comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// `cuMemAlloc` and the like.
    Plain,
    /// An array's or a mipmap's.
    Array,
    /// A pool, by its handle.
    Pool(usize),
    /// `cuMemAllocManaged`: host memory that the device uses, too.
    Managed,
    /// `cuMemMap`.
    Mapped(u64),
    /// Another process's, opened by `cuIpcOpenMemHandle`.
    Imported,
    /// Another process's, of a pool.
    ImportedFromPool,
    /// An allocation node of a graph.
    Node,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allocation {
    pub(crate) bytes: u64,
    /// The context it ends with, 0 for what outlives contexts.
    pub(crate) context: usize,
    pub(crate) device: usize,
    pub(crate) origin: Origin,
}

/// Physical memory, or a multicast object, as this process knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) bytes: u64,
    /// `CUmemLocationType` and id.
    pub(crate) location: (u32, i32),
    /// Bit set of `CUmemAllocationHandleType`.
    pub(crate) handle_types: u32,
    pub(crate) is_multicast: bool,
    /// Handles that the program has.
    pub(crate) handles: u32,
    /// Mappings of it.
    pub(crate) mappings: u32,
    /// Devices of a multicast object still to be added.
    pub(crate) devices_missing: u32,
}

/// The number of a pool that is another process's: nothing can be done with it but to import what was exported from it.
pub(crate) const IMPORTED_POOL: u32 = u32::MAX;

/// A memory pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) number: u32,
    pub(crate) device: usize,
    pub(crate) is_default: bool,
    pub(crate) handle_types: u32,
    /// `CU_MEMPOOL_ATTR_REUSE_*`, which change nothing in a model that only reuses what is safe.
    pub(crate) reuse: [AtomicU32; 3],
}

impl Pool {
    pub(crate) fn new(number: u32, device: usize, is_default: bool, handle_types: u32) -> Self {
        let reuse = [1, 1, 1].map(AtomicU32::new);
        Self { number, device, is_default, handle_types, reuse }
    }
}

/// An array, or a level of a mipmap.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) shape: Shape,
    pub(crate) address: u64,
    pub(crate) context: usize,
    /// A level of this mipmap, which owns the memory.
    pub(crate) is_level: bool,
}

/// A mipmap.
#[derive(Debug)]
pub(crate) struct Mipmap {
    pub(crate) levels: Vec<usize>,
    pub(crate) address: u64,
    pub(crate) context: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostRange {
    pub(crate) bytes: u64,
    pub(crate) flags: u32,
    /// Allocated here, not merely registered.
    pub(crate) owned: bool,
}
