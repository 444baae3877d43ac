//! Memory of the caller, as the C functions are given it. Every pointer in this room came through an exported function
//! whose documentation obliges the caller to pass a valid one; null is checked for.
#![expect(unsafe_code, reason = "NVML hands out and takes raw pointers")]

use core::ffi::{CStr, c_char, c_uint};

use headgate_abi::nvml::NvmlReturn;

use crate::session::Answer;

/// Writes an output.
pub(crate) fn store<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(NvmlReturn::ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: the caller passes a place for one T.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Reads an input.
pub(crate) fn load<T: Copy>(from: *const T) -> Result<T, NvmlReturn> {
    if from.is_null() {
        return Err(NvmlReturn::ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: the caller passes a valid T of plain integers.
    Ok(unsafe { from.read_unaligned() })
}

/// Copies terminated text into the caller's buffer, which must hold all of it.
pub(crate) fn store_text(to: *mut c_char, length: c_uint, text: &str) -> Answer {
    if to.is_null() {
        return Err(NvmlReturn::ERROR_INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(NvmlReturn::ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller passes `length` writable bytes, more than the text has.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), to.cast::<u8>(), text.len()) };
    store(to.wrapping_add(text.len()), 0)
}

/// Reads a name.
pub(crate) fn text(from: *const c_char) -> Result<String, NvmlReturn> {
    if from.is_null() {
        return Err(NvmlReturn::ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: the caller passes a terminated string.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map(str::to_owned).map_err(|_| NvmlReturn::ERROR_INVALID_ARGUMENT)
}

/// Writes a list into an array of `*count` elements, and the length into `*count`.
pub(crate) fn store_list<T: Copy>(count: *mut c_uint, to: *mut T, list: &[T]) -> Answer {
    let room = load(count.cast_const())?;
    let length = c_uint::try_from(list.len()).map_err(|_| NvmlReturn::ERROR_UNKNOWN)?;
    store(count, length)?;
    if length > room {
        return Err(NvmlReturn::ERROR_INSUFFICIENT_SIZE);
    }
    list.iter().enumerate().try_for_each(|(index, &item)| {
        if to.is_null() {
            Err(NvmlReturn::ERROR_INVALID_ARGUMENT)
        } else {
            store(to.wrapping_add(index), item)
        }
    })
}
