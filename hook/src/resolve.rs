//! Finding the real functions: the C library's `dlsym`, the driver's entry points, and the way back from a
//! driver pointer to the shell that stands in front of it.
#![expect(unsafe_code, reason = "walks the loader's tables and calls the real dlsym")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use headgate_abi::cuda::{self, Disposition, Symbol};
use headgate_abi::nvml;

use crate::exports;

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
    // SAFETY: asks only for a library that is loaded already; the name is NUL-terminated.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    let mut buffer = [0u8; 96];
    let name = terminated(name, &mut buffer)?;
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
    }
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

/// The shell in front of a driver pointer that `cuGetProcAddress` returned, if one of ours stands there.
///
/// Going by the returned pointer makes ABI version and per-thread-stream variants come out right: whatever the
/// driver chose, its twin in the table is the one that is swapped in.
pub(crate) fn shell_in_front_of(real: *mut c_void) -> Option<*mut c_void> {
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
    let index = reverse.binary_search_by_key(&real.addr(), |(address, _)| *address).ok()?;
    exports::cuda_shell(reverse[index].1)
}

/// The C library's `dlsym`, found in its symbol table: asking for it by name would find our own export.
fn real_dlsym() -> Option<Dlsym> {
    let mut found = REAL_DLSYM.load(Acquire);
    if found.is_null() {
        found = find_in_c_library(b"dlsym");
        REAL_DLVSYM.store(find_in_c_library(b"dlvsym"), Release);
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
    shell_in_front_of(found).unwrap_or(found)
}

/// Makes sure the trampolines have somewhere to jump.
pub(crate) fn prepare() {
    let _ready = real_dlsym();
}

struct Search<'a> {
    name: &'a [u8],
    found: *mut c_void,
}

fn find_in_c_library(name: &[u8]) -> *mut c_void {
    let mut search = Search { name, found: std::ptr::null_mut() };
    // SAFETY: the callback only reads the loader's records and writes `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit_object), (&raw mut search).cast()) };
    search.found
}

/// Looks at one loaded object; stops at the first C library that defines the name.
///
/// # Safety
/// Called by `dl_iterate_phdr` with a valid record and the `Search` it was given.
unsafe extern "C" fn visit_object(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
    // SAFETY: the pointer `find_in_c_library` passed, not shared with anyone.
    let search = unsafe { &mut *data.cast::<Search<'_>>() };
    // SAFETY: a valid record for the length of the callback.
    let info = unsafe { &*info };
    if info.dlpi_name.is_null() {
        return 0;
    }
    // SAFETY: the loader's own NUL-terminated path.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
    let file = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    // glibc since 2.34 has dlsym in libc.so.6, before that in libdl.so.2; musl is ld-musl or libc.musl.
    let c_library = [&b"libc.so"[..], b"libdl.so", b"ld-musl", b"libc.musl"];
    if !c_library.iter().any(|prefix| file.starts_with(prefix)) {
        return 0;
    }
    // SAFETY: the record describes a loaded object.
    if let Some(found) = unsafe { elf::find(info, search.name) } {
        search.found = found;
        return 1;
    }
    0
}

/// Just enough of the ELF format to find a function in a loaded object's dynamic symbol table.
mod elf {
    use std::ffi::{CStr, c_char, c_void};

    const DT_NULL: i64 = 0;
    const DT_STRTAB: i64 = 5;
    const DT_SYMTAB: i64 = 6;
    const DT_GNU_HASH: i64 = 0x6fff_fef5;
    const STT_FUNC: u8 = 2;
    /// Longest hash chain looked at. A damaged table must not hang a program.
    const CHAIN_MAX: u32 = 100_000;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Dynamic {
        tag: i64,
        value: usize,
    }

    /// The function `name` of a loaded object, if it defines one.
    ///
    /// # Safety
    /// `info` describes a loaded object.
    pub(super) unsafe fn find(info: &libc::dl_phdr_info, name: &[u8]) -> Option<*mut c_void> {
        let base = usize::try_from(info.dlpi_addr).ok()?;
        let (mut strings, mut symbols, mut hash) = (0usize, 0usize, 0usize);
        for index in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: the record holds `dlpi_phnum` program headers.
            let header = unsafe { *info.dlpi_phdr.add(index) };
            if header.p_type != libc::PT_DYNAMIC {
                continue;
            }
            let mut entry: *const Dynamic =
                std::ptr::with_exposed_provenance(base + usize::try_from(header.p_vaddr).ok()?);
            loop {
                // SAFETY: the dynamic section is an array that ends with DT_NULL.
                let Dynamic { tag, value } = unsafe { *entry };
                // glibc has relocated these addresses in place, musl has not.
                let address = if value < base { base + value } else { value };
                match tag {
                    DT_NULL => break,
                    DT_STRTAB => strings = address,
                    DT_SYMTAB => symbols = address,
                    DT_GNU_HASH => hash = address,
                    _ => {}
                }
                // SAFETY: not the last entry yet.
                entry = unsafe { entry.add(1) };
            }
        }
        if strings == 0 || symbols == 0 || hash == 0 {
            return None;
        }
        // SAFETY: the three tables of one loaded object.
        unsafe { look_up(base, strings, symbols, hash, name) }
    }

    /// # Safety
    /// The addresses are the tables of one loaded object.
    unsafe fn look_up(
        base: usize,
        strings: usize,
        symbols: usize,
        hash: usize,
        name: &[u8],
    ) -> Option<*mut c_void> {
        let words: *const u32 = std::ptr::with_exposed_provenance(hash);
        // Header of a GNU hash table: buckets, first symbol, words of the bloom filter, its shift.
        // SAFETY: the header has four words.
        let (buckets, first, bloom) = unsafe { (words.read(), words.add(1).read(), words.add(2).read()) };
        if buckets == 0 {
            return None;
        }
        // SAFETY: the bloom filter of 64-bit words follows the header, then the buckets.
        let bucket_table = unsafe { words.add(4 + 2 * bloom as usize) };
        // SAFETY: the chains follow the buckets.
        let chains = unsafe { bucket_table.add(buckets as usize) };
        let wanted = gnu_hash(name);
        // SAFETY: an index below the number of buckets.
        let mut index = unsafe { bucket_table.add((wanted % buckets) as usize).read() };
        if index < first {
            return None;
        }
        for _ in 0..CHAIN_MAX {
            // SAFETY: chains are indexed by symbol number less the first hashed one and end with bit 0 set.
            let link = unsafe { chains.add((index - first) as usize).read() };
            if link | 1 == wanted | 1 {
                let symbol: *const libc::Elf64_Sym = std::ptr::with_exposed_provenance(symbols);
                // SAFETY: a symbol number from the hash table.
                let symbol = unsafe { *symbol.add(index as usize) };
                let text: *const c_char =
                    std::ptr::with_exposed_provenance(strings + symbol.st_name as usize);
                // SAFETY: an offset into the object's string table.
                let text = unsafe { CStr::from_ptr(text) };
                if text.to_bytes() == name && symbol.st_info & 0xf == STT_FUNC && symbol.st_value != 0 {
                    let address = base + usize::try_from(symbol.st_value).ok()?;
                    return Some(std::ptr::with_exposed_provenance_mut(address));
                }
            }
            if link & 1 == 1 {
                return None;
            }
            index += 1;
        }
        None
    }

    fn gnu_hash(name: &[u8]) -> u32 {
        name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
    }
}

/// The executable segment of the loaded object that contains `address`.
pub(crate) fn text_range(address: usize) -> (u64, u64) {
    struct Wanted {
        address: u64,
        range: (u64, u64),
    }

    /// # Safety
    /// Called by `dl_iterate_phdr` with a valid record and the `Wanted` it was given.
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: the pointer passed below, not shared with anyone.
        let wanted = unsafe { &mut *data.cast::<Wanted>() };
        // SAFETY: a valid record for the length of the callback.
        let info = unsafe { &*info };
        for index in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: the record holds `dlpi_phnum` program headers.
            let header = unsafe { *info.dlpi_phdr.add(index) };
            let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
            let range = start..start.wrapping_add(header.p_memsz);
            if header.p_type == libc::PT_LOAD
                && header.p_flags & libc::PF_X != 0
                && range.contains(&wanted.address)
            {
                wanted.range = (range.start, range.end);
                return 1;
            }
        }
        0
    }

    let mut wanted = Wanted { address: address as u64, range: (0, 0) };
    // SAFETY: the callback only reads the loader's records and writes `wanted`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut wanted).cast()) };
    wanted.range
}
