//! Device memory. Its addresses are the device's own: programs put them into arguments and into memory itself.

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUcontext, CUdeviceptr, CUenum, CUmemoryPool, CUresult, CUstream};

use crate::client::objects::{Allocation, Context, Reached, lock};
use crate::client::state::{Client, client};
use crate::client::{Answer, capture, current, raw, travel};
use crate::limits::CARVED_BYTES_MAX;
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

/// Small ones are carved from what was taken ahead, if there is enough. What does not fit is the worker's to refuse.
pub fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytes: usize) -> Answer {
    let client = client()?;
    capture::forbid_unsafe_call(client)?;
    let context = current::context(client)?;
    let credits = &client.session.credits;
    let carved = |address: u64| {
        let found = Allocation { bytes: bytes as u64, context: context.id, device: context.device };
        lock(&client.allocations).insert(address, found);
        raw::store(dptr, address)
    };
    if !dptr.is_null()
        && let Some(address) = credits.carve(context.id, bytes as u64)
    {
        carved(address)?;
        return client.session.take_ahead(&context);
    }
    let words = [dptr.to_word(), bytes.to_word()];
    match allocate(Symbol::cuMemAlloc_v2, dptr, || bytes as u64, &words) {
        Err(CUresult::ERROR_OUT_OF_MEMORY) => {
            let last = credits.carve_any(context.id, bytes as u64);
            carved(last.ok_or(CUresult::ERROR_OUT_OF_MEMORY)?)
        }
        // It was small, and there was nothing to carve it from. The next one finds something.
        Ok(()) if bytes as u64 <= CARVED_BYTES_MAX => client.session.take_ahead(&context),
        outcome => outcome,
    }
}

/// What was taken ahead is free as far as the program is concerned.
pub fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let symbol = Symbol::cuMemGetInfo_v2;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, &[free.to_word(), total.to_word()], Some(&context))?;
    let unused = usize::try_from(client.session.credits.unused(context.device)).unwrap_or(0);
    raw::store(free, raw::load(free)?.saturating_add(unused).min(raw::load(total)?))
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
    let found = forget(client, dptr)?;
    if client.session.credits.holds(dptr) {
        return give_back(client, dptr, &found);
    }
    client.session.credits.freed(found.context);
    let mut arguments = Arguments::new();
    arguments.push(Argument::Word(dptr));
    client.session.tell(context.id, &Operation::Call(Symbol::cuMemFree_v2, arguments))
}

/// Gives a carved block back. What uses it next begins when what used it before is done, and as behind the driver's own
/// `cuMemFree` so does everything else.
fn give_back(client: &Client, dptr: CUdeviceptr, found: &Allocation) -> Answer {
    let context = client.contexts.get(found.context).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    if client.captures_any() {
        // Waiting for a context harms its captures.
        client.session.credits.park(context.id, dptr, context.everything());
        return Ok(());
    }
    if !context.everything().iter().all(Reached::is_done) {
        client.session.tell(context.id, &Operation::Barrier)?;
    }
    client.session.credits.give_back(context.id, dptr);
    client.session.give_back(client.session.credits.spares(), true).map(|_| ())
}

pub fn cuMemFreeAsync(dptr: CUdeviceptr, stream: CUstream) -> Answer {
    let client = client()?;
    let context = current::context(client)?;
    let stream = current::stream(client, &context, stream.addr())?;
    let recorded = capture::admit(client, &stream)?;
    if dptr == 0 {
        return Ok(());
    }
    let carved = client.session.credits.holds(dptr);
    // A graph frees what a graph has allocated. To be told so, the driver must be asked.
    if !(carved && recorded) {
        let found = forget(client, dptr)?;
        if carved {
            let behind = if stream.id == 0 { context.blocking() } else { vec![Reached::now(&stream)] };
            client.session.credits.park(found.context, dptr, behind);
            return Ok(());
        }
    }
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

/// What is not known of a pointer is zero here, and no error; its device is none (cuda.h, `CU_DEVICE_INVALID`).
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
                attribute::DEVICE_ORDINAL => raw::store(place.cast(), -2)?,
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
