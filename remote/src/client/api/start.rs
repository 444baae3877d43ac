//! Starting, look-ups and error texts.

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use headgate_abi::cuda::remote::Column;
use headgate_abi::cuda::symbols::{COUNT, ROWS, SYMBOLS, Symbol, ThreadMode};
use headgate_abi::cuda::types::{CUenum, CUresult, CUuuid};

use crate::client::{Answer, contract, raw, state};

/// `CU_GET_PROC_ADDRESS_SUCCESS`, `_SYMBOL_NOT_FOUND`, `_VERSION_NOT_SUFFICIENT`.
const FOUND: CUenum = 0;
const NOT_FOUND: CUenum = 1;
const TOO_OLD: CUenum = 2;

static EXPORTS: OnceLock<fn(Symbol) -> Option<usize>> = OnceLock::new();

/// Says where the exported functions are.
pub fn set_exports(address_of: fn(Symbol) -> Option<usize>) {
    let _again = EXPORTS.set(address_of);
}

pub fn cuInit(flags: c_uint) -> Answer {
    if flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    state::initialise()
}

pub fn cuDriverGetVersion(version: *mut c_int) -> Answer {
    if let Some(genuine) = contract::genuine() {
        return genuine?.version(version);
    }
    raw::store(version, c_int::try_from(state::version()).unwrap_or(c_int::MAX))
}

macro_rules! signatures {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
        /// Types of the arguments, in table order.
        static SIGNATURES: [&str; COUNT] = [$(stringify!($($ty),*)),*];
    };
}
headgate_abi::cuda_symbols!(signatures);

/// What a name means in a version: its newest form that is not above it. Where this client lacks that one, an older one
/// takes its place if it is called alike; the program would call any other wrongly.
fn select(name: &str, version: u32, mode: ThreadMode) -> Result<Symbol, CUenum> {
    let rows = || ROWS.iter().zip(SYMBOLS).filter(|(row, _)| row.base_name == name);
    let offered = |symbol: Symbol| *symbol.column() != Column::Absent;
    for wanted in [mode, ThreadMode::Base] {
        let forms = || rows().filter(|(row, _)| row.thread_mode == wanted && row.since <= version);
        let Some((_, &newest)) = forms().max_by_key(|(row, _)| row.since) else { continue };
        let signature = SIGNATURES[newest.index()];
        let fits = forms().filter(|&(_, &form)| offered(form) && SIGNATURES[form.index()] == signature);
        return fits.max_by_key(|(row, _)| row.since).map(|(_, &form)| form).ok_or(NOT_FOUND);
    }
    Err(if rows().any(|(_, &form)| offered(form)) { TOO_OLD } else { NOT_FOUND })
}

fn look_up(symbol: *const c_char, version: c_int, flags: u64) -> Result<Result<usize, CUenum>, CUresult> {
    let name = raw::text(symbol)?;
    let version = u32::try_from(version).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    if version > state::version() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mode = match flags {
        0 | 1 => ThreadMode::Base,
        2 => ThreadMode::PerThread,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    let address = |symbol| EXPORTS.get().and_then(|address_of| address_of(symbol)).ok_or(NOT_FOUND);
    Ok(select(name, version, mode).and_then(address))
}

pub fn cuGetProcAddress(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
) -> Answer {
    match look_up(symbol, cuda_version, flags)? {
        Ok(address) => raw::store(pfn, core::ptr::with_exposed_provenance_mut(address)),
        Err(_) => Err(CUresult::ERROR_NOT_FOUND),
    }
}

pub fn cuGetProcAddress_v2(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cuda_version: c_int,
    flags: u64,
    symbol_status: *mut CUenum,
) -> Answer {
    let (address, status) = match look_up(symbol, cuda_version, flags)? {
        Ok(address) => (core::ptr::with_exposed_provenance_mut(address), FOUND),
        Err(status) => (core::ptr::null_mut(), status),
    };
    raw::store(pfn, address)?;
    raw::store_if(symbol_status, status);
    Ok(())
}

/// The private tables are NVIDIA's. Where there is a genuine driver it answers for them; without one, nobody does.
pub fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) -> Answer {
    raw::store(table, core::ptr::null())?;
    let genuine = contract::genuine().ok_or(CUresult::ERROR_INVALID_VALUE)??;
    raw::store(table, contract::table(genuine, &raw::load(id)?)?)
}

pub fn cuGetErrorName(error: CUresult, text: *mut *const c_char) -> Answer {
    describe(error.name(), text)
}

pub fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> Answer {
    describe(error.text(), text)
}

fn describe(known: Option<&'static core::ffi::CStr>, text: *mut *const c_char) -> Answer {
    raw::store(text, known.map_or(core::ptr::null(), core::ffi::CStr::as_ptr))?;
    known.map(|_| ()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub fn cuModuleGetLoadingMode(mode: *mut CUenum) -> Answer {
    const LAZY: CUenum = 2;
    state::client()?;
    raw::store(mode, LAZY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_not_found_and_what_is_older_is_offered_where_it_is_called_alike() {
        let base = ThreadMode::Base;
        assert_eq!(select("cuMemAlloc", 12_000, base), Ok(Symbol::cuMemAlloc_v2));
        assert_eq!(select("cuLaunchKernel", 12_000, ThreadMode::PerThread), Ok(Symbol::cuLaunchKernel_ptsz));
        assert_eq!(select("cuMemAlloc", 12_000, ThreadMode::PerThread), Ok(Symbol::cuMemAlloc_v2));
        assert_eq!(select("cuMemAlloc", 2_000, base), Err(NOT_FOUND), "its first form is absent");
        assert_eq!(select("cuMemAlloc", 1_000, base), Err(TOO_OLD));
        assert_eq!(select("cuIpcGetMemHandle", 12_000, base), Err(NOT_FOUND));
        assert_eq!(select("cuCtxGetDevice", 12_000, base), Ok(Symbol::cuCtxGetDevice));
        assert_eq!(select("cuCtxGetDevice", 13_000, base), Ok(Symbol::cuCtxGetDevice_v2));
        assert_eq!(
            select("cuMemHostRegister", 4_000, base),
            Err(NOT_FOUND),
            "no newer one in an older one's place"
        );
        assert_eq!(select("", 0, base), Err(NOT_FOUND));
    }
}
