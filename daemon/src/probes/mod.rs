//! The kernel probes, on a thread of their own: attaching can take the kernel's grace periods, and nothing else
//! of the daemon should wait for those.
//!
//! The daemon says whose cgroup is whose and which processes came; the thread attaches what it can, keeps trying
//! for what is not there yet, and hands out figures. All of it is optional: a node without probes is a node.

mod work;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use headgate_ebpf::mappings::{Mapping, Mappings};
use headgate_ebpf::{Cidr, Counter, Latency, PeerCounts, Witnessed};
use headgate_quota::Micros;
use tokio::sync::oneshot;

use crate::config::enforcement;
use crate::config::model;
use crate::drivers::Unhooked;
use crate::enforcement::ioctls;
use crate::enforcement::ledgers::{Sitting, TenantLedgers};
use crate::enforcement::{PartState, Plan, Standing, Warden};
use crate::limits::MAPPINGS_MAX;
use crate::newcode::{self, KnownFiles};

use work::Thread;

/// Requests waiting for the thread. A burst of starting processes is the most there is.
const REQUESTS_MAX: usize = 4096;

/// How long the daemon waits for the probes to come off.
pub const DETACH_WAIT: Duration = Duration::from_secs(2);

/// The hook's word for a device and the probes' are one.
const _: () = assert!(headgate_abi::told::DEVICE_MARK == headgate_ebpf::DEVICE_MARK);

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
    /// What nobody's processes did; `None` while no probe is loaded.
    pub unknown: Option<TenantFigures>,
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
    /// Where its time goes, by device row; empty while the probes are missing.
    pub latencies: Vec<Latency>,
    /// Its connections, by the district of their other end; empty while the probe is missing.
    pub peers: BTreeMap<String, PeerCounts>,
    /// Its memory by two ledgers; `None` while the second one is missing.
    pub ledgers: Option<TenantLedgers>,
    /// Processes that exited.
    pub exits: u64,
    /// What the bypass witness saw; `None` while it is missing.
    pub witnessed: Option<Witnessed>,
}

enum Request {
    Configure(model::Probes),
    Assign(Vec<Whose>),
    Process(u32),
    /// Who sits where.
    Seats(Vec<Sitting>),
    /// Which addresses lie in which district.
    Districts(Vec<(String, Vec<Cidr>)>),
    /// Code has been mapped.
    Mapped(Vec<Mapping>),
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
        let known_files = KnownFiles::default();
        watch_mappings(&requests, &known_files);
        let handle = thread::Builder::new()
            .name("headgate-probes".to_owned())
            .spawn(move || Thread::new(setup, warden, known_files).run(&inbox))?;
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

    /// Who sits where now.
    pub fn seats(&self, seats: Vec<Sitting>) {
        self.ask(Request::Seats(seats));
    }

    /// Which addresses lie in which district now.
    pub fn districts(&self, districts: Vec<(String, Vec<Cidr>)>) {
        self.ask(Request::Districts(districts));
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

/// Has new code told to the thread. Without that, it is found by looking at tenants' processes every few seconds.
fn watch_mappings(requests: &mpsc::SyncSender<Request>, known: &KnownFiles) {
    let (requests, missed) = (requests.clone(), known.clone());
    let watched = Mappings::open().and_then(|mappings| {
        newcode::watch(mappings, known.clone(), move |mut fresh| {
            if fresh.is_empty() {
                return true;
            }
            if MAPPINGS_MAX < fresh.len() {
                fresh.truncate(MAPPINGS_MAX);
                missed.miss();
            }
            match requests.try_send(Request::Mapped(fresh)) {
                Ok(()) => true,
                Err(mpsc::TrySendError::Full(_)) => {
                    missed.miss();
                    true
                }
                Err(mpsc::TrySendError::Disconnected(_)) => false,
            }
        })
    });
    if let Err(error) = watched {
        tracing::info!(%error, "the kernel does not tell of new code; drivers are found every few seconds");
    }
}
