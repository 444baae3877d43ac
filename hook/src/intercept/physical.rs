//! Physical memory, its mappings, and the objects it is bound to.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{
    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUdevice, CUdeviceptr, CUenum, CUmemAllocationProp,
};

use super::place::{self, Stop};
use crate::driver::{self, Out};
use crate::ledger;
use crate::ledger::blocks::{self, Shared, Tile};
use crate::verdict::{Bypass, Verdict};

/// `CU_MEM_HANDLE_TYPE_FABRIC`.
const HANDLE_TYPE_FABRIC: CUenum = 8;
/// Handles of logical endpoints are 32-bit numbers of their own; this bit keeps them apart from memory handles.
const ENDPOINT: u64 = 1 << 63;

/// `cuMemCreate`: charged where the memory is, whichever context is current. Host memory is not device memory.
pub(crate) fn create(
    handle: Out<u64>,
    size: usize,
    props: Option<CUmemAllocationProp>,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let reserve = || {
        let session = place::metered()?;
        let props = props.ok_or(Stop::Bypass(Bypass::DriverWillRefuse))?;
        let device = driver::device_of(props.location).ok_or(Stop::Bypass(Bypass::HostMemory))?;
        let row = session.row(device).ok_or(Stop::Bypass(Bypass::UnknownDevice))?;
        ledger::overhead::measure_if_due(session);
        let charge = ledger::charge(session, row, size as u64).map_err(|_| Stop::NoRoom)?;
        Ok((charge, device))
    };
    let (charge, device) = match reserve() {
        Ok(reserved) => reserved,
        Err(stop) => return Stop::verdict(stop),
    };
    Verdict::ForwardThen(move |status: CUresult| {
        match handle.get().filter(|_| status.is_success()) {
            Some(handle) => blocks::created(handle, Some(charge), device),
            None => ledger::credit(charge),
        }
        status
    })
}

/// `cuMulticastCreate`: takes no device memory, but keeps alive what is bound to it.
pub(crate) fn create_multicast(object: Out<u64>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if let (true, Some(object), Ok(_)) = (status.is_success(), object.get(), place::metered()) {
            blocks::created(object, None, 0);
        }
        status
    })
}

/// `cuLogicalEndpointCreate`, likewise.
pub(crate) fn create_endpoint(id: u32) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() && place::metered().is_ok() {
            blocks::created(endpoint(id), None, 0);
        }
        status
    })
}

/// The handle under which a logical endpoint is kept.
pub(crate) fn endpoint(id: u32) -> u64 {
    ENDPOINT | u64::from(id)
}

/// `cuMemRelease`: the memory lives on while it is mapped.
pub(crate) fn release(handle: u64) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let block = blocks::let_go(handle);
    Verdict::ForwardThen(move |status: CUresult| {
        match block {
            Some(block) if status.is_success() => blocks::handle_dropped(block),
            Some(block) => blocks::handle_made(block, handle),
            None => {}
        }
        status
    })
}

/// `cuMemRetainAllocationHandle`: one handle more.
pub(crate) fn retain(handle: Out<u64>, address: CUdeviceptr) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let block = blocks::begin_handle_at(address);
    Verdict::ForwardThen(move |status: CUresult| {
        end_handle(block, &handle, status);
        status
    })
}

fn end_handle(block: Option<blocks::BlockId>, handle: &Out<u64>, status: CUresult) {
    match (block, handle.get().filter(|_| status.is_success())) {
        (Some(block), Some(handle)) => blocks::handle_made(block, handle),
        (Some(block), None) => blocks::handle_dropped(block),
        (None, _) => {}
    }
}

/// `cuMemMap`.
pub(crate) fn map(
    address: CUdeviceptr,
    size: usize,
    handle: u64,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let block = blocks::begin_mapping(handle);
    Verdict::ForwardThen(move |status: CUresult| {
        match block {
            Some(block) if status.is_success() => blocks::mapped(block, address, size as u64),
            Some(block) => blocks::mapping_dropped(block),
            None => {}
        }
        status
    })
}

/// `cuMemUnmap`.
pub(crate) fn unmap(address: CUdeviceptr, size: usize) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let ranges = blocks::begin_unmap(address, size as u64);
    Verdict::ForwardThen(move |status: CUresult| {
        blocks::end_unmap(ranges, status.is_success());
        status
    })
}

/// `cuMulticastBindMem`, `cuLogicalEndpointBindMem`. Without a device, that of the memory is meant.
pub(crate) fn bind(
    object: u64,
    device: Option<CUdevice>,
    offset: u64,
    handle: u64,
    size: u64,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    end_binding(blocks::begin_mapping(handle), object, device, offset, size)
}

/// `cuMulticastBindAddr`, `cuLogicalEndpointBindAddr`.
pub(crate) fn bind_address(
    object: u64,
    device: Option<CUdevice>,
    offset: u64,
    address: CUdeviceptr,
    size: u64,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    end_binding(blocks::begin_mapping_at(address), object, device, offset, size)
}

fn end_binding(
    block: Option<blocks::BlockId>,
    object: u64,
    device: Option<CUdevice>,
    offset: u64,
    size: u64,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        match block {
            Some(block) if status.is_success() => blocks::bound(block, object, device, offset, size),
            Some(block) => blocks::mapping_dropped(block),
            None => {}
        }
        status
    })
}

/// `cuMulticastUnbind`, `cuLogicalEndpointUnbind`.
pub(crate) fn unbind(
    object: u64,
    device: CUdevice,
    offset: u64,
    size: u64,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        if status.is_success() {
            blocks::unbound(object, device, offset, size);
        }
        status
    })
}

/// `cuMemExportToShareableHandle`: the exporter stays charged, whoever imports it.
pub(crate) fn export(
    shareable: *const u8,
    handle: u64,
    kind: CUenum,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    Verdict::ForwardThen(move |status: CUresult| {
        let shared = match kind {
            CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR => {
                driver::argument(shareable.cast::<i32>()).and_then(descriptor)
            }
            HANDLE_TYPE_FABRIC => driver::argument(shareable.cast()).map(Shared::Fabric),
            _ => None,
        };
        if let (true, Some(shared)) = (status.is_success(), shared) {
            blocks::exported(handle, shared);
        }
        status
    })
}

fn descriptor(number: i32) -> Option<Shared> {
    Some(Shared::Descriptor { number, file: driver::file_of(number)? })
}

/// `cuMemImportFromShareableHandle`: charged to the exporter only. What this very process exported gets one
/// handle more, so that importing it and releasing the original frees no quota.
pub(crate) fn import(
    handle: Out<u64>,
    shareable: *const u8,
    kind: CUenum,
) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    let shared = match kind {
        // Here the descriptor is passed in the place of the pointer.
        CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR => i32::try_from(shareable.addr()).ok().and_then(descriptor),
        HANDLE_TYPE_FABRIC => driver::argument(shareable.cast()).map(Shared::Fabric),
        _ => None,
    };
    let block = shared.and_then(blocks::begin_handle_of);
    Verdict::ForwardThen(move |status: CUresult| {
        end_handle(block, &handle, status);
        status
    })
}

/// `CUarrayMapInfo`: one tile of a sparse array and what is to back it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MapInfo {
    resource_type: u32,
    resource: u64,
    /// Kind of subresource, then 32 bytes that say which.
    subresource: [u8; 40],
    operation: u32,
    handle_type: u32,
    handle: u64,
    offset: u64,
    device_mask: u32,
    flags: u32,
    reserved: [u32; 2],
}

const _: () = assert!(size_of::<MapInfo>() == 96);

/// `cuMemMapArrayAsync`: maps memory into sparse arrays, or out of them.
pub(crate) fn map_tiles(infos: Vec<MapInfo>) -> Verdict<impl FnOnce(CUresult) -> CUresult> {
    const MAP: u32 = 1;
    let begun: Vec<(Tile, Option<blocks::BlockId>)> = infos
        .into_iter()
        .map(|info| {
            let block = (info.operation == MAP).then(|| blocks::begin_mapping(info.handle)).flatten();
            ((info.resource, info.subresource), block)
        })
        .collect();
    Verdict::ForwardThen(move |status: CUresult| {
        for (tile, block) in begun {
            match block {
                Some(block) if status.is_success() => blocks::tile_mapped(tile, block),
                Some(block) => blocks::mapping_dropped(block),
                None if status.is_success() => blocks::tile_unmapped(&tile),
                None => {}
            }
        }
        status
    })
}
