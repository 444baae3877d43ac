//! Loading an object, and reading and writing its maps: what several probes and the enforcement do alike.

use std::io;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError},
};
use headgate_ebpf_records::{histogram::Histogram, maps, slots::Slot};

use crate::{
    error::{Error, chain},
    figures::Durations,
    rows,
    status::{Probe, ProbeStatus, State},
};

/// Says what to do about the one refusal that an operator can lift.
pub(crate) fn with_advice(reason: String) -> String {
    let not_permitted = io::Error::from_raw_os_error(libc::EPERM).to_string();
    if reason.contains(&not_permitted) {
        return format!("{reason}; run the daemon as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN");
    }
    reason
}

pub(crate) fn status<T>(
    probe: Probe,
    loaded: &Result<T, String>,
    of_loaded: impl Fn(&T) -> ProbeStatus,
) -> ProbeStatus {
    match loaded {
        Ok(loaded) => of_loaded(loaded),
        Err(reason) => ProbeStatus { probe, state: State::Missing, mode: None, reason: reason.clone() },
    }
}

/// Creates an object's maps, some of another size than it says.
pub(crate) fn load_object(object: &[u8], sizes: &[(&'static str, u32)]) -> Result<Ebpf, String> {
    let mut loader = EbpfLoader::new();
    // Task storage is a map that aya creates but offers no handle for; none is needed.
    loader.allow_unsupported_maps();
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    loader.load(object).map_err(|error| chain(&error))
}

pub(crate) fn program<'ebpf, P>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<P, String>
where
    P: TryFrom<&'ebpf mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object holds no program {name}"))?;
    program.try_into().map_err(|error| chain(&error))
}

pub(crate) fn durations(ebpf: &Ebpf, probe: Probe, map: &str, row: u32) -> Result<Durations, Error> {
    let values = rows::read::<Histogram>(ebpf, map, row)
        .map_err(|error| Error::kernel(probe, "reading a tenant's durations", chain(&error)))?;
    let mut durations = Durations::default();
    for cpu in values.iter() {
        durations.add(cpu);
    }
    Ok(durations)
}

pub(crate) fn cgroup_rows(ebpf: &mut Ebpf) -> Result<HashMap<&mut MapData, u64, u32>, MapError> {
    ebpf.map_mut(maps::CGROUPS)
        .ok_or_else(|| MapError::InvalidName { name: maps::CGROUPS.to_owned() })?
        .try_into()
}

pub(crate) fn set_row(ebpf: &mut Ebpf, cgroup_id: u64, slot: Slot) -> Result<(), MapError> {
    cgroup_rows(ebpf)?.insert(cgroup_id, slot.row(), 0)
}

/// A cgroup that was never named is no error.
pub(crate) fn remove_row(ebpf: &mut Ebpf, cgroup_id: u64) -> Result<(), MapError> {
    absent_is_fine(cgroup_rows(ebpf)?.remove(&cgroup_id))
}

/// What removing an entry came to, if its absence is no error.
pub(crate) fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

pub(crate) fn naming(probe: Probe) -> impl Fn(MapError) -> Error {
    move |error| Error::kernel(probe, "naming a cgroup's tenant", chain(&error))
}

/// Makes every thread look its tenant up again.
pub(crate) fn write_epoch(ebpf: &mut Ebpf, value: u32) -> Result<(), MapError> {
    let map =
        ebpf.map_mut(maps::EPOCH).ok_or_else(|| MapError::InvalidName { name: maps::EPOCH.to_owned() })?;
    let mut epoch: Array<&mut MapData, u32> = map.try_into()?;
    epoch.set(0, value, 0)
}
