//! Every driver entry point by the one symbol table's own signatures, found in `libcuda.so.1` by name.
#![allow(dead_code, non_snake_case, reason = "each test program uses a part; the names are the driver API's")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use headgate_abi::cuda::types::*;

fn find(name: &str) -> *mut c_void {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    let library = *LIBRARY.get_or_init(|| {
        // SAFETY: loading the library the test is about.
        unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) }.expose_provenance()
    });
    assert_ne!(library, 0, "libcuda.so.1 can be loaded");
    let name = CString::new(name).unwrap();
    // SAFETY: a handle of dlopen and a terminated name.
    let found = unsafe { libc::dlsym(std::ptr::with_exposed_provenance_mut(library), name.as_ptr()) };
    assert!(!found.is_null(), "{name:?} is exported");
    found
}

macro_rules! calls {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {$(
        #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
        pub(crate) fn $name($($arg: $ty),*) -> Result<(), CUresult> {
            type Function = unsafe extern "C" fn($($ty),*) -> CUresult;
            let found = find(stringify!($name));
            // SAFETY: the table's signature is the function's.
            let function = unsafe { std::mem::transmute::<*mut c_void, Function>(found) };
            // SAFETY: the test passes valid arguments, or ones whose refusal it tests.
            let status = unsafe { function($($arg),*) };
            if status.is_success() { Ok(()) } else { Err(status) }
        }
    )*};
}
headgate_abi::cuda_symbols!(calls);
