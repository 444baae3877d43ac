//! The sites of a driver library: file offsets of its synchronous calls.

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt as _, path::Path};

use object::{
    Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind,
    read::{ReadCache, ReadRef as _},
};

use crate::{
    decode::cheapest_place,
    error::Error,
    limits::{PROLOGUE_BYTES, SITES_MAX},
};

/// Calls of the CUDA driver API that return only when the GPU has done what they ask, without the suffixes that tell
/// ABI versions and per-thread-stream variants apart.
const SYNC_CALLS: [&str; 9] = [
    "cuCtxSynchronize",
    "cuStreamSynchronize",
    "cuEventSynchronize",
    "cuMemcpy",
    "cuMemcpyDtoH",
    "cuMemcpyHtoD",
    "cuMemcpy2D",
    "cuMemcpy2DUnaligned",
    "cuMemcpy3D",
];

/// Whether an exported name is one of the sync calls in any variant: `_v2` and later ABI versions, `_ptsz` and `_ptds`
/// for the per-thread default stream, or both.
pub(crate) fn is_sync_call(name: &str) -> bool {
    let name = name.strip_suffix("_ptsz").or_else(|| name.strip_suffix("_ptds")).unwrap_or(name);
    let name = match name.rsplit_once("_v") {
        Some((base, version)) if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) => {
            base
        }
        _ => name,
    };
    SYNC_CALLS.contains(&name)
}

/// A place to probe, and which exported names lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Offset in the file, as the kernel wants it.
    pub(crate) offset: u64,
    /// Whether the kernel carries out the instruction there itself.
    pub(crate) cheap: bool,
    /// Exported names, aliases included.
    pub(crate) symbols: Vec<String>,
}

/// The sites of the synchronous calls that a library exports, by file offset.
pub(crate) fn sync_sites(file: &File, path: &Path) -> Result<Vec<Site>, Error> {
    let wrong = |reason: String| Error::NotDriver { path: path.to_owned(), reason };
    // Reads what it needs of a file that may be a hundred megabytes.
    let cache = ReadCache::new(file);
    cache.len().map_err(|()| wrong("its size cannot be read".to_owned()))?;
    let elf = object::File::parse(&cache).map_err(|error| wrong(error.to_string()))?;
    if elf.architecture() != object::Architecture::X86_64 {
        return Err(wrong(format!(
            "it is for {:?}; the probes know x86-64's calls only",
            elf.architecture()
        )));
    }
    let mut sites: BTreeMap<u64, Site> = BTreeMap::new();
    for symbol in elf.dynamic_symbols() {
        let Ok(name) = symbol.name() else { continue };
        if symbol.kind() != SymbolKind::Text || symbol.is_undefined() || !is_sync_call(name) {
            continue;
        }
        let start = file_offset(&elf, symbol.address())
            .ok_or_else(|| wrong(format!("{name} lies in no segment of the file")))?;
        let site = site_at(file, start, symbol.size())
            .map_err(|source| Error::Library { path: path.to_owned(), source })?;
        let known = sites.entry(site.offset).or_insert(site);
        known.symbols.push(name.to_owned());
        if sites.len() > SITES_MAX {
            return Err(wrong(format!("it exports more than {SITES_MAX} distinct sync calls")));
        }
    }
    if sites.is_empty() {
        return Err(wrong("it exports none of the driver's synchronous calls".to_owned()));
    }
    Ok(sites.into_values().collect())
}

fn file_offset<'data>(elf: &impl object::Object<'data>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let inside = address.checked_sub(segment.address())?;
        let (start, size) = segment.file_range();
        (inside < size).then(|| start + inside)
    })
}

fn site_at(file: &File, start: u64, size: u64) -> std::io::Result<Site> {
    let mut prologue = [0u8; PROLOGUE_BYTES];
    let mut length = file.read_at(&mut prologue, start)?;
    // A size of zero is what hand-written assembly exports.
    if size != 0 {
        length = length.min(usize::try_from(size).unwrap_or(PROLOGUE_BYTES));
    }
    let place = cheapest_place(&prologue[..length]);
    Ok(Site { offset: start + place.offset as u64, cheap: place.cheap, symbols: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::is_sync_call;

    #[test]
    fn every_variant_of_a_sync_call_is_one() {
        for name in [
            "cuCtxSynchronize",
            "cuCtxSynchronize_v2",
            "cuStreamSynchronize_ptsz",
            "cuMemcpyDtoH_v2",
            "cuMemcpyDtoH_v2_ptds",
            "cuMemcpy_ptds",
            "cuMemcpy2D_v2",
        ] {
            assert!(is_sync_call(name), "{name}");
        }
    }

    #[test]
    fn asynchronous_calls_and_strangers_are_not() {
        for name in [
            "cuMemcpyAsync",
            "cuMemcpyDtoHAsync_v2_ptsz",
            "cuMemcpyDtoH_v",
            "cuLaunchKernel",
            "cuMemcpy_vx",
            "",
        ] {
            assert!(!is_sync_call(name), "{name}");
        }
    }
}
