//! What an image of code says of itself: the names of its kernels and how their parameters are laid out.
//!
//! A program that asks for a kernel by name, and launches it, so needs no round trip. What this room cannot read
//! (compressed entries, intermediate code, forms of tomorrow) it reports as unknown, and the worker is asked.

mod elf;
mod fatbin;
mod ptx;

use std::collections::HashMap;

pub use fatbin::{Entry, entries};

/// Where the parameters of a kernel lie in its parameter block: offset and bytes, in order.
pub type Layout = Vec<(u32, u32)>;

/// Kernels of an image by name. `None` for one whose layout the image does not tell.
pub type Kernels = HashMap<String, Option<Layout>>;

/// What an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// PTX text.
    Ptx,
    /// Machine code.
    Elf,
    /// A fat binary, from its header on.
    Fatbin,
}

/// First bytes of machine code.
pub const ELF_MAGIC: u32 = 0x464c_457f;
/// First bytes of a fat binary.
pub const FATBIN_MAGIC: u32 = 0xba55_ed50;
/// First bytes of the structure that points to one.
pub const WRAPPER_MAGIC: u32 = 0x4662_43b1;

/// The form of an image by its first bytes.
#[must_use]
pub fn form(first: u32) -> Form {
    match first {
        ELF_MAGIC => Form::Elf,
        FATBIN_MAGIC => Form::Fatbin,
        _ => Form::Ptx,
    }
}

/// The kernels of an image, `None` where it does not tell all of them.
#[must_use]
pub fn kernels(image: &[u8]) -> Option<Kernels> {
    let first = image.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    match form(first) {
        Form::Ptx => ptx::kernels(core::str::from_utf8(without_terminator(image)).ok()?),
        Form::Elf => elf::kernels(image),
        Form::Fatbin => {
            // Every entry is the same code for another device; the first that can be read tells.
            entries(image)?.into_iter().find_map(|entry| match entry.kind {
                _ if entry.compressed => None,
                fatbin::KIND_ELF => elf::kernels(entry.payload),
                fatbin::KIND_PTX => {
                    ptx::kernels(core::str::from_utf8(without_terminator(entry.payload)).ok()?)
                }
                _ => None,
            })
        }
    }
}

fn without_terminator(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    &text[..end]
}

/// Little-endian numbers at an offset, where the bytes reach.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn u16(self, at: usize) -> Option<u16> {
        self.0.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.0.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(self, at: usize) -> Option<u64> {
        self.0.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn size(self, at: usize) -> Option<usize> {
        usize::try_from(self.u64(at)?).ok()
    }

    fn slice(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }
}

/// Bytes of a fat binary, by its first ones.
pub(crate) fn fatbin_length(header: [u8; 16]) -> Option<usize> {
    fatbin::length(header)
}
