//! Memory that the driver keeps in pools: stream-ordered pools, and what it keeps for graphs.
//!
//! ```text
//! reserve:  pending += n, charged up to live + pending     (refused above the quota)
//!   driver
//! settle:   pending -= n, live += n
//! look:     charged = max(what the driver says the pool has reserved, live + pending)
//! ```
//!
//! A pool takes memory from the device in steps larger than what programs ask for and keeps it after they have
//! freed it, until it is trimmed or a synchronisation finds it above its release threshold. What the tenant is
//! charged for is what the pool has, so the charge follows the driver's own figure; what has been asked for is
//! its lower bound, also where the driver has no figure.

use std::num::NonZeroU64;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};

use headgate_abi::cuda::types::{CUdevice, CUmemoryPool};
use headgate_abi::segment::{Charge, Refusal};

use super::{Map, charge_what_is, credit, holdings, lock};
use crate::driver;
use crate::recall;
use crate::session::{self, Session};

/// Looks at a pool's figure before one is taken although other threads keep moving it.
const LOOKS_MAX: usize = 8;

/// Which pool of this process. Not its handle: the driver may give that to another pool while memory of this
/// one is still in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolId(NonZeroU64);

/// What asks the driver for a pool's figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A stream-ordered pool.
    Pool(CUmemoryPool),
    /// What a device keeps for the graphs of this process.
    Graphs(CUdevice),
    /// A pool whose handle is gone, while some of its memory is still in use.
    Destroyed,
}

#[derive(Clone, Copy)]
struct Pool {
    source: Source,
    row: usize,
    /// Bytes that programs hold.
    live: u64,
    /// Bytes that calls under way ask for.
    pending: u64,
    charged: u64,
    /// Changes with every figure above.
    version: u64,
}

#[derive(Default)]
pub(super) struct Pools {
    /// Pools ever seen.
    count: u64,
    pools: Map<Pool>,
    by_handle: Map<Place>,
    graphs: Map<PoolId>,
}

/// Where an explicit pool keeps its memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On a device the tenant is charged for, with its row.
    Device(PoolId, usize),
    /// In host memory, or on a device the daemon does not know.
    Elsewhere,
}

/// Some pool may have more than its programs hold.
static SLACK: AtomicBool = AtomicBool::new(false);

impl Pool {
    fn floor(&self) -> u64 {
        self.live.saturating_add(self.pending)
    }
}

impl Pools {
    fn open(&mut self, source: Source, row: usize) -> PoolId {
        let id = PoolId(NonZeroU64::MIN.saturating_add(self.count));
        self.count += 1;
        self.pools.insert(id.0.get(), Pool { source, row, live: 0, pending: 0, charged: 0, version: 0 });
        id
    }

    fn ids(&self) -> Vec<PoolId> {
        self.pools.keys().filter_map(|&id| NonZeroU64::new(id).map(PoolId)).collect()
    }
}

/// The pool of a handle, noting it when it is seen for the first time.
pub(crate) fn find(handle: CUmemoryPool, row: usize) -> Place {
    let mut pools = lock(&holdings().pools);
    if let Some(&place) = pools.by_handle.get(&(handle.addr() as u64)) {
        return place;
    }
    let place = Place::Device(pools.open(Source::Pool(handle), row), row);
    pools.by_handle.insert(handle.addr() as u64, place);
    place
}

/// Notes a pool that a program made; `row` is `None` when its memory is not the tenant's to pay for.
pub(crate) fn created(handle: CUmemoryPool, row: Option<usize>) {
    let mut pools = lock(&holdings().pools);
    let place = match row {
        Some(row) => Place::Device(pools.open(Source::Pool(handle), row), row),
        None => Place::Elsewhere,
    };
    pools.by_handle.insert(handle.addr() as u64, place);
}

/// What a device keeps for graphs.
pub(crate) fn of_graphs(device: CUdevice, row: usize) -> PoolId {
    let mut pools = lock(&holdings().pools);
    let key = u64::from(device.unsigned_abs());
    if let Some(&id) = pools.graphs.get(&key) {
        return id;
    }
    let id = pools.open(Source::Graphs(device), row);
    pools.graphs.insert(key, id);
    id
}

/// Forgets the handle of a pool that is about to be destroyed. Its memory stays charged while in use.
pub(crate) fn let_go(handle: CUmemoryPool) -> Option<Place> {
    lock(&holdings().pools).by_handle.remove(&(handle.addr() as u64))
}

/// The driver did not destroy it after all.
pub(crate) fn keep(handle: CUmemoryPool, place: Place) {
    lock(&holdings().pools).by_handle.insert(handle.addr() as u64, place);
}

/// The pool is destroyed: the driver has no figure for it any more.
pub(crate) fn destroyed(id: PoolId) {
    if let Some(pool) = lock(&holdings().pools).pools.get_mut(&id.0.get()) {
        pool.source = Source::Destroyed;
        pool.version += 1;
    }
    let _shrunk = look(id);
}

/// Room in a pool for an allocation that the driver is about to be asked for.
#[must_use = "a reservation that is dropped is never given back"]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    pub(crate) pool: PoolId,
    pub(crate) row: usize,
    pub(crate) bytes: u64,
}

/// Makes room in a pool, charging what the pool does not have yet.
pub(crate) fn reserve(session: &Session, id: PoolId, row: usize, bytes: u64) -> Result<Reservation, Refusal> {
    let attempt = |limit_counts: bool| {
        let mut pools = lock(&holdings().pools);
        let Some(pool) = pools.pools.get_mut(&id.0.get()) else { return Ok(()) };
        let needed = pool.floor().saturating_add(bytes).saturating_sub(pool.charged);
        if 0 < needed {
            let (ledger, seat, limit) = (session.ledger(), session.seat_index(), session.memory_limit(row));
            let _charge = if limit_counts {
                ledger.charge(seat, row, needed, limit)?
            } else {
                ledger.try_charge(seat, row, needed, limit)?
            };
            pool.charged += needed;
        }
        pool.pending += bytes;
        pool.version += 1;
        Ok(())
    };
    attempt(false).or_else(|_| {
        relieve(session, row);
        recall::retry(session, row, bytes, || attempt(false)).or_else(|_| attempt(true))
    })?;
    Ok(Reservation { pool: id, row, bytes })
}

/// The driver has answered: the memory is a program's now, or it is not. `Err` when the pool has grown by more
/// than the quota has room for.
pub(crate) fn settle(reservation: Reservation, succeeded: bool) -> Result<(), Refusal> {
    if let Some(pool) = lock(&holdings().pools).pools.get_mut(&reservation.pool.0.get()) {
        pool.pending = pool.pending.saturating_sub(reservation.bytes);
        if succeeded {
            pool.live += reservation.bytes;
        }
        pool.version += 1;
    }
    look(reservation.pool).or_else(|refusal| {
        let session = session::seated().ok_or(refusal)?;
        // How much of it was refused only the look knows: the pool has grown already.
        recall::retry(session, reservation.row, 0, || look(reservation.pool))
    })
}

/// Memory of a pool was freed by its program; the pool may keep it.
pub(crate) fn freed(id: PoolId, bytes: u64) {
    if let Some(pool) = lock(&holdings().pools).pools.get_mut(&id.0.get()) {
        pool.live = pool.live.saturating_sub(bytes);
        pool.version += 1;
    }
    let _shrunk = look(id);
}

/// Looks at what every pool has, if any may have changed since: after a synchronisation and before a view.
#[inline]
pub(crate) fn look_again() {
    if SLACK.load(Acquire) && SLACK.swap(false, AcqRel) {
        look_at_all();
    }
}

/// Looks at what every pool has.
pub(crate) fn look_at_all() {
    let ids = lock(&holdings().pools).ids();
    for id in ids {
        let _grown_by_others = look(id);
    }
}

/// Brings a pool's charge to what the driver says it has. `Err` when it has grown beyond the quota; what does
/// not fit stays uncharged then, for the caller to undo.
pub(crate) fn look(id: PoolId) -> Result<(), Refusal> {
    for _ in 0..LOOKS_MAX {
        let Some(seen) = lock(&holdings().pools).pools.get(&id.0.get()).copied() else { return Ok(()) };
        let reserved = match seen.source {
            Source::Pool(handle) => driver::pool_reserved_bytes(handle),
            Source::Graphs(device) => driver::graph_reserved_bytes(device),
            Source::Destroyed => None,
        };
        // Graphs share memory among each other, so only the driver knows how much of it is in use.
        let used = match seen.source {
            Source::Graphs(device) => driver::graph_used_bytes(device),
            Source::Pool(_) | Source::Destroyed => None,
        };
        let mut pools = lock(&holdings().pools);
        let Some(pool) = pools.pools.get_mut(&id.0.get()) else { return Ok(()) };
        if pool.version != seen.version {
            // Another thread has allocated or freed since: the figure may be older than that.
            continue;
        }
        if let Some(used) = used {
            pool.live = used;
        }
        let floor = pool.floor();
        let wanted = reserved.unwrap_or(floor).max(floor);
        if floor < wanted {
            SLACK.store(true, Release);
        }
        let (row, charged) = (pool.row, pool.charged);
        if wanted < charged {
            credit(Charge { bytes: charged - wanted, device: row });
        } else if charged < wanted
            && let Some(session) = session::seated()
        {
            let limit = session.memory_limit(row);
            let _more = session.ledger().try_charge(session.seat_index(), row, wanted - charged, limit)?;
        }
        pool.charged = wanted;
        if pool.source == Source::Destroyed && wanted == 0 {
            pools.pools.remove(&id.0.get());
        }
        return Ok(());
    }
    // Threads that allocate without end keep the figure moving; each of them looks again itself.
    SLACK.store(true, Release);
    Ok(())
}

/// Charges what a pool has beyond the quota and cannot be undone.
pub(crate) fn concede(id: PoolId) {
    let Some(seen) = lock(&holdings().pools).pools.get(&id.0.get()).copied() else { return };
    let Source::Graphs(device) = seen.source else { return };
    let Some(reserved) = driver::graph_reserved_bytes(device) else { return };
    let mut pools = lock(&holdings().pools);
    if let (Some(pool), Some(session)) = (pools.pools.get_mut(&id.0.get()), session::seated())
        && pool.charged < reserved
    {
        charge_what_is(session, pool.row, reserved - pool.charged);
        pool.charged = reserved;
        pool.version += 1;
    }
}

/// Lets the driver take back what this process's pools on a device row keep without need.
#[cold]
pub(crate) fn relieve(_session: &Session, row: usize) {
    let slack: Vec<(PoolId, Pool)> = {
        let pools = lock(&holdings().pools);
        let on_row = pools.pools.iter().filter(|(_, pool)| pool.row == row);
        on_row
            .filter(|(_, pool)| pool.pending < pool.charged && pool.source != Source::Destroyed)
            .filter_map(|(&id, &pool)| Some((PoolId(NonZeroU64::new(id)?), pool)))
            .collect()
    };
    for (id, pool) in slack {
        match pool.source {
            Source::Pool(handle) if pool.floor() < pool.charged => driver::trim_pool(handle, pool.floor()),
            Source::Graphs(device) => {
                driver::trim_graphs(device);
                super::graphs::trimmed(device);
            }
            _ => continue,
        }
        let _shrunk = look(id);
    }
}

/// The charge of every pool.
pub(super) fn each(add: &mut impl FnMut(Charge)) {
    lock(&holdings().pools)
        .pools
        .values()
        .for_each(|pool| add(Charge { bytes: pool.charged, device: pool.row }));
}

pub(super) fn forget() {
    SLACK.store(false, Release);
}
