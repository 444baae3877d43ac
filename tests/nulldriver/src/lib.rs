//! A CUDA driver without a device: every call returns at once, so that a bench sees the nanoseconds the hook
//! adds and nothing else.
//!
//! It exports every row of the symbol table. Outputs are plausible (one device, one context, growing
//! addresses); stream writes to host addresses are carried out on the spot, so that completions advance as if
//! the device were infinitely fast. It is no model of a GPU and proves nothing about results: that is the
//! simulated device's job.
#![expect(unsafe_code, reason = "exports C functions")]
#![expect(non_snake_case, reason = "the C names")]
#![allow(
    clippy::missing_safety_doc,
    clippy::too_many_arguments,
    unreachable_pub,
    unused_variables,
    missing_docs,
    reason = "the driver API's own names, signatures and promises; most arguments are not looked at"
)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{CUresult, Symbol, ThreadMode, select};

/// The one device's UUID: the bytes of the text `GPU-6e756c6c-6472-6976-6572-000000000000`.
const UUID: [u8; 16] = *b"nulldriver\0\0\0\0\0\0";
const MEMORY_BYTES: usize = 80 << 30;
const DRIVER_VERSION: c_int = 13_000;
const CONTEXT: usize = 0xc0de;

static NEXT_ADDRESS: AtomicU64 = AtomicU64::new(0x7f00_0000_0000);
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(0x1_0000);

/// Writes an output, unless the caller does not want it.
fn out<T>(pointer: *mut T, value: T) -> CUresult {
    if !pointer.is_null() {
        // SAFETY: callers of the driver API pass valid outputs or null.
        unsafe { pointer.write(value) };
    }
    CUresult::SUCCESS
}

fn address(dptr: *mut CUdeviceptr, bytes: usize) -> CUresult {
    if bytes == 0 {
        return CUresult::ERROR_INVALID_VALUE;
    }
    let length = (bytes as u64).next_multiple_of(512);
    out(dptr, NEXT_ADDRESS.fetch_add(length, Relaxed))
}

fn handle() -> usize {
    NEXT_HANDLE.fetch_add(16, Relaxed)
}

fn text(buffer: *mut c_char, length: c_int, text: &CStr) -> CUresult {
    let bytes = text.to_bytes_with_nul();
    if usize::try_from(length).unwrap_or(0) < bytes.len() {
        return CUresult::ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller's buffer holds `length` bytes, which is enough.
    unsafe { buffer.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
    CUresult::SUCCESS
}

/// A stream write, done at once: addresses are the host's own here.
fn write_word(address: CUdeviceptr, value: u32) -> CUresult {
    let word: *mut u32 = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
    // SAFETY: programs may only name registered host memory.
    unsafe { word.write_volatile(value) };
    CUresult::SUCCESS
}

fn look_up(symbol: *const c_char, pfn: *mut *mut c_void, version: c_int, flags: u64) -> Result<(), c_uint> {
    // SAFETY: a NUL-terminated name, as the driver API asks for.
    let name = unsafe { CStr::from_ptr(symbol) }.to_str().unwrap_or_default();
    let mode = if flags == 2 { ThreadMode::PerThread } else { ThreadMode::Base };
    match select(name, version.unsigned_abs(), mode) {
        Ok(symbol) => {
            let _written = out(pfn, function(symbol));
            Ok(())
        }
        Err(known) => {
            let _written = out(pfn, std::ptr::null_mut());
            Err(if known { 2 } else { 1 })
        }
    }
}

/// What each call does, by name; every other row just succeeds.
macro_rules! body {
    (cuDriverGetVersion, $version:ident) => {
        out($version, DRIVER_VERSION)
    };
    (cuGetProcAddress, $symbol:ident, $pfn:ident, $version:ident, $flags:ident) => {
        look_up($symbol, $pfn, $version, $flags).map_or(CUresult::ERROR_NOT_FOUND, |()| CUresult::SUCCESS)
    };
    (cuGetProcAddress_v2, $symbol:ident, $pfn:ident, $version:ident, $flags:ident, $status:ident) => {
        out($status, look_up($symbol, $pfn, $version, $flags).err().unwrap_or(0))
    };
    (cuDeviceGet, $device:ident, $ordinal:ident) => {
        out($device, $ordinal)
    };
    (cuDeviceGetCount, $count:ident) => {
        out($count, 1)
    };
    (cuDeviceGetName, $name:ident, $len:ident, $dev:ident) => {
        text($name, $len, c"Null driver")
    };
    (cuDeviceGetUuid, $uuid:ident, $dev:ident) => {
        out($uuid, CUuuid { bytes: UUID })
    };
    (cuDeviceGetUuid_v2, $uuid:ident, $dev:ident) => {
        out($uuid, CUuuid { bytes: UUID })
    };
    (cuDeviceTotalMem_v2, $bytes:ident, $dev:ident) => {
        out($bytes, MEMORY_BYTES)
    };
    (cuDeviceGetAttribute, $value:ident, $attribute:ident, $dev:ident) => {
        out($value, 1)
    };
    (cuDevicePrimaryCtxRetain, $ctx:ident, $dev:ident) => {
        out($ctx, CUcontext::from_addr(CONTEXT))
    };
    (cuDevicePrimaryCtxGetState, $dev:ident, $flags:ident, $active:ident) => {{
        let _written = out($flags, 0);
        out($active, 1)
    }};
    (cuCtxCreate_v2, $ctx:ident, $flags:ident, $dev:ident) => {
        out($ctx, CUcontext::from_addr(CONTEXT))
    };
    (cuCtxGetCurrent, $ctx:ident) => {
        out($ctx, CUcontext::from_addr(CONTEXT))
    };
    (cuCtxGetDevice, $dev:ident) => {
        out($dev, 0)
    };
    (cuMemGetInfo_v2, $free:ident, $total:ident) => {{
        let _written = out($free, MEMORY_BYTES / 2);
        out($total, MEMORY_BYTES)
    }};
    (cuMemAlloc_v2, $dptr:ident, $bytes:ident) => {
        address($dptr, $bytes)
    };
    (cuMemAllocAsync, $dptr:ident, $bytes:ident, $stream:ident) => {
        address($dptr, $bytes)
    };
    (cuMemAllocAsync_ptsz, $dptr:ident, $bytes:ident, $stream:ident) => {
        address($dptr, $bytes)
    };
    (cuMemAllocPitch_v2, $dptr:ident, $pitch:ident, $width:ident, $height:ident, $element:ident) => {{
        let pitch = $width.next_multiple_of(512);
        let _written = out($pitch, pitch);
        address($dptr, pitch * $height)
    }};
    (cuMemHostGetDevicePointer_v2, $dptr:ident, $ptr:ident, $flags:ident) => {
        out($dptr, $ptr.expose_provenance() as u64)
    };
    (cuModuleLoadData, $module:ident, $image:ident) => {
        out($module, CUmodule::from_addr(handle()))
    };
    (cuModuleGetFunction, $function:ident, $module:ident, $name:ident) => {
        out($function, CUfunction::from_addr(handle()))
    };
    (cuStreamCreate, $stream:ident, $flags:ident) => {
        out($stream, CUstream::from_addr(handle()))
    };
    (cuEventCreate, $event:ident, $flags:ident) => {
        out($event, CUevent::from_addr(handle()))
    };
    (cuStreamIsCapturing, $stream:ident, $status:ident) => {
        out($status, 0)
    };
    (cuStreamIsCapturing_ptsz, $stream:ident, $status:ident) => {
        out($status, 0)
    };
    (cuStreamWriteValue32_v2, $stream:ident, $addr:ident, $value:ident, $flags:ident) => {
        write_word($addr, $value)
    };
    (cuStreamWriteValue32_v2_ptsz, $stream:ident, $addr:ident, $value:ident, $flags:ident) => {
        write_word($addr, $value)
    };
    ($name:ident $(, $arg:ident)*) => {
        CUresult::SUCCESS
    };
}

macro_rules! export {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> CUresult {
                body!($name $(, $arg)*)
            }
        )*

        /// The exported function of a row.
        fn function(symbol: Symbol) -> *mut c_void {
            match symbol {
                $(Symbol::$name => $name as *mut c_void,)*
            }
        }
    };
}
headgate_abi::cuda_symbols!(export);
