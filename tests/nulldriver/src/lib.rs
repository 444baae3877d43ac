//! A `libcuda.so.1` whose calls return at once, so that a bench of what stands in front of them sees nanoseconds.
//!
//! Every row of the one symbol table is exported and succeeds, with outputs a program can go on with: allocations get
//! new addresses, handles are new numbers, look-ups answer from the table. Writes of stream memory operations to host
//! addresses happen at once, so that whoever counts completions sees them. There is no device, no state beyond two
//! counters, and no lock.
//!
//! What it never does: check an argument, move a byte of "device" memory, or stand in for the simulated GPU in a test
//! of behaviour.
#![expect(
    unsafe_code,
    reason = "exporting symbols and writing through a C caller's pointers is all this library does"
)]

mod answers;

use core::ffi::{c_char, c_int, c_uint, c_void};

use headgate_abi::cuda::symbols::{COUNT, Symbol};
use headgate_abi::cuda::types::*;

macro_rules! exports {
    ([] $($name:ident ($($arg:ident: $ty:ty),*)
        [$base:literal, $since:literal, $thread:ident, $family:ident, $hook:ident];)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $ty),*) -> CUresult {
                answers::$name($($arg),*)
            }
        )*

        static ADDRESSES: [Address; COUNT] = [$(Address($name as *const c_void),)*];

        /// What a row without an answer of its own does: nothing, successfully.
        mod nothing {
            #![allow(non_snake_case, reason = "the names are those of the driver API")]
            use super::*;
            $(
                #[allow(dead_code, reason = "shadowed where the row has an answer of its own")]
                #[allow(clippy::too_many_arguments, reason = "the signatures are the driver API's")]
                #[inline(always)]
                pub(crate) fn $name($(_: $ty),*) -> CUresult {
                    CUresult::SUCCESS
                }
            )*
        }
    };
}
headgate_abi::cuda_symbols!(exports);

struct Address(*const c_void);

// SAFETY: the address of a function never changes and may be known to every thread.
unsafe impl Sync for Address {}

fn address_of(symbol: Symbol) -> *mut c_void {
    ADDRESSES[symbol.index()].0.cast_mut()
}
