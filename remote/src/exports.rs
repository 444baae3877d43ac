//! The exported functions, for the libraries that programs load: one shell for each row of the one table.
//!
//! Two libraries export the same client and differ in what a row is that does not travel. In the place of a driver
//! (`remote/libcuda`) it is not there, because programs cope with a function that a driver lacks. In front of a driver
//! (`remote/redirect`) it is there and refuses, because a program that is linked with it would find the driver's own.

/// Exports every row: `cuda_symbols!(headgate_remote::client_exports, export_nothing)`, or `export_refusal` for rows that
/// do not travel. Who calls it has a function `prepare`, which every call that can be a program's first one makes first,
/// and gets `address_of(Symbol)`: where the exported function of a row that travels is.
#[macro_export]
macro_rules! client_exports {
    ([$absent:ident] $($name:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
        $(::headgate_abi::remote_way! { $name,
            own { $crate::export_own! { $name ($($arg: $ty),*) } }
            plain { $crate::export_plain! { $name ($($arg: $ty),*) } }
            twin export_twin { $name ($($arg: $ty),*) }
            absent { $crate::$absent! { $name ($($arg: $ty),*) } }
        })*

        /// Addresses of the exports, in table order.
        static ADDRESSES: [Option<Address>; ::headgate_abi::cuda::symbols::COUNT] = [
            $(::headgate_abi::remote_way! { $name,
                own { Some(Address($name as *const ::core::ffi::c_void)) }
                plain { Some(Address($name as *const ::core::ffi::c_void)) }
                twin export_twin_address { $name }
                absent { None }
            },)*
        ];

        #[derive(Clone, Copy)]
        struct Address(*const ::core::ffi::c_void);

        // SAFETY: the address of a function never changes and may be known to every thread.
        unsafe impl Sync for Address {}

        fn address_of(symbol: ::headgate_abi::cuda::symbols::Symbol) -> Option<usize> {
            ADDRESSES[symbol.index()].map(|address| address.0.expose_provenance())
        }
    };
}

/// A call with a function of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! export_own {
    ($name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($($arg: $ty),*) -> CUresult {
            prepare();
            $crate::client::shell::call(|| $crate::client::api::$name($($arg),*))
        }
    };
}

/// A call that travels by its row's rules.
#[doc(hidden)]
#[macro_export]
macro_rules! export_plain {
    ($name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($($arg: $ty),*) -> CUresult {
            use $crate::Word as _;
            let symbol = ::headgate_abi::cuda::symbols::Symbol::$name;
            $crate::client::shell::call(|| $crate::client::plain(symbol, &[$($arg.to_word()),*]))
        }
    };
}

/// A call whose null stream is the thread's own.
#[doc(hidden)]
#[macro_export]
macro_rules! export_twin {
    ($base:ident $name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($($arg: $ty),*) -> CUresult {
            $crate::client::shell::per_thread(|| $base($($arg),*))
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_twin_address {
    ($base:ident $name:ident) => {
        Some(Address($name as *const ::core::ffi::c_void))
    };
}

/// A row that does not travel is not there.
#[doc(hidden)]
#[macro_export]
macro_rules! export_nothing {
    ($($row:tt)*) => {};
}

/// A row that does not travel refuses.
#[doc(hidden)]
#[macro_export]
macro_rules! export_refusal {
    ($name:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C name and signature")]
        extern "C" fn $name($(_: $ty),*) -> CUresult {
            let symbol = ::headgate_abi::cuda::symbols::Symbol::$name;
            $crate::client::shell::call(|| Err($crate::client::contract::absent(symbol)))
        }
    };
}
