//! Physical blocks and their mappings, and what processes share: virtual memory management, multicast objects, imports,
//! managed memory.
//!
//! A block lives while a handle, a mapping, a binding or an exported descriptor holds it, in any process. It is charged
//! to the process that made it; when that one ends and others still hold the block, to one of those. A descriptor is the
//! write end of a pipe of which the server keeps the read end, so the server sees when its last copy is closed.

use std::collections::BTreeMap;
use std::io::PipeReader;
use std::os::fd::{AsFd, OwnedFd};

use headgate_abi::cuda::CUresult;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::node::{Answer, Node, Refusal, SessionId};
use crate::mappings::Mapping;
use crate::memory::Store;
use crate::model::Nanos;
use crate::protocol::{BlockId, Holding, Reply};

/// Physical memory that addresses can show, or a multicast object.
#[derive(Debug)]
pub(crate) struct Block {
    /// `None` for the host.
    pub(crate) device: Option<usize>,
    pub(crate) bytes: u64,
    /// Who is charged; nobody for host memory and multicast objects, or when only a descriptor holds the block.
    owner: Option<SessionId>,
    store: Option<Store>,
    handles: BTreeMap<SessionId, u32>,
    mappings: BTreeMap<SessionId, u32>,
    /// Descriptors, and multicast objects it is bound to.
    others: u32,
    /// What is bound to a multicast object, by offset.
    bound: BTreeMap<u64, BlockId>,
}

impl Block {
    fn is_multicast(&self) -> bool {
        self.store.is_none()
    }

    fn is_held(&self) -> bool {
        self.others > 0 || !self.handles.is_empty() || !self.mappings.is_empty()
    }
}

/// A descriptor that was given out.
#[derive(Debug)]
pub(crate) struct Exported {
    end: PipeReader,
    inode: u64,
    block: BlockId,
}

/// An allocation that was opened to other processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedAllocation {
    session: SessionId,
    base: u64,
    bytes: u64,
    device: usize,
}

/// Managed memory: it lies in the host's memory, and is charged as on devices whose managed memory does not move by
/// page faults (`concurrentManagedAccess` 0): wholly, from allocation to free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Managed {
    pub(crate) device: usize,
    pub(crate) context: u32,
    pub(crate) bytes: u64,
}

/// One handle, or one mapping, less.
fn count_down(counts: &mut BTreeMap<SessionId, u32>, id: SessionId) -> bool {
    let Some(count) = counts.get_mut(&id) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&id);
    }
    true
}

impl Node {
    pub(super) fn hold(&mut self, now: Nanos, id: SessionId, request: Holding) -> (Answer, Option<OwnedFd>) {
        let answered = match request {
            Holding::Export { block } => self.export(id, block).map(|file| (Reply::Done, file)),
            Holding::MakeEvent => self.make_event(id),
            Holding::OpenEvent { token } => self.open_event(id, token),
            other => return (self.hold_more(now, id, other), None),
        };
        match answered {
            Ok((reply, file)) => (Ok(reply), Some(file)),
            Err(refusal) => (Err(refusal), None),
        }
    }

    fn make_event(&mut self, id: SessionId) -> Result<(Reply, OwnedFd), Refusal> {
        let system =
            |error: std::io::Error| Refusal::new(CUresult::ERROR_OPERATING_SYSTEM, error.to_string());
        let file = crate::shared_event::create().map_err(system)?;
        let kept = file.try_clone().map_err(system)?;
        self.events_made += 1;
        self.events.insert(self.events_made, (id, kept));
        Ok((Reply::Block(self.events_made), file))
    }

    fn open_event(&mut self, id: SessionId, token: u64) -> Result<(Reply, OwnedFd), Refusal> {
        let (maker, file) = self.events.get(&token).ok_or_else(|| Refusal::value("no such event"))?;
        if *maker == id {
            let why = "a process cannot open its own event";
            return Err(Refusal::new(CUresult::ERROR_INVALID_CONTEXT, why));
        }
        let file = file.try_clone();
        let file = file.map_err(|error| Refusal::new(CUresult::ERROR_OPERATING_SYSTEM, error.to_string()))?;
        Ok((Reply::Done, file))
    }

    fn hold_more(&mut self, now: Nanos, id: SessionId, request: Holding) -> Answer {
        match request {
            Holding::Create { device, bytes } => self.create_block(now, id, device, bytes),
            Holding::CreateMulticast { bytes } => Ok(Reply::Block(self.add_block(id, None, bytes, None))),
            Holding::Retain { block } => {
                *self.block_held_by(id, block)?.handles.entry(id).or_default() += 1;
                Ok(Reply::Done)
            }
            Holding::Release { block } => {
                let known = self.blocks.get_mut(&block);
                if !known.is_some_and(|block| count_down(&mut block.handles, id)) {
                    return Err(Refusal::value("no such handle"));
                }
                self.settle_block(block);
                Ok(Reply::Done)
            }
            Holding::Export { .. } | Holding::MakeEvent | Holding::OpenEvent { .. } => {
                Err(Refusal::value("answered elsewhere, with a file"))
            }
            Holding::EndEvent { token } => {
                self.events.retain(|&known, (maker, _)| known != token || *maker != id);
                Ok(Reply::Done)
            }
            Holding::Import { inode } => self.import(id, inode),
            Holding::Map { address, bytes, block, offset } => self.map(id, address, bytes, block, offset),
            Holding::Unmap { address, bytes } => {
                let gone = self.session(id)?.mappings.remove(address, bytes);
                let gone = gone.ok_or_else(|| Refusal::value("not a range of whole mappings"))?;
                for block in gone.into_iter().filter_map(|map| map.block) {
                    self.unmapped(id, block);
                }
                Ok(Reply::Done)
            }
            Holding::Access { address, bytes, read, write } => {
                let allowed = self.session(id)?.mappings.allow(address, bytes, read, write);
                allowed.map(|()| Reply::Done).ok_or_else(|| Refusal::value("not mapped as a whole"))
            }
            Holding::Bind { multicast, offset, block } => self.bind(multicast, offset, block),
            Holding::Unbind { multicast, offset } => {
                let bound = self.blocks.get_mut(&multicast).and_then(|known| known.bound.remove(&offset));
                self.let_go(bound.ok_or_else(|| Refusal::value("nothing is bound there"))?);
                Ok(Reply::Done)
            }
            Holding::Share { address } => self.share(id, address),
            Holding::Open { token, address } => self.open_shared(id, token, address),
            Holding::TakeManaged { context, address, bytes } => {
                let owner = self.session(id)?.contexts.get(&context).map(|context| context.device);
                let device = owner.ok_or_else(|| Refusal::handle("no such context"))?;
                self.take(now, id, device, bytes, "allocate_managed")?;
                let session = self.session(id)?;
                session.managed.insert(address, Managed { device, context, bytes });
                session.pinned.insert(address, bytes);
                Ok(Reply::Done)
            }
            Holding::ReturnManaged { address } => {
                let session = self.session(id)?;
                let managed = session.managed.remove(&address);
                session.pinned.remove(&address);
                let managed = managed.ok_or_else(|| Refusal::value("no managed memory"))?;
                self.release(id, managed.device, managed.bytes);
                Ok(Reply::Done)
            }
            pools => self.serve_pool(now, id, pools),
        }
    }

    fn create_block(&mut self, now: Nanos, id: SessionId, device: Option<u32>, bytes: u64) -> Answer {
        let store = |node: &mut Self| {
            Store::new(bytes).map_err(|error| {
                if let Some(device) = device {
                    node.release(id, device as usize, bytes);
                }
                Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, error.to_string())
            })
        };
        if bytes == 0 {
            return Err(Refusal::value("a block has bytes"));
        }
        if let Some(device) = device {
            self.device(device)?;
            self.take(now, id, device as usize, bytes, "create")?;
        }
        let store = store(self)?;
        let device = device.map(|device| device as usize);
        Ok(Reply::Block(self.add_block(id, device, bytes, Some(store))))
    }

    pub(super) fn add_block(
        &mut self,
        id: SessionId,
        device: Option<usize>,
        bytes: u64,
        store: Option<Store>,
    ) -> BlockId {
        self.blocks_made += 1;
        let block = Block {
            device,
            bytes,
            owner: device.map(|_| id),
            store,
            handles: BTreeMap::from([(id, 1)]),
            mappings: BTreeMap::new(),
            others: 0,
            bound: BTreeMap::new(),
        };
        self.blocks.insert(self.blocks_made, block);
        self.blocks_made
    }

    /// A block that a process has a handle of, or shows.
    /// Whether others see some of a session's memory as well, or a device sees some of the host's as if it were its own: no
    /// checkpoint can take such memory away.
    pub(super) fn is_entangled(&self, id: SessionId) -> bool {
        let seen = |block: &Block| {
            let its = block.handles.contains_key(&id) || block.mappings.contains_key(&id);
            its && (block.others > 0
                || block.handles.keys().chain(block.mappings.keys()).any(|&who| who != id))
        };
        let session = self.sessions.get(&id);
        session.is_some_and(|session| session.mps.is_some() || !session.managed.is_empty())
            || self.blocks.values().any(seen)
            || self.shared.values().any(|shared| shared.session == id)
    }

    fn block_held_by(&mut self, id: SessionId, block: BlockId) -> Result<&mut Block, Refusal> {
        let known = self.blocks.get_mut(&block);
        known
            .filter(|block| block.handles.contains_key(&id) || block.mappings.contains_key(&id))
            .ok_or_else(|| Refusal::value("no such handle"))
    }

    fn map(&mut self, id: SessionId, address: u64, bytes: u64, number: BlockId, offset: u64) -> Answer {
        let block = self.block_held_by(id, number)?;
        if offset.checked_add(bytes).is_none_or(|end| end > block.bytes) {
            return Err(Refusal::value("beyond the end of the block"));
        }
        let store = block.store.clone();
        let mapping = Mapping { bytes, store, offset, block: Some(number), read: false, write: false };
        if self.session(id)?.mappings.add(address, mapping).is_err() {
            return Err(Refusal::value("something is mapped there"));
        }
        if let Some(block) = self.blocks.get_mut(&number) {
            *block.mappings.entry(id).or_default() += 1;
        }
        Ok(Reply::Done)
    }

    fn unmapped(&mut self, id: SessionId, number: BlockId) {
        if let Some(block) = self.blocks.get_mut(&number) {
            count_down(&mut block.mappings, id);
        }
        self.settle_block(number);
    }

    fn bind(&mut self, multicast: BlockId, offset: u64, number: BlockId) -> Answer {
        let wrong = || Refusal::value("not inside the multicast object, or something is bound there");
        let bytes = self.blocks.get(&number).filter(|block| !block.is_multicast()).map(|block| block.bytes);
        let bytes = bytes.ok_or_else(wrong)?;
        let sizes: BTreeMap<BlockId, u64> =
            self.blocks.iter().map(|(&id, block)| (id, block.bytes)).collect();
        let object =
            self.blocks.get_mut(&multicast).filter(|block| block.is_multicast()).ok_or_else(wrong)?;
        let end = offset.checked_add(bytes).filter(|&end| end <= object.bytes).ok_or_else(wrong)?;
        let overlaps = object
            .bound
            .iter()
            .any(|(&at, block)| at < end && offset < at + sizes.get(block).copied().unwrap_or(0));
        if overlaps {
            return Err(wrong());
        }
        object.bound.insert(offset, number);
        if let Some(block) = self.blocks.get_mut(&number) {
            block.others += 1;
        }
        Ok(Reply::Done)
    }

    /// A descriptor or a binding less.
    fn let_go(&mut self, number: BlockId) {
        if let Some(block) = self.blocks.get_mut(&number) {
            block.others -= 1;
        }
        self.settle_block(number);
    }

    /// Frees a block that nobody holds, or finds another to charge where its owner no longer does.
    fn settle_block(&mut self, number: BlockId) {
        let Some(block) = self.blocks.get(&number) else { return };
        if block.is_held() {
            return;
        }
        let Some(block) = self.blocks.remove(&number) else { return };
        if let Some(device) = block.device {
            self.uncharge(block.owner, device, block.bytes);
        }
        for bound in block.bound.into_values() {
            self.let_go(bound);
        }
    }

    fn export(&mut self, id: SessionId, number: BlockId) -> Result<OwnedFd, Refusal> {
        let system =
            |error: &dyn std::fmt::Display| Refusal::new(CUresult::ERROR_OPERATING_SYSTEM, error.to_string());
        let block = self.block_held_by(id, number)?;
        let (end, given) = std::io::pipe().map_err(|error| system(&error))?;
        let inode = nix::sys::stat::fstat(&given).map_err(|error| system(&error))?.st_ino;
        block.others += 1;
        self.exports.push(Exported { end, inode, block: number });
        Ok(given.into())
    }

    fn import(&mut self, id: SessionId, inode: u64) -> Answer {
        let known = self.exports.iter().find(|exported| exported.inode == inode).map(|known| known.block);
        let number = known.ok_or_else(|| Refusal::value("the descriptor names no exported memory"))?;
        let block = self.blocks.get_mut(&number).ok_or_else(|| Refusal::value("the memory is gone"))?;
        *block.handles.entry(id).or_default() += 1;
        let device = block.device.and_then(|device| u32::try_from(device).ok());
        let (bytes, multicast) = (block.bytes, block.is_multicast());
        Ok(Reply::Imported { block: number, bytes, device, multicast })
    }

    /// Notices descriptors whose last copy was closed. What was sent before still counts as held.
    pub(super) fn reap_exports(&mut self) {
        let hung_up = |exported: &Exported| {
            let mut fds = [PollFd::new(exported.end.as_fd(), PollFlags::POLLIN)];
            // An end that cannot be asked counts as open; its block is freed with the server.
            poll(&mut fds, PollTimeout::ZERO).is_ok()
                && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
        };
        let (gone, open) = std::mem::take(&mut self.exports).into_iter().partition(|known| hung_up(known));
        self.exports = open;
        let gone: Vec<Exported> = gone;
        for exported in gone {
            self.let_go(exported.block);
        }
    }

    fn share(&mut self, id: SessionId, address: u64) -> Answer {
        let session = self.session(id)?;
        let device = crate::memory::AddressSpace::device_of(address);
        let found = session
            .find_pooled(address)
            .or_else(|| session.space_of(address)?.find(address).map(|(base, found)| (base, found.bytes)));
        let (Some((base, bytes)), Some(device)) = (found, device) else {
            return Err(Refusal::value("not an allocation that can be shared"));
        };
        let told = u32::try_from(device).unwrap_or(u32::MAX);
        let shared = SharedAllocation { session: id, base, bytes, device };
        let known = self.shared.iter().find(|(_, known)| known.session == id && known.base == base);
        let token = known.map_or(self.shared_made + 1, |(&token, _)| token);
        self.shared_made = self.shared_made.max(token);
        self.shared.insert(token, shared);
        Ok(Reply::Shared { token, base, bytes, device: told })
    }

    /// The importer pays nothing: the memory is the exporter's, and goes when the exporter frees it or ends.
    fn open_shared(&mut self, id: SessionId, token: u64, address: u64) -> Answer {
        let shared =
            self.shared.get(&token).copied().ok_or_else(|| Refusal::value("nothing is shared so"))?;
        if shared.session == id {
            return Err(Refusal::new(
                CUresult::ERROR_INVALID_CONTEXT,
                "a process cannot open its own memory",
            ));
        }
        let piece = self.session(shared.session)?.piece(shared.base, false);
        let piece = piece.ok_or_else(|| Refusal::new(CUresult::ERROR_MAP_FAILED, "the memory is gone"))?;
        let mapping = Mapping {
            bytes: shared.bytes,
            store: Some(piece.store),
            offset: piece.offset as u64,
            block: None,
            read: true,
            write: true,
        };
        if self.session(id)?.mappings.add(address, mapping).is_err() {
            return Err(Refusal::value("something is mapped there"));
        }
        let device = u32::try_from(shared.device).unwrap_or(u32::MAX);
        Ok(Reply::Shared { token, base: shared.base, bytes: shared.bytes, device })
    }

    /// Ends all that a process holds. Blocks that others hold live on, charged to one of those.
    pub(super) fn drop_holdings(&mut self, id: SessionId) {
        if let Ok(session) = self.session(id) {
            drop(session.mappings.drain_blocks());
        }
        self.shared.retain(|_, shared| shared.session != id);
        self.events.retain(|_, (maker, _)| *maker != id);
        let numbers: Vec<BlockId> = self.blocks.keys().copied().collect();
        for number in numbers {
            let Some(block) = self.blocks.get_mut(&number) else { continue };
            block.handles.remove(&id);
            block.mappings.remove(&id);
            if block.owner == Some(id) && block.is_held() {
                let heir = block.handles.keys().chain(block.mappings.keys()).next().copied();
                block.owner = heir;
                let (device, bytes) = (block.device, block.bytes);
                if let Some(device) = device {
                    self.uncharge(Some(id), device, bytes);
                    self.charge_to(heir, device, bytes);
                }
            }
            self.settle_block(number);
        }
    }
}
