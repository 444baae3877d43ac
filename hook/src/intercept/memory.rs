//! Calls that take and give back device memory by address.
//!
//! Reserve, let the driver act, then commit or roll back: the quota is never exceeded, not even for the moment
//! between a check and an allocation, and a driver that fails leaves no trace in the ledger.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUdeviceptr, CUmemoryPool, CUstream};

use super::place::{self, Place, Stop};
use crate::driver::{self, Out};
use crate::ledger::pools::{self, Reservation};
use crate::ledger::{self, Held, addresses, graphs};
use crate::log;
use crate::verdict::{Bypass, Verdict};

/// Alignment the driver gives rows of a pitched allocation; a first estimate, settled with the true pitch.
const PITCH_ALIGNMENT: u64 = 512;

/// `cuMemAlloc`, `cuMemAllocManaged`: `bytes` bytes on the current device. Managed memory counts in full: it may
/// all be on the device at once. The oldest forms have 32-bit addresses.
pub(crate) fn allocate<A: Copy + Into<u64>>(
    address: Out<A>,
    bytes: impl Into<Bytes>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let held = match place::here().and_then(|place| place.reserve(bytes.into().0)) {
        Ok(held) => held,
        Err(stop) => return stop.verdict(),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        match address.get().filter(|_| status.is_success()) {
            Some(address) => addresses::hold(address.into(), held),
            None => ledger::credit(held.charge),
        }
        status
    })
}

/// A size as the calls give it: 64 bits, or 32 in their oldest forms.
pub(crate) struct Bytes(u64);

impl From<usize> for Bytes {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl From<u32> for Bytes {
    fn from(bytes: u32) -> Self {
        Self(u64::from(bytes))
    }
}

/// `cuMemAllocPitch`: `height` rows whose true length the driver chooses.
pub(crate) fn allocate_pitch<A: Copy + Into<u64>, P: Copy + Into<Bytes>>(
    address: Out<A>,
    pitch: Out<P>,
    width_bytes: P,
    height: P,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let (width_bytes, height) = (width_bytes.into().0, height.into().0);
    let row_bytes = width_bytes.checked_next_multiple_of(PITCH_ALIGNMENT).unwrap_or(u64::MAX);
    let estimate = row_bytes.saturating_mul(height);
    let mut held = match place::here().and_then(|place| place.reserve(estimate)) {
        Ok(held) => held,
        Err(stop) => return stop.verdict(),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        let (Some(address), Some(pitch), true) = (address.get(), pitch.get(), status.is_success()) else {
            ledger::credit(held.charge);
            return status;
        };
        let actual = pitch.into().0.saturating_mul(height);
        if ledger::settle(&mut held.charge, actual).is_err() {
            // The true pitch does not fit the quota: undo what the driver did.
            let freed = driver::free(address.into());
            log::event(format_args!("pitched allocation undone: {freed:?}"));
            ledger::credit(held.charge);
            return CUresult::ERROR_OUT_OF_MEMORY;
        }
        addresses::hold(address.into(), held);
        status
    })
}

/// `cuMemAllocAsync`, `cuMemAllocFromPoolAsync`: from a pool, or from the one that is current on the stream's
/// device. The pool is charged, once, for what it takes from the device.
pub(crate) fn allocate_async(
    address: Out<CUdeviceptr>,
    bytes: usize,
    pool: Option<CUmemoryPool>,
    stream: CUstream,
    per_thread: bool,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let (place, reservation) = match reserve_in_pool(bytes as u64, pool, stream, per_thread) {
        Ok(reserved) => reserved,
        Err(stop) => return stop.verdict(),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        let address = address.get().filter(|_| status.is_success());
        let settled = pools::settle(reservation, address.is_some());
        let Some(address) = address else { return status };
        let Reservation { pool, row, bytes } = reservation;
        if settled.is_err() {
            // The pool has taken more from the device than the quota has room for: undo what the driver did.
            let freed = driver::free_in_stream(address, stream, per_thread);
            let waited = driver::synchronise_stream(stream, per_thread);
            log::event(format_args!("allocation from a pool undone: {freed:?}, {waited:?}"));
            pools::freed(pool, bytes);
            pools::relieve(place.session, row);
            return CUresult::ERROR_OUT_OF_MEMORY;
        }
        let charge = headgate_abi::segment::Charge { bytes, device: row };
        addresses::hold(address, Held { charge, context: place.context, pool: Some(pool) });
        status
    })
}

fn reserve_in_pool(
    bytes: u64,
    pool: Option<CUmemoryPool>,
    stream: CUstream,
    per_thread: bool,
) -> Result<(Place, Reservation), Stop> {
    let mut place = place::here()?;
    if driver::allocates_in_graph(stream, per_thread) {
        graphs::note_allocation();
        return Err(Stop::Bypass(Bypass::Captured));
    }
    if let Some(device) = driver::stream_device(stream) {
        place.device = device;
        place.row = place.session.row(device).ok_or(Stop::Bypass(Bypass::UnknownDevice))?;
    }
    ledger::overhead::measure_if_due(place.session);
    let pool = pool.or_else(|| driver::current_pool(place.device)).unwrap_or(CUmemoryPool::NULL);
    let pools::Place::Device(id, row) = pools::find(pool, place.row) else {
        return Err(Stop::Bypass(Bypass::HostMemory));
    };
    let reservation = pools::reserve(place.session, id, row, bytes).map_err(|_| Stop::NoRoom)?;
    Ok((place, reservation))
}

/// `cuMemFree`. Always forwarded, tracked or not, daemon or not. It waits for the device, after which pools may
/// have shrunk.
pub(crate) fn free(address: impl Into<u64>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let address = address.into();
    let held = addresses::let_go(address);
    Verdict::ForwardThen(move |status: CUresult| {
        end(address, held, status);
        pools::look_again();
        status
    })
}

/// `cuMemFreeAsync`, likewise, but it waits for nothing.
pub(crate) fn free_async(address: CUdeviceptr) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let held = addresses::let_go(address);
    Verdict::ForwardThen(move |status: CUresult| {
        end(address, held, status);
        status
    })
}

#[inline]
fn end(address: CUdeviceptr, held: Option<Held>, status: CUresult) {
    match held {
        Some(held) if status.is_success() => held.end(),
        Some(held) => addresses::hold(address, held),
        None if status.is_success() && address != 0 => ledger::count_untracked(),
        None => {}
    }
}
