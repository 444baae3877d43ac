//! Every function this library exports: the loader's `dlsym` and `dlvsym`, and one shell for each hooked row
//! of the symbol tables. The shells are made from the tables, so no other name can slip in.
#![expect(unsafe_code, reason = "exports C functions")]
#![expect(unreachable_pub, reason = "exported by name to the dynamic linker, not to other modules")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{CUresult, Symbol};
use headgate_abi::nvml::{self, NvmlDevice, NvmlMemory, NvmlMemoryV2, NvmlReturn};

use crate::boundary::{cross, inside, shield};
use crate::driver::{self, Out};
use crate::intercept::{context, launch, memory, view};
use crate::{resolve, session};

/// The meaning of each hooked call, by name. A hooked row without a line here does not compile.
macro_rules! meaning {
    (cuInit, $flags:ident) => {
        context::init()
    };

    (cuDeviceTotalMem_v2, $bytes:ident, $dev:ident) => {
        view::total_memory(Out($bytes), $dev)
    };
    (cuMemGetInfo_v2, $free:ident, $total:ident) => {
        view::memory_info(Out($free), Out($total))
    };

    (cuMemAlloc_v2, $dptr:ident, $bytes:ident) => {
        memory::allocate(Out($dptr), $bytes)
    };
    (cuMemAllocAsync, $dptr:ident, $bytes:ident, $s:ident) => {
        memory::allocate(Out($dptr), $bytes)
    };
    (cuMemAllocAsync_ptsz, $dptr:ident, $bytes:ident, $s:ident) => {
        memory::allocate(Out($dptr), $bytes)
    };
    (cuMemAllocPitch_v2, $dptr:ident, $pitch:ident, $width:ident, $height:ident, $e:ident) => {
        memory::allocate_pitch(Out($dptr), Out($pitch), $width, $height)
    };
    (cuMemFree_v2, $dptr:ident) => {
        memory::free($dptr)
    };
    (cuMemFreeAsync, $dptr:ident, $s:ident) => {
        memory::free($dptr)
    };
    (cuMemFreeAsync_ptsz, $dptr:ident, $s:ident) => {
        memory::free($dptr)
    };

    (cuDevicePrimaryCtxRetain, $($a:ident),*) => {
        context::create()
    };
    (cuCtxCreate_v2, $($a:ident),*) => {
        context::create()
    };
    (cuCtxCreate_v3, $($a:ident),*) => {
        context::create()
    };
    (cuCtxCreate_v4, $($a:ident),*) => {
        context::create()
    };
    (cuCtxDestroy_v2, $ctx:ident) => {
        context::destroy($ctx)
    };
    (cuDevicePrimaryCtxRelease, $dev:ident) => {
        context::end_primary($dev)
    };
    (cuDevicePrimaryCtxRelease_v2, $dev:ident) => {
        context::end_primary($dev)
    };
    (cuDevicePrimaryCtxReset, $dev:ident) => {
        context::end_primary($dev)
    };
    (cuDevicePrimaryCtxReset_v2, $dev:ident) => {
        context::end_primary($dev)
    };
    (cuCtxPushCurrent_v2, $ctx:ident) => {
        context::switch()
    };
    (cuCtxPopCurrent_v2, $ctx:ident) => {
        context::switch()
    };
    (cuCtxSetCurrent, $ctx:ident) => {
        context::switch()
    };
    (cuStreamDestroy_v2, $s:ident) => {
        context::stream_destroyed()
    };

    (cuLaunchKernel, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $($a:ident),*) => {
        launch::launch($s, false)
    };
    (cuLaunchKernel_ptsz, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $($a:ident),*) => {
        launch::launch($s, true)
    };
    (cuLaunchCooperativeKernel, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $p:ident) => {
        launch::launch($s, false)
    };
    (cuLaunchCooperativeKernel_ptsz, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $p:ident) => {
        launch::launch($s, true)
    };
    (cuLaunchKernelEx, $config:ident, $($a:ident),*) => {
        launch::launch_extended(config_stream($config), false, driver::overlaps_predecessor($config))
    };
    (cuLaunchKernelEx_ptsz, $config:ident, $($a:ident),*) => {
        launch::launch_extended(config_stream($config), true, driver::overlaps_predecessor($config))
    };

    // Synchronisation, polls, event records and synchronous copies.
    ($name:ident $(, $a:ident)*) => {
        launch::observe()
    };
}

/// The stream of an extended launch.
fn config_stream(config: *const CUlaunchConfig) -> CUstream {
    if config.is_null() {
        return CUstream::NULL;
    }
    // SAFETY: the caller of cuLaunchKernelEx promises a valid configuration.
    unsafe { (*config).hStream }
}

macro_rules! shell {
    (hooked cuGetProcAddress ($($arg:ident: $ty:ty),*)) => {};
    (hooked cuGetProcAddress_v2 ($($arg:ident: $ty:ty),*)) => {};
    (hooked $name:ident ($($arg:ident: $ty:ty),*)) => {
        /// The shell in front of the driver's function of this name.
        ///
        /// # Safety
        /// As the driver API says of it.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, missing_docs, reason = "the C name and signature")]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> CUresult {
            cross(
                Symbol::$name,
                || meaning!($name $(, $arg)*),
                // SAFETY: the program's own arguments, handed on unchanged.
                || unsafe { driver::cuda::$name($($arg),*) },
            )
        }
    };
    (passed $name:ident ($($arg:ident: $ty:ty),*)) => {};
}

macro_rules! address {
    (hooked $name:ident) => {
        Some($name as *mut c_void)
    };
    (passed $name:ident) => {
        None
    };
}

macro_rules! export_cuda {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$base:literal, $since:literal, $thread:ident, $family:ident, $hook:ident];)*) => {
        $(shell! { $hook $name ($($arg: $ty),*) })*

        /// The shell of a row, `None` when the row is not hooked.
        pub(crate) fn cuda_shell(symbol: Symbol) -> Option<*mut c_void> {
            match symbol {
                $(Symbol::$name => address!($hook $name),)*
            }
        }
    };
}
headgate_abi::cuda_symbols!(export_cuda);

macro_rules! export_nvml {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$hook:ident];)*) => {
        /// The shell of an NVML row, `None` when the row is not hooked.
        pub(crate) fn nvml_shell(symbol: nvml::Symbol) -> Option<*mut c_void> {
            match symbol {
                $(nvml::Symbol::$name => address!($hook $name),)*
            }
        }
    };
}
headgate_abi::nvml_symbols!(export_nvml);

/// `cuGetProcAddress` as of CUDA 11.3.
///
/// # Safety
/// As the driver API says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
) -> CUresult {
    // SAFETY: the program's own arguments, handed on unchanged.
    let status = unsafe { driver::cuda::cuGetProcAddress(symbol, pfn, cuda_version, flags) };
    swap(status, &Out(pfn))
}

/// `cuGetProcAddress` as of CUDA 12.0.
///
/// # Safety
/// As the driver API says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
    symbol_status: *mut CUenum,
) -> CUresult {
    // SAFETY: as above.
    let status =
        unsafe { driver::cuda::cuGetProcAddress_v2(symbol, pfn, cuda_version, flags, symbol_status) };
    swap(status, &Out(pfn))
}

/// Puts our shell in the place of the driver function that was found, if one stands in front of it.
fn swap(status: CUresult, found: &Out<*mut c_void>) -> CUresult {
    shield(status, || {
        if status.is_success()
            && !inside()
            && !off()
            && let Some(real) = found.get().filter(|real| !real.is_null())
            && let Some(shell) = resolve::shell_in_front_of(real)
        {
            found.set(shell);
        }
        status
    })
}

/// NVML's device memory.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: NvmlDevice, memory: *mut NvmlMemory) -> NvmlReturn {
    // SAFETY: the program's own arguments, handed on unchanged.
    let status = unsafe { driver::management::nvmlDeviceGetMemoryInfo(device, memory) };
    shield(status, || view::nvml_memory(device, &Out(memory), status))
}

/// NVML's device memory, second form.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: NvmlDevice,
    memory: *mut NvmlMemoryV2,
) -> NvmlReturn {
    // SAFETY: the program's own arguments, handed on unchanged.
    let status = unsafe { driver::management::nvmlDeviceGetMemoryInfo_v2(device, memory) };
    shield(status, || view::nvml_memory_v2(device, &Out(memory), status))
}

/// Whether the tenant is not enforced at all, so that programs get the driver's own pointers.
pub(crate) fn off() -> bool {
    session::seated().is_some_and(session::Session::is_off)
}

/// The loader's look-up. Table names may get a shell; for every other name control jumps to the C library's
/// own function with the caller's return address in place, because `RTLD_NEXT` is resolved by who calls.
///
/// # Safety
/// As `dlsym(3)` says.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    std::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 24",
        "mov rdx, rsp",
        "call {pick}",
        "mov rcx, [rsp]",
        "add rsp, 24",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jz 2f",
        "mov rax, rcx",
        "ret",
        "2:",
        "mov rax, [rip + {real}]",
        "jmp rax",
        pick = sym pick,
        real = sym resolve::REAL_DLSYM,
    )
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the hook's dlsym trampoline is written for x86-64 only so far");

/// Whether to answer a look-up ourselves; the answer is then in `out`.
///
/// # Safety
/// `out` is valid for writing; `name` is what the program passed to `dlsym`.
unsafe extern "C" fn pick(handle: *mut c_void, name: *const c_char, out: *mut *mut c_void) -> bool {
    shield(false, || {
        resolve::prepare();
        if name.is_null() {
            return false;
        }
        // SAFETY: the caller of dlsym promises a NUL-terminated name.
        let name = unsafe { CStr::from_ptr(name) };
        match resolve::route(handle, name) {
            Some(answer) => {
                // SAFETY: a slot in the trampoline's frame.
                unsafe { out.write(answer) };
                true
            }
            None => false,
        }
    })
}

/// The loader's versioned look-up.
///
/// # Safety
/// As `dlvsym(3)` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    if name.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller promises a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    shield(std::ptr::null_mut(), || resolve::route_versioned(handle, name, version))
}

/// First and last address of this library's code in the process, for the daemon's bypass witness.
pub(crate) fn text_range() -> (u64, u64) {
    crate::elf::text_range(pick as *const () as usize)
}
