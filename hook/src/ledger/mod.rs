//! What this process holds, so that giving it back knows what to credit.
//!
//! Charges go to the shared ledger first and are noted here once the driver has answered. Each kind of holding
//! has a room: [`addresses`] (the hot one), [`arrays`], [`pools`] (stream-ordered memory, of which the driver
//! keeps more than programs asked for), [`blocks`] (physical memory with handles and mappings), [`graphs`]
//! (what graphs allocate when they run) and [`overhead`] (what contexts and code take). [`users`] knows when a context ends
//! that is given up more than once, [`aside`] what a checkpoint has taken off the devices.
//!
//! No lock of this module is held across a driver call.

pub(crate) mod addresses;
pub(crate) mod arrays;
pub(crate) mod blocks;
pub(crate) mod graphs;
pub(crate) mod overhead;
pub(crate) mod pools;
pub(crate) mod users;
pub(crate) mod aside;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headgate_abi::cuda::types::CUcontext;
use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::UNLIMITED;
use headgate_abi::segment::{Charge, Refusal};

use crate::recall;
use crate::session::{self, Session};

/// One live allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// What was charged for it; for memory from a pool, what it takes of the pool's charge.
    pub(crate) charge: Charge,
    /// The context it lives in; it dies with it.
    pub(crate) context: CUcontext,
    /// The pool it came from, which is charged in its stead.
    pub(crate) pool: Option<pools::PoolId>,
}

impl Held {
    /// Gives back what the allocation was charged, now that it is gone.
    pub(crate) fn end(self) {
        match self.pool {
            None => credit(self.charge),
            Some(pool) => pools::freed(pool, self.charge.bytes),
        }
    }
}

#[derive(Default)]
struct Holdings {
    addresses: addresses::Addresses,
    arrays: Mutex<arrays::Arrays>,
    pools: Mutex<pools::Pools>,
    blocks: Mutex<blocks::Blocks>,
    graphs: Mutex<graphs::Graphs>,
    overhead: Mutex<overhead::Overhead>,
    users: Mutex<users::Users>,
}

static HOLDINGS: AtomicPtr<Holdings> = AtomicPtr::new(std::ptr::null_mut());

#[expect(
    unsafe_code,
    reason = "the holdings are leaked on purpose, so a loaded pointer stays valid for good"
)]
#[inline]
fn holdings() -> &'static Holdings {
    let current = HOLDINGS.load(Acquire);
    let current = if current.is_null() { first_holdings() } else { current };
    // SAFETY: never freed once published.
    unsafe { &*current }
}

#[cold]
#[expect(unsafe_code, reason = "frees what has lost the race to be published")]
fn first_holdings() -> *mut Holdings {
    let fresh = Box::into_raw(Box::default());
    match HOLDINGS.compare_exchange(std::ptr::null_mut(), fresh, AcqRel, Acquire) {
        Ok(_) => fresh,
        Err(other) => {
            // SAFETY: `fresh` was made above and lost the race; nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
            other
        }
    }
}

/// No operation under these locks can leave its map half done, so a poisoned lock is still good.
fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses and handles are multiples of some power of two: their low bits say nothing, so one multiplication
/// mixes the high bits down.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

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

type Map<V> = std::collections::HashMap<u64, V, BuildHasherDefault<AddressHasher>>;

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(address: u64) -> u64 {
    let product = u128::from(address.rotate_right(8)) * u128::from(MIX);
    let (low, high) = (product & u128::from(u64::MAX), product >> 64);
    u64::try_from(low).unwrap_or(0) ^ u64::try_from(high).unwrap_or(0)
}

/// Charges `bytes` on a device row, or says why not. What this process's pools keep for later is given back to
/// the driver before anything is refused, as the driver itself would do when the device is full; then what other processes of
/// the tenant have taken ahead is called back.
pub(crate) fn charge(session: &Session, row: usize, bytes: u64) -> Result<Charge, Refusal> {
    charge_within(session, row, bytes, session.memory_limit(row))
}

#[inline]
fn charge_within(session: &Session, row: usize, bytes: u64, limit_bytes: u64) -> Result<Charge, Refusal> {
    let ledger = session.ledger();
    let attempt = || ledger.try_charge(session.seat_index(), row, bytes, limit_bytes);
    attempt().or_else(|_| {
        pools::relieve(session, row);
        let found = recall::retry(session, row, bytes, attempt);
        found.or_else(|_| ledger.charge(session.seat_index(), row, bytes, limit_bytes))
    })
}

/// Charges what is in use already, whatever the limit: a quota never takes anything away.
fn charge_what_is(session: &Session, row: usize, bytes: u64) {
    if 0 < bytes {
        // Nothing is refused without a limit.
        let _charged = session.ledger().charge(session.seat_index(), row, bytes, UNLIMITED);
    }
}

/// Gives a charge back.
pub(crate) fn credit(charge: Charge) {
    if let Some(session) = session::seated()
        && 0 < charge.bytes
    {
        session.ledger().credit(session.seat_index(), charge);
    }
}

/// Brings a charge from an estimate to what the driver really took. `Err` when the difference has no room; the
/// charge is then as it was.
pub(crate) fn settle(charge: &mut Charge, actual_bytes: u64) -> Result<(), Refusal> {
    let device = charge.device;
    if actual_bytes < charge.bytes {
        credit(Charge { bytes: charge.bytes - actual_bytes, device });
    } else if charge.bytes < actual_bytes
        && let Some(session) = session::seated()
    {
        let _more = self::charge(session, device, actual_bytes - charge.bytes)?;
    }
    charge.bytes = actual_bytes;
    Ok(())
}

/// Counts a free of an address this process never charged.
pub(crate) fn count_untracked() {
    if let Some(session) = session::seated()
        && !graphs::seen()
    {
        session.seat().untracked_frees.fetch_add(1, Relaxed);
    }
}

/// Credits everything that lived in a context, which is gone.
pub(crate) fn end_context(context: CUcontext) {
    let holdings = holdings();
    let mut gone = holdings.addresses.end_context(context);
    gone.extend(arrays::end_context(context));
    gone.into_iter().for_each(Held::end);
    overhead::end_context(context);
    users::end_context(context);
    pools::look_at_all();
}

/// Charges everything held to a fresh seat. Beyond the limit if need be: the memory is in use already.
pub(crate) fn charge_again(session: &Session) {
    let mut sums = [0u64; DEVICES_MAX];
    let mut add = |charge: Charge| sums[charge.device] = sums[charge.device].saturating_add(charge.bytes);
    holdings().addresses.each(&mut add);
    arrays::each(&mut add);
    pools::each(&mut add);
    blocks::each(&mut add);
    overhead::each(&mut add);
    for (row, bytes) in sums.into_iter().enumerate() {
        charge_what_is(session, row, bytes);
    }
    overhead::show_again(session);
}

/// Starts with nothing, in the child of a fork. The old holdings are leaked: a thread that no longer exists may
/// have held one of their locks.
pub(crate) fn forget() {
    HOLDINGS.store(std::ptr::null_mut(), Release);
    pools::forget();
    graphs::forget();
    overhead::forget();
    aside::forget();
}
