//! Device memory. Its addresses are the device's own: programs put them into arguments and into memory itself.

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUcontext, CUdeviceptr, CUenum, CUmemoryPool, CUresult, CUstream};

use crate::client::objects::{Allocation, Context, lock};
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw, travel};
use crate::wire::operation::{Argument, Arguments, Operation};
use crate::word::Word as _;

/// Asks for memory by rule and remembers what came of it. The first word is where the address goes.
fn allocate(symbol: Symbol, dptr: *mut CUdeviceptr, bytes: impl FnOnce() -> u64, words: &[u64]) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, words, Some(&context))?;
    let found = Allocation { bytes: bytes(), context: context.id, device: context.device };
    lock(&client.allocations).insert(raw::load(dptr)?, found);
    Ok(())
}

pub fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytes: usize) -> Answer {
    capture::forbid_unsafe_call(client()?)?;
    allocate(Symbol::cuMemAlloc_v2, dptr, || bytes as u64, &[dptr.to_word(), bytes.to_word()])
}

pub fn cuMemAllocPitch_v2(
    dptr: *mut CUdeviceptr,
    pitch: *mut usize,
    width_bytes: usize,
    height: usize,
    element_bytes: c_uint,
) -> Answer {
    capture::forbid_unsafe_call(client()?)?;
    let words =
        [dptr.to_word(), pitch.to_word(), width_bytes.to_word(), height.to_word(), element_bytes.to_word()];
    let bytes = || raw::load(pitch).map_or(0, |pitch| pitch.saturating_mul(height) as u64);
    allocate(Symbol::cuMemAllocPitch_v2, dptr, bytes, &words)
}

pub fn cuMemAllocAsync(dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> Answer {
    let words = [dptr.to_word(), bytes.to_word(), stream.to_word()];
    allocate(Symbol::cuMemAllocAsync, dptr, || bytes as u64, &words)
}

pub fn cuMemAllocFromPoolAsync(
    dptr: *mut CUdeviceptr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> Answer {
    let words = [dptr.to_word(), bytes.to_word(), pool.to_word(), stream.to_word()];
    allocate(Symbol::cuMemAllocFromPoolAsync, dptr, || bytes as u64, &words)
}

/// Takes an allocation off the list. Only what begins an allocation can be freed.
fn forget(client: &Client, dptr: CUdeviceptr) -> Result<Allocation, CUresult> {
    lock(&client.allocations).remove(&dptr).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub fn cuMemFree_v2(dptr: CUdeviceptr) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    if dptr == 0 {
        return Ok(());
    }
    capture::forbid_unsafe_call(client)?;
    forget(client, dptr)?;
    let mut arguments = Arguments::new();
    arguments.push(Argument::Word(dptr));
    client.session.tell(context.id, &Operation::Call(Symbol::cuMemFree_v2, arguments))
}

pub fn cuMemFreeAsync(dptr: CUdeviceptr, stream: CUstream) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let stream = current::stream(client, &context, stream.addr())?;
    capture::admit(client, &stream)?;
    if dptr == 0 {
        return Ok(());
    }
    forget(client, dptr)?;
    let mut arguments = Arguments::new();
    arguments.push(Argument::Word(dptr));
    arguments.push(Argument::Handle(Kind::Stream, stream.id));
    client.session.tell(context.id, &Operation::Call(Symbol::cuMemFreeAsync, arguments))?;
    client.freed_in_order.store(true, Ordering::Release);
    stream.touch(client.session.placed());
    Ok(())
}

/// Remembers a module's variable, so that its address is known for device memory.
pub(super) fn remember(client: &Client, context: &Arc<Context>, address: u64, bytes: u64) {
    let found = Allocation { bytes, context: context.id, device: context.device };
    lock(&client.allocations).entry(address).or_insert(found);
}

pub fn cuMemGetAddressRange_v2(base: *mut CUdeviceptr, bytes: *mut usize, dptr: CUdeviceptr) -> Answer {
    let client = client()?;
    let (first, found) = client.allocation(dptr).ok_or(CUresult::ERROR_NOT_FOUND)?;
    raw::store_if(base, first);
    raw::store_if(bytes, usize::try_from(found.bytes).unwrap_or(usize::MAX));
    Ok(())
}

/// `CUpointer_attribute`s that are answered; `CU_MEMORYTYPE_HOST` and `_DEVICE`.
mod attribute {
    pub(super) const CONTEXT: u32 = 1;
    pub(super) const MEMORY_TYPE: u32 = 2;
    pub(super) const DEVICE_POINTER: u32 = 3;
    pub(super) const HOST_POINTER: u32 = 4;
    pub(super) const IS_MANAGED: u32 = 8;
    pub(super) const DEVICE_ORDINAL: u32 = 9;
    pub(super) const RANGE_START: u32 = 11;
    pub(super) const RANGE_BYTES: u32 = 12;
    pub(super) const MAPPED: u32 = 13;
    pub(super) const HOST: u32 = 1;
    pub(super) const DEVICE: u32 = 2;
}

/// Writes an attribute of a known pointer.
fn store(client: &Client, data: *mut c_void, number: CUenum, ptr: CUdeviceptr) -> Answer {
    if data.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let address = usize::try_from(ptr).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    if let Some((base, found)) = client.allocation(ptr) {
        return match number {
            // Mapped memory is of no context.
            attribute::CONTEXT if found.context == 0 => raw::store(data.cast(), CUcontext::NULL),
            attribute::CONTEXT => raw::store(
                data.cast(),
                CUcontext::from_addr(client.arena.handle(Kind::Context, found.context)),
            ),
            attribute::MEMORY_TYPE => raw::store(data.cast(), attribute::DEVICE),
            attribute::DEVICE_POINTER => raw::store(data.cast(), ptr),
            attribute::IS_MANAGED => raw::store(data.cast(), 0u32),
            attribute::DEVICE_ORDINAL => {
                raw::store(data.cast(), c_int::try_from(found.device).unwrap_or(c_int::MAX))
            }
            attribute::RANGE_START => raw::store(data.cast(), base),
            attribute::RANGE_BYTES => raw::store(data.cast(), found.bytes),
            attribute::MAPPED => raw::store(data.cast(), 1u32),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        };
    }
    let (base, found) = client.pinned(address, 0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match number {
        attribute::MEMORY_TYPE => raw::store(data.cast(), attribute::HOST),
        attribute::HOST_POINTER => raw::store(data.cast(), ptr),
        attribute::IS_MANAGED => raw::store(data.cast(), 0u32),
        attribute::DEVICE_ORDINAL => raw::store(data.cast(), 0),
        attribute::RANGE_START => raw::store(data.cast(), base),
        attribute::RANGE_BYTES => raw::store(data.cast(), found.bytes),
        // The device does not see host memory from here.
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

pub fn cuPointerGetAttribute(data: *mut c_void, number: CUenum, ptr: CUdeviceptr) -> Answer {
    store(client()?, data, number, ptr)
}

/// What is not known of a pointer is zero here, and no error.
pub fn cuPointerGetAttributes(
    count: c_uint,
    attributes: *mut CUenum,
    data: *mut *mut c_void,
    ptr: CUdeviceptr,
) -> Answer {
    let client = client()?;
    for index in 0..count as usize {
        let (number, place) = (raw::load_at(attributes, index)?, raw::load_at(data, index)?);
        if store(client, place, number, ptr).is_err() && !place.is_null() {
            match number {
                attribute::MEMORY_TYPE | attribute::IS_MANAGED | attribute::MAPPED => {
                    raw::store(place.cast(), 0u32)?
                }
                attribute::DEVICE_ORDINAL => raw::store(place.cast(), -1)?,
                attribute::CONTEXT
                | attribute::DEVICE_POINTER
                | attribute::HOST_POINTER
                | attribute::RANGE_START
                | attribute::RANGE_BYTES => raw::store(place.cast(), 0u64)?,
                _ => return Err(CUresult::ERROR_INVALID_VALUE),
            }
        }
    }
    Ok(())
}
