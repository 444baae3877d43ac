//! Virtual memory management and multicast objects.
//!
//! A multicast object keeps what is bound to it alive and can be mapped, but the mapping has no bytes: kernels reach it
//! with instructions that are not simulated, and anything else faults, as reading one faults on real devices.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_void};
use std::sync::PoisonError;

use headgate_abi::cuda::types::{
    CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CU_MEM_LOCATION_TYPE_DEVICE,
    CU_MEM_LOCATION_TYPE_HOST, CU_MEM_LOCATION_TYPE_HOST_NUMA, CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT,
    CUdevice, CUdeviceptr, CUenum, CUmemAccessDesc, CUmemAllocationProp, CUmemLocation,
    CUmulticastObjectProp, CUresult,
};
use headgate_simgpu::mappings::{FIRST, NODES};
use headgate_simgpu::protocol::{Holding, Reply, Request};

use super::{device, memory};
use crate::driver::{Answer, Driver, accept, driver, lost};
use crate::objects::{Allocation, Block, Origin, lock};
use crate::raw;

/// Handles of physical memory, so that no other number is taken for one.
const HANDLE: u64 = 0x5b00_0000_0000_0000;
const PAGE: u64 = 4_096;

fn granule(driver: &Driver) -> u64 {
    driver.connection.node().granule
}

fn block_of(handle: u64) -> Result<u64, CUresult> {
    handle.checked_sub(HANDLE).filter(|&block| block > 0).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Sets addresses aside: at `wanted` where that is free, elsewhere otherwise.
pub(crate) fn reserve(driver: &Driver, bytes: u64, alignment: u64, wanted: u64) -> Result<u64, CUresult> {
    let mut reserved = lock(&driver.reserved);
    let fits = |reserved: &std::collections::BTreeMap<u64, u64>, at: u64| {
        let end = at.checked_add(bytes).filter(|&end| at >= FIRST && end <= NODES);
        end.is_some_and(|end| {
            reserved.range(..end).next_back().is_none_or(|(&start, &taken)| start + taken <= at)
        })
    };
    let aligned = |at: u64| at.checked_next_multiple_of(alignment);
    let behind = reserved.iter().next_back().map_or(FIRST, |(&start, &bytes)| start + bytes);
    let candidates = [wanted, aligned(behind).unwrap_or(NODES)];
    let mut found = candidates.into_iter().find(|&at| at.is_multiple_of(alignment) && fits(&reserved, at));
    if found.is_none() {
        // The end of the range is reached; look between what is still reserved.
        let starts = std::iter::once(FIRST).chain(reserved.iter().map(|(&start, &bytes)| start + bytes));
        found = starts.filter_map(aligned).find(|&at| fits(&reserved, at));
    }
    let found = found.ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    reserved.insert(found, bytes);
    Ok(found)
}

/// Gives addresses back.
pub(crate) fn unreserve(driver: &Driver, address: u64, bytes: u64) -> Answer {
    let mut reserved = lock(&driver.reserved);
    if reserved.get(&address) != Some(&bytes) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    reserved.remove(&address);
    Ok(())
}

pub(crate) fn cuMemAddressReserve(
    ptr: *mut CUdeviceptr,
    size: usize,
    alignment: usize,
    addr: CUdeviceptr,
    flags: u64,
) -> Answer {
    let driver = driver()?;
    let alignment = if alignment == 0 { granule(driver) } else { alignment as u64 };
    let size = size as u64;
    if ptr.is_null() || size == 0 || !size.is_multiple_of(PAGE) || !alignment.is_power_of_two() || flags != 0
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(ptr, reserve(driver, size, alignment.max(granule(driver)), addr)?)
}

pub(crate) fn cuMemAddressFree(ptr: CUdeviceptr, size: usize) -> Answer {
    let driver = driver()?;
    let end = ptr.checked_add(size as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let allocations = driver.allocations.read().unwrap_or_else(PoisonError::into_inner);
    if allocations.range(ptr..end).next().is_some() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    drop(allocations);
    unreserve(driver, ptr, size as u64)
}

/// Which device memory of a location is; `None` for the host's.
fn place(driver: &Driver, location: CUmemLocation) -> Result<Option<u32>, CUresult> {
    match location.kind {
        CU_MEM_LOCATION_TYPE_DEVICE => {
            let index = device::index(driver, location.id)?;
            Ok(Some(u32::try_from(index).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?))
        }
        CU_MEM_LOCATION_TYPE_HOST
        | CU_MEM_LOCATION_TYPE_HOST_NUMA
        | CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT => Ok(None),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

fn check(driver: &Driver, prop: &CUmemAllocationProp) -> Result<Option<u32>, CUresult> {
    if prop.kind != CU_MEM_ALLOCATION_TYPE_PINNED || prop.reserved != [0; 4] {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if prop.requestedHandleTypes & !CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    place(driver, prop.location)
}

fn know(driver: &Driver, number: u64, block: Block) {
    let mut blocks = lock(&driver.blocks);
    blocks.entry(number).and_modify(|known| known.handles += 1).or_insert(block);
}

pub(crate) fn cuMemCreate(
    handle: *mut u64,
    size: usize,
    prop: *const CUmemAllocationProp,
    flags: u64,
) -> Answer {
    let driver = driver()?;
    let prop = raw::load(prop)?;
    let device = check(driver, &prop)?;
    let bytes = size as u64;
    if handle.is_null() || bytes == 0 || !bytes.is_multiple_of(granule(driver)) || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    match driver.hold(Holding::Create { device, bytes })? {
        Reply::Block(number) => {
            let block = Block {
                bytes,
                location: (prop.location.kind, prop.location.id),
                handle_types: prop.requestedHandleTypes,
                is_multicast: false,
                handles: 1,
                mappings: 0,
                devices_missing: 0,
            };
            know(driver, number, block);
            raw::store(handle, HANDLE + number)
        }
        other => Err(device::out_of_turn(other)),
    }
}

/// Forgets a block of which the process has neither handle nor mapping.
fn forget_unused(driver: &Driver, number: u64) {
    let mut blocks = lock(&driver.blocks);
    if blocks.get(&number).is_some_and(|block| block.handles == 0 && block.mappings == 0) {
        blocks.remove(&number);
    }
}

/// One handle less.
pub(crate) fn release(driver: &Driver, number: u64) -> Answer {
    {
        let mut blocks = lock(&driver.blocks);
        let block = blocks.get_mut(&number).filter(|block| block.handles > 0);
        block.ok_or(CUresult::ERROR_INVALID_VALUE)?.handles -= 1;
    }
    forget_unused(driver, number);
    driver.hold(Holding::Release { block: number }).map(|_| ())
}

pub(crate) fn cuMemRelease(handle: u64) -> Answer {
    release(driver()?, block_of(handle)?)
}

pub(crate) fn cuMemRetainAllocationHandle(handle: *mut u64, addr: *mut c_void) -> Answer {
    let driver = driver()?;
    let (_, allocation) = memory::find(driver, addr.addr() as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let Origin::Mapped(number) = allocation.origin else { return Err(CUresult::ERROR_INVALID_VALUE) };
    driver.hold(Holding::Retain { block: number })?;
    if let Some(block) = lock(&driver.blocks).get_mut(&number) {
        block.handles += 1;
    }
    raw::store(handle, HANDLE + number)
}

fn known(driver: &Driver, number: u64) -> Result<Block, CUresult> {
    lock(&driver.blocks).get(&number).copied().ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Maps a part of a block at a reserved address.
fn map(driver: &Driver, address: u64, bytes: u64, number: u64, offset: u64) -> Answer {
    let block = known(driver, number)?;
    driver.hold(Holding::Map { address, bytes, block: number, offset })?;
    if let Some(block) = lock(&driver.blocks).get_mut(&number) {
        block.mappings += 1;
    }
    let device = match block.location {
        (CU_MEM_LOCATION_TYPE_DEVICE, id) => device::index(driver, id)?,
        _ => 0,
    };
    memory::enter(driver, address, Allocation { bytes, context: 0, device, origin: Origin::Mapped(number) });
    Ok(())
}

pub(crate) fn cuMemMap(ptr: CUdeviceptr, size: usize, offset: usize, handle: u64, flags: u64) -> Answer {
    let driver = driver()?;
    let (size, offset) = (size as u64, offset as u64);
    let number = block_of(handle)?;
    // "offset" must be zero so far (CUDA driver API, cuMemMap).
    if size == 0 || flags != 0 || offset != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if !size.is_multiple_of(granule(driver)) || !ptr.is_multiple_of(granule(driver)) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let inside = {
        let reserved = lock(&driver.reserved);
        let range = reserved.range(..=ptr).next_back();
        range.is_some_and(|(&start, &bytes)| ptr.checked_add(size).is_some_and(|end| end <= start + bytes))
    };
    if !inside || lock(&driver.blocks).get(&number).is_none_or(|block| block.handles == 0) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if known(driver, number)?.devices_missing > 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    map(driver, ptr, size, number, offset)
}

/// Takes the mappings of a range away, which must be whole ones.
fn unmap(driver: &Driver, address: u64, bytes: u64) -> Answer {
    driver.hold(Holding::Unmap { address, bytes })?;
    let gone: Vec<Allocation> = {
        let mut allocations = driver.allocations.write().unwrap_or_else(PoisonError::into_inner);
        let starts: Vec<u64> = allocations.range(address..address + bytes).map(|(&start, _)| start).collect();
        starts.into_iter().filter_map(|start| allocations.remove(&start)).collect()
    };
    for allocation in gone {
        if let Origin::Mapped(number) = allocation.origin {
            if let Some(block) = lock(&driver.blocks).get_mut(&number) {
                block.mappings -= 1;
            }
            forget_unused(driver, number);
        }
    }
    Ok(())
}

/// Waits for nothing: the program must have, as CUDA says.
pub(crate) fn cuMemUnmap(ptr: CUdeviceptr, size: usize) -> Answer {
    let driver = driver()?;
    let end = ptr.checked_add(size as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mapped = {
        let allocations = driver.allocations.read().unwrap_or_else(PoisonError::into_inner);
        let mut inside = allocations.range(ptr..end).peekable();
        inside.peek().is_some() && inside.all(|(_, known)| matches!(known.origin, Origin::Mapped(_)))
    };
    if !mapped {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    unmap(driver, ptr, size as u64)
}

/// Access is kept for a mapping as a whole: the devices have no links, so only the memory's own device, or any device
/// for host memory, can be named.
pub(crate) fn cuMemSetAccess(
    ptr: CUdeviceptr,
    size: usize,
    desc: *const CUmemAccessDesc,
    count: usize,
) -> Answer {
    let driver = driver()?;
    for index in 0..count {
        let access = raw::load_at(desc, index)?;
        let (read, write) = match access.flags {
            0 => (false, false),
            1 => (true, false),
            3 => (true, true),
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        let (_, allocation) = memory::find(driver, ptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let Origin::Mapped(number) = allocation.origin else { return Err(CUresult::ERROR_INVALID_VALUE) };
        let of = known(driver, number)?.location.0;
        let wanted = place(driver, access.location)?;
        let own = wanted.is_none_or(|device| device as usize == allocation.device);
        if of == CU_MEM_LOCATION_TYPE_DEVICE && (wanted.is_none() || !own) {
            return Err(CUresult::ERROR_INVALID_DEVICE);
        }
        driver.hold(Holding::Access { address: ptr, bytes: size as u64, read, write })?;
        lock(&driver.access).insert(ptr, access.flags);
    }
    Ok(())
}

pub(crate) fn cuMemGetAccess(flags: *mut u64, location: *const CUmemLocation, ptr: CUdeviceptr) -> Answer {
    let driver = driver()?;
    let wanted = place(driver, raw::load(location)?)?;
    let (start, allocation) = memory::find(driver, ptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if !matches!(allocation.origin, Origin::Mapped(_)) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let own = wanted.is_some_and(|device| device as usize == allocation.device);
    // Access was set for a range that begins at this mapping or at one before it.
    let set = lock(&driver.access).range(..=start).next_back().map_or(0, |(_, &flags)| flags);
    raw::store(flags, if own { set.into() } else { 0 })
}

pub(crate) fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    prop: *const CUmemAllocationProp,
    option: CUenum,
) -> Answer {
    let driver = driver()?;
    check(driver, &raw::load(prop)?)?;
    if option > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(granularity, usize::try_from(granule(driver)).unwrap_or(usize::MAX))
}

pub(crate) fn cuMemGetAllocationPropertiesFromHandle(prop: *mut CUmemAllocationProp, handle: u64) -> Answer {
    let block = known(driver()?, block_of(handle)?)?;
    let (kind, id) = block.location;
    let told = CUmemAllocationProp {
        kind: CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: block.handle_types,
        location: CUmemLocation { kind, id },
        win32HandleMetaData: core::ptr::null_mut(),
        compressionType: 0,
        gpuDirectRDMACapable: 0,
        usage: 0,
        reserved: [0; 4],
    };
    raw::store(prop, told)
}

pub(crate) fn cuMemExportToShareableHandle(to: *mut c_void, handle: u64, kind: CUenum, flags: u64) -> Answer {
    let driver = driver()?;
    let number = block_of(handle)?;
    let block = known(driver, number)?;
    let allowed = kind == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR && block.handle_types & kind != 0;
    if to.is_null() || flags != 0 || !allowed || block.handles == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let request = Request::Holding(Holding::Export { block: number });
    let (reply, file) = driver.connection.ask_for_file(&request).map_err(lost)?;
    accept(reply)?;
    let file = file.ok_or(CUresult::ERROR_OPERATING_SYSTEM)?;
    raw::store(to.cast::<c_int>(), std::os::fd::IntoRawFd::into_raw_fd(file))
}

/// A handle from a descriptor that was exported here or elsewhere.
pub(crate) fn import(driver: &Driver, descriptor: c_int) -> Result<u64, CUresult> {
    let inode = raw::inode(descriptor).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match driver.hold(Holding::Import { inode })? {
        Reply::Imported { block, bytes, device, multicast } => {
            let location = match device {
                Some(device) => (CU_MEM_LOCATION_TYPE_DEVICE, device.cast_signed()),
                None => (CU_MEM_LOCATION_TYPE_HOST, 0),
            };
            let imported = Block {
                bytes,
                location,
                handle_types: CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                is_multicast: multicast,
                handles: 1,
                mappings: 0,
                devices_missing: 0,
            };
            know(driver, block, imported);
            Ok(block)
        }
        other => Err(device::out_of_turn(other)),
    }
}

/// The descriptor travels in the pointer itself, as CUDA has it.
pub(crate) fn cuMemImportFromShareableHandle(
    handle: *mut u64,
    os_handle: *mut c_void,
    kind: CUenum,
) -> Answer {
    let driver = driver()?;
    if handle.is_null() || kind != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let descriptor = c_int::try_from(os_handle.addr()).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    raw::store(handle, HANDLE + import(driver, descriptor)?)
}

/// Shows a part of a block somewhere, for reading and writing.
pub(crate) fn show(driver: &Driver, number: u64, offset: u64, bytes: u64) -> Result<u64, CUresult> {
    let granule = granule(driver);
    let room = bytes.checked_next_multiple_of(granule).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let address = reserve(driver, room, granule, 0)?;
    let shown = map(driver, address, bytes, number, offset)
        .and_then(|()| driver.hold(Holding::Access { address, bytes, read: true, write: true }).map(|_| ()));
    if let Err(status) = shown {
        unreserve(driver, address, room)?;
        return Err(status);
    }
    Ok(address)
}

/// Takes away every place where a block is shown.
pub(crate) fn hide_all(driver: &Driver, number: u64) -> Answer {
    let shown: Vec<(u64, u64)> = {
        let allocations = driver.allocations.read().unwrap_or_else(PoisonError::into_inner);
        let of = allocations.iter().filter(|(_, known)| known.origin == Origin::Mapped(number));
        of.map(|(&address, known)| (address, known.bytes)).collect()
    };
    for (address, bytes) in shown {
        unmap(driver, address, bytes)?;
        unreserve(driver, address, bytes.next_multiple_of(granule(driver)))?;
    }
    Ok(())
}

pub(crate) fn cuMulticastCreate(handle: *mut u64, prop: *const CUmulticastObjectProp) -> Answer {
    let driver = driver()?;
    let prop = raw::load(prop)?;
    let bytes = prop.size as u64;
    let devices = driver.connection.node().devices.len();
    if handle.is_null()
        || prop.flags != 0
        || bytes == 0
        || !bytes.is_multiple_of(granule(driver))
        || prop.numDevices == 0
        || prop.numDevices as usize > devices
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let posix = u64::from(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if prop.handleTypes & !posix != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    match driver.hold(Holding::CreateMulticast { bytes })? {
        Reply::Block(number) => {
            let object = Block {
                bytes,
                location: (0, 0),
                handle_types: if prop.handleTypes == 0 {
                    0
                } else {
                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
                },
                is_multicast: true,
                handles: 1,
                mappings: 0,
                devices_missing: prop.numDevices,
            };
            know(driver, number, object);
            raw::store(handle, HANDLE + number)
        }
        other => Err(device::out_of_turn(other)),
    }
}

pub(crate) fn cuMulticastAddDevice(handle: u64, dev: CUdevice) -> Answer {
    let driver = driver()?;
    device::index(driver, dev)?;
    let mut blocks = lock(&driver.blocks);
    let object = blocks.get_mut(&block_of(handle)?).filter(|block| block.is_multicast);
    let object = object.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    object.devices_missing = object.devices_missing.checked_sub(1).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    Ok(())
}

/// A whole block is bound at a time.
pub(crate) fn cuMulticastBindMem(
    multicast: u64,
    offset: usize,
    memory: u64,
    memory_offset: usize,
    size: usize,
    flags: u64,
) -> Answer {
    let driver = driver()?;
    let (object, block) = (block_of(multicast)?, block_of(memory)?);
    let (into, of) = (known(driver, object)?, known(driver, block)?);
    if !into.is_multicast || into.devices_missing > 0 || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if memory_offset != 0 || size as u64 != of.bytes {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    driver.hold(Holding::Bind { multicast: object, offset: offset as u64, block }).map(|_| ())
}

pub(crate) fn cuMulticastUnbind(multicast: u64, dev: CUdevice, offset: usize, _size: usize) -> Answer {
    let driver = driver()?;
    device::index(driver, dev)?;
    driver.hold(Holding::Unbind { multicast: block_of(multicast)?, offset: offset as u64 }).map(|_| ())
}

pub(crate) fn cuMulticastGetGranularity(
    granularity: *mut usize,
    prop: *const CUmulticastObjectProp,
    option: CUenum,
) -> Answer {
    let driver = driver()?;
    raw::load(prop)?;
    if option > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(granularity, usize::try_from(granule(driver)).unwrap_or(usize::MAX))
}

/// Binds on one of the object's devices: that of the memory.
pub(crate) fn cuMulticastBindMem_v2(
    multicast: u64,
    dev: CUdevice,
    offset: usize,
    memory: u64,
    memory_offset: usize,
    size: usize,
    flags: u64,
) -> Answer {
    device::index(driver()?, dev)?;
    cuMulticastBindMem(multicast, offset, memory, memory_offset, size, flags)
}

/// The memory behind a mapping. As with handles, a whole block is bound at a time.
pub(crate) fn cuMulticastBindAddr(
    multicast: u64,
    offset: usize,
    address: CUdeviceptr,
    size: usize,
    flags: u64,
) -> Answer {
    let (start, known) = memory::find(driver()?, address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let Origin::Mapped(block) = known.origin else { return Err(CUresult::ERROR_INVALID_VALUE) };
    if start != address || known.bytes != size as u64 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    cuMulticastBindMem(multicast, offset, HANDLE + block, 0, size, flags)
}

pub(crate) fn cuMulticastBindAddr_v2(
    multicast: u64,
    dev: CUdevice,
    offset: usize,
    address: CUdeviceptr,
    size: usize,
    flags: u64,
) -> Answer {
    device::index(driver()?, dev)?;
    cuMulticastBindAddr(multicast, offset, address, size, flags)
}
