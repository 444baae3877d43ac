//! Modules, libraries and functions.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::types::{CUdeviceptr, CUenum, CUfunction, CUkernel, CUlibrary, CUmodule, CUresult};
use headgate_simgpu::protocol::{Remote, Reply, Request};

use super::{context, device};
use crate::driver::{Answer, Driver, driver, lost};
use crate::objects::{Context, Function, Kernel, Library, Module, lock};
use crate::{attributes, capture, current, image, raw};

/// Loads a text into a context. The second part of an error is what the loader said.
pub(super) fn load(
    driver: &Driver,
    context: &Context,
    text: &[u8],
) -> Result<Arc<Module>, (CUresult, String)> {
    let remote = Remote { address: text.as_ptr().addr() as u64, bytes: text.len() as u64 };
    let request = Request::LoadModule { context: context.number, image: remote };
    match driver.connection.ask(&request) {
        Ok(Reply::Module(info)) => {
            let handle = driver.modules.reserve();
            let functions = Mutex::new(HashMap::new());
            let module = Arc::new(Module { handle, context: context.home, info, functions });
            driver.modules.insert(handle, Arc::clone(&module));
            Ok(module)
        }
        Ok(Reply::Refused { status, reason }) => Err((CUresult(status), reason)),
        Ok(other) => Err((device::out_of_turn(other), String::new())),
        Err(gone) => Err((lost(gone), String::new())),
    }
}

/// Where the caller wants to read what the loader said (`CU_JIT_ERROR_LOG_BUFFER` and its size).
pub(super) fn write_log(count: c_uint, options: *mut CUenum, values: *mut *mut c_void, log: &str) -> Answer {
    const ERROR_LOG_BUFFER: CUenum = 5;
    const ERROR_LOG_BUFFER_BYTES: CUenum = 6;
    let (mut buffer, mut bytes, mut bytes_at) = (core::ptr::null_mut::<c_char>(), 0, None);
    for index in 0..count as usize {
        let value = raw::load_at(values, index)?;
        match raw::load_at(options, index)? {
            ERROR_LOG_BUFFER => buffer = value.cast(),
            ERROR_LOG_BUFFER_BYTES => (bytes, bytes_at) = (value.addr(), Some(index)),
            _ => {}
        }
    }
    if buffer.is_null() || bytes == 0 {
        return Ok(());
    }
    raw::store_text(buffer, bytes, log)?;
    // The driver tells how much it wrote in the place of the size.
    let written = core::ptr::without_provenance_mut(log.len().min(bytes - 1));
    bytes_at.map_or(Ok(()), |index| raw::store(values.wrapping_add(index), written))
}

/// A file's image.
fn read(path: *const c_char) -> Result<Vec<u8>, CUresult> {
    let path = raw::text(path)?;
    let mut bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => CUresult::ERROR_FILE_NOT_FOUND,
        _ => CUresult::ERROR_OPERATING_SYSTEM,
    })?;
    // Room for the terminator, and for a header that is looked at before it is known to be one.
    bytes.extend_from_slice(&[0; 64]);
    Ok(bytes)
}

pub(crate) fn cuModuleLoad(module: *mut CUmodule, path: *const c_char) -> Answer {
    driver()?;
    cuModuleLoadData(module, read(path)?.as_ptr().cast())
}

pub(crate) fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> Answer {
    cuModuleLoadDataEx(module, image, 0, core::ptr::null_mut(), core::ptr::null_mut())
}

pub(crate) fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    if module.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    capture::forbid_unsafe_call(driver)?;
    let text = image::ptx(image)?;
    match load(driver, &context, &text) {
        Ok(loaded) => raw::store(module, CUmodule::from_addr(loaded.handle)),
        Err((status, log)) => {
            write_log(count, options, values, &log)?;
            Err(status)
        }
    }
}

pub(crate) fn cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) -> Answer {
    cuModuleLoadData(module, image)
}

fn find_module(driver: &Driver, module: CUmodule) -> Result<Arc<Module>, CUresult> {
    driver.modules.get(module.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

/// Waits for the context's work first, which may still use the module.
pub(crate) fn cuModuleUnload(module: CUmodule) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    find_module(driver, module)?;
    context::synchronise(driver, &context)?;
    let module = driver.modules.remove(module.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    for (_, function) in lock(&module.functions).drain() {
        driver.functions.remove(function);
    }
    driver.ask(&Request::UnloadModule { module: module.info.module }).map(|_| ())
}

/// The function of a kernel's name; one handle for each.
fn function(driver: &Driver, module: &Arc<Module>, name: &str) -> Result<usize, CUresult> {
    let index = module.info.kernels.iter().position(|kernel| kernel.name == name);
    let index = index.ok_or(CUresult::ERROR_NOT_FOUND)?;
    let mut functions = lock(&module.functions);
    if let Some(&handle) = functions.get(&index) {
        return Ok(handle);
    }
    let handle = driver.functions.reserve();
    let made = Function {
        module: Arc::clone(module),
        kernel: u32::try_from(index).map_err(|_| CUresult::ERROR_NOT_FOUND)?,
        name: CString::new(name).map_err(|_| CUresult::ERROR_NOT_FOUND)?,
        dynamic_shared_max: AtomicU32::new(
            attributes::SHARED_PER_BLOCK.saturating_sub(module.info.kernels[index].shared_bytes),
        ),
        setup: Mutex::default(),
    };
    driver.functions.insert(handle, Arc::new(made));
    functions.insert(index, handle);
    Ok(handle)
}

pub(crate) fn cuModuleGetFunction(handle: *mut CUfunction, module: CUmodule, name: *const c_char) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let name = raw::text(name)?;
    let found = function(driver, &find_module(driver, module)?, &name)?;
    raw::store(handle, CUfunction::from_addr(found))
}

pub(crate) fn cuModuleGetGlobal_v2(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> Answer {
    let driver = driver()?;
    current::context(driver)?;
    let name = raw::text(name)?;
    let module = find_module(driver, module)?;
    let variable = module.info.variables.iter().find(|variable| variable.name == name);
    let variable = variable.ok_or(CUresult::ERROR_NOT_FOUND)?;
    raw::store_if(dptr, variable.address);
    raw::store_if(bytes, usize::try_from(variable.bytes).unwrap_or(usize::MAX));
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the signature is the driver API's")]
pub(crate) fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    _jit_options: *mut CUenum,
    _jit_values: *mut *mut c_void,
    _jit_count: c_uint,
    _options: *mut CUenum,
    _values: *mut *mut c_void,
    _count: c_uint,
) -> Answer {
    let driver = driver()?;
    if library.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let text = image::ptx(code)?;
    let made = Library { text, modules: Mutex::new(HashMap::new()), kernels: Mutex::new(HashMap::new()) };
    let handle = driver.libraries.reserve();
    driver.libraries.insert(handle, Arc::new(made));
    raw::store(library, CUlibrary::from_addr(handle))
}

#[expect(clippy::too_many_arguments, reason = "the signature is the driver API's")]
pub(crate) fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    path: *const c_char,
    jit_options: *mut CUenum,
    jit_values: *mut *mut c_void,
    jit_count: c_uint,
    options: *mut CUenum,
    values: *mut *mut c_void,
    count: c_uint,
) -> Answer {
    driver()?;
    let image = read(path)?;
    let code = image.as_ptr().cast();
    cuLibraryLoadData(library, code, jit_options, jit_values, jit_count, options, values, count)
}

pub(crate) fn cuLibraryUnload(library: CUlibrary) -> Answer {
    let driver = driver()?;
    let library = driver.libraries.remove(library.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    for (_, kernel) in lock(&library.kernels).drain() {
        driver.kernels.remove(kernel);
    }
    for (_, module) in lock(&library.modules).drain() {
        if let Some(module) = driver.modules.remove(module) {
            for (_, function) in lock(&module.functions).drain() {
                driver.functions.remove(function);
            }
            driver.ask(&Request::UnloadModule { module: module.info.module })?;
        }
    }
    Ok(())
}

/// The library's module in the current context, loaded when it is first asked for.
pub(super) fn library_module(driver: &Driver, library: usize) -> Result<Arc<Module>, CUresult> {
    let context = current::context(driver)?;
    let library = driver.libraries.get(library).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let mut modules = lock(&library.modules);
    let known = modules.get(&context.home).and_then(|&handle| driver.modules.get(handle));
    if let Some(module) = known {
        return Ok(module);
    }
    let module = load(driver, &context, &library.text).map_err(|(status, _)| status)?;
    modules.insert(context.home, module.handle);
    Ok(module)
}

pub(crate) fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) -> Answer {
    let loaded = library_module(driver()?, library.addr())?;
    raw::store(module, CUmodule::from_addr(loaded.handle))
}

pub(crate) fn cuLibraryGetKernel(kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) -> Answer {
    let driver = driver()?;
    let name = raw::text(name)?;
    let owner = driver.libraries.get(library.addr()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if !image::declares_entry(&owner.text, &name) {
        return Err(CUresult::ERROR_NOT_FOUND);
    }
    let mut kernels = lock(&owner.kernels);
    let handle = *kernels.entry(name.clone()).or_insert_with(|| {
        let handle = driver.kernels.reserve();
        driver.kernels.insert(handle, Arc::new(Kernel { library: library.addr(), name }));
        handle
    });
    raw::store(kernel, CUkernel::from_addr(handle))
}

/// The function a handle means; from CUDA 12 on it may be a kernel's, which is resolved in the current context.
pub(crate) fn find_function(driver: &Driver, handle: usize) -> Result<(usize, Arc<Function>), CUresult> {
    if let Some(function) = driver.functions.get(handle) {
        return Ok((handle, function));
    }
    let kernel = driver.kernels.get(handle).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let module = library_module(driver, kernel.library)?;
    let handle = function(driver, &module, &kernel.name)?;
    driver.functions.get(handle).map(|function| (handle, function)).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) fn cuKernelGetFunction(handle: *mut CUfunction, kernel: CUkernel) -> Answer {
    let driver = driver()?;
    if driver.kernels.get(kernel.addr()).is_none() {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    let (found, _) = find_function(driver, kernel.addr())?;
    raw::store(handle, CUfunction::from_addr(found))
}

const MAX_DYNAMIC_SHARED: CUenum = 8;
const PREFERRED_CARVEOUT: CUenum = 9;

pub(crate) fn cuFuncGetAttribute(value: *mut c_int, attribute: CUenum, handle: CUfunction) -> Answer {
    let driver = driver()?;
    let (_, function) = find_function(driver, handle.addr())?;
    let info = function.info();
    let known = match attribute {
        0 => info.threads_max,
        1 => info.shared_bytes,
        2 => info.const_bytes,
        3 => info.local_bytes,
        4 => info.registers,
        5 => function.module.info.ptx_version,
        6 => function.module.info.target,
        MAX_DYNAMIC_SHARED => function.dynamic_shared_max.load(Ordering::Relaxed),
        PREFERRED_CARVEOUT => return raw::store(value, -1),
        7 | 10..=15 => 0,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    raw::store(value, c_int::try_from(known).unwrap_or(c_int::MAX))
}

pub(crate) fn cuFuncSetAttribute(handle: CUfunction, attribute: CUenum, value: c_int) -> Answer {
    let driver = driver()?;
    let (_, function) = find_function(driver, handle.addr())?;
    match attribute {
        MAX_DYNAMIC_SHARED => {
            let most = attributes::SHARED_PER_BLOCK_OPTIN.saturating_sub(function.info().shared_bytes);
            let wanted = u32::try_from(value).ok().filter(|&wanted| wanted <= most);
            function
                .dynamic_shared_max
                .store(wanted.ok_or(CUresult::ERROR_INVALID_VALUE)?, Ordering::Relaxed);
            Ok(())
        }
        // A hint about the split between L1 and shared memory, which are not simulated.
        PREFERRED_CARVEOUT if (-1..=100).contains(&value) => Ok(()),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// A hint, as above.
pub(crate) fn cuFuncSetCacheConfig(handle: CUfunction, config: CUenum) -> Answer {
    find_function(driver()?, handle.addr())?;
    if config > 3 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

pub(crate) fn cuFuncGetModule(module: *mut CUmodule, handle: CUfunction) -> Answer {
    let (_, function) = find_function(driver()?, handle.addr())?;
    raw::store(module, CUmodule::from_addr(function.module.handle))
}

/// The text lives as long as the function's module.
pub(crate) fn cuFuncGetName(name: *mut *const c_char, handle: CUfunction) -> Answer {
    let (_, function) = find_function(driver()?, handle.addr())?;
    raw::store(name, function.name.as_ptr())
}

pub(crate) fn cuFuncGetParamInfo(
    handle: CUfunction,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> Answer {
    let (_, function) = find_function(driver()?, handle.addr())?;
    let &(at, length) = function.info().params.get(index).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(offset, at as usize)?;
    raw::store_if(bytes, length as usize);
    Ok(())
}
