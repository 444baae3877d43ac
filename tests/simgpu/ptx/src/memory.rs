//! The device memory that kernels see, as the caller provides it, and the windows of the generic address space.
//!
//! ```text
//! generic address
//!   0 .. 2^56                      global memory, handed to DeviceMemory as it is
//!   SHARED_WINDOW + offset         shared memory of the block
//!   LOCAL_WINDOW + offset          local memory of the thread (the same addresses mean other bytes in every thread)
//!   PARAM_WINDOW + offset          parameters of the kernel, read only
//! ```
//! Addresses of GPUs have 49 bits, so no allocation can lie in a window.

use std::collections::BTreeMap;

/// First generic address of the block's shared memory.
pub const SHARED_WINDOW: u64 = 0x0100_0000_0000_0000;
/// First generic address of the thread's local memory.
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000_0000;
/// First generic address of the kernel's parameters.
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000_0000;
/// Size of each window.
pub const WINDOW_BYTES: u64 = 1 << 32;

/// Part of an access lies in no allocation, or in one that may not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotMapped;

/// Global memory. The interpreter checks alignment before it calls; the implementation checks that all bytes lie in one
/// live allocation. Accesses are at most 16 bytes long.
pub trait DeviceMemory {
    /// Fills `into` from the bytes at `address`.
    ///
    /// # Errors
    /// [`NotMapped`] when any of the bytes may not be read.
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), NotMapped>;

    /// Writes `bytes` at `address`.
    ///
    /// # Errors
    /// [`NotMapped`] when any of the bytes may not be written; then none is.
    fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), NotMapped>;

    /// Replaces the little-endian value of `bytes` (2, 4 or 8) bytes at `address` by `change` of it, and returns the old one.
    /// Override it where the memory is shared with other writers, so that the step is atomic for them too; `change` may
    /// be called more than once.
    ///
    /// # Errors
    /// [`NotMapped`] when any of the bytes may not be read and written.
    fn update(
        &mut self,
        address: u64,
        bytes: usize,
        change: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, NotMapped> {
        let mut buffer = [0; 8];
        let Some(part) = buffer.get_mut(..bytes) else { return Err(NotMapped) };
        self.load(address, part)?;
        let old = u64::from_le_bytes(buffer);
        let new = change(old).to_le_bytes();
        self.store(address, &new[..bytes])?;
        Ok(old)
    }
}

/// Device memory in ordinary vectors, for tests and tools: allocations with unmapped room between them.
#[derive(Debug, Default)]
pub struct Heap {
    allocations: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Heap {
    const FIRST: u64 = 0x7f00_0000_0000;
    const ALIGNMENT: u64 = 512;

    /// An empty heap.
    #[must_use]
    pub fn new() -> Self {
        Self { allocations: BTreeMap::new(), next: Self::FIRST }
    }

    /// Allocates a copy of `bytes` and returns its address, a multiple of 512. An empty allocation has an address at
    /// which nothing can be read.
    pub fn insert(&mut self, bytes: &[u8]) -> u64 {
        let address = self.next;
        // One alignment unit beyond the end stays unmapped, so that running over an end is noticed.
        let room = (bytes.len() as u64).next_multiple_of(Self::ALIGNMENT) + Self::ALIGNMENT;
        self.next += room;
        self.allocations.insert(address, bytes.to_vec());
        address
    }

    /// Frees what [`Self::insert`] returned and hands its bytes back.
    pub fn remove(&mut self, address: u64) -> Option<Vec<u8>> {
        self.allocations.remove(&address)
    }

    /// The bytes of the allocation that begins at `address`.
    #[must_use]
    pub fn bytes(&self, address: u64) -> Option<&[u8]> {
        self.allocations.get(&address).map(Vec::as_slice)
    }

    fn find(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], NotMapped> {
        let (start, allocation) = self.allocations.range_mut(..=address).next_back().ok_or(NotMapped)?;
        let from = usize::try_from(address - start).map_err(|_| NotMapped)?;
        let to = from.checked_add(bytes).ok_or(NotMapped)?;
        allocation.get_mut(from..to).ok_or(NotMapped)
    }
}

impl DeviceMemory for Heap {
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), NotMapped> {
        into.copy_from_slice(self.find(address, into.len())?);
        Ok(())
    }

    fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), NotMapped> {
        self.find(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}
