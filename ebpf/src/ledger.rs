//! The second ledger and the bypass witness, as [`crate::Probes`] holds them.

use std::{collections::BTreeMap, ops::Range, os::fd::BorrowedFd, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
    programs::RawTracePoint,
};
use aya_obj::generated::{BPF_ANY, BPF_NOEXIST};
use headgate_ebpf_records::{
    gate::Attested,
    histogram::Histogram,
    ledger::{Allocation, AllocationKey, Bypass, Bypasses, Kind, Process, rule},
    maps,
    slots::Slot,
};

use crate::{
    cells::Change,
    error::{Error, chain},
    figures::Durations,
    library::{Engine, Library, LibraryFile, LibraryId, Suite},
    limits::SWEEP_MAX,
    probes::{AttachPreference, absent_is_fine, load_object, program, remove_row, set_row},
    rows,
    site::Site,
    status::{Mode, Part, PartStatus, State},
    wait::write_cells,
};

const LEDGER: Suite =
    Suite { enter: maps::LEDGER_ENTER, leave: Some(maps::LEDGER_LEAVE), session: Some(maps::LEDGER_SESSION) };
const LAUNCHES: Suite = Suite { enter: maps::LEDGER_LAUNCH, leave: None, session: None };

/// What a process holds, by the second ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// The tenant that its last call was made as.
    pub slot: Slot,
    /// Bytes of plain and pitched memory.
    pub plain: u64,
    /// Bytes of managed memory.
    pub managed: u64,
    /// Bytes of physical device memory made to be mapped.
    pub physical: u64,
    /// Bytes of arrays, by their descriptors.
    pub arrays: u64,
    /// Bytes of stream-ordered and pool memory. The pool itself may hold more.
    pub pooled: u64,
    /// Allocations held.
    pub held: u64,
    /// Contexts it has ended. What was allocated in them is still in the sums.
    pub context_ends: u64,
    /// Allocations from pools, ever: a pool may hold memory after the last of them is gone.
    pub pool_calls: u64,
}

impl ProcessMemory {
    /// All bytes together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        let explicit = self.plain.wrapping_add(self.managed).wrapping_add(self.physical);
        explicit.wrapping_add(self.arrays).wrapping_add(self.pooled)
    }
}

/// How often a tenant's processes called the driver around the hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BypassCount {
    /// By a process that has a hook, from outside its code.
    pub outside: u64,
    /// By a process without an attested hook.
    pub unattested: u64,
}

/// What the witness saw of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witnessed {
    /// Calls around the hook.
    pub bypasses: BTreeMap<Bypass, BypassCount>,
    /// Launches seen in launch audits, whoever made them.
    pub launches: u64,
    /// Processes ended for a call around the hook.
    pub refused: u64,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    // Before the programs and maps they use.
    libraries: BTreeMap<LibraryId, Followed>,
    engine: Engine,
    launches: Result<Engine, String>,
    /// Whether launches are audited now.
    auditing: bool,
    epoch: u32,
    /// Where the last sweep stopped.
    cursor: Option<AllocationKey>,
    /// Allocations of ended processes counted by the kernel, and how many of them have been swept up.
    swept: u64,
    pub(crate) ebpf: Ebpf,
    trouble: Option<String>,
}

/// A library whose calls are followed.
#[derive(Debug)]
struct Followed {
    file: Arc<LibraryFile>,
    calls: Option<Library>,
    launch_sites: Vec<Site>,
    launches: Option<Library>,
}

impl Followed {
    fn into_links(self) -> impl Iterator<Item = Library> {
        self.calls.into_iter().chain(self.launches)
    }
}

impl Ledger {
    pub(crate) fn load(
        object: &[u8],
        tenants: u32,
        cells: u32,
        allocations: u32,
        attach: AttachPreference,
    ) -> Result<Self, String> {
        let sizes = [
            (maps::BYPASSES, tenants + 1),
            (maps::RULES, tenants + 1),
            (maps::CALL_TIMES, cells),
            (maps::ALLOCATIONS, allocations),
        ];
        let mut ebpf = load_object(object, &sizes)?;
        attach_tracepoint(&mut ebpf, maps::LEDGER_EXEC, "sched_process_exec")?;
        attach_tracepoint(&mut ebpf, maps::LEDGER_EXIT, "sched_process_exit").or_else(|reason| {
            tracing::info!(
                reason,
                "this kernel does not say when a process' last thread ends; its first one's end counts"
            );
            attach_tracepoint(&mut ebpf, maps::LEDGER_EXIT_LEADER, "sched_process_exit")
        })?;
        let engine = Engine::load(&mut ebpf, object, LEDGER, attach)?;
        let launches = Engine::load(&mut ebpf, object, LAUNCHES, attach);
        let mut ledger = Self {
            libraries: BTreeMap::new(),
            engine,
            launches,
            auditing: false,
            epoch: 0,
            cursor: None,
            swept: 0,
            ebpf,
            trouble: None,
        };
        ledger.next_epoch().map_err(|error| error.to_string())?;
        Ok(ledger)
    }

    pub(crate) fn status(&self, part: Part) -> PartStatus {
        let modes = self.libraries.values().filter_map(|followed| match part {
            Part::LaunchAudit => followed.launches.as_ref(),
            _ => followed.calls.as_ref(),
        });
        let mode = modes.map(Library::mode).max();
        let mut reasons: Vec<&str> = Vec::new();
        if let (Part::LaunchAudit, Err(reason)) = (part, &self.launches) {
            return PartStatus { part, state: State::Missing, mode: None, reason: reason.clone() };
        }
        if part == Part::LaunchAudit && !self.auditing {
            reasons.push("on demand, and not under way");
        } else {
            reasons.extend(self.trouble.as_deref());
            if mode.is_none() && reasons.is_empty() {
                reasons.push("no driver library has been found yet");
            }
        }
        if mode == Some(Mode::UprobePerf) {
            reasons.push(self.engine.fallback_reason());
        }
        let state = if mode.is_some() { State::Up } else { State::Idle };
        PartStatus { part, state, mode, reason: reasons.join("; ") }
    }

    /// Follows a library's calls. One that exports none of them is remembered for its launches only.
    pub(crate) fn attach(&mut self, file: Arc<LibraryFile>, calls: &[Site], launch_sites: Vec<Site>) {
        if self.libraries.contains_key(&file.id()) {
            return;
        }
        let mut followed = Followed { file, calls: None, launch_sites, launches: None };
        self.trouble = None;
        if !calls.is_empty() {
            match self.engine.attach(&mut self.ebpf, &followed.file, calls) {
                Ok(library) => followed.calls = Some(library),
                Err(reason) => self.trouble = Some(reason),
            }
        }
        if self.auditing
            && let Err(reason) = audit(&mut self.launches, &mut self.ebpf, &mut followed)
        {
            self.trouble = Some(reason);
        }
        self.libraries.insert(followed.file.id(), followed);
    }

    /// Lets a library go; its links are the caller's to drop.
    pub(crate) fn release(&mut self, library: LibraryId) -> Vec<Library> {
        self.libraries.remove(&library).into_iter().flat_map(Followed::into_links).collect()
    }

    /// Lets every library go.
    pub(crate) fn release_all(&mut self) -> Vec<Library> {
        std::mem::take(&mut self.libraries).into_values().flat_map(Followed::into_links).collect()
    }

    pub(crate) fn audit_launches(&mut self) -> Result<(), Error> {
        self.auditing = true;
        for followed in self.libraries.values_mut() {
            audit(&mut self.launches, &mut self.ebpf, followed)
                .map_err(|reason| Error::part(Part::LaunchAudit, "attaching to launches", reason))?;
        }
        Ok(())
    }

    /// Ends it; the links are the caller's to drop.
    pub(crate) fn end_launch_audit(&mut self) -> Vec<Library> {
        self.auditing = false;
        self.libraries.values_mut().filter_map(|followed| followed.launches.take()).collect()
    }

    pub(crate) fn seat(&mut self, change: &Change) -> Result<(), Error> {
        write_cells(&mut self.ebpf, change)
            .map_err(|error| Error::part(Part::MemoryLedger, "seating processes", chain(&error)))?;
        self.next_epoch()
    }

    pub(crate) fn set_rule(&mut self, row: u32, refuse: bool) -> Result<(), Error> {
        let refused = |error: MapError| Error::part(Part::BypassWitness, "setting a rule", chain(&error));
        let map = self
            .ebpf
            .map_mut(maps::RULES)
            .ok_or_else(|| refused(MapError::InvalidName { name: maps::RULES.to_owned() }))?;
        let mut rules: Array<&mut MapData, u32> = map.try_into().map_err(refused)?;
        rules.set(row, if refuse { rule::REFUSE } else { rule::COUNT }, 0).map_err(refused)
    }

    /// How long the calls took that hand out memory or take it back.
    pub(crate) fn durations(&self, row: u32) -> Result<Durations, Error> {
        let values = rows::read::<Histogram>(&self.ebpf, maps::CALL_TIMES, row).map_err(|error| {
            Error::part(Part::MemoryLedger, "reading a tenant's durations", chain(&error))
        })?;
        let mut durations = Durations::default();
        values.iter().for_each(|cpu| durations.add(cpu));
        Ok(durations)
    }

    pub(crate) fn clear_durations(&mut self, row: u32) -> Result<(), Error> {
        rows::fill(&mut self.ebpf, maps::CALL_TIMES, row, Histogram::EMPTY)
            .map_err(|error| Error::part(Part::MemoryLedger, "clearing a tenant's durations", chain(&error)))
    }

    pub(crate) fn set(&mut self, cgroup_id: u64, slot: Slot) -> Result<(), Error> {
        set_row(&mut self.ebpf, cgroup_id, slot).map_err(naming)?;
        self.next_epoch()
    }

    pub(crate) fn remove(&mut self, cgroup_id: u64) -> Result<(), Error> {
        remove_row(&mut self.ebpf, cgroup_id).map_err(naming)?;
        self.next_epoch()
    }

    fn next_epoch(&mut self) -> Result<(), Error> {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        crate::probes::write_epoch(&mut self.ebpf, self.epoch)
            .map_err(|error| Error::part(Part::MemoryLedger, "starting a new epoch", chain(&error)))
    }

    pub(crate) fn clear(&mut self, row: u32) -> Result<(), Error> {
        self.set_rule(row, false)?;
        rows::fill(&mut self.ebpf, maps::BYPASSES, row, Bypasses::EMPTY)
            .map_err(|error| Error::part(Part::BypassWitness, "clearing a tenant's figures", chain(&error)))
    }

    pub(crate) fn processes(&self) -> Result<Vec<ProcessMemory>, Error> {
        let table: HashMap<&MapData, u32, Process> = table(&self.ebpf, maps::PROCESSES)?;
        // An entry that goes while the table is read makes the kernel start over: a map keeps each process once.
        let read: BTreeMap<u32, Process> = table.iter().filter_map(Result::ok).collect();
        Ok(read.into_iter().map(|(tgid, process)| memory_of(tgid, &process)).collect())
    }

    pub(crate) fn witnessed(&self, row: u32) -> Result<Witnessed, Error> {
        let values = rows::read::<Bypasses>(&self.ebpf, maps::BYPASSES, row)
            .map_err(|error| Error::part(Part::BypassWitness, "reading a tenant's figures", chain(&error)))?;
        let mut witnessed = Witnessed::default();
        for cpu in values.iter() {
            witnessed.launches = witnessed.launches.wrapping_add(cpu.launches);
            witnessed.refused = witnessed.refused.wrapping_add(cpu.refused);
            for bypass in Bypass::ALL {
                let count = witnessed.bypasses.entry(bypass).or_default();
                count.outside = count.outside.wrapping_add(cpu.outside[bypass as usize]);
                count.unattested = count.unattested.wrapping_add(cpu.unattested[bypass as usize]);
            }
        }
        Ok(witnessed)
    }

    pub(crate) fn attest(&mut self, process: u32, code: &Range<u64>) -> Result<(), Error> {
        self.enter(process, Attested { start: code.start, end: code.end }, u64::from(BPF_ANY))
    }

    /// Enters a process without code, unless it has a hook: see the kernel program.
    pub(crate) fn excuse(&mut self, process: u32) -> Result<(), Error> {
        self.enter(process, Attested { start: 0, end: 0 }, u64::from(BPF_NOEXIST))
    }

    fn enter(&mut self, process: u32, attested: Attested, flags: u64) -> Result<(), Error> {
        match self.attested().and_then(|mut table| table.insert(process, attested, flags)) {
            Err(MapError::SyscallError(error))
                if flags == u64::from(BPF_NOEXIST) && error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(())
            }
            outcome => outcome
                .map_err(|error| Error::part(Part::BypassWitness, "naming a process' hook", chain(&error))),
        }
    }

    pub(crate) fn revoke(&mut self, process: u32) -> Result<(), Error> {
        self.attested()
            .and_then(|mut table| absent_is_fine(table.remove(&process)))
            .map_err(|error| Error::part(Part::BypassWitness, "forgetting a process' hook", chain(&error)))
    }

    fn attested(&mut self) -> Result<HashMap<&mut MapData, u32, Attested>, MapError> {
        self.ebpf
            .map_mut(maps::ATTESTED)
            .ok_or_else(|| MapError::InvalidName { name: maps::ATTESTED.to_owned() })?
            .try_into()
    }

    /// Removes entries of ended processes, a bounded number at a time. `orphans` is how many the kernel has left behind so far.
    pub(crate) fn sweep(&mut self, orphans: u64) -> Result<usize, Error> {
        if self.swept >= orphans {
            return Ok(0);
        }
        let refused =
            |error: MapError| Error::part(Part::MemoryLedger, "sweeping up allocations", chain(&error));
        let processes: HashMap<&MapData, u32, Process> = table(&self.ebpf, maps::PROCESSES)?;
        let fd = allocations_fd(&self.ebpf)?;
        let mut stale = Vec::new();
        let mut cursor = self.cursor.take();
        for _ in 0..SWEEP_MAX {
            let Some(key) = crate::sys::next_key(fd, cursor.as_ref())
                .map_err(|error| Error::part(Part::MemoryLedger, "sweeping up allocations", error))?
            else {
                cursor = None;
                break;
            };
            cursor = Some(key);
            // A process' record is made before its first allocation is entered, so this never takes a living one's.
            let lives = processes.get(&key.tgid, 0).is_ok_and(|process| process.birth == key.birth());
            if !lives {
                stale.push(key);
            }
        }
        // Deleting the key that the walk stands on would start it over.
        if let Some(last) = cursor {
            stale.retain(|key| *key != last);
        }
        self.cursor = cursor;
        let mut allocations: HashMap<&mut MapData, AllocationKey, Allocation> = self
            .ebpf
            .map_mut(maps::ALLOCATIONS)
            .ok_or_else(|| MapError::InvalidName { name: maps::ALLOCATIONS.to_owned() })
            .and_then(TryInto::try_into)
            .map_err(refused)?;
        for key in &stale {
            // Nobody else removes a dead process' entries.
            allocations.remove(key).map_err(refused)?;
        }
        self.swept += stale.len() as u64;
        if self.cursor.is_none() && stale.is_empty() {
            // A whole walk found nothing: what was counted and is not there was a free in flight when its process died.
            self.swept = orphans;
        }
        Ok(stale.len())
    }
}

fn naming(error: MapError) -> Error {
    Error::part(Part::MemoryLedger, "naming a cgroup's tenant", chain(&error))
}

fn memory_of(tgid: u32, process: &Process) -> ProcessMemory {
    let bytes = |kind: Kind| process.bytes[kind as usize];
    ProcessMemory {
        tgid,
        slot: Slot::from_row(process.row).unwrap_or(Slot::UNKNOWN),
        plain: bytes(Kind::Plain),
        managed: bytes(Kind::Managed),
        physical: bytes(Kind::Physical),
        arrays: bytes(Kind::Array),
        pooled: bytes(Kind::Pooled),
        held: process.held,
        context_ends: process.context_ends,
        pool_calls: process.pool_calls,
    }
}

fn audit(
    engine: &mut Result<Engine, String>,
    ebpf: &mut Ebpf,
    followed: &mut Followed,
) -> Result<(), String> {
    if followed.launches.is_none() && !followed.launch_sites.is_empty() {
        let engine = engine.as_mut().map_err(|reason| reason.clone())?;
        followed.launches = Some(engine.attach(ebpf, &followed.file, &followed.launch_sites)?);
    }
    Ok(())
}

fn table<'ebpf, K: aya::Pod, V: aya::Pod>(
    ebpf: &'ebpf Ebpf,
    name: &str,
) -> Result<HashMap<&'ebpf MapData, K, V>, Error> {
    ebpf.map(name)
        .ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
        .and_then(TryInto::try_into)
        .map_err(|error: MapError| Error::part(Part::MemoryLedger, "reading the ledger", chain(&error)))
}

fn allocations_fd(ebpf: &Ebpf) -> Result<BorrowedFd<'_>, Error> {
    ebpf.map(maps::ALLOCATIONS).and_then(rows::borrowed_fd_of).ok_or(Error::PartMissing(Part::MemoryLedger))
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), String> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(|error| chain(&error))?;
    program.attach(tracepoint).map(|_kept_by_the_program| ()).map_err(|error| chain(&error))
}
