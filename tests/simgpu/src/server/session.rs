//! One client: what it has connected, allocated, loaded and submitted.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::checkpoints::ProcessState;
use super::holdings::Managed;
use super::meter::Samples;
use super::mps::MpsClient;
use super::pools::{GraphMarks, GraphNode, PoolBook};
use crate::code::Placed;
use crate::mappings::{self, Mappings};
use crate::memory::{AddressSpace, Piece};
use crate::model::{ContextId, ContextMeter, Nanos, StreamId};
use crate::page::StatusPage;
use crate::protocol::{PoolId, Role, Share};
use crate::wire::Inbox;

/// A connection and all that lives and dies with it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: UnixStream,
    pub(crate) inbox: Inbox,
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// `None` until the client has introduced itself.
    pub(crate) role: Option<Role>,
    pub(crate) page: Option<StatusPage>,
    pub(crate) use_of: Vec<DeviceUse>,
    pub(crate) contexts: BTreeMap<u32, SessionContext>,
    pub(crate) slots: HashMap<u32, StreamId>,
    /// Parts of the SMs that streams keep to, by slot.
    pub(crate) shares: HashMap<u32, Share>,
    /// How long the last operation takes of streams where that is a kernel, by slot.
    pub(crate) last_kernels: HashMap<u32, Nanos>,
    pub(crate) modules: BTreeMap<u32, Arc<Module>>,
    pub(crate) modules_made: u32,
    pub(crate) events: HashMap<u64, Nanos>,
    /// Host memory the device may reach, by address.
    pub(crate) pinned: BTreeMap<u64, u64>,
    pub(crate) mappings: Mappings,
    /// Managed memory, by address. It is pinned, too.
    pub(crate) managed: BTreeMap<u64, Managed>,
    pub(crate) pools: BTreeMap<PoolId, PoolBook>,
    pub(crate) pools_made: PoolId,
    pub(crate) graph_nodes: BTreeMap<u64, GraphNode>,
    /// Bytes held for graphs and shown at no address, by device.
    pub(crate) graph_spare: BTreeMap<usize, u64>,
    pub(crate) graph_marks: BTreeMap<usize, GraphMarks>,
    /// What it has as a client of an MPS server.
    pub(crate) mps: Option<MpsClient>,
    pub(crate) checkpoint: ProcessState,
    /// Directory of its control group, as it was when it connected.
    pub(crate) group: String,
    /// To be dropped at the end of the turn, with the reason.
    pub(crate) doomed: Option<String>,
}

/// What a session uses of one device.
#[derive(Debug)]
pub(crate) struct DeviceUse {
    pub(crate) space: Option<AddressSpace>,
    /// Allocations and context overhead.
    pub(crate) bytes: u64,
    /// Most of it since the mark.
    pub(crate) bytes_peak: u64,
    /// Allocations refused since the mark.
    pub(crate) refused: u64,
    /// Kernels since the mark that overlapped the one before.
    pub(crate) overlapped: u64,
    /// Of contexts that have ended.
    pub(crate) ended: ContextMeter,
    /// At the last mark.
    pub(crate) at_mark: ContextMeter,
    pub(crate) samples: Samples,
    /// Whether a context was ever made here.
    pub(crate) touched: bool,
}

impl DeviceUse {
    pub(crate) fn new(now: Nanos) -> Self {
        Self {
            space: None,
            bytes: 0,
            bytes_peak: 0,
            refused: 0,
            overlapped: 0,
            ended: ContextMeter::default(),
            at_mark: ContextMeter::default(),
            samples: Samples::new(now),
            touched: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct SessionContext {
    pub(crate) id: ContextId,
    pub(crate) device: usize,
    /// Memory the context itself takes.
    pub(crate) overhead: u64,
}

/// A loaded module: its code, and where its variables are.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) code: Placed,
    pub(crate) names: Vec<Arc<str>>,
    /// The allocation that holds the variables.
    pub(crate) storage: Option<u64>,
    pub(crate) context: u32,
    pub(crate) device: usize,
    /// Memory the module itself takes.
    pub(crate) overhead: u64,
}

/// Part of another process's memory cannot be reached, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The process has nothing there, or is gone.
    #[error("the program has no memory there")]
    Absent,
    /// The system does not let the server at it.
    #[error("the device server may not reach the program's memory; run it as the same user or as root")]
    Forbidden,
}

impl From<Errno> for Unreachable {
    fn from(error: Errno) -> Self {
        if error == Errno::EPERM { Self::Forbidden } else { Self::Absent }
    }
}

/// Fills `into` from the memory of a process.
pub(crate) fn read_process(pid: u32, address: u64, into: &mut [u8]) -> Result<(), Unreachable> {
    let mut done = 0;
    while done < into.len() {
        let remote = remote(address, done, into.len())?;
        let mut local = [IoSliceMut::new(&mut into[done..])];
        match process_vm_readv(process(pid)?, &mut local, &[remote])? {
            0 => return Err(Unreachable::Absent),
            moved => done += moved,
        }
    }
    Ok(())
}

/// Writes `from` into the memory of a process.
pub(crate) fn write_process(pid: u32, address: u64, from: &[u8]) -> Result<(), Unreachable> {
    let mut done = 0;
    while done < from.len() {
        let remote = remote(address, done, from.len())?;
        match process_vm_writev(process(pid)?, &[IoSlice::new(&from[done..])], &[remote])? {
            0 => return Err(Unreachable::Absent),
            moved => done += moved,
        }
    }
    Ok(())
}

fn remote(address: u64, done: usize, length: usize) -> Result<RemoteIoVec, Unreachable> {
    let base =
        usize::try_from(address).ok().and_then(|base| base.checked_add(done)).ok_or(Unreachable::Absent)?;
    Ok(RemoteIoVec { base, len: length - done })
}

fn process(pid: u32) -> Result<Pid, Unreachable> {
    i32::try_from(pid).map(Pid::from_raw).map_err(|_| Unreachable::Absent)
}

/// The name a process goes by.
pub(crate) fn process_name(pid: u32) -> io::Result<String> {
    Ok(std::fs::read_to_string(format!("/proc/{pid}/comm"))?.trim_end().to_owned())
}

/// The directory of a process's control group (the unified hierarchy's).
fn control_group(pid: u32) -> io::Result<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let hierarchy = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(place)
    });
    Ok(format!("{}{path}", hierarchy.unwrap_or("/sys/fs/cgroup")))
}

impl Session {
    pub(crate) fn new(socket: UnixStream, pid: u32, devices: usize, now: Nanos) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            pid,
            // A process that is gone already has no name, and soon no session.
            name: process_name(pid).unwrap_or_default(),
            role: None,
            page: None,
            use_of: (0..devices).map(|_| DeviceUse::new(now)).collect(),
            contexts: BTreeMap::new(),
            slots: HashMap::new(),
            shares: HashMap::new(),
            last_kernels: HashMap::new(),
            modules: BTreeMap::new(),
            modules_made: 0,
            events: HashMap::new(),
            pinned: BTreeMap::new(),
            mappings: Mappings::default(),
            managed: BTreeMap::new(),
            pools: BTreeMap::new(),
            pools_made: 0,
            graph_nodes: BTreeMap::new(),
            graph_spare: BTreeMap::new(),
            graph_marks: BTreeMap::new(),
            mps: None,
            checkpoint: ProcessState::default(),
            group: control_group(pid).unwrap_or_default(),
            doomed: None,
        }
    }

    /// Whether host memory was pinned.
    pub(crate) fn is_pinned(&self, address: u64, bytes: u64) -> bool {
        self.pinned.range(..=address).next_back().is_some_and(|(&start, &length)| {
            address.checked_add(bytes).is_some_and(|end| end <= start.saturating_add(length))
        })
    }

    /// Whether it runs in a control group or in one below it.
    pub(crate) fn is_in_group(&self, group: &str) -> bool {
        let group = group.trim_end_matches('/');
        self.group.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The bytes behind a device address, as far as they belong together and may be read, or written.
    pub(crate) fn piece(&self, address: u64, write: bool) -> Option<Piece> {
        if address >= mappings::FIRST {
            return self.mappings.piece(address, write);
        }
        let device = AddressSpace::device_of(address)?;
        self.use_of.get(device)?.space.as_ref()?.piece(address)
    }

    /// The memory an address belongs to.
    pub(crate) fn space_of(&mut self, address: u64) -> Option<&mut AddressSpace> {
        let device = AddressSpace::device_of(address)?;
        self.use_of.get_mut(device)?.space.as_mut()
    }
}
