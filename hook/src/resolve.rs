//! Finding the real functions: the C library's `dlsym`, the driver's entry points, and the way back from a
//! driver pointer to the shell that stands in front of it.
#![expect(unsafe_code, reason = "walks the loader's tables and calls the real dlsym")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::{self, Disposition, Symbol};
use headgate_abi::nvml;

use crate::{elf, exports};

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

/// The C library's own `dlsym`, for the exported trampoline to jump to. Null until [`real_dlsym`] has run.
pub(crate) static REAL_DLSYM: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// The C library's own `dlvsym`, likewise.
pub(crate) static REAL_DLVSYM: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

const CUDA_LIBRARY: &CStr = c"libcuda.so.1";
const NVML_LIBRARY: &CStr = c"libnvidia-ml.so.1";

/// What to answer to `dlsym(handle, name)`: our shell, or `None` for "let the C library answer".
///
/// Answers for table names only; every other name costs one comparison of its first bytes.
pub(crate) fn route(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    let bytes = name.to_bytes();
    let real_dlsym = real_dlsym()?;
    let shell = match bytes {
        b"dlsym" | b"dlvsym" => return route_loader(handle, name),
        [b'c', b'u', ..] => exports::cuda_shell(cuda_symbol(bytes)?)?,
        [b'n', b'v', b'm', b'l', ..] => exports::nvml_shell(nvml_symbol(bytes)?)?,
        _ => return None,
    };
    // SAFETY: the real dlsym with the caller's own arguments.
    let real = unsafe { real_dlsym(handle, name.as_ptr()) };
    if real.is_null() || exports::off() {
        return None;
    }
    if real == shell {
        // The search found this library's own export before any driver's. Without a driver behind it, the
        // program must see what it would see without us: no such symbol. (The real dlsym, called by the
        // trampoline for RTLD_DEFAULT, would find our export again.)
        return Some(if behind(bytes).is_null() { std::ptr::null_mut() } else { shell });
    }
    note_real(bytes, real);
    // A library that merely re-exports the name keeps its own function.
    (behind(bytes) == real).then_some(shell)
}

/// `dlsym` of the loader's own look-ups: ours, if the C library's would be found.
fn route_loader(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    let real_dlsym = real_dlsym()?;
    // SAFETY: the real dlsym with the caller's own arguments.
    let found = unsafe { real_dlsym(handle, name.as_ptr()) };
    if found == REAL_DLSYM.load(Acquire) {
        Some(exports::dlsym as *mut c_void)
    } else if found == REAL_DLVSYM.load(Acquire) && !found.is_null() {
        Some(exports::dlvsym as *mut c_void)
    } else {
        None
    }
}

fn cuda_symbol(name: &[u8]) -> Option<Symbol> {
    cuda::by_elf_name(std::str::from_utf8(name).ok()?)
}

fn nvml_symbol(name: &[u8]) -> Option<nvml::Symbol> {
    nvml::ROWS.iter().position(|row| row.elf_name.as_bytes() == name).map(|index| nvml::SYMBOLS[index])
}

static CUDA_REAL: [AtomicUsize; cuda::symbols::COUNT] = [const { AtomicUsize::new(0) }; cuda::symbols::COUNT];
static NVML_REAL: [AtomicUsize; nvml::ROWS.len()] = [const { AtomicUsize::new(0) }; nvml::ROWS.len()];
/// The look-up was made and found nothing. No function has this address.
const ABSENT: usize = 1;

/// The driver's own function for a row, when a driver is loaded and has it.
pub(crate) fn cuda_real(symbol: Symbol) -> Option<*mut c_void> {
    let slot = &CUDA_REAL[symbol.index()];
    match slot.load(Relaxed) {
        0 => resolve(slot, CUDA_LIBRARY, symbol.row().elf_name),
        ABSENT => None,
        address => Some(std::ptr::with_exposed_provenance_mut(address)),
    }
}

/// NVML's own function for a row.
pub(crate) fn nvml_real(symbol: nvml::Symbol) -> Option<*mut c_void> {
    let slot = &NVML_REAL[symbol.index()];
    match slot.load(Relaxed) {
        0 => resolve(slot, NVML_LIBRARY, nvml::ROWS[symbol.index()].elf_name),
        ABSENT => None,
        address => Some(std::ptr::with_exposed_provenance_mut(address)),
    }
}

/// Loads NVML, if the program has not done so itself. `None` when there is none.
pub(crate) fn load_nvml() -> Option<()> {
    // SAFETY: loads the vendor's library, as any program might. It stays loaded: entry points of it are kept.
    let handle = unsafe { libc::dlopen(NVML_LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    (!handle.is_null()).then_some(())
}

#[cold]
fn resolve(slot: &AtomicUsize, library: &CStr, name: &str) -> Option<*mut c_void> {
    let real = look_up(library, name)?;
    slot.store(if real.is_null() { ABSENT } else { real.expose_provenance() }, Release);
    (!real.is_null()).then_some(real)
}

/// Looks a name up in a loaded library. `None` when the library is not loaded (it may be later), null when it
/// is loaded and lacks the name.
fn look_up(library: &CStr, name: &str) -> Option<*mut c_void> {
    let real_dlsym = real_dlsym()?;
    let mut buffer = [0u8; 96];
    let name = terminated(name, &mut buffer)?;
    // SAFETY: asks only for a library that is loaded already; the name is NUL-terminated.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        let elsewhere = (library == CUDA_LIBRARY).then(driver_elsewhere)??;
        // SAFETY: a library that is loaded at this moment, by the loader's own record; a NUL-terminated name.
        return Some(unsafe { real_dlsym(elsewhere, name.as_ptr()) });
    }
    // SAFETY: a valid handle and a NUL-terminated name.
    let real = unsafe { real_dlsym(handle, name.as_ptr()) };
    // SAFETY: gives back the reference that dlopen took; the library stays loaded by its first owner.
    unsafe { libc::dlclose(handle) };
    Some(real)
}

fn terminated<'a>(name: &str, buffer: &'a mut [u8]) -> Option<&'a CStr> {
    buffer.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    CStr::from_bytes_until_nul(buffer).ok()
}

/// The real function a table name stands for, or null.
fn behind(name: &[u8]) -> *mut c_void {
    let real = match name.first() {
        Some(b'c') => cuda_symbol(name).and_then(cuda_real),
        _ => nvml_symbol(name).and_then(nvml_real),
    };
    real.unwrap_or(std::ptr::null_mut())
}

/// Remembers a real function that a program's own look-up found, when it lives in a driver library that
/// cannot be found by soname (loaded by path under another name).
fn note_real(name: &[u8], real: *mut c_void) {
    let slot = match name.first() {
        Some(b'c') => cuda_symbol(name).map(|symbol| &CUDA_REAL[symbol.index()]),
        _ => nvml_symbol(name).map(|symbol| &NVML_REAL[symbol.index()]),
    };
    if let Some(slot) = slot
        && behind(name).is_null()
        && lives_in_driver(real)
    {
        let _previous = slot.compare_exchange(0, real.expose_provenance(), AcqRel, Acquire);
        if name.starts_with(b"cu") {
            ELSEWHERE.store(real, Release);
        }
    }
}

/// A function of a driver that is not found by its soname: loaded into a namespace of its own (`dlmopen`), or under
/// another name. Null while no program has looked one up.
static ELSEWHERE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// That driver, as something to look names up in; the loader's record of a library is its handle.
fn driver_elsewhere() -> Option<*mut c_void> {
    const RTLD_DL_LINKMAP: c_int = 2;
    type Dladdr1 = unsafe extern "C" fn(*const c_void, *mut libc::Dl_info, *mut *mut c_void, c_int) -> c_int;
    let function = ELSEWHERE.load(Acquire);
    if function.is_null() {
        return None;
    }
    // glibc's own; musl has no namespaces and lacks it.
    let dladdr1 = elf::find_in_c_library(b"dladdr1");
    // SAFETY: the C library's dladdr1 has this signature; null becomes None.
    let dladdr1 = unsafe { std::mem::transmute::<*mut c_void, Option<Dladdr1>>(dladdr1) }?;
    // SAFETY: an all-zero record is a valid value to be filled in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let mut record = std::ptr::null_mut();
    // SAFETY: any address may be asked about, also one whose library is gone; both outputs are valid for writing.
    let known = unsafe { dladdr1(function, &raw mut info, &raw mut record, RTLD_DL_LINKMAP) };
    (known != 0 && !record.is_null()).then_some(record)
}

/// Whether the function belongs to a library named like a driver library.
fn lives_in_driver(function: *mut c_void) -> bool {
    // SAFETY: an all-zero record is a valid value to be filled in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked about; `info` is valid for writing.
    if unsafe { libc::dladdr(function, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return false;
    }
    // SAFETY: the loader's own NUL-terminated path.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    let file = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    file.starts_with(b"libcuda.so") || file.starts_with(b"libnvidia-ml.so")
}

/// The shell in front of a driver pointer that was `asked` for, if one of ours stands there.
///
/// Going by the returned pointer makes ABI version and per-thread-stream variants come out right: whatever the
/// driver chose, its twin in the table is the one that is swapped in. Only where entry points share one function (a linker
/// may fold those of equal code) does the name decide, because what we do in front of them differs.
pub(crate) fn shell_in_front_of(real: *mut c_void, asked: &Asked<'_>) -> Option<*mut c_void> {
    static REVERSE: OnceLock<Vec<(usize, Symbol)>> = OnceLock::new();
    let reverse = REVERSE.get_or_init(|| {
        let mut rows: Vec<_> = cuda::symbols::SYMBOLS
            .iter()
            .filter(|symbol| symbol.row().disposition == Disposition::Hooked)
            .filter_map(|&symbol| Some((cuda_real(symbol)?.addr(), symbol)))
            .collect();
        rows.sort_unstable_by_key(|(address, _)| *address);
        rows
    });
    let first = reverse.partition_point(|(address, _)| *address < real.addr());
    let count = reverse[first..].iter().take_while(|(address, _)| *address == real.addr()).count();
    let symbol = asked.among(&reverse[first..first + count], |symbol| cuda_real(symbol) == Some(real))?;
    exports::cuda_shell(symbol)
}

/// What a program asked for by name.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// Through `cuGetProcAddress`: a name without its version, the version, and the flags.
    Proc(&'a [u8], u32, u64),
    /// Through the loader: a name as the library has it.
    Name(&'a [u8]),
}

impl Asked<'_> {
    /// Which of the hooked entry points that lie where the driver's answer points is meant. `lies_there` tells the same of
    /// any other.
    fn among(&self, same: &[(usize, Symbol)], lies_there: impl Fn(Symbol) -> bool) -> Option<Symbol> {
        let &(_, first) = same.first()?;
        if same.len() == 1 && self.names(first) {
            return Some(first);
        }
        match self.symbol() {
            Some(symbol) if same.iter().any(|(_, other)| *other == symbol) => Some(symbol),
            // Nothing of ours stands before it, only before another that is the same function.
            Some(symbol) if lies_there(symbol) => None,
            _ => same.iter().map(|(_, symbol)| *symbol).find(|symbol| self.names(*symbol)).or(Some(first)),
        }
    }

    fn names(&self, symbol: Symbol) -> bool {
        match self {
            Self::Proc(name, ..) => symbol.row().base_name.as_bytes() == *name,
            Self::Name(name) => symbol.row().elf_name.as_bytes() == *name,
        }
    }

    /// The entry point that the table has for it.
    fn symbol(&self) -> Option<Symbol> {
        /// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
        const PER_THREAD: u64 = 2;
        match *self {
            Self::Proc(name, version, flags) => {
                let mode = if flags & PER_THREAD == 0 { ThreadMode::Base } else { ThreadMode::PerThread };
                cuda::symbols::select(std::str::from_utf8(name).ok()?, version, mode).ok()
            }
            Self::Name(name) => cuda_symbol(name),
        }
    }
}

/// The C library's `dlsym`, found in its symbol table: asking for it by name would find our own export.
fn real_dlsym() -> Option<Dlsym> {
    let mut found = REAL_DLSYM.load(Acquire);
    if found.is_null() {
        found = elf::find_in_c_library(b"dlsym");
        REAL_DLVSYM.store(elf::find_in_c_library(b"dlvsym"), Release);
        REAL_DLSYM.store(found, Release);
    }
    // SAFETY: the C library's dlsym has this signature; null becomes None.
    unsafe { std::mem::transmute::<*mut c_void, Option<Dlsym>>(found) }
}

/// `dlvsym` for the versions of the driver API that never existed: passes table names on to [`route`].
pub(crate) fn route_versioned(handle: *mut c_void, name: &CStr, version: *const c_char) -> *mut c_void {
    let found = {
        let loaded = real_dlsym().is_some();
        let real = REAL_DLVSYM.load(Acquire);
        // SAFETY: the C library's dlvsym has this signature; null becomes None.
        let real = unsafe { std::mem::transmute::<*mut c_void, Option<Dlvsym>>(real) };
        match real {
            // SAFETY: the real dlvsym with the caller's own arguments.
            Some(real) if loaded => unsafe { real(handle, name.as_ptr(), version) },
            _ => std::ptr::null_mut(),
        }
    };
    if found == REAL_DLSYM.load(Acquire) && !found.is_null() {
        return exports::dlsym as *mut c_void;
    }
    if found.is_null() {
        return found;
    }
    shell_in_front_of(found, &Asked::Name(name.to_bytes())).unwrap_or(found)
}

/// Makes sure the trampolines have somewhere to jump.
pub(crate) fn prepare() {
    let _ready = real_dlsym();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(asked: &Asked<'_>, same: &[Symbol], lies_there: bool) -> Option<Symbol> {
        let same: Vec<_> = same.iter().map(|&symbol| (1, symbol)).collect();
        asked.among(&same, |_| lies_there)
    }

    #[test]
    fn the_pointer_decides_and_among_entry_points_of_one_function_the_name() {
        use Symbol::{
            cuLaunchKernelEx as extended, cuLaunchKernelEx_ptsz as per_thread, cuMemAlloc_v2 as memory,
            cuModuleGetGlobal as variable,
        };
        let launch = |flags| Asked::Proc(b"cuLaunchKernelEx", 12_000, flags);
        assert_eq!(meant(&launch(0), &[extended], false), Some(extended));
        assert_eq!(meant(&launch(0), &[variable, per_thread, extended], false), Some(extended));
        assert_eq!(meant(&launch(2), &[variable, extended, per_thread], false), Some(per_thread));
        // The driver chose another version than the table would.
        assert_eq!(meant(&Asked::Proc(b"cuMemAlloc", 1, 0), &[memory], false), Some(memory));
        assert_eq!(meant(&Asked::Proc(b"cuMemAlloc", 1, 0), &[variable, memory], false), Some(memory));
        // A name of tomorrow for a function of today, and one that is not hooked, folded with one that is.
        assert_eq!(meant(&Asked::Proc(b"cuTomorrow", 14_000, 0), &[extended], false), Some(extended));
        assert_eq!(meant(&Asked::Proc(b"cuTexObjectCreate", 12_000, 0), &[variable], true), None);
        assert_eq!(meant(&Asked::Name(b"cuLaunchKernelEx"), &[variable, extended], false), Some(extended));
        assert_eq!(meant(&launch(0), &[], true), None, "the driver's own");
    }
}
