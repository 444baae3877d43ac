//! Every function this library exports: the loader's `dlsym` and `dlvsym`, and one shell for each hooked row
//! of the symbol tables. The shells are made from the tables, so no other name can slip in.
#![expect(unsafe_code, reason = "exports C functions")]
#![expect(unreachable_pub, reason = "exported by name to the dynamic linker, not to other modules")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{CUresult, Family, Symbol};
use headgate_abi::nvml::*;

use crate::awaited;
use crate::boundary::{cross, inside, shield};
use crate::driver::{self, Out, Word as _};
use crate::intercept::{
    array, checkpoint, context, graph, groups, launch, memory, physical, pool, processes, view,
};
use crate::{ahead, resolve, session};

/// Families of which the hook only has to see that the device is waited for, asked, or marked: synchronous copies, polls and event
/// records; and the beginning of a capture, because a batch that is open then could not be ended in the stream before it ends.
const fn only_observed(family: Family) -> bool {
    matches!(family, Family::Poll | Family::EventRecord | Family::SynchronousCopy | Family::Capture)
}

/// The stream of an extended launch.
fn config_stream(config: *const CUlaunchConfig) -> CUstream {
    if config.is_null() {
        return CUstream::NULL;
    }
    // SAFETY: the caller of cuLaunchKernelEx promises a valid configuration.
    unsafe { (*config).hStream }
}

/// The driver's own function. The calls that wait for the device tell the kernel's probes which one that is.
macro_rules! forward {
    (cuCtxSynchronize $(, $a:ident)*) => { telling!(cuCtxSynchronize $(, $a)*) };
    (cuCtxSynchronize_v2 $(, $a:ident)*) => { telling!(cuCtxSynchronize_v2 $(, $a)*) };
    (cuStreamSynchronize $(, $a:ident)*) => { telling!(cuStreamSynchronize $(, $a)*) };
    (cuStreamSynchronize_ptsz $(, $a:ident)*) => { telling!(cuStreamSynchronize_ptsz $(, $a)*) };
    (cuEventSynchronize $(, $a:ident)*) => { telling!(cuEventSynchronize $(, $a)*) };
    (cuMemcpy $(, $a:ident)*) => { telling!(cuMemcpy $(, $a)*) };
    (cuMemcpy_ptds $(, $a:ident)*) => { telling!(cuMemcpy_ptds $(, $a)*) };
    (cuMemcpyHtoD_v2 $(, $a:ident)*) => { telling!(cuMemcpyHtoD_v2 $(, $a)*) };
    (cuMemcpyHtoD_v2_ptds $(, $a:ident)*) => { telling!(cuMemcpyHtoD_v2_ptds $(, $a)*) };
    (cuMemcpyDtoH_v2 $(, $a:ident)*) => { telling!(cuMemcpyDtoH_v2 $(, $a)*) };
    (cuMemcpyDtoH_v2_ptds $(, $a:ident)*) => { telling!(cuMemcpyDtoH_v2_ptds $(, $a)*) };
    (cuMemcpy2D_v2 $(, $a:ident)*) => { telling!(cuMemcpy2D_v2 $(, $a)*) };
    (cuMemcpy2D_v2_ptds $(, $a:ident)*) => { telling!(cuMemcpy2D_v2_ptds $(, $a)*) };
    (cuMemcpy2DUnaligned_v2 $(, $a:ident)*) => { telling!(cuMemcpy2DUnaligned_v2 $(, $a)*) };
    (cuMemcpy2DUnaligned_v2_ptds $(, $a:ident)*) => { telling!(cuMemcpy2DUnaligned_v2_ptds $(, $a)*) };
    ($name:ident $(, $a:ident)*) => {{
        const _: () = assert!(
            !matches!(Symbol::$name.row().family, Family::Synchronize | Family::SynchronousCopy),
            concat!("`forward!` needs a line for ", stringify!($name), ": it waits for the device")
        );
        driver::cuda::$name($($a),*)
    }};
}

macro_rules! telling {
    ($name:ident $(, $a:ident)*) => {
        driver::telling(Symbol::$name, [$($a.word()),*], awaited::word())
    };
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
                move || unsafe { forward!($name $(, $arg)*) },
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
        pub(crate) fn nvml_shell(symbol: headgate_abi::nvml::Symbol) -> Option<*mut c_void> {
            match symbol {
                $(headgate_abi::nvml::Symbol::$name => address!($hook $name),)*
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
    swap(status, symbol, cuda_version, flags, &Out(pfn))
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
    swap(status, symbol, cuda_version, flags, &Out(pfn))
}

/// Puts our shell in the place of the driver function that was found, if one stands in front of it.
fn swap(
    status: CUresult,
    symbol: *const c_char,
    version: c_int,
    flags: u64,
    found: &Out<*mut c_void>,
) -> CUresult {
    shield(status, || {
        if status.is_success()
            && !inside()
            && !off()
            && !symbol.is_null()
            && let Some(real) = found.get().filter(|real| !real.is_null())
        {
            // SAFETY: a driver that has found the name has read it to its end.
            let name = unsafe { CStr::from_ptr(symbol) }.to_bytes();
            let asked = resolve::Asked::Proc(name, version.cast_unsigned(), flags);
            if let Some(shell) = resolve::shell_in_front_of(real, &asked) {
                found.set(shell);
            }
            return status;
        }
        let unknown = status == CUresult::ERROR_NOT_FOUND || status.is_success();
        if unknown && !symbol.is_null() && found.get().is_none_or(|real| real.is_null()) {
            // SAFETY: as above: the driver has compared it with all names it has.
            if let Some(ours) = ahead::find(unsafe { CStr::from_ptr(symbol) }) {
                found.set(ours);
                return CUresult::SUCCESS;
            }
        }
        status
    })
}

/// NVML starts, and with it the first opening of the device for programs that ask NVML before CUDA: the process is
/// known to the daemon by then, or the device gate refuses it.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlInit() -> NvmlReturn {
    shield((), view::nvml_starts);
    // SAFETY: no arguments.
    unsafe { driver::management::nvmlInit() }
}

/// NVML starts, second form.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlInit_v2() -> NvmlReturn {
    shield((), view::nvml_starts);
    // SAFETY: no arguments.
    unsafe { driver::management::nvmlInit_v2() }
}

/// NVML starts, with flags.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlInitWithFlags(flags: c_uint) -> NvmlReturn {
    shield((), view::nvml_starts);
    // SAFETY: the program's own argument, handed on unchanged.
    unsafe { driver::management::nvmlInitWithFlags(flags) }
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

/// NVML's protected memory of a device that computes confidentially.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetConfComputeProtectedMemoryUsage(
    device: NvmlDevice,
    memory: *mut NvmlMemory,
) -> NvmlReturn {
    // SAFETY: the program's own arguments, handed on unchanged.
    let status = unsafe { driver::management::nvmlDeviceGetConfComputeProtectedMemoryUsage(device, memory) };
    shield(status, || view::nvml_memory(device, &Out(memory), status))
}

/// NVML's list of processes in its newest form: the tenant's own.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetRunningProcessDetailList(
    device: NvmlDevice,
    list: *mut NvmlProcessDetailList,
) -> NvmlReturn {
    // SAFETY: the program's own device, with a list that has room for as many as its count says.
    let ask = |list| unsafe { driver::management::nvmlDeviceGetRunningProcessDetailList(device, list) };
    shield(NvmlReturn::ERROR_UNKNOWN, || processes::detail(device, &Out(list), ask))
}

/// NVML's utilisation of processes in its newest form: the tenant's own.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetProcessesUtilizationInfo(
    device: NvmlDevice,
    info: *mut NvmlProcessesUtilizationInfo,
) -> NvmlReturn {
    // SAFETY: as above.
    let ask = |info| unsafe { driver::management::nvmlDeviceGetProcessesUtilizationInfo(device, info) };
    shield(NvmlReturn::ERROR_UNKNOWN, || processes::utilisation(device, &Out(info), ask))
}

/// NVML's list of processes that it keeps statistics of: the tenant's own.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetAccountingPids(
    device: NvmlDevice,
    count: *mut c_uint,
    pids: *mut c_uint,
) -> NvmlReturn {
    // SAFETY: as above.
    let ask = |count, pids| unsafe { driver::management::nvmlDeviceGetAccountingPids(device, count, pids) };
    shield(NvmlReturn::ERROR_UNKNOWN, || processes::list(device, &Out(count), pids, ask))
}

macro_rules! process_lists {
    ($($name:ident: $record:ty;)*) => {$(
        /// NVML's list of processes on a device: the tenant's own.
        ///
        /// # Safety
        /// As NVML says of it.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "the C name")]
        pub unsafe extern "C" fn $name(device: NvmlDevice, count: *mut c_uint, infos: *mut $record) -> NvmlReturn {
            // SAFETY: the program's own device, with lists that have room for as many as their count says.
            let ask = |count, infos| unsafe { driver::management::$name(device, count, infos) };
            shield(NvmlReturn::ERROR_UNKNOWN, || processes::list(device, &Out(count), infos, ask))
        }
    )*};
}

process_lists! {
    nvmlDeviceGetComputeRunningProcesses: NvmlProcessInfoV1;
    nvmlDeviceGetComputeRunningProcesses_v2: NvmlProcessInfo;
    nvmlDeviceGetComputeRunningProcesses_v3: NvmlProcessInfo;
    nvmlDeviceGetGraphicsRunningProcesses: NvmlProcessInfoV1;
    nvmlDeviceGetGraphicsRunningProcesses_v2: NvmlProcessInfo;
    nvmlDeviceGetGraphicsRunningProcesses_v3: NvmlProcessInfo;
    nvmlDeviceGetMPSComputeRunningProcesses: NvmlProcessInfoV1;
    nvmlDeviceGetMPSComputeRunningProcesses_v2: NvmlProcessInfo;
    nvmlDeviceGetMPSComputeRunningProcesses_v3: NvmlProcessInfo;
}

/// NVML's utilisation samples of processes: the tenant's own.
///
/// # Safety
/// As NVML says of it.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the C name")]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: NvmlDevice,
    samples: *mut NvmlProcessUtilizationSample,
    count: *mut c_uint,
    since_us: c_ulonglong,
) -> NvmlReturn {
    // SAFETY: the program's own device, with lists that have room for as many as their count says.
    let ask = |count, samples| unsafe {
        driver::management::nvmlDeviceGetProcessUtilization(device, samples, count, since_us)
    };
    shield(NvmlReturn::ERROR_UNKNOWN, || processes::list(device, &Out(count), samples, ask))
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
