//! Answers of the calls that have outputs.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::alloc::{Layout, alloc_zeroed};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use headgate_abi::cuda::symbols::{ThreadMode, select};
use headgate_abi::cuda::types::*;

pub(crate) use crate::nothing::*;

/// CUDA version it reports.
const VERSION: c_int = 13_000;
const MEMORY_BYTES: usize = 80 << 30;
/// Addresses above this are made up here; below lies host memory.
const FIRST_ADDRESS: u64 = 0xa000_0000_0000;
const ALIGNMENT: u64 = 512;

static NEXT_ADDRESS: AtomicU64 = AtomicU64::new(FIRST_ADDRESS);
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(0x6c00_0000_0000);

#[inline(always)]
fn give<T>(to: *mut T, value: T) -> CUresult {
    if !to.is_null() {
        // SAFETY: the caller passes a place for one T.
        unsafe { to.write_unaligned(value) };
    }
    CUresult::SUCCESS
}

fn handle() -> usize {
    NEXT_HANDLE.fetch_add(16, Ordering::Relaxed)
}

fn text(to: *mut c_char, length: c_int, text: &CStr) -> CUresult {
    let bytes = text.to_bytes_with_nul();
    if usize::try_from(length).is_ok_and(|length| length >= bytes.len()) {
        for (index, &byte) in bytes.iter().enumerate() {
            give(to.wrapping_add(index), c_char::from_ne_bytes([byte]));
        }
    }
    CUresult::SUCCESS
}

pub(crate) fn cuDriverGetVersion(version: *mut c_int) -> CUresult {
    give(version, VERSION)
}

fn look_up(symbol: *const c_char, version: c_int, flags: u64) -> Result<*mut c_void, bool> {
    if symbol.is_null() {
        return Err(false);
    }
    // SAFETY: the caller passes a terminated string.
    let name = unsafe { CStr::from_ptr(symbol) };
    let mode = if flags == 2 { ThreadMode::PerThread } else { ThreadMode::Base };
    let version = u32::try_from(version).unwrap_or(0);
    name.to_str().map_err(|_| false).and_then(|name| select(name, version, mode)).map(crate::address_of)
}

pub(crate) fn cuGetProcAddress(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
) -> CUresult {
    look_up(symbol, cuda_version, flags).map_or(CUresult::ERROR_NOT_FOUND, |address| give(pfn, address))
}

pub(crate) fn cuGetProcAddress_v2(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
    symbol_status: *mut CUenum,
) -> CUresult {
    let (address, status) = match look_up(symbol, cuda_version, flags) {
        Ok(address) => (address, 0),
        Err(true) => (core::ptr::null_mut(), 2),
        Err(false) => (core::ptr::null_mut(), 1),
    };
    give(symbol_status, status);
    give(pfn, address)
}

pub(crate) fn cuGetExportTable(table: *mut *const c_void, _id: *const CUuuid) -> CUresult {
    give(table, core::ptr::null());
    CUresult::ERROR_INVALID_VALUE
}

fn describe(known: Option<&'static CStr>, to: *mut *const c_char) -> CUresult {
    give(to, known.map_or(core::ptr::null(), CStr::as_ptr));
    if known.is_some() { CUresult::SUCCESS } else { CUresult::ERROR_INVALID_VALUE }
}

pub(crate) fn cuGetErrorName(error: CUresult, to: *mut *const c_char) -> CUresult {
    describe(error.name(), to)
}

pub(crate) fn cuGetErrorString(error: CUresult, to: *mut *const c_char) -> CUresult {
    describe(error.text(), to)
}

pub(crate) fn cuModuleGetLoadingMode(mode: *mut CUenum) -> CUresult {
    give(mode, 1)
}

pub(crate) fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> CUresult {
    give(device, ordinal)
}

pub(crate) fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
    give(count, 1)
}

pub(crate) fn cuDeviceGetName(name: *mut c_char, len: c_int, _dev: CUdevice) -> CUresult {
    text(name, len, c"Headgate Null Device (no GPU)")
}

pub(crate) fn cuDeviceGetUuid(uuid: *mut CUuuid, _dev: CUdevice) -> CUresult {
    give(uuid, CUuuid { bytes: *b"nulldriver\0\0\0\0\0\0" })
}

pub(crate) fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> CUresult {
    cuDeviceGetUuid(uuid, dev)
}

pub(crate) fn cuDeviceTotalMem_v2(bytes: *mut usize, _dev: CUdevice) -> CUresult {
    give(bytes, MEMORY_BYTES)
}

pub(crate) fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUenum, _dev: CUdevice) -> CUresult {
    let known = match attribute {
        1..=3 => 1_024,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65_535,
        8 => 48 << 10,
        10 => 32,
        16 => 132,
        39 => 2_048,
        41 | 92..=95 | 99 | 115 | 122 | 123 => 1,
        75 => 9,
        _ => 0,
    };
    give(value, known)
}

pub(crate) fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, _dev: CUdevice) -> CUresult {
    text(id, len, c"0000:01:00.0")
}

pub(crate) fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, _id: *const c_char) -> CUresult {
    give(dev, 0)
}

pub(crate) fn cuDeviceCanAccessPeer(can: *mut c_int, _dev: CUdevice, _peer: CUdevice) -> CUresult {
    give(can, 0)
}

macro_rules! new_handles {
    ($($name:ident ($out:ident: $handle:ident $(, $arg:ident: $ty:ty)*);)*) => {$(
        #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
        pub(crate) fn $name($out: *mut $handle $(, $arg: $ty)*) -> CUresult {
            give($out, $handle::from_addr(handle()))
        }
    )*};
}

new_handles! {
    cuDeviceGetDefaultMemPool(pool: CUmemoryPool, _dev: CUdevice);
    cuDeviceGetMemPool(pool: CUmemoryPool, _dev: CUdevice);
    cuCtxCreate_v2(ctx: CUcontext, _flags: c_uint, _dev: CUdevice);
    cuCtxCreate_v3(ctx: CUcontext, _affinity: *mut c_void, _affinities: c_int, _flags: c_uint, _dev: CUdevice);
    cuCtxCreate_v4(ctx: CUcontext, _params: *mut c_void, _flags: c_uint, _dev: CUdevice);
    cuModuleLoad(module: CUmodule, _path: *const c_char);
    cuModuleLoadData(module: CUmodule, _image: *const c_void);
    cuModuleLoadDataEx(module: CUmodule, _image: *const c_void, _count: c_uint, _options: *mut CUenum, _values: *mut *mut c_void);
    cuModuleLoadFatBinary(module: CUmodule, _image: *const c_void);
    cuModuleGetFunction(function: CUfunction, _module: CUmodule, _name: *const c_char);
    cuLibraryLoadData(library: CUlibrary, _code: *const c_void, _jit_options: *mut CUenum, _jit_values: *mut *mut c_void, _jit_count: c_uint, _options: *mut CUenum, _values: *mut *mut c_void, _count: c_uint);
    cuLibraryGetKernel(kernel: CUkernel, _library: CUlibrary, _name: *const c_char);
    cuLibraryGetModule(module: CUmodule, _library: CUlibrary);
    cuKernelGetFunction(function: CUfunction, _kernel: CUkernel);
    cuStreamCreate(stream: CUstream, _flags: c_uint);
    cuStreamCreateWithPriority(stream: CUstream, _flags: c_uint, _priority: c_int);
    cuEventCreate(event: CUevent, _flags: c_uint);
}

/// The one context everybody has, so that what keys on it sees one.
const CONTEXT: usize = 0x6c00_0000_0000 - 16;

pub(crate) fn cuDevicePrimaryCtxRetain(ctx: *mut CUcontext, _dev: CUdevice) -> CUresult {
    give(ctx, CUcontext::from_addr(CONTEXT))
}

pub(crate) fn cuCtxGetCurrent(ctx: *mut CUcontext) -> CUresult {
    give(ctx, CUcontext::from_addr(CONTEXT))
}

pub(crate) fn cuCtxPopCurrent_v2(ctx: *mut CUcontext) -> CUresult {
    give(ctx, CUcontext::from_addr(CONTEXT))
}

pub(crate) fn cuStreamGetCtx(_stream: CUstream, ctx: *mut CUcontext) -> CUresult {
    give(ctx, CUcontext::from_addr(CONTEXT))
}

pub(crate) fn cuStreamGetCtx_ptsz(stream: CUstream, ctx: *mut CUcontext) -> CUresult {
    cuStreamGetCtx(stream, ctx)
}

pub(crate) fn cuDevicePrimaryCtxGetState(_dev: CUdevice, flags: *mut c_uint, active: *mut c_int) -> CUresult {
    give(flags, 0);
    give(active, 1)
}

pub(crate) fn cuCtxGetDevice(dev: *mut CUdevice) -> CUresult {
    give(dev, 0)
}

pub(crate) fn cuCtxGetDevice_v2(dev: *mut CUdevice, _ctx: CUcontext) -> CUresult {
    give(dev, 0)
}

pub(crate) fn cuCtxGetFlags(flags: *mut c_uint) -> CUresult {
    give(flags, 0)
}

pub(crate) fn cuCtxGetApiVersion(_ctx: CUcontext, version: *mut c_uint) -> CUresult {
    give(version, 3_020)
}

pub(crate) fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> CUresult {
    give(least, 0);
    give(greatest, -5)
}

pub(crate) fn cuCtxGetLimit(value: *mut usize, _limit: CUenum) -> CUresult {
    give(value, 1_024)
}

pub(crate) fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    give(free, MEMORY_BYTES / 2);
    give(total, MEMORY_BYTES)
}

#[inline(always)]
pub(crate) fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytes: usize) -> CUresult {
    if bytes == 0 {
        return CUresult::ERROR_INVALID_VALUE;
    }
    let bytes = (bytes as u64).next_multiple_of(ALIGNMENT);
    give(dptr, NEXT_ADDRESS.fetch_add(bytes, Ordering::Relaxed))
}

pub(crate) fn cuMemAllocPitch_v2(
    dptr: *mut CUdeviceptr,
    pitch: *mut usize,
    width_bytes: usize,
    height: usize,
    _element_bytes: c_uint,
) -> CUresult {
    let row = width_bytes.next_multiple_of(512);
    give(pitch, row);
    cuMemAlloc_v2(dptr, row.wrapping_mul(height))
}

pub(crate) fn cuMemAllocAsync(dptr: *mut CUdeviceptr, bytes: usize, _stream: CUstream) -> CUresult {
    cuMemAlloc_v2(dptr, bytes)
}

pub(crate) fn cuMemAllocAsync_ptsz(dptr: *mut CUdeviceptr, bytes: usize, _stream: CUstream) -> CUresult {
    cuMemAlloc_v2(dptr, bytes)
}

pub(crate) fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    bytes: *mut usize,
    dptr: CUdeviceptr,
) -> CUresult {
    give(base, dptr);
    give(bytes, 512)
}

/// Host memory is real; it is never given back, as nobody notes its size.
pub(crate) fn cuMemHostAlloc(ptr: *mut *mut c_void, bytes: usize, _flags: c_uint) -> CUresult {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 4096) else {
        return CUresult::ERROR_OUT_OF_MEMORY;
    };
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() { CUresult::ERROR_OUT_OF_MEMORY } else { give(ptr, memory.cast()) }
}

pub(crate) fn cuMemAllocHost_v2(ptr: *mut *mut c_void, bytes: usize) -> CUresult {
    cuMemHostAlloc(ptr, bytes, 0)
}

pub(crate) fn cuMemHostGetDevicePointer_v2(
    dptr: *mut CUdeviceptr,
    ptr: *mut c_void,
    _flags: c_uint,
) -> CUresult {
    give(dptr, ptr.expose_provenance() as u64)
}

pub(crate) fn cuMemHostGetFlags(flags: *mut c_uint, _ptr: *mut c_void) -> CUresult {
    give(flags, 0)
}

pub(crate) fn cuModuleGetGlobal_v2(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    _module: CUmodule,
    _name: *const c_char,
) -> CUresult {
    give(bytes, 8);
    cuMemAlloc_v2(dptr, 8)
}

pub(crate) fn cuFuncGetAttribute(value: *mut c_int, attribute: CUenum, _function: CUfunction) -> CUresult {
    let known = match attribute {
        0 => 1_024,
        4 => 16,
        5 | 6 => 90,
        _ => 0,
    };
    give(value, known)
}

pub(crate) fn cuFuncGetModule(module: *mut CUmodule, _function: CUfunction) -> CUresult {
    give(module, CUmodule::from_addr(CONTEXT))
}

pub(crate) fn cuFuncGetName(name: *mut *const c_char, _function: CUfunction) -> CUresult {
    give(name, c"null".as_ptr())
}

/// Kernels of the null driver have no parameters.
pub(crate) fn cuFuncGetParamInfo(
    _function: CUfunction,
    _index: usize,
    _offset: *mut usize,
    _bytes: *mut usize,
) -> CUresult {
    CUresult::ERROR_INVALID_VALUE
}

pub(crate) fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    _function: CUfunction,
    _block_threads: c_int,
    _shared_bytes: usize,
) -> CUresult {
    give(blocks, 1)
}

pub(crate) fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    _function: CUfunction,
    _block_threads: c_int,
    _shared_bytes: usize,
    _flags: c_uint,
) -> CUresult {
    give(blocks, 1)
}

pub(crate) fn cuStreamGetFlags(_stream: CUstream, flags: *mut c_uint) -> CUresult {
    give(flags, 0)
}

pub(crate) fn cuStreamGetFlags_ptsz(_stream: CUstream, flags: *mut c_uint) -> CUresult {
    give(flags, 0)
}

pub(crate) fn cuStreamGetPriority(_stream: CUstream, priority: *mut c_int) -> CUresult {
    give(priority, 0)
}

pub(crate) fn cuStreamGetPriority_ptsz(_stream: CUstream, priority: *mut c_int) -> CUresult {
    give(priority, 0)
}

pub(crate) fn cuStreamIsCapturing(_stream: CUstream, status: *mut CUenum) -> CUresult {
    give(status, 0)
}

pub(crate) fn cuStreamIsCapturing_ptsz(_stream: CUstream, status: *mut CUenum) -> CUresult {
    give(status, 0)
}

pub(crate) fn cuEventElapsedTime(milliseconds: *mut f32, _start: CUevent, _end: CUevent) -> CUresult {
    give(milliseconds, 0.0)
}

pub(crate) fn cuEventElapsedTime_v2(milliseconds: *mut f32, _start: CUevent, _end: CUevent) -> CUresult {
    give(milliseconds, 0.0)
}

/// Stores a word where host memory is meant. Naturally aligned stores are not torn on any machine this runs on.
#[inline(always)]
fn write<T>(address: CUdeviceptr, value: T) -> CUresult {
    if address >= FIRST_ADDRESS {
        return CUresult::SUCCESS;
    }
    let Ok(address) = usize::try_from(address) else { return CUresult::ERROR_INVALID_VALUE };
    let place: *mut T = core::ptr::with_exposed_provenance_mut(address);
    if !place.is_null() {
        // SAFETY: the caller names a live word of pinned host memory, as the driver demands; others may read it
        // meanwhile, which volatile keeps from being optimised away.
        unsafe { place.write_volatile(value) };
    }
    CUresult::SUCCESS
}

pub(crate) fn cuStreamWriteValue32_v2(
    _stream: CUstream,
    addr: CUdeviceptr,
    value: u32,
    _flags: c_uint,
) -> CUresult {
    write(addr, value)
}

pub(crate) fn cuStreamWriteValue32_v2_ptsz(
    _stream: CUstream,
    addr: CUdeviceptr,
    value: u32,
    _flags: c_uint,
) -> CUresult {
    write(addr, value)
}

pub(crate) fn cuStreamWriteValue64_v2(
    _stream: CUstream,
    addr: CUdeviceptr,
    value: u64,
    _flags: c_uint,
) -> CUresult {
    write(addr, value)
}

pub(crate) fn cuStreamWriteValue64_v2_ptsz(
    _stream: CUstream,
    addr: CUdeviceptr,
    value: u64,
    _flags: c_uint,
) -> CUresult {
    write(addr, value)
}

pub(crate) fn cuStreamBatchMemOp_v2(
    _stream: CUstream,
    count: c_uint,
    ops: *mut CUstreamBatchMemOpParams,
    _flags: c_uint,
) -> CUresult {
    for index in 0..count as usize {
        // SAFETY: the caller passes `count` operations.
        let op = unsafe { ops.wrapping_add(index).read_unaligned() };
        #[expect(clippy::cast_possible_truncation, reason = "32-bit operations use the low half")]
        let status = match op.operation {
            CU_STREAM_MEM_OP_WRITE_VALUE_32 => write(op.address, op.value as u32),
            CU_STREAM_MEM_OP_WRITE_VALUE_64 => write(op.address, op.value),
            _ => CUresult::SUCCESS,
        };
        if !status.is_success() {
            return status;
        }
    }
    CUresult::SUCCESS
}

pub(crate) fn cuStreamBatchMemOp_v2_ptsz(
    stream: CUstream,
    count: c_uint,
    ops: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> CUresult {
    cuStreamBatchMemOp_v2(stream, count, ops, flags)
}

/// Nothing is ever pending, so a host function runs at once.
pub(crate) fn cuLaunchHostFunc(_stream: CUstream, call: *mut c_void, data: *mut c_void) -> CUresult {
    if call.is_null() {
        return CUresult::ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller passes a CUhostFn, which is this type.
    let call: extern "C" fn(*mut c_void) = unsafe { core::mem::transmute(call) };
    call(data);
    CUresult::SUCCESS
}

pub(crate) fn cuLaunchHostFunc_ptsz(stream: CUstream, call: *mut c_void, data: *mut c_void) -> CUresult {
    cuLaunchHostFunc(stream, call, data)
}
