//! Memory that is more than an address: physical blocks and their mappings, pools, memory of graphs and of managed
//! allocations, and what processes share.

use serde::{Deserialize, Serialize};

/// A physical block or a multicast object of the node.
pub type BlockId = u64;
/// A pool of one process. The first ones, by device, are the default pools.
pub type PoolId = u32;

/// A request about such memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Holding {
    /// Physical memory, held by one handle. Answered by [`super::Reply::Block`].
    Create {
        /// Device, `None` for the host.
        device: Option<u32>,
        /// Bytes, a multiple of the granularity.
        bytes: u64,
    },
    /// A multicast object. It takes no memory.
    CreateMulticast {
        /// Bytes that may be bound.
        bytes: u64,
    },
    /// Another handle.
    Retain {
        /// Of this block.
        block: BlockId,
    },
    /// One handle less. The block lives on while it is mapped, bound or exported.
    Release {
        /// Of this block.
        block: BlockId,
    },
    /// A file descriptor that keeps the block alive; it comes with the reply.
    Export {
        /// Block.
        block: BlockId,
    },
    /// A handle from such a descriptor. Answered by [`super::Reply::Imported`].
    Import {
        /// The descriptor's inode.
        inode: u64,
    },
    /// Show a block at an address.
    Map {
        /// Where.
        address: u64,
        /// How much.
        bytes: u64,
        /// Of what.
        block: BlockId,
        /// From where on.
        offset: u64,
    },
    /// Take away every mapping in a range.
    Unmap {
        /// First address.
        address: u64,
        /// Length.
        bytes: u64,
    },
    /// What may be done to the mappings in a range.
    Access {
        /// First address.
        address: u64,
        /// Length.
        bytes: u64,
        /// Whether it may be read.
        read: bool,
        /// Whether it may be written.
        write: bool,
    },
    /// Bind memory to a multicast object.
    Bind {
        /// Object.
        multicast: BlockId,
        /// Where in the object.
        offset: u64,
        /// Memory.
        block: BlockId,
    },
    /// Take away what is bound at an offset.
    Unbind {
        /// Object.
        multicast: BlockId,
        /// Where in the object.
        offset: u64,
    },
    /// Let other processes open an allocation. Answered by [`super::Reply::Shared`].
    Share {
        /// Any address in it.
        address: u64,
    },
    /// Show another process's allocation. Answered by [`super::Reply::Shared`].
    Open {
        /// What [`super::Reply::Shared`] said there.
        token: u64,
        /// Where.
        address: u64,
    },
    /// An event for several processes. Answered by [`super::Reply::Block`] with its token; its file comes along.
    MakeEvent,
    /// The file of another process's event.
    OpenEvent {
        /// Its token.
        token: u64,
    },
    /// The maker of an event has destroyed it.
    EndEvent {
        /// Its token.
        token: u64,
    },
    /// Charge managed memory, which lies in the host's memory.
    TakeManaged {
        /// Context.
        context: u32,
        /// Address.
        address: u64,
        /// Bytes.
        bytes: u64,
    },
    /// Give managed memory back.
    ReturnManaged {
        /// Address.
        address: u64,
    },
    /// A pool. Answered by [`super::Reply::Block`].
    MakePool {
        /// Device.
        device: u32,
        /// Most bytes, 0 for no limit.
        most: u64,
    },
    /// End a pool once its last allocation is gone.
    EndPool {
        /// Pool.
        pool: PoolId,
    },
    /// Allocate from a pool. Answered by [`super::Reply::Address`].
    PoolAllocate {
        /// Pool.
        pool: PoolId,
        /// Bytes.
        bytes: u64,
        /// Stream in whose order the memory is taken.
        slot: u32,
    },
    /// Ask a pool. Answered by [`super::Reply::Value`].
    AskPool {
        /// Pool.
        pool: PoolId,
        /// What.
        figure: PoolFigure,
    },
    /// Set the bytes a pool may keep, or reset a high-water mark.
    SetPool {
        /// Pool.
        pool: PoolId,
        /// What.
        figure: PoolFigure,
        /// To what.
        value: u64,
    },
    /// Give unused memory of a pool back until it holds at most `keep` bytes.
    TrimPool {
        /// Pool.
        pool: PoolId,
        /// Bytes to keep.
        keep: u64,
    },
    /// The program has waited for the device: pools give back what they hold beyond their thresholds.
    Synchronised,
    /// Give memory to the allocation nodes of a graph that is about to run.
    BackGraph {
        /// Device.
        device: u32,
        /// Address and size of each node.
        nodes: Vec<(u64, u64)>,
        /// Whether a launch follows that comes to each of them.
        launch: bool,
    },
    /// Nodes that no graph has any more.
    DropGraph {
        /// Their addresses.
        nodes: Vec<u64>,
    },
    /// Give back graph memory that nobody uses.
    TrimGraphs {
        /// Device.
        device: u32,
    },
    /// Ask about graph memory. Answered by [`super::Reply::Value`].
    AskGraphs {
        /// Device.
        device: u32,
        /// What.
        figure: PoolFigure,
    },
    /// Reset a high-water mark of graph memory.
    ResetGraphs {
        /// Device.
        device: u32,
        /// Which.
        figure: PoolFigure,
    },
    /// Limits of a control group on a device.
    SetLimits {
        /// Device.
        device: u32,
        /// Path of the group.
        group: String,
        /// Bytes guaranteed.
        soft: u64,
        /// Most bytes.
        hard: u64,
    },
    /// Ask for them. Answered by [`super::Reply::Limits`].
    AskLimits {
        /// Device.
        device: u32,
        /// Path of the group.
        group: String,
    },
}

/// A figure of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PoolFigure {
    /// Bytes it may keep over a synchronisation.
    Threshold,
    /// Bytes it holds.
    Reserved,
    /// Most of that since it was reset.
    ReservedHigh,
    /// Bytes in use.
    Used,
    /// Most of that since it was reset.
    UsedHigh,
}
