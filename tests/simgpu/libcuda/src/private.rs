//! Private tables of the simulated driver, so that programs which start as runtime libraries start can be tried on it.
//!
//! The tables, their slots and what callers rely on are those of the genuine driver, as far as callers show them
//! (`docs/remote.md` tells the contract). The self-test is not: what [`self_test`] answers is of our own making and no
//! runtime library of NVIDIA's takes it for its driver's. It is there because it fails as theirs would: whoever asks
//! computes the same from what it was told by other calls, and finds out if the driver's version, a device's identity or
//! the address of a table is not what this very driver, in this very process, gave out.
#![expect(unsafe_code, reason = "tables of C functions")]

use core::ffi::{c_int, c_uint, c_void};
use std::collections::HashMap;
use std::sync::Mutex;

use headgate_abi::cuda::types::{CUcontext, CUdevice, CUmodule, CUresult};

use crate::api::{cuModuleLoadData, device_index};
use crate::driver::{self, driver, unlisted};
use crate::objects::lock;
use crate::{attributes, current, raw};

/// A word of a table: its size, a function, or nothing.
#[derive(Clone, Copy)]
struct Slot(#[allow(dead_code, reason = "read by whoever is given the table")] *const c_void);

// SAFETY: a number or the address of a function, which never change and may be known to every thread.
unsafe impl Sync for Slot {}

const NOTHING: Slot = Slot(core::ptr::null());

const fn bytes(slots: usize) -> Slot {
    Slot(core::ptr::without_provenance(8 * slots))
}

macro_rules! slot {
    ($function:ident) => {
        Slot($function as *const c_void)
    };
}

static CUDART_INTERFACE: [Slot; 13] = [
    bytes(13),
    slot!(load_module),
    slot!(primary_context),
    slot!(unsupported),
    slot!(unsupported),
    slot!(unsupported),
    slot!(load_module),
    slot!(unsupported),
    slot!(unsupported),
    slot!(unsupported),
    slot!(unsupported),
    slot!(unsupported),
    slot!(load_compilers),
];
static RUNTIME_HOOKS: [Slot; 7] = [
    bytes(7),
    slot!(unsupported),
    slot!(runtime_flags),
    slot!(unsupported),
    slot!(unsupported),
    slot!(unsupported),
    slot!(other_flags),
];
static TOOLS_TLS: [Slot; 4] = [bytes(4), slot!(unsupported), slot!(unsupported), slot!(unsupported)];
/// It has no size; a null is its end.
static CONTEXT_LOCAL_STORAGE: [Slot; 4] = [slot!(put), slot!(delete), slot!(get), NOTHING];
static CONTEXT_CHECKS: [Slot; 4] = [bytes(4), slot!(unsupported), slot!(check), slot!(checked)];
static INTEGRITY_CHECK: [Slot; 3] = [bytes(3), slot!(self_test), NOTHING];
/// Asked for since runtime 13.4, and never used.
static SINCE_13_4: [Slot; 4] = [bytes(4), slot!(unsupported), slot!(unsupported), slot!(unsupported)];

/// The table of an identifier.
pub(crate) fn table(id: [u8; 16]) -> Option<*const c_void> {
    let tables: [(u128, &[Slot]); 7] = [
        (0x6bd5_fb6c_5bf4_e74a_8987_d939_12fd_9df9, &CUDART_INTERFACE),
        (0xa094_798c_2e74_2e74_93f2_0800_200c_0a66, &RUNTIME_HOOKS),
        (0x42d8_5a81_23f6_cb47_8298_f6e7_8a3a_ecdc, &TOOLS_TLS),
        (0xc693_336e_1121_df11_a8c3_68f3_55d8_9593, &CONTEXT_LOCAL_STORAGE),
        (0x263e_8860_7cd2_6143_92f6_bbd5_006d_fa7e, &CONTEXT_CHECKS),
        (0xd408_2055_bde6_704b_8d34_ba12_3c66_e1f2, &INTEGRITY_CHECK),
        (0x2131_8c60_9714_3248_8ca6_41ff_7324_c8f2, &SINCE_13_4),
    ];
    let wanted = u128::from_be_bytes(id);
    tables.into_iter().find(|(known, _)| *known == wanted).map(|(_, table)| table.as_ptr().cast())
}

extern "C" fn unsupported() -> CUresult {
    CUresult::ERROR_NOT_SUPPORTED
}

/// The old ways to load a module, which newer runtimes do not go.
extern "C" fn load_module(module: *mut CUmodule, image: *const c_void) -> CUresult {
    unlisted(|| cuModuleLoadData(module, image))
}

/// The handle of a device's primary context, which stays as active as it is.
extern "C" fn primary_context(context: *mut CUcontext, device: CUdevice) -> CUresult {
    unlisted(|| {
        let driver = driver()?;
        let primary = &driver.primaries[device_index(driver, device)?];
        raw::store(context, CUcontext::from_addr(primary.handle))
    })
}

extern "C" fn load_compilers() -> CUresult {
    CUresult::SUCCESS
}

/// One flag for each function of a runtime: nobody listens.
extern "C" fn runtime_flags(flags: *mut *const c_void, count: *mut usize) -> CUresult {
    static FLAGS: [u32; 1024] = [0; 1024];
    unlisted(|| {
        raw::store(flags, FLAGS.as_ptr().cast())?;
        raw::store(count, FLAGS.len())
    })
}

extern "C" fn other_flags(flags: *mut *const c_void, count: *mut usize) -> CUresult {
    static FLAGS: [u32; 16] = [0; 16];
    unlisted(|| {
        raw::store(flags, FLAGS.as_ptr().cast())?;
        raw::store(count, 14)
    })
}

extern "C" fn check(_: CUcontext, result: *mut u32, _: *mut *const c_void) -> CUresult {
    unlisted(|| raw::store(result, 0))
}

extern "C" fn checked() -> u32 {
    0
}

type Destructor = extern "C" fn(CUcontext, *mut c_void, *mut c_void);

#[derive(Clone, Copy)]
struct Kept {
    value: usize,
    destructor: Option<Destructor>,
}

/// What libraries keep, by context and key.
static KEPT: Mutex<Option<HashMap<(usize, usize), Kept>>> = Mutex::new(None);

fn meant(context: CUcontext) -> Result<usize, CUresult> {
    match context.addr() {
        0 | usize::MAX => current::handle().ok_or(CUresult::ERROR_INVALID_CONTEXT),
        handle => Ok(handle),
    }
}

extern "C" fn put(
    context: CUcontext,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
) -> CUresult {
    unlisted(|| {
        let place = (meant(context)?, key.expose_provenance());
        let kept = Kept { value: value.expose_provenance(), destructor };
        lock(&KEPT).get_or_insert_default().insert(place, kept);
        Ok(())
    })
}

extern "C" fn delete(context: CUcontext, key: *mut c_void) -> CUresult {
    unlisted(|| {
        let place = (meant(context)?, key.addr());
        let gone = lock(&KEPT).get_or_insert_default().remove(&place);
        gone.map(|_| ()).ok_or(CUresult::ERROR_INVALID_HANDLE)
    })
}

extern "C" fn get(value: *mut *mut c_void, context: CUcontext, key: *mut c_void) -> CUresult {
    unlisted(|| {
        let place = (meant(context)?, key.addr());
        let found = lock(&KEPT).get_or_insert_default().get(&place).copied();
        let kept = found.ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        raw::store(value, core::ptr::with_exposed_provenance_mut(kept.value))
    })
}

/// A context is about to end: what was kept with it goes.
pub(crate) fn end_context(context: usize) {
    let gone: Vec<_> = {
        let mut kept = lock(&KEPT);
        kept.get_or_insert_default().extract_if(|place, _| place.0 == context).collect()
    };
    for ((context, key), kept) in gone {
        if let Some(destructor) = kept.destructor {
            let pointer = core::ptr::with_exposed_provenance_mut;
            destructor(CUcontext::from_addr(context), pointer(key), pointer(kept.value));
        }
    }
}

/// The simulated self-test: 16 bytes over the driver's version, the asked version and time, the process, the addresses of
/// the two tables and of this function, and every device's number, UUID, PCI address and name. Two sums of the kind
/// FNV-1a (64 bits), each begun with its number.
extern "C" fn self_test(version: c_uint, seconds: u64, answer: *mut [u8; 16]) -> CUresult {
    unlisted(|| {
        let mut told = b"simulated self-test".to_vec();
        let addresses = [
            CUDART_INTERFACE.as_ptr().addr(),
            INTEGRITY_CHECK.as_ptr().addr(),
            self_test as *const () as usize,
        ];
        let words = [u64::from(driver::version()), version.into(), seconds, std::process::id().into()];
        for word in words.into_iter().chain(addresses.map(|address| address as u64)) {
            told.extend_from_slice(&word.to_le_bytes());
        }
        for (number, device) in driver()?.connection.node().devices.iter().enumerate() {
            told.extend_from_slice(&(number as u64).to_le_bytes());
            told.extend_from_slice(&device.uuid);
            // Bus, device, domain.
            for attribute in [33, 34, 50] {
                let value: c_int = attributes::device(device, attribute).unwrap_or(-1);
                told.extend_from_slice(&value.to_le_bytes());
            }
            told.extend_from_slice(device.name.as_bytes());
        }
        let mut sums = [0; 16];
        for (lane, place) in sums.chunks_exact_mut(8).enumerate() {
            let start = 0xcbf2_9ce4_8422_2325 ^ lane as u64;
            let sum = told
                .iter()
                .fold(start, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
            place.copy_from_slice(&sum.to_le_bytes());
        }
        raw::store(answer, sums)
    })
}
