//! Arguments as 64-bit words, and back.

use core::ffi::{c_int, c_uint};

use headgate_abi::cuda::types::{
    CUarray, CUcontext, CUevent, CUfunction, CUgraph, CUgraphExec, CUkernel, CUlibrary, CUlinkState,
    CUmemoryPool, CUmodule, CUresult, CUstream,
};

/// A type of the driver API that fits a word.
pub trait Word: Copy {
    /// The word.
    fn to_word(self) -> u64;
    /// The value of a word; higher bits than the type has are dropped.
    fn from_word(word: u64) -> Self;
}

macro_rules! numbers {
    ($($ty:ty as $unsigned:ty),*) => {$(
        impl Word for $ty {
            fn to_word(self) -> u64 {
                #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "the bits are what travels")]
                { self as $unsigned as u64 }
            }

            fn from_word(word: u64) -> Self {
                #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::unnecessary_cast, reason = "the bits are what travels")]
                { word as Self }
            }
        }
    )*};
}
numbers!(u8 as u8, u16 as u16, c_int as u32, c_uint as u32, u64 as u64, usize as u64);

impl<T> Word for *mut T {
    fn to_word(self) -> u64 {
        self.expose_provenance() as u64
    }

    fn from_word(word: u64) -> Self {
        core::ptr::with_exposed_provenance_mut(usize::from_word(word))
    }
}

impl<T> Word for *const T {
    fn to_word(self) -> u64 {
        self.expose_provenance() as u64
    }

    fn from_word(word: u64) -> Self {
        core::ptr::with_exposed_provenance(usize::from_word(word))
    }
}

macro_rules! handles {
    ($($ty:ty),*) => {$(
        impl Word for $ty {
            fn to_word(self) -> u64 {
                self.addr() as u64
            }

            fn from_word(word: u64) -> Self {
                Self::from_addr(usize::from_word(word))
            }
        }
    )*};
}
handles!(
    CUcontext,
    CUstream,
    CUevent,
    CUmodule,
    CUfunction,
    CUlibrary,
    CUkernel,
    CUmemoryPool,
    CUarray,
    CUgraph,
    CUgraphExec,
    CUlinkState
);

impl Word for CUresult {
    fn to_word(self) -> u64 {
        self.0.into()
    }

    fn from_word(word: u64) -> Self {
        Self(u32::from_word(word))
    }
}
