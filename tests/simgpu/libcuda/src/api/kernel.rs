//! Kernels of libraries: what is asked of a function is asked of its kernel here.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_char, c_int};

use headgate_abi::cuda::types::{
    CUdevice, CUdeviceptr, CUenum, CUfunction, CUkernel, CUlibrary, CUmodule, CUresult,
};

use super::module::{
    cuFuncGetAttribute, cuFuncGetName, cuFuncGetParamInfo, cuFuncSetAttribute, cuModuleGetGlobal_v2,
    library_module,
};
use super::{cuFuncSetCacheConfig, device};
use crate::driver::{Answer, Driver, driver};
use crate::{current, raw};

/// A kernel's attribute, in its module on the context that is current. The device only matters where a library may be
/// loaded on several, and there the current context must be one of that device.
pub(crate) fn cuKernelGetAttribute(
    value: *mut c_int,
    attribute: CUenum,
    kernel: CUkernel,
    of: CUdevice,
) -> Answer {
    kernel_on(kernel, of)?;
    cuFuncGetAttribute(value, attribute, CUfunction::from_addr(kernel.addr()))
}

pub(crate) fn cuKernelSetAttribute(
    attribute: CUenum,
    value: c_int,
    kernel: CUkernel,
    of: CUdevice,
) -> Answer {
    kernel_on(kernel, of)?;
    cuFuncSetAttribute(CUfunction::from_addr(kernel.addr()), attribute, value)
}

pub(crate) fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> Answer {
    is_kernel(driver()?, kernel)?;
    cuFuncGetName(name, CUfunction::from_addr(kernel.addr()))
}

pub(crate) fn cuKernelGetParamInfo(
    kernel: CUkernel,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> Answer {
    is_kernel(driver()?, kernel)?;
    cuFuncGetParamInfo(CUfunction::from_addr(kernel.addr()), index, offset, bytes)
}

fn is_kernel(driver: &Driver, kernel: CUkernel) -> Answer {
    driver.kernels.get(kernel.addr()).map(|_| ()).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

fn kernel_on(kernel: CUkernel, of: CUdevice) -> Answer {
    let driver = driver()?;
    is_kernel(driver, kernel)?;
    let of = device::index(driver, of)?;
    if current::context(driver)?.device == of { Ok(()) } else { Err(CUresult::ERROR_INVALID_CONTEXT) }
}

pub(crate) fn cuKernelSetCacheConfig(kernel: CUkernel, config: CUenum, of: CUdevice) -> Answer {
    kernel_on(kernel, of)?;
    cuFuncSetCacheConfig(CUfunction::from_addr(kernel.addr()), config)
}

pub(crate) fn cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) -> Answer {
    let found = driver()?.kernels.get(kernel.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    raw::store(library, CUlibrary::from_addr(found.library))
}

/// A variable of the library, in its module on the current context.
pub(crate) fn cuLibraryGetGlobal(
    address: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> Answer {
    let module = library_module(driver()?, library.addr())?;
    cuModuleGetGlobal_v2(address, bytes, CUmodule::from_addr(module.handle), name)
}
