//! The tables against what a real driver library exports and what the newest headers declare (`fixtures/collect.py`
//! collects both): no entry point that takes, gives back, maps, shares or reports memory, or starts work, may be
//! unknown, and no signature wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use headgate_abi::cuda::types::*;
use headgate_abi::cuda::{ThreadMode, symbols};
use headgate_abi::nvml::*;

const DRIVER: &str = include_str!("../fixtures/driver.symbols");
const CUDA: &str = include_str!("../fixtures/cuda.prototypes");
const NVML: &str = include_str!("../fixtures/nvml.prototypes");
const REVIEWED: &str = include_str!("../fixtures/reviewed.txt");

/// A word in a name, and what it says of the function.
const RULES: &[(&str, &str)] = &[
    ("Alloc", "allocates"),
    ("MemCreate", "allocates"),
    ("PoolCreate", "allocates"),
    ("ArrayCreate", "allocates"),
    ("Array3DCreate", "allocates"),
    ("MulticastCreate", "allocates"),
    ("EndpointCreate", "allocates"),
    ("CtxCreate", "allocates: a context takes memory"),
    ("Retain", "allocates, or keeps memory alive"),
    ("Attach", "allocates, or keeps memory alive"),
    ("SetLimit", "allocates: stacks and heaps"),
    ("Restore", "allocates: what a checkpoint gave back"),
    ("Free", "frees"),
    ("Destroy", "frees"),
    ("Release", "frees"),
    ("Reset", "frees"),
    ("TrimTo", "frees"),
    ("MemTrim", "frees"),
    ("Map", "maps"),
    ("Unmap", "unmaps"),
    ("Bind", "maps"),
    ("Unbind", "unmaps"),
    ("Import", "imports"),
    ("Export", "exports"),
    ("Ipc", "imports or exports"),
    ("Register", "maps host memory"),
    ("Launch", "launches"),
    ("Upload", "launches"),
    ("GraphAdd", "builds what is launched"),
    ("Instantiate", "makes ready to launch"),
    ("ExecUpdate", "makes ready to launch"),
    ("Capture", "records what would be launched"),
    ("GreenCtx", "takes a share of the SMs"),
    ("MemGet", "reports memory"),
    ("TotalMem", "reports memory"),
    ("MemAttribute", "reports memory"),
    ("PoolGet", "reports memory"),
];

/// The same for NVML, which only reports.
const NVML_RULES: &[(&str, &str)] =
    &[("Mem", "reports memory"), ("Process", "reports processes"), ("Accounting", "reports processes")];

fn rule(name: &str, rules: &'static [(&str, &str)]) -> Option<&'static str> {
    rules.iter().find(|(word, _)| name.contains(word)).map(|(_, says)| *says)
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn reviewed() -> BTreeMap<&'static str, &'static str> {
    lines(REVIEWED)
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no reason is given: {line}")))
        .collect()
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
    NvmlDevice
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
    let reviewed = reviewed();
    let declared = lines(CUDA).filter_map(|line| line.split(' ').next());
    let names: BTreeSet<&str> = lines(DRIVER).chain(declared).collect();
    assert!(names.len() > 600, "the fixtures hold a whole library: {}", names.len());
    let unknown: Vec<_> = names
        .into_iter()
        .filter(|name| symbols::by_elf_name(name).is_none() && !reviewed.contains_key(name))
        .filter_map(|name| rule(name, RULES).map(|says| format!("{name} {says}")))
        .collect();
    assert!(unknown.is_empty(), "neither in the table nor in fixtures/reviewed.txt: {unknown:#?}");
}

#[test]
fn no_memory_view_of_nvml_is_unknown() {
    let (reviewed, known) = (reviewed(), nvml_shapes());
    let unknown: Vec<_> = lines(NVML)
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !known.contains_key(name) && !reviewed.contains_key(name))
        .filter_map(|name| rule(name, NVML_RULES).map(|says| format!("{name} {says}")))
        .collect();
    assert!(unknown.is_empty(), "neither in the table nor in fixtures/reviewed.txt: {unknown:#?}");
}

#[test]
fn what_was_reviewed_is_still_there_and_still_outside() {
    let cuda: BTreeSet<&str> = lines(DRIVER).collect();
    let nvml: BTreeSet<&str> = lines(NVML).filter_map(|line| line.split(' ').next()).collect();
    for name in reviewed().keys() {
        assert!(cuda.contains(name) || nvml.contains(name), "{name} is in no fixture any more");
        assert!(
            symbols::by_elf_name(name).is_none() && !nvml_shapes().contains_key(name),
            "{name} is in the table"
        );
    }
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
