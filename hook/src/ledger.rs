//! What this process holds: address by address, so that a free knows what to credit.
//!
//! Charges go to the shared ledger first and are noted here once the driver has answered. The map is split
//! into shards, each behind its own lock, which is held for one map operation and never across a driver call.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headgate_abi::cuda::types::{CUcontext, CUdeviceptr};
use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::UNLIMITED;
use headgate_abi::segment::{Charge, Refusal};

use crate::session::{self, Session};

/// Shards of the map: enough that threads rarely meet.
const SHARDS: usize = 64;

/// One live allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// What was charged for it.
    pub(crate) charge: Charge,
    /// The context it lives in; it dies with it.
    pub(crate) context: CUcontext,
}

/// Device addresses are multiples of 256 at least: their low bits say nothing, so one multiplication mixes
/// the high bits down.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(byte)).wrapping_mul(MIX);
        }
    }

    fn write_u64(&mut self, address: u64) {
        self.0 = mix(address);
    }
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(address: u64) -> u64 {
    let product = u128::from(address >> 8) * u128::from(MIX);
    let (low, high) = (product & u128::from(u64::MAX), product >> 64);
    u64::try_from(low).unwrap_or(0) ^ u64::try_from(high).unwrap_or(0)
}

type Shard = HashMap<CUdeviceptr, Held, BuildHasherDefault<AddressHasher>>;

struct Holdings {
    shards: [Mutex<Shard>; SHARDS],
}

static HOLDINGS: AtomicPtr<Holdings> = AtomicPtr::new(std::ptr::null_mut());

#[expect(unsafe_code, reason = "the map is leaked on purpose, so a loaded pointer stays valid for good")]
fn holdings() -> &'static Holdings {
    let mut current = HOLDINGS.load(Acquire);
    if current.is_null() {
        let fresh = Box::into_raw(Box::new(Holdings { shards: std::array::from_fn(|_| Mutex::default()) }));
        current = match HOLDINGS.compare_exchange(current, fresh, AcqRel, Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: `fresh` was made above and lost the race; nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
    }
    // SAFETY: never freed once published.
    unsafe { &*current }
}

fn shard(address: CUdeviceptr) -> MutexGuard<'static, Shard> {
    let index = usize::try_from(mix(address) >> 58).unwrap_or(0) % SHARDS;
    lock(&holdings().shards[index])
}

/// A map operation cannot leave a shard half done, so a poisoned lock is still good.
fn lock(shard: &'static Mutex<Shard>) -> MutexGuard<'static, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Charges `bytes` on a device row, or says why not.
pub(crate) fn charge(session: &Session, row: usize, bytes: u64) -> Result<Charge, Refusal> {
    session.ledger().charge(session.seat_index(), row, bytes, session.memory_limit(row))
}

/// Gives a charge back.
pub(crate) fn credit(charge: Charge) {
    if let Some(session) = session::seated() {
        session.ledger().credit(session.seat_index(), charge);
    }
}

/// Notes what the driver allocated.
pub(crate) fn hold(address: CUdeviceptr, held: Held) {
    let previous = shard(address).insert(address, held);
    if let Some(previous) = previous {
        // The driver reused an address whose free we never saw (its context died elsewhere): the old charge
        // has nothing behind it any more.
        credit(previous.charge);
    }
}

/// Forgets an allocation that is about to be freed. Before the driver call, not after: once the driver has
/// freed the address another thread may be given it.
pub(crate) fn let_go(address: CUdeviceptr) -> Option<Held> {
    shard(address).remove(&address)
}

/// Counts a free of an address this process never charged.
pub(crate) fn count_untracked() {
    if let Some(session) = session::seated() {
        session.seat().untracked_frees.fetch_add(1, Relaxed);
    }
}

/// Credits everything that lived in a context, which is gone.
pub(crate) fn end_context(context: CUcontext) {
    for shard in &holdings().shards {
        let mut gone = Vec::new();
        lock(shard).retain(|_, held| {
            let stays = held.context != context;
            if !stays {
                gone.push(held.charge);
            }
            stays
        });
        gone.into_iter().for_each(credit);
    }
}

/// Charges everything held to a fresh seat. Beyond the limit if need be: the memory is in use already, and a
/// quota never takes anything away.
pub(crate) fn charge_again(session: &Session) {
    let mut sums = [0u64; DEVICES_MAX];
    for shard in &holdings().shards {
        for held in lock(shard).values() {
            sums[held.charge.device] = sums[held.charge.device].saturating_add(held.charge.bytes);
        }
    }
    for (row, bytes) in sums.into_iter().enumerate().filter(|(_, bytes)| 0 < *bytes) {
        let _charged = session.ledger().charge(session.seat_index(), row, bytes, UNLIMITED);
    }
}

/// Starts with an empty map, in the child of a fork. The old one is leaked: a thread that no longer exists may
/// have held one of its locks.
pub(crate) fn forget() {
    HOLDINGS.store(std::ptr::null_mut(), std::sync::atomic::Ordering::Release);
}
