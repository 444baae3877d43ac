//! Memory of other processes, and of other programming interfaces.
//!
//! The importer pays nothing. Using memory that its exporter has freed is undefined, as CUDA says; here the bytes are
//! whatever the exporter's addresses hold.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use headgate_abi::cuda::types::{
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC, CUDA_EXTERNAL_MEMORY_HANDLE_DESC, CUdeviceptr, CUevent,
    CUexternalMemory, CUipcEventHandle, CUipcMemHandle, CUresult,
};
use headgate_simgpu::protocol::{Holding, Reply, Request};
use headgate_simgpu::shared_event::SharedEvent;

use super::{context, device, event, memory, vmm};
use crate::driver::{Answer, Driver, accept, driver, lost};
use crate::objects::{Allocation, Origin, Shared, lock};
use crate::{current, raw};

const MAGIC: u64 = 0x6873_6d69_7364_6768;
const EVENT_MAGIC: u64 = 0x6873_6576_7364_6768;

/// What another process needs to know of an allocation.
pub(crate) fn name(driver: &Driver, address: u64) -> Result<[u8; 64], CUresult> {
    match driver.hold(Holding::Share { address })? {
        Reply::Shared { token, bytes, .. } => {
            let mut name = [0; 64];
            for (part, word) in name.chunks_mut(8).zip([MAGIC, token, bytes]) {
                part.copy_from_slice(&word.to_le_bytes());
            }
            Ok(name)
        }
        other => Err(device::out_of_turn(other)),
    }
}

fn word(name: &[u8; 64], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&name[8 * index..8 * index + 8]);
    u64::from_le_bytes(word)
}

/// Shows another process's allocation.
pub(crate) fn open(driver: &Driver, name: &[u8; 64], origin: Origin) -> Result<u64, CUresult> {
    if word(name, 0) != MAGIC {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let granule = driver.connection.node().granule;
    let room = word(name, 2).checked_next_multiple_of(granule).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let address = vmm::reserve(driver, room, granule, 0)?;
    match driver.hold(Holding::Open { token: word(name, 1), address }) {
        Ok(Reply::Shared { bytes, device, .. }) => {
            let allocation = Allocation { bytes, context: 0, device: device as usize, origin };
            memory::enter(driver, address, allocation);
            Ok(address)
        }
        refused => {
            vmm::unreserve(driver, address, room)?;
            Err(refused.map_or_else(|status| status, device::out_of_turn))
        }
    }
}

pub(crate) fn cuIpcGetMemHandle(handle: *mut CUipcMemHandle, dptr: CUdeviceptr) -> Answer {
    let driver = driver()?;
    let (_, allocation) = memory::find(driver, dptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if allocation.origin != Origin::Plain {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(handle, CUipcMemHandle { reserved: name(driver, dptr)? })
}

pub(crate) fn cuIpcOpenMemHandle_v2(dptr: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint) -> Answer {
    const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;
    let driver = driver()?;
    current::context(driver)?;
    if dptr.is_null() || flags != LAZY_ENABLE_PEER_ACCESS {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(dptr, open(driver, &handle.reserved, Origin::Imported)?)
}

pub(crate) fn cuIpcOpenMemHandle(dptr: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint) -> Answer {
    cuIpcOpenMemHandle_v2(dptr, handle, flags)
}

pub(crate) fn cuIpcCloseMemHandle(dptr: CUdeviceptr) -> Answer {
    let driver = driver()?;
    context::synchronise(driver, &*current::context(driver)?)?;
    close(driver, dptr, Origin::Imported)
}

/// Takes another process's allocation out of sight.
pub(crate) fn close(driver: &Driver, address: u64, origin: Origin) -> Answer {
    let allocation = memory::take(driver, address, |allocation| allocation.origin == origin)?;
    driver.hold(Holding::Unmap { address, bytes: allocation.bytes })?;
    vmm::unreserve(driver, address, allocation.bytes.next_multiple_of(driver.connection.node().granule))
}

/// Maps the memory of an event, and lets the device write there.
fn enter_event(driver: &Driver, file: Option<OwnedFd>) -> Result<Arc<SharedEvent>, CUresult> {
    let file = file.ok_or(CUresult::ERROR_OPERATING_SYSTEM)?;
    let event = SharedEvent::open(&file).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)?;
    driver.connection.post(&Request::Pin { range: event.range() }).map_err(lost)?;
    let event = Arc::new(event);
    lock(&driver.event_memory).push(Arc::clone(&event));
    Ok(event)
}

/// The part of an event that other processes can open.
pub(crate) fn make_event(driver: &Driver) -> Result<Shared, CUresult> {
    let asked = driver.connection.ask_for_file(&Request::Holding(Holding::MakeEvent));
    let (reply, file) = asked.map_err(lost)?;
    match accept(reply)? {
        Reply::Block(token) => Ok(Shared { event: enter_event(driver, file)?, token: Some(token) }),
        other => Err(device::out_of_turn(other)),
    }
}

pub(crate) fn cuIpcGetEventHandle(handle: *mut CUipcEventHandle, event: CUevent) -> Answer {
    let driver = driver()?;
    let known = event::find(driver, event)?;
    let token = known.shared.as_ref().and_then(|shared| shared.token);
    let token = token.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut name = [0; 64];
    for (part, word) in name.chunks_mut(8).zip([EVENT_MAGIC, token]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    raw::store(handle, CUipcEventHandle { reserved: name })
}

pub(crate) fn cuIpcOpenEventHandle(to: *mut CUevent, handle: CUipcEventHandle) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    if to.is_null() || word(&handle.reserved, 0) != EVENT_MAGIC {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let request = Request::Holding(Holding::OpenEvent { token: word(&handle.reserved, 1) });
    let (reply, file) = driver.connection.ask_for_file(&request).map_err(lost)?;
    accept(reply)?;
    let shared = Shared { event: enter_event(driver, file)?, token: None };
    raw::store(to, CUevent::from_addr(event::enter(driver, false, context.home, Some(shared))))
}

/// `CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD`: the only interface that hands out memory here is this one, by
/// `cuMemExportToShareableHandle`. The descriptor is the importer's to close from then on, as with every import.
pub(crate) fn cuImportExternalMemory(
    memory: *mut CUexternalMemory,
    desc: *const CUDA_EXTERNAL_MEMORY_HANDLE_DESC,
) -> Answer {
    const OPAQUE_FD: c_uint = 1;
    let driver = driver()?;
    current::context(driver)?;
    let desc = raw::load(desc)?;
    if memory.is_null() || desc.flags > 1 || desc.size == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if desc.kind != OPAQUE_FD {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the union holds an int here")]
    let descriptor = desc.handle as u32;
    let block = vmm::import(driver, descriptor.cast_signed())?;
    if lock(&driver.blocks).get(&block).is_none_or(|known| desc.size > known.bytes) {
        vmm::release(driver, block)?;
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::close(descriptor.cast_signed());
    let handle = driver.external.reserve();
    driver.external.insert(handle, Arc::new(block));
    raw::store(memory, CUexternalMemory::from_addr(handle))
}

/// Buffers are given back by `cuMemFree`, but here, as they cost nothing, with the memory object.
pub(crate) fn cuExternalMemoryGetMappedBuffer(
    dptr: *mut CUdeviceptr,
    memory: CUexternalMemory,
    desc: *const CUDA_EXTERNAL_MEMORY_BUFFER_DESC,
) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let desc = raw::load(desc)?;
    let block = *driver.external.get(memory.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if dptr.is_null() || desc.flags != 0 || desc.size == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(dptr, vmm::show(driver, block, desc.offset, desc.size)?)
}

pub(crate) fn cuDestroyExternalMemory(memory: CUexternalMemory) -> Answer {
    let driver = driver()?;
    let block = driver.external.remove(memory.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    vmm::hide_all(driver, *block)?;
    vmm::release(driver, *block)
}
