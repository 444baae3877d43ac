//! Device memory.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_uint, c_void};
use std::sync::{Arc, PoisonError};

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{CUcontext, CUdeviceptr, CUenum, CUmemoryPool, CUresult, CUstream};
use headgate_simgpu::protocol::{Command, Holding, Place, Reply, Request};

use super::{context, device, graph, share, twins};
use crate::driver::{Answer, Driver, driver};
use crate::graph::memory::NodeMemory;
use crate::objects::{Allocation, Context, Origin, lock};
use crate::{capture, current, raw};

/// Rows of pitched allocations begin at multiples of this, as texture hardware wants them.
const PITCH: usize = 512;

/// The allocation an address lies in, with its first address.
pub(crate) fn find(driver: &Driver, address: u64) -> Option<(u64, Allocation)> {
    let allocations = driver.allocations.read().unwrap_or_else(PoisonError::into_inner);
    let (&start, &allocation) = allocations.range(..=address).next_back()?;
    (address - start < allocation.bytes).then_some((start, allocation))
}

/// A range of device memory: in one allocation, or in mappings that follow each other. Managed memory is the host's.
pub(crate) fn device_range(driver: &Driver, address: u64, bytes: u64) -> Result<Place, CUresult> {
    let (start, allocation) = find(driver, address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let end = address.checked_add(bytes).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let (mut reached, mut origin) = (start + allocation.bytes, allocation.origin);
    while reached < end && matches!(origin, Origin::Mapped(_)) {
        let (start, next) = find(driver, reached).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        (reached, origin) = (start + next.bytes, next.origin);
    }
    if reached < end {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(if allocation.origin == Origin::Managed { Place::Host(address) } else { Place::Device(address) })
}

/// Enters an address range into the books.
pub(crate) fn enter(driver: &Driver, address: u64, allocation: Allocation) {
    driver.allocations.write().unwrap_or_else(PoisonError::into_inner).insert(address, allocation);
}

/// Takes device memory in a context.
pub(crate) fn allocate(
    driver: &Driver,
    context: &Context,
    bytes: u64,
    origin: Origin,
) -> Result<u64, CUresult> {
    capture::forbid_unsafe_call(driver)?;
    if bytes == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    match driver.ask(&Request::Allocate { context: context.number, bytes })? {
        Reply::Address(address) => {
            enter(
                driver,
                address,
                Allocation { bytes, context: context.home, device: context.device, origin },
            );
            Ok(address)
        }
        other => Err(device::out_of_turn(other)),
    }
}

pub(crate) fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let device = u32::try_from(context.device).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    match driver.ask(&Request::Memory { device })? {
        Reply::Memory { free: free_bytes, total: total_bytes } => {
            raw::store(free, usize::try_from(free_bytes).unwrap_or(usize::MAX))?;
            raw::store(total, usize::try_from(total_bytes).unwrap_or(usize::MAX))
        }
        other => Err(device::out_of_turn(other)),
    }
}

pub(crate) fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytes: usize) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    if dptr.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(dptr, allocate(driver, &context, bytes as u64, Origin::Plain)?)
}

pub(crate) fn cuMemAllocPitch_v2(
    dptr: *mut CUdeviceptr,
    pitch: *mut usize,
    width_bytes: usize,
    height: usize,
    element_bytes: c_uint,
) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    if dptr.is_null() || pitch.is_null() || width_bytes == 0 || !matches!(element_bytes, 4 | 8 | 16) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let row = width_bytes.checked_next_multiple_of(PITCH).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    let bytes = row.checked_mul(height).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    raw::store(dptr, allocate(driver, &context, bytes as u64, Origin::Plain)?)?;
    raw::store(pitch, row)
}

/// Takes an allocation out of the books if its first address was given and `wanted` agrees.
pub(crate) fn take(
    driver: &Driver,
    address: u64,
    wanted: impl Fn(&Allocation) -> bool,
) -> Result<Allocation, CUresult> {
    let mut allocations = driver.allocations.write().unwrap_or_else(PoisonError::into_inner);
    match allocations.get(&address) {
        Some(allocation) if wanted(allocation) => {
            allocations.remove(&address).ok_or(CUresult::ERROR_INVALID_VALUE)
        }
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// Waits for the work of the allocation's context first, as real drivers do.
pub(crate) fn cuMemFree_v2(dptr: CUdeviceptr) -> Answer {
    let driver = driver()?;
    let current = current::context(driver)?;
    if dptr == 0 {
        return Ok(());
    }
    capture::forbid_unsafe_call(driver)?;
    let (start, allocation) = find(driver, dptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if allocation.origin == Origin::ImportedFromPool && start == dptr {
        context::synchronise(driver, &current)?;
        return share::close(driver, dptr, Origin::ImportedFromPool);
    }
    let freeable =
        matches!(allocation.origin, Origin::Plain | Origin::Managed | Origin::Pool(_) | Origin::Node);
    if start != dptr || !freeable {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if allocation.context == 0 {
        context::synchronise(driver, &current)?;
    } else {
        context::synchronise(driver, &*current::resolve(driver, allocation.context)?)?;
    }
    if allocation.origin == Origin::Node {
        let freed = free_node(driver, dptr)?;
        driver.submit(&current.legacy, [Command::ReturnNode { address: dptr }])?;
        drop(freed);
        return Ok(());
    }
    take(driver, dptr, |_| true)?;
    match allocation.origin {
        Origin::Managed => {
            driver.hold(Holding::ReturnManaged { address: dptr })?;
            raw::free_host(
                usize::try_from(dptr).unwrap_or(0),
                usize::try_from(allocation.bytes).unwrap_or(0),
            );
            Ok(())
        }
        _ => driver.ask(&Request::Free { address: dptr }).map(|_| ()),
    }
}

fn free_async(mode: ThreadMode, dptr: CUdeviceptr, stream: CUstream) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    if dptr == 0 {
        return Ok(());
    }
    if let Some(capture) = capture::of(&stream) {
        // "During stream capture, this function .. must be passed the address of a graph allocation."
        return capture.record(driver, &stream, graph::nodes::freeing(driver, dptr)?);
    }
    if NodeMemory::find(driver, dptr).is_some() {
        let freed = free_node(driver, dptr)?;
        driver.submit(&stream, [Command::ReturnNode { address: dptr }])?;
        drop(freed);
        return Ok(());
    }
    if find(driver, dptr).is_some_and(|(_, found)| found.origin == Origin::ImportedFromPool) {
        // The exporter may free it only after this free was waited for: waiting here changes nothing it could see.
        driver.wait(&stream, stream.last())?;
        return share::close(driver, dptr, Origin::ImportedFromPool);
    }
    take(driver, dptr, |allocation| matches!(allocation.origin, Origin::Pool(_)))?;
    driver.submit(&stream, [Command::Free { address: dptr }]).map(|_| ())
}

/// An allocation of a graph that ran is the program's to free, once. Its address stays known as long as the graph does.
fn free_node(driver: &Driver, address: u64) -> Result<Arc<NodeMemory>, CUresult> {
    lock(&driver.live_nodes).remove(&address).ok_or(CUresult::ERROR_INVALID_VALUE)
}

twins! {
    cuMemFreeAsync, cuMemFreeAsync_ptsz (dptr: CUdeviceptr, stream: CUstream) = free_async;
}

/// `CU_MEM_ATTACH_GLOBAL` and `CU_MEM_ATTACH_HOST`.
const ATTACH_GLOBAL: c_uint = 1;
const ATTACH_HOST: c_uint = 2;

/// Managed memory lies in the host's memory here, where programs on both sides find it. It is charged to the device
/// wholly: the device says that it has no `concurrentManagedAccess`, and on such devices managed memory cannot exceed the
/// device's.
pub(crate) fn cuMemAllocManaged(dptr: *mut CUdeviceptr, bytes: usize, flags: c_uint) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    if dptr.is_null() || bytes == 0 || !matches!(flags, ATTACH_GLOBAL | ATTACH_HOST) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    capture::forbid_unsafe_call(driver)?;
    let length = bytes.checked_next_multiple_of(4096).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    let address = raw::allocate_host(length).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    let request =
        Holding::TakeManaged { context: context.number, address: address as u64, bytes: length as u64 };
    if let Err(status) = driver.hold(request) {
        raw::free_host(address, length);
        return Err(status);
    }
    let allocation = Allocation {
        bytes: length as u64,
        context: context.home,
        device: context.device,
        origin: Origin::Managed,
    };
    enter(driver, address as u64, allocation);
    raw::store(dptr, address as u64)
}

pub(crate) fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    bytes: *mut usize,
    dptr: CUdeviceptr,
) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let (start, allocation) = find(driver, dptr).ok_or(CUresult::ERROR_NOT_FOUND)?;
    raw::store_if(base, start);
    raw::store_if(bytes, usize::try_from(allocation.bytes).unwrap_or(usize::MAX));
    Ok(())
}

/// What is known of a pointer.
enum Pointer {
    Device { start: u64, allocation: Allocation },
    Host { start: u64, bytes: u64 },
}

fn describe(driver: &Driver, pointer: u64) -> Option<Pointer> {
    if let Some((start, allocation)) = find(driver, pointer) {
        return Some(Pointer::Device { start, allocation });
    }
    let (start, range) = super::host::find(driver, pointer)?;
    Some(Pointer::Host { start, bytes: range.bytes })
}

/// `CUpointer_attribute`: writes one of a known pointer's properties.
fn attribute(pointer: &Pointer, address: u64, attribute: CUenum, data: *mut c_void) -> Answer {
    const HOST: c_uint = 1;
    const DEVICE: c_uint = 2;
    let (start, bytes) = match pointer {
        Pointer::Device { start, allocation, .. } => (*start, allocation.bytes),
        Pointer::Host { start, bytes } => (*start, *bytes),
    };
    let on_device = matches!(pointer, Pointer::Device { .. });
    match attribute {
        1 => {
            let context = match pointer {
                Pointer::Device { allocation, .. } => CUcontext::from_addr(allocation.context),
                Pointer::Host { .. } => CUcontext::NULL,
            };
            raw::store(data.cast(), context)
        }
        2 => raw::store(data.cast(), if on_device { DEVICE } else { HOST }),
        3 => raw::store(data.cast(), address),
        4 if matches!(pointer, Pointer::Device { allocation, .. } if allocation.origin == Origin::Managed) => {
            raw::store(data.cast(), address)
        }
        4 if on_device => Err(CUresult::ERROR_INVALID_VALUE),
        4 => raw::store(data.cast(), address),
        6 => raw::store(data.cast(), c_uint::from(false)),
        8 => {
            let managed =
                matches!(pointer, Pointer::Device { allocation, .. } if allocation.origin == Origin::Managed);
            raw::store(data.cast(), c_uint::from(managed))
        }
        10 => {
            let sharable =
                matches!(pointer, Pointer::Device { allocation, .. } if allocation.origin == Origin::Plain);
            raw::store(data.cast(), c_uint::from(sharable))
        }
        7 => raw::store(data.cast(), start),
        9 => {
            let device = match pointer {
                Pointer::Device { allocation, .. } => allocation.device,
                Pointer::Host { .. } => 0,
            };
            raw::store(data.cast(), c_int::try_from(device).unwrap_or(c_int::MAX))
        }
        11 => raw::store(data.cast(), start),
        12 => raw::store(data.cast(), usize::try_from(bytes).unwrap_or(usize::MAX)),
        13 => raw::store(data.cast(), c_uint::from(true)),
        17 => {
            let pool = match pointer {
                Pointer::Device { allocation: Allocation { origin: Origin::Pool(pool), .. }, .. } => *pool,
                _ => 0,
            };
            raw::store(data.cast(), CUmemoryPool::from_addr(pool))
        }
        _ => Err(CUresult::ERROR_NOT_SUPPORTED),
    }
}

pub(crate) fn cuPointerGetAttribute(data: *mut c_void, attribute_id: CUenum, ptr: CUdeviceptr) -> Answer {
    let driver = driver()?;
    let pointer = describe(driver, ptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    attribute(&pointer, ptr, attribute_id, data)
}

/// Unlike the singular form, an unknown pointer is no error here: its properties are all null.
pub(crate) fn cuPointerGetAttributes(
    count: c_uint,
    attributes: *mut CUenum,
    data: *mut *mut c_void,
    ptr: CUdeviceptr,
) -> Answer {
    let driver = driver()?;
    let pointer = describe(driver, ptr);
    for index in 0..count as usize {
        let id = raw::load_at(attributes, index)?;
        let to = raw::load_at(data, index)?;
        match &pointer {
            Some(pointer) => match attribute(pointer, ptr, id, to) {
                Err(CUresult::ERROR_INVALID_VALUE) => raw::store(to.cast(), 0_u64)?,
                other => other?,
            },
            None if matches!(id, 2 | 6 | 8 | 13) => raw::store(to.cast(), 0_u32)?,
            None if id == 9 => raw::store(to.cast(), -2_i32)?,
            None => raw::store(to.cast(), 0_u64)?,
        }
    }
    Ok(())
}
