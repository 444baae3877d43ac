//! Fat binaries: a header and entries, one for each kind of device.
//!
//! ```text
//! header   0 u32 magic  4 u16 version  6 u16 header bytes  8 u64 bytes of all entries
//! entry    0 u16 kind  4 u32 header bytes  8 u32 payload bytes  28 u32 SM  40 u64 flags
//! ```

use super::{Bytes, FATBIN_MAGIC};
use crate::limits::IMAGE_BYTES_MAX;

pub(super) const KIND_PTX: u16 = 1;
pub(super) const KIND_ELF: u16 = 2;
const COMPRESSED: u64 = 0x2000 | 0x8000;
const HEADER_BYTES: usize = 16;
const ENTRY_HEADER_BYTES: usize = 64;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// 1 PTX, 2 machine code; others are passed over.
    pub kind: u16,
    /// For which device: 90 for compute capability 9.0.
    pub sm: u32,
    /// Whether the payload has to be decompressed.
    pub compressed: bool,
    /// The code.
    pub payload: &'a [u8],
}

/// The entries of a fat binary; `None` where it is not well formed.
#[must_use]
pub fn entries(image: &[u8]) -> Option<Vec<Entry<'_>>> {
    let bytes = Bytes(image);
    let mut at = usize::from(bytes.u16(6)?);
    let end = at.checked_add(bytes.size(8)?)?;
    if bytes.u32(0)? != FATBIN_MAGIC || at < HEADER_BYTES || end > image.len() {
        return None;
    }
    let mut found = Vec::new();
    while at < end {
        let header = usize::try_from(bytes.u32(at + 4)?).ok()?;
        let length = usize::try_from(bytes.u32(at + 8)?).ok()?;
        if header < ENTRY_HEADER_BYTES {
            return None;
        }
        let payload = bytes.slice(at.checked_add(header)?, length)?;
        found.push(Entry {
            kind: bytes.u16(at)?,
            sm: bytes.u32(at + 28)?,
            compressed: bytes.u64(at + 40)? & COMPRESSED != 0,
            payload,
        });
        at = at.checked_add(header)?.checked_add(length)?;
    }
    Some(found)
}

/// Bytes of a fat binary, by its header; `None` if that is not one's or says too much.
pub(crate) fn length(header: [u8; HEADER_BYTES]) -> Option<usize> {
    let bytes = Bytes(&header);
    let whole = usize::from(bytes.u16(6)?).checked_add(bytes.size(8)?)?;
    (bytes.u32(0)? == FATBIN_MAGIC && whole <= IMAGE_BYTES_MAX).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fat binary of plain entries.
    pub(crate) fn fatbin(entries: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, sm, payload) in entries {
            let begin = body.len();
            body.extend_from_slice(&[0; ENTRY_HEADER_BYTES]);
            body[begin..begin + 2].copy_from_slice(&kind.to_le_bytes());
            body[begin + 4..begin + 8].copy_from_slice(&64u32.to_le_bytes());
            let length = u32::try_from(payload.len()).unwrap();
            body[begin + 8..begin + 12].copy_from_slice(&length.to_le_bytes());
            body[begin + 28..begin + 32].copy_from_slice(&sm.to_le_bytes());
            body.extend_from_slice(payload);
        }
        let mut whole = FATBIN_MAGIC.to_le_bytes().to_vec();
        whole.extend_from_slice(&[1, 0, 16, 0]);
        whole.extend_from_slice(&(body.len() as u64).to_le_bytes());
        whole.extend_from_slice(&body);
        whole
    }

    #[test]
    fn entries_are_found_and_cuts_are_not_read_over() {
        let ptx = b".version 8.0\n.entry k(.param .u32 a){}\n";
        let image = fatbin(&[(KIND_ELF, 80, b"no elf"), (KIND_PTX, 90, ptx)]);
        let found = entries(&image).unwrap();
        assert_eq!((found[1].kind, found[1].sm, found[1].payload), (KIND_PTX, 90, &ptx[..]));
        assert_eq!(super::super::kernels(&image).unwrap()["k"], Some(vec![(0, 4)]));
        assert_eq!(length(*image.first_chunk().unwrap()), Some(image.len()));
        for cut in 0..image.len() {
            assert!(entries(&image[..cut]).is_none(), "cut at {cut}");
        }
    }
}
