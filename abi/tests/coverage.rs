//! The tables against what a real driver library exports and what the newest headers declare (`fixtures/collect.py`
//! collects both): no entry point that takes, gives back, maps, shares or reports memory, or starts work, may be
//! unknown, and no signature wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{Disposition, ThreadMode, coverage, symbols};
use headgate_abi::nvml::*;

const DRIVER: &str = include_str!("../fixtures/driver.symbols");
const CUDA: &str = include_str!("../fixtures/cuda.prototypes");
const NVML: &str = include_str!("../fixtures/nvml.prototypes");
fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// Widths of a row's arguments, as `fixtures/*.prototypes` give them.
trait Width {
    const WIDTH: usize;
    const POINTER: bool = false;
}

macro_rules! widths {
    ($($ty:ty),*) => {$(impl Width for $ty { const WIDTH: usize = size_of::<$ty>(); })*};
}
widths!(u8, u16, c_int, c_uint, u64, usize, f32, CUresult, CUmemLocation, CUipcMemHandle, CUipcEventHandle);

impl<T> Width for *mut T {
    const WIDTH: usize = 8;
    const POINTER: bool = true;
}

impl<T> Width for *const T {
    const WIDTH: usize = 8;
    const POINTER: bool = true;
}

macro_rules! pointers {
    ($($ty:ty),*) => {$(impl Width for $ty { const WIDTH: usize = 8; const POINTER: bool = true; })*};
}
pointers!(
    CUcontext,
    CUstream,
    CUevent,
    CUmodule,
    CUfunction,
    CUlibrary,
    CUkernel,
    CUmemoryPool,
    CUgraph,
    CUgraphExec,
    CUgraphNode,
    CUuserObject,
    CUarray,
    CUmipmappedArray,
    CUgreenCtx,
    CUdevResourceDesc,
    CUexternalMemory,
    CUexternalSemaphore,
    CUgraphicsResource,
    CUtexref,
    CUsurfref,
    CUlinkState,
    NvmlDevice,
    NvmlEventSet
);

fn width<T: Width>() -> String {
    if T::POINTER { "p".to_owned() } else { T::WIDTH.to_string() }
}

macro_rules! shapes {
    ([$name:ident] $($row:ident ($($arg:ident: $ty:ty),*) [$($meta:tt)*];)*) => {
        fn $name() -> BTreeMap<&'static str, Vec<String>> {
            BTreeMap::from([$((stringify!($row), vec![$(width::<$ty>()),*]),)*])
        }
    };
}
headgate_abi::cuda_symbols!(shapes, cuda_shapes);
headgate_abi::nvml_symbols!(shapes, nvml_shapes);

#[test]
fn no_export_of_a_real_driver_is_unknown() {
    let declared = lines(CUDA).filter_map(|line| line.split(' ').next());
    let table = symbols::ROWS.iter().map(|row| row.elf_name);
    let names: BTreeSet<&str> = lines(DRIVER).chain(declared).chain(table).collect();
    assert!(names.len() > 600, "the fixtures hold a whole library: {}", names.len());
    let unhooked: Vec<_> = names
        .into_iter()
        .filter_map(|name| coverage::unhooked(name).map(|says| format!("{name} {says}")))
        .collect();
    assert!(unhooked.is_empty(), "neither hooked nor in fixtures/reviewed.txt: {unhooked:#?}");
}

#[test]
fn no_memory_view_of_nvml_is_unknown() {
    let declared = lines(NVML).filter_map(|line| line.split(' ').next());
    let unhooked: Vec<_> = declared
        .filter_map(|name| coverage::unhooked_nvml(name).map(|says| format!("{name} {says}")))
        .collect();
    assert!(unhooked.is_empty(), "neither hooked nor in fixtures/reviewed.txt: {unhooked:#?}");
}

#[test]
fn what_was_reviewed_is_still_there_and_still_passed() {
    let cuda: BTreeSet<&str> =
        lines(DRIVER).chain(lines(CUDA)).filter_map(|line| line.split(' ').next()).collect();
    let nvml: BTreeSet<&str> = lines(NVML).filter_map(|line| line.split(' ').next()).collect();
    let mut seen = BTreeSet::new();
    for (name, because) in coverage::reviewed() {
        assert!(seen.insert(name), "{name} was reviewed twice");
        assert!(!because.trim().is_empty(), "{name} has no reason");
        assert!(cuda.contains(name) || nvml.contains(name), "{name} is in no fixture any more");
        let hooked =
            symbols::by_elf_name(name).is_some_and(|symbol| symbol.row().disposition == Disposition::Hooked);
        let hooked_nvml = ROWS.iter().any(|row| row.elf_name == name && row.hooked);
        assert!(!hooked && !hooked_nvml, "{name} is hooked: take it off the list");
    }
    let listed = lines(include_str!("../fixtures/reviewed.txt")).count();
    assert_eq!(seen.len(), listed, "a line of fixtures/reviewed.txt has no `name: because`");
}

/// The arguments' widths and the version of every row that the header declares.
#[test]
fn signatures_are_those_of_the_header() {
    let shapes = cuda_shapes();
    let mut compared = 0;
    for line in lines(CUDA) {
        let mut fields = line.split(' ');
        let (Some(name), Some(since)) = (fields.next(), fields.next()) else { panic!("malformed: {line}") };
        let Some(symbol) = symbols::by_elf_name(name) else { continue };
        let (row, widths): (_, Vec<_>) = (symbol.row(), fields.collect());
        assert_eq!(shapes[name], widths, "arguments of {name}");
        assert_eq!(row.since.to_string(), since, "introduction of {name}");
        let twin = name.ends_with("_ptsz") || name.ends_with("_ptds");
        assert_eq!(row.thread_mode == ThreadMode::PerThread, twin, "thread mode of {name}");
        assert!(name.starts_with(row.base_name), "base name of {name}");
        compared += 1;
    }
    assert!(compared > 600, "{compared} rows compared");
}

#[test]
fn nvml_signatures_are_those_of_the_header() {
    let shapes = nvml_shapes();
    let declared = lines(NVML).filter_map(|line| line.split_once(' '));
    let compared = declared
        .filter_map(|(name, widths)| Some((name, shapes.get(name)?, widths)))
        .map(|(name, known, widths)| assert_eq!(known.join(" "), widths, "arguments of {name}"))
        .count();
    assert!(compared > 25, "{compared} rows compared");
}
