//! Physical memory (`cuMemCreate`): charged from its creation until its last handle and its last mapping are
//! gone, because that is how long the driver keeps it. The documented idiom create, map, release would otherwise
//! free the quota and keep the memory.
//!
//! ```text
//! create ---> handles 1 --retain, import--> handles n --release--> handles 0 \
//!                 \--map, bind--> mappings m --unmap, unbind-->    mappings 0 +--> credit
//! ```
//!
//! A reference is counted before the driver is asked to make one and after it has dropped one, so that no other
//! thread can take the count to zero in between.

use std::collections::BTreeMap;

use headgate_abi::cuda::types::{CUdevice, CUdeviceptr};
use headgate_abi::segment::Charge;

use super::{Map, credit, holdings, lock};

/// Which block of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockId(u64);

struct Block {
    /// `None` for a multicast object, which takes no memory of its own but holds on to what is bound to it.
    charge: Option<Charge>,
    device: CUdevice,
    handles: u64,
    mappings: u64,
}

/// A handle that a program has, and how often it must be released.
struct Handle {
    block: BlockId,
    count: u64,
}

/// A range that keeps a block alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    start: u64,
    length: u64,
    block: BlockId,
}

/// What memory was exported as, so that this process importing it again is known to be its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shared {
    /// A descriptor, and the file behind it.
    Descriptor {
        /// Its number.
        number: i32,
        /// Device and inode.
        file: (u64, u64),
    },
    /// A fabric handle.
    Fabric([u8; 64]),
}

/// A tile of a sparse array: the array and the bytes that say which part of it.
pub(crate) type Tile = (u64, [u8; 40]);

/// Exports remembered; beyond that the oldest is forgotten, and its re-import counts as somebody else's memory.
const EXPORTS_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Blocks {
    last_id: u64,
    blocks: Map<Block>,
    handles: Map<Handle>,
    mappings: BTreeMap<CUdeviceptr, Range>,
    bindings: Vec<(BlockId, CUdevice, Range)>,
    tiles: Vec<(Tile, BlockId)>,
    exports: std::collections::VecDeque<(Shared, BlockId)>,
}

impl Blocks {
    fn add(&mut self, handle: u64, charge: Option<Charge>, device: CUdevice) {
        self.last_id += 1;
        self.blocks.insert(self.last_id, Block { charge, device, handles: 1, mappings: 0 });
        self.handles.insert(handle, Handle { block: BlockId(self.last_id), count: 1 });
    }

    fn of_handle(&self, handle: u64) -> Option<BlockId> {
        self.handles.get(&handle).map(|handle| handle.block)
    }

    fn block(&mut self, id: BlockId) -> Option<&mut Block> {
        self.blocks.get_mut(&id.0)
    }

    /// Removes a block that nothing refers to, and gives what was charged for it and for all it held on to.
    fn end_if_unused(&mut self, id: BlockId) -> Vec<Charge> {
        let mut gone = Vec::new();
        let mut ending = vec![id];
        while let Some(id) = ending.pop() {
            if self.blocks.get(&id.0).is_none_or(|block| 0 < block.handles || 0 < block.mappings) {
                continue;
            }
            gone.extend(self.blocks.remove(&id.0).and_then(|block| block.charge));
            self.exports.retain(|(_, exported)| *exported != id);
            for (_, _, bound) in self.bindings.extract_if(.., |(object, ..)| *object == id) {
                if let Some(block) = self.blocks.get_mut(&bound.block.0) {
                    block.mappings = block.mappings.saturating_sub(1);
                }
                ending.push(bound.block);
            }
        }
        gone
    }

    fn drop_mapping(&mut self, id: BlockId) -> Vec<Charge> {
        if let Some(block) = self.block(id) {
            block.mappings = block.mappings.saturating_sub(1);
        }
        self.end_if_unused(id)
    }
}

fn with<T>(work: impl FnOnce(&mut Blocks) -> T) -> T {
    work(&mut lock(&holdings().blocks))
}

fn credit_all(gone: Vec<Charge>) {
    gone.into_iter().for_each(credit);
}

/// Notes memory that the driver made.
pub(crate) fn created(handle: u64, charge: Option<Charge>, device: CUdevice) {
    with(|blocks| blocks.add(handle, charge, device));
}

/// A program gives a handle back: forgotten before the driver is called, because another thread may be given
/// the same handle as soon as it has been.
pub(crate) fn let_go(handle: u64) -> Option<BlockId> {
    with(|blocks| {
        let entry = blocks.handles.get_mut(&handle)?;
        entry.count -= 1;
        let block = entry.block;
        if entry.count == 0 {
            blocks.handles.remove(&handle);
        }
        Some(block)
    })
}

/// The driver has dropped the handle of [`let_go`].
pub(crate) fn handle_dropped(id: BlockId) {
    credit_all(with(|blocks| {
        if let Some(block) = blocks.block(id) {
            block.handles = block.handles.saturating_sub(1);
        }
        blocks.end_if_unused(id)
    }));
}

/// The driver made another handle to a block whose count `begin_handle_at` has raised, or has kept one.
pub(crate) fn handle_made(id: BlockId, handle: u64) {
    with(|blocks| blocks.handles.entry(handle).or_insert(Handle { block: id, count: 0 }).count += 1);
}

/// Another handle is about to be made to what is mapped at an address.
pub(crate) fn begin_handle_at(address: CUdeviceptr) -> Option<BlockId> {
    with(|blocks| {
        let (_, range) = blocks.mappings.range(..=address).next_back()?;
        let id = (address - range.start < range.length).then_some(range.block)?;
        blocks.block(id)?.handles += 1;
        Some(id)
    })
}

/// Another handle is about to be made by importing what this process has exported.
pub(crate) fn begin_handle_of(shared: Shared) -> Option<BlockId> {
    with(|blocks| {
        let id = blocks.exports.iter().rev().find(|(known, _)| *known == shared)?.1;
        blocks.block(id)?.handles += 1;
        Some(id)
    })
}

/// Remembers what a block was exported as.
pub(crate) fn exported(handle: u64, shared: Shared) {
    with(|blocks| {
        if let Some(id) = blocks.of_handle(handle) {
            if blocks.exports.len() == EXPORTS_MAX {
                blocks.exports.pop_front();
            }
            blocks.exports.push_back((shared, id));
        }
    });
}

/// A block is about to be mapped or bound.
pub(crate) fn begin_mapping(handle: u64) -> Option<BlockId> {
    with(|blocks| {
        let id = blocks.of_handle(handle)?;
        blocks.block(id)?.mappings += 1;
        Some(id)
    })
}

/// What is mapped at an address is about to be bound to a multicast object as well.
pub(crate) fn begin_mapping_at(address: CUdeviceptr) -> Option<BlockId> {
    let id = begin_handle_at(address)?;
    with(|blocks| {
        let block = blocks.block(id)?;
        block.handles = block.handles.saturating_sub(1);
        block.mappings += 1;
        Some(id)
    })
}

/// The driver did not map or bind it.
pub(crate) fn mapping_dropped(id: BlockId) {
    credit_all(with(|blocks| blocks.drop_mapping(id)));
}

/// The driver mapped a block.
pub(crate) fn mapped(id: BlockId, start: CUdeviceptr, length: u64) {
    with(|blocks| blocks.mappings.insert(start, Range { start, length, block: id }));
}

/// Takes the mappings inside a range that is about to be unmapped.
pub(crate) fn begin_unmap(start: CUdeviceptr, length: u64) -> Vec<Range> {
    with(|blocks| {
        let end = start.saturating_add(length);
        blocks.mappings.extract_if(start..end, |_, _| true).map(|(_, range)| range).collect()
    })
}

/// The driver has unmapped them, or has not.
pub(crate) fn end_unmap(ranges: Vec<Range>, succeeded: bool) {
    for range in ranges {
        if succeeded {
            mapping_dropped(range.block);
        } else {
            mapped(range.block, range.start, range.length);
        }
    }
}

/// The driver bound a block to a multicast object. Without an object this process knows, nothing is noted: the
/// binding then ends with the process.
pub(crate) fn bound(id: BlockId, object: u64, device: Option<CUdevice>, start: u64, length: u64) {
    with(|blocks| {
        let device = device.or_else(|| blocks.block(id).map(|block| block.device)).unwrap_or_default();
        if let Some(object) = blocks.of_handle(object) {
            blocks.bindings.push((object, device, Range { start, length, block: id }));
        }
    });
}

/// The driver has unbound what a device had bound in a range of a multicast object.
pub(crate) fn unbound(object: u64, device: CUdevice, start: u64, length: u64) {
    let end = start.saturating_add(length);
    credit_all(with(|blocks| {
        let Some(object) = blocks.of_handle(object) else { return Vec::new() };
        let inside = |(bound, on, range): &mut (BlockId, CUdevice, Range)| {
            *bound == object && *on == device && start <= range.start && range.start < end
        };
        let gone: Vec<_> = blocks.bindings.extract_if(.., inside).collect();
        gone.into_iter().flat_map(|(_, _, range)| blocks.drop_mapping(range.block)).collect()
    }));
}

/// The driver backs a tile of a sparse array with a block whose mapping was begun; what backed it before is
/// dropped.
pub(crate) fn tile_mapped(tile: Tile, id: BlockId) {
    tile_unmapped(&tile);
    with(|blocks| blocks.tiles.push((tile, id)));
}

/// Nothing backs a tile any more.
pub(crate) fn tile_unmapped(tile: &Tile) {
    drop_tiles(|known| known == tile);
}

/// The array is gone, and so is what backed it.
pub(crate) fn array_ended(array: usize) {
    drop_tiles(|(known, _)| *known == array as u64);
}

fn drop_tiles(wanted: impl Fn(&Tile) -> bool) {
    credit_all(with(|blocks| {
        let gone: Vec<_> = blocks.tiles.extract_if(.., |(tile, _)| wanted(tile)).collect();
        gone.into_iter().flat_map(|(_, id)| blocks.drop_mapping(id)).collect()
    }));
}

/// The charge of every block.
pub(super) fn each(add: &mut impl FnMut(Charge)) {
    with(|blocks| blocks.blocks.values().filter_map(|block| block.charge).for_each(add));
}
