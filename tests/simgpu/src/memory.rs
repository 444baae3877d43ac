//! One process's memory on one device: which addresses are allocated, and the bytes behind them.
//!
//! Addresses lie above what user programs can map on any Linux, so a device pointer that a program uses on the host
//! faults there, as it should. Every process has the same range, as on real devices: an address means nothing in
//! another process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::Reservation;

/// First device address. Beyond the 47 bits of user space, within the 48 bits a GPU's pages reach.
const FIRST: u64 = 0xa000_0000_0000;
/// Distance between the ranges of two devices.
const STRIDE: u64 = 1 << 42;
/// Allocations are rounded up to this and aligned to it (the CUDA programming guide promises 256; drivers give 512).
pub const GRANULE: u64 = 512;
/// Address range of a process, as a multiple of the device's memory: room for fragmentation.
const SPREAD: u64 = 2;

/// Bytes that several address ranges, of several processes, may show.
#[derive(Clone, Debug)]
pub struct Store(Arc<Mutex<Reservation>>);

impl Store {
    /// Zeroed bytes, which cost nothing until they are touched.
    ///
    /// # Errors
    /// When the system refuses the address range.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let reservation = Reservation::new(usize::try_from(bytes).map_err(io::Error::other)?)?;
        Ok(Self(Arc::new(Mutex::new(reservation))))
    }

    /// Works on a part. The caller has checked that it lies inside.
    pub fn with<T>(&self, offset: usize, length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut self.lock().bytes_mut()[offset..offset + length])
    }

    /// Makes a part zero, which costs no memory.
    pub fn clear(&self, offset: usize, length: usize) {
        self.lock().clear(offset, length);
    }

    fn lock(&self) -> MutexGuard<'_, Reservation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the bytes behind an address are.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The store.
    pub store: Store,
    /// Offset of the address's byte in it.
    pub offset: usize,
    /// Bytes from there on that belong together.
    pub bytes: u64,
}

/// An allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// What it takes of the device: the size asked for, rounded up to [`GRANULE`].
    pub bytes: u64,
    /// The context it was made in, by the owner's own numbering.
    pub context: u32,
}

/// A process's memory on a device.
#[derive(Debug)]
pub struct AddressSpace {
    base: u64,
    backing: Store,
    live: BTreeMap<u64, Allocation>,
    /// Free ranges by address, and the same by length.
    gaps: BTreeMap<u64, u64>,
    by_length: BTreeSet<(u64, u64)>,
}

/// An address range that is not inside one allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAllocated;

impl AddressSpace {
    /// An empty space on device `device`, which has `capacity` bytes.
    ///
    /// # Errors
    /// When the system refuses the address range.
    pub fn new(device: usize, capacity: u64) -> io::Result<Self> {
        let length = capacity.next_multiple_of(GRANULE) * SPREAD;
        let backing = Store::new(length)?;
        let base = FIRST + device as u64 * STRIDE;
        Ok(Self {
            base,
            backing,
            live: BTreeMap::new(),
            gaps: BTreeMap::from([(base, length)]),
            by_length: BTreeSet::from([(length, base)]),
        })
    }

    /// Which device an address would belong to.
    #[must_use]
    pub fn device_of(address: u64) -> Option<usize> {
        usize::try_from(address.checked_sub(FIRST)? / STRIDE).ok()
    }

    /// What an allocation of `bytes` takes of the device.
    #[must_use]
    pub fn charge(bytes: u64) -> Option<u64> {
        bytes.max(1).checked_next_multiple_of(GRANULE)
    }

    /// Takes the smallest gap that fits. `None` when none does.
    pub fn allocate(&mut self, bytes: u64, context: u32) -> Option<u64> {
        let bytes = Self::charge(bytes)?;
        let &(length, address) = self.by_length.range((bytes, 0)..).next()?;
        self.remove_gap(address, length);
        if length > bytes {
            self.add_gap(address + bytes, length - bytes);
        }
        self.live.insert(address, Allocation { bytes, context });
        Some(address)
    }

    /// Gives back what [`Self::allocate`] returned.
    pub fn free(&mut self, address: u64) -> Option<Allocation> {
        let allocation = self.live.remove(&address)?;
        let (start, length) = self.range(address, allocation.bytes);
        self.backing.clear(start, length);
        let (mut from, mut to) = (address, address + allocation.bytes);
        if let Some((&before, &length)) = self.gaps.range(..from).next_back()
            && before + length == from
        {
            self.remove_gap(before, length);
            from = before;
        }
        if let Some(&length) = self.gaps.get(&to) {
            self.remove_gap(to, length);
            to += length;
        }
        self.add_gap(from, to - from);
        Some(allocation)
    }

    /// Gives back everything a context allocated, and returns how many bytes that was.
    pub fn free_context(&mut self, context: u32) -> u64 {
        let owned = self.live.iter().filter(|(_, allocation)| allocation.context == context);
        let owned: Vec<_> = owned.map(|(&address, _)| address).collect();
        owned.into_iter().filter_map(|address| self.free(address)).map(|allocation| allocation.bytes).sum()
    }

    /// Bytes allocated.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.live.values().map(|allocation| allocation.bytes).sum()
    }

    /// Whether a range lies in one allocation.
    #[must_use]
    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        self.live.range(..=address).next_back().is_some_and(|(&start, allocation)| {
            address
                .checked_add(bytes)
                .is_some_and(|end| end <= start + allocation.bytes && address < start + allocation.bytes)
        })
    }

    /// The allocation an address lies in, with its first address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(u64, Allocation)> {
        let (&start, &allocation) = self.live.range(..=address).next_back()?;
        (address < start + allocation.bytes).then_some((start, allocation))
    }

    /// The bytes from an address to the end of its allocation.
    #[must_use]
    pub fn piece(&self, address: u64) -> Option<Piece> {
        let (start, allocation) = self.find(address)?;
        let (offset, _) = self.range(address, 0);
        Some(Piece { store: self.backing.clone(), offset, bytes: start + allocation.bytes - address })
    }

    /// Works on the bytes of a range that lies in one allocation.
    ///
    /// # Errors
    /// When it does not.
    pub fn with<T>(
        &self,
        address: u64,
        bytes: u64,
        work: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, NotAllocated> {
        if !self.holds(address, bytes) {
            return Err(NotAllocated);
        }
        let (start, length) = self.range(address, bytes);
        Ok(self.backing.with(start, length, work))
    }

    /// Offset and length in the backing. Only for ranges inside the space, whose size fits a usize.
    #[expect(clippy::cast_possible_truncation, reason = "the whole backing was mapped with a usize length")]
    fn range(&self, address: u64, bytes: u64) -> (usize, usize) {
        ((address - self.base) as usize, bytes as usize)
    }

    fn add_gap(&mut self, address: u64, length: u64) {
        self.gaps.insert(address, length);
        self.by_length.insert((length, address));
    }

    fn remove_gap(&mut self, address: u64, length: u64) {
        self.gaps.remove(&address);
        self.by_length.remove(&(length, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ranges_are_checked() {
        let mut space = AddressSpace::new(0, MIB).expect("address space");
        let address = space.allocate(100, 0).expect("room");
        assert_eq!(address % GRANULE, 0);
        assert!(space.holds(address, GRANULE));
        assert!(!space.holds(address, GRANULE + 1));
        assert!(!space.holds(address - 1, 2));
        assert!(!space.holds(address + 8, u64::MAX));
        space.with(address, 4, |bytes| bytes.copy_from_slice(&[1, 2, 3, 4])).expect("inside");
        assert_eq!(space.with(address + 1, 2, |bytes| bytes.to_vec()), Ok(vec![2, 3]));
        space.free(address).expect("was live");
        assert_eq!(space.free(address), None);
        let again = space.allocate(100, 0).expect("room");
        assert_eq!(
            space.with(again, 4, |bytes| bytes.to_vec()),
            Ok(vec![0; 4]),
            "nothing leaks from one allocation to the next"
        );
    }

    #[test]
    fn devices_have_their_own_ranges() {
        let mut second = AddressSpace::new(1, MIB).expect("address space");
        let address = second.allocate(1, 0).expect("room");
        assert_eq!(AddressSpace::device_of(address), Some(1));
        assert_eq!(AddressSpace::device_of(0x7fff_0000_0000), None);
    }

    proptest! {
        #[test]
        fn allocations_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((any::<bool>(), 1_u64..40_000, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut space = AddressSpace::new(0, MIB).expect("address space");
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (allocate, bytes, pick) in steps {
                if allocate || live.is_empty() {
                    if let Some(address) = space.allocate(bytes, 1) {
                        let end = address + AddressSpace::charge(bytes).expect("small");
                        prop_assert!(live.iter().all(|&(from, to)| end <= from || to <= address));
                        live.push((address, end));
                    }
                } else {
                    let (address, end) = live.swap_remove(pick.index(live.len()));
                    prop_assert_eq!(space.free(address).map(|a| a.bytes), Some(end - address));
                }
                prop_assert_eq!(space.used(), live.iter().map(|(from, to)| to - from).sum::<u64>());
            }
            space.free_context(1);
            prop_assert_eq!(space.gaps.len(), 1);
            prop_assert_eq!(space.used(), 0);
        }
    }
}
