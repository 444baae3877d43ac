//! Physical memory, and addresses of the program's own choice for it. Addresses are the device's, as everywhere.

use core::ffi::c_void;
use std::sync::Arc;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CU_MEM_LOCATION_TYPE_DEVICE, CUdeviceptr, CUmemAllocationProp, CUresult};

use super::device;
use crate::client::objects::{Allocation, lock};
use crate::client::state::{Client, client};
use crate::client::{Answer, current, raw, travel};
use crate::word::Word as _;

fn by_rule(client: &Client, symbol: Symbol, words: &[u64]) -> Result<travel::Made, CUresult> {
    client.session.check()?;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, words, current::any(client).ok().as_ref())
}

/// Memory of the device, for this program alone: other places and other processes are on the worker's machine.
pub fn cuMemCreate(
    handle: *mut u64,
    size: usize,
    properties: *const CUmemAllocationProp,
    flags: u64,
) -> Answer {
    let client = client()?;
    let wanted = raw::load(properties)?;
    if wanted.location.kind != CU_MEM_LOCATION_TYPE_DEVICE || wanted.requestedHandleTypes != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let index = device::index(client, wanted.location.id)?;
    let words = [handle.to_word(), size.to_word(), properties.to_word(), flags];
    for id in by_rule(client, Symbol::cuMemCreate, &words)? {
        client.physical.insert(id, Arc::new(index));
    }
    Ok(())
}

fn number(client: &Client, handle: u64) -> Result<u32, CUresult> {
    client.arena.id(Kind::Physical, usize::from_word(handle)).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Another handle of what is mapped somewhere. It has a number of its own here; each is released once.
pub fn cuMemRetainAllocationHandle(handle: *mut u64, address: *mut c_void) -> Answer {
    let client = client()?;
    let (_, mapped) = client.allocation(address.addr() as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    for id in by_rule(client, Symbol::cuMemRetainAllocationHandle, &[handle.to_word(), address.to_word()])? {
        client.physical.insert(id, Arc::new(mapped.device));
    }
    Ok(())
}

/// Mappings keep the memory; the handle ends.
pub fn cuMemRelease(handle: u64) -> Answer {
    let client = client()?;
    let id = number(client, handle)?;
    client.physical.get(id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    by_rule(client, Symbol::cuMemRelease, &[handle])?;
    client.physical.remove(id);
    Ok(())
}

pub fn cuMemMap(ptr: CUdeviceptr, size: usize, offset: usize, handle: u64, flags: u64) -> Answer {
    let client = client()?;
    let device = client.physical.get(number(client, handle)?).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let words = [ptr, size.to_word(), offset.to_word(), handle, flags];
    by_rule(client, Symbol::cuMemMap, &words)?;
    // No context has it, so it outlives them all.
    let mapped = Allocation { bytes: size as u64, context: 0, device: *device };
    lock(&client.allocations).insert(ptr, mapped);
    Ok(())
}

/// Whole mappings only, as the driver has it.
pub fn cuMemUnmap(ptr: CUdeviceptr, size: usize) -> Answer {
    let client = client()?;
    by_rule(client, Symbol::cuMemUnmap, &[ptr, size.to_word()])?;
    let end = ptr.saturating_add(size as u64);
    lock(&client.allocations).retain(|&base, _| base < ptr || end <= base);
    Ok(())
}
