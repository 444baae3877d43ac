//! Addresses of a process at which blocks are shown: virtual memory management, memory of other processes, nodes of
//! graphs.

use std::collections::BTreeMap;

use crate::memory::{Piece, Store};
use crate::protocol::BlockId;

/// First such address: above those of ordinary allocations.
pub const FIRST: u64 = 0xe000_0000_0000;
/// First address of allocation nodes of graphs. Each is given out once, so that no node is taken for an earlier one
/// whose memory is still on its way back.
pub const NODES: u64 = 0xf000_0000_0000;
/// Behind the last one.
pub const END: u64 = 0xffff_0000_0000;

/// What an address range shows.
#[derive(Debug)]
pub struct Mapping {
    /// Length.
    pub bytes: u64,
    /// The bytes; a multicast object has none of its own.
    pub store: Option<Store>,
    /// Offset in the store.
    pub offset: u64,
    /// Block that the mapping keeps alive.
    pub block: Option<BlockId>,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
}

/// All mappings of a process, by address.
#[derive(Debug, Default)]
pub struct Mappings {
    maps: BTreeMap<u64, Mapping>,
}

impl Mappings {
    /// Adds a mapping, unless something is there.
    pub fn add(&mut self, address: u64, mapping: Mapping) -> Result<(), Mapping> {
        let end = address.saturating_add(mapping.bytes);
        let inside = address >= FIRST && end <= END && mapping.bytes > 0;
        let before = self.maps.range(..end).next_back();
        if !inside || before.is_some_and(|(&start, known)| start + known.bytes > address) {
            return Err(mapping);
        }
        self.maps.insert(address, mapping);
        Ok(())
    }

    /// Takes out all mappings in a range; `None` when one lies across its border or there is none.
    pub fn remove(&mut self, address: u64, bytes: u64) -> Option<Vec<Mapping>> {
        let starts = self.inside(address, bytes)?;
        Some(starts.into_iter().filter_map(|start| self.maps.remove(&start)).collect())
    }

    /// Says what may be done to the mappings in a range, which must be mapped as a whole.
    pub fn allow(&mut self, address: u64, bytes: u64, read: bool, write: bool) -> Option<()> {
        let starts = self.inside(address, bytes)?;
        let mapped: u64 = starts.iter().filter_map(|start| self.maps.get(start)).map(|map| map.bytes).sum();
        if mapped != bytes {
            return None;
        }
        for start in starts {
            if let Some(map) = self.maps.get_mut(&start) {
                (map.read, map.write) = (read, write);
            }
        }
        Some(())
    }

    /// The bytes from an address to the end of its mapping, if they may be used so.
    #[must_use]
    pub fn piece(&self, address: u64, write: bool) -> Option<Piece> {
        let (&start, map) = self.maps.range(..=address).next_back()?;
        let into = address - start;
        let allowed = if write { map.write } else { map.read };
        if into >= map.bytes || !allowed {
            return None;
        }
        let offset = usize::try_from(map.offset + into).ok()?;
        Some(Piece { store: map.store.clone()?, offset, bytes: map.bytes - into })
    }

    /// Every block that a mapping keeps alive.
    pub fn drain_blocks(&mut self) -> impl Iterator<Item = BlockId> + use<> {
        std::mem::take(&mut self.maps).into_values().filter_map(|map| map.block)
    }

    /// Starts of the mappings that lie wholly in a range.
    fn inside(&self, address: u64, bytes: u64) -> Option<Vec<u64>> {
        let end = address.checked_add(bytes)?;
        let across = |(start, map): (&u64, &Mapping)| *start < address && start + map.bytes > address;
        if self.maps.range(..address).next_back().is_some_and(across) {
            return None;
        }
        let starts: Vec<u64> = self.maps.range(address..end).map(|(&start, _)| start).collect();
        let last = starts.last().and_then(|start| Some(start + self.maps.get(start)?.bytes))?;
        (last <= end).then_some(starts)
    }
}
