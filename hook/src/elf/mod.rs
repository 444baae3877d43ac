//! Reading the loader's tables: where the C library's functions are, and where this library's own code is.
#![expect(unsafe_code, reason = "walks the memory of loaded objects")]

use std::ffi::{CStr, c_int, c_void};

mod tables;

use tables::{Memory, Tables};

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
        Tables::of(self, self.base, self.span(&dynamic).start)?.find(self, name)
    }

    /// The `T` at an address, if all of it lies in a readable segment of the object.
    fn read<T: Number>(&self, at: usize) -> Option<T> {
        let end = at.checked_add(size_of::<T>())?;
        let inside = self.segments().any(|segment| {
            let span = self.span(&segment);
            segment.p_type == libc::PT_LOAD
                && segment.p_flags & libc::PF_R != 0
                && span.start <= at
                && end <= span.end
        });
        let place: *const T = std::ptr::with_exposed_provenance(at);
        // SAFETY: the loader has mapped the readable segments of a loaded object, and the range lies in one; a
        // `Number` may have any bits and is read without regard to alignment.
        inside.then(|| unsafe { place.read_unaligned() })
    }
}

impl Memory for Object<'_> {
    fn word(&self, at: usize) -> Option<usize> {
        self.read(at)
    }

    fn half(&self, at: usize) -> Option<u32> {
        self.read(at)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.read(at)
    }
}

/// Numbers that any bits make.
trait Number: Copy {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for usize {}
