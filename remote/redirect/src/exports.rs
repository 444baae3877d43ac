//! Every function this library exports: the loader's two look-ups, and every row of the table.
#![expect(unsafe_code, reason = "exports C functions")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::*;
use headgate_remote::client::{api, contract};
use headgate_remote::{export_twin, export_twin_address};

use crate::route;

headgate_abi::cuda_symbols!(headgate_remote::client_exports, export_refusal);

/// Says where the exports are and how to find the driver, before any call goes on.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        api::set_exports(address_of);
        contract::redirect(route::in_driver);
    });
}

/// The exported function of a row that travels.
pub(crate) fn offered(symbol: Symbol) -> Option<*mut c_void> {
    address_of(symbol).map(core::ptr::with_exposed_provenance_mut)
}

/// The loader's look-up. The driver's names are answered here; for every other name control jumps to whose turn it is
/// next, with the caller's return address in place, because `RTLD_NEXT` is resolved by who calls.
///
/// # Safety
/// As `dlsym(3)` says.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    std::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 24",
        "mov rdx, rsp",
        "mov rcx, [rsp + 40]",
        "call {pick}",
        "mov rcx, [rsp]",
        "add rsp, 24",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jz 2f",
        "mov rax, rcx",
        "ret",
        "2:",
        "mov rax, [rip + {next}]",
        "jmp rax",
        pick = sym pick,
        next = sym route::NEXT_DLSYM,
    )
}

/// The loader's versioned look-up, likewise.
///
/// # Safety
/// As `dlvsym(3)` says.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    std::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "sub rsp, 16",
        "mov rcx, rsp",
        "mov r8, [rsp + 40]",
        "call {pick}",
        "mov rcx, [rsp]",
        "add rsp, 16",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jz 2f",
        "mov rax, rcx",
        "ret",
        "2:",
        "mov rax, [rip + {next}]",
        "jmp rax",
        pick = sym pick_versioned,
        next = sym route::NEXT_DLVSYM,
    )
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the look-ups' trampolines are written for x86-64 only so far");

/// Whether to answer a look-up here; the answer is then in `out`. `caller` is the address it returns to.
///
/// # Safety
/// `out` is valid for writing; `name` is what the program passed to `dlsym`.
unsafe extern "C" fn pick(
    handle: *mut c_void,
    name: *const c_char,
    out: *mut *mut c_void,
    caller: usize,
) -> bool {
    // SAFETY: as promised to this function.
    unsafe { answer(out, name, |name| route::route(handle, name, caller)) }
}

/// The same for `dlvsym`.
///
/// # Safety
/// As for [`pick`]; `version` is a terminated text, too.
unsafe extern "C" fn pick_versioned(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    out: *mut *mut c_void,
    caller: usize,
) -> bool {
    // SAFETY: as promised to this function.
    unsafe { answer(out, name, |name| route::route_versioned(handle, name, version, caller)) }
}

/// # Safety
/// As for [`pick`].
unsafe fn answer(
    out: *mut *mut c_void,
    name: *const c_char,
    route: impl FnOnce(&CStr) -> Option<*mut c_void>,
) -> bool {
    route::prepare();
    prepare();
    if name.is_null() {
        return false;
    }
    // SAFETY: the caller of the look-up promises a terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    // A panic must not reach the caller, who is C; it then is as if we were not here.
    let Ok(Some(found)) = catch_unwind(AssertUnwindSafe(|| route(name))) else { return false };
    // SAFETY: a slot in the trampoline's frame.
    unsafe { out.write(found) };
    true
}
