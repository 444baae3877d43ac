//! The exported functions: one shell for each row of the table.
#![expect(unsafe_code, reason = "exporting a symbol is what this room is for")]

use core::ffi::{c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::symbols::{COUNT, Symbol};
use headgate_abi::cuda::types::*;

use crate::api;
use crate::driver::shell;

macro_rules! shells {
    ([] $($name:ident ($($arg:ident: $ty:ty),*)
        [$base:literal, $since:literal, $thread:ident, $family:ident, $hook:ident];)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $ty),*) -> CUresult {
                shell(Symbol::$name, || api::$name($($arg),*))
            }
        )*

        /// Addresses of the shells, in table order.
        static ADDRESSES: [Address; COUNT] = [$(Address($name as *const c_void),)*];

        /// What a row without a function of its own does.
        pub(crate) mod fallback {
            #![allow(non_snake_case, reason = "the names are those of the driver API")]
            use super::*;
            use crate::driver::{Answer, not_supported};
            $(
                #[allow(dead_code, reason = "shadowed where the row has a function of its own")]
                #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
                pub(crate) fn $name($(_: $ty),*) -> Answer {
                    not_supported(Symbol::$name)
                }
            )*
        }
    };
}
headgate_abi::cuda_symbols!(shells);

struct Address(*const c_void);

// SAFETY: the address of a function never changes and may be known to every thread.
unsafe impl Sync for Address {}

/// The exported function of a row.
pub(crate) fn address_of(symbol: Symbol) -> *mut c_void {
    ADDRESSES[symbol.index()].0.cast_mut()
}
