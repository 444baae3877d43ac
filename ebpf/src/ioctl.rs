//! The ioctl audit: on for a while, then off.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::MapError,
    programs::{RawTracePoint, raw_trace_point::RawTracePointLinkId},
};
use headgate_ebpf_records::{
    histogram::Histogram,
    ioctl::{NUMBERS, Numbers},
    maps,
    slots::Slot,
};

use crate::{
    error::{Error, chain},
    figures::Durations,
    probes::{load_object, program, remove_row, set_row},
    rows,
    status::Part,
    sys,
};

/// How one ioctl number of the GPU driver fared, whoever called it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoctlCount {
    /// Calls that have returned.
    pub calls: u64,
    /// Of those, how many with an error.
    pub failed: u64,
}

/// What an ioctl audit saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoctlReport {
    /// How long ioctls of the GPU driver took, by tenant; slots without any are left out.
    pub durations: BTreeMap<Slot, Durations>,
    /// How often each number was called, by the low eight bits of the request.
    pub numbers: BTreeMap<u8, IoctlCount>,
}

/// An audit under way. Dropping it ends it.
pub(crate) struct IoctlAudit {
    pub(crate) ebpf: Ebpf,
    /// Each program with where it hangs.
    links: Vec<(&'static str, RawTracePointLinkId)>,
}

impl std::fmt::Debug for IoctlAudit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoctlAudit").finish_non_exhaustive()
    }
}

impl IoctlAudit {
    /// Starts one that knows these cgroups.
    pub(crate) fn start(object: &[u8], tenants: u32, named: &BTreeMap<u64, Slot>) -> Result<Self, String> {
        let mut ebpf = load_object(object, &[(maps::IOCTL_TIMES, tenants + 1)])?;
        for (cgroup_id, slot) in named {
            set_row(&mut ebpf, *cgroup_id, *slot).map_err(|error| chain(&error))?;
        }
        let mut links = Vec::new();
        // Returns first: a start that is seen can also end.
        for (name, tracepoint) in [(maps::IOCTL_LEAVE, "sys_exit"), (maps::IOCTL_ENTER, "sys_enter")] {
            let program: &mut RawTracePoint = program(&mut ebpf, name)?;
            program.load().map_err(|error| chain(&error))?;
            let link = program.attach(tracepoint).map_err(|error| chain(&error))?;
            links.push((name, link));
        }
        Ok(Self { ebpf, links })
    }

    /// Ends it and says what it saw. First off, then read: the tables are read one after the other, and a call that returned
    /// in between would be in one of them only.
    pub(crate) fn end(mut self, tenants: u32) -> Result<IoctlReport, Error> {
        for (name, link) in std::mem::take(&mut self.links) {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)
                .map_err(|reason| Error::part(Part::IoctlAudit, "ending it", reason))?;
            program
                .detach(link)
                .map_err(|error| Error::part(Part::IoctlAudit, "ending it", chain(&error)))?;
        }
        sys::wait_for_programs()
            .map_err(|error| Error::part(Part::IoctlAudit, "ending it", chain(&error)))?;
        self.report(tenants)
    }

    pub(crate) fn set(&mut self, cgroup_id: u64, slot: Slot) -> Result<(), Error> {
        set_row(&mut self.ebpf, cgroup_id, slot).map_err(refused)
    }

    pub(crate) fn remove(&mut self, cgroup_id: u64) -> Result<(), Error> {
        remove_row(&mut self.ebpf, cgroup_id).map_err(refused)
    }

    /// What it has seen so far. Calls go on returning while the tables are read, so they need not agree to the last one.
    pub(crate) fn report(&self, tenants: u32) -> Result<IoctlReport, Error> {
        let mut report = IoctlReport::default();
        let slots = std::iter::once(Slot::UNKNOWN).chain((0..tenants).filter_map(Slot::of_tenant));
        for slot in slots {
            let mut durations = Durations::default();
            let values =
                rows::read::<Histogram>(&self.ebpf, maps::IOCTL_TIMES, slot.row()).map_err(refused)?;
            values.iter().for_each(|cpu| durations.add(cpu));
            if durations.count() > 0 {
                report.durations.insert(slot, durations);
            }
        }
        for number in 0..NUMBERS {
            let values = rows::read::<Numbers>(&self.ebpf, maps::IOCTL_NUMBERS, number).map_err(refused)?;
            let count = values.iter().fold(IoctlCount::default(), |sum, cpu| IoctlCount {
                calls: sum.calls.wrapping_add(cpu.calls),
                failed: sum.failed.wrapping_add(cpu.failed),
            });
            if let (true, Ok(number)) = (count.calls > 0, u8::try_from(number)) {
                report.numbers.insert(number, count);
            }
        }
        Ok(report)
    }
}

fn refused(error: MapError) -> Error {
    Error::part(Part::IoctlAudit, "using the audit's tables", chain(&error))
}
