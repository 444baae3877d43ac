//! Module images: which bytes of what a program passes are PTX text.

use core::ffi::{c_uint, c_void};

use headgate_abi::cuda::types::CUresult;

use crate::raw;

const ELF: u32 = 0x464c_457f;
const FATBIN_WRAPPER: u32 = 0x4662_43b1;
const FATBIN: u32 = 0xba55_ed50;
/// Entry kinds and flags of a fat binary.
const KIND_PTX: u16 = 1;
const COMPRESSED: u64 = 0x2000 | 0x8000;
/// Largest fat binary looked through.
const FATBIN_BYTES_MAX: u64 = 64 << 20;

/// The PTX text in an image, without its terminator.
///
/// # Errors
/// `NO_BINARY_FOR_GPU` for machine code, which the simulated device does not run, and for fat binaries that hold PTX
/// only compressed; `INVALID_IMAGE` for what is none of the known forms.
pub(crate) fn ptx(image: *const c_void) -> Result<Vec<u8>, CUresult> {
    match raw::load(image.cast::<u32>())? {
        ELF => Err(CUresult::ERROR_NO_BINARY_FOR_GPU),
        FATBIN_WRAPPER => {
            let header: usize = raw::load(image.cast::<u8>().wrapping_add(8).cast())?;
            from_fatbin(core::ptr::with_exposed_provenance(header))
        }
        FATBIN => from_fatbin(image),
        _ => {
            let length = raw::text_length(image).ok_or(CUresult::ERROR_INVALID_IMAGE)?;
            raw::bytes(image, length)
        }
    }
}

fn from_fatbin(header: *const c_void) -> Result<Vec<u8>, CUresult> {
    let byte = |offset: u64| {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        header.cast::<u8>().wrapping_add(offset)
    };
    let at_u16 = |offset| raw::load(byte(offset).cast::<u16>());
    let at_u32 = |offset| raw::load(byte(offset).cast::<u32>());
    let at_u64 = |offset| raw::load(byte(offset).cast::<u64>());
    if header.is_null() || at_u32(0)? != FATBIN {
        return Err(CUresult::ERROR_INVALID_IMAGE);
    }
    let first = u64::from(at_u16(6)?);
    let length = at_u64(8)?;
    if length > FATBIN_BYTES_MAX {
        return Err(CUresult::ERROR_INVALID_IMAGE);
    }
    let end = first + length;
    let mut entry = first;
    let mut best: Option<(c_uint, Vec<u8>)> = None;
    while entry + 64 <= end {
        let header_bytes = u64::from(at_u32(entry + 4)?);
        let payload_bytes = at_u64(entry + 8)?;
        let payload = entry.saturating_add(header_bytes);
        if header_bytes < 64 || payload.saturating_add(payload_bytes) > end {
            return Err(CUresult::ERROR_INVALID_IMAGE);
        }
        let sm = at_u32(entry + 28)?;
        let is_plain_ptx = at_u16(entry)? == KIND_PTX && at_u64(entry + 40)? & COMPRESSED == 0;
        if is_plain_ptx && best.as_ref().is_none_or(|(other, _)| sm > *other) {
            let length = usize::try_from(payload_bytes).map_err(|_| CUresult::ERROR_INVALID_IMAGE)?;
            let mut text = raw::bytes(byte(payload).cast(), length)?;
            text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
            best = Some((sm, text));
        }
        entry = payload + payload_bytes;
    }
    best.map(|(_, text)| text).ok_or(CUresult::ERROR_NO_BINARY_FOR_GPU)
}

/// Whether a text has a kernel of a name.
pub(crate) fn declares_entry(text: &[u8], name: &str) -> bool {
    String::from_utf8_lossy(text).split(".entry").skip(1).any(|rest| {
        rest.trim_start().strip_prefix(name).is_some_and(|rest| {
            !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%'))
        })
    })
}
