//! Reading the loader's tables: where the C library's functions are, and where this library's own code is.
#![expect(unsafe_code, reason = "walks the memory of loaded objects")]

use std::ffi::{CStr, c_char, c_int, c_void};

const DT_NULL: usize = 0;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_GNU_HASH: usize = 0x6fff_fef5;
const STT_FUNC: u8 = 2;
/// Longest walk along a dynamic section or a hash chain. A damaged table must not hang a program.
const STEPS_MAX: usize = 100_000;

/// The function of that name in the C library's own symbol table, or null. Found without `dlsym`, which in
/// this process is ours.
pub(crate) fn find_in_c_library(name: &[u8]) -> *mut c_void {
    let mut found = std::ptr::null_mut();
    objects(|object| {
        // glibc since 2.34 has dlsym in libc.so.6, before that in libdl.so.2; musl is ld-musl or libc.musl.
        let c_library = [&b"libc.so"[..], b"libdl.so", b"ld-musl", b"libc.musl"];
        if c_library.iter().any(|prefix| object.file.starts_with(prefix))
            && let Some(address) = object.find(name)
        {
            found = std::ptr::with_exposed_provenance_mut(address);
            return true;
        }
        false
    });
    found
}

/// First and last address of the executable segment that contains `address`.
pub(crate) fn text_range(address: usize) -> (u64, u64) {
    let mut range = (0, 0);
    objects(|object| {
        let text = object.segments().find(|segment| {
            segment.p_type == libc::PT_LOAD
                && segment.p_flags & libc::PF_X != 0
                && object.span(segment).contains(&address)
        });
        if let Some(segment) = text {
            let span = object.span(&segment);
            range = (span.start as u64, span.end as u64);
        }
        text.is_some()
    });
    range
}

/// One loaded object.
struct Object<'a> {
    base: usize,
    headers: *const libc::Elf64_Phdr,
    header_count: usize,
    /// The last part of its path.
    file: &'a [u8],
}

/// Shows every loaded object to `look` until it returns `true`.
fn objects(mut look: impl FnMut(&Object<'_>) -> bool) {
    let mut look: &mut dyn FnMut(&Object<'_>) -> bool = &mut look;
    // SAFETY: the callback reads the loader's records and calls `look`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut look).cast()) };
}

/// # Safety
/// Called by `dl_iterate_phdr` with a valid record and the `look` of [`objects`].
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
    // SAFETY: the pointer passed by `objects`, not shared with anyone.
    let look = unsafe { &mut *data.cast::<&mut dyn FnMut(&Object<'_>) -> bool>() };
    // SAFETY: a valid record for the length of the callback.
    let info = unsafe { &*info };
    if info.dlpi_name.is_null() || info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader's own NUL-terminated path.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
    let object = Object {
        base: usize::try_from(info.dlpi_addr).unwrap_or(0),
        headers: info.dlpi_phdr,
        header_count: usize::from(info.dlpi_phnum),
        file: path.rsplit(|&byte| byte == b'/').next().unwrap_or(path),
    };
    c_int::from(look(&object))
}

impl Object<'_> {
    fn segments(&self) -> impl Iterator<Item = libc::Elf64_Phdr> + '_ {
        // SAFETY: the record holds that many program headers, which live as long as the object.
        let headers = unsafe { std::slice::from_raw_parts(self.headers, self.header_count) };
        headers.iter().copied()
    }

    fn span(&self, segment: &libc::Elf64_Phdr) -> std::ops::Range<usize> {
        let start = self.base.wrapping_add(usize::try_from(segment.p_vaddr).unwrap_or(0));
        start..start.wrapping_add(usize::try_from(segment.p_memsz).unwrap_or(0))
    }

    /// Address of the function of that name, if the object defines one.
    fn find(&self, name: &[u8]) -> Option<usize> {
        let dynamic = self.segments().find(|segment| segment.p_type == libc::PT_DYNAMIC)?;
        let mut entry = self.span(&dynamic).start;
        let (mut strings, mut symbols, mut hash) = (0, 0, 0);
        for _ in 0..STEPS_MAX {
            // A dynamic section is an array of (tag, value) that ends with DT_NULL.
            let (tag, value) = (word(entry), word(entry + size_of::<usize>()));
            // glibc has relocated these addresses in place, musl has not.
            let address = if value < self.base { self.base + value } else { value };
            match tag {
                DT_NULL => break,
                DT_STRTAB => strings = address,
                DT_SYMTAB => symbols = address,
                DT_GNU_HASH => hash = address,
                _ => {}
            }
            entry += 2 * size_of::<usize>();
        }
        if strings == 0 || symbols == 0 || hash == 0 {
            return None;
        }
        self.look_up(strings, symbols, hash, name)
    }

    /// A look-up in a GNU hash table: number of buckets, first hashed symbol, words of the bloom filter and its
    /// shift; then the filter, the buckets, and the chains, whose last link has bit 0 set.
    fn look_up(&self, strings: usize, symbols: usize, hash: usize, name: &[u8]) -> Option<usize> {
        let (buckets, first, bloom) = (half(hash), half(hash + 4), half(hash + 8) as usize);
        let bucket_table = hash + 16 + 8 * bloom;
        let chains = bucket_table + 4 * buckets as usize;
        let wanted = gnu_hash(name);
        let start = half(bucket_table + 4 * wanted.checked_rem(buckets)? as usize);
        for index in (start.max(1)..).take(STEPS_MAX) {
            let link = half(chains + 4 * index.checked_sub(first)? as usize);
            if link | 1 == wanted | 1 {
                let at = symbols + index as usize * size_of::<libc::Elf64_Sym>();
                let symbol: *const libc::Elf64_Sym = std::ptr::with_exposed_provenance(at);
                // SAFETY: a symbol number from the object's own hash table.
                let symbol = unsafe { *symbol };
                let text: *const c_char =
                    std::ptr::with_exposed_provenance(strings + symbol.st_name as usize);
                // SAFETY: an offset into the object's string table.
                let text = unsafe { CStr::from_ptr(text) };
                if text.to_bytes() == name && symbol.st_info & 0xf == STT_FUNC && symbol.st_value != 0 {
                    return usize::try_from(symbol.st_value).ok().map(|value| self.base + value);
                }
            }
            if link & 1 == 1 {
                return None;
            }
        }
        None
    }
}

fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

/// A machine word of a loaded object's tables.
fn word(address: usize) -> usize {
    let at: *const usize = std::ptr::with_exposed_provenance(address);
    // SAFETY: callers walk the tables of a loaded object by the rules of the ELF format.
    unsafe { at.read() }
}

/// A 32-bit word of a loaded object's tables.
fn half(address: usize) -> u32 {
    let at: *const u32 = std::ptr::with_exposed_provenance(address);
    // SAFETY: as for `word`.
    unsafe { at.read() }
}
