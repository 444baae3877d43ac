//! The exported functions: one shell for each row of the table, and the one function that has another form.
#![expect(unsafe_code, reason = "exporting a symbol is what this room is for")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};

use headgate_abi::nvml::*;

use crate::api;
use crate::session::shell;

macro_rules! shells {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$hook:ident];)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $ty),*) -> NvmlReturn {
                shell(stringify!($name), || api::$name($($arg),*))
            }
        )*

        /// What a row without a function of its own does.
        pub(crate) mod fallback {
            #![allow(non_snake_case, reason = "the names are those of NVML")]
            use super::*;
            use crate::session::{Answer, not_supported};
            $(
                #[allow(dead_code, reason = "shadowed where the row has a function of its own")]
                pub(crate) fn $name($(_: $ty),*) -> Answer {
                    not_supported(stringify!($name))
                }
            )*
        }
    };
}
headgate_abi::nvml_symbols!(shells);

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: NvmlReturn) -> *const c_char {
    let text: &'static CStr = match result {
        NvmlReturn::SUCCESS => c"The operation was successful (simulated)",
        NvmlReturn::ERROR_UNINITIALIZED => c"NVML was not first initialized with nvmlInit()",
        NvmlReturn::ERROR_INVALID_ARGUMENT => c"A supplied argument is invalid",
        NvmlReturn::ERROR_NOT_SUPPORTED => c"The simulated device does not have this function",
        NvmlReturn::ERROR_NO_PERMISSION => c"The current user may not do this",
        NvmlReturn::ERROR_NOT_FOUND => c"A query to find an object was unsuccessful",
        NvmlReturn::ERROR_INSUFFICIENT_SIZE => c"An input argument is not large enough",
        NvmlReturn::ERROR_TIMEOUT => c"The provided timeout passed",
        NvmlReturn::ERROR_DRIVER_NOT_LOADED => c"No simulated device server was found",
        NvmlReturn::ERROR_FUNCTION_NOT_FOUND => c"Local version of NVML does not have this function",
        NvmlReturn::ERROR_ARGUMENT_VERSION_MISMATCH => c"The version of an argument is not known",
        _ => c"An unknown error",
    };
    text.as_ptr()
}
