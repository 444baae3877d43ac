//! A memory pool's books (CUDA driver API, "Stream Ordered Memory Allocator"): what it holds of the device, what of
//! that is in use, and what it gives back when.
//!
//! A pool holds *segments* of device memory, whole multiples of a granule, and hands out parts of them. What is freed
//! stays with the pool until a synchronisation finds it holding more than its release threshold, or it is trimmed; only
//! segments with nothing in use can go. Memory freed in a stream may be taken again in the same stream at once, by an
//! allocation of the same size, because the stream keeps the two in order; elsewhere once the free has been reached.

use std::collections::BTreeMap;

use crate::memory::GRANULE;

/// A part of a pool that was freed in a stream which has not come to the free.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    bytes: u64,
    slot: u32,
    /// Frees of this address that the stream has yet to come to.
    pending: u32,
}

/// A pool.
#[derive(Debug)]
pub struct Pool {
    granule: u64,
    /// Most bytes it may hold, 0 for no limit.
    most: u64,
    threshold: u64,
    segments: BTreeMap<u64, u64>,
    live: BTreeMap<u64, u64>,
    leaving: BTreeMap<u64, Leaving>,
    /// Frees still to come for addresses that have been taken again meanwhile.
    overtaken: BTreeMap<u64, u32>,
    gaps: BTreeMap<u64, u64>,
    reserved: u64,
    reserved_high: u64,
    used: u64,
    used_high: u64,
}

impl Pool {
    /// An empty pool that grows by multiples of `granule`.
    #[must_use]
    pub fn new(granule: u64, most: u64) -> Self {
        Self {
            granule: granule.max(GRANULE),
            most,
            threshold: 0,
            segments: BTreeMap::new(),
            live: BTreeMap::new(),
            leaving: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            gaps: BTreeMap::new(),
            reserved: 0,
            reserved_high: 0,
            used: 0,
            used_high: 0,
        }
    }

    /// Bytes held of the device.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Most bytes held since the mark was reset.
    #[must_use]
    pub fn reserved_high(&self) -> u64 {
        self.reserved_high
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Most bytes in use since the mark was reset.
    #[must_use]
    pub fn used_high(&self) -> u64 {
        self.used_high
    }

    /// Bytes it may keep over a synchronisation.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Sets that.
    pub fn set_threshold(&mut self, bytes: u64) {
        self.threshold = bytes;
    }

    /// Lets the high-water marks begin anew.
    pub fn reset_reserved_high(&mut self) {
        self.reserved_high = self.reserved;
    }

    /// As above.
    pub fn reset_used_high(&mut self) {
        self.used_high = self.used;
    }

    /// Takes memory the pool holds already.
    pub fn take(&mut self, bytes: u64, slot: u32) -> Option<u64> {
        let bytes = bytes.max(1).checked_next_multiple_of(GRANULE)?;
        let again = self.leaving.iter().find(|(_, leaving)| leaving.slot == slot && leaving.bytes == bytes);
        let address = match again.map(|(&address, leaving)| (address, leaving.pending)) {
            Some((address, pending)) => {
                self.leaving.remove(&address);
                *self.overtaken.entry(address).or_default() += pending;
                address
            }
            None => {
                let fits = self.gaps.iter().filter(|(_, length)| **length >= bytes);
                let (&address, &length) = fits.min_by_key(|(address, length)| (**length, **address))?;
                self.gaps.remove(&address);
                if length > bytes {
                    self.gaps.insert(address + bytes, length - bytes);
                }
                address
            }
        };
        self.live.insert(address, bytes);
        self.used += bytes;
        self.used_high = self.used_high.max(self.used);
        Some(address)
    }

    /// How much the pool must take of the device before an allocation fits; `None` when it may not grow so far.
    #[must_use]
    pub fn growth(&self, bytes: u64) -> Option<u64> {
        let growth = bytes.max(1).checked_next_multiple_of(self.granule)?;
        let after = self.reserved.checked_add(growth)?;
        (self.most == 0 || after <= self.most.next_multiple_of(self.granule)).then_some(growth)
    }

    /// Adds device memory.
    pub fn grow(&mut self, address: u64, bytes: u64) {
        self.segments.insert(address, bytes);
        self.gaps.insert(address, bytes);
        self.reserved += bytes;
        self.reserved_high = self.reserved_high.max(self.reserved);
    }

    /// Whether an address is the first of an allocation in use.
    #[must_use]
    pub fn holds(&self, address: u64) -> bool {
        self.live.contains_key(&address)
    }

    /// The allocation in use that an address lies in.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(u64, u64)> {
        let (&start, &bytes) = self.live.range(..=address).next_back()?;
        (address < start + bytes).then_some((start, bytes))
    }

    /// An allocation was freed in a stream. Returns whether it was one.
    pub fn leave(&mut self, address: u64, slot: u32) -> bool {
        let Some(bytes) = self.live.remove(&address) else { return false };
        self.used -= bytes;
        let pending = 1 + self.overtaken.remove(&address).unwrap_or(0);
        self.leaving.insert(address, Leaving { bytes, slot, pending });
        true
    }

    /// A stream has come to the free of an address.
    pub fn left(&mut self, address: u64) {
        if let Some(count) = self.overtaken.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.overtaken.remove(&address);
            }
            return;
        }
        let Some(leaving) = self.leaving.get_mut(&address) else { return };
        leaving.pending -= 1;
        if leaving.pending == 0 {
            let bytes = leaving.bytes;
            self.leaving.remove(&address);
            self.add_gap(address, bytes);
        }
    }

    /// Takes out segments with nothing in use until at most `keep` bytes are held, the largest first.
    pub fn trim(&mut self, keep: u64) -> Vec<(u64, u64)> {
        let idle = self.segments.iter().filter(|(address, bytes)| self.gaps.get(address) == Some(bytes));
        let mut idle: Vec<(u64, u64)> = idle.map(|(&address, &bytes)| (address, bytes)).collect();
        idle.sort_by_key(|&(address, bytes)| (std::cmp::Reverse(bytes), address));
        let mut gone = Vec::new();
        for (address, bytes) in idle {
            if self.reserved <= keep {
                break;
            }
            self.segments.remove(&address);
            self.gaps.remove(&address);
            self.reserved -= bytes;
            gone.push((address, bytes));
        }
        gone
    }

    /// Everything it holds, in use or not: the pool is empty afterwards.
    pub fn drain(&mut self) -> Vec<(u64, u64)> {
        let all = std::mem::take(&mut self.segments).into_iter().collect();
        let (granule, most, threshold) = (self.granule, self.most, self.threshold);
        *self = Self { threshold, ..Self::new(granule, most) };
        all
    }

    /// Whether nothing of it is in use.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    /// Joins a range that has become free with its neighbours of the same segment.
    fn add_gap(&mut self, address: u64, bytes: u64) {
        let Some((&segment, &length)) = self.segments.range(..=address).next_back() else { return };
        let (mut from, mut to) = (address, address + bytes);
        if let Some((&before, &length)) = self.gaps.range(..from).next_back()
            && before + length == from
            && before >= segment
        {
            self.gaps.remove(&before);
            from = before;
        }
        if to < segment + length
            && let Some(length) = self.gaps.remove(&to)
        {
            to += length;
        }
        self.gaps.insert(from, to - from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn pool() -> Pool {
        let mut pool = Pool::new(2 * MIB, 0);
        assert_eq!(pool.growth(1), Some(2 * MIB));
        pool.grow(1 << 40, 2 * MIB);
        pool
    }

    #[test]
    fn the_same_stream_takes_again_what_it_freed() {
        let mut pool = pool();
        let one = pool.take(MIB, 1).expect("room");
        let other = pool.take(MIB, 1).expect("room");
        assert_eq!(pool.take(1, 1), None);
        assert!(pool.leave(one, 1));
        assert_eq!(pool.take(MIB, 2), None, "another stream waits");
        assert_eq!(pool.take(MIB, 1), Some(one));
        pool.left(one);
        assert!(pool.holds(one), "the free that came was the first one's");
        assert!(pool.leave(one, 1));
        assert!(pool.leave(other, 1));
        pool.left(one);
        pool.left(other);
        assert_eq!((pool.used(), pool.reserved(), pool.used_high()), (0, 2 * MIB, 2 * MIB));
        assert_eq!(pool.trim(0), [(1 << 40, 2 * MIB)]);
        assert_eq!((pool.reserved(), pool.reserved_high()), (0, 2 * MIB));
    }

    #[test]
    fn segments_in_use_are_kept() {
        let mut pool = pool();
        pool.grow(2 << 40, 4 * MIB);
        let small = pool.take(512, 0).expect("room");
        assert_eq!(pool.trim(0), [(2 << 40, 4 * MIB)]);
        assert_eq!(pool.reserved(), 2 * MIB);
        assert!(pool.leave(small, 0));
        assert_eq!(pool.trim(0), [], "the stream has not come to it");
        pool.left(small);
        assert_eq!(pool.trim(2 * MIB), [], "the threshold is kept");
        assert_eq!(pool.trim(0), [(1 << 40, 2 * MIB)]);
    }

    #[test]
    fn a_pool_with_a_limit_stays_below_it() {
        let mut pool = Pool::new(2 * MIB, 3 * MIB);
        pool.grow(1 << 40, 2 * MIB);
        assert_eq!(pool.growth(MIB), Some(2 * MIB));
        pool.grow(2 << 40, 2 * MIB);
        assert_eq!(pool.growth(1), None);
    }

    proptest! {
        #[test]
        fn parts_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((0_u8..4, 1_u64..3 * MIB, 0_u32..3, any::<prop::sample::Index>()), 1..300),
        ) {
            let mut pool = Pool::new(2 * MIB, 0);
            let mut next = 1_u64 << 40;
            let mut live: Vec<(u64, u64)> = Vec::new();
            let mut leaving: Vec<(u64, u32)> = Vec::new();
            for (what, bytes, slot, pick) in steps {
                match what {
                    0 | 1 => {
                        let address = pool.take(bytes, slot).unwrap_or_else(|| {
                            let growth = pool.growth(bytes).expect("no limit");
                            pool.grow(next, growth);
                            next += growth + 2 * MIB;
                            pool.take(bytes, slot).expect("has grown")
                        });
                        let end = address + bytes.next_multiple_of(GRANULE);
                        prop_assert!(live.iter().all(|&(from, to)| end <= from || to <= address));
                        live.push((address, end));
                    }
                    2 if !live.is_empty() => {
                        let (address, _) = live.swap_remove(pick.index(live.len()));
                        prop_assert!(pool.leave(address, slot));
                        leaving.push((address, slot));
                    }
                    3 => {
                        // Streams come to their frees in order.
                        if let Some(index) = leaving.iter().position(|&(_, of)| of == slot) {
                            pool.left(leaving.remove(index).0);
                        }
                        pool.trim(pool.threshold());
                    }
                    _ => {}
                }
                prop_assert_eq!(pool.used(), live.iter().map(|(from, to)| to - from).sum::<u64>());
                prop_assert!(pool.used() <= pool.reserved());
            }
            for (address, _) in live.drain(..) {
                prop_assert!(pool.leave(address, 0));
                leaving.push((address, 0));
            }
            for (address, _) in leaving {
                pool.left(address);
            }
            pool.trim(0);
            prop_assert_eq!((pool.used(), pool.reserved()), (0, 0));
        }
    }
}
