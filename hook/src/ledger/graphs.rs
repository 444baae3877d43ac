//! Graphs that allocate: what each executable graph will take when it runs, and whether it has taken it.
//!
//! The driver backs a graph's allocations with memory when the graph is first uploaded or launched, shares that
//! memory among the graphs of a device, and keeps it until it is trimmed. So the charge belongs to the device's
//! graph memory ([`super::pools::Source::Graphs`]); here is what to ask room for.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use headgate_abi::cuda::types::{CUdevice, CUgraphExec};

use super::{Map, holdings, lock};

/// What a graph allocates on one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footprint {
    pub(crate) device: CUdevice,
    pub(crate) bytes: u64,
}

struct Exec {
    footprints: Vec<Footprint>,
    /// Backed by memory, as far as we know.
    backed: bool,
}

#[derive(Default)]
pub(super) struct Graphs(Map<Exec>);

/// Whether this process ever made a graph that allocates. Others pay nothing for those.
static SEEN: AtomicBool = AtomicBool::new(false);

/// A graph is about to be given an allocation.
pub(crate) fn note_allocation() {
    SEEN.store(true, Release);
}

/// Whether any graph of this process allocates.
#[inline]
pub(crate) fn seen() -> bool {
    SEEN.load(Acquire)
}

/// Adds up what nodes allocate, device by device. Allocations that are never live at once are given the same
/// addresses by the driver, so it is the addresses that are counted.
pub(crate) fn footprints(mut allocations: Vec<(CUdevice, u64, u64)>) -> Vec<Footprint> {
    allocations.sort_unstable();
    let mut found: Vec<Footprint> = Vec::new();
    let mut end = 0u64;
    for (device, start, bytes) in allocations {
        if found.last().is_none_or(|last| last.device != device) {
            found.push(Footprint { device, bytes: 0 });
            end = 0;
        }
        let reached = start.saturating_add(bytes);
        if let Some(last) = found.last_mut() {
            last.bytes += reached.saturating_sub(start.max(end));
        }
        end = end.max(reached);
    }
    found
}

/// Notes an executable graph and what it allocates.
pub(crate) fn instantiated(exec: CUgraphExec, footprints: Vec<Footprint>) {
    if !footprints.is_empty() {
        lock(&holdings().graphs).0.insert(exec.addr() as u64, Exec { footprints, backed: false });
    }
}

/// An executable graph allocates something else from now on. Room is asked for anew at its next launch, unless it
/// allocates what it did.
pub(crate) fn updated(exec: CUgraphExec, footprints: Vec<Footprint>) {
    let mut graphs = lock(&holdings().graphs);
    match graphs.0.get_mut(&(exec.addr() as u64)) {
        Some(known) if known.footprints == footprints => {}
        Some(known) => *known = Exec { footprints, backed: false },
        None if footprints.is_empty() => {}
        None => drop(graphs.0.insert(exec.addr() as u64, Exec { footprints, backed: false })),
    }
}

/// What a graph still needs memory for when it is launched now.
pub(crate) fn needs(exec: CUgraphExec) -> Vec<Footprint> {
    let graphs = lock(&holdings().graphs);
    graphs
        .0
        .get(&(exec.addr() as u64))
        .filter(|exec| !exec.backed)
        .map_or_else(Vec::new, |exec| exec.footprints.clone())
}

/// The driver has backed a graph with memory.
pub(crate) fn backed(exec: CUgraphExec) {
    if let Some(exec) = lock(&holdings().graphs).0.get_mut(&(exec.addr() as u64)) {
        exec.backed = true;
    }
}

/// Forgets an executable graph that is about to be destroyed; gives what it allocated, if it was backed.
pub(crate) fn let_go(exec: CUgraphExec) -> Vec<Footprint> {
    let gone = lock(&holdings().graphs).0.remove(&(exec.addr() as u64));
    gone.filter(|exec| exec.backed).map(|exec| exec.footprints).unwrap_or_default()
}

/// The driver may have taken the memory of idle graphs back.
pub(crate) fn trimmed(device: CUdevice) {
    for exec in lock(&holdings().graphs).0.values_mut() {
        if exec.footprints.iter().any(|footprint| footprint.device == device) {
            exec.backed = false;
        }
    }
}

pub(super) fn forget() {
    SEEN.store(false, Release);
}
