//! The run: a queue of events in true time, and the machines they happen to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::clock::Clock;
use super::oracle::{Oracle, Rule, Violation};
use super::plan::{CAPACITY, Plan};
use super::rng::Rng;
use super::store::SimStore;
use crate::loan::flaw::Flaws;
use crate::loan::point::Usage;
use crate::loan::{
    Allowances, Amount, Borrower, DevicePoint, Guest, Incident, Lender, LoanId, Owner, Place, Record,
    StoreCommand, StoreReply, Tenant, ToBorrower, ToLender, What, borrower, lender,
};
use crate::tenant::Class;
use crate::units::{Bytes, Micros};

/// What happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Events handled.
    pub events: u64,
    /// Loans granted.
    pub granted: u64,
    /// Renewals promised.
    pub renewed: u64,
    /// Requests refused.
    pub refused: u64,
    /// Loans called back.
    pub noticed: u64,
    /// Loans cut for an express owner.
    pub cut: u64,
    /// Guests stopped for keeping memory.
    pub evicted: u64,
    /// Loans that ended because their borrower was silent.
    pub silent: u64,
    /// Loans that ended at the borrower because they could not be renewed.
    pub not_renewed: u64,
    /// Loans taken up again by a restarted borrower.
    pub resumed: u64,
    /// Orders refused by a device as stale.
    pub stale_at_device: u64,
    /// Orders refused by a node's allowances as stale.
    pub stale_at_node: u64,
    /// Messages the machines recognised as stale.
    pub stale_messages: u64,
    /// Swaps that met a changed ledger.
    pub conflicts: u64,
    /// Lenders that learned they had been replaced.
    pub fenced: u64,
    /// Daemons that died.
    pub deaths: u64,
}

impl Stats {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            granted: self.granted + other.granted,
            renewed: self.renewed + other.renewed,
            refused: self.refused + other.refused,
            noticed: self.noticed + other.noticed,
            cut: self.cut + other.cut,
            evicted: self.evicted + other.evicted,
            silent: self.silent + other.silent,
            not_renewed: self.not_renewed + other.not_renewed,
            resumed: self.resumed + other.resumed,
            stale_at_device: self.stale_at_device + other.stale_at_device,
            stale_at_node: self.stale_at_node + other.stale_at_node,
            stale_messages: self.stale_messages + other.stale_messages,
            conflicts: self.conflicts + other.conflicts,
            fenced: self.fenced + other.fenced,
            deaths: self.deaths + other.deaths,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first rule that was broken, if any.
    pub violation: Option<Violation>,
    /// What happened.
    pub stats: Stats,
    /// What happened, line by line, if asked for.
    pub trace: Vec<String>,
}

/// How to run a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// Protections taken away.
    pub flaws: Flaws,
    /// A rule the oracle does not look at, to see whether another one notices.
    pub blind_to: Option<Rule>,
    /// Whether to write down what happens.
    pub trace: bool,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, manner: Manner) -> Outcome {
    let mut rng = Rng::new(seed);
    let plan = Plan::new(&mut rng);
    World::new(plan, rng, manner).run()
}

/// A message with its direction.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    Up(ToLender),
    Down(ToBorrower),
}

/// Something that will happen.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Deliver { from: usize, to: usize, mail: Mail },
    StoreArrives { process: usize, command: StoreCommand },
    StoreReplies { process: usize, reply: StoreReply },
    ClaimArrives { process: usize },
    ClaimReplies { process: usize, incarnation: u64, found: Vec<(Place, crate::loan::Loan)> },
    Wake { process: usize },
    Resume { process: usize },
    Kill { process: usize },
    Start { node: usize },
    Demand { node: usize, owner: usize },
    Offers { node: usize },
    Allocate { node: usize, loan: LoanId, borrower: usize },
    Leave { node: usize, loan: LoanId },
    Drained { node: usize, loan: LoanId },
    Evicted { node: usize, loan: LoanId },
    Declared { node: usize, incident: Incident },
    Fault,
    Heal { cut: Cut },
    Look { node: usize },
}

/// A link that is cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cut {
    Between(usize, usize),
    ToStore(usize),
    Store,
}

/// What a daemon has still to do.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Lend(lender::Input),
    Borrow(borrower::Input),
    /// What it decided at a true time.
    LenderSays(u64, VecDeque<lender::Output>),
    BorrowerSays(u64, VecDeque<borrower::Output>),
}

/// A daemon.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub node: usize,
    pub alive: bool,
    pub paused: bool,
    pub lender: Lender,
    pub borrower: Option<Borrower>,
    pub todo: VecDeque<Work>,
    pub wakes_at: Option<u64>,
    /// Which of its tenants borrowed when last looked at.
    pub borrowing: Vec<bool>,
    /// Incidents it heard of: tenants, class, and when they end in true time.
    pub raised: Vec<(Incident, u64)>,
}

/// A tenant as it is.
#[derive(Clone, Debug)]
pub(super) struct Living {
    pub owner: Owner,
    pub wants: Amount,
    /// What it would place elsewhere.
    pub abroad: Amount,
    pub used: Bytes,
}

/// A guest's worker at a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worker {
    pub held: Bytes,
    pub stubborn: bool,
}

/// A machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub place: Place,
    pub clock: Clock,
    /// `None` while it is off.
    pub point: Option<DevicePoint>,
    pub allowances: Allowances,
    pub tenants: Vec<Living>,
    pub workers: BTreeMap<LoanId, Worker>,
    pub main: Option<usize>,
    pub others: Vec<usize>,
    /// Since when its daemon can be held to its duties.
    pub ready_since: Option<u64>,
    /// Since when its daemon knows its ledger.
    pub serving_since: Option<u64>,
    pub configured_at: Option<u64>,
    pub looks_at: Option<u64>,
}

impl Machine {
    pub(super) fn local(&self, at: u64) -> Micros {
        Micros(self.clock.local(at))
    }
}

/// Memory as it is, for an enforcement point.
pub(super) struct InUse<'a> {
    pub tenants: &'a [Living],
    pub workers: &'a BTreeMap<LoanId, Worker>,
}

impl Usage for InUse<'_> {
    fn owner_memory(&self, tenant: &Tenant) -> Bytes {
        let living = self.tenants.iter().find(|living| living.owner.tenant == *tenant);
        living.map_or(Bytes::ZERO, |living| living.used)
    }

    fn guest_memory(&self, loan: &LoanId) -> Bytes {
        self.workers.get(loan).map_or(Bytes::ZERO, |worker| worker.held)
    }
}

#[derive(Clone, Debug)]
struct Item {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A run under way.
#[derive(Debug)]
pub struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) flaws: Flaws,
    pub(super) now: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) processes: Vec<Process>,
    pub(super) store: SimStore,
    pub(super) cuts: Vec<Cut>,
    pub(super) oracle: Oracle,
    pub(super) stats: Stats,
    pub(super) incidents: u64,
    /// Chance that a step of a daemon is its last for a while, in a hundred thousand.
    pub(super) step_faults: u64,
    /// Devices to look at when the event is over.
    pub(super) touched: BTreeSet<usize>,
    /// Messages that were sent, the last few, for replays.
    pub(super) archive: VecDeque<(usize, usize, Mail)>,
    queue: BinaryHeap<Reverse<Item>>,
    numbered: u64,
    trace: Option<Vec<String>>,
}

/// Writes a line into the trace, if there is one.
macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.is_traced() {
            $world.line(format!($($text)*));
        }
    };
}
pub(super) use note;

impl World {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new(plan: Plan, mut rng: Rng, manner: Manner) -> Self {
        let flaws = manner.flaws;
        let machines = plan
            .nodes
            .iter()
            .map(|node| Machine {
                place: node.place.clone(),
                clock: Clock::new(0, node.clock_offset, node.rate_ppm),
                point: None,
                allowances: Allowances::new().with_flaws(flaws),
                tenants: node
                    .owners
                    .iter()
                    .map(|owner| Living {
                        owner: owner.clone(),
                        wants: Amount::ZERO,
                        abroad: Amount::ZERO,
                        used: Bytes::ZERO,
                    })
                    .collect(),
                workers: BTreeMap::new(),
                main: None,
                others: Vec::new(),
                ready_since: None,
                serving_since: None,
                configured_at: None,
                looks_at: None,
            })
            .collect();
        let step_faults = rng.between(20, 400);
        let oracle = Oracle::new(&plan, manner.blind_to);
        let mut world = Self {
            plan,
            rng,
            flaws,
            now: 0,
            machines,
            processes: Vec::new(),
            store: SimStore::default(),
            cuts: Vec::new(),
            oracle,
            stats: Stats::default(),
            incidents: 0,
            step_faults,
            touched: BTreeSet::new(),
            archive: VecDeque::new(),
            queue: BinaryHeap::new(),
            numbered: 0,
            trace: manner.trace.then(Vec::new),
        };
        for node in 0..world.machines.len() {
            let point = world.fresh_point(node);
            world.machines[node].point = Some(point);
            world.at(node as u64 * 1_000, Event::Start { node });
            world.after(0, Event::Offers { node });
            for owner in 0..world.machines[node].tenants.len() {
                world.after(0, Event::Demand { node, owner });
            }
        }
        world.after(1_000_000, Event::Fault);
        world
    }

    /// Runs to the horizon, or to the first rule that is broken.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let horizon = self.plan.horizon.0;
        note!(self, "plan: {} nodes, {:?}", self.machines.len(), self.plan.faults);
        while let Some(Reverse(item)) = self.queue.pop() {
            if horizon < item.at || self.oracle.violation().is_some() {
                break;
            }
            self.now = item.at;
            self.stats.events += 1;
            self.happen(item.event);
            self.look();
        }
        for machine in &self.machines {
            self.stats.stale_at_device += machine.point.as_ref().map_or(0, DevicePoint::stale);
            self.stats.stale_at_node += machine.allowances.stale();
        }
        for process in &self.processes {
            let (lender, borrower) = (process.lender.counters(), process.borrower.as_ref());
            let borrower = borrower.map(Borrower::counters).unwrap_or_default();
            self.stats.conflicts += lender.conflicts;
            self.stats.stale_messages += lender.stale_messages + borrower.stale_messages;
            self.stats.not_renewed += borrower.not_renewed;
        }
        let violation = self.oracle.violation().cloned();
        if let Some(violation) = &violation {
            note!(self, "BROKEN {violation}");
        }
        Outcome { violation, stats: self.stats, trace: self.trace.unwrap_or_default() }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, mail } => self.deliver(from, to, mail),
            Event::StoreArrives { process, command } => self.store_arrives(process, command),
            Event::StoreReplies { process, reply } => {
                self.give(process, Work::Lend(lender::Input::Store(reply)));
            }
            Event::ClaimArrives { process } => self.claim_arrives(process),
            Event::ClaimReplies { process, incarnation, found } => self.claimed(process, incarnation, found),
            Event::Wake { process } => self.wake(process),
            Event::Resume { process } => self.resume(process),
            Event::Kill { process } => self.kill(process),
            Event::Start { node } => self.start(node),
            Event::Demand { node, owner } => self.demand(node, owner),
            Event::Offers { node } => self.offers(node),
            Event::Allocate { node, loan, borrower } => self.allocate(node, &loan, borrower),
            Event::Leave { node, loan } => self.leave(node, &loan, false),
            Event::Drained { node, loan } => {
                for process in self.daemons(node) {
                    self.give(process, Work::Borrow(borrower::Input::Drained(loan.clone())));
                }
            }
            Event::Evicted { node, loan } => self.leave(node, &loan, true),
            Event::Declared { node, incident } => self.declared(node, &incident),
            Event::Fault => self.fault(),
            Event::Heal { cut } => {
                if let Some(index) = self.cuts.iter().position(|known| *known == cut) {
                    self.cuts.remove(index);
                }
                note!(self, "healed {cut:?}");
            }
            Event::Look { node } => {
                self.machines[node].looks_at = None;
                self.touched.insert(node);
            }
        }
    }

    /// Lets the oracle look at every device that may have changed, and sees to it that it looks again when a
    /// limit changes by itself.
    fn look(&mut self) {
        while let Some(node) = self.touched.pop_first() {
            self.breathe(node);
            let again = Oracle::look(self, node);
            let machine = &self.machines[node];
            let local = machine.local(self.now);
            let lapse = machine.point.as_ref().and_then(|point| point.next_change(local));
            let lapse = lapse.map(|lapse| machine.clock.when(lapse.0));
            let next = [again, lapse].into_iter().flatten().filter(|at| self.now < *at).min();
            if let Some(next) = next
                && machine.looks_at.is_none_or(|planned| next < planned)
            {
                self.machines[node].looks_at = Some(next);
                self.at(next, Event::Look { node });
            }
        }
    }

    /// A point as a machine has it that has just started.
    pub(super) fn fresh_point(&self, node: usize) -> DevicePoint {
        let machine = &self.machines[node];
        let owners = machine.tenants.iter().map(|living| living.owner.clone()).collect();
        let wait = self.plan.lending.terms.reuse_after();
        match DevicePoint::new(CAPACITY, owners, machine.local(self.now), wait) {
            Ok(point) => point.with_flaws(self.flaws),
            Err(error) => unreachable!("{error}"),
        }
    }

    /// The daemons that run on a node, the newest first.
    pub(super) fn daemons(&self, node: usize) -> Vec<usize> {
        let machine = &self.machines[node];
        machine.main.into_iter().chain(machine.others.iter().copied()).collect()
    }

    /// A tenant's class as any of the given daemons of its node has heard of it.
    pub(super) fn class_of(&self, node: usize, owner: &Owner, daemons: &[usize]) -> Class {
        let guest =
            Guest { district: self.machines[node].place.district.clone(), tenant: owner.tenant.clone() };
        let raised = daemons.iter().flat_map(|process| &self.processes[*process].raised);
        let raised = raised.filter(|(incident, ends)| self.now < *ends && incident.tenants.contains(&guest));
        raised.map(|(incident, _)| incident.class).fold(owner.class, Class::max)
    }

    pub(super) fn node_of(&self, place: &Place) -> Option<usize> {
        self.machines.iter().position(|machine| machine.place == *place)
    }

    pub(super) fn recorded(&mut self, process: usize, decided_at: u64, record: &Record) {
        match record.what {
            What::Granted => self.stats.granted += 1,
            What::Renewed => self.stats.renewed += 1,
            What::Refused if record.owner.is_none() && record.token.0 != 0 => self.stats.refused += 1,
            What::Noticed => self.stats.noticed += 1,
            What::Cut => self.stats.cut += 1,
            What::Evicted => self.stats.evicted += 1,
            What::Closed if matches!(record.why, crate::loan::Why::Silent { .. }) => self.stats.silent += 1,
            _ => {}
        }
        let node = self.processes[process].node;
        note!(self, "n{node}#{process} {record}");
        Oracle::heard(self, process, decided_at, record);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.numbered += 1;
        self.queue.push(Reverse(Item { at, number: self.numbered, event }));
    }

    pub(super) fn after(&mut self, span: u64, event: Event) {
        self.at(self.now + span, event);
    }

    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    pub(super) fn line(&mut self, text: String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {text}", SecondsOf(self.now)));
        }
    }
}

/// Microseconds as seconds, without floating point.
struct SecondsOf(u64);

impl std::fmt::Display for SecondsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>5}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
