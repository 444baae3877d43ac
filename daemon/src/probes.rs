//! The kernel probes, on a thread of their own: attaching can take the kernel's grace periods, and nothing else
//! of the daemon should wait for those.
//!
//! The daemon says whose cgroup is whose and which processes came; the thread attaches what it can, keeps trying
//! for what is not there yet, and hands out figures. All of it is optional: a node without probes is a node.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use headgate_ebpf::{Cgroup, Counter, Durations, LibraryId, Probes, Slot, SocketCounts, Witnessed, attest};
use headgate_quota::Micros;
use tokio::sync::oneshot;

use crate::clock;
use crate::config::enforcement;
use crate::config::model;
use crate::drivers::{self, Drivers, Unhooked};
use crate::enforcement::ioctls::{self, IoctlAudits};
use crate::enforcement::{Audits, PartState, Plan, Standing, Warden};
use crate::identity::process;
use crate::limits::{DISCOVERY_PERIOD, SAMPLE_PERIOD};

/// Requests waiting for the thread. A burst of starting processes is the most there is.
const REQUESTS_MAX: usize = 4096;

/// Processes looked at for driver libraries in each round of [`SAMPLE_PERIOD`].
const LOOKS_PER_ROUND_MAX: usize = 4;

/// Where a distribution puts the driver.
const USUAL_LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
];

/// A tenant as the probes know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whose {
    /// Index of the tenant's slot.
    pub slot: u32,
    /// Tells two tenants apart that held one slot after another.
    pub serial: u64,
    /// Its name, for answers that name tenants.
    pub name: String,
    /// Directory of its cgroup, if it has one.
    pub directory: Option<PathBuf>,
}

/// How one probe stands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ProbeState {
    /// Its name.
    pub name: String,
    /// Whether it is attached.
    pub up: bool,
    /// By what means; empty while it is not.
    pub mode: String,
    /// Why it is not, or what to know.
    pub reason: String,
}

/// What the probes saw.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How the probes stand.
    pub states: Vec<ProbeState>,
    /// Per tenant, by serial.
    pub tenants: HashMap<u64, TenantFigures>,
    /// Losses, and what was seen and not kept.
    pub counters: BTreeMap<Counter, u64>,
    /// How the parts that witness stand, and those that refuse.
    pub parts: Vec<PartState>,
    /// Entry points of the drivers that nothing stands in front of; `None` while no driver has been seen.
    pub unhooked: Option<Vec<Unhooked>>,
    /// What the kernel's refusals came to; `None` while nothing is held against anyone.
    pub enforcement: Option<crate::enforcement::Figures>,
}

/// What the probes saw of a tenant.
#[derive(Clone, Debug, Default)]
pub struct TenantFigures {
    /// Waits in the driver; `None` while the probe is missing.
    pub gpu_wait: Option<Durations>,
    /// Round trips; `None` while the probe is missing.
    pub rtt: Option<Durations>,
    /// Connections and retransmits; `None` while the probe is missing.
    pub sockets: Option<SocketCounts>,
    /// Processes that exited.
    pub exits: u64,
    /// What the bypass witness saw; `None` while it is missing.
    pub witnessed: Option<Witnessed>,
}

enum Request {
    Configure(model::Probes),
    Assign(Vec<Whose>),
    Process(u32),
    /// What the kernel is to hold.
    Enforce(Option<Result<Plan, String>>),
    /// What the witness is to do.
    Watch(enforcement::Witness),
    Attest(Attest),
    AuditIoctls(Micros, ioctls::Reply),
    LookAgain,
    Figures(oneshot::Sender<Figures>),
    Stop,
}

/// A process says that it has its hook near an address; whoever waits for the answer goes on afterwards, whatever it is.
struct Attest {
    pid: u32,
    hint: u64,
    then: Box<dyn FnOnce() + Send>,
}

/// What the thread needs to know from the start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which probes are wanted.
    pub probes: model::Probes,
    /// Where the book of budgets lies.
    pub state_dir: PathBuf,
    /// The hook's library; without one no process can be attested.
    pub hook: Option<PathBuf>,
}

/// The thread's other end.
#[derive(Clone, Debug)]
pub struct Witness {
    requests: mpsc::SyncSender<Request>,
    /// Why tenants that demand refusals do not get them.
    pub standing: Standing,
}

impl Witness {
    /// Starts the thread; loading the probes happens there.
    pub fn start(setup: Setup) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (requests, inbox) = mpsc::sync_channel(REQUESTS_MAX);
        let standing = Standing::default();
        let warden = Warden::new(&setup.state_dir, standing.clone());
        let handle = thread::Builder::new()
            .name("headgate-probes".to_owned())
            .spawn(move || Thread::new(setup, warden).run(&inbox))?;
        Ok((Self { requests, standing }, handle))
    }

    /// What the kernel is to hold from now on; `None` for nothing.
    pub fn enforce(&self, plan: Option<Result<Plan, String>>) {
        self.standing.ask();
        // A plan must arrive, whatever else waits: the thread takes requests even while the node waits here.
        if self.requests.send(Request::Enforce(plan)).is_err() {
            tracing::error!("the probes' thread has ended; the kernel keeps holding what it holds");
        }
    }

    /// What the witness is to do from now on.
    pub fn watch(&self, witness: enforcement::Witness) {
        self.ask(Request::Watch(witness));
    }

    /// Watches the GPU driver's ioctls for a while, then answers.
    pub fn audit_ioctls(&self, span: Duration, reply: ioctls::Reply) {
        self.ask(Request::AuditIoctls(Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)), reply));
    }

    /// Attests a process that has its hook near an address, then goes on. It goes on without, too: a process that could
    /// not be attested is seated, and the gate refuses it.
    pub fn attest(&self, pid: u32, hint: u64, then: impl FnOnce() + Send + 'static) {
        let request = Request::Attest(Attest { pid, hint, then: Box::new(then) });
        if let Err(mpsc::TrySendError::Full(refused) | mpsc::TrySendError::Disconnected(refused)) =
            self.requests.try_send(request)
            && let Request::Attest(attest) = refused
        {
            tracing::warn!(pid, "the probes' thread does not keep up; a process is not attested");
            (attest.then)();
        }
    }

    /// Which probes are wanted now.
    pub fn configure(&self, wanted: model::Probes) {
        self.ask(Request::Configure(wanted));
    }

    /// Whose cgroup is whose now.
    pub fn assign(&self, tenants: Vec<Whose>) {
        self.ask(Request::Assign(tenants));
    }

    /// A process got a seat: its driver library may be one not probed yet.
    pub fn process(&self, pid: u32) {
        self.ask(Request::Process(pid));
    }

    /// A cgroup may just have been made.
    pub fn look_again(&self) {
        self.ask(Request::LookAgain);
    }

    /// What the probes saw so far.
    pub async fn figures(&self) -> Figures {
        let (reply, figures) = oneshot::channel();
        self.ask(Request::Figures(reply));
        figures.await.unwrap_or_default()
    }

    /// Ends the thread and detaches everything.
    pub fn stop(&self) {
        self.ask(Request::Stop);
    }

    fn ask(&self, request: Request) {
        // A full queue means a thread that is stuck in the kernel; the node does not wait for it.
        if self.requests.try_send(request).is_err() {
            tracing::debug!("the probes' thread does not keep up; a request is dropped");
        }
    }
}

struct Thread {
    wanted: model::Probes,
    hook: Option<PathBuf>,
    drivers: Drivers,
    warden: Warden,
    audits: Audits,
    ioctls: IoctlAudits,
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
    fn new(setup: Setup, warden: Warden) -> Self {
        let mut this = Self {
            wanted: setup.probes,
            hook: setup.hook,
            drivers: Drivers::default(),
            warden,
            audits: Audits::default(),
            ioctls: IoctlAudits::default(),
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
            self.probes = Some(Probes::load(headgate_ebpf::Config::default()));
        }
        self.name_cgroups();
        self.attach_known_libraries();
    }

    fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        let idle_rounds =
            u32::try_from(DISCOVERY_PERIOD.as_millis() / SAMPLE_PERIOD.as_millis()).unwrap_or(1);
        let mut round: u32 = 0;
        let mut due = clock::instant() + SAMPLE_PERIOD;
        loop {
            match inbox.recv_timeout(due.saturating_duration_since(clock::instant())) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(request) => self.serve(request),
                Err(RecvTimeoutError::Timeout) => {
                    due = clock::instant() + SAMPLE_PERIOD;
                    round = round.wrapping_add(1);
                    self.drain();
                    self.look_at_newcomers();
                    self.warden.tick(clock::since_boot());
                    self.audits.tick(self.probes.as_mut(), clock::monotonic());
                    self.audits.warn(self.probes.as_ref(), &self.tenants);
                    self.ioctls.tick(self.probes.as_mut(), &self.tenants, clock::monotonic());
                    if round.is_multiple_of(idle_rounds) {
                        // Cgroups are made and drivers are installed while we run.
                        self.name_cgroups();
                        self.attach_known_libraries();
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
                self.attach_libraries_of(pid);
            }
            Request::Process(pid) if self.newcomers.len() < REQUESTS_MAX => self.newcomers.push_back(pid),
            Request::Process(pid) => tracing::debug!(pid, "too many new processes to look for their drivers"),
            Request::Enforce(plan) => self.warden.apply(plan, clock::since_boot()),
            Request::Watch(witness) => self.audits.configure(witness),
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
            self.named.insert(tenant.slot, Named { serial: tenant.serial, cgroup_id: cgroup.id() });
        }
    }

    fn attach_known_libraries(&mut self) {
        let usual = USUAL_LIBRARIES.iter().map(PathBuf::from).filter(|path| path.exists());
        for path in self.wanted.libraries.clone().into_iter().chain(usual) {
            self.attach(&path);
        }
    }

    /// Probes the driver libraries a process has mapped, whatever file system they come from.
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
            self.attach(&process::proc_path(pid, "root").join(path.trim_start_matches('/')));
        }
    }

    fn attach(&mut self, path: &Path) {
        self.drivers.note(path);
        if self.wanted.gpu_wait
            && path.file_name().is_some_and(is_driver)
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
        let tenants = self.tenants.iter().filter_map(|tenant| {
            let slot = Slot::of_tenant(tenant.slot)?;
            let figures = TenantFigures {
                gpu_wait: probes.gpu_waits(slot).ok().flatten().filter(|_| self.wanted.gpu_wait),
                rtt: probes.round_trips(slot).ok().flatten().filter(|_| self.wanted.network_rtt),
                sockets: probes.sockets(slot).ok().flatten().filter(|_| self.wanted.network_rtt),
                exits: self.exits.get(&tenant.slot).copied().unwrap_or(0),
                witnessed: probes.witnessed(slot).ok().flatten(),
            };
            Some((tenant.serial, figures))
        });
        Figures {
            states: states.collect(),
            tenants: tenants.collect(),
            counters: probes.counters().unwrap_or_default(),
            parts,
            enforcement,
            unhooked: self.drivers.unhooked(),
        }
    }
}

fn is_driver(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("libcuda.so"))
}

fn note(outcome: Result<(), headgate_ebpf::Error>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a kernel probe does not follow a tenant");
    }
}

/// How long the daemon waits for the probes to come off.
pub const DETACH_WAIT: Duration = Duration::from_secs(2);
