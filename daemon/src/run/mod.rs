//! The daemon: sources on one side, the node in the middle, its hands on the other, and the only loop that selects.
//!
//! ```text
//! control, admin, http, signals, config watch, discovery, pidfds --> Input --> step --> effects --> hands
//! ```

mod input;
mod discovery;
mod source;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::{self, EventsDocument, Place, SpacePlace, StartEvent};
use crate::clock;
use crate::config::model::DeviceUuid;
use crate::config::watch::Watch;
use crate::config::{self, Config, Loaded};
use crate::control::listener::{Doors, ListenError, Socket};
use crate::devices::Discover;
use crate::effects::{Hands, Tools};
use crate::gate::Gates;
use crate::identity::cgroup::Cgroups;
use crate::identity::process;
use crate::limits::{
    AUDIT_PERIOD, AUDIT_SEATS_MAX, DISCOVERY_WAIT, EVENTS_MAX, MPS_COMMAND_WAIT, SAMPLE_PERIOD, SHUTDOWN_WAIT,
};
use crate::loans::{Floor, Loans};
use crate::node::identify::identify;
use crate::node::{self, Event, State};
use crate::probes::{DETACH_WAIT, Figures, Setup, Witness};
use crate::remote::{self, Remote, RemoteError, RemotePlace};
use crate::segments::adopt;
use crate::segments::record::{RecordError, RootRecord, StateDir};
use crate::space;
use crate::telemetry::LogLimit;
use crate::view::{Samples, View};

pub use input::{Input, Inputs, Question, Trees};

use discovery::discovery;
use source::Source;

/// Why a daemon cannot run. The operator is at fault, or the kernel.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A socket cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Loans cannot be run as they are configured.
    #[error("loans: {0}")]
    Loans(#[from] headgate_loans::desk::DeskError),
    /// Remote sessions cannot be carried.
    #[error("remote sessions: {0}")]
    Remote(#[from] RemoteError),
    /// The HTTP address cannot be bound.
    #[error("http address {address}: {source}; change spec.http.listen, or free the port")]
    Http {
        /// The address.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Signals or threads cannot be had.
    #[error("kernel: {step} failed: {source}")]
    Kernel {
        /// Which step.
        step: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

struct Daemon {
    state: State,
    hands: Hands,
    samples: Samples,
    file: PathBuf,
    /// The configuration the daemon started with, for settings that cannot change while it runs.
    started_with: Arc<Config>,
    restart_needed: Vec<String>,
    /// What the file was when it was last looked at: its content's hash, or why it could not be read.
    last_seen: String,
    /// Where the next audit begins.
    audit_from: usize,
    tasks: tokio::task::JoinSet<()>,
    hook: Option<PathBuf>,
    trees: Trees,
    loans: Loans,
    remote: Option<Remote>,
    /// Keeps the control programs of MPS.
    keeper: tokio::task::JoinHandle<()>,
}

/// Runs until SIGTERM, SIGINT or `stop`.
pub async fn run(
    file: &Path,
    loaded: Loaded,
    discover: Box<dyn Discover>,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let kernel = |step| move |source| RunError::Kernel { step, source };
    let Loaded { config, hash } = loaded;
    let config = Arc::new(config);
    let state_dir = StateDir::open(&config.state_dir)?;
    let record = state_dir.read();
    let rows: Vec<DeviceUuid> = record.devices.iter().map_while(|text| DeviceUuid::parse(text)).collect();
    let epoch = u64::try_from(clock::wall().as_micros()).unwrap_or(u64::MAX);
    let (inputs, mut inbox) = mpsc::channel(EVENTS_MAX);
    let logs = Arc::new(LogLimit::default());
    let hook = config.hook_library.clone().or_else(crate::cli::hook_beside_binary);
    let setup =
        Setup { probes: config.probes.clone(), state_dir: config.state_dir.clone(), hook: hook.clone() };
    let (witness, probes) = Witness::start(setup).map_err(kernel("starting the probes"))?;
    let floor = Arc::new(Floor::new(inputs.clone()));
    let hands = Hands::new(Tools {
        floor: Arc::clone(&floor),
        gates: Gates::start().map_err(kernel("starting the gate threads"))?,
        cgroups: Cgroups::find(config.cgroup_root.as_deref()),
        witness: witness.clone(),
        logs: Arc::clone(&logs),
        state_dir,
        epoch,
        inputs: inputs.clone(),
    });
    let mut daemon = Daemon {
        state: State::new(epoch, &rows),
        keeper: tokio::spawn(space::keeper::keep(hands.wanted_space(), inputs.clone())),
        hands,
        samples: Samples::default(),
        file: file.to_owned(),
        started_with: Arc::clone(&config),
        restart_needed: Vec::new(),
        last_seen: hash.clone(),
        audit_from: 0,
        tasks: tokio::task::JoinSet::new(),
        hook,
        trees: Trees::default(),
        loans: Loans::default(),
        remote: None,
    };
    let mut signals = Signals::new().map_err(kernel("signal handling"))?;
    daemon.take(Event::Configured { config: Arc::clone(&config), hash, at: clock::wall() });
    let (first, discovered) = oneshot::channel();
    let limits = daemon.hands.wanted_limits();
    daemon.tasks.spawn(discovery(discover, first, inputs.clone(), limits));
    match timeout(DISCOVERY_WAIT, discovered).await {
        Ok(Ok(event)) => daemon.take(event),
        _ => daemon.take(Event::DevicesMissing {
            reason: "the NVIDIA driver does not answer; look at `nvidia-smi` and dmesg".to_owned(),
        }),
    }
    let now = clock::both();
    for (incident, ended) in record.incidents.iter().filter_map(|told| told.read(record.this_boot, now)) {
        daemon.take(Event::Incident { now: now.boot, incident, ended });
    }
    // Before anyone can say hello: a process that comes back must find its seat.
    for RootRecord { root, tenant } in record.roots {
        if process::process(root.pid).is_ok_and(|now| now == root) {
            daemon.take(Event::RootFound { root, tenant });
        }
    }
    for found in adopt::find(&record.ledgers) {
        daemon.hands.found(found.tenant.clone(), found.file);
        daemon.take(Event::LedgerFound { tenant: found.tenant, seats: found.seats });
    }
    daemon.hands.adoption_done(&daemon.state)?;
    daemon.reach_out(&config, floor, &inputs).await?;
    let end_http = daemon.listen(&config, &inputs, &logs, witness.clone()).await?;
    tracing::info!(
        node = %config.node, tenants = config.tenants.len(), control = %config.sockets.control.display(),
        "ready for hellos"
    );
    tokio::select! {
        () = daemon.select(&mut inbox, &mut signals) => {}
        () = stop => {}
    }
    drop(inbox);
    daemon.shut_down(&end_http, probes).await;
    Ok(())
}

impl Daemon {
    /// Opens what is between this node and others.
    async fn reach_out(
        &mut self,
        config: &Arc<Config>,
        floor: Arc<Floor>,
        inputs: &Inputs,
    ) -> Result<(), RunError> {
        self.loans = Loans::open(config, &floor).await?;
        self.loans.tell(&self.state);
        self.remote = Some(Remote::open(remote::Setup {
            config: Arc::clone(config),
            floor,
            desk: self.loans.handle(),
            inputs: inputs.clone(),
            trees: Arc::clone(&self.trees),
            hook: self.hook.clone(),
        })?);
        Ok(())
    }

    /// Opens the sockets. Dropping what comes back, or sending on it, ends the HTTP endpoint.
    async fn listen(
        &mut self,
        config: &Config,
        inputs: &Inputs,
        logs: &Arc<LogLimit>,
        witness: Witness,
    ) -> Result<watch::Sender<bool>, RunError> {
        // Any user's process may say hello: who it is, the kernel tells.
        let control = Arc::new(Socket::bind(&config.sockets.control, 0o666)?);
        let admin = Socket::bind(&config.sockets.admin, 0o600)?;
        let (stop, mut stopped) = watch::channel(false);
        if let Some(address) = config.http_listen {
            let failed = |source| RunError::Http { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let source = Source { inputs: inputs.clone(), witness };
            let stopped = async move {
                // An error means that the sender is gone, which is the same thing.
                let _stopped = stopped.wait_for(|stop| *stop).await;
            };
            self.tasks.spawn(async move {
                if let Err(error) = headgate_exporter::serve(listener, source, stopped).await {
                    tracing::error!(%error, "the HTTP endpoint ended");
                }
            });
        }
        let doors = Doors { inputs: inputs.clone(), trees: Arc::clone(&self.trees), logs: Arc::clone(logs) };
        self.tasks.spawn(crate::control::listen(control, doors));
        self.tasks.spawn(admin::listen(admin, inputs.clone()));
        Ok(stop)
    }

    async fn select(&mut self, inbox: &mut mpsc::Receiver<Input>, signals: &mut Signals) {
        let mut changes = Watch::new(&self.file);
        let mut sample = ticks(SAMPLE_PERIOD);
        let mut audit = ticks(AUDIT_PERIOD);
        loop {
            let next_end = self.state.incidents.next_end();
            let left = next_end.map_or(Duration::MAX, |end| until(end, clock::both().boot));
            tokio::select! {
                // Computed anew each time round, so that a machine that slept in between is not late for long.
                () = tokio::time::sleep(left), if next_end.is_some() => {
                    self.take(Event::Late(clock::both().boot));
                }
                input = inbox.recv() => match input {
                    Some(input) => self.input(input),
                    None => return,
                },
                _ = sample.tick() => {
                    self.samples.take(clock::monotonic(), &self.state, &self.hands);
                    self.hands.recount();
                }
                _ = audit.tick() => self.audit(),
                () = changes.changed() => self.reload(false),
                _ = signals.hup.recv() => self.reload(true),
                _ = signals.term.recv() => return,
                _ = signals.int.recv() => return,
            }
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Node(event) => {
                if let Event::Closed { connection } = event {
                    self.hands.closed(connection);
                }
                self.take(event);
            }
            Input::Opened(opened, event) => {
                self.hands.open(opened);
                self.take(event);
            }
            Input::Placed(request, outcome) => self.hands.placed(request, outcome),
            Input::Lent(event, done) => {
                self.take(event);
                // The desk may have been closed meanwhile.
                let _unheard = done.send(());
            }
            Input::DriverLimits(held) => self.hands.driver_limits = held,
            Input::Xids(counts) => self.hands.xids = counts,
            Input::Asked(question) => self.answer(question),
        }
    }

    /// Takes an event in, and whatever follows from it.
    fn take(&mut self, event: Event) {
        let changes = matches!(
            event,
            Event::Configured { .. } | Event::Devices(_) | Event::Incident { .. } | Event::Late(_)
        );
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            tracing::trace!(?event, "event");
            let effects = node::step(&mut self.state, event);
            self.trees.store(!self.state.roots.is_empty(), Release);
            events.extend(self.hands.carry_out(&self.state, effects));
        }
        if changes {
            self.loans.tell(&self.state);
        }
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may have given up; an answer nobody hears is no error.
        match question {
            Question::Status(reply) => {
                let file = self.file.display().to_string();
                let mut document = self.view(&file).status(Figures::default());
                document.sessions = self.remote.as_ref().map(Remote::sessions).unwrap_or_default();
                let witness = self.hands.witness.clone();
                self.tasks.spawn(async move {
                    let figures = witness.figures().await;
                    document.probes = figures.states;
                    document.parts = figures.parts;
                    document.unhooked_symbols = figures.unhooked;
                    let _unheard = reply.send(Box::new(document));
                });
            }
            Question::Snapshot(reply) => {
                let view = self.view("");
                let mut snapshot = view.snapshot();
                snapshot.remote = self.remote.as_ref().map(Remote::page);
                let _unheard = reply.send((snapshot, view.keys()));
            }
            Question::Desk(reply) => {
                let _unheard = reply.send(self.loans.handle());
            }
            Question::Who { peer, reply } => {
                let who = identify(&self.state, &peer).and_then(|(slot, _)| {
                    let tenant = self.state.tenant(slot).map(|tenant| Arc::clone(&tenant.policy));
                    tenant.ok_or_else(|| "its tenant has just been removed".to_owned())
                });
                let _unheard = reply.send(who);
            }
            Question::Unready(reply) => {
                let _unheard = reply.send(self.view("").unready());
            }
            Question::StartEvent { asked, reply } => {
                let _unheard = reply.send(self.start_event(&asked));
            }
            Question::EndEvent { name, reply } => {
                let _unheard = reply.send(self.end_event(&name));
            }
            Question::Events(reply) => {
                let _unheard = reply.send(EventsDocument::of(&self.state, clock::both().boot));
            }
            Question::AuditIoctls { span, reply } => self.hands.witness.audit_ioctls(span, reply),
            Question::Place { caller, tenant, gpu, reply } => {
                let space = self.space_of(&tenant, gpu.as_deref());
                let (placed, outcome) = oneshot::channel();
                let request = self.hands.ask(placed);
                let (socket, hook) = (self.started_with.sockets.control.clone(), self.hook.clone());
                let remote = self.remote_place(&tenant);
                self.tasks.spawn(async move {
                    let outcome =
                        outcome.await.unwrap_or_else(|_| Err("the daemon is shutting down".to_owned()));
                    let _unheard = reply.send(outcome.map(|placed| Place {
                        identity: if placed.cgroup.is_some() { "cgroup" } else { "process-tree" }.to_owned(),
                        tenant: placed.tenant,
                        cgroup: placed.cgroup,
                        note: placed.note,
                        socket,
                        hook,
                        remote,
                        space,
                    }));
                });
                self.take(Event::Place { request, caller, tenant });
            }
        }
        // Finished answers are forgotten here, so that they do not pile up.
        while self.tasks.try_join_next().is_some() {}
    }

    fn remote_place(&self, tenant: &str) -> Option<RemotePlace> {
        let mut live = self.state.tenants().filter(|(_, known)| !known.retired);
        let known = live.find(|(_, known)| known.policy.name.as_str() == tenant);
        self.remote.as_ref().map(|remote| remote.place(known.map(|(_, known)| known.policy.as_ref())))
    }

    fn space_of(&self, tenant: &str, gpu: Option<&str>) -> SpacePlace {
        let Ok(gpu) = gpu.map(|text| DeviceUuid::parse(text).ok_or(text)).transpose() else {
            return SpacePlace::Missing("--gpu wants a UUID as `headgate status` prints it".to_owned());
        };
        if let Some(gpu) = self.state.unlooked().next() {
            return SpacePlace::Missing(format!(
                "MPS of device {gpu} is only starting; try again in a moment"
            ));
        }
        match self.state.space.environment(tenant, gpu) {
            Ok(None) => SpacePlace::None,
            Ok(Some(variables)) => SpacePlace::Environment(variables.into_iter().collect()),
            Err(why) => SpacePlace::Missing(why),
        }
    }

    fn start_event(&mut self, asked: &StartEvent) -> Result<EventsDocument, String> {
        let now = clock::both();
        self.take(Event::Late(now.boot));
        let incident = self.state.incident_of(asked, now.wall.0)?;
        tracing::info!(event = %incident.name, class = incident.class.word(), "classes are raised");
        self.take(Event::Incident { now: now.boot, incident, ended: false });
        Ok(EventsDocument::of(&self.state, now.boot))
    }

    fn end_event(&mut self, name: &str) -> Result<EventsDocument, String> {
        let now = clock::both().boot;
        self.take(Event::Late(now));
        let incident = self.state.own_incident(name).ok_or_else(|| {
            format!(
                "no event `{name}` of this district is under way; `headgate event list` shows those that are"
            )
        })?;
        tracing::info!(event = %incident.name, "classes fall back");
        self.take(Event::Incident { now, incident, ended: true });
        Ok(EventsDocument::of(&self.state, now))
    }

    fn view<'a>(&'a self, file: &'a str) -> View<'a> {
        View {
            state: &self.state,
            hands: &self.hands,
            samples: &self.samples,
            now: clock::monotonic(),
            file,
            restart_needed: &self.restart_needed,
        }
    }

    /// Looks over some of the seats: a process that called `exec` may have left its connection to a child.
    fn audit(&mut self) {
        let seats: Vec<_> = self
            .state
            .seats()
            .filter(|(seat, _)| self.hands.is_settled(*seat))
            .map(|(seat, sitter)| (seat, sitter.process))
            .collect();
        if seats.is_empty() {
            return;
        }
        let count = seats.len().min(AUDIT_SEATS_MAX);
        let chosen = seats.iter().cycle().skip(self.audit_from % seats.len()).take(count);
        chosen.for_each(|(seat, process)| self.hands.inspect(*seat, *process));
        self.audit_from = (self.audit_from + count) % seats.len();
    }

    /// Reads the file again; a content that was seen before is not even parsed.
    fn reload(&mut self, asked: bool) {
        let read = config::read(&self.file);
        let seen = match &read {
            Ok(text) => config::content_hash(text),
            Err(error) => error.to_string(),
        };
        if self.last_seen == seen && !asked {
            return;
        }
        self.last_seen = seen;
        match read.and_then(|text| config::check(&self.file, &text)) {
            Ok(Loaded { config, hash }) => {
                self.restart_needed = fixed_settings(&self.started_with, &config);
                if !self.restart_needed.is_empty() {
                    let settings = self.restart_needed.join(", ");
                    tracing::warn!(settings, "these settings take effect at the next restart");
                }
                tracing::info!(hash, tenants = config.tenants.len(), "configuration reloaded");
                self.take(Event::Configured { config: Arc::new(config), hash, at: clock::wall() });
            }
            Err(error) => {
                let text = error.to_string();
                tracing::error!("the configuration cannot be used, the last good one stays:\n{text}");
                self.take(Event::ConfigRejected { text });
            }
        }
    }

    async fn shut_down(mut self, stop: &watch::Sender<bool>, probes: std::thread::JoinHandle<()>) {
        tracing::info!("shutting down: gates open, running programs keep their memory");
        stop.send_replace(true);
        // Sessions of other nodes end with the loans they stand on.
        self.remote = None;
        // Before gates open for good: what is lent is in the ledger, and a later start takes it up.
        if timeout(SHUTDOWN_WAIT, self.loans.close()).await.is_err() {
            tracing::warn!("the loans' store or audit log is slow; leaving it to that");
        }
        self.tasks.abort_all();
        self.hands.let_go();
        if timeout(MPS_COMMAND_WAIT, self.keeper).await.is_err() {
            tracing::warn!("MPS is slow to end; leaving it to the next daemon");
        }
        let joined = tokio::task::spawn_blocking(move || probes.join());
        match timeout(DETACH_WAIT, joined).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::error!("the probes' thread panicked; this is a bug of Headgate"),
            Err(_) => tracing::warn!("the kernel is slow to take the probes off; leaving it to that"),
        }
        // Tasks that were told to end drop their sockets' files as they do.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_WAIT, ended).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// Settings that differ and only take effect at a restart.
fn fixed_settings(before: &Config, now: &Config) -> Vec<String> {
    let differs = [
        ("spec.sockets", before.sockets != now.sockets),
        ("spec.http.listen", before.http_listen != now.http_listen),
        ("spec.stateDir", before.state_dir != now.state_dir),
        ("spec.cgroupRoot", before.cgroup_root != now.cgroup_root),
        ("spec.hookLibrary", before.hook_library != now.hook_library),
        ("spec.loans", before.loans != now.loans),
        ("spec.mps", before.mps != now.mps),
    ];
    differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect()
}

fn until(end: headgate_quota::Micros, now: headgate_quota::Micros) -> Duration {
    Duration::from_micros(end.saturating_sub(now).0)
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }
}
