//! Pools and the memory of graphs, and limits of control groups.

use headgate_abi::cuda::CUresult;

use super::node::{Answer, GroupLimit, Node, Refusal, SessionId};
use crate::limits::CONTEXTS_MAX;
use crate::mappings::Mapping;
use crate::memory::Store;
use crate::model::Nanos;
use crate::pool::Pool;
use crate::protocol::{Holding, PoolFigure, PoolId, Reply};

/// The context number under which a pool's segments stand in an address space: no context's, so that none takes them
/// along when it ends.
#[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
const POOLS: u32 = CONTEXTS_MAX as u32 + 1;

/// A pool and where it takes its memory from.
#[derive(Debug)]
pub(crate) struct PoolBook {
    pub(crate) device: usize,
    pub(crate) pool: Pool,
    /// Destroyed by the program, while allocations are still in use.
    ending: bool,
}

impl PoolBook {
    pub(crate) fn new(device: usize, granule: u64, most: u64) -> Self {
        Self { device, pool: Pool::new(granule, most), ending: false }
    }
}

/// Memory of an allocation node. It stays with the process until the graphs are trimmed and nobody uses it; when its
/// graph is gone, it serves other graphs.
#[derive(Debug)]
pub(crate) struct GraphNode {
    pub(crate) device: usize,
    pub(crate) bytes: u64,
    /// Allocated and not freed, as the stream sees it.
    in_use: bool,
    /// Launches handed in that have yet to come to it.
    pending: u32,
    /// A graph may run it.
    wanted: bool,
}

impl GraphNode {
    fn is_idle(&self) -> bool {
        !self.in_use && self.pending == 0
    }
}

/// High-water marks of a device's graph memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GraphMarks {
    reserved: u64,
    used: u64,
}

impl Node {
    #[expect(clippy::too_many_lines, reason = "one arm a request, each a few lines")]
    pub(super) fn serve_pool(&mut self, now: Nanos, id: SessionId, request: Holding) -> Answer {
        let granule = self.config.pool_granule_bytes;
        match request {
            Holding::MakePool { device, most } => {
                self.device(device)?;
                let session = self.session(id)?;
                let number = session.pools_made;
                session.pools_made += 1;
                session.pools.insert(number, PoolBook::new(device as usize, granule, most));
                Ok(Reply::Block(number.into()))
            }
            Holding::EndPool { pool } => {
                self.pool(id, pool)?.ending = true;
                self.give_back(id, pool, 0)?;
                self.end_if_empty(id, pool);
                Ok(Reply::Done)
            }
            Holding::PoolAllocate { pool, bytes, slot } => self.pool_allocate(now, id, pool, bytes, slot),
            Holding::AskPool { pool, figure } => {
                let pool = &self.pool(id, pool)?.pool;
                Ok(Reply::Value(match figure {
                    PoolFigure::Threshold => pool.threshold(),
                    PoolFigure::Reserved => pool.reserved(),
                    PoolFigure::ReservedHigh => pool.reserved_high(),
                    PoolFigure::Used => pool.used(),
                    PoolFigure::UsedHigh => pool.used_high(),
                }))
            }
            Holding::SetPool { pool, figure, value } => {
                let pool = &mut self.pool(id, pool)?.pool;
                match figure {
                    PoolFigure::Threshold => pool.set_threshold(value),
                    PoolFigure::ReservedHigh if value == 0 => pool.reset_reserved_high(),
                    PoolFigure::UsedHigh if value == 0 => pool.reset_used_high(),
                    _ => return Err(Refusal::value("a mark can only be reset, to 0")),
                }
                Ok(Reply::Done)
            }
            Holding::TrimPool { pool, keep } => self.give_back(id, pool, keep).map(|()| Reply::Done),
            Holding::Synchronised => {
                let known = self.session(id)?.pools.iter();
                let thresholds: Vec<(PoolId, u64)> =
                    known.map(|(&number, book)| (number, book.pool.threshold())).collect();
                for (pool, threshold) in thresholds {
                    self.give_back(id, pool, threshold)?;
                }
                Ok(Reply::Done)
            }
            Holding::BackGraph { device, nodes, launch } => self.back_graph(now, id, device, &nodes, launch),
            Holding::DropGraph { nodes } => {
                let session = self.session(id)?;
                for address in nodes {
                    if let Some(node) = session.graph_nodes.get_mut(&address) {
                        node.wanted = false;
                        session.retire_graph_node(address);
                    }
                }
                Ok(Reply::Done)
            }
            Holding::TrimGraphs { device } => {
                self.device(device)?;
                // What executable graphs may run again goes, too: they get memory anew at their next launch.
                self.drop_graph_nodes(id, |_, node| node.device == device as usize && node.is_idle())?;
                self.drop_graph_spare(id, device as usize)?;
                Ok(Reply::Done)
            }
            Holding::AskGraphs { device, figure } => {
                self.device(device)?;
                let session = self.session(id)?;
                let (reserved, used) = session.graph_bytes(device as usize);
                let marks = session.graph_marks.get(&(device as usize)).copied().unwrap_or_default();
                Ok(Reply::Value(match figure {
                    PoolFigure::Reserved => reserved,
                    PoolFigure::ReservedHigh => marks.reserved,
                    PoolFigure::Used => used,
                    PoolFigure::UsedHigh => marks.used,
                    PoolFigure::Threshold => return Err(Refusal::value("graph memory has no threshold")),
                }))
            }
            Holding::ResetGraphs { device, figure } => {
                self.device(device)?;
                let session = self.session(id)?;
                let (reserved, used) = session.graph_bytes(device as usize);
                let marks = session.graph_marks.entry(device as usize).or_default();
                match figure {
                    PoolFigure::ReservedHigh => marks.reserved = reserved,
                    PoolFigure::UsedHigh => marks.used = used,
                    _ => return Err(Refusal::value("only a mark can be reset")),
                }
                Ok(Reply::Done)
            }
            Holding::SetLimits { device, group, soft, hard } => self.set_limits(device, group, soft, hard),
            Holding::AskLimits { device, group } => self.ask_limits(device, &group),
            other => Err(Refusal::value(format!("{other:?} is no request about pools"))),
        }
    }

    fn pool(&mut self, id: SessionId, pool: PoolId) -> Result<&mut PoolBook, Refusal> {
        self.session(id)?.pools.get_mut(&pool).ok_or_else(|| Refusal::value("no such pool"))
    }

    fn pool_allocate(&mut self, now: Nanos, id: SessionId, pool: PoolId, bytes: u64, slot: u32) -> Answer {
        let book = self.pool(id, pool)?;
        if book.ending {
            return Err(Refusal::value("the pool was destroyed"));
        }
        let device = book.device;
        let address = match book.pool.take(bytes, slot) {
            Some(address) => address,
            None => {
                let growth = book.pool.growth(bytes);
                let refused = || Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "the pool is full");
                let growth = growth.ok_or_else(refused)?;
                // Before it refuses, the driver gives back what other pools of the process hold and do not use.
                if !self.has_room(id, device, growth) {
                    let others: Vec<PoolId> = self.session(id)?.pools.keys().copied().collect();
                    for other in others {
                        self.give_back(id, other, 0)?;
                    }
                }
                self.take(now, id, device, growth, "grow_pool")?;
                let space = self.session(id)?.use_of[device].space.as_mut();
                let Some(segment) = space.and_then(|space| space.allocate(growth, POOLS)) else {
                    self.release(id, device, growth);
                    return Err(refused());
                };
                let book = self.pool(id, pool)?;
                book.pool.grow(segment, growth);
                book.pool.take(bytes, slot).ok_or_else(refused)?
            }
        };
        self.log(now, id, "allocate_from_pool", None, Some(bytes), CUresult::SUCCESS);
        Ok(Reply::Address(address))
    }

    /// Gives unused segments back until at most `keep` bytes are held.
    fn give_back(&mut self, id: SessionId, pool: PoolId, keep: u64) -> Result<(), Refusal> {
        let book = self.pool(id, pool)?;
        let device = book.device;
        let segments = book.pool.trim(keep);
        self.free_segments(id, device, segments)
    }

    fn free_segments(
        &mut self,
        id: SessionId,
        device: usize,
        segments: Vec<(u64, u64)>,
    ) -> Result<(), Refusal> {
        for (address, bytes) in segments {
            let space = self.session(id)?.use_of[device].space.as_mut();
            if space.and_then(|space| space.free(address)).is_some() {
                self.release(id, device, bytes);
            }
        }
        Ok(())
    }

    fn end_if_empty(&mut self, id: SessionId, pool: PoolId) {
        if let Ok(session) = self.session(id)
            && session.pools.get(&pool).is_some_and(|book| book.ending && book.pool.reserved() == 0)
        {
            session.pools.remove(&pool);
        }
    }

    /// An allocation of a pool was freed in a stream. Returns whether it was one.
    pub(super) fn leave_pool(&mut self, id: SessionId, address: u64, slot: u32) -> bool {
        let Ok(session) = self.session(id) else { return false };
        session.pools.values_mut().any(|book| book.pool.leave(address, slot))
    }

    /// A stream has come to such a free.
    pub(super) fn leave_pool_for_good(&mut self, id: SessionId, address: u64) {
        let Ok(session) = self.session(id) else { return };
        for book in session.pools.values_mut() {
            book.pool.left(address);
        }
        let ending = session.pools.iter().filter(|(_, book)| book.ending).map(|(&number, _)| number);
        let ending: Vec<PoolId> = ending.collect();
        for pool in ending {
            // Nothing can be refused to a pool that is known to be there.
            if self.give_back(id, pool, 0).is_ok() {
                self.end_if_empty(id, pool);
            }
        }
    }

    /// Ends everything of pools and graphs on a device whose last context has ended.
    pub(super) fn drop_pools(&mut self, id: SessionId, device: usize) {
        let Ok(session) = self.session(id) else { return };
        let books = session.pools.values_mut().filter(|book| book.device == device);
        let segments: Vec<(u64, u64)> = books.flat_map(|book| book.pool.drain()).collect();
        let done = self
            .free_segments(id, device, segments)
            .and_then(|()| self.drop_graph_nodes(id, |_, node| node.device == device))
            .and_then(|()| self.drop_graph_spare(id, device));
        debug_assert!(done.is_ok(), "the session is there");
    }

    /// Addresses come from the client, which reserves them when the node is made. What graphs that are gone have left
    /// behind is used first; before it refuses, the driver takes memory from graphs that do not run now.
    fn back_graph(
        &mut self,
        now: Nanos,
        id: SessionId,
        device: u32,
        nodes: &[(u64, u64)],
        launch: bool,
    ) -> Answer {
        self.device(device)?;
        let device = device as usize;
        let granule = self.config.pool_granule_bytes;
        let session = self.session(id)?;
        let missing: Vec<(u64, u64)> = nodes
            .iter()
            .filter(|(address, _)| !session.graph_nodes.contains_key(address))
            .map(|&(address, bytes)| (address, bytes.max(1).next_multiple_of(granule)))
            .collect();
        let spare = session.graph_spare.get(&device).copied().unwrap_or(0);
        let needed: u64 = missing.iter().map(|(_, bytes)| bytes).sum();
        let used = spare.min(needed);
        if !self.has_room(id, device, needed - used) {
            let is_ours = |address: u64| nodes.iter().any(|&(own, _)| own == address);
            self.drop_graph_nodes(id, |address, node| {
                node.device == device && node.is_idle() && !is_ours(address)
            })?;
        }
        let stores: Vec<Store> = missing
            .iter()
            .map(|&(_, bytes)| Store::new(bytes))
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, error.to_string()))?;
        self.take(now, id, device, needed - used, "back_graph")?;
        let session = self.session(id)?;
        *session.graph_spare.entry(device).or_default() -= used;
        for ((address, bytes), store) in missing.into_iter().zip(stores) {
            let mapping =
                Mapping { bytes, store: Some(store), offset: 0, block: None, read: true, write: true };
            let session = self.session(id)?;
            if session.mappings.add(address, mapping).is_err() {
                self.release(id, device, bytes);
                return Err(Refusal::value("something is mapped there"));
            }
            let node = GraphNode { device, bytes, in_use: false, pending: 0, wanted: true };
            session.graph_nodes.insert(address, node);
        }
        let session = self.session(id)?;
        for (address, _) in nodes {
            if let Some(node) = session.graph_nodes.get_mut(address) {
                node.wanted = true;
                node.pending += u32::from(launch);
            }
        }
        session.mark_graphs(device);
        Ok(Reply::Done)
    }

    /// An allocation or free node was reached.
    pub(super) fn use_graph_node(
        &mut self,
        id: SessionId,
        address: u64,
        in_use: bool,
    ) -> Result<(), CUresult> {
        let session = self.sessions.get_mut(&id).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        let node = session.graph_nodes.get_mut(&address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        node.in_use = in_use;
        if in_use {
            node.pending = node.pending.saturating_sub(1);
        }
        let device = node.device;
        session.mark_graphs(device);
        session.retire_graph_node(address);
        Ok(())
    }

    fn drop_graph_spare(&mut self, id: SessionId, device: usize) -> Result<(), Refusal> {
        let spare = self.session(id)?.graph_spare.remove(&device).unwrap_or(0);
        self.release(id, device, spare);
        Ok(())
    }

    fn drop_graph_nodes(
        &mut self,
        id: SessionId,
        which: impl Fn(u64, &GraphNode) -> bool,
    ) -> Result<(), Refusal> {
        let session = self.session(id)?;
        let gone = session.graph_nodes.iter().filter(|(address, node)| which(**address, node));
        let gone: Vec<(u64, usize, u64)> =
            gone.map(|(&address, node)| (address, node.device, node.bytes)).collect();
        for (address, device, bytes) in gone {
            let session = self.session(id)?;
            session.graph_nodes.remove(&address);
            drop(session.mappings.remove(address, bytes));
            self.release(id, device, bytes);
        }
        Ok(())
    }

    fn set_limits(&mut self, device: u32, group: String, soft: u64, hard: u64) -> Answer {
        self.device(device)?;
        if !self.config.group_limits {
            return Err(Refusal::new(CUresult::ERROR_NOT_SUPPORTED, "the driver is older than r615"));
        }
        if soft > hard {
            return Err(Refusal::value("the soft limit is above the hard one"));
        }
        let key = (device as usize, group);
        if soft == 0 && hard == u64::MAX {
            self.group_limits.remove(&key);
        } else {
            self.group_limits.insert(key, GroupLimit { soft, hard });
        }
        Ok(Reply::Done)
    }

    fn ask_limits(&mut self, device: u32, group: &str) -> Answer {
        self.device(device)?;
        if !self.config.group_limits {
            return Err(Refusal::new(CUresult::ERROR_NOT_SUPPORTED, "the driver is older than r615"));
        }
        let limit = self.group_limits.get(&(device as usize, group.to_owned())).copied();
        let limit = limit.ok_or_else(|| Refusal::new(CUresult::ERROR_NOT_FOUND, "no limit is set"))?;
        let used = self.group_bytes(device as usize, group);
        Ok(Reply::Limits { soft: limit.soft, hard: limit.hard, used })
    }
}

impl super::session::Session {
    /// The allocation of a pool that an address lies in.
    pub(super) fn find_pooled(&self, address: u64) -> Option<(u64, u64)> {
        self.pools.values().find_map(|book| book.pool.find(address))
    }

    /// Bytes of graph memory held and in use.
    fn graph_bytes(&self, device: usize) -> (u64, u64) {
        let of = |used: bool| {
            let nodes = self.graph_nodes.values().filter(|node| node.device == device);
            nodes.filter(|node| !used || node.in_use).map(|node| node.bytes).sum::<u64>()
        };
        let spare = self.graph_spare.get(&device).copied().unwrap_or(0);
        (of(false) + spare, of(true))
    }

    /// Leaves the memory of a node that no graph has any more, and that nobody uses, to other graphs.
    fn retire_graph_node(&mut self, address: u64) {
        let Some(node) = self.graph_nodes.get(&address).filter(|node| !node.wanted && node.is_idle()) else {
            return;
        };
        let (device, bytes) = (node.device, node.bytes);
        self.graph_nodes.remove(&address);
        drop(self.mappings.remove(address, bytes));
        *self.graph_spare.entry(device).or_default() += bytes;
    }

    fn mark_graphs(&mut self, device: usize) {
        let (reserved, used) = self.graph_bytes(device);
        let marks = self.graph_marks.entry(device).or_default();
        marks.reserved = marks.reserved.max(reserved);
        marks.used = marks.used.max(used);
    }
}
