//! Memory of the caller, as the C functions are given it. Every pointer in this room came through an exported function
//! whose documentation obliges the caller to pass a valid one; null is checked for.
#![expect(unsafe_code, reason = "the driver API hands out and takes raw pointers")]

use core::ffi::{CStr, c_char, c_void};
use std::alloc::{Layout, alloc_zeroed, dealloc};

use headgate_abi::cuda::types::CUresult;

use crate::driver::Answer;

/// Longest module text looked at; one without a terminator in that is no text.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Writes an output the caller must have asked for.
pub(crate) fn store<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    store_if(to, value);
    Ok(())
}

/// Writes an output that may be null.
pub(crate) fn store_if<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller passes a place for one T, perhaps unaligned in packed structures.
        unsafe { to.write_unaligned(value) }
    }
}

/// Reads an input structure.
pub(crate) fn load<T: Copy>(from: *const T) -> Result<T, CUresult> {
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller passes a valid T of plain integers and pointers.
    Ok(unsafe { from.read_unaligned() })
}

/// Reads one element of an input array.
pub(crate) fn load_at<T: Copy>(from: *const T, index: usize) -> Result<T, CUresult> {
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    load(from.wrapping_add(index))
}

/// Copies bytes out of the caller's memory.
pub(crate) fn bytes(from: *const c_void, length: usize) -> Result<Vec<u8>, CUresult> {
    if from.is_null() {
        return if length == 0 { Ok(Vec::new()) } else { Err(CUresult::ERROR_INVALID_VALUE) };
    }
    let mut copy = vec![0; length];
    // SAFETY: the caller passes `length` readable bytes; the copy is as long and separate.
    unsafe { core::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr(), length) };
    Ok(copy)
}

/// Copies text into the caller's buffer of `length` bytes, cut to fit and terminated.
pub(crate) fn store_text(to: *mut c_char, length: usize, text: &str) -> Answer {
    if to.is_null() || length == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let kept = text.len().min(length - 1);
    // SAFETY: the caller passes `length` writable bytes, and kept < length.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), to.cast::<u8>(), kept) };
    store(to.wrapping_add(kept), 0)
}

/// Reads a name.
pub(crate) fn text(from: *const c_char) -> Result<String, CUresult> {
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller passes a terminated string.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map(str::to_owned).map_err(|_| CUresult::ERROR_INVALID_VALUE)
}

/// Length of a terminated text, bounded.
pub(crate) fn text_length(from: *const c_void) -> Option<usize> {
    // SAFETY: the caller passes a terminated text; reading stops at its end.
    let length = unsafe { libc::strnlen(from.cast(), TEXT_BYTES_MAX) };
    (length < TEXT_BYTES_MAX).then_some(length)
}

fn page_layout(length: usize) -> Option<Layout> {
    Layout::from_size_align(length, 4096).ok().filter(|layout| layout.size() > 0)
}

/// Page-aligned zeroed host memory.
pub(crate) fn allocate_host(length: usize) -> Option<usize> {
    let layout = page_layout(length)?;
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    (!memory.is_null()).then(|| memory.expose_provenance())
}

/// Gives back what [`allocate_host`] returned for this length.
pub(crate) fn free_host(address: usize, length: usize) {
    if let Some(layout) = page_layout(length) {
        let memory: *mut u8 = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the caller looked address and length up in the table of what allocate_host returned, and took it
        // out, so it is freed once.
        unsafe { dealloc(memory, layout) }
    }
}

/// Calls a host function of the program.
pub(crate) fn call_host_function(call: usize, data: usize) {
    type HostFunction = extern "C" fn(*mut c_void);
    let call: *const c_void = core::ptr::with_exposed_provenance(call);
    // SAFETY: the program passed a CUhostFn, which is this type; null was refused.
    let call: HostFunction = unsafe { core::mem::transmute(call) };
    call(core::ptr::with_exposed_provenance_mut(data));
}

/// The inode behind a descriptor of the program.
pub(crate) fn inode(descriptor: i32) -> Option<u64> {
    let mut found = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat fills the structure or fails; a number that is no descriptor makes it fail.
    let result = unsafe { libc::fstat(descriptor, found.as_mut_ptr()) };
    // SAFETY: plain integers, zeroed before and filled by the successful call.
    (result == 0).then(|| unsafe { found.assume_init() }.st_ino)
}

/// A descriptor of memory that holds a few bytes.
pub(crate) fn note(bytes: &[u8]) -> Option<i32> {
    // SAFETY: a NUL-terminated name.
    let descriptor = unsafe { libc::memfd_create(c"headgate-simgpu-note".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return None;
    }
    // SAFETY: the bytes are readable, and the descriptor is this function's own.
    let written = unsafe { libc::pwrite(descriptor, bytes.as_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(written).ok() == Some(bytes.len()) {
        return Some(descriptor);
    }
    close(descriptor);
    None
}

/// What such a descriptor holds.
pub(crate) fn noted(descriptor: i32) -> Option<Vec<u8>> {
    const BYTES_MAX: usize = 64;
    let mut bytes = vec![0; BYTES_MAX];
    // SAFETY: the buffer is writable; a number that is no descriptor makes the call fail.
    let read = unsafe { libc::pread(descriptor, bytes.as_mut_ptr().cast(), BYTES_MAX, 0) };
    bytes.truncate(usize::try_from(read).ok()?);
    Some(bytes)
}

/// Closes a descriptor that the program has handed over.
pub(crate) fn close(descriptor: i32) {
    // SAFETY: the program gave the descriptor up by the call it passed it in.
    unsafe {
        libc::close(descriptor);
    }
}

/// Has `child` called in every forked child.
pub(crate) fn at_fork(child: extern "C" fn()) {
    // SAFETY: the handler is a function that lives as long as the library, and only does what is allowed in a child of
    // a threaded process.
    let result = unsafe { libc::pthread_atfork(None, None, Some(child)) };
    // Without memory for the handler, a child would share its parent's connection; the parent goes on.
    debug_assert_eq!(result, 0, "pthread_atfork");
}

/// Closes a descriptor in a forked child.
pub(crate) fn close_in_child(descriptor: i32) {
    // SAFETY: close is async-signal-safe, and nothing in the child uses the connection again (see driver::FORKED).
    unsafe {
        libc::close(descriptor);
    }
}
