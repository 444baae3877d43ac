//! What must hold, judged from outside.
//!
//! The oracle knows what a device has, what the enforcement points apply, what the store confirmed, and what
//! tenants truly want. It does not ask a daemon what it believes.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use super::plan::{CAPACITY, Plan};
use super::world::{InUse, World};
use crate::loan::{
    Allowance, Amount, DataClass, Ledger, Line, LoanId, Place, Record, Revision, Standing, Tenant, What, Why,
};
use crate::tenant::Class;
use crate::units::Share;

/// A rule that must hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// All limits on a device together never exceed it.
    LimitsFit,
    /// Memory in use never exceeds the device.
    MemoryFits,
    /// Capacity is not used again while its borrower may still use it, except by an express owner through the
    /// device's own gate.
    StopsBeforeReuse,
    /// What a borrower may use is on record in the store.
    OnRecord,
    /// No order is applied that is older than the last.
    NothingStale,
    /// An express owner has its own within 5 ms of wanting it; memory within the notice.
    ExpressAtOnce,
    /// Any owner has its own within the minimum duration and the longest life of a promise.
    OwnerWins,
    /// An owner that took back rests before it lends again.
    Rest,
    /// A loan runs its minimum unless an express owner, an incident or the operator wants it back.
    MinimumRuns,
    /// Raw data stays in its district.
    RawStays,
    /// A node borrows for tenants of its own district only.
    SpeaksForItself,
    /// No more is out than an owner lends.
    WithinLendingLimit,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// True time in microseconds.
    pub at: u64,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}.{:06} s: {}", self.rule, self.at / 1_000_000, self.at % 1_000_000, self.text)
    }
}

/// Bound on an express owner's wait for compute, in true microseconds.
const EXPRESS_WITHIN: u64 = 5_000;
/// Bound on what an order to a worker takes, in true microseconds, and then some.
const EVICTION_WITHIN: u64 = 3_000_000;
/// After a quota was changed, loans made under the old one need time to come back.
const RECONFIGURED_WITHIN: u64 = 90_000_000;

/// Since when an owner lacks something.
#[derive(Clone, Copy, Debug, Default)]
struct Lacks {
    compute: Option<u64>,
    memory: Option<u64>,
    /// The same, counted only while it is express.
    express_compute: Option<u64>,
    express_memory: Option<u64>,
}

/// The judge of a run.
#[derive(Clone, Debug)]
pub struct Oracle {
    violation: Option<Violation>,
    /// A rule not looked at.
    blind_to: Option<Rule>,
    /// The newest table applied at each device.
    tables: Vec<Revision>,
    /// Whose quota each loan is.
    owners: BTreeMap<LoanId, Tenant>,
    /// When each loan was first on record.
    recorded_at: BTreeMap<LoanId, u64>,
    /// The newest promise applied at each node.
    promises: BTreeMap<(usize, LoanId), Revision>,
    incarnations: Vec<u64>,
    /// Loans whose device shut them out for an express owner: what their borrowers believe does not matter.
    shut_out: BTreeSet<LoanId>,
    /// Loans that a daemon had reason to shut out when it decided to.
    justified: BTreeSet<LoanId>,
    lacks: Vec<Vec<Lacks>>,
    /// When each daemon last took back for an owner, by its own clock.
    took_back: BTreeMap<(usize, Tenant), u64>,
    /// Most that each owner has ever been allowed to lend.
    may_lend: Vec<Vec<Amount>>,
}

impl Oracle {
    pub(super) fn new(plan: &Plan, blind_to: Option<Rule>) -> Self {
        let nodes = plan.nodes.len();
        Self {
            violation: None,
            blind_to,
            tables: vec![Revision::default(); nodes],
            owners: BTreeMap::new(),
            recorded_at: BTreeMap::new(),
            promises: BTreeMap::new(),
            incarnations: vec![0; nodes],
            shut_out: BTreeSet::new(),
            justified: BTreeSet::new(),
            lacks: plan.nodes.iter().map(|node| vec![Lacks::default(); node.owners.len()]).collect(),
            took_back: BTreeMap::new(),
            may_lend: plan
                .nodes
                .iter()
                .map(|node| node.owners.iter().map(|owner| owner.lending_limit).collect())
                .collect(),
        }
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    fn broken(world: &mut World, rule: Rule, text: String) {
        if world.oracle.blind_to == Some(rule) {
            return;
        }
        let at = world.now;
        world.oracle.violation.get_or_insert(Violation { rule, at, text });
    }

    /// Judges a device as it is now, and says when to look again if nothing happens before.
    pub(super) fn look(world: &mut World, node: usize) -> Option<u64> {
        let machine = &world.machines[node];
        let point = machine.point.as_ref()?;
        let usage = InUse { tenants: &machine.tenants, workers: &machine.workers };
        let limits = point.limits(machine.local(world.now), &usage);
        if !limits.total().fits(CAPACITY) {
            let text = format!("n{node} has limits of {} together: {limits:?}", limits.total());
            Self::broken(world, Rule::LimitsFit, text);
            return None;
        }
        let used = machine.tenants.iter().map(|living| living.used.0).sum::<u64>();
        let held = machine.workers.values().map(|worker| worker.held.0).sum::<u64>();
        if CAPACITY.memory.0 < used + held {
            Self::broken(world, Rule::MemoryFits, format!("n{node}: owners use {used}, guests {held} bytes"));
            return None;
        }
        Self::look_at_borrowers(world, node, &limits);
        Self::look_at_owners(world, node, &limits)
    }

    /// What borrowers may still place on a device counts as used there, until the device has shut them out for
    /// good reason.
    fn look_at_borrowers(world: &mut World, node: usize, limits: &crate::loan::Limits) {
        let place = &world.machines[node].place;
        let believed: Vec<Allowance> = world
            .machines
            .iter()
            .flat_map(|machine| machine.allowances.held(machine.local(world.now)))
            .filter(|allowance| allowance.place == *place)
            .cloned()
            .collect();
        let mut all = limits.total();
        for allowance in &believed {
            let guest = limits.guests.iter().find(|guest| guest.loan == allowance.loan);
            let here = guest
                .map_or(Amount::ZERO, |guest| Amount { sm: guest.limit.sm, memory: guest.memory_counted });
            let beyond = allowance.amount.saturating_sub(here);
            if beyond.is_zero() || world.oracle.shut_out.contains(&allowance.loan) {
                continue;
            }
            if Self::is_shut_out(world, node, &allowance.loan) {
                world.oracle.shut_out.insert(allowance.loan.clone());
            } else {
                all = all.saturating_add(beyond);
            }
        }
        if !all.fits(CAPACITY) {
            let text =
                format!("n{node}: limits and what borrowers may use are {all}: {limits:?}, {believed:?}");
            return Self::broken(world, Rule::StopsBeforeReuse, text);
        }
        for allowance in &believed {
            let ledger = world.store.ledger(&allowance.place);
            let loan = ledger.and_then(|ledger| ledger.loans.iter().find(|loan| loan.id == allowance.loan));
            let recorded = loan.map(|loan| loan.amount);
            if recorded != Some(allowance.amount) {
                let text =
                    format!("{} may use {}, on record is {recorded:?}", allowance.loan, allowance.amount);
                return Self::broken(world, Rule::OnRecord, text);
            }
        }
    }

    /// Whether the gate is shut to a loan, for a good reason.
    fn is_shut_out(world: &World, node: usize, loan: &LoanId) -> bool {
        let lines = world.machines[node].point.as_ref().map(crate::loan::DevicePoint::lines);
        let line = lines.and_then(|lines| lines.iter().find(|line| line.loan == *loan));
        line.is_none_or(|line| line.cut) && world.oracle.justified.contains(loan)
    }

    /// A daemon decides to shut guests out. That is its right if their owner is express and lacks what it wants.
    pub(super) fn cuts(world: &mut World, node: usize, loans: &[LoanId]) {
        for loan in loans {
            if world.oracle.owners.get(loan).is_some_and(|owner| Self::may_take(world, node, owner)) {
                world.oracle.justified.insert(loan.clone());
            }
        }
    }

    /// A daemon that does not know the loans yet shuts out all guests of an owner.
    pub(super) fn takes_all(world: &mut World, node: usize, owner: &Tenant) {
        let loans = world.oracle.owners.iter().filter(|(_, of)| *of == owner);
        let loans: Vec<LoanId> = loans.map(|(loan, _)| loan.clone()).collect();
        Self::cuts(world, node, &loans);
    }

    fn may_take(world: &World, node: usize, owner: &Tenant) -> bool {
        let machine = &world.machines[node];
        let living = machine.tenants.iter().find(|living| living.owner.tenant == *owner);
        living.is_some_and(|living| {
            let nominal = living.owner.nominal;
            let lines = machine.point.as_ref().into_iter().flat_map(|point| point.lines());
            let lent = lines.filter(|line| line.owner == *owner).map(|line| line.amount).sum();
            let kept = nominal.saturating_sub(living.owner.lending_limit.max(lent));
            let class = world.class_of(node, &living.owner, &world.daemons(node));
            class == Class::Express && !living.wants.min(nominal).fits(kept)
        })
    }

    /// Whether owners get what is theirs, in time.
    fn look_at_owners(world: &mut World, node: usize, limits: &crate::loan::Limits) -> Option<u64> {
        let now = world.now;
        let machine = &mut world.machines[node];
        let serving = machine.main.is_some_and(|main| world.processes[main].lender.is_serving());
        if machine.ready_since.is_some() && serving {
            machine.serving_since.get_or_insert(now);
        }
        let machine = &world.machines[node];
        let changed = machine.configured_at.is_some_and(|at| now < at + RECONFIGURED_WITHIN);
        let ready = machine.ready_since.filter(|_| !changed);
        let serving = machine.serving_since.filter(|_| !changed);
        let terms = world.plan.lending.terms;
        let rate = world.plan.nodes[node].rate_ppm;
        let truly = |local: u64| local.saturating_mul(1_000_000).div_ceil(rate);
        let notice = truly(terms.notice.0 + world.plan.lending.resend.0) + EVICTION_WITHIN;
        let longest = terms.min_duration.0 + terms.reuse_after().0 + world.plan.lending.rise_for.0;
        let longest = truly(longest + 2 * world.plan.lending.resend.0) + EVICTION_WITHIN;
        let mut again = None;
        let mut late = None;
        for index in 0..world.machines[node].tenants.len() {
            let living = &world.machines[node].tenants[index];
            let limit = limits.of_owner(&living.owner.tenant).unwrap_or_default();
            let lacks = living.wants.min(living.owner.nominal).saturating_sub(limit);
            // The newest daemon's duty is what the newest daemon has heard.
            let daemon = world.machines[node].main.as_slice();
            let express = world.class_of(node, &living.owner, daemon) == Class::Express;
            let (no_compute, no_memory) = (lacks.sm != Share::ZERO, lacks.memory.0 != 0);
            let since = &mut world.oracle.lacks[node][index];
            let mut mark = |since: &mut Option<u64>, is: bool, from: Option<u64>, bound: u64, rule: Rule| {
                if !is {
                    *since = None;
                    return;
                }
                let began = *since.get_or_insert(now);
                let Some(from) = from else { return };
                let deadline = began.max(from) + bound;
                if deadline < now {
                    late.get_or_insert((rule, index, lacks, deadline));
                } else {
                    again = Some(again.map_or(deadline + 1, |at: u64| at.min(deadline + 1)));
                }
            };
            mark(
                &mut since.express_compute,
                express && no_compute,
                ready,
                EXPRESS_WITHIN,
                Rule::ExpressAtOnce,
            );
            mark(&mut since.express_memory, express && no_memory, serving, notice, Rule::ExpressAtOnce);
            mark(&mut since.compute, no_compute, ready, longest, Rule::OwnerWins);
            mark(&mut since.memory, no_memory, serving, longest, Rule::OwnerWins);
        }
        if let Some((rule, index, lacks, deadline)) = late {
            let text =
                format!("n{node} tenant {index} lacks {lacks} of its own, {} us too long", now - deadline);
            Self::broken(world, rule, text);
        }
        again
    }

    /// A device took a table.
    pub(super) fn installed(world: &mut World, node: usize, token: Revision, table: &[Line]) {
        if token <= world.oracle.tables[node] {
            let text = format!("n{node} applied table {token} after {}", world.oracle.tables[node]);
            Self::broken(world, Rule::NothingStale, text);
        }
        world.oracle.tables[node] = token;
        for line in table {
            world.oracle.owners.insert(line.loan.clone(), line.owner.clone());
        }
    }

    /// A node took a promise.
    pub(super) fn raised(world: &mut World, node: usize, by: u64, allowance: &Allowance) {
        let key = (node, allowance.loan.clone());
        let last = world.oracle.promises.insert(key, allowance.token);
        if by < world.oracle.incarnations[node] || last.is_some_and(|last| allowance.token <= last) {
            let text =
                format!("n{node} applied promise {} of {} after {last:?}", allowance.token, allowance.loan);
            Self::broken(world, Rule::NothingStale, text);
        }
    }

    /// A node's newest daemon took its allowances over.
    pub(super) fn adopted(world: &mut World, node: usize, incarnation: u64) {
        let newest = &mut world.oracle.incarnations[node];
        *newest = (*newest).max(incarnation);
    }

    /// The store confirmed a ledger.
    pub(super) fn written(world: &mut World, place: &Place, ledger: &Ledger) {
        let Some(node) = world.node_of(place) else { return };
        for loan in &ledger.loans {
            let home = world.machines.iter().find(|machine| machine.place.node == loan.id.node);
            if home.is_none_or(|home| home.place.district != loan.guest.district) {
                let text = format!("{} was granted for {}", loan.id, loan.guest);
                return Self::broken(world, Rule::SpeaksForItself, text);
            }
            world.oracle.recorded_at.entry(loan.id.clone()).or_insert(world.now);
            if loan.data == DataClass::Raw && loan.guest.district != place.district {
                let text = format!("{} takes raw data of {} to {place}", loan.id, loan.guest);
                return Self::broken(world, Rule::RawStays, text);
            }
        }
        for (index, living) in world.machines[node].tenants.iter().enumerate() {
            let most = &mut world.oracle.may_lend[node][index];
            *most = most.max(living.owner.lending_limit);
            let out = ledger
                .loans
                .iter()
                .filter(|loan| loan.owner == living.owner.tenant && loan.standing == Standing::Active);
            let out: Amount = out.map(|loan| loan.amount).sum();
            if !out.fits(*most) {
                let text = format!("{out} of n{node} tenant {index} is out, {most} may be");
                return Self::broken(world, Rule::WithinLendingLimit, text);
            }
        }
    }

    /// A daemon decided something.
    pub(super) fn heard(world: &mut World, process: usize, decided_at: u64, record: &Record) {
        let Some(owner) = record.owner.clone() else { return };
        let node = world.processes[process].node;
        let clock = world.machines[node].clock;
        let local = clock.local(decided_at);
        let key = (process, owner);
        let for_owner = matches!(record.why, Why::OwnerWants { .. });
        let rests = world.plan.lending.rest.0;
        match record.what {
            What::Granted => {
                let last = world.oracle.took_back.get(&key);
                if let Some(last) = last.filter(|last| local < **last + rests) {
                    let text = format!("{} lent again {} us after it took back", key.1, local - last);
                    Self::broken(world, Rule::Rest, text);
                }
            }
            What::Noticed if for_owner || matches!(record.why, Why::HigherClassWaits { .. }) => {
                let since = world.oracle.recorded_at.get(&record.loan).copied().unwrap_or(decided_at);
                // By the node's clock, which may have been set back by a restart in between.
                let age = decided_at.saturating_sub(since) * world.plan.nodes[node].rate_ppm / 1_000_000;
                let terms = world.plan.lending.terms;
                if age + terms.notice.0 < terms.min_duration.0 {
                    let text = format!("{} called back at an age of {age} us", record.loan);
                    Self::broken(world, Rule::MinimumRuns, text);
                }
            }
            _ => {}
        }
        if for_owner && matches!(record.what, What::Noticed | What::Cut) {
            world.oracle.took_back.insert(key, local);
        }
    }

    /// A machine went off, and its daemons with it.
    pub(super) fn went_off(world: &mut World, node: usize) {
        world.oracle.lacks[node].fill(Lacks::default());
    }

    /// A machine came back. What its clock showed before means nothing now.
    pub(super) fn rebooted(world: &mut World, node: usize) {
        let processes = &world.processes;
        world.oracle.took_back.retain(|(process, _), _| processes[*process].node != node);
    }
}
