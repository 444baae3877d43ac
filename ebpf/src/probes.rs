//! The probes as the daemon holds them.
//!
//! ```text
//!              load            attach_library / set_cgroup
//!   (nothing) ------> Idle ------------------------------> Up
//!       |                ^                                  |
//!       | refused        +----------------------------------+
//!       v                  detach_library / remove_cgroup of the last one
//!    Missing(reason)
//! ```
//! Process exit has nothing to wait for and goes up when it is loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
    programs::RawTracePoint,
};
use headgate_ebpf_records::{
    counters::Counter,
    limits::{ALLOCATIONS_MAX, TENANTS_MAX},
    maps,
    slots::Slot,
};

pub(crate) use crate::objects::{
    absent_is_fine, durations, load_object, naming, program, remove_row, set_row, status, with_advice,
    write_epoch,
};
use crate::{
    attest::code_files,
    cells::Cells,
    cgroup::Cgroup,
    enforce::Cidr,
    error::{Error, chain},
    figures::{Durations, Exit, Latency, SocketCounts},
    ioctl::{IoctlAudit, IoctlReport},
    ledger::{Ledger, ProcessMemory, Witnessed},
    library::{self, Attached, LibraryFile, LibraryId},
    limits::{CELLS_DEFAULT, EXITS_PER_DRAIN_MAX, LIBRARIES_MAX, STRANGERS_MAX, TENANTS_DEFAULT},
    network::{Peers, Rtt},
    object::{COMMITTED, Objects},
    rows,
    site::{launch, ledger_call, sync_call},
    status::{Mode, Part, PartStatus, Probe, ProbeStatus, State},
    wait::Wait,
};

/// The tracepoint of a thread's end.
const EXIT_TRACEPOINT: &str = "sched_process_exit";

/// How uprobes are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachPreference {
    /// One link per library and set of calls where the kernel has sessions, else two, else perf events.
    #[default]
    Best,
    /// Entries and returns by links of their own even where the kernel has sessions, else perf events.
    Apart,
    /// Perf events only: for kernels whose links misbehave, and to compare the two.
    PerfOnly,
}

/// What to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tenants to make room for; at most [`TENANTS_MAX`], more is cut to that.
    pub tenants: u32,
    /// How uprobes are attached.
    pub attach: AttachPreference,
    /// Allocations that the second ledger follows at once; at most [`ALLOCATIONS_MAX`], more is cut to that. Its table's skeleton
    /// takes 16 bytes for each, the entries some 80 as they come.
    pub allocations: u32,
    /// Pairs of a tenant and a GPU whose durations are told apart. A process beyond them counts for its tenant on no GPU.
    pub cells: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tenants: TENANTS_DEFAULT,
            attach: AttachPreference::Best,
            allocations: ALLOCATIONS_MAX,
            cells: CELLS_DEFAULT,
        }
    }
}

/// Every probe that this kernel and this process' privileges allow. Dropping it detaches them all.
#[derive(Debug)]
pub struct Probes {
    tenants: u32,
    wait: Result<Wait, String>,
    rtt: Result<Rtt, String>,
    exit: Result<ExitProbe, String>,
    ledger: Result<Ledger, String>,
    /// The ioctl audit under way, and why the last one could not be started.
    ioctls: Option<IoctlAudit>,
    ioctls_refused: Option<String>,
    ioctl_object: &'static [u8],
    /// Whose durations on which GPU are in which row.
    cells: Cells,
    /// Cgroups named so far, for what is loaded later.
    named: BTreeMap<u64, Slot>,
    /// Files seen as code that are no drivers.
    strangers: BTreeSet<LibraryId>,
    /// A file that looks like a driver and stands in front of one: the hook's library.
    hook: Option<LibraryId>,
}

struct ExitProbe {
    ring: RingBuf<MapData>,
    ebpf: Ebpf,
}

impl std::fmt::Debug for ExitProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExitProbe").field("ebpf", &self.ebpf).finish_non_exhaustive()
    }
}

impl Probes {
    /// Loads what can be loaded. Never fails: [`Probes::status`] says what is missing and why.
    #[must_use]
    pub fn load(config: Config) -> Self {
        Self::load_objects(config, COMMITTED)
    }

    pub(crate) fn load_objects(config: Config, objects: Objects) -> Self {
        let tenants = config.tenants.min(TENANTS_MAX);
        let cells = Cells::new(tenants + 1, config.cells.min(TENANTS_MAX));
        let probes = Self {
            tenants,
            wait: Wait::load(objects.wait, cells.rows(), config.attach).map_err(with_advice),
            rtt: Rtt::load(objects.rtt).map_err(with_advice),
            exit: ExitProbe::load(objects.exit).map_err(with_advice),
            ledger: Ledger::load(
                objects.ledger,
                tenants,
                cells.rows(),
                config.allocations.clamp(1, ALLOCATIONS_MAX),
                config.attach,
            )
            .map_err(with_advice),
            ioctls: None,
            ioctls_refused: None,
            ioctl_object: objects.ioctl,
            cells,
            named: BTreeMap::new(),
            strangers: BTreeSet::new(),
            hook: None,
        };
        for status in probes.status() {
            tracing::info!(probe = status.probe.name(), state = ?status.state, reason = status.reason, "kernel probe");
        }
        for status in probes.parts() {
            tracing::info!(part = status.part.name(), state = ?status.state, reason = status.reason, "kernel witness");
        }
        probes
    }

    /// Every probe's state.
    #[must_use]
    pub fn status(&self) -> Vec<ProbeStatus> {
        vec![
            status(Probe::GpuWait, &self.wait, Wait::status),
            status(Probe::NetworkRtt, &self.rtt, Rtt::status),
            status(Probe::ProcessExit, &self.exit, |_| ProbeStatus {
                probe: Probe::ProcessExit,
                state: State::Up,
                mode: Some(Mode::RawTracepoint),
                reason: String::new(),
            }),
        ]
    }

    /// The state of the parts that witness: second ledger, bypass witness, audits.
    #[must_use]
    pub fn parts(&self) -> Vec<PartStatus> {
        [Part::MemoryLedger, Part::BypassWitness, Part::LaunchAudit]
            .into_iter()
            .map(|part| match &self.ledger {
                Ok(ledger) => ledger.status(part),
                Err(reason) => PartStatus { part, state: State::Missing, mode: None, reason: reason.clone() },
            })
            .chain([self.ioctl_status()])
            .collect()
    }

    fn ioctl_status(&self) -> PartStatus {
        let (state, mode, reason) = match (&self.ioctls, &self.ioctls_refused) {
            (Some(_), _) => (State::Up, Some(Mode::RawTracepoint), ""),
            (None, Some(refusal)) => (State::Missing, None, refusal.as_str()),
            (None, None) => (State::Idle, None, "on demand, and not under way"),
        };
        PartStatus { part: Part::IoctlAudit, state, mode, reason: reason.to_owned() }
    }

    /// How many tenants have rows.
    #[must_use]
    pub const fn tenants(&self) -> u32 {
        self.tenants
    }

    /// Counts the processes in a cgroup and below it, and the sockets they make from now on, for a slot.
    ///
    /// The innermost named cgroup decides, so a tenant's cgroup may lie inside another's. Naming the same cgroup again
    /// moves it to the new slot, live. Probes that are missing are passed over.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Kernel`] if a loaded probe could not take the cgroup (the
    /// table is full, the cgroup is gone). The other probes have taken it nevertheless.
    pub fn set_cgroup(&mut self, cgroup: &Cgroup, slot: Slot) -> Result<(), Error> {
        self.check_row(slot)?;
        let mut outcome = Ok(());
        if let Ok(wait) = &mut self.wait {
            outcome = outcome.and(wait.set(cgroup.id(), slot));
        }
        if let Ok(exit) = &mut self.exit {
            outcome =
                outcome.and(set_row(&mut exit.ebpf, cgroup.id(), slot).map_err(naming(Probe::ProcessExit)));
        }
        if let Ok(rtt) = &mut self.rtt {
            outcome = outcome.and(rtt.set(cgroup, slot));
        }
        if let Ok(ledger) = &mut self.ledger {
            outcome = outcome.and(ledger.set(cgroup.id(), slot));
        }
        if let Some(ioctls) = &mut self.ioctls {
            outcome = outcome.and(ioctls.set(cgroup.id(), slot));
        }
        self.named.insert(cgroup.id(), slot);
        outcome
    }

    /// Stops counting for a cgroup, by its number (it may be gone already). Its processes and those below it fall to the
    /// next named cgroup above, or to [`Slot::UNKNOWN`]. A cgroup that was never named is no error.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses.
    pub fn remove_cgroup(&mut self, cgroup_id: u64) -> Result<(), Error> {
        let mut outcome = Ok(());
        if let Ok(wait) = &mut self.wait {
            outcome = outcome.and(wait.remove(cgroup_id));
        }
        if let Ok(exit) = &mut self.exit {
            outcome = outcome.and(remove_row(&mut exit.ebpf, cgroup_id).map_err(naming(Probe::ProcessExit)));
        }
        if let Ok(rtt) = &mut self.rtt {
            rtt.remove(cgroup_id);
        }
        if let Ok(ledger) = &mut self.ledger {
            outcome = outcome.and(ledger.remove(cgroup_id));
        }
        if let Some(ioctls) = &mut self.ioctls {
            outcome = outcome.and(ioctls.remove(cgroup_id));
        }
        self.named.remove(&cgroup_id);
        outcome
    }

    /// Sets everything counted for a slot to zero, for its next owner. Call it after the slot's last cgroup is removed; what
    /// programs running at that instant still add is lost or kept, as it falls.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Kernel`] if the kernel refuses.
    pub fn clear(&mut self, slot: Slot) -> Result<(), Error> {
        self.check_row(slot)?;
        let refused =
            |probe, error: MapError| Error::kernel(probe, "clearing a tenant's figures", chain(&error));
        let rows: Vec<u32> = self.cells.rows_of(slot).map(|(_, row)| row).collect();
        for row in rows {
            if let Ok(wait) = &mut self.wait {
                wait.clear(row).map_err(|error| refused(Probe::GpuWait, error))?;
            }
            if let Ok(ledger) = &mut self.ledger {
                ledger.clear_durations(row)?;
            }
        }
        self.cells.release(slot);
        if let Ok(rtt) = &mut self.rtt {
            rtt.clear(slot.row()).map_err(|error| refused(Probe::NetworkRtt, error))?;
        }
        if let Ok(ledger) = &mut self.ledger {
            ledger.clear(slot.row())?;
        }
        Ok(())
    }

    /// Probes a driver library, for every process that has mapped it or will: its synchronous calls, and for the second ledger
    /// those that hand out memory or take it back.
    ///
    /// The file is what counts, not its name: a second call for the same file changes nothing and says so. The path may
    /// lead through `/proc/PID/root` into a container. The answer is about the synchronous calls; how the ledger fares is in
    /// [`Probes::parts`].
    ///
    /// # Errors
    /// [`Error::NotLoaded`], [`Error::Library`], [`Error::NotDriver`], [`Error::TooManyLibraries`], or
    /// [`Error::Kernel`] if the kernel refuses every way of attaching.
    pub fn attach_library(&mut self, path: &Path) -> Result<Attached, Error> {
        let attached = self.attach_library_inner(path);
        if let Ok(wait) = &mut self.wait {
            wait.trouble = attached.as_ref().err().map(ToString::to_string);
        }
        if let Ok(report) = &attached
            && !report.already
        {
            tracing::info!(
                path = %path.display(),
                mode = report.mode.name(),
                sites = report.sites,
                single_stepped = report.single_stepped,
                "driver library probed"
            );
        }
        attached
    }

    fn attach_library_inner(&mut self, path: &Path) -> Result<Attached, Error> {
        if self.wait.is_err() && self.ledger.is_err() {
            return Err(Error::NotLoaded(Probe::GpuWait));
        }
        let file = LibraryFile::open(path)?;
        if let Ok(wait) = &self.wait {
            if let Some(report) = wait.known(file.id()) {
                return Ok(report);
            }
            if wait.libraries().count() >= LIBRARIES_MAX {
                return Err(Error::TooManyLibraries { path: path.to_owned(), limit: LIBRARIES_MAX });
            }
        }
        let [waits, calls, launches] = file.sites(path, [sync_call, ledger_call, launch])?;
        if waits.is_empty() {
            let reason = "it exports none of the driver's synchronous calls".to_owned();
            return Err(Error::NotDriver { path: path.to_owned(), reason });
        }
        let file = Arc::new(file);
        let attached = match &mut self.wait {
            Ok(wait) => wait.attach(Arc::clone(&file), &waits, launches.clone()),
            Err(_) => Err(Error::NotLoaded(Probe::GpuWait)),
        };
        if let Ok(ledger) = &mut self.ledger {
            ledger.attach(file, &calls, launches);
        }
        attached
    }

    /// Probes every driver that a process has mapped, under whatever name and even if its name is gone; answers how many are new.
    /// Files that turned out to be no drivers are remembered, so that asking again costs a look at the process' memory map.
    ///
    /// # Errors
    /// If the process is gone or may not be looked at. A driver that cannot be attached is in the status.
    pub fn attach_process(&mut self, process: u32) -> io::Result<usize> {
        let mut fresh = 0;
        for (file, path) in code_files(process)? {
            fresh += usize::from(self.attach_file(file, &path));
        }
        Ok(fresh)
    }

    /// Probes a file of code if it is a driver, as [`Probes::attach_process`] does for all of a process'. Answers whether it is
    /// one that was not probed yet.
    ///
    /// # Errors
    /// If the path leads nowhere any more.
    pub fn attach_code(&mut self, path: &Path) -> io::Result<bool> {
        Ok(self.attach_file(LibraryId::of(path)?, path))
    }

    /// Tells which file is the hook's library: it exports the driver's calls and is none.
    pub const fn set_hook(&mut self, hook: Option<LibraryId>) {
        self.hook = hook;
    }

    fn attach_file(&mut self, file: LibraryId, path: &Path) -> bool {
        if self.hook == Some(file)
            || self.strangers.contains(&file)
            || self.wait.as_ref().is_ok_and(|wait| wait.known(file).is_some())
        {
            return false;
        }
        match self.attach_library_inner(path) {
            Ok(report) => return !report.already,
            Err(Error::NotDriver { .. }) => {
                // Inodes come again in time; forgetting all of them now and then costs a few looks.
                if self.strangers.len() >= STRANGERS_MAX {
                    self.strangers.clear();
                }
                self.strangers.insert(file);
            }
            Err(error) => {
                if let Ok(wait) = &mut self.wait {
                    wait.trouble = Some(error.to_string());
                }
            }
        }
        false
    }

    /// Takes the probes out of a library. Answers whether it was attached.
    pub fn detach_library(&mut self, library: LibraryId) -> bool {
        let waits = self.wait.as_mut().map_or_else(|_| Vec::new(), |wait| wait.release(library));
        let was_attached = !waits.is_empty();
        let ledgers = self.ledger.as_mut().map_or_else(|_| Vec::new(), |ledger| ledger.release(library));
        library::detach(waits.into_iter().chain(ledgers));
        was_attached
    }

    /// The libraries attached.
    pub fn libraries(&self) -> impl Iterator<Item = LibraryId> {
        self.wait.iter().flat_map(Wait::libraries)
    }

    /// GPU waits of a slot; `None` if the probe is missing.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Kernel`] if the kernel refuses.
    pub fn gpu_waits(&self, slot: Slot) -> Result<Option<Durations>, Error> {
        let mut all: Option<Durations> = None;
        for latency in self.latencies(slot)? {
            if let Some(wait) = latency.wait {
                all.get_or_insert_default().merge(&wait);
            }
        }
        Ok(all)
    }

    /// Where a slot's time goes, apart for every GPU that one of its processes was said to use; first what is on none.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Kernel`] or [`Error::Part`] if the kernel refuses.
    pub fn latencies(&self, slot: Slot) -> Result<Vec<Latency>, Error> {
        self.check_row(slot)?;
        self.cells.rows_of(slot).map(|(gpu, row)| self.latency(gpu, row)).collect()
    }

    fn latency(&self, gpu: Option<u8>, row: u32) -> Result<Latency, Error> {
        let mut latency = Latency { gpu, ..Latency::default() };
        if let Ok(wait) = &self.wait {
            let read = |map| durations(&wait.ebpf, Probe::GpuWait, map, row);
            latency.wait = Some(read(maps::WAITS)?);
            latency.launch = Some(read(maps::LAUNCH_TIMES)?);
            latency.span = Some(read(maps::SPANS)?);
        }
        if let Ok(ledger) = &self.ledger {
            latency.memory = Some(ledger.durations(row)?);
        }
        Ok(latency)
    }

    /// Says which processes use which GPUs, by the rows of the daemon's table, which are those that the hook tells with each
    /// synchronous call. A process that uses one has all its durations there; one that uses several those for which the hook told
    /// one. The answer is how many pairs of a process and a GPU could not be told apart because no cells are left.
    ///
    /// # Errors
    /// What the kernel refuses. The probes that took it have it.
    pub fn seat(&mut self, processes: &BTreeMap<u32, (Slot, Vec<u8>)>) -> Result<usize, Error> {
        let change = self.cells.seat(processes);
        if !change.is_empty() {
            if let Ok(wait) = &mut self.wait {
                wait.seat(&change)?;
            }
            if let Ok(ledger) = &mut self.ledger {
                ledger.seat(&change)?;
            }
        }
        Ok(change.crowded_out)
    }

    /// What every process that has allocated holds, by the second ledger; `None` if it is missing. A tenant's bytes are the sum
    /// over its slot's processes.
    ///
    /// # Errors
    /// [`Error::Part`] if the kernel refuses.
    pub fn memory(&self) -> Result<Option<Vec<ProcessMemory>>, Error> {
        self.ledger.as_ref().ok().map(Ledger::processes).transpose()
    }

    /// What the bypass witness saw of a slot; `None` if it is missing.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Part`] if the kernel refuses.
    pub fn witnessed(&self, slot: Slot) -> Result<Option<Witnessed>, Error> {
        self.check_row(slot)?;
        self.ledger.as_ref().ok().map(|ledger| ledger.witnessed(slot.row())).transpose()
    }

    /// Tells the witness where a process has its hook: calls out of this range are the hook's. The kernel forgets it when the
    /// process executes another program or ends. Usually the range that [`crate::Enforcement::attest_process`] or
    /// [`crate::attest::code_of`] answered.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or [`Error::Part`] if the table is full.
    pub fn attest(&mut self, process: u32, hook_code: &Range<u64>) -> Result<(), Error> {
        self.ledger.as_mut().map_err(|_| Error::PartMissing(Part::BypassWitness))?.attest(process, hook_code)
    }

    /// Takes that back. A process that was not attested is no error.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or what the kernel refuses.
    pub fn revoke(&mut self, process: u32) -> Result<(), Error> {
        self.ledger.as_mut().map_err(|_| Error::PartMissing(Part::BypassWitness))?.revoke(process)
    }

    /// Begins to watch launches of every attached library, and of those that come, until [`Probes::end_launch_audit`]: each
    /// costs its caller half a microsecond then, so do it for a sample of the time.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or [`Error::Part`] if the kernel refuses.
    pub fn audit_launches(&mut self) -> Result<(), Error> {
        self.ledger.as_mut().map_err(|_| Error::PartMissing(Part::LaunchAudit))?.audit_launches()?;
        if let Ok(wait) = &mut self.wait {
            wait.audit_launches()?;
        }
        Ok(())
    }

    /// Ends it.
    pub fn end_launch_audit(&mut self) {
        let waits = self.wait.as_mut().map_or_else(|_| Vec::new(), Wait::end_launch_audit);
        let ledgers = self.ledger.as_mut().map_or_else(|_| Vec::new(), Ledger::end_launch_audit);
        library::detach(waits.into_iter().chain(ledgers));
    }

    /// Whether the witness ends a slot's processes that allocate around the hook; launches too, while they are watched.
    ///
    /// # Errors
    /// [`Error::NoRow`], [`Error::PartMissing`], or what the kernel refuses.
    pub fn refuse_bypasses(&mut self, slot: Slot, refuse: bool) -> Result<(), Error> {
        self.check_row(slot)?;
        self.ledger
            .as_mut()
            .map_err(|_| Error::PartMissing(Part::BypassWitness))?
            .set_rule(slot.row(), refuse)
    }

    /// Tells the witness that a process was there before it: what it does around the hook is counted and never refused, until it
    /// executes another program or ends, or is attested.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or [`Error::Part`] if the table is full.
    pub fn excuse(&mut self, process: u32) -> Result<(), Error> {
        self.ledger.as_mut().map_err(|_| Error::PartMissing(Part::BypassWitness))?.excuse(process)
    }

    /// Begins to watch ioctls of the GPU driver, until [`Probes::end_ioctl_audit`]. Every system call of the node costs some tens
    /// of nanoseconds more while it is on. One that is under way goes on.
    ///
    /// # Errors
    /// [`Error::Part`] if the kernel refuses.
    pub fn audit_ioctls(&mut self) -> Result<(), Error> {
        if self.ioctls.is_none() {
            let audit = IoctlAudit::start(self.ioctl_object, self.tenants, &self.named).map_err(with_advice);
            self.ioctls_refused = audit.as_ref().err().cloned();
            self.ioctls = Some(audit.map_err(|reason| Error::part(Part::IoctlAudit, "starting it", reason))?);
        }
        Ok(())
    }

    /// What the ioctl audit under way has seen so far; `None` if there is none. Its durations and its numbers are read one after
    /// the other, while calls go on; [`Probes::end_ioctl_audit`] answers figures that agree.
    ///
    /// # Errors
    /// [`Error::Part`] if the kernel refuses.
    pub fn ioctls(&self) -> Result<Option<IoctlReport>, Error> {
        self.ioctls.as_ref().map(|audit| audit.report(self.tenants)).transpose()
    }

    /// Ends it; answers what it saw.
    ///
    /// # Errors
    /// [`Error::Part`] if the kernel refuses to tell; it is ended all the same.
    pub fn end_ioctl_audit(&mut self) -> Result<Option<IoctlReport>, Error> {
        self.ioctls.take().map(|audit| audit.end(self.tenants)).transpose()
    }

    /// Removes entries of ended processes from the second ledger's table, a bounded number at a time; answers how many. Call it
    /// now and then: their bytes are gone already, their room is not. Does nothing when nothing was left behind.
    ///
    /// # Errors
    /// [`Error::Part`] if the kernel refuses.
    pub fn sweep_ledger(&mut self) -> Result<usize, Error> {
        let Ok(ledger) = &mut self.ledger else { return Ok(0) };
        let orphans = rows::read::<u64>(&ledger.ebpf, maps::COUNTERS, Counter::LedgerOrphans.row())
            .map_err(|error| Error::part(Part::MemoryLedger, "reading counters", chain(&error)))?;
        let orphans = orphans.iter().fold(0, |sum: u64, cpu| sum.wrapping_add(*cpu));
        ledger.sweep(orphans)
    }

    /// TCP round trips of a slot; `None` if the probe is missing.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Kernel`] if the kernel refuses.
    pub fn round_trips(&self, slot: Slot) -> Result<Option<Durations>, Error> {
        Ok(self.peers_of(slot)?.map(|peers| {
            peers.values().fold(Durations::default(), |mut all, peer| {
                all.merge(&peer.round_trips);
                all
            })
        }))
    }

    /// TCP connections and retransmits of a slot; `None` if the probe is missing.
    ///
    /// # Errors
    /// [`Error::NoRow`] if there is no such row; [`Error::Kernel`] if the kernel refuses.
    pub fn sockets(&self, slot: Slot) -> Result<Option<SocketCounts>, Error> {
        Ok(self.peers_of(slot)?.map(|peers| {
            peers.values().fold(SocketCounts::default(), |total, peer| SocketCounts {
                established: total.established.wrapping_add(peer.sockets.established),
                retransmits: total.retransmits.wrapping_add(peer.sockets.retransmits),
            })
        }))
    }

    fn peers_of(&self, slot: Slot) -> Result<Option<Peers>, Error> {
        self.check_row(slot)?;
        Ok(self.peers()?.map(|mut all| all.remove(&slot).unwrap_or_default()))
    }

    /// TCP connections of every slot that has any, by the district of their other end; `None` if the probe is missing. This
    /// machine is `_local`, no known district `_unknown`.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses.
    pub fn peers(&self) -> Result<Option<BTreeMap<Slot, Peers>>, Error> {
        self.rtt.as_ref().ok().map(Rtt::peers).transpose()
    }

    /// Which addresses lie in which district, for connections from now on. Does nothing if the probe is missing.
    ///
    /// # Errors
    /// [`Error::RangeTwice`], [`Error::Full`], or [`Error::Kernel`] if the kernel refuses.
    pub fn set_districts(&mut self, districts: &[(String, Vec<Cidr>)]) -> Result<(), Error> {
        self.rtt.as_mut().map_or(Ok(()), |rtt| rtt.set_districts(districts))
    }

    /// Every counter of the loaded probes: losses, and what was seen and deliberately not kept.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the kernel refuses.
    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, Error> {
        let mut counters: BTreeMap<Counter, u64> =
            Counter::ALL.into_iter().map(|counter| (counter, 0)).collect();
        let loaded = [
            self.wait.as_ref().ok().map(|wait| (Probe::GpuWait, &wait.ebpf)),
            self.rtt.as_ref().ok().map(|rtt| (Probe::NetworkRtt, &rtt.ebpf)),
            self.exit.as_ref().ok().map(|exit| (Probe::ProcessExit, &exit.ebpf)),
        ];
        let parts = [
            self.ledger.as_ref().ok().map(|ledger| (Part::MemoryLedger, &ledger.ebpf)),
            self.ioctls.as_ref().map(|ioctls| (Part::IoctlAudit, &ioctls.ebpf)),
        ];
        for (probe, ebpf) in loaded.into_iter().flatten() {
            rows::add_counters(ebpf, &mut counters)
                .map_err(|error| Error::kernel(probe, "reading counters", chain(&error)))?;
        }
        for (part, ebpf) in parts.into_iter().flatten() {
            rows::add_counters(ebpf, &mut counters)
                .map_err(|error| Error::part(part, "reading counters", chain(&error)))?;
        }
        Ok(counters)
    }

    /// Readable when an exit waits to be drained; `None` if the probe is missing.
    #[must_use]
    pub fn exits_fd(&self) -> Option<BorrowedFd<'_>> {
        self.exit.as_ref().ok().map(|exit| exit.ring.as_fd())
    }

    /// Hands out the exits that have come in, oldest first, and answers how many. Never blocks. A full batch
    /// (`EXITS_PER_DRAIN_MAX`) means that there may be more.
    pub fn drain_exits(&mut self, mut each: impl FnMut(Exit)) -> usize {
        let Ok(exit) = &mut self.exit else { return 0 };
        let mut drained = 0;
        while drained < EXITS_PER_DRAIN_MAX {
            let Some(record) = exit.ring.next() else { break };
            drained += 1;
            match Exit::from_bytes(&record) {
                Some(exit) => each(exit),
                None => tracing::warn!(bytes = record.len(), "malformed exit record; is the object current?"),
            }
        }
        drained
    }

    /// Takes every probe off the node. Afterwards nothing is counted and figures read as missing.
    pub fn detach_all(&mut self) {
        let gone = || "detached".to_owned();
        let waits = self.wait.as_mut().map_or_else(|_| Vec::new(), Wait::release_all);
        let ledgers = self.ledger.as_mut().map_or_else(|_| Vec::new(), Ledger::release_all);
        library::detach(waits.into_iter().chain(ledgers));
        self.wait = Err(gone());
        self.rtt = Err(gone());
        self.exit = Err(gone());
        self.ledger = Err(gone());
        self.ioctls = None;
    }

    fn check_row(&self, slot: Slot) -> Result<(), Error> {
        match slot.tenant() {
            Some(tenant) if tenant >= self.tenants => Err(Error::NoRow { tenant, rows: self.tenants }),
            _ => Ok(()),
        }
    }
}

impl ExitProbe {
    fn load(object: &[u8]) -> Result<Self, String> {
        let mut ebpf = load_object(object, &[])?;
        let map = ebpf.take_map(maps::EXITS).ok_or_else(|| "the object holds no ring buffer".to_owned())?;
        let ring = RingBuf::try_from(map).map_err(|error| chain(&error))?;
        let program: &mut RawTracePoint = program(&mut ebpf, maps::PROCESS_EXIT)?;
        program.load().map_err(|error| chain(&error))?;
        program.attach(EXIT_TRACEPOINT).map_err(|error| chain(&error))?;
        Ok(Self { ring, ebpf })
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMITTED, Config, Objects, Part, Probes, State};

    #[test]
    fn a_daemon_may_hold_the_probes_on_any_thread() {
        const fn movable<T: Send + Sync>() {}
        movable::<Probes>();
    }

    #[test]
    fn one_refused_object_takes_no_other_probe_with_it() {
        let whole = Probes::load(Config::default());
        let refused = b"no object";
        let without = [
            Objects { wait: refused, ..COMMITTED },
            Objects { rtt: refused, ..COMMITTED },
            Objects { exit: refused, ..COMMITTED },
            Objects { ledger: refused, ..COMMITTED },
        ];
        for (number, objects) in without.into_iter().enumerate() {
            let probes = Probes::load_objects(Config::default(), objects);
            for (at, (status, before)) in probes.status().into_iter().zip(whole.status()).enumerate() {
                if at == number {
                    assert_eq!(status.state, State::Missing);
                    assert!(!status.reason.is_empty(), "{status}");
                } else {
                    assert_eq!(status, before, "whatever the others are here, they are still");
                }
            }
            // The ledger's object is three parts; ioctls are nobody's until an audit.
            for (status, before) in probes.parts().into_iter().zip(whole.parts()) {
                let is_ledgers = status.part != Part::IoctlAudit;
                if number == 3 && is_ledgers {
                    assert_eq!(status.state, State::Missing, "{status}");
                } else {
                    assert_eq!(status, before);
                }
            }
        }
    }

    #[test]
    fn a_refused_ioctl_audit_is_an_error_and_nothing_else() {
        let mut probes =
            Probes::load_objects(Config::default(), Objects { ioctl: b"no object", ..COMMITTED });
        let before = probes.status();
        assert!(probes.audit_ioctls().is_err());
        let parts = probes.parts();
        let audit = parts.iter().find(|status| status.part == Part::IoctlAudit).expect("listed");
        assert!(audit.state == State::Missing && !audit.reason.is_empty(), "{audit}");
        assert_eq!(probes.status(), before);
    }
}
