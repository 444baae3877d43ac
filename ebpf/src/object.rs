//! The committed kernel objects, and one way of preparing a program that aya does not offer.

use std::{collections::HashSet, os::fd::RawFd};

use aya::include_bytes_aligned;
use aya_obj::{Object, generated::bpf_insn};

/// The object of every probe. `cargo xtask ebpf` makes them, `cargo xtask ebpf --check` compares them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objects {
    pub(crate) wait: &'static [u8],
    pub(crate) rtt: &'static [u8],
    pub(crate) exit: &'static [u8],
    pub(crate) border: &'static [u8],
    pub(crate) gate: &'static [u8],
    pub(crate) ledger: &'static [u8],
    pub(crate) ioctl: &'static [u8],
}

pub(crate) const COMMITTED: Objects = Objects {
    wait: include_bytes_aligned!("../object/wait.bpf.o"),
    rtt: include_bytes_aligned!("../object/rtt.bpf.o"),
    exit: include_bytes_aligned!("../object/exit.bpf.o"),
    border: include_bytes_aligned!("../object/border.bpf.o"),
    gate: include_bytes_aligned!("../object/gate.bpf.o"),
    ledger: include_bytes_aligned!("../object/ledger.bpf.o"),
    ioctl: include_bytes_aligned!("../object/ioctl.bpf.o"),
};

/// A program's instructions with the maps' descriptors filled in, ready for `BPF_PROG_LOAD`.
///
/// aya does the same for the programs it loads, but loads them without the attach type that multi-uprobes need.
pub(crate) fn relocated(
    object: &[u8],
    program: &str,
    map_fd: impl Fn(&str) -> Option<RawFd>,
) -> Result<Vec<bpf_insn>, String> {
    let mut object = Object::parse(object).map_err(|error| error.to_string())?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = std::mem::take(&mut object.maps);
    let mut resolved = Vec::with_capacity(maps.len());
    for (name, map) in &maps {
        let fd = map_fd(name).ok_or_else(|| format!("map {name} was not created"))?;
        resolved.push((name.as_str(), fd, map));
    }
    object.relocate_maps(resolved.into_iter(), &sections).map_err(|error| crate::error::chain(&error))?;
    object.relocate_calls(&sections).map_err(|error| crate::error::chain(&error))?;
    let key = object.programs.get(program).ok_or_else(|| format!("no program {program}"))?.function_key();
    let function = object.functions.get(&key).ok_or_else(|| format!("no code for program {program}"))?;
    Ok(function.instructions.clone())
}
