//! Host memory is the program's own. That it is pinned says only that copies may be asynchronous.

use core::ffi::{c_uint, c_void};

use headgate_abi::cuda::types::CUresult;

use crate::client::objects::{HostRange, lock};
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw};

/// `CU_MEMHOSTALLOC_PORTABLE`, `DEVICEMAP`, `WRITECOMBINED`.
const ALLOC_FLAGS: c_uint = 7;
/// `CU_MEMHOSTREGISTER_PORTABLE`, `DEVICEMAP`, `IOMEMORY`, `READ_ONLY`.
const REGISTER_FLAGS: c_uint = 15;
/// The device cannot reach host memory from where it is.
const DEVICE_MAP: c_uint = 2;

pub fn cuMemHostAlloc(ptr: *mut *mut c_void, bytes: usize, flags: c_uint) -> Answer {
    let client = client()?;
    capture::forbid_unsafe_call(client)?;
    current::context(client)?;
    if ptr.is_null() || bytes == 0 || flags & !ALLOC_FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if flags & DEVICE_MAP != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let address = raw::map(bytes).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    lock(&client.host).insert(address, HostRange { bytes, flags, owned: true });
    raw::store(ptr, core::ptr::with_exposed_provenance_mut(address))
}

pub fn cuMemAllocHost_v2(ptr: *mut *mut c_void, bytes: usize) -> Answer {
    cuMemHostAlloc(ptr, bytes, 0)
}

/// Takes a range off the list once nothing is written into it or read from it any more.
fn forget(client: &Client, address: usize, owned: bool, missing: CUresult) -> Result<HostRange, CUresult> {
    capture::forbid_unsafe_call(client)?;
    let known = lock(&client.host).get(&address).copied().filter(|range| range.owned == owned);
    let range = known.ok_or(missing)?;
    settle(client, address, range.bytes)?;
    client.session.release(address, range.bytes)?;
    lock(&client.host).remove(&address).ok_or(missing)
}

/// Waits until earlier copies have filled a range.
pub(super) fn settle(client: &Client, address: usize, bytes: usize) -> Answer {
    if client.session.awaits_memory(address, bytes) {
        client.session.wait_for_memory(address, bytes)?;
    }
    Ok(())
}

pub fn cuMemFreeHost(ptr: *mut c_void) -> Answer {
    let client = client()?;
    let range = forget(client, ptr.addr(), true, CUresult::ERROR_INVALID_VALUE)?;
    raw::unmap(ptr.expose_provenance(), range.bytes);
    Ok(())
}

pub fn cuMemHostGetFlags(flags: *mut c_uint, ptr: *mut c_void) -> Answer {
    let (_, range) = client()?.pinned(ptr.addr(), 0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(flags, range.flags)
}

pub fn cuMemHostRegister_v2(ptr: *mut c_void, bytes: usize, flags: c_uint) -> Answer {
    let client = client()?;
    capture::forbid_unsafe_call(client)?;
    current::context(client)?;
    if ptr.is_null() || bytes == 0 || flags & !REGISTER_FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if flags & DEVICE_MAP != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let mut host = lock(&client.host);
    let end = ptr.addr().saturating_add(bytes);
    let overlaps =
        host.range(..end).next_back().is_some_and(|(&base, range)| base + range.bytes > ptr.addr());
    if overlaps {
        return Err(CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    }
    host.insert(ptr.addr(), HostRange { bytes, flags, owned: false });
    Ok(())
}

pub fn cuMemHostUnregister(ptr: *mut c_void) -> Answer {
    let client = client()?;
    forget(client, ptr.addr(), false, CUresult::ERROR_HOST_MEMORY_NOT_REGISTERED).map(|_| ())
}
