//! Allocations by device address. The map is split into shards, each behind its own lock, which is held for one
//! map operation.

use std::sync::{Mutex, MutexGuard};

use headgate_abi::cuda::types::{CUcontext, CUdeviceptr};
use headgate_abi::segment::Charge;

use super::{Held, Map, holdings, lock, mix};

/// Shards of the map: enough that threads rarely meet.
const SHARDS: usize = 64;

pub(super) struct Addresses([Mutex<Map<Held>>; SHARDS]);

impl Default for Addresses {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

fn shard(address: CUdeviceptr) -> MutexGuard<'static, Map<Held>> {
    let index = usize::try_from(mix(address) >> 58).unwrap_or(0) % SHARDS;
    lock(&holdings().addresses.0[index])
}

/// Notes what the driver allocated.
pub(crate) fn hold(address: CUdeviceptr, held: Held) {
    let previous = shard(address).insert(address, held);
    if let Some(previous) = previous {
        // The driver reused an address whose free we never saw (its context died elsewhere): the old charge
        // has nothing behind it any more.
        previous.end();
    }
}

/// Forgets an allocation that is about to be freed. Before the driver call, not after: once the driver has
/// freed the address another thread may be given it.
pub(crate) fn let_go(address: CUdeviceptr) -> Option<Held> {
    shard(address).remove(&address)
}

impl Addresses {
    pub(super) fn end_context(&'static self, context: CUcontext) -> Vec<Held> {
        let mut gone = Vec::new();
        for shard in &self.0 {
            gone.extend(lock(shard).extract_if(|_, held| held.context == context).map(|(_, held)| held));
        }
        gone
    }

    /// Visits what is charged by address. Memory from pools is not: its pool is.
    pub(super) fn each(&'static self, add: &mut impl FnMut(Charge)) {
        for shard in &self.0 {
            lock(shard).values().filter(|held| held.pool.is_none()).for_each(|held| add(held.charge));
        }
    }
}
