//! Reading and clearing the per-tenant rows of the kernel's arrays.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues},
};
use headgate_ebpf_records::{counters::Counter, maps};

/// Every CPU's value of one row.
pub(crate) fn read<V: Pod>(ebpf: &Ebpf, map: &str, row: u32) -> Result<PerCpuValues<V>, MapError> {
    array::<V>(ebpf, map)?.get(&row, 0)
}

/// Adds an object's counters to the totals, CPUs together.
pub(crate) fn add_counters(ebpf: &Ebpf, totals: &mut BTreeMap<Counter, u64>) -> Result<(), MapError> {
    for (counter, total) in totals {
        let values = read::<u64>(ebpf, maps::COUNTERS, counter.row())?;
        *total = values.iter().fold(*total, |sum, cpu| sum.wrapping_add(*cpu));
    }
    Ok(())
}

/// Writes the same value to a row on every CPU.
pub(crate) fn fill<V: Pod>(ebpf: &mut Ebpf, map: &str, row: u32, value: V) -> Result<(), MapError> {
    let map = ebpf.map_mut(map).ok_or_else(|| MapError::InvalidName { name: map.to_owned() })?;
    let mut array: PerCpuArray<&mut MapData, V> = map.try_into()?;
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
    array.set(row, PerCpuValues::try_from(vec![value; cpus]).map_err(MapError::IoError)?, 0)
}

fn array<'ebpf, V: Pod>(ebpf: &'ebpf Ebpf, map: &str) -> Result<PerCpuArray<&'ebpf MapData, V>, MapError> {
    ebpf.map(map).ok_or_else(|| MapError::InvalidName { name: map.to_owned() })?.try_into()
}

/// The descriptor of a map of a kind that this crate's objects use.
pub(crate) fn fd_of(map: &Map) -> Option<RawFd> {
    borrowed_fd_of(map).map(|fd| fd.as_raw_fd())
}

/// The same, borrowed from the map.
pub(crate) fn borrowed_fd_of(map: &Map) -> Option<BorrowedFd<'_>> {
    let data = match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::CgroupStorage(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data)
        | Map::Unsupported(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd())
}
