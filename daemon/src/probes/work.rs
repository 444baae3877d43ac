//! The thread itself: what it attaches, to what, and when it looks again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use headgate_ebpf::mappings::{self, Mapping};
use headgate_ebpf::{Cgroup, Cidr, LibraryId, Probes, Slot, attest};

use super::{Figures, ProbeState, REQUESTS_MAX, Request, Setup, TenantFigures, Whose};
use crate::clock;
use crate::config::model;
use crate::drivers::{self, Drivers};
use crate::enforcement::ioctls::IoctlAudits;
use crate::enforcement::ledgers::{Ledgers, Sitting};
use crate::enforcement::{Audits, PartState, Warden};
use crate::identity::process;
use crate::limits::{DISCOVERY_PERIOD, MAPPINGS_MAX, SAMPLE_PERIOD};
use crate::newcode::{KnownFiles, is_of, processes_below};

/// Processes looked at for driver libraries in each round of [`SAMPLE_PERIOD`].
const LOOKS_PER_ROUND_MAX: usize = 4;

/// Where a distribution puts the driver.
const USUAL_LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
];

pub(super) struct Thread {
    wanted: model::Probes,
    hook: Option<PathBuf>,
    drivers: Drivers,
    warden: Warden,
    audits: Audits,
    ioctls: IoctlAudits,
    ledgers: Ledgers,
    sittings: Vec<Sitting>,
    known_files: KnownFiles,
    districts: Vec<(String, Vec<Cidr>)>,
    /// Processes of tenants that were looked at once.
    looked_at: HashSet<u32>,
    /// Code to be looked at when there is nothing else to do: reading a large library takes a while, and who says hello
    /// must not wait for that.
    code: VecDeque<Mapping>,
    /// Loaded once any of them is wanted.
    probes: Option<Probes>,
    tenants: Vec<Whose>,
    /// Cgroups told to the kernel, by slot.
    named: HashMap<u32, Named>,
    exits: HashMap<u32, u64>,
    /// Processes whose libraries are still to be looked at.
    newcomers: VecDeque<u32>,
    /// Looks taken since the last round.
    looks: usize,
}

struct Named {
    serial: u64,
    cgroup_id: u64,
}

impl Thread {
    pub(super) fn new(setup: Setup, warden: Warden, known_files: KnownFiles) -> Self {
        let mut this = Self {
            wanted: setup.probes,
            hook: setup.hook,
            drivers: Drivers::default(),
            warden,
            audits: Audits::default(),
            ioctls: IoctlAudits::default(),
            ledgers: Ledgers::default(),
            sittings: Vec::new(),
            known_files,
            districts: Vec::new(),
            looked_at: HashSet::new(),
            code: VecDeque::new(),
            probes: None,
            tenants: Vec::new(),
            named: HashMap::new(),
            exits: HashMap::new(),
            newcomers: VecDeque::new(),
            looks: 0,
        };
        this.load_wanted();
        this
    }

    fn load_wanted(&mut self) {
        let model::Probes { gpu_wait, network_rtt, process_exit, .. } = self.wanted;
        if self.probes.is_none() && (gpu_wait || network_rtt || process_exit) {
            let mut probes = Probes::load(headgate_ebpf::Config::default());
            note(probes.set_districts(&self.districts));
            self.probes = Some(probes);
        }
        self.name_cgroups();
        self.attach_known_libraries();
    }

    pub(super) fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        let idle_rounds =
            u32::try_from(DISCOVERY_PERIOD.as_millis() / SAMPLE_PERIOD.as_millis()).unwrap_or(1);
        let mut round: u32 = 0;
        let mut due = clock::instant() + SAMPLE_PERIOD;
        loop {
            let left = due.saturating_duration_since(clock::instant());
            match inbox.recv_timeout(if self.code.is_empty() { left } else { Duration::ZERO }) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(request) => self.serve(request),
                Err(RecvTimeoutError::Timeout) if !self.code.is_empty() && !left.is_zero() => {
                    self.look_at_code();
                }
                Err(RecvTimeoutError::Timeout) => {
                    due = clock::instant() + SAMPLE_PERIOD;
                    round = round.wrapping_add(1);
                    self.drain();
                    self.look_at_newcomers();
                    self.look_at_ledgers();
                    self.look_at_openers();
                    self.warden.tick(clock::since_boot());
                    self.audits.tick(self.probes.as_mut(), clock::monotonic());
                    self.audits.warn(self.probes.as_ref(), &self.tenants);
                    self.ioctls.tick(self.probes.as_mut(), &self.tenants, clock::monotonic());
                    if round.is_multiple_of(idle_rounds) {
                        // Cgroups are made and drivers are installed while we run.
                        self.name_cgroups();
                        self.attach_known_libraries();
                        self.look_at_tenants();
                        self.warden.devices_may_have_changed();
                    }
                }
            }
        }
        if let Some(probes) = &mut self.probes {
            probes.detach_all();
        }
    }

    /// Looks at some of the processes that came. Reading the maps of a CUDA process takes a millisecond or two,
    /// and a burst of starting processes needs the processors for itself; nearly always they share one library.
    fn look_at_newcomers(&mut self) {
        for _ in 0..LOOKS_PER_ROUND_MAX {
            let Some(pid) = self.newcomers.pop_front() else { break };
            self.attach_libraries_of(pid);
        }
        self.looks = 0;
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Configure(wanted) => {
                self.wanted = wanted;
                self.load_wanted();
            }
            Request::Assign(tenants) => {
                self.tenants = tenants;
                self.name_cgroups();
            }
            Request::Process(pid) if self.looks < LOOKS_PER_ROUND_MAX => {
                self.looks += 1;
                self.ledgers.greet(pid);
                self.attach_libraries_of(pid);
            }
            Request::Process(pid) if self.newcomers.len() < REQUESTS_MAX => {
                self.ledgers.greet(pid);
                self.newcomers.push_back(pid);
            }
            Request::Process(pid) => tracing::debug!(pid, "too many new processes to look for their drivers"),
            Request::Enforce(plan) => self.warden.apply(plan, clock::since_boot()),
            Request::Seats(sittings) => {
                self.sittings = sittings;
                self.seat();
            }
            Request::Districts(districts) => {
                if let Some(probes) = &mut self.probes {
                    note(probes.set_districts(&districts));
                }
                self.districts = districts;
            }
            Request::Mapped(mappings) => self.queue_code(mappings),
            Request::Watch(witness) => {
                self.audits.configure(witness);
                self.set_rules();
            }
            Request::AuditIoctls(span, reply) => {
                self.ioctls.begin(self.probes.as_mut(), clock::monotonic(), span, reply);
            }
            Request::Attest(attest) => {
                self.attest(attest.pid, attest.hint);
                (attest.then)();
            }
            Request::LookAgain => {
                self.name_cgroups();
                self.warden.tick(clock::since_boot());
            }
            Request::Figures(reply) => {
                self.drain();
                // Whoever asked may have given up.
                let _unheard = reply.send(self.figures());
            }
            Request::Stop => {}
        }
    }

    /// Attests a process at the gate and for the witness, if the hook's own file is there as code, before and after: the
    /// process may have executed another program just before it was entered, too early for the kernel to revoke it.
    fn attest(&mut self, pid: u32, hint: u64) {
        let Some(hook) = self.hook.as_deref().and_then(|hook| LibraryId::of(hook).ok()) else { return };
        let look = || attest::code_near(pid, hint, hook).ok().flatten();
        let Some(code) = look() else {
            tracing::warn!(
                pid,
                "a process says hello, but the hook's library is not in its memory; not attested"
            );
            return;
        };
        let mut outcome = self.warden.attest(pid, &code);
        if let Some(probes) = &mut self.probes {
            outcome = outcome.and(match probes.attest(pid, &code) {
                Err(headgate_ebpf::Error::PartMissing(_)) => Ok(()),
                other => other,
            });
        }
        if let Err(error) = outcome {
            tracing::error!(pid, %error, "a process is not attested");
        }
        if look().as_ref() != Some(&code) {
            note(self.warden.revoke(pid));
            if let Some(probes) = &mut self.probes {
                note(probes.revoke(pid));
            }
        }
    }

    /// Tells the kernel about cgroups that are new, gone, or made again under the same name.
    fn name_cgroups(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        let gone: Vec<u32> = self
            .named
            .iter()
            .filter(|(slot, named)| {
                !self.tenants.iter().any(|t| t.slot == **slot && t.serial == named.serial)
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in gone {
            if let Some(named) = self.named.remove(&slot) {
                note(probes.remove_cgroup(named.cgroup_id));
            }
            self.exits.remove(&slot);
            if let Some(row) = Slot::of_tenant(slot) {
                note(probes.clear(row));
            }
        }
        for tenant in &self.tenants {
            let Some(directory) = &tenant.directory else { continue };
            // A cgroup that is not there yet is looked for again.
            let Ok(cgroup) = Cgroup::open(directory) else { continue };
            let known = self.named.get(&tenant.slot);
            if known.is_some_and(|named| named.cgroup_id == cgroup.id()) {
                continue;
            }
            if let Some(old) = known {
                note(probes.remove_cgroup(old.cgroup_id));
            }
            let Some(row) = Slot::of_tenant(tenant.slot) else { continue };
            note(probes.set_cgroup(&cgroup, row));
            // Who is there already may have been attested by a daemon that is no more.
            for pid in processes_below(directory) {
                note(probes.excuse(pid));
            }
            note(probes.refuse_bypasses(row, self.audits.refuses()));
            self.named.insert(tenant.slot, Named { serial: tenant.serial, cgroup_id: cgroup.id() });
        }
    }

    fn attach_known_libraries(&mut self) {
        let usual = USUAL_LIBRARIES.iter().map(PathBuf::from).filter(|path| path.exists());
        for path in self.wanted.libraries.clone().into_iter().chain(usual) {
            self.attach(&path);
        }
    }

    /// Probes the driver libraries that a process has mapped: those named so at once, what else it has mapped in time.
    fn attach_libraries_of(&mut self, pid: u32) {
        // The process may be gone again.
        let Ok(maps) = fs::read_to_string(process::proc_path(pid, "maps")) else { return };
        let mut paths: Vec<&str> = maps
            .lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]))
            .filter(|path| drivers::is_driver(Path::new(path)))
            .collect();
        paths.dedup();
        for path in paths {
            let path = process::proc_path(pid, "root").join(path.trim_start_matches('/'));
            self.drivers.note(&path);
            if path.file_name().is_some_and(is_cuda) {
                self.attach(&path);
            }
        }
        match mappings::of(pid) {
            Ok(mappings) => self.queue_code(mappings),
            Err(error) => tracing::debug!(pid, %error, "a process' libraries are not looked at"),
        }
    }

    /// Remembers code of tenants' processes to be looked at.
    fn queue_code(&mut self, mappings: Vec<Mapping>) {
        if !self.wanted.gpu_wait || self.probes.is_none() {
            return;
        }
        let mut whose: HashMap<u32, bool> = HashMap::new();
        for mapping in mappings {
            let tenants = &self.tenants;
            let is_tenants = whose.entry(mapping.process).or_insert_with(|| is_of(tenants, mapping.process));
            if !*is_tenants || self.known_files.contains(mapping.file) {
                continue;
            }
            if MAPPINGS_MAX <= self.code.len() {
                self.known_files.miss();
                break;
            }
            self.code.push_back(mapping);
        }
    }

    /// Looks at one file of code.
    fn look_at_code(&mut self) {
        let Some(mapping) = self.code.pop_front() else { return };
        if self.known_files.contains(mapping.file) {
            return;
        }
        // The hook's library may be replaced while we run, and must never be taken for a driver.
        let hook = self.hook.as_deref().and_then(|hook| LibraryId::of(hook).ok());
        let Some(probes) = &mut self.probes else { return };
        probes.set_hook(hook);
        // The process may be gone again; then the file is looked at when another one maps it.
        if probes.attach_code(&mapping.path()).is_ok() {
            self.known_files.insert(mapping.file);
        }
    }

    /// Looks at every process of a tenant once, in case nobody told of its code or it was moved there since.
    fn look_at_tenants(&mut self) {
        let directories = self.tenants.iter().filter_map(|tenant| tenant.directory.as_deref());
        let there: HashSet<u32> = directories.flat_map(processes_below).collect();
        if self.known_files.take_missed() {
            self.looked_at.clear();
        }
        let fresh: Vec<u32> = there.difference(&self.looked_at).copied().collect();
        self.looked_at = there;
        fresh.into_iter().for_each(|pid| self.attach_libraries_of(pid));
    }

    /// Says who sits on which GPU, and what the witness does about whom.
    fn seat(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        let mut seated = BTreeMap::new();
        for sitting in &self.sittings {
            let Some(slot) = Slot::of_tenant(sitting.slot) else { continue };
            for &(seat, pid) in &sitting.seats {
                let rows = sitting.rows_of(seat);
                if !rows.is_empty() {
                    seated.insert(pid, (slot, rows));
                }
            }
        }
        match probes.seat(&seated) {
            Ok(0) => {}
            Ok(crowded_out) => {
                tracing::debug!(crowded_out, "more tenants on more GPUs than the probes tell apart");
            }
            Err(error) => tracing::warn!(%error, "the probes do not follow who uses which GPU"),
        }
    }

    fn set_rules(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        for slot in self.named.keys().filter_map(|slot| Slot::of_tenant(*slot)) {
            note(probes.refuse_bypasses(slot, self.audits.refuses()));
        }
    }

    /// Looks at processes that tried to open a GPU without a hook.
    fn look_at_openers(&mut self) {
        let openers: HashSet<u32> = self.warden.opens().into_iter().map(|open| open.tgid).collect();
        for pid in openers {
            if self.newcomers.len() < REQUESTS_MAX {
                self.newcomers.push_back(pid);
            }
        }
    }

    fn look_at_ledgers(&mut self) {
        self.seat();
        let Some(probes) = &mut self.probes else { return };
        note(probes.sweep_ledger().map(|_swept| ()));
        match probes.memory() {
            Ok(Some(memory)) => {
                let tenants = self.tenants.iter().map(|tenant| (tenant.slot, tenant.serial));
                self.ledgers.look(&memory, tenants, &self.sittings);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the second ledger cannot be read"),
        }
    }

    fn attach(&mut self, path: &Path) {
        self.drivers.note(path);
        if self.wanted.gpu_wait
            && let Some(probes) = &mut self.probes
            && let Err(error) = probes.attach_library(path)
        {
            tracing::debug!(library = %path.display(), %error, "a driver library is not probed");
        }
    }

    fn drain(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        let exits = &mut self.exits;
        probes.drain_exits(|exit| {
            if let Some(slot) = exit.slot.tenant() {
                *exits.entry(slot).or_insert(0) += 1;
            }
        });
    }

    fn figures(&self) -> Figures {
        let wanted = |probe: headgate_ebpf::Probe| match probe {
            headgate_ebpf::Probe::GpuWait => self.wanted.gpu_wait,
            headgate_ebpf::Probe::NetworkRtt => self.wanted.network_rtt,
            headgate_ebpf::Probe::ProcessExit => self.wanted.process_exit,
        };
        let off = "switched off in spec.probes";
        let enforcement = self.warden.figures();
        let mut parts = enforcement.as_ref().map(|held| held.parts.clone()).unwrap_or_default();
        let Some(probes) = &self.probes else {
            let states = headgate_ebpf::Probe::ALL.map(|probe| ProbeState {
                name: probe.name().to_owned(),
                up: false,
                mode: String::new(),
                reason: off.to_owned(),
            });
            return Figures {
                states: states.into(),
                parts,
                enforcement,
                unhooked: self.drivers.unhooked(),
                ..Figures::default()
            };
        };
        parts.extend(probes.parts().into_iter().map(PartState::from));
        let states = probes.status().into_iter().map(|status| {
            let on = wanted(status.probe);
            ProbeState {
                name: status.probe.name().to_owned(),
                up: on && status.up(),
                mode: status.mode.map(|mode| mode.name().to_owned()).unwrap_or_default(),
                reason: if on { status.reason } else { off.to_owned() },
            }
        });
        let mut peers = probes.peers().ok().flatten().filter(|_| self.wanted.network_rtt).unwrap_or_default();
        let mut of_slot = |slot: Slot| TenantFigures {
            latencies: self
                .wanted
                .gpu_wait
                .then(|| probes.latencies(slot).ok())
                .flatten()
                .unwrap_or_default(),
            peers: peers.remove(&slot).unwrap_or_default(),
            witnessed: probes.witnessed(slot).ok().flatten(),
            ..TenantFigures::default()
        };
        let mut tenants = HashMap::new();
        for tenant in &self.tenants {
            let Some(slot) = Slot::of_tenant(tenant.slot) else { continue };
            let mut figures = of_slot(slot);
            figures.exits = self.exits.get(&tenant.slot).copied().unwrap_or(0);
            figures.ledgers = self.ledgers.of(tenant.serial);
            tenants.insert(tenant.serial, figures);
        }
        let unknown = Some(of_slot(Slot::UNKNOWN));
        Figures {
            states: states.collect(),
            tenants,
            unknown,
            counters: probes.counters().unwrap_or_default(),
            parts,
            enforcement,
            unhooked: self.drivers.unhooked(),
        }
    }
}

/// What is called as NVIDIA's driver library is.
fn is_cuda(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("libcuda.so"))
}

fn note(outcome: Result<(), headgate_ebpf::Error>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a kernel probe does not follow a tenant");
    }
}
