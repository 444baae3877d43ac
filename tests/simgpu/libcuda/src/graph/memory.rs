//! Memory of allocation nodes: an address for as long as somebody names it, bytes when the graph runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

use headgate_abi::cuda::types::CUresult;
use headgate_simgpu::mappings;
use headgate_simgpu::protocol::{Holding, Request};

use crate::driver::{Driver, driver};
use crate::objects::{Allocation, Origin, lock};

/// Where the next node's memory shows.
static NEXT: AtomicU64 = AtomicU64::new(mappings::NODES);

/// An allocation node's memory. Graphs, executable graphs and an allocation that was not freed hold it; when the last
/// of them is gone, the bytes serve other graphs.
#[derive(Debug)]
pub(crate) struct NodeMemory {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) device: usize,
}

impl NodeMemory {
    /// Sets an address aside. Memory comes with the first launch.
    pub(crate) fn new(driver: &Driver, device: usize, bytes: u64) -> Result<Arc<Self>, CUresult> {
        let granule = driver.connection.node().granule;
        let room = bytes.checked_next_multiple_of(granule).filter(|_| bytes > 0);
        let room = room.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let fits = |at: u64| {
            let start = at.checked_next_multiple_of(granule)?;
            start.checked_add(room).filter(|&end| end <= mappings::END)
        };
        let end = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        let before = end.map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
        let address = before.next_multiple_of(granule);
        let made = Arc::new(Self { address, bytes, device });
        made.enter(driver);
        lock(&driver.node_memory).insert(address, Arc::downgrade(&made));
        Ok(made)
    }

    /// Makes the address known as one of a graph.
    pub(crate) fn enter(&self, driver: &Driver) {
        let known = Allocation { bytes: self.bytes, context: 0, device: self.device, origin: Origin::Node };
        crate::api::enter_allocation(driver, self.address, known);
    }

    /// The memory whose first address this is.
    pub(crate) fn find(driver: &Driver, address: u64) -> Option<Arc<Self>> {
        lock(&driver.node_memory).get(&address).and_then(Weak::upgrade)
    }
}

impl Drop for NodeMemory {
    fn drop(&mut self) {
        let Ok(driver) = driver() else { return };
        lock(&driver.node_memory).remove(&self.address);
        driver.allocations.write().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
        driver.connection.tell(&Request::Holding(Holding::DropGraph { nodes: vec![self.address] }));
    }
}
