//! Kernels of machine code: the sections `.nv.info.NAME` of a 64-bit ELF file.
//!
//! ```text
//! .nv.info.NAME   records: u8 format, u8 attribute, u16 value or length, then `length` bytes where the format is 4
//! attribute 0x17  one parameter: u32, u16 ordinal, u16 offset, u32 whose upper 14 bits are its bytes
//! ```
//!
//! A kernel whose parameters are told in another way has a known name and an unknown layout.

use super::{Bytes, ELF_MAGIC, Kernels, Layout};

const SIZED: u8 = 4;
const PARAMETER: u8 = 0x17;
const PARAMETER_LARGE: u8 = 0x45;
const PARAMETER_BYTES: usize = 12;
const SECTION_HEADER_BYTES: usize = 64;
const PREFIX: &str = ".nv.info.";

/// The kernels of a file; `None` where it is not well formed.
pub(super) fn kernels(image: &[u8]) -> Option<Kernels> {
    const CLASS_64: u8 = 2;
    let bytes = Bytes(image);
    if bytes.u32(0)? != ELF_MAGIC || *image.get(4)? != CLASS_64 {
        return None;
    }
    let table = bytes.size(0x28)?;
    if usize::from(bytes.u16(0x3a)?) != SECTION_HEADER_BYTES {
        return None;
    }
    let count = usize::from(bytes.u16(0x3c)?);
    let names = section(bytes, table, usize::from(bytes.u16(0x3e)?))?.1;
    let mut found = Kernels::new();
    for index in 0..count {
        let (name, content) = section(bytes, table, index)?;
        // Sections without bytes in the file may point anywhere.
        let Some(name) = text(names?, name) else { continue };
        if let (Some(kernel), Some(content)) = (name.strip_prefix(PREFIX), content) {
            found.insert(kernel.to_owned(), layout(content));
        }
    }
    Some(found)
}

/// Offset of a section's name, and its bytes.
fn section<'a>(bytes: Bytes<'a>, table: usize, index: usize) -> Option<(usize, Option<&'a [u8]>)> {
    let header = Bytes(
        bytes.slice(table.checked_add(index.checked_mul(SECTION_HEADER_BYTES)?)?, SECTION_HEADER_BYTES)?,
    );
    let content = bytes.slice(header.size(0x18)?, header.size(0x20)?);
    Some((usize::try_from(header.u32(0)?).ok()?, content))
}

fn text(names: &[u8], at: usize) -> Option<&str> {
    let name = names.get(at..)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    core::str::from_utf8(&name[..end]).ok()
}

fn layout(info: &[u8]) -> Option<Layout> {
    let bytes = Bytes(info);
    let mut parameters: Vec<(u16, u32, u32)> = Vec::new();
    let mut at = 0;
    while at < info.len() {
        let (format, attribute, value) = (info[at], *info.get(at + 1)?, bytes.u16(at + 2)?);
        at += 4;
        if format != SIZED {
            continue;
        }
        let payload = Bytes(bytes.slice(at, value.into())?);
        at += usize::from(value);
        match attribute {
            PARAMETER if payload.0.len() == PARAMETER_BYTES => {
                let (ordinal, offset) = (payload.u16(4)?, payload.u16(6)?);
                parameters.push((ordinal, offset.into(), payload.u32(8)? >> 18));
            }
            PARAMETER | PARAMETER_LARGE => return None,
            _ => {}
        }
    }
    parameters.sort_unstable();
    let in_order = parameters.iter().enumerate().all(|(index, (ordinal, ..))| usize::from(*ordinal) == index);
    in_order.then(|| parameters.into_iter().map(|(_, offset, bytes)| (offset, bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these sections.
    fn file(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut image = vec![0; 64];
        image[0..4].copy_from_slice(&ELF_MAGIC.to_le_bytes());
        image[4] = 2;
        let mut names = vec![0];
        let mut headers = Vec::new();
        let mut add = |image: &mut Vec<u8>, name: usize, content: &[u8]| {
            let mut header = [0; SECTION_HEADER_BYTES];
            header[0..4].copy_from_slice(&u32::try_from(name).unwrap().to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(image.len() as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(content.len() as u64).to_le_bytes());
            image.extend_from_slice(content);
            headers.extend_from_slice(&header);
        };
        for (name, content) in sections {
            let at = names.len();
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            add(&mut image, at, content);
        }
        add(&mut image, 0, &names);
        let count = u16::try_from(sections.len()).unwrap();
        let table = image.len() as u64;
        image[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        image[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        image[0x3c..0x3e].copy_from_slice(&(count + 1).to_le_bytes());
        image[0x3e..0x40].copy_from_slice(&count.to_le_bytes());
        image.extend_from_slice(&headers);
        image
    }

    fn parameter(ordinal: u16, offset: u16, bytes: u32) -> Vec<u8> {
        let mut record = vec![SIZED, PARAMETER, 12, 0, 0, 0, 0, 0];
        record.extend_from_slice(&ordinal.to_le_bytes());
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(&(bytes << 18 | 0x1f000).to_le_bytes());
        record
    }

    #[test]
    fn kernels_and_their_parameters_are_found() {
        let mut info = vec![3, 0x19, 24, 0];
        info.extend(parameter(1, 8, 8));
        info.extend(parameter(0, 0, 4));
        let image =
            file(&[(".text.k", vec![1; 8]), (".nv.info.k", info), (".nv.info.large", vec![4, 0x45, 0, 0])]);
        let found = super::super::kernels(&image).unwrap();
        assert_eq!(found["k"], Some(vec![(0, 4), (8, 8)]));
        assert_eq!(found["large"], None, "told in a way that is not known here");
        assert_eq!(found.len(), 2);
        for cut in 5..image.len() {
            assert!(kernels(&image[..cut]).is_none(), "cut at {cut}");
        }
    }
}
