//! The sites of a driver library: file offsets of the calls to probe.

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt as _, path::Path};

use object::{
    Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind,
    read::{ReadCache, ReadRef as _},
};

use headgate_ebpf_records::ledger::Operation;

use crate::{
    decode::cheapest_place,
    error::Error,
    limits::{PROLOGUE_BYTES, SITES_MAX},
};

/// A set of functions to probe: answers the cookie of an exported name that is one of them.
pub(crate) type Wanted = fn(&str) -> Option<u64>;

/// Calls of the CUDA driver API that return only when the GPU has done what they ask.
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

/// Calls that launch work, graphs included.
const LAUNCHES: [&str; 8] = [
    "cuLaunch",
    "cuLaunchGrid",
    "cuLaunchGridAsync",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuLaunchCooperativeKernel",
    "cuLaunchCooperativeKernelMultiDevice",
    "cuGraphLaunch",
];

/// The synchronous calls.
pub(crate) fn sync_call(name: &str) -> Option<u64> {
    SYNC_CALLS.contains(&stem(name).0).then_some(0)
}

/// The launches.
pub(crate) fn launch(name: &str) -> Option<u64> {
    LAUNCHES.contains(&stem(name).0).then_some(Operation::Launch as u64)
}

/// The calls that hand out memory or take it back, and what the witness watches besides.
pub(crate) fn ledger_call(name: &str) -> Option<u64> {
    let (stem, version) = stem(name);
    // The first versions of some are of the time when device addresses had 32 bits; their arguments are laid out otherwise
    // and a driver of today refuses them in a 64-bit process.
    let is_narrow = version < 2
        && matches!(
            stem,
            "cuMemAlloc" | "cuMemAllocPitch" | "cuMemFree" | "cuArrayCreate" | "cuArray3DCreate"
        );
    if is_narrow {
        return None;
    }
    let operation = match stem {
        "cuMemAlloc" => Operation::Allocate,
        "cuMemAllocAsync" | "cuMemAllocFromPoolAsync" => Operation::AllocatePooled,
        "cuMemAllocPitch" => Operation::AllocatePitch,
        "cuMemAllocManaged" => Operation::AllocateManaged,
        "cuMemCreate" => Operation::CreatePhysical,
        "cuArrayCreate" => Operation::CreateArray,
        "cuArray3DCreate" => Operation::CreateArray3d,
        "cuMipmappedArrayCreate" => Operation::CreateUnsized,
        "cuIpcOpenMemHandle" | "cuMemImportFromShareableHandle" | "cuMemPoolImportPointer" => {
            Operation::Import
        }
        "cuMemFree" | "cuMemFreeAsync" => Operation::Free,
        "cuMemRelease" => Operation::ReleasePhysical,
        "cuArrayDestroy" => Operation::DestroyArray,
        "cuCtxDestroy" | "cuDevicePrimaryCtxReset" | "cuDevicePrimaryCtxRelease" => Operation::EndContext,
        "cuGetExportTable" => Operation::ExportTable,
        _ => return None,
    };
    Some(operation as u64)
}

/// An exported name without the suffixes that tell ABI versions (`_v2`) and per-thread-stream variants (`_ptsz`, `_ptds`)
/// apart, and the version.
fn stem(name: &str) -> (&str, u32) {
    let name = name.strip_suffix("_ptsz").or_else(|| name.strip_suffix("_ptds")).unwrap_or(name);
    match name.rsplit_once("_v") {
        Some((base, version)) => version.parse().map_or((name, 1), |version| (base, version)),
        None => (name, 1),
    }
}

/// A place to probe, and which exported names lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Offset in the file, as the kernel wants it.
    pub(crate) offset: u64,
    /// What the program is told about the site.
    pub(crate) cookie: u64,
    /// Whether the kernel carries out the instruction there itself.
    pub(crate) cheap: bool,
    /// Exported names, aliases included.
    pub(crate) symbols: Vec<String>,
}

/// The sites of each set of functions that a library exports, by file offset; an empty list for a set that it has none of.
pub(crate) fn sites<const SETS: usize>(
    file: &File,
    path: &Path,
    wanted: [Wanted; SETS],
) -> Result<[Vec<Site>; SETS], Error> {
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
    let mut found: [BTreeMap<u64, Site>; SETS] = std::array::from_fn(|_| BTreeMap::new());
    // A program with the driver linked into it exports nothing, but if it was not stripped it names what it holds.
    let exported = elf.dynamic_symbols().any(|symbol| symbol.is_definition());
    let named = if exported { None } else { Some(elf.symbols()) };
    for symbol in elf.dynamic_symbols().chain(named.into_iter().flatten()) {
        let Ok(name) = symbol.name() else { continue };
        if symbol.kind() != SymbolKind::Text || symbol.is_undefined() {
            continue;
        }
        for (sites, wanted) in found.iter_mut().zip(wanted) {
            let Some(cookie) = wanted(name) else { continue };
            let start = file_offset(&elf, symbol.address())
                .ok_or_else(|| wrong(format!("{name} lies in no segment of the file")))?;
            let site = site_at(file, start, symbol.size(), cookie)
                .map_err(|source| Error::Library { path: path.to_owned(), source })?;
            let known = sites.entry(site.offset).or_insert(site);
            known.symbols.push(name.to_owned());
            if sites.len() > SITES_MAX {
                return Err(wrong(format!("it exports more than {SITES_MAX} distinct calls of one kind")));
            }
        }
    }
    Ok(found.map(|sites| sites.into_values().collect()))
}

fn file_offset<'data>(elf: &impl object::Object<'data>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let inside = address.checked_sub(segment.address())?;
        let (start, size) = segment.file_range();
        (inside < size).then(|| start + inside)
    })
}

fn site_at(file: &File, start: u64, size: u64, cookie: u64) -> std::io::Result<Site> {
    let mut prologue = [0u8; PROLOGUE_BYTES];
    let mut length = file.read_at(&mut prologue, start)?;
    // A size of zero is what hand-written assembly exports.
    if size != 0 {
        length = length.min(usize::try_from(size).unwrap_or(PROLOGUE_BYTES));
    }
    let place = cheapest_place(&prologue[..length]);
    Ok(Site { offset: start + place.offset as u64, cookie, cheap: place.cheap, symbols: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::{Operation, launch, ledger_call, sync_call};

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
            assert!(sync_call(name).is_some(), "{name}");
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
            assert!(sync_call(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_ledger_knows_every_family_and_leaves_the_32_bit_ones_out() {
        for (name, operation) in [
            ("cuMemAlloc_v2", Operation::Allocate),
            ("cuMemAllocAsync_ptsz", Operation::AllocatePooled),
            ("cuMemAllocFromPoolAsync", Operation::AllocatePooled),
            ("cuMemAllocPitch_v2", Operation::AllocatePitch),
            ("cuMemFreeAsync_ptsz", Operation::Free),
            ("cuMemFree_v2", Operation::Free),
            ("cuArrayCreate_v2", Operation::CreateArray),
            ("cuCtxDestroy_v2", Operation::EndContext),
            ("cuCtxDestroy", Operation::EndContext),
        ] {
            assert_eq!(ledger_call(name), Some(operation as u64), "{name}");
        }
        for name in [
            "cuMemAlloc",
            "cuMemFree",
            "cuMemAllocHost_v2",
            "cuMemFreeHost",
            "cuMemGetInfo_v2",
            "cuArrayCreate",
        ] {
            assert_eq!(ledger_call(name), None, "{name}");
        }
        assert!(launch("cuLaunchKernelEx_ptsz").is_some() && launch("cuLaunchHostFunc").is_none());
    }
}
