//! Host memory that the device can reach.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_uint, c_void};
use std::sync::PoisonError;

use headgate_abi::cuda::types::{CUdeviceptr, CUresult};
use headgate_simgpu::protocol::{Remote, Request};

use super::context;
use crate::driver::{Answer, Driver, driver, lost};
use crate::objects::HostRange;
use crate::{capture, current, raw};

/// `CU_MEMHOSTALLOC_PORTABLE`, `DEVICEMAP`, `WRITECOMBINED`.
const ALLOC_FLAGS: c_uint = 7;
/// `CU_MEMHOSTREGISTER_PORTABLE`, `DEVICEMAP`, `IOMEMORY`, `READ_ONLY`.
const REGISTER_FLAGS: c_uint = 15;

/// The pinned range an address lies in, with its first address.
pub(crate) fn find(driver: &Driver, address: u64) -> Option<(u64, HostRange)> {
    let ranges = driver.host_ranges.read().unwrap_or_else(PoisonError::into_inner);
    let (&start, &range) = ranges.range(..=address).next_back()?;
    (address - start < range.bytes).then_some((start, range))
}

/// Whether a range is pinned as a whole.
pub(crate) fn is_pinned(driver: &Driver, address: u64, bytes: u64) -> bool {
    find(driver, address).is_some_and(|(start, range)| bytes <= range.bytes - (address - start))
}

fn insert(driver: &Driver, address: u64, range: HostRange) -> Answer {
    let end = address.checked_add(range.bytes).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut ranges = driver.host_ranges.write().unwrap_or_else(PoisonError::into_inner);
    let before = ranges.range(..end).next_back();
    if before.is_some_and(|(&start, known)| start + known.bytes > address) {
        return Err(CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    }
    let pin = Request::Pin { range: Remote { address, bytes: range.bytes } };
    driver.connection.post(&pin).map_err(lost)?;
    ranges.insert(address, range);
    Ok(())
}

/// Takes a range out, after all work that may still use it.
fn remove(driver: &Driver, address: u64, owned: bool, missing: CUresult) -> Result<HostRange, CUresult> {
    let known = |driver: &Driver| {
        let ranges = driver.host_ranges.read().unwrap_or_else(PoisonError::into_inner);
        ranges.get(&address).copied().filter(|range| range.owned == owned)
    };
    known(driver).ok_or(missing)?;
    context::synchronise(driver, &*current::any_context(driver)?)?;
    let mut ranges = driver.host_ranges.write().unwrap_or_else(PoisonError::into_inner);
    let range = ranges.remove(&address).ok_or(missing)?;
    driver.connection.post(&Request::Unpin { address }).map_err(lost)?;
    Ok(range)
}

pub(crate) fn cuMemAllocHost_v2(ptr: *mut *mut c_void, bytes: usize) -> Answer {
    cuMemHostAlloc(ptr, bytes, 0)
}

pub(crate) fn cuMemHostAlloc(ptr: *mut *mut c_void, bytes: usize, flags: c_uint) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    capture::forbid_unsafe_call(driver)?;
    if ptr.is_null() || bytes == 0 || flags & !ALLOC_FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let address = raw::allocate_host(bytes).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    let range = HostRange { bytes: bytes as u64, flags, owned: true };
    if let Err(status) = insert(driver, address as u64, range) {
        raw::free_host(address, bytes);
        return Err(status);
    }
    raw::store(ptr, core::ptr::with_exposed_provenance_mut(address))
}

pub(crate) fn cuMemFreeHost(ptr: *mut c_void) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    capture::forbid_unsafe_call(driver)?;
    let address = ptr.addr();
    let range = remove(driver, address as u64, true, CUresult::ERROR_INVALID_VALUE)?;
    raw::free_host(address, usize::try_from(range.bytes).unwrap_or(0));
    Ok(())
}

pub(crate) fn cuMemHostRegister_v2(ptr: *mut c_void, bytes: usize, flags: c_uint) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    capture::forbid_unsafe_call(driver)?;
    if ptr.is_null() || bytes == 0 || flags & !REGISTER_FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let range = HostRange { bytes: bytes as u64, flags, owned: false };
    insert(driver, ptr.addr() as u64, range)
}

pub(crate) fn cuMemHostUnregister(ptr: *mut c_void) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    capture::forbid_unsafe_call(driver)?;
    if ptr.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let missing = CUresult::ERROR_HOST_MEMORY_NOT_REGISTERED;
    remove(driver, ptr.addr() as u64, false, missing).map(|_| ())
}

/// With unified addressing the device reaches pinned memory by its host address.
pub(crate) fn cuMemHostGetDevicePointer_v2(
    dptr: *mut CUdeviceptr,
    ptr: *mut c_void,
    flags: c_uint,
) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let address = ptr.addr() as u64;
    if flags != 0 || find(driver, address).is_none() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(dptr, address)
}

pub(crate) fn cuMemHostGetFlags(flags: *mut c_uint, ptr: *mut c_void) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let (_, range) = find(driver, ptr.addr() as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(flags, range.flags)
}
