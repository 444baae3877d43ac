//! `libheadgate_remote.so`: the driver API of a borrowed GPU.
//!
//! Installed as `libcuda.so.1` on a node without a GPU, it lets driver-API programs use one elsewhere. It exports the
//! rows that the one table (`headgate-abi`, `cuda::remote`) says travel, and nothing else; what they do stands in
//! `headgate-remote`. It is a library of its own, not part of the hook, because it starts threads and keeps a
//! connection, as a driver library does and a guest must not.
#![expect(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Once;

use headgate_abi::cuda::symbols::{COUNT, Symbol};
use headgate_abi::cuda::types::*;
use headgate_abi::remote_way;
use headgate_remote::Word as _;
use headgate_remote::client::{api, plain, shell};

macro_rules! own {
    ($name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($($arg: $ty),*) -> CUresult {
            prepare();
            shell::call(|| api::$name($($arg),*))
        }
    };
}

macro_rules! plain {
    ($name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($($arg: $ty),*) -> CUresult {
            shell::call(|| plain(Symbol::$name, &[$($arg.to_word()),*]))
        }
    };
}

macro_rules! twin {
    ($base:ident $name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($($arg: $ty),*) -> CUresult {
            shell::per_thread(|| $base($($arg),*))
        }
    };
}

macro_rules! twin_address {
    ($base:ident $name:ident) => {
        Some(Address($name as *const c_void))
    };
}

macro_rules! exports {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
        $(remote_way! { $name,
            own { own! { $name ($($arg: $ty),*) } }
            plain { plain! { $name ($($arg: $ty),*) } }
            twin twin { $name ($($arg: $ty),*) }
            absent {}
        })*

        /// Addresses of the exports, in table order.
        static ADDRESSES: [Option<Address>; COUNT] = [$(remote_way! { $name,
            own { Some(Address($name as *const c_void)) }
            plain { Some(Address($name as *const c_void)) }
            twin twin_address { $name }
            absent { None }
        },)*];
    };
}
headgate_abi::cuda_symbols!(exports);

#[derive(Clone, Copy)]
struct Address(*const c_void);

// SAFETY: the address of a function never changes and may be known to every thread.
unsafe impl Sync for Address {}

fn address_of(symbol: Symbol) -> Option<usize> {
    ADDRESSES[symbol.index()].map(|address| address.0.expose_provenance())
}

/// Says where the exports are, before anybody can look them up through us.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| api::set_exports(address_of));
}
