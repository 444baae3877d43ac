//! Initialisation, look-up and error texts.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::{c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::symbols::{ThreadMode, select};
use headgate_abi::cuda::types::{CUenum, CUresult, CUuuid};

use crate::driver::{self, Answer};
use crate::{exports, private, raw};

/// `CU_GET_PROC_ADDRESS_SUCCESS`, `_SYMBOL_NOT_FOUND`, `_VERSION_NOT_SUFFICIENT`.
const FOUND: CUenum = 0;
const NOT_FOUND: CUenum = 1;
const TOO_OLD: CUenum = 2;

pub(crate) fn cuInit(flags: c_uint) -> Answer {
    if flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    driver::initialise()
}

pub(crate) fn cuDriverGetVersion(version: *mut c_int) -> Answer {
    raw::store(version, c_int::try_from(driver::version()).unwrap_or(c_int::MAX))
}

/// What a look-up comes to: the entry point, or why there is none.
fn look_up(
    symbol: *const c_char,
    version: c_int,
    flags: u64,
) -> Result<Result<*mut c_void, CUenum>, CUresult> {
    let name = raw::text(symbol)?;
    let version = u32::try_from(version).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    if version > driver::version() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mode = match flags {
        0 | 1 => ThreadMode::Base,
        2 => ThreadMode::PerThread,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    Ok(match select(&name, version, mode) {
        Ok(symbol) => Ok(exports::address_of(symbol)),
        Err(true) => Err(TOO_OLD),
        Err(false) => Err(NOT_FOUND),
    })
}

pub(crate) fn cuGetProcAddress(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
) -> Answer {
    match look_up(symbol, cuda_version, flags)? {
        Ok(address) => raw::store(pfn, address),
        Err(_) => Err(CUresult::ERROR_NOT_FOUND),
    }
}

pub(crate) fn cuGetProcAddress_v2(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
    symbol_status: *mut CUenum,
) -> Answer {
    let (address, status) = match look_up(symbol, cuda_version, flags)? {
        Ok(address) => (address, FOUND),
        Err(status) => (core::ptr::null_mut(), status),
    };
    raw::store(pfn, address)?;
    raw::store_if(symbol_status, status);
    Ok(())
}

/// The private tables that [`private`] has; programs get by without others as with a driver that lacks them.
pub(crate) fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) -> Answer {
    raw::store(table, core::ptr::null())?;
    let found = private::table(raw::load(id)?.bytes).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    raw::store(table, found)
}

pub(crate) fn cuGetErrorName(error: CUresult, text: *mut *const c_char) -> Answer {
    describe(error.name(), text)
}

pub(crate) fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> Answer {
    describe(error.text(), text)
}

fn describe(known: Option<&'static core::ffi::CStr>, text: *mut *const c_char) -> Answer {
    raw::store(text, known.map_or(core::ptr::null(), core::ffi::CStr::as_ptr))?;
    known.map(|_| ()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) fn cuModuleGetLoadingMode(mode: *mut CUenum) -> Answer {
    const EAGER: CUenum = 1;
    driver::driver()?;
    raw::store(mode, EAGER)
}
