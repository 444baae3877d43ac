//! The device gate's loader: which devices, and which processes may open them.

use std::{
    collections::BTreeMap,
    ops::Range,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
};
use aya_obj::generated::bpf_attach_type::BPF_CGROUP_DEVICE;
use headgate_ebpf_records::{
    border::{REASONS, Reason, Refusals, refusal_row},
    gate::{Attested, Opened, class, device_key},
    limits::MAJORS_MAX,
    maps,
};

use crate::{
    cgroup::Cgroup,
    enforce::{
        border::{load_program, map_of},
        devices::Devices,
        load::{Bound, load_bound},
        pins::Pins,
    },
    error::{Error, chain},
    probes::absent_is_fine,
    rows,
    status::Part,
};

/// A tenant's process has tried to open a GPU: a hint to look at what it has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// The tenant; `None` if it has been removed meanwhile.
    pub tenant: Option<String>,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Whether it was let through.
    pub passed: bool,
}

/// A record as the kernel program wrote it, with the tenant's row; `None` if it is too short.
pub(crate) fn read_open(bytes: &[u8]) -> Option<(u32, Open)> {
    const _: () = assert!(size_of::<Opened>() == 24, "the words below follow the record");
    let mut words = bytes.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
    let mut next = || words.next();
    let (tgid, row, major, minor) = (next()?, next()?, next()?, next()?);
    let passed = next()? != 0;
    Some((row, Open { tgid, tenant: None, device: (major, minor), passed }))
}

/// Pin names of the tracepoints' links.
const EXEC_PIN: &str = "gate_exec";
const EXIT_PIN: &str = "gate_exit";

pub(crate) struct Gate {
    pub(crate) ebpf: Ebpf,
    pub(crate) opens: RingBuf<MapData>,
    /// What the kernel's tables say now; empty until set, whatever an earlier loader has left.
    devices: Option<Devices>,
    _links: Vec<OwnedFd>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("devices", &self.devices).finish_non_exhaustive()
    }
}

impl Gate {
    pub(crate) fn open(object: &[u8], pins: &Pins, rows: u32, governed: &Cgroup) -> Result<Self, String> {
        let mut ebpf = load_bound(
            object,
            pins,
            &[
                Bound::pinned(maps::CGROUPS),
                Bound::pinned(maps::POLICIES).entries(rows),
                Bound::pinned(maps::CONTROL),
                Bound::pinned(maps::MAJORS),
                Bound::pinned(maps::DEVICES),
                Bound::pinned(maps::ATTESTED),
                Bound::pinned(maps::GATE_REFUSALS).entries(rows * REASONS),
                Bound::pinned(maps::OPENS),
            ],
        )?;
        // Revoking comes before what relies on it.
        let exec = link_tracepoint(&mut ebpf, pins, maps::GATE_EXEC, EXEC_PIN, c"sched_process_exec")?;
        let exit = link_tracepoint(&mut ebpf, pins, maps::GATE_EXIT, EXIT_PIN, c"sched_process_exit")
            .or_else(|reason| {
                tracing::info!(
                    reason,
                    "this kernel does not say when a process' last thread ends; its first one's end counts"
                );
                link_tracepoint(&mut ebpf, pins, maps::GATE_EXIT_LEADER, EXIT_PIN, c"sched_process_exit")
            })?;
        let program = ebpf.program_mut(maps::DEVICE_GATE).ok_or("the object holds no gate")?;
        load_program(program).map_err(|error| chain(&error))?;
        let fd = program.fd().map_err(|error| chain(&error))?.as_fd();
        let gate = pins
            .link_cgroup(maps::DEVICE_GATE, fd, governed.as_fd(), governed.id(), BPF_CGROUP_DEVICE)
            .map_err(|error| format!("attaching the gate: {error}"))?;
        let opens = ebpf.take_map(maps::OPENS).ok_or("the object holds no ring buffer")?;
        let opens = RingBuf::try_from(opens).map_err(|error| chain(&error))?;
        Ok(Self { ebpf, opens, devices: None, _links: vec![exec, exit, gate] })
    }

    /// Guards exactly these devices. New guards come before old ones go.
    pub(crate) fn set_devices(&mut self, devices: &Devices) -> Result<(), Error> {
        if self.devices.as_ref() == Some(devices) {
            return Ok(());
        }
        let refused =
            |error: MapError| Error::part(Part::DeviceGate, "naming the guarded devices", chain(&error));
        let mut classes: BTreeMap<u32, u32> =
            devices.single.keys().map(|(major, _)| (*major, class::BY_MINOR)).collect();
        classes.extend(devices.majors.iter().map(|(major, class)| (*major, class.number())));
        let mut single: HashMap<&mut MapData, u64, u32> =
            map_of(&mut self.ebpf, maps::DEVICES).and_then(TryInto::try_into).map_err(refused)?;
        let mut wanted = BTreeMap::new();
        for ((major, minor), class) in &devices.single {
            wanted.insert(device_key(*major, *minor), class.number());
        }
        for (key, class) in &wanted {
            single.insert(key, class, 0).map_err(refused)?;
        }
        let stale: Vec<u64> =
            single.keys().filter_map(Result::ok).filter(|key| !wanted.contains_key(key)).collect();
        let mut majors: Array<&mut MapData, u32> =
            map_of(&mut self.ebpf, maps::MAJORS).and_then(TryInto::try_into).map_err(refused)?;
        for major in 0..MAJORS_MAX {
            let class = classes.get(&major).copied().unwrap_or(class::FREE);
            if majors.get(&major, 0).map_err(refused)? != class {
                majors.set(major, class, 0).map_err(refused)?;
            }
        }
        let mut single: HashMap<&mut MapData, u64, u32> =
            map_of(&mut self.ebpf, maps::DEVICES).and_then(TryInto::try_into).map_err(refused)?;
        for key in stale {
            single.remove(&key).map_err(refused)?;
        }
        self.devices = Some(devices.clone());
        Ok(())
    }

    pub(crate) fn attest(&mut self, process: u32, text: &Range<u64>) -> Result<(), Error> {
        let attested = Attested { start: text.start, end: text.end };
        self.attested_table()
            .and_then(|mut table| table.insert(process, attested, 0))
            .map_err(|error| Error::part(Part::DeviceGate, "attesting a process", chain(&error)))
    }

    pub(crate) fn revoke(&mut self, process: u32) -> Result<(), Error> {
        self.attested_table()
            .and_then(|mut table| absent_is_fine(table.remove(&process)))
            .map_err(|error| Error::part(Part::DeviceGate, "revoking a process", chain(&error)))
    }

    pub(crate) fn attested(&self) -> Result<BTreeMap<u32, Range<u64>>, Error> {
        let refused =
            |error: MapError| Error::part(Part::DeviceGate, "reading the attested processes", chain(&error));
        let map = self.ebpf.map(maps::ATTESTED).ok_or(Error::PartMissing(Part::DeviceGate))?;
        let table: HashMap<&MapData, u32, Attested> = map.try_into().map_err(refused)?;
        // Entries may go while the table is read: the kernel then starts over, and a map takes what comes twice.
        Ok(table.iter().filter_map(Result::ok).map(|(pid, text)| (pid, text.start..text.end)).collect())
    }

    fn attested_table(&mut self) -> Result<HashMap<&mut MapData, u32, Attested>, MapError> {
        map_of(&mut self.ebpf, maps::ATTESTED)?.try_into()
    }

    pub(crate) fn clear(&mut self, row: u32) -> Result<(), Error> {
        for reason in Reason::ALL {
            rows::fill(&mut self.ebpf, maps::GATE_REFUSALS, refusal_row(row, reason), Refusals::EMPTY)
                .map_err(|error| {
                    Error::part(Part::DeviceGate, "clearing a tenant's figures", chain(&error))
                })?;
        }
        Ok(())
    }
}

fn link_tracepoint(
    ebpf: &mut Ebpf,
    pins: &Pins,
    program: &str,
    pin: &str,
    tracepoint: &std::ffi::CStr,
) -> Result<OwnedFd, String> {
    let program_ref =
        ebpf.program_mut(program).ok_or_else(|| format!("the object holds no program {program}"))?;
    load_program(program_ref).map_err(|error| format!("{program}: {}", chain(&error)))?;
    let fd = program_ref.fd().map_err(|error| chain(&error))?;
    pins.link_raw_tracepoint(pin, fd.as_fd(), tracepoint)
        .map_err(|error| format!("attaching {program}: {error}"))
}
