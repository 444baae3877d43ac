//! What the stand-ins and the harness say to the device server.
//!
//! A frame is `length u32 | stamp u64 | answered u8 | Request` (little-endian, the request in postcard's encoding); a
//! reply is `length u32 | Reply`. The stamp is the caller's CLOCK_MONOTONIC, in nanoseconds: work counts as submitted
//! when the program submitted it, not when the server got round to reading it.

mod holding;

use serde::{Deserialize, Serialize};

pub use holding::{BlockId, Holding, PoolFigure, PoolId};

use crate::config::DeviceInfo;
use crate::model::{Condition, KernelRule, Nanos, Width};

/// Environment variable with the path of the server's socket.
pub const SOCKET_ENV: &str = "HEADGATE_SIMGPU_SOCKET";
/// Environment variable that, when set, lets the stand-ins say on stderr why they found no device.
pub const LOG_ENV: &str = "HEADGATE_SIMGPU_LOG";
/// Names a device node that the driver opens when it starts, as a real one opens `/dev/nvidia0`; without it, it opens none.
pub const DEVICE_NODE_ENV: &str = "HEADGATE_SIMGPU_DEVICE_NODE";
/// Where an MPS control program listens, in its pipe directory.
pub const MPS_SOCKET: &str = "control";
/// Both sides must be of one build; this catches those that are not.
pub const PROTOCOL: u32 = 9;

/// Who is calling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// A program through libcuda.
    Driver,
    /// A program through libnvidia-ml.
    Nvml,
    /// An MPS control program.
    Mps,
    /// A test, bench or demo.
    Admin,
}

/// A range of the calling process's memory, read by the server while the caller waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remote {
    /// Address in the caller.
    pub address: u64,
    /// Length.
    pub bytes: u64,
}

/// Where bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Place {
    /// Device memory of the caller.
    Device(u64),
    /// The caller's own memory.
    Host(u64),
}

/// Bytes in rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rows {
    /// First byte of the first row.
    pub at: Place,
    /// Distance of two rows.
    pub pitch: u64,
}

/// A part of a device's SMs. Streams of the same part share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Share {
    /// Number of the first SM.
    pub first: u32,
    /// How many.
    pub sms: u32,
}

/// A launch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Module.
    pub module: u32,
    /// Kernel of the module.
    pub kernel: u32,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// All blocks must be resident at once.
    pub cooperative: bool,
    /// It may begin while the kernel right before it in its stream still runs (programmatic dependent launch).
    pub overlaps: bool,
    /// The parameter block, laid out as the kernel declares it.
    pub params: Vec<u8>,
}

/// An operation for a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Run a kernel.
    Launch(Launch),
    /// Copy rows.
    Copy {
        /// To.
        to: Rows,
        /// From.
        from: Rows,
        /// Bytes of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Read the host's bytes now, as the driver stages pageable memory, not in stream order.
        staged: bool,
    },
    /// Fill rows with a value.
    Fill {
        /// Device address of the first row.
        at: u64,
        /// Distance of two rows.
        pitch: u64,
        /// The value, in its low `element` bytes.
        value: u32,
        /// 1, 2 or 4.
        element: u32,
        /// Elements of a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// Wait for a word of memory.
    WaitValue {
        /// Where the word is.
        at: Place,
        /// What to compare it with.
        value: u64,
        /// How many bits.
        width: Width,
        /// What must hold.
        condition: Condition,
    },
    /// Write a word of memory.
    WriteValue {
        /// Where.
        at: Place,
        /// What.
        value: u64,
        /// How many bits.
        width: Width,
    },
    /// Wait for another stream.
    After {
        /// Its slot.
        slot: u32,
        /// The operation of it that must be done.
        seq: u64,
    },
    /// Note the moment an event was reached.
    Stamp {
        /// The event.
        event: u64,
    },
    /// Forget when an event was reached.
    ForgetEvent {
        /// The event.
        event: u64,
    },
    /// Give back an allocation in stream order.
    Free {
        /// Its address.
        address: u64,
    },
    /// An allocation node of a graph: its memory is in use from now on.
    TakeNode {
        /// Its address.
        address: u64,
    },
    /// A free node of a graph.
    ReturnNode {
        /// The address of the allocation node.
        address: u64,
    },
    /// Nothing, in stream order (memory barriers, flushes).
    Nothing,
    /// Let the program run a host function; it answers with [`Request::HostDone`].
    HostFunction,
}

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// First of all. The reply carries the status page's descriptor.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Who is calling.
        role: Role,
    },
    /// Make a context; `legacy_slot` becomes its legacy default stream.
    OpenContext {
        /// Device.
        device: u32,
        /// Slot of the default stream.
        legacy_slot: u32,
        /// Channels its streams share, `None` for the node's setting.
        connections: Option<u32>,
    },
    /// End a context and all in it.
    CloseContext {
        /// Its number.
        context: u32,
    },
    /// Make a stream. Its operations go on from the slot's last number.
    OpenStream {
        /// Context.
        context: u32,
        /// A slot whose work is all done.
        slot: u32,
        /// Whether it is ordered with the legacy default stream.
        blocking: bool,
        /// Lower goes first.
        priority: i32,
        /// The SMs its kernels must keep to.
        share: Option<Share>,
    },
    /// End a stream when its work is done.
    CloseStream {
        /// Its slot.
        slot: u32,
    },
    /// Allocate device memory.
    Allocate {
        /// Context.
        context: u32,
        /// Bytes.
        bytes: u64,
    },
    /// Free device memory at once.
    Free {
        /// What [`Reply::Address`] said.
        address: u64,
    },
    /// Host memory that the device may reach from now on.
    Pin {
        /// The range.
        range: Remote,
    },
    /// Host memory that the device may no longer reach.
    Unpin {
        /// Address that was pinned.
        address: u64,
    },
    /// How much memory a device has free.
    Memory {
        /// Device.
        device: u32,
    },
    /// Load PTX text.
    LoadModule {
        /// Context whose memory holds its variables.
        context: u32,
        /// The text.
        image: Remote,
    },
    /// Unload a module.
    UnloadModule {
        /// Its number.
        module: u32,
    },
    /// Hand an operation to a stream.
    Submit {
        /// Its slot.
        slot: u32,
        /// Its number; one more than the last.
        seq: u64,
        /// What to do.
        command: Command,
    },
    /// A host function has returned.
    HostDone {
        /// Slot of its stream.
        slot: u32,
        /// Its number.
        seq: u64,
    },
    /// When two events were reached.
    Elapsed {
        /// The earlier.
        start: u64,
        /// The later.
        end: u64,
    },
    /// Xid errors from one on.
    Xids {
        /// How many the caller has seen.
        since: u64,
    },
    /// Whether a fault was injected into the call the client is about to make.
    TakeFault {
        /// Name of the entry point.
        call: String,
    },
    /// A call that the server would not otherwise see.
    Note {
        /// Name of the entry point.
        call: String,
        /// Its status.
        status: u32,
    },
    /// Compute processes of a device (NVML).
    Processes {
        /// Device.
        device: u32,
    },
    /// Utilisation of a device over the last sample period (NVML).
    Utilisation {
        /// Device.
        device: u32,
    },
    /// Utilisation by process (NVML).
    ProcessUtilisation {
        /// Device.
        device: u32,
        /// Samples later than this, in microseconds of the real-time clock.
        since_us: u64,
    },
    /// About memory that is more than an address.
    Holding(Holding),
    /// About the Multi-Process Service.
    Mps(Mps),
    /// A step of checkpointing a process.
    Checkpoint {
        /// Its process id in the server's namespace; `None` for the caller's own.
        pid: Option<u32>,
        /// Which step.
        step: CheckpointStep,
    },
    /// From a test, bench or demo.
    Admin(Admin),
}

/// What an MPS control program asks, and its clients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mps {
    /// This session is a control program, for whoever comes through its pipe directory.
    Serve {
        /// The directory.
        pipe: String,
        /// UUIDs of the devices it serves; none means all.
        devices: Vec<String>,
        /// Whether it partitions devices.
        partitioned: bool,
    },
    /// Set chunks of a device aside; the reply names the partition.
    AddPartition {
        /// The device.
        uuid: String,
        /// How many.
        chunks: u32,
    },
    /// Give them back.
    RemovePartition {
        /// The partition.
        name: String,
    },
    /// Most of the SMs that a client may use from now on, in percent.
    SetPercentage(u32),
    /// Devices, partitions and clients as JSON.
    List,
    /// A program becomes a client. The reply is the node as such a one sees it.
    Join {
        /// Directory of the control program.
        pipe: String,
        /// `CUDA_MPS_SM_PARTITION`.
        partition: Option<String>,
        /// `CUDA_MPS_ACTIVE_THREAD_PERCENTAGE`.
        percentage: Option<u32>,
    },
}

/// A step of checkpointing a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CheckpointStep {
    /// Its `CUprocessState`, as [`Reply::Value`].
    State,
    /// Keep further calls out; [`Reply::Value`] 1 once what was submitted is done, 0 before: ask again.
    Lock,
    /// Give up locking.
    GiveUp,
    /// Take its memory off the devices.
    Checkpoint,
    /// Bring it back, to the addresses it had.
    Restore,
    /// Let calls in again.
    Unlock,
}

/// What a test, bench or demo asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Admin {
    /// Set how long a kernel takes; `None` sets the rule of all kernels without one.
    SetKernel {
        /// Name.
        name: Option<String>,
        /// Rule.
        rule: KernelRule,
    },
    /// Make the next `count` calls of an entry point fail, in any process or in one.
    InjectFault {
        /// Name of the entry point as exported, such as `cuMemAlloc_v2` or `nvmlDeviceGetMemoryInfo`.
        call: String,
        /// Status to return.
        status: u32,
        /// How often.
        count: u32,
        /// Only in this process.
        pid: Option<u32>,
    },
    /// Kill every context on a device with a status, as a lost device does. New contexts work.
    LoseDevice {
        /// Device.
        device: u32,
        /// Status that sticks.
        status: u32,
    },
    /// Report an Xid error of a device to whoever listens through NVML.
    Xid {
        /// Device.
        device: u32,
        /// Its number.
        code: u64,
    },
    /// Begin a new measurement: statistics count from now, ended processes are forgotten.
    Mark,
    /// Statistics as JSON.
    Statistics,
    /// The journal as JSON, oldest first.
    Journal,
    /// Forget the journal.
    ClearJournal,
    /// Whether the journal notes every call.
    JournalAll(
        /// Whether.
        bool,
    ),
}

/// A kernel of a module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelInfo {
    /// Name.
    pub name: String,
    /// Offset and size of each parameter.
    pub params: Vec<(u32, u32)>,
    /// Size of the parameter block.
    pub param_bytes: u32,
    /// Static shared memory.
    pub shared_bytes: u32,
    /// Local memory of a thread.
    pub local_bytes: u32,
    /// Constant memory of the module.
    pub const_bytes: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Most threads of a block.
    pub threads_max: u32,
    /// The only block it takes (`.reqntid`), if it says so.
    pub required_block: Option<[u32; 3]>,
}

/// A variable of a module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VariableInfo {
    /// Name.
    pub name: String,
    /// Address.
    pub address: u64,
    /// Size.
    pub bytes: u64,
}

/// A loaded module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// Its number.
    pub module: u32,
    /// Its kernels.
    pub kernels: Vec<KernelInfo>,
    /// Its variables.
    pub variables: Vec<VariableInfo>,
    /// `.version` as 10 x major + minor.
    pub ptx_version: u32,
    /// `.target` as 10 x major + minor.
    pub target: u32,
}

/// A process on a device (NVML).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id, in the server's namespace.
    pub pid: u32,
    /// Device memory.
    pub bytes: u64,
}

/// Utilisation of a process (NVML).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Process id, in the server's namespace.
    pub pid: u32,
    /// Percent of the time.
    pub percent: u32,
    /// End of the sample, in microseconds of the real-time clock.
    pub at_us: u64,
}

/// A node as its clients see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// CUDA version of the driver.
    pub driver_version: u32,
    /// The devices.
    pub devices: Vec<DeviceInfo>,
    /// Granularity of physical memory and of pools.
    pub granule: u64,
    /// Beginnings of names of entry points that this driver has and does not support.
    pub lacks: Vec<String>,
    /// The server's process id.
    pub server_pid: u32,
}

/// What the server answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome(NodeInfo),
    /// Done.
    Done,
    /// Not done, with the status a driver would return and why.
    Refused {
        /// `CUresult`.
        status: u32,
        /// Why.
        reason: String,
    },
    /// Xid errors, each with its device, oldest first.
    Xids(Vec<(u32, u64)>),
    /// A context's number.
    Context(u32),
    /// An allocation's address.
    Address(u64),
    /// Free and installed memory.
    Memory {
        /// Free.
        free: u64,
        /// Installed.
        total: u64,
    },
    /// A physical block, a multicast object or a pool.
    Block(u64),
    /// A block from another process.
    Imported {
        /// Its number.
        block: BlockId,
        /// Its size.
        bytes: u64,
        /// Its device, `None` for the host.
        device: Option<u32>,
        /// Whether it is a multicast object.
        multicast: bool,
    },
    /// An allocation that processes share.
    Shared {
        /// Names it to others.
        token: u64,
        /// Its first address where it was made.
        base: u64,
        /// Its size.
        bytes: u64,
        /// Its device.
        device: u32,
    },
    /// A figure.
    Value(u64),
    /// Limits of a control group.
    Limits {
        /// Bytes guaranteed.
        soft: u64,
        /// Most bytes.
        hard: u64,
        /// Bytes in use.
        used: u64,
    },
    /// A loaded module.
    Module(ModuleInfo),
    /// Moments of two events; `None` for one that was not reached.
    Moments(Option<Nanos>, Option<Nanos>),
    /// The status to fail with, if any.
    Fault(Option<u32>),
    /// Processes.
    Processes(Vec<ProcessInfo>),
    /// Percent of the time that a kernel, and that a copy, was running.
    Utilisation {
        /// Kernels.
        gpu: u32,
        /// Copies.
        memory: u32,
    },
    /// Utilisation by process.
    ProcessSamples(Vec<ProcessSample>),
    /// A JSON document.
    Json(String),
}
