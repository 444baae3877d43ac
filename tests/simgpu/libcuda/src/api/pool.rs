//! Memory pools and stream-ordered allocation.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{
    CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CU_MEM_LOCATION_TYPE_DEVICE,
    CUdevice, CUdeviceptr, CUenum, CUmemAccessDesc, CUmemLocation, CUmemPoolProps, CUmemPoolPtrExportData,
    CUmemoryPool, CUresult, CUstream,
};
use headgate_simgpu::protocol::{Holding, PoolFigure, Reply};

use super::{device, memory, share, twins};
use crate::driver::{Answer, Driver, driver};
use crate::graph::Work;
use crate::graph::memory::NodeMemory;
use crate::objects::{Allocation, IMPORTED_POOL, Origin, Pool, lock};
use crate::{capture, current, raw};

fn find(driver: &Driver, pool: CUmemoryPool) -> Result<Arc<Pool>, CUresult> {
    driver.pools.get(pool.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

fn take(
    mode: ThreadMode,
    dptr: *mut CUdeviceptr,
    bytes: usize,
    pool: Option<CUmemoryPool>,
    stream: CUstream,
) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    if dptr.is_null() || bytes == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let handle = match pool {
        Some(pool) => pool.addr(),
        None => lock(&driver.current_pools)[context.device],
    };
    let pool = driver.pools.get(handle).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if let Some(capture) = capture::of(&stream) {
        // The allocation becomes a node of the graph, and its memory comes with the graph's launches.
        let memory = NodeMemory::new(driver, pool.device, bytes as u64)?;
        let address = memory.address;
        capture.record(driver, &stream, Work::Allocate(memory))?;
        return raw::store(dptr, address);
    }
    driver.pools_used.store(true, Ordering::Release);
    let bytes = bytes as u64;
    match driver.hold(Holding::PoolAllocate { pool: pool.number, bytes, slot: stream.slot })? {
        Reply::Address(address) => {
            let origin = Origin::Pool(handle);
            memory::enter(driver, address, Allocation { bytes, context: 0, device: pool.device, origin });
            raw::store(dptr, address)
        }
        other => Err(device::out_of_turn(other)),
    }
}

fn allocate_async(mode: ThreadMode, dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> Answer {
    take(mode, dptr, bytes, None, stream)
}

fn allocate_from_pool(
    mode: ThreadMode,
    dptr: *mut CUdeviceptr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> Answer {
    take(mode, dptr, bytes, Some(pool), stream)
}

twins! {
    cuMemAllocAsync, cuMemAllocAsync_ptsz (dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) = allocate_async;
    cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync_ptsz (dptr: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream) = allocate_from_pool;
}

/// Pools of host memory are not simulated.
pub(crate) fn cuMemPoolCreate(pool: *mut CUmemoryPool, props: *const CUmemPoolProps) -> Answer {
    let driver = driver()?;
    let props = raw::load(props)?;
    if pool.is_null() || props.allocType != CU_MEM_ALLOCATION_TYPE_PINNED {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let shareable = props.handleTypes & !CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR == 0;
    if props.location.kind != CU_MEM_LOCATION_TYPE_DEVICE || !shareable {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let index = device::index(driver, props.location.id)?;
    let most = props.maxSize as u64;
    let number = u32::try_from(index).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    match driver.hold(Holding::MakePool { device: number, most })? {
        Reply::Block(number) => {
            let number = u32::try_from(number).map_err(|_| CUresult::ERROR_UNKNOWN)?;
            let handle = driver.pools.reserve();
            driver.pools.insert(handle, Arc::new(Pool::new(number, index, false, props.handleTypes)));
            raw::store(pool, CUmemoryPool::from_addr(handle))
        }
        other => Err(device::out_of_turn(other)),
    }
}

/// A device whose current pool is destroyed goes back to its default one.
pub(crate) fn cuMemPoolDestroy(pool: CUmemoryPool) -> Answer {
    let driver = driver()?;
    let known = find(driver, pool)?;
    if known.is_default {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    driver.pools.remove(pool.addr());
    for (device, current) in lock(&driver.current_pools).iter_mut().enumerate() {
        if *current == pool.addr() {
            *current = driver.default_pools[device];
        }
    }
    if known.number == IMPORTED_POOL {
        return Ok(());
    }
    driver.hold(Holding::EndPool { pool: known.number }).map(|_| ())
}

/// What the descriptor of an exported pool holds: which device the pool is on.
const POOL_NOTE: &str = "headgate-simgpu-pool ";

/// The descriptor names the pool; its allocations are exported one by one.
pub(crate) fn cuMemPoolExportToShareableHandle(
    to: *mut c_void,
    pool: CUmemoryPool,
    kind: CUenum,
    flags: u64,
) -> Answer {
    let driver = driver()?;
    let known = find(driver, pool)?;
    let allowed = kind == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR && known.handle_types & kind != 0;
    if to.is_null() || flags != 0 || !allowed || known.number == IMPORTED_POOL {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let note = format!("{POOL_NOTE}{}", known.device);
    let descriptor = raw::note(note.as_bytes()).ok_or(CUresult::ERROR_OPERATING_SYSTEM)?;
    raw::store(to.cast::<c_int>(), descriptor)
}

/// The descriptor travels in the pointer itself. "Imported memory pools do not support creating new allocations."
pub(crate) fn cuMemPoolImportFromShareableHandle(
    pool: *mut CUmemoryPool,
    os_handle: *mut c_void,
    kind: CUenum,
    flags: u64,
) -> Answer {
    let driver = driver()?;
    if pool.is_null() || kind != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let descriptor = c_int::try_from(os_handle.addr()).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let note = raw::noted(descriptor).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let note = String::from_utf8(note).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let device = note.strip_prefix(POOL_NOTE).and_then(|device| device.parse().ok());
    let device = device::index(driver, device.ok_or(CUresult::ERROR_INVALID_VALUE)?)?;
    let handle = driver.pools.reserve();
    driver.pools.insert(handle, Arc::new(Pool::new(IMPORTED_POOL, device, false, 0)));
    raw::store(pool, CUmemoryPool::from_addr(handle))
}

/// Freed by `cuMemFree` or `cuMemFreeAsync`, and in every importer before the exporter frees it.
pub(crate) fn cuMemPoolImportPointer(
    ptr: *mut CUdeviceptr,
    pool: CUmemoryPool,
    data: *mut CUmemPoolPtrExportData,
) -> Answer {
    let driver = driver()?;
    let data = raw::load(data.cast_const())?;
    if ptr.is_null() || find(driver, pool)?.number != IMPORTED_POOL {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(ptr, share::open(driver, &data.reserved, Origin::ImportedFromPool)?)
}

const REUSE_FOLLOW: CUenum = 1;
const REUSE_INTERNAL: CUenum = 3;
const THRESHOLD: CUenum = 4;

/// `CUmemPool_attribute` from 4 on.
fn figure(attribute: CUenum) -> Option<PoolFigure> {
    match attribute {
        THRESHOLD => Some(PoolFigure::Threshold),
        5 => Some(PoolFigure::Reserved),
        6 => Some(PoolFigure::ReservedHigh),
        7 => Some(PoolFigure::Used),
        8 => Some(PoolFigure::UsedHigh),
        _ => None,
    }
}

pub(crate) fn cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: CUenum, value: *mut c_void) -> Answer {
    let driver = driver()?;
    let pool = find(driver, pool)?;
    if let REUSE_FOLLOW..=REUSE_INTERNAL = attribute {
        return raw::store(value.cast(), pool.reuse[attribute as usize - 1].load(Ordering::Relaxed));
    }
    let figure = figure(attribute).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match driver.hold(Holding::AskPool { pool: pool.number, figure })? {
        Reply::Value(told) => raw::store(value.cast(), told),
        other => Err(device::out_of_turn(other)),
    }
}

pub(crate) fn cuMemPoolSetAttribute(pool: CUmemoryPool, attribute: CUenum, value: *mut c_void) -> Answer {
    let driver = driver()?;
    let pool = find(driver, pool)?;
    if let REUSE_FOLLOW..=REUSE_INTERNAL = attribute {
        let wanted: u32 = raw::load(value.cast_const().cast())?;
        pool.reuse[attribute as usize - 1].store(wanted, Ordering::Relaxed);
        return Ok(());
    }
    let figure = figure(attribute).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let value: u64 = raw::load(value.cast_const().cast())?;
    driver.hold(Holding::SetPool { pool: pool.number, figure, value }).map(|_| ())
}

pub(crate) fn cuMemPoolTrimTo(pool: CUmemoryPool, keep: usize) -> Answer {
    let driver = driver()?;
    let pool = find(driver, pool)?;
    driver.hold(Holding::TrimPool { pool: pool.number, keep: keep as u64 }).map(|_| ())
}

/// The devices have no links, so only a pool's own device may be named.
pub(crate) fn cuMemPoolSetAccess(pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize) -> Answer {
    const READ_WRITE: CUenum = 3;
    let driver = driver()?;
    let pool = find(driver, pool)?;
    for index in 0..count {
        let access = raw::load_at(map, index)?;
        let device = device::index(driver, access.location.id)?;
        if access.location.kind != CU_MEM_LOCATION_TYPE_DEVICE {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        if device != pool.device || access.flags != READ_WRITE {
            return Err(CUresult::ERROR_INVALID_DEVICE);
        }
    }
    Ok(())
}

pub(crate) fn cuMemPoolGetAccess(
    flags: *mut CUenum,
    pool: CUmemoryPool,
    location: *mut CUmemLocation,
) -> Answer {
    const NONE: CUenum = 0;
    const READ_WRITE: CUenum = 3;
    let driver = driver()?;
    let pool = find(driver, pool)?;
    let location = raw::load(location.cast_const())?;
    if location.kind != CU_MEM_LOCATION_TYPE_DEVICE {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let own = device::index(driver, location.id)? == pool.device;
    raw::store(flags, if own { READ_WRITE } else { NONE })
}

pub(crate) fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> Answer {
    let driver = driver()?;
    let handle = lock(&driver.current_pools)[device::index(driver, dev)?];
    raw::store(pool, CUmemoryPool::from_addr(handle))
}

pub(crate) fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) -> Answer {
    let driver = driver()?;
    let device = device::index(driver, dev)?;
    let known = find(driver, pool)?;
    if known.device != device || known.number == IMPORTED_POOL {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    lock(&driver.current_pools)[device] = pool.addr();
    Ok(())
}

/// An allocation of a pool for another process.
pub(crate) fn cuMemPoolExportPointer(data: *mut CUmemPoolPtrExportData, ptr: CUdeviceptr) -> Answer {
    let driver = driver()?;
    let (start, allocation) = memory::find(driver, ptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let Origin::Pool(pool) = allocation.origin else { return Err(CUresult::ERROR_INVALID_VALUE) };
    let shareable = driver.pools.get(pool).is_some_and(|pool| pool.handle_types != 0);
    if start != ptr || !shareable {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    raw::store(data, CUmemPoolPtrExportData { reserved: share::name(driver, ptr)? })
}

/// The pools of a place: only devices have any.
fn place(location: *mut CUmemLocation, kind: CUenum) -> Result<CUdevice, CUresult> {
    let location = raw::load(location.cast_const())?;
    if location.kind != CU_MEM_LOCATION_TYPE_DEVICE || kind != CU_MEM_ALLOCATION_TYPE_PINNED {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    Ok(location.id)
}

pub(crate) fn cuMemGetDefaultMemPool(
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUenum,
) -> Answer {
    device::cuDeviceGetDefaultMemPool(pool, place(location, kind)?)
}

pub(crate) fn cuMemGetMemPool(pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUenum) -> Answer {
    cuDeviceGetMemPool(pool, place(location, kind)?)
}

pub(crate) fn cuMemSetMemPool(location: *mut CUmemLocation, kind: CUenum, pool: CUmemoryPool) -> Answer {
    cuDeviceSetMemPool(place(location, kind)?, pool)
}
