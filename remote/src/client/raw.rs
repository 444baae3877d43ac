//! Memory of the program, as the C functions are given it. Every pointer in this room came through an exported function
//! whose documentation obliges the caller to pass a valid one; null is checked for.
#![expect(unsafe_code, reason = "the driver API hands out and takes raw pointers")]

use core::ffi::{CStr, c_char, c_void};

use headgate_abi::cuda::types::CUresult;

use super::Answer;
use crate::image::{ELF_MAGIC, FATBIN_MAGIC, WRAPPER_MAGIC};
use crate::limits::{IMAGE_BYTES_MAX, NAME_BYTES_MAX};

/// Writes an output the caller must have asked for.
pub(super) fn store<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    store_if(to, value);
    Ok(())
}

/// Writes an output that may be null.
pub(super) fn store_if<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller passes a place for one T, perhaps unaligned in packed structures.
        unsafe { to.write_unaligned(value) }
    }
}

/// Reads an input.
pub(super) fn load<T: Copy>(from: *const T) -> Result<T, CUresult> {
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller passes a valid T of plain integers and pointers.
    Ok(unsafe { from.read_unaligned() })
}

/// Reads one element of an input array.
pub(super) fn load_at<T: Copy>(from: *const T, index: usize) -> Result<T, CUresult> {
    if from.is_null() { Err(CUresult::ERROR_INVALID_VALUE) } else { load(from.wrapping_add(index)) }
}

/// Bytes of the caller, for as long as its call lasts: the lifetime is the borrower's to keep within that.
pub(super) fn bytes<'call>(from: *const c_void, length: usize) -> Result<&'call [u8], CUresult> {
    if length == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller passes `length` readable bytes that stay as they are during the call.
    Ok(unsafe { core::slice::from_raw_parts(from.cast(), length) })
}

/// The same for a session that is to send them from where they are, and reads them no more when
/// [`Session::write`](super::session::Session::write) has returned.
pub(super) fn lent(from: *const c_void, length: usize) -> Result<&'static [u8], CUresult> {
    bytes(from, length)
}

/// A name of the caller, likewise.
pub(super) fn text<'call>(from: *const c_char) -> Result<&'call str, CUresult> {
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller passes a terminated string.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().ok().filter(|text| text.len() <= NAME_BYTES_MAX).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Copies bytes to the caller.
pub(super) fn put(to: *mut c_void, bytes: &[u8]) {
    if !to.is_null() {
        // SAFETY: the caller asked for that many bytes to be written there.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast::<u8>(), bytes.len()) };
    }
}

/// Memory of the caller that bytes are to be put into, for as long as its copy lasts: the lifetime is the borrower's to keep
/// within that.
pub(super) fn place<'copy>(address: usize, length: usize) -> &'copy mut [u8] {
    // SAFETY: the caller asked for that many bytes to be written there, and leaves the memory alone until it hears that
    // they are. Plain bytes may be anything before.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(address), length) }
}

/// Copies text into the caller's buffer of `length` bytes, cut to fit and terminated.
pub(super) fn store_text(to: *mut c_char, length: usize, text: &str) -> Answer {
    if to.is_null() || length == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let kept = &text.as_bytes()[..text.len().min(length - 1)];
    put(to.cast(), kept);
    store(to.wrapping_add(kept.len()), 0)
}

/// The bytes of an image of code, whatever its form; text with its terminator.
pub(super) fn image<'call>(code: *const c_void) -> Result<&'call [u8], CUresult> {
    match load(code.cast::<u32>())? {
        WRAPPER_MAGIC => {
            let header = load(code.cast::<*const c_void>().wrapping_add(1))?;
            if header.is_null() { Err(CUresult::ERROR_INVALID_IMAGE) } else { image(header) }
        }
        FATBIN_MAGIC => {
            let header = load(code.cast::<[u8; 16]>())?;
            bytes(code, crate::image::fatbin_length(header).ok_or(CUresult::ERROR_INVALID_IMAGE)?)
        }
        ELF_MAGIC => bytes(code, elf_length(code).ok_or(CUresult::ERROR_INVALID_IMAGE)?),
        _ => {
            // SAFETY: anything else is a terminated text; reading stops at its end.
            let length = unsafe { libc::strnlen(code.cast(), IMAGE_BYTES_MAX) };
            if length < IMAGE_BYTES_MAX {
                bytes(code, length + 1)
            } else {
                Err(CUresult::ERROR_INVALID_IMAGE)
            }
        }
    }
}

/// Bytes of an ELF file: the furthest end of its tables and sections.
fn elf_length(code: *const c_void) -> Option<usize> {
    const NO_BITS: u32 = 8;
    let at = |offset: usize| code.cast::<u8>().wrapping_add(offset);
    let word =
        |offset: usize| load(at(offset).cast::<u64>()).ok().and_then(|word| usize::try_from(word).ok());
    let half = |offset: usize| load(at(offset).cast::<u16>()).ok().map(usize::from);
    let (programs, sections) = (word(0x20)?, word(0x28)?);
    let programs_end = programs.checked_add(half(0x36)?.checked_mul(half(0x38)?)?)?;
    let (each, count) = (half(0x3a)?, half(0x3c)?);
    let mut end = programs_end.max(sections.checked_add(each.checked_mul(count)?)?);
    if end > IMAGE_BYTES_MAX {
        return None;
    }
    for index in 0..count {
        let header = sections + index * each;
        if load(at(header + 4).cast::<u32>()).ok()? != NO_BITS {
            end = end.max(word(header + 0x18)?.checked_add(word(header + 0x20)?)?);
        }
    }
    (end <= IMAGE_BYTES_MAX).then_some(end)
}

/// Has `child` called in every forked child.
pub(super) fn at_fork(child: extern "C" fn()) {
    // SAFETY: the handler lives as long as the library, and does only what a child of a threaded process may.
    let result = unsafe { libc::pthread_atfork(None, None, Some(child)) };
    // Without memory for the handler, a child would share its parent's session; the parent goes on.
    debug_assert_eq!(result, 0, "pthread_atfork");
}

/// Has `last` called when the program ends.
pub(super) fn at_exit(last: extern "C" fn()) {
    // SAFETY: the handler lives as long as the library, which is never unloaded.
    let result = unsafe { libc::atexit(last) };
    debug_assert_eq!(result, 0, "atexit");
}

/// Keeps the program's signals away from the calling thread, which is not the program's.
pub(super) fn block_signals() {
    let mut all = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: a filled set; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), core::ptr::null_mut()) };
}

/// Page-aligned zeroed host memory, for the program to copy from and to.
pub(super) fn map(length: usize) -> Option<usize> {
    // SAFETY: a new private mapping, placed by the kernel.
    let memory = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (memory != libc::MAP_FAILED).then(|| memory.expose_provenance())
}

/// Gives back what [`map`] returned for this length.
pub(super) fn unmap(address: usize, length: usize) {
    let memory: *mut c_void = core::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the caller took address and length out of the table of what `map` returned, so it is given back once.
    unsafe { libc::munmap(memory, length) };
}

/// Closes a descriptor in a forked child.
pub(super) fn close(descriptor: i32) {
    // SAFETY: close is async-signal-safe, and nothing in the child uses the connection again.
    unsafe { libc::close(descriptor) };
}
