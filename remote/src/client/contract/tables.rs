//! Private tables: which are the driver's, which are ours, and which are refused.
//!
//! A table is an array of words: mostly its size in bytes, then functions. All live as long as the library, which is
//! never unloaded.
#![expect(unsafe_code, reason = "tables of C functions")]

use core::ffi::c_void;

use headgate_abi::cuda::types::{CUcontext, CUresult, CUuuid};

use super::{Genuine, note, storage};
use crate::client::raw;

pub(super) const CUDART_INTERFACE: CUuuid = id(0x6bd5_fb6c_5bf4_e74a_8987_d939_12fd_9df9);
const INTEGRITY_CHECK: CUuuid = id(0xd408_2055_bde6_704b_8d34_ba12_3c66_e1f2);
const RUNTIME_HOOKS: CUuuid = id(0xa094_798c_2e74_2e74_93f2_0800_200c_0a66);
const TOOLS_TLS: CUuuid = id(0x42d8_5a81_23f6_cb47_8298_f6e7_8a3a_ecdc);
const CONTEXT_LOCAL_STORAGE: CUuuid = id(0xc693_336e_1121_df11_a8c3_68f3_55d8_9593);
const CONTEXT_CHECKS: CUuuid = id(0x263e_8860_7cd2_6143_92f6_bbd5_006d_fa7e);
const ERROR_TEXTS: CUuuid = id(0xf8cf_f951_2146_8b4e_b9e2_fb46_9e7c_0dd9);
const SINCE_13_4: CUuuid = id(0x2131_8c60_9714_3248_8ca6_41ff_7324_c8f2);

/// The bytes of an identifier are in the order of its text.
const fn id(text: u128) -> CUuuid {
    CUuuid { bytes: text.to_be_bytes() }
}

/// A word of a table.
#[derive(Clone, Copy)]
struct Slot(#[allow(dead_code, reason = "read by whoever is given the table")] *const c_void);

// SAFETY: a number or the address of a function, which never change and may be known to every thread.
unsafe impl Sync for Slot {}

const fn bytes(slots: usize) -> Slot {
    Slot(core::ptr::without_provenance(8 * slots))
}

/// Says that a function was called that nobody is known to call, and that there is none.
macro_rules! unknown {
    ($table:expr, $slot:literal) => {{
        extern "C" fn unknown() -> CUresult {
            note(&format_args!("private table {}: function {} was called", Text(&$table), $slot));
            CUresult::ERROR_NOT_SUPPORTED
        }
        Slot(unknown as *const c_void)
    }};
}

/// A table of such functions, behind its size.
macro_rules! unknowns {
    ($table:expr, $slots:literal: $($slot:literal)*) => {
        [bytes($slots), $(unknown!($table, $slot)),*]
    };
}

/// No size here: three functions, and a null behind them.
static STORAGE: [Slot; 4] = [
    Slot(storage::put as *const c_void),
    Slot(storage::delete as *const c_void),
    Slot(storage::get as *const c_void),
    Slot(core::ptr::null()),
];

/// The runtime uses the first four; other libraries of NVIDIA's find as many as newer drivers have.
static CHECKS: [Slot; 17] = {
    let mut table = unknowns!(CONTEXT_CHECKS, 17: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    table[2] = Slot(check as *const c_void);
    table[3] = Slot(checked as *const c_void);
    table
};

/// As long as the longest that is known to do.
static UNUSED: [Slot; 65] = unknowns!(SINCE_13_4, 65:
    1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
    33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64);

/// Nothing is wrong with any context: what could be is heard at the next call.
extern "C" fn check(_: CUcontext, result: *mut u32, _: *mut *const c_void) -> CUresult {
    raw::store_if(result, 0);
    CUresult::SUCCESS
}

extern "C" fn checked() -> u32 {
    0
}

/// A private table, for a program beside a driver.
pub(in crate::client) fn table(genuine: &Genuine, wanted: &CUuuid) -> Result<*const c_void, CUresult> {
    let ours = |table: &'static [Slot]| Ok(table.as_ptr().cast());
    match wanted.bytes {
        bytes
            if [CUDART_INTERFACE, INTEGRITY_CHECK, RUNTIME_HOOKS, TOOLS_TLS]
                .iter()
                .any(|known| known.bytes == bytes) =>
        {
            let mut table = core::ptr::null();
            genuine.table(&raw mut table, wanted).map(|()| table)
        }
        bytes if bytes == CONTEXT_LOCAL_STORAGE.bytes => ours(&STORAGE),
        bytes if bytes == CONTEXT_CHECKS.bytes => ours(&CHECKS),
        bytes if bytes == SINCE_13_4.bytes => ours(&UNUSED),
        // Runtimes do without it, and use it wherever it is offered.
        bytes if bytes == ERROR_TEXTS.bytes => Err(CUresult::ERROR_INVALID_VALUE),
        _ => {
            note(&format_args!("private table {} is refused: nobody has said what it does", Text(wanted)));
            Err(CUresult::ERROR_INVALID_VALUE)
        }
    }
}

/// An identifier as NVIDIA writes it.
struct Text<'a>(&'a CUuuid);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.bytes.iter().enumerate() {
            write!(to, "{}{byte:02X}", if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_say_how_long_they_are() {
        assert_eq!(CHECKS[0].0.addr(), size_of_val(&CHECKS));
        assert_eq!(UNUSED[0].0.addr(), size_of_val(&UNUSED));
        assert!(STORAGE[3].0.is_null());
        assert!(CHECKS.iter().chain(&UNUSED).all(|slot| !slot.0.is_null()));
    }

    #[test]
    fn identifiers_are_written_as_nvidia_writes_them() {
        assert_eq!(Text(&CUDART_INTERFACE).to_string(), "6BD5FB6C-5BF4-E74A-8987-D93912FD9DF9");
        assert_eq!(CUDART_INTERFACE.bytes[..4], [0x6b, 0xd5, 0xfb, 0x6c]);
    }
}
