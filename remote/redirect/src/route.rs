//! What a look-up is answered with.
//!
//! A name is the driver's if the C library finds it there; by where a function lies, not by what it is called, so that
//! another library's function of the same name stays what it is and one of a driver newer than our table is noticed. Such
//! a name is answered with our own function, or, where that does not travel, with nothing: a program copes with a driver
//! that lacks something.
//!
//! The driver itself may look names up, too; it is left alone.
#![expect(unsafe_code, reason = "calls the loader")]

use core::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use headgate_abi::cuda::symbols;
use headgate_remote::client::contract;

use crate::{elf, exports};

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

const DRIVER: &CStr = c"libcuda.so.1";

/// The C library's own look-ups. Null until [`prepare`] has run.
static DLSYM: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static DLVSYM: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
/// Whose turn is next: another preloaded library's, the hook's for instance, or the C library's own.
pub(crate) static NEXT_DLSYM: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
/// The same for versioned look-ups.
pub(crate) static NEXT_DLVSYM: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Makes sure the trampolines have somewhere to jump.
pub(crate) fn prepare() {
    if !NEXT_DLSYM.load(Acquire).is_null() {
        return;
    }
    // Found in the C library's own tables: asking for it by name would find our export.
    DLVSYM.store(elf::find_in_c_library(b"dlvsym"), Release);
    DLSYM.store(elf::find_in_c_library(b"dlsym"), Release);
    let next = |name: &CStr, otherwise: &AtomicPtr<c_void>| {
        let found = real(libc::RTLD_NEXT, name);
        if found.is_null() { otherwise.load(Acquire) } else { found }
    };
    NEXT_DLVSYM.store(next(c"dlvsym", &DLVSYM), Release);
    NEXT_DLSYM.store(next(c"dlsym", &DLSYM), Release);
}

/// What the C library itself finds.
fn real(handle: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: the C library's dlsym has this signature; null becomes None.
    let dlsym = unsafe { core::mem::transmute::<*mut c_void, Option<Dlsym>>(DLSYM.load(Acquire)) };
    match dlsym {
        // SAFETY: a handle of the caller's or the loader's, and a terminated name.
        Some(dlsym) => unsafe { dlsym(handle, name.as_ptr()) },
        None => core::ptr::null_mut(),
    }
}

fn real_versioned(handle: *mut c_void, name: &CStr, version: *const c_char) -> *mut c_void {
    // SAFETY: the C library's dlvsym has this signature; null becomes None.
    let dlvsym = unsafe { core::mem::transmute::<*mut c_void, Option<Dlvsym>>(DLVSYM.load(Acquire)) };
    match dlvsym {
        // SAFETY: the caller's own handle and version, and a terminated name.
        Some(dlvsym) => unsafe { dlvsym(handle, name.as_ptr(), version) },
        None => core::ptr::null_mut(),
    }
}

/// `dlsym(handle, name)`: our answer, or `None` for "let the next one answer".
pub(crate) fn route(handle: *mut c_void, name: &CStr, caller: usize) -> Option<*mut c_void> {
    judge(handle, name, caller, || real(handle, name))
}

/// `dlvsym(handle, name, version)`, likewise.
pub(crate) fn route_versioned(
    handle: *mut c_void,
    name: &CStr,
    version: *const c_char,
    caller: usize,
) -> Option<*mut c_void> {
    judge(handle, name, caller, || real_versioned(handle, name, version))
}

fn judge(
    handle: *mut c_void,
    name: &CStr,
    caller: usize,
    find: impl FnOnce() -> *mut c_void,
) -> Option<*mut c_void> {
    match name.to_bytes() {
        // A layer like this one looks for whose turn is next after itself, which only its own address tells.
        b"dlsym" | b"dlvsym" if handle == libc::RTLD_NEXT => return None,
        b"dlsym" | b"dlvsym" => return loader(find()),
        // All of the driver's names begin so, and hardly any other.
        [b'c', b'u', third, ..] if third.is_ascii_uppercase() => {}
        _ => return None,
    }
    let found = find();
    if found.is_null() {
        return None;
    }
    let driver = driver_code();
    let theirs = |address: usize| driver.is_some_and(|(begin, end)| (begin..end).contains(&(address as u64)));
    if theirs(caller) || !(theirs(found.addr()) || is_ours(found.addr())) {
        return None;
    }
    let symbol = name.to_str().ok().and_then(symbols::by_elf_name);
    let offered = symbol.and_then(exports::offered);
    if offered.is_none() {
        contract::note(&format_args!("{} is not offered on a borrowed device", name.to_string_lossy()));
    }
    Some(offered.unwrap_or(core::ptr::null_mut()))
}

/// The loader's own look-ups, looked up: ours in the place of whose turn would be next.
fn loader(found: *mut c_void) -> Option<*mut c_void> {
    let is = |known: &AtomicPtr<c_void>| !found.is_null() && found == known.load(Acquire);
    if is(&DLSYM) || is(&NEXT_DLSYM) {
        Some(exports::dlsym as *mut c_void)
    } else if is(&DLVSYM) || is(&NEXT_DLVSYM) {
        Some(exports::dlvsym as *mut c_void)
    } else {
        None
    }
}

/// Whether an address is in this library's code.
fn is_ours(address: usize) -> bool {
    static CODE: OnceLock<(u64, u64)> = OnceLock::new();
    let &(begin, end) = CODE.get_or_init(|| elf::text_range(is_ours as *const () as usize));
    (begin..end).contains(&(address as u64))
}

/// Where the driver's code is, if it is loaded.
fn driver_code() -> Option<(u64, u64)> {
    static CODE: OnceLock<(u64, u64)> = OnceLock::new();
    if let Some(&code) = CODE.get() {
        return Some(code);
    }
    let handle = open(libc::RTLD_LAZY | libc::RTLD_NOLOAD)?;
    let begin = real(handle, c"cuInit");
    // SAFETY: gives back the reference that `open` took; whoever loaded the driver has one of its own.
    unsafe { libc::dlclose(handle) };
    (!begin.is_null()).then(|| *CODE.get_or_init(|| elf::text_range(begin.addr())))
}

fn open(flags: c_int) -> Option<*mut c_void> {
    // SAFETY: loads or finds the vendor's library, as any program does.
    let handle = unsafe { libc::dlopen(DRIVER.as_ptr(), flags) };
    (!handle.is_null()).then_some(handle)
}

/// A function of the genuine driver, which is loaded now if the program has not done so; null if there is none. Where the
/// hook stands in front of the driver, it is the hook's: the process then has its seat like any other.
pub(crate) fn in_driver(name: &CStr) -> *mut c_void {
    static HANDLE: OnceLock<Option<usize>> = OnceLock::new();
    prepare();
    // It stays loaded: functions of it are kept.
    let opened = || open(libc::RTLD_LAZY | libc::RTLD_LOCAL).map(|handle| handle.expose_provenance());
    let Some(handle) = HANDLE.get_or_init(opened) else { return core::ptr::null_mut() };
    let next = NEXT_DLSYM.load(Acquire);
    // SAFETY: a dlsym, the C library's or one that stands in front of it; null becomes None.
    let next = unsafe { core::mem::transmute::<*mut c_void, Option<Dlsym>>(next) };
    match next {
        // SAFETY: the handle of a loaded library, and a terminated name.
        Some(next) => unsafe { next(core::ptr::with_exposed_provenance_mut(*handle), name.as_ptr()) },
        None => core::ptr::null_mut(),
    }
}
