//! Typed calls to the real driver, one function per row of the table.
#![expect(unsafe_code, reason = "calls functions through pointers found by name")]

use std::ffi::{c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{CUresult, Symbol};
use headgate_abi::nvml::{self, *};

use headgate_abi::segment::layout::GATE_OPEN_BIT;

use crate::resolve;

macro_rules! define_cuda {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {$(
        /// The driver's own function of this name; `CUDA_ERROR_NOT_FOUND` when the driver has none.
        ///
        /// # Safety
        /// As the driver API says of it.
        #[inline]
        #[allow(non_snake_case, clippy::too_many_arguments, dead_code, reason = "the C names and signatures; not all are called")]
        pub(crate) unsafe fn $name($($arg: $ty),*) -> CUresult {
            type Function = unsafe extern "C" fn($($ty),*) -> CUresult;
            match resolve::cuda_real(Symbol::$name) {
                // SAFETY: the row gives the function's true signature.
                Some(function) => unsafe { std::mem::transmute::<*mut c_void, Function>(function)($($arg),*) },
                None => CUresult::ERROR_NOT_FOUND,
            }
        }
    )*};
}

macro_rules! define_nvml {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {$(
        /// NVML's own function of this name; `NVML_ERROR_FUNCTION_NOT_FOUND` when it has none.
        ///
        /// # Safety
        /// As NVML says of it.
        #[inline]
        #[allow(non_snake_case, dead_code, reason = "the C names; not all are called")]
        pub(crate) unsafe fn $name($($arg: $ty),*) -> NvmlReturn {
            type Function = unsafe extern "C" fn($($ty),*) -> NvmlReturn;
            match resolve::nvml_real(nvml::Symbol::$name) {
                // SAFETY: the row gives the function's true signature.
                Some(function) => unsafe { std::mem::transmute::<*mut c_void, Function>(function)($($arg),*) },
                None => NvmlReturn::ERROR_FUNCTION_NOT_FOUND,
            }
        }
    )*};
}

/// CUDA, raw.
pub(crate) mod cuda {
    use super::*;
    headgate_abi::cuda_symbols!(define_cuda);
}

/// NVML, raw.
pub(crate) mod management {
    use std::ffi::c_ulonglong;

    use super::*;
    headgate_abi::nvml_symbols!(define_nvml);
}

/// An output argument of a call: null, or valid for writing by the caller's promise.
pub(crate) struct Out<T>(pub(crate) *mut T);

impl<T: Copy> Out<T> {
    /// What the driver wrote there. `None` for a null pointer.
    pub(crate) fn get(&self) -> Option<T> {
        // SAFETY: the caller of the CUDA function promised a valid pointer or null, and the driver has
        // succeeded in writing to it.
        (!self.0.is_null()).then(|| unsafe { self.0.read_unaligned() })
    }

    /// Replaces what the driver wrote. Does nothing for a null pointer.
    pub(crate) fn set(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as for `get`.
            unsafe { self.0.write_unaligned(value) };
        }
    }
}

/// Number of devices this process sees; zero when the driver cannot tell.
pub(crate) fn device_count() -> c_int {
    let mut count = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDeviceGetCount(&raw mut count) };
    if status.is_success() { count } else { 0 }
}

/// A device's UUID as this process sees it. The newer form tells MIG instances apart.
pub(crate) fn device_uuid(device: CUdevice) -> Option<[u8; 16]> {
    let mut uuid = CUuuid::default();
    // SAFETY: the output is valid for writing.
    let mut status = unsafe { cuda::cuDeviceGetUuid_v2(&raw mut uuid, device) };
    if !status.is_success() {
        // SAFETY: as above.
        status = unsafe { cuda::cuDeviceGetUuid(&raw mut uuid, device) };
    }
    status.is_success().then_some(uuid.bytes)
}

/// The driver's CUDA version, zero when it cannot tell.
pub(crate) fn driver_version() -> c_int {
    let mut version = 0;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDriverGetVersion(&raw mut version) };
    if status.is_success() { version } else { 0 }
}

/// The calling thread's context and its device, if it has one.
pub(crate) fn current_context() -> Option<(CUcontext, CUdevice)> {
    let (mut context, mut device) = (CUcontext::NULL, 0);
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuCtxGetCurrent(&raw mut context) };
    if !status.is_success() || context.is_null() {
        return None;
    }
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuCtxGetDevice(&raw mut device) };
    status.is_success().then_some((context, device))
}

/// Whether a device's primary context exists in this process.
pub(crate) fn primary_context_active(device: CUdevice) -> Option<bool> {
    let (mut flags, mut active) = (0, 0);
    // SAFETY: the outputs are valid for writing.
    let status = unsafe { cuda::cuDevicePrimaryCtxGetState(device, &raw mut flags, &raw mut active) };
    status.is_success().then_some(active != 0)
}

/// Whether nothing may be put into the stream now because it is being captured. A driver that cannot say is
/// taken at its worst.
pub(crate) fn is_capturing(stream: CUstream, per_thread: bool) -> bool {
    let mut state: CUenum = 0;
    let status = if per_thread {
        // SAFETY: the output is valid for writing; the stream is the caller's own.
        unsafe { cuda::cuStreamIsCapturing_ptsz(stream, &raw mut state) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamIsCapturing(stream, &raw mut state) }
    };
    !status.is_success() || state != 0
}

/// Makes the GPU write `value` to a registered word once all earlier work of the stream is done.
pub(crate) fn write_when_done(
    stream: CUstream,
    per_thread: bool,
    address: CUdeviceptr,
    value: u32,
) -> CUresult {
    if per_thread {
        // SAFETY: the address was registered with the driver and stays mapped for good.
        unsafe { cuda::cuStreamWriteValue32_v2_ptsz(stream, address, value, 0) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamWriteValue32_v2(stream, address, value, 0) }
    }
}

/// Makes the GPU wait in the stream until bit 0 of the gate word is set, then write `number` to `started`.
pub(crate) fn wait_for_gate(
    stream: CUstream,
    per_thread: bool,
    gate: CUdeviceptr,
    started: CUdeviceptr,
    number: u32,
) -> CUresult {
    let mut operations = [
        CUstreamBatchMemOpParams {
            operation: CU_STREAM_MEM_OP_WAIT_VALUE_32,
            address: gate,
            value: u64::from(GATE_OPEN_BIT),
            flags: CU_STREAM_WAIT_VALUE_AND,
            ..CUstreamBatchMemOpParams::default()
        },
        CUstreamBatchMemOpParams {
            operation: CU_STREAM_MEM_OP_WRITE_VALUE_32,
            address: started,
            value: u64::from(number),
            ..CUstreamBatchMemOpParams::default()
        },
    ];
    let (count, operations) = (2, operations.as_mut_ptr());
    if per_thread {
        // SAFETY: two valid operations on registered words that stay mapped for good.
        unsafe { cuda::cuStreamBatchMemOp_v2_ptsz(stream, count, operations, 0) }
    } else {
        // SAFETY: as above.
        unsafe { cuda::cuStreamBatchMemOp_v2(stream, count, operations, 0) }
    }
}

/// Whether a launch asks to overlap with the one before it (programmatic dependent launch).
pub(crate) fn overlaps_predecessor(config: *const CUlaunchConfig) -> bool {
    if config.is_null() {
        return false;
    }
    // SAFETY: the caller of cuLaunchKernelEx promises a valid configuration.
    let config = unsafe { &*config };
    if config.attrs.is_null() {
        return false;
    }
    // SAFETY: the configuration names `numAttrs` attributes.
    let attributes = unsafe { std::slice::from_raw_parts(config.attrs, config.numAttrs as usize) };
    attributes.iter().any(|attribute| {
        attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION && attribute.value[0] != 0
    })
}

/// Lets the GPU write to a page of this process, and gives the address the GPU knows it by.
pub(crate) fn register_page(page: *mut u8, bytes: usize) -> Result<CUdeviceptr, CUresult> {
    const PORTABLE_AND_MAPPED: c_uint = 0x1 | 0x2;
    // SAFETY: the page is mapped, writable and never unmapped.
    let status = unsafe { cuda::cuMemHostRegister_v2(page.cast(), bytes, PORTABLE_AND_MAPPED) };
    if !status.is_success() && status != CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED {
        return Err(status);
    }
    let mut address: CUdeviceptr = 0;
    // SAFETY: the output is valid for writing; the page is registered.
    let status = unsafe { cuda::cuMemHostGetDevicePointer_v2(&raw mut address, page.cast(), 0) };
    if status.is_success() { Ok(address) } else { Err(status) }
}

/// Gives device memory back on behalf of a call that could not be completed.
pub(crate) fn free(address: CUdeviceptr) -> CUresult {
    // SAFETY: the address was returned by the driver a moment ago and has been given to nobody.
    unsafe { cuda::cuMemFree_v2(address) }
}

/// The UUID of an NVML device, in bytes.
pub(crate) fn nvml_uuid(device: NvmlDevice) -> Option<[u8; 16]> {
    let mut text: [c_char; 96] = [0; 96];
    // SAFETY: the output is valid for writing its stated length.
    let status = unsafe { management::nvmlDeviceGetUUID(device, text.as_mut_ptr(), 96) };
    if status != NvmlReturn::SUCCESS {
        return None;
    }
    // `GPU-` or `MIG-`, then 32 hexadecimal digits with hyphens between.
    let mut digits = text.iter().skip(4).take_while(|&&c| c != 0).filter(|&&c| c.cast_unsigned() != b'-');
    let mut uuid = [0u8; 16];
    for byte in &mut uuid {
        let high = hex(digits.next()?.cast_unsigned())?;
        *byte = (high << 4) | hex(digits.next()?.cast_unsigned())?;
    }
    Some(uuid)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The handle of a device's primary context, which must be active. Retains it for a moment, because that is
/// the only public way to its handle.
pub(crate) fn primary_context(device: CUdevice) -> Option<CUcontext> {
    let mut context = CUcontext::NULL;
    // SAFETY: the output is valid for writing.
    let status = unsafe { cuda::cuDevicePrimaryCtxRetain(&raw mut context, device) };
    if !status.is_success() {
        return None;
    }
    // SAFETY: gives back the reference taken above.
    let released = unsafe { cuda::cuDevicePrimaryCtxRelease_v2(device) };
    released.is_success().then_some(context)
}
