//! Carrying out what the node decided.
//!
//! The one place that touches shared memory, sockets, cgroups and files on the node's behalf. It decides
//! nothing: what cannot be done goes back to the node as an event.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headgate_abi::segment::SeatIndex;
use headgate_abi::wire::{Answer, RefusalReason, Welcome};
use headgate_ebpf::Cidr;
use headgate_quota::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::config::model::{CgroupPath, Identity};
use crate::control::session::{Opened, Reply};
use crate::devices::DriverLimit;
use crate::devices::xids::XidCounts;
use crate::enforcement::ledgers::Sitting;
use crate::enforcement::plan::{self, Plan};
use crate::gate::{GateRoom, GateTable, GateTenant, Gates};
use crate::identity::cgroup::Cgroups;
use crate::identity::{peer, process};
use crate::limits::AUDIT_GRACE;
use crate::loans::Floor;
use crate::node::{
    ConnectionId, Effect, Event, Process, RequestId, SeatRef, State, TenantLimits, TenantSlot,
};
use crate::probes::{Whose, Witness};
use crate::run::{Input, Inputs};
use crate::segments::TenantSegments;
use crate::segments::record::{IncidentRecord, LedgerRecord, RecordError, RootRecord, StateDir};
use crate::space::Wanted;
use crate::telemetry::LogLimit;
use crate::{clock, sys};

/// Answer to a request to be placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The tenant.
    pub tenant: String,
    /// The cgroup the process is in now; `None` when it is known by its process tree.
    pub cgroup: Option<String>,
    /// Why it is known by process tree, where a cgroup was wanted.
    pub note: Option<String>,
}

/// Everything the node acts on.
#[derive(Debug)]
pub struct Hands {
    /// Tenants' shared memory.
    pub segments: HashMap<TenantSlot, Arc<TenantSegments>>,
    /// The gate threads.
    pub gates: Gates,
    /// The cgroup2 hierarchy.
    pub cgroups: Cgroups,
    /// The kernel probes.
    pub witness: Witness,
    /// Logs that tenants can trigger.
    pub logs: Arc<LogLimit>,
    /// Where loans see the node.
    floor: Arc<Floor>,
    /// Memory limits that the driver holds itself.
    pub driver_limits: Vec<DriverLimit>,
    /// Critical errors of the devices that the driver told of.
    pub xids: XidCounts,
    /// Those it should.
    wanted_limits: watch::Sender<Vec<DriverLimit>>,
    /// What is to be shared by space.
    wanted_space: watch::Sender<Wanted>,
    state_dir: StateDir,
    epoch: u64,
    inputs: Inputs,
    connections: HashMap<ConnectionId, Opened>,
    watches: HashMap<SeatRef, Watched>,
    requests: HashMap<RequestId, oneshot::Sender<Result<Placed, String>>>,
    adopted: HashMap<String, OwnedFd>,
    /// Nothing is recorded before the ledgers of an earlier run are taken over: a daemon killed in between must
    /// leave the record of them as it found it.
    adopting: bool,
    /// Tenants whose totals could not be set right at once.
    recounts: HashSet<TenantSlot>,
    next_request: u64,
    /// What the kernel was last asked to hold.
    plan: Option<Option<Result<Plan, String>>>,
    /// Which districts the probes were told of.
    districts: Vec<(String, Vec<Cidr>)>,
}

#[derive(Debug)]
struct Watched {
    task: AbortHandle,
    since: Instant,
}

/// What [`Hands`] are made of.
#[derive(Debug)]
pub struct Tools {
    /// The gate threads.
    pub gates: Gates,
    /// The cgroup2 hierarchy.
    pub cgroups: Cgroups,
    /// The kernel probes.
    pub witness: Witness,
    /// Logs that tenants can trigger.
    pub logs: Arc<LogLimit>,
    /// Where loans see the node.
    pub floor: Arc<Floor>,
    /// What outlives a restart.
    pub state_dir: StateDir,
    /// Which run this is.
    pub epoch: u64,
    /// Where events go.
    pub inputs: Inputs,
}

impl Hands {
    /// Hands that hold nothing yet.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        let Tools { gates, cgroups, witness, logs, floor, state_dir, epoch, inputs } = tools;
        Self {
            segments: HashMap::new(),
            gates,
            cgroups,
            witness,
            logs,
            floor,
            driver_limits: Vec::new(),
            xids: XidCounts::new(),
            wanted_limits: watch::Sender::default(),
            wanted_space: watch::Sender::default(),
            state_dir,
            epoch,
            inputs,
            connections: HashMap::new(),
            watches: HashMap::new(),
            requests: HashMap::new(),
            adopted: HashMap::new(),
            adopting: true,
            recounts: HashSet::new(),
            next_request: 0,
            plan: None,
            districts: Vec::new(),
        }
    }

    /// Remembers a connection that an event is about to name.
    pub fn open(&mut self, opened: Opened) {
        self.connections.insert(opened.connection, opened);
    }

    /// Remembers who asked to be placed.
    pub fn ask(&mut self, reply: oneshot::Sender<Result<Placed, String>>) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, reply);
        request
    }

    /// Remembers a ledger that an event is about to name.
    pub fn found(&mut self, tenant: String, ledger: OwnedFd) {
        self.adopted.insert(tenant, ledger);
    }

    /// Every ledger of an earlier run has been taken over or dropped; from now on changes are recorded.
    pub fn adoption_done(&mut self, state: &State) -> Result<(), RecordError> {
        self.adopting = false;
        self.want_space(state);
        self.remember(state)
    }

    /// A connection's task has ended.
    pub fn closed(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// Carries effects out in order. What failed comes back as events.
    pub fn carry_out(&mut self, state: &State, effects: Vec<Effect>) -> Vec<Event> {
        let mut failed = Vec::new();
        let (mut regate, mut attribute, mut remember, mut published) = (false, false, false, false);
        for effect in effects {
            match effect {
                Effect::Publish(limits) => {
                    published = true;
                    if let Some(segments) = self.segments.get(&limits.slot) {
                        segments.publish(&limits);
                    }
                }
                Effect::Welcome { connection, seat, process, welcome, hook_text, limits } => {
                    let greeting = Greeting { connection, seat, process, welcome, hook_text };
                    failed.extend(self.welcome(state, greeting, &limits));
                }
                Effect::Refuse { connection, reason, text } => self.refuse(connection, reason, text),
                Effect::Close { connection } => self.say(connection, Reply::Close),
                Effect::Adopt { tenant, slot, limits } => self.adopt(&tenant, slot, &limits),
                Effect::Forget { slot, seat } => self.reap(slot, seat),
                Effect::Watch { seat, process } => match peer::open(process) {
                    Ok(held) => self.watch(seat, held.pidfd),
                    Err(_) => failed.push(Event::Exited { seat }),
                },
                Effect::WatchRoot { root } => self.watch_root(root),
                Effect::Inspect { seat, process } => self.inspect(seat, process),
                Effect::Reap { seat } => {
                    if let Some(watch) = self.watches.remove(&seat) {
                        watch.task.abort();
                    }
                    self.reap(seat.slot, seat.seat);
                }
                Effect::Retire { slot } => {
                    self.segments.remove(&slot);
                    self.recounts.remove(&slot);
                    (regate, attribute) = (true, true);
                }
                Effect::Evict { slot, cgroup, processes } => self.evict(slot, cgroup.as_ref(), &processes),
                Effect::Regate => regate = true,
                Effect::Attribute => attribute = true,
                Effect::Remember => remember = true,
                Effect::Place { request, caller, tenant, cgroup, identity } => {
                    self.place(request, caller, tenant, cgroup, identity);
                }
                Effect::Placed { request, outcome, note } => {
                    self.placed(request, outcome.map(|tenant| Placed { tenant, cgroup: None, note }));
                }
            }
        }
        if regate {
            self.regate(state);
            self.want_space(state);
        }
        if attribute {
            self.attribute(state);
        }
        if attribute || published {
            self.want_limits(state);
        }
        if remember && let Err(error) = self.remember(state) {
            tracing::error!(%error, "a restart would not find the tenants' ledgers again");
        }
        failed
    }

    fn welcome(&mut self, state: &State, greeting: Greeting, limits: &TenantLimits) -> Option<Event> {
        let Greeting { connection, seat, process, welcome, hook_text } = greeting;
        let segments = match self.tenant_segments(state, limits) {
            Ok(segments) => segments,
            Err(text) => return Some(Event::SeatFailed { seat, connection, text }),
        };
        if welcome.fresh {
            segments.ledger.take_this_seat(seat.seat, process.pid, seat.generation);
            // Nobody renewed it while the tenant had no process.
            segments.beat(clock::monotonic());
            let pidfd =
                self.connections.get(&connection).map(|opened| opened.pidfd.as_fd().try_clone_to_owned());
            match pidfd {
                Some(Ok(pidfd)) => self.watch(seat, pidfd),
                Some(Err(error)) => {
                    self.reap(seat.slot, seat.seat);
                    let text = format!("daemon: no descriptor to watch the process by: {error}");
                    return Some(Event::SeatFailed { seat, connection, text });
                }
                // Events of a connection come only after the connection itself.
                None => return Some(Event::Exited { seat }),
            }
            self.witness.process(process.pid);
        }
        tracing::debug!(
            tenant = welcome.tenant_name,
            pid = process.pid,
            seat = seat.seat.get(),
            fresh = welcome.fresh,
            "seated"
        );
        // Attested before it is told: the first thing that it may do then is to open the device.
        if let Some(replies) = self.connections.get(&connection).map(|opened| opened.replies.clone()) {
            let reply = Reply::Answer(Answer::Welcome(welcome), Some(segments));
            self.witness.attest(process.pid, hook_text, move || send(&replies, connection, reply));
        }
        None
    }

    /// The tenant's segments, made and recorded if this is its first process: a ledger that is not recorded
    /// before it is handed out could not be adopted by the next run.
    fn tenant_segments(
        &mut self,
        state: &State,
        limits: &TenantLimits,
    ) -> Result<Arc<TenantSegments>, String> {
        if let Some(segments) = self.segments.get(&limits.slot) {
            return Ok(Arc::clone(segments));
        }
        let segments = TenantSegments::create(self.epoch, clock::monotonic(), limits)
            .map(Arc::new)
            .map_err(|error| format!("daemon: no segments for the tenant: {error}"))?;
        self.segments.insert(limits.slot, Arc::clone(&segments));
        if let Err(error) = self.remember(state) {
            self.segments.remove(&limits.slot);
            return Err(format!("daemon: {error}"));
        }
        Ok(segments)
    }

    fn refuse(&mut self, connection: ConnectionId, reason: RefusalReason, text: String) {
        if let Some(held_back) = self.logs.allows("refused") {
            tracing::warn!(%reason, text, held_back, "a process was refused a seat");
        }
        self.say(connection, Reply::Answer(Answer::Refused { reason, text }, None));
    }

    fn say(&self, connection: ConnectionId, reply: Reply) {
        if let Some(opened) = self.connections.get(&connection) {
            send(&opened.replies, connection, reply);
        }
    }

    fn adopt(&mut self, tenant: &str, slot: TenantSlot, limits: &TenantLimits) {
        let Some(ledger) = self.adopted.remove(tenant) else { return };
        match TenantSegments::adopt(ledger, self.epoch, clock::monotonic(), limits) {
            Ok(segments) => {
                tracing::info!(tenant, "took over a ledger of an earlier run");
                self.segments.insert(slot, Arc::new(segments));
            }
            Err(error) => tracing::error!(tenant, %error, "a ledger of an earlier run cannot be taken over"),
        }
    }

    fn reap(&mut self, slot: TenantSlot, seat: SeatIndex) {
        if let Some(segments) = self.segments.get(&slot)
            && !segments.reap(seat)
        {
            self.recounts.insert(slot);
        }
    }

    /// Tries again to set totals right that a busy moment kept from it.
    pub fn recount(&mut self) {
        let segments = &self.segments;
        self.recounts.retain(|slot| segments.get(slot).is_some_and(|segments| !segments.ledger.recount()));
    }

    fn watch(&mut self, seat: SeatRef, pidfd: OwnedFd) {
        let task = tokio::spawn(ended(pidfd, self.inputs.clone(), Event::Exited { seat }));
        self.watches.insert(seat, Watched { task: task.abort_handle(), since: clock::instant() });
    }

    fn watch_root(&mut self, root: Process) {
        let event = Event::RootExited { root };
        match peer::open(root) {
            Ok(held) => {
                tokio::spawn(ended(held.pidfd, self.inputs.clone(), event));
            }
            Err(_) => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move { inputs.send(Input::Node(event)).await });
            }
        }
    }

    /// Whether a process has had its seat for long enough to have the ledger mapped.
    #[must_use]
    pub fn is_settled(&self, seat: SeatRef) -> bool {
        let now = clock::instant();
        self.watches
            .get(&seat)
            .is_some_and(|watched| AUDIT_GRACE <= now.saturating_duration_since(watched.since))
    }

    /// Finds out, away from the node, whether a process still has its ledger.
    pub fn inspect(&self, seat: SeatRef, process: Process) {
        let Some(ledger) = self.segments.get(&seat.slot).map(|segments| segments.ledger_id()) else { return };
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || {
            // A process that cannot be read has ended or is out of our reach; its pidfd tells about the first.
            let mapped = process::maps(process.pid, ledger);
            let same = process::process(process.pid).is_ok_and(|now| now == process);
            if same && matches!(mapped, Ok(false)) {
                // The node may be gone already; then there is nobody to tell.
                let _gone = inputs.blocking_send(Input::Node(Event::Unmapped { seat }));
            }
        });
    }

    fn regate(&mut self, state: &State) {
        let rows = &state.rows;
        let tenants = state.tenants().filter_map(|(slot, tenant)| {
            let segments = Arc::clone(self.segments.get(&slot)?);
            let seats = tenant.seats.keys().filter_map(|&index| SeatIndex::new(u32::try_from(index).ok()?));
            let quota = std::array::from_fn(|row| {
                let row = rows[row].as_ref()?;
                tenant.policy.enforcement.then(|| state.compute_on(&tenant.policy, row.uuid)).flatten()
            });
            let rooms = std::array::from_fn(|row| {
                let grant = state.space.grant(rows[row].as_ref()?.uuid, tenant.policy.name.as_str())?;
                Some(GateRoom { room: grant.room, per_process: grant.per_process, groups: grant.groups })
            });
            Some(GateTenant { serial: tenant.serial, segments, seats: seats.collect(), quota, rooms })
        });
        let table = GateTable { tenants: tenants.collect() };
        self.floor.show(state, &self.segments);
        self.witness.seats(self.sittings(state));
        let present: Vec<usize> =
            (0..rows.len()).filter(|&row| rows[row].as_ref().is_some_and(|row| row.present)).collect();
        if let Err(error) = self.gates.serve(&present) {
            tracing::error!(%error, "no thread for a device's gates; they stay open");
        }
        self.gates.retable(table);
    }

    /// What is to be shared by space, and whenever that changes.
    #[must_use]
    pub fn wanted_space(&self) -> watch::Receiver<Wanted> {
        self.wanted_space.subscribe()
    }

    fn want_space(&self, state: &State) {
        // Whose programs are at work is only known once their ledgers have been found again.
        if self.adopting {
            return;
        }
        let wanted = Wanted::of(state);
        self.wanted_space.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }

    /// What the driver should hold itself, and whenever that changes.
    #[must_use]
    pub fn wanted_limits(&self) -> watch::Receiver<Vec<DriverLimit>> {
        self.wanted_limits.subscribe()
    }

    /// Every tenant's memory quota on every device, where the tenant is a cgroup. A quota of the whole device or more is
    /// none, and the driver would refuse it.
    fn want_limits(&self, state: &State) {
        let mut wanted = Vec::new();
        for (slot, tenant) in state.tenants().filter(|(_, tenant)| !tenant.retired) {
            let Some(cgroup) = tenant.policy.cgroup.as_ref().and_then(|path| self.cgroups.directory(path))
            else {
                continue;
            };
            let limits = TenantLimits::of(state, slot, tenant);
            for (row, limit) in state.rows.iter().zip(limits.rows) {
                let (Some(row), Some(limit)) = (row, limit) else { continue };
                if row.present && limit.memory_bytes_max < row.memory.0 {
                    let bytes = Bytes(limit.memory_bytes_max);
                    wanted.push(DriverLimit { gpu: row.uuid, cgroup: cgroup.clone(), bytes });
                }
            }
        }
        self.wanted_limits.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }

    fn attribute(&mut self, state: &State) {
        let tenants = state.tenants().map(|(slot, tenant)| Whose {
            slot: slot.to_u32(),
            serial: tenant.serial,
            name: tenant.policy.name.as_str().to_owned(),
            directory: tenant.policy.cgroup.as_ref().and_then(|cgroup| self.cgroups.directory(cgroup)),
        });
        self.witness.assign(tenants.collect());
        if let Some(configured) = &state.configured {
            self.witness.configure(configured.config.probes.clone());
        }
        let plan = Plan::of(state, &self.cgroups);
        if self.plan.as_ref() != Some(&plan) {
            self.witness.enforce(plan.clone());
            self.plan = Some(plan);
        }
        self.witness.watch(plan::witness(state));
        let districts = plan::districts(state);
        if self.districts != districts {
            self.witness.districts(districts.clone());
            self.districts = districts;
        }
    }

    fn sittings(&self, state: &State) -> Vec<Sitting> {
        let tenants = state.tenants().filter_map(|(slot, tenant)| {
            let seats = tenant.seats.iter().filter_map(|(&index, sitter)| {
                Some((SeatIndex::new(u32::try_from(index).ok()?)?, sitter.process.pid))
            });
            Some(Sitting {
                slot: slot.to_u32(),
                serial: tenant.serial,
                segments: Arc::clone(self.segments.get(&slot)?),
                seats: seats.collect(),
            })
        });
        tenants.collect()
    }

    fn remember(&self, state: &State) -> Result<(), RecordError> {
        if self.adopting {
            return Ok(());
        }
        // Rows keep their index, so a gap in the middle could not be told apart from none; rows have no gaps.
        let devices = state.rows.iter().map_while(|row| Some(row.as_ref()?.uuid.to_string())).collect();
        let ledgers = state.tenants().filter_map(|(slot, tenant)| {
            let file = self.segments.get(&slot)?.ledger_id();
            Some(LedgerRecord { tenant: tenant.policy.name.as_str().to_owned(), file })
        });
        let roots =
            state.roots.iter().map(|(root, tenant)| RootRecord { root: *root, tenant: tenant.clone() });
        let now = clock::both();
        let incidents = state.incidents.told(now.boot);
        let incidents = incidents.map(|(incident, ended)| IncidentRecord::of(&incident, ended, now));
        self.state_dir.write(devices, ledgers.collect(), roots.collect(), incidents.collect())
    }

    fn place(
        &mut self,
        request: RequestId,
        caller: Process,
        tenant: String,
        cgroup: CgroupPath,
        identity: Identity,
    ) {
        let (cgroups, inputs) = (self.cgroups.clone(), self.inputs.clone());
        // Moving a process waits for a grace period of the kernel.
        tokio::task::spawn_blocking(move || {
            let input = match move_into(&cgroups, &cgroup, caller) {
                Ok(()) => {
                    let placed = Placed { tenant, cgroup: Some(cgroup.as_str().to_owned()), note: None };
                    Input::Placed(request, Ok(placed))
                }
                Err(error) => {
                    let why = format!("cannot move process {} into cgroup {cgroup}: {error}", caller.pid);
                    if identity == Identity::Auto {
                        Input::Node(Event::PlaceUnable { request, caller, tenant, why })
                    } else {
                        let advice = "run the daemon as root, or set spec.identity: auto";
                        Input::Placed(request, Err(format!("{why}; {advice}")))
                    }
                }
            };
            // The node may be gone already; then there is nobody to tell.
            let _gone = inputs.blocking_send(input);
        });
    }

    /// Stops a guest's processes, all of them at once where they have a cgroup.
    fn evict(&self, slot: TenantSlot, cgroup: Option<&CgroupPath>, processes: &[Process]) {
        let directory = cgroup.and_then(|cgroup| self.cgroups.directory(cgroup));
        let all = directory.map(|directory| std::fs::write(directory.join("cgroup.kill"), "1"));
        tracing::warn!(
            ?slot,
            processes = processes.len(),
            "a guest keeps memory past its loans and is stopped"
        );
        if matches!(all, Some(Ok(()))) {
            return;
        }
        for held in processes.iter().filter_map(|process| peer::open(*process).ok()) {
            if let Err(error) = sys::pidfd_kill(held.pidfd.as_fd()) {
                tracing::warn!(%error, "a guest's process cannot be stopped");
            }
        }
    }

    /// Answers a request to be placed.
    pub fn placed(&mut self, request: RequestId, outcome: Result<Placed, String>) {
        if outcome.as_ref().is_ok_and(|placed| placed.cgroup.is_some()) {
            // The cgroup may just have been made.
            self.witness.look_again();
        }
        if let Some(reply) = self.requests.remove(&request) {
            // Whoever asked may have given up.
            let _unheard = reply.send(outcome);
        }
    }

    /// Ends everything: nobody waits at a gate any more, segments stay with those who have them mapped.
    pub fn let_go(self) {
        for watch in self.watches.values() {
            watch.task.abort();
        }
        self.gates.stop();
        self.witness.stop();
    }
}

/// A process to be welcomed.
struct Greeting {
    connection: ConnectionId,
    seat: SeatRef,
    process: Process,
    welcome: Welcome,
    hook_text: u64,
}

/// A connection that is gone, or so slow that two replies wait, will be closed by its own task.
fn send(replies: &mpsc::Sender<Reply>, connection: ConnectionId, reply: Reply) {
    if let Err(mpsc::error::TrySendError::Full(_)) = replies.try_send(reply) {
        tracing::debug!(?connection, "a peer does not read its answers");
    }
}

fn move_into(cgroups: &Cgroups, cgroup: &CgroupPath, caller: Process) -> io::Result<()> {
    if let Some(obstacle) = cgroups.obstacle() {
        return Err(io::Error::other(obstacle));
    }
    let held = peer::open(caller).map_err(io::Error::other)?;
    cgroups.place(cgroup, caller.pid)?;
    match process::cgroup(caller.pid)? {
        Some(now) if cgroup.holds(&now) => Ok(()),
        _ if peer::ended(held.pidfd.as_fd()) => Err(io::Error::other("it ended meanwhile")),
        now => Err(io::Error::other(format!("it is in {} nevertheless", now.unwrap_or_default()))),
    }
}

/// Waits for a process to end, then says so.
async fn ended(pidfd: OwnedFd, inputs: Inputs, event: Event) {
    if let Err(error) = wait_for_end(&pidfd).await {
        tracing::warn!(%error, "the kernel does not tell when a process ends; looking every {POLL:?} instead");
        while !peer::ended(pidfd.as_fd()) {
            tokio::time::sleep(POLL).await;
        }
    }
    // The node may be gone already; then there is nobody to tell.
    let _gone = inputs.send(Input::Node(event)).await;
}

/// Well under the second within which a dead process's seat is to be free.
const POLL: Duration = Duration::from_millis(100);

async fn wait_for_end(pidfd: &OwnedFd) -> io::Result<()> {
    let watched = sys::readable(pidfd.as_fd())?;
    let _ready = watched.readable().await?;
    Ok(())
}
