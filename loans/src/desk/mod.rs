//! The desk: drives a node's lenders and its borrower in real time, and carries out what they decide.
//!
//! ```text
//!   node (looks, limits) <-- Ground --> Desk --- LoanStore: ledgers
//!                                        |  '--- Audit: every decision
//!                                        '------ Peers: messages, load summaries
//! ```
//!
//! One task owns all state machines, so nothing here is locked. What waits for the disk or the network runs beside
//! it and comes back as an input; what changes limits is waited for, because a promise must not be made before the
//! limits that keep it hold.

mod borrow;
mod directory;
mod lend;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use headgate_quota::Class;
use headgate_quota::loan::store::StoreReply;
use headgate_quota::loan::{
    Allowance, Allowances, Amount, Borrower, DataClass, Device, District, Guest, Incident, Incidents, Loan,
    LoanId, Node, Place, Record, Tenant, borrower, lender,
};
use headgate_quota::units::Micros;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::client::TlsStream;

use crate::audit::{Audit, AuditError};
use crate::demand::{Demands, DeviceLook};
use crate::limits::{
    AUDIT_SYNC_PERIOD, CLAIM_PAUSE, DECISIONS_MAX, INBOX_MAX, LOOK, LOOK_CLOSELY, SLEEP_MAX,
};
use crate::peer::{Heard, Peers, Session};
use crate::refused::Refusals;
use crate::settings::{Holdings, Settings, StoreChoice};
use crate::store::{Embedded, LoanStore, Nats, StoreError};
use crate::tls::{Purpose, Tls, TlsError};
use crate::wire::WireSummary;

pub use view::{
    BorrowedLine, CountsView, DecisionView, DeskView, IncidentView, LentLine, PeerView, PlaceView,
};

use directory::Directory;
use lend::Bench;

/// A guest on a device of this node: the seam for whoever runs its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestTerms {
    /// Who.
    pub guest: Guest,
    /// What it may use now; nothing once its loans are over.
    pub limit: Amount,
    /// Its class.
    pub class: Class,
    /// What it may send here.
    pub data: DataClass,
    /// The loans it rests on.
    pub loans: Vec<LoanId>,
    /// When the last of them ends by itself, on this node's `CLOCK_BOOTTIME`.
    pub until: Micros,
}

/// Every limit of a device, to be applied together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceLimits {
    /// Which.
    pub device: Device,
    /// Tenants that own a part of it.
    pub owners: Vec<(Tenant, Amount)>,
    /// Guests.
    pub guests: Vec<GuestTerms>,
}

/// The node, as the desk needs it.
pub trait Ground: Send + Sync + std::fmt::Debug {
    /// `CLOCK_BOOTTIME`.
    fn now(&self) -> Micros;

    /// Wall-clock time, for people.
    fn wall(&self) -> SystemTime;

    /// What is seen at the devices now.
    fn look(&self) -> Vec<DeviceLook>;

    /// Applies limits; done when they hold. `false` if the node is shutting down.
    fn apply(&self, limits: DeviceLimits) -> BoxFuture<'_, bool>;

    /// Stops a guest's programs.
    fn evict(&self, device: &Device, guest: &Guest);

    /// What may be placed on other nodes' devices now: the seam for whoever forwards calls there.
    fn allow(&self, allowances: Vec<Allowance>);

    /// A peer told of an incident, or that it was ended. The node keeps them, this district's too, and says what
    /// there is now by [`Input::Incidents`].
    fn heard(&self, incident: Incident, ended: bool);

    /// Tenants with programs that use, or wait for, a device of another node. They want all they may borrow.
    fn placed(&self) -> Vec<Tenant> {
        Vec::new()
    }

    /// Has whatever runs under a loan finish. Whether anything does; then [`Input::Drained`] says when it has ended.
    fn drain(&self, _loan: &LoanId) -> bool {
        false
    }
}

/// What comes to the desk.
#[derive(Debug)]
pub enum Input {
    /// Devices, owners or clients changed.
    Configure(Holdings),
    /// A peer spoke.
    Heard(Heard),
    /// The store answered a lender.
    Stored(Place, StoreReply, Duration),
    /// The store counted this start, and has these loans of this node.
    Claimed(u64, Vec<(Place, Loan)>),
    /// A peer answered a load summary; how long that took.
    Answered(crate::identity::Identity, Option<WireSummary>, Duration),
    /// These are the incidents there are now.
    Incidents(Incidents),
    /// Nothing runs under a loan any more that was to be drained.
    Drained(LoanId),
    /// Somebody wants to reach a node.
    Find(Node, oneshot::Sender<Option<(crate::identity::Identity, String)>>),
    /// Somebody asks how things stand.
    Show(oneshot::Sender<Box<DeskView>>),
}

/// Why a desk cannot be opened. The operator is to blame, or the disk.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The directory, or the address to listen at.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Times that do not fit together.
    #[error("spec.loans.terms: {0}")]
    Terms(#[from] headgate_quota::loan::terms::BadTerms),
}

/// A way to an open desk.
#[derive(Clone, Debug)]
pub struct DeskHandle {
    inputs: mpsc::Sender<Input>,
    refusals: Arc<Refusals>,
    peers: Option<Peers>,
}

impl DeskHandle {
    /// Opens a connection for a remote session to a node that is known. What it is for in the end is what its handshake
    /// agreed upon.
    ///
    /// # Errors
    /// When the node is unknown, cannot be reached in time, or another answers.
    pub async fn dial(&self, to: &Node, purpose: Purpose) -> std::io::Result<TlsStream<TcpStream>> {
        let (reply, answer) = oneshot::channel();
        let known = if self.give(Input::Find(to.clone(), reply)).await { answer.await.ok() } else { None };
        let unknown = || std::io::Error::other(format!("nobody knows where {to} is"));
        let (identity, address) = known.flatten().ok_or_else(unknown)?;
        let peers = self.peers.as_ref().ok_or_else(unknown)?;
        peers.dial(&identity, &address, purpose).await
    }

    /// Remote sessions that peers open, for the first who asks.
    #[must_use]
    pub fn sessions(&self) -> Option<mpsc::Receiver<Session>> {
        self.peers.as_ref()?.sessions()
    }

    /// Gives it something. `false` if the desk is closed.
    pub async fn give(&self, input: Input) -> bool {
        self.inputs.send(input).await.is_ok()
    }

    /// How things stand; `None` if the desk is closed.
    pub async fn show(&self) -> Option<Box<DeskView>> {
        let (reply, answer) = oneshot::channel();
        self.give(Input::Show(reply)).await.then_some(())?;
        answer.await.ok()
    }

    /// What was refused at the door.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

/// See the head of this module.
#[derive(Debug)]
pub struct Desk {
    settings: Settings,
    ground: Arc<dyn Ground>,
    store: Arc<dyn LoanStore>,
    peers: Option<Peers>,
    audit: Audit,
    refusals: Arc<Refusals>,
    inputs: mpsc::Sender<Input>,
    benches: BTreeMap<Place, Bench>,
    borrower: Option<Borrower>,
    allowances: Allowances,
    allowed: Vec<Allowance>,
    holdings: Holdings,
    demands: Demands,
    look: Vec<DeviceLook>,
    looked_at: Micros,
    wants: BTreeMap<Tenant, Amount>,
    directory: Directory,
    decisions: VecDeque<DecisionView>,
    latencies: VecDeque<Duration>,
    counts: CountsView,
    synced_at: Micros,
    summary_at: Micros,
    /// Set when the node is shutting down.
    closing: bool,
}

/// Counts this start in a file: greater than any before it even if the clock was set back, and than one whose file
/// was lost if it was not.
fn count_start(directory: &std::path::Path, wall: SystemTime) -> Result<u64, DeskError> {
    let path = directory.join("starts");
    let failed = |source| DeskError::Kernel { what: path.display().to_string(), source };
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = before.saturating_add(1).max(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    let beside = directory.join("starts.new");
    std::fs::write(&beside, format!("{start}\n")).map_err(failed)?;
    std::fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, &path).map_err(failed)?;
    Ok(start)
}

impl Desk {
    /// Opens store, audit log and listener. Nothing is lent before [`Desk::run`].
    pub async fn open(
        settings: Settings,
        ground: Arc<dyn Ground>,
    ) -> Result<(Self, DeskHandle, mpsc::Receiver<Input>, Option<tokio::net::TcpListener>), DeskError> {
        settings.lending.terms.check()?;
        let directory = settings.directory.clone();
        std::fs::create_dir_all(&directory)
            .map_err(|source| DeskError::Kernel { what: directory.display().to_string(), source })?;
        let store: Arc<dyn LoanStore> = match &settings.store {
            StoreChoice::Embedded => Arc::new(Embedded::open(&directory.join("loans.redb"))?),
            StoreChoice::Nats(options) => Arc::new(Nats::connect(options.clone()).await?),
        };
        let audit = Audit::open(&directory.join("audit.log"))?;
        let refusals = Arc::new(Refusals::default());
        let (inputs, inbox) = mpsc::channel(INBOX_MAX);
        let start = count_start(&directory, ground.wall())?;
        let mut listener = None;
        let mut peers = None;
        if let Some(options) = &settings.peers {
            let tls = Tls::load(&options.tls, &settings.own, Arc::clone(&refusals))?;
            let bound = tokio::net::TcpListener::bind(options.listen).await;
            let failed =
                |source| DeskError::Kernel { what: format!("listening at {}", options.listen), source };
            listener = Some(bound.map_err(failed)?);
            let (heard, mut hear) = mpsc::channel(INBOX_MAX);
            let to_desk = inputs.clone();
            tokio::spawn(async move {
                while let Some(heard) = hear.recv().await {
                    if to_desk.send(Input::Heard(heard)).await.is_err() {
                        return;
                    }
                }
            });
            peers = Some(Peers::new(tls, start, options.unsent_bytes_max, heard, Arc::clone(&refusals)));
        }
        let handle =
            DeskHandle { inputs: inputs.clone(), refusals: Arc::clone(&refusals), peers: peers.clone() };
        let now = ground.now();
        let desk = Self {
            directory: Directory::new(settings.own.clone()),
            settings,
            ground,
            store,
            peers,
            audit,
            refusals,
            inputs,
            benches: BTreeMap::new(),
            borrower: None,
            allowances: Allowances::new(),
            allowed: Vec::new(),
            holdings: Holdings::default(),
            demands: Demands::default(),
            look: Vec::new(),
            looked_at: Micros::ZERO,
            wants: BTreeMap::new(),
            decisions: VecDeque::new(),
            latencies: VecDeque::new(),
            counts: CountsView::default(),
            synced_at: now,
            summary_at: now,
            closing: false,
        };
        Ok((desk, handle, inbox, listener))
    }

    /// Runs until every handle is gone or the node shuts down.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Input>,
        listener: Option<tokio::net::TcpListener>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let (ended, listening) = oneshot::channel::<()>();
        let mut serving = None;
        if let (Some(peers), Some(listener)) = (self.peers.clone(), listener) {
            let ended = async move {
                // Either way the desk is gone.
                let _gone = listening.await;
            };
            serving = Some(tokio::spawn(async move { peers.serve(listener, ended).await }));
        }
        self.claim();
        tokio::pin!(stop);
        while !self.closing {
            let sleep = self.sleep();
            tokio::select! {
                biased;
                () = &mut stop => break,
                input = inbox.recv() => match input {
                    Some(input) => self.take(input).await,
                    None => break,
                },
                () = tokio::time::sleep(sleep) => {}
            }
            // What else has come is taken in one go, so that one write carries it.
            let mut taken = 0;
            while taken < INBOX_MAX && !self.closing {
                let Ok(input) = inbox.try_recv() else { break };
                self.take(input).await;
                taken += 1;
            }
            self.proceed().await;
        }
        drop(ended);
        if let Some(serving) = serving
            && serving.await.is_err()
        {
            tracing::error!("the peers' listener panicked; this is a bug of Headgate");
        }
        if let Some(sync) = self.audit.sync() {
            let synced = tokio::task::spawn_blocking(sync).await;
            if let Ok(Err(error)) = synced {
                tracing::error!(%error, "the audit log could not be written to the disk");
            }
        }
    }

    /// Counts this start with the store and looks for what this node had borrowed.
    fn claim(&self) {
        let (store, inputs, node) =
            (Arc::clone(&self.store), self.inputs.clone(), self.settings.own.node().clone());
        tokio::spawn(async move {
            loop {
                match claimed(store.as_ref(), &node).await {
                    Ok((start, found)) => {
                        // The desk may be closed already.
                        let _closed = inputs.send(Input::Claimed(start, found)).await;
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "nothing can be borrowed before the store answers"),
                }
                if inputs.is_closed() {
                    return;
                }
                tokio::time::sleep(CLAIM_PAUSE).await;
            }
        });
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Configure(holdings) => self.configure(holdings).await,
            Input::Heard(Heard::Said { from, said }) => self.said(&from, said).await,
            Input::Heard(Heard::Summary { from, summary, reply }) => {
                self.summarised(&from, summary, reply).await;
            }
            Input::Stored(place, reply, took) => {
                if self.latencies.len() == crate::limits::LATENCIES_MAX {
                    self.latencies.pop_front();
                }
                self.latencies.push_back(took);
                self.lend(&place, lender::Input::Store(reply)).await;
            }
            Input::Claimed(incarnation, found) => self.claimed(incarnation, found),
            Input::Answered(from, summary, took) => self.answered(&from, summary, took).await,
            Input::Incidents(incidents) => self.incidents(incidents).await,
            Input::Drained(loan) => self.borrow(borrower::Input::Drained(loan)),
            Input::Find(node, reply) => {
                // Whoever asked may have given up.
                let _unheard = reply.send(self.directory.address(&node));
            }
            Input::Show(reply) => {
                // Whoever asked may have given up.
                let _unheard = reply.send(Box::new(self.view()));
            }
        }
    }

    /// How long nothing happens by itself.
    fn sleep(&self) -> Duration {
        let now = self.ground.now();
        let lenders = self.benches.values().filter_map(Bench::wake_at);
        let wake = lenders
            .chain(self.borrower.as_ref().and_then(Borrower::wake_at))
            .chain(self.allowances.next_change(now))
            .chain([self.looked_at.saturating_add(micros(self.look_period())), self.summary_at])
            .min();
        let left = wake.map_or(SLEEP_MAX, |wake| Duration::from_micros(wake.saturating_sub(now).0));
        left.min(SLEEP_MAX)
    }

    fn look_period(&self) -> Duration {
        if self.benches.values().any(Bench::watches_closely) { LOOK_CLOSELY } else { LOOK }
    }

    /// Everything that follows from the time.
    async fn proceed(&mut self) {
        let now = self.ground.now();
        if self.looked_at.saturating_add(micros(self.look_period())) <= now {
            self.observe().await;
        }
        let due: Vec<Place> = self
            .benches
            .iter()
            .filter(|(_, bench)| bench.wake_at().is_some_and(|at| at <= now))
            .map(|(place, _)| place.clone())
            .collect();
        for place in due {
            self.lend(&place, lender::Input::Tick).await;
        }
        if self.borrower.as_ref().and_then(Borrower::wake_at).is_some_and(|at| at <= now) {
            self.borrow(borrower::Input::Tick);
        }
        self.tell_allowances();
        if self.summary_at <= now {
            self.summarise().await;
        }
        if self.synced_at.saturating_add(micros(AUDIT_SYNC_PERIOD)) <= now {
            self.synced_at = now;
            if let Some(sync) = self.audit.sync() {
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = sync() {
                        tracing::error!(%error, "the audit log could not be written to the disk");
                    }
                });
            }
        }
    }

    /// Writes a decision down. `false` if it could not be, so that it must not take effect elsewhere.
    fn record(&mut self, record: &Record) -> bool {
        let wall = self.ground.wall();
        if let Err(error) = self.audit.write(wall, record) {
            self.counts.audit_failures += 1;
            tracing::error!(%error, "a decision cannot be recorded, and so is not told");
            return false;
        }
        self.counts.count(record.what);
        if self.decisions.len() == DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back(DecisionView::of(wall, record));
        true
    }

    fn own_district(&self) -> &District {
        self.settings.own.district()
    }

    fn own_node(&self) -> &Node {
        self.settings.own.node()
    }
}

async fn claimed(store: &dyn LoanStore, node: &Node) -> Result<(u64, Vec<(Place, Loan)>), StoreError> {
    // Counted first: what is found afterwards is all that earlier starts can have left.
    let start = store.start(node).await?;
    let ledgers = store.list().await?;
    let mine = ledgers.into_iter().flat_map(|stored| {
        let place = stored.place;
        stored.ledger.loans.into_iter().map(move |loan| (place.clone(), loan))
    });
    Ok((start, mine.filter(|(_, loan)| loan.id.node == *node).collect()))
}

fn micros(span: Duration) -> Micros {
    Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}
