//! Lending: one bench a device, with its lender and its enforcement point.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use headgate_quota::Class;
use headgate_quota::loan::store::{StoreCommand, StoreReply};
use headgate_quota::loan::{
    Amount, DevicePoint, Guest, Lender, Limits, Line, LoanId, Owner, Place, Revision, Tenant, Usage, lender,
};
use headgate_quota::units::{Bytes, Micros};

use super::{Desk, DeviceLimits, GuestTerms, Input};
use crate::demand::DeviceLook;
use crate::settings::{DeviceHolding, Holdings};
use crate::store::{LoanStore, Swap};

/// A device that may be lent of.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) lender: Lender,
    pub(super) point: DevicePoint,
    pub(super) capacity: Amount,
    pub(super) owners: Vec<Owner>,
    /// What the node was last told.
    applied: Option<DeviceLimits>,
    /// Guests' memory as last told to the lender.
    guests: Vec<headgate_quota::loan::point::GuestMemory>,
    /// Which owners borrow elsewhere, as last told.
    borrows: Vec<Tenant>,
    next_change: Option<Micros>,
    /// Another daemon has taken the ledger over.
    pub(super) fenced: bool,
}

impl Bench {
    /// When something happens by itself.
    pub(super) fn wake_at(&self) -> Option<Micros> {
        let lender = if self.fenced { None } else { self.lender.wake_at() };
        lender.into_iter().chain(self.next_change).min()
    }

    /// Whether an express owner's quota is out, so that its demand must be seen at once.
    pub(super) fn watches_closely(&self) -> bool {
        let express = |line: &Line| {
            self.lender.class(&line.owner).is_some_and(|class| class == Class::Express) && !line.cut
        };
        self.point.lines().iter().any(express)
    }
}

/// Memory in use on a device, by whom the enforcement point asks about.
#[derive(Debug, Default)]
struct InUse {
    owners: BTreeMap<Tenant, Bytes>,
    loans: BTreeMap<LoanId, Bytes>,
}

impl InUse {
    /// A guest's memory belongs to its loans in their order, and what exceeds them to the last.
    fn of(look: Option<&DeviceLook>, lines: &[Line]) -> Self {
        let Some(look) = look else { return Self::default() };
        let owners = look.tenants.iter().map(|seen| (seen.tenant.clone(), seen.memory)).collect();
        let mut loans = BTreeMap::new();
        for seen in &look.guests {
            let own: Vec<&Line> = lines.iter().filter(|line| line.guest == seen.guest).collect();
            let mut left = seen.memory;
            for (index, line) in own.iter().enumerate() {
                let last = index + 1 == own.len();
                let part = if last { left } else { left.min(line.amount.memory) };
                left = left.saturating_sub(part);
                loans.insert(line.loan.clone(), part);
            }
        }
        Self { owners, loans }
    }
}

impl Usage for InUse {
    fn owner_memory(&self, tenant: &Tenant) -> Bytes {
        self.owners.get(tenant).copied().unwrap_or(Bytes::ZERO)
    }

    fn guest_memory(&self, loan: &LoanId) -> Bytes {
        self.loans.get(loan).copied().unwrap_or(Bytes::ZERO)
    }
}

impl Desk {
    /// Takes devices, owners and clients in.
    pub(super) async fn configure(&mut self, holdings: Holdings) {
        let now = self.ground.now();
        let own = &self.settings.own;
        let named = |holding: &DeviceHolding| Place {
            district: own.district().clone(),
            node: own.node().clone(),
            device: holding.device.clone(),
        };
        let places: BTreeMap<Place, DeviceHolding> =
            holdings.devices.iter().map(|holding| (named(holding), holding.clone())).collect();
        self.holdings = holdings;
        self.benches.retain(|place, _| places.contains_key(place));
        for (place, DeviceHolding { capacity, owners, .. }) in places {
            if let Some(bench) = self.benches.get_mut(&place) {
                if bench.capacity == capacity && bench.owners == owners {
                    continue;
                }
                if bench.capacity == capacity {
                    if let Err(error) = bench.point.configure(owners.clone()) {
                        tracing::error!(%place, %error, "the device lends as it was configured before");
                        continue;
                    }
                    bench.owners.clone_from(&owners);
                    self.lend(&place, lender::Input::Configure(owners)).await;
                    continue;
                }
                self.benches.remove(&place);
            }
            self.open_bench(place, capacity, owners, now).await;
        }
        let clients = self.holdings.clients.clone();
        if self.borrower.is_some() {
            self.borrow(headgate_quota::loan::borrower::Input::Configure(clients));
        }
        self.look = self.ground.look();
    }

    async fn open_bench(&mut self, place: Place, capacity: Amount, owners: Vec<Owner>, now: Micros) {
        let reuse_after = self.settings.lending.terms.reuse_after();
        let point = match DevicePoint::new(capacity, owners.clone(), now, reuse_after) {
            Ok(point) => point,
            Err(error) => {
                tracing::error!(%place, %error, "nothing of this device is lent");
                return;
            }
        };
        let lending = self.settings.lending;
        match Lender::new(place.clone(), capacity, lending, owners.clone(), Revision::default(), now) {
            Ok(mut lender) => {
                for incident in self.directory.holding(now) {
                    // Nothing follows from it before the ledger is read.
                    let _nothing = lender.handle(now, lender::Input::Declared(incident));
                }
                let bench = Bench {
                    lender,
                    point,
                    capacity,
                    owners,
                    applied: None,
                    guests: Vec::new(),
                    borrows: Vec::new(),
                    next_change: None,
                    fenced: false,
                };
                self.benches.insert(place.clone(), bench);
                self.apply(&place).await;
                self.lend(&place, lender::Input::Tick).await;
            }
            Err(error) => tracing::error!(%place, %error, "nothing of this device is lent"),
        }
    }

    /// Looks at the devices, and tells lenders and borrower what changed.
    pub(super) async fn observe(&mut self) {
        let now = self.ground.now();
        self.looked_at = now;
        self.look = self.ground.look();
        self.demands.look(now, &self.look);
        for place in self.benches.keys().cloned().collect::<Vec<_>>() {
            let Some(bench) = self.benches.get_mut(&place) else { continue };
            let Some(look) = self.look.iter().find(|look| look.device == place.device) else { continue };
            let mut demands = self.demands.changed(look);
            let borrower = self.borrower.as_ref();
            let borrows = |tenant: &Tenant| borrower.is_some_and(|borrower| borrower.borrows(tenant));
            let borrowing: Vec<Tenant> =
                bench.owners.iter().map(|owner| owner.tenant.clone()).filter(|t| borrows(t)).collect();
            if borrowing != bench.borrows {
                for tenant in borrowing.iter().chain(&bench.borrows) {
                    if demands.iter().all(|(known, _)| known != tenant)
                        && let Some(wants) = self.demands.told(&place.device, tenant)
                    {
                        demands.push((tenant.clone(), wants));
                    }
                }
                bench.borrows = borrowing;
            }
            let in_use = InUse::of(Some(look), bench.point.lines());
            let guests = bench.point.guest_memory(&in_use);
            if demands.is_empty() && guests == bench.guests {
                continue;
            }
            bench.guests.clone_from(&guests);
            let demands = demands.into_iter().map(|(tenant, wants)| {
                let borrows = bench.borrows.contains(&tenant);
                lender::Demand { tenant, wants, borrows }
            });
            let observed = lender::Observed { demands: demands.collect(), guests };
            self.lend(&place, lender::Input::Observed(observed)).await;
        }
        self.tell_wants();
    }

    /// Gives a lender an input and carries out what it decides, in order.
    pub(super) async fn lend(&mut self, place: &Place, input: lender::Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.ground.now();
            let Some(bench) = self.benches.get_mut(place).filter(|bench| !bench.fenced) else { return };
            let outputs = bench.lender.handle(now, input);
            for output in outputs {
                if !self.carry_out(place, output, &mut inputs).await {
                    break;
                }
            }
        }
        self.apply(place).await;
    }

    /// Carries one output out. `false` if it could not be, so that what follows must not be.
    async fn carry_out(
        &mut self,
        place: &Place,
        output: lender::Output,
        inputs: &mut VecDeque<lender::Input>,
    ) -> bool {
        let now = self.ground.now();
        match output {
            lender::Output::Store(command) => self.ask_store(place.clone(), command),
            lender::Output::Install { token, table } => {
                if !self.make_room_for(place, &table).await {
                    return false;
                }
                let Some((bench, in_use)) = self.bench(place) else { return false };
                let result = bench.point.install(now, token, &table, &in_use);
                let installed = result.is_ok();
                inputs.push_back(lender::Input::Installed(result));
                // Promises follow from what was installed, and must not go out before it holds.
                return !installed || self.apply(place).await;
            }
            lender::Output::Settle { token, loan, lapses } => {
                let Some((bench, _)) = self.bench(place) else { return false };
                return bench.point.settle(token, &loan, lapses).is_ok();
            }
            lender::Output::Cut(loans) => {
                let Some((bench, _)) = self.bench(place) else { return false };
                bench.point.cut(&loans);
                self.counts.cuts += 1;
                return self.apply(place).await;
            }
            lender::Output::TakeAll { token, owner } => {
                let Some((bench, _)) = self.bench(place) else { return false };
                if let Err(stale) = bench.point.take_all(token, &owner) {
                    inputs.push_back(lender::Input::NotTaken { owner, stale });
                    return false;
                }
                return self.apply(place).await;
            }
            lender::Output::Evict(loan) => {
                let Some((bench, _)) = self.bench(place) else { return false };
                let guest = bench.point.lines().iter().find(|line| line.loan == loan);
                if let Some(guest) = guest.map(|line| line.guest.clone()) {
                    self.ground.evict(&place.device, &guest);
                }
            }
            lender::Output::Send { to, message } => {
                if let Some(peers) = &self.peers {
                    peers.tell_borrower(&to, message);
                }
            }
            lender::Output::Record(record) => return self.record(&record),
            lender::Output::Fenced => {
                tracing::error!(%place, "another daemon lends this device; this one no longer does");
                self.counts.fenced += 1;
                if let Some(bench) = self.benches.get_mut(place) {
                    bench.fenced = true;
                }
            }
        }
        true
    }

    fn ask_store(&self, place: Place, command: StoreCommand) {
        let (store, inputs) = (Arc::clone(&self.store), self.inputs.clone());
        let (ground, asked) = (Arc::clone(&self.ground), self.ground.now());
        tokio::spawn(async move {
            let reply = asked_store(store.as_ref(), command).await;
            let took = std::time::Duration::from_micros(ground.now().saturating_sub(asked).0);
            // The desk may be closed already.
            let _closed = inputs.send(Input::Stored(place, reply, took)).await;
        });
    }

    /// Lowers the owners' memory before it is looked whether they use it: what they allocate in between would
    /// otherwise be promised to somebody else as well.
    async fn make_room_for(&mut self, place: &Place, table: &[Line]) -> bool {
        let Some((bench, _)) = self.bench(place) else { return false };
        let known = |line: &Line| bench.point.lines().iter().any(|known| known.loan == line.loan);
        let new: Vec<&Line> = table
            .iter()
            .filter(|line| line.amount.memory != Bytes::ZERO && !line.cut && !known(line))
            .collect();
        if new.is_empty() {
            return true;
        }
        let Some(mut limits) = bench.applied.clone() else { return true };
        for line in new {
            for (_, limit) in limits.owners.iter_mut().filter(|(owner, _)| *owner == line.owner) {
                limit.memory = limit.memory.saturating_sub(line.amount.memory);
            }
        }
        bench.applied = Some(limits.clone());
        let held = self.ground.apply(limits).await;
        self.look = self.ground.look();
        self.closing |= !held;
        held
    }

    fn bench(&mut self, place: &Place) -> Option<(&mut Bench, InUse)> {
        let bench = self.benches.get_mut(place)?;
        let look = self.look.iter().find(|look| look.device == place.device);
        let in_use = InUse::of(look, bench.point.lines());
        Some((bench, in_use))
    }

    /// A device's limits as they are now.
    pub(super) fn limits_of(&self, place: &Place) -> Option<Limits> {
        let bench = self.benches.get(place)?;
        let look = self.look.iter().find(|look| look.device == place.device);
        Some(bench.point.limits(self.ground.now(), &InUse::of(look, bench.point.lines())))
    }

    /// Has the node apply a device's limits if they changed. `false` if the node is shutting down.
    pub(super) async fn apply(&mut self, place: &Place) -> bool {
        let now = self.ground.now();
        let Some((bench, in_use)) = self.bench(place) else { return true };
        let limits = bench.point.limits(now, &in_use);
        bench.next_change = bench.point.next_change(now);
        let limits = described(place, &limits, bench);
        if bench.applied.as_ref() == Some(&limits) {
            return true;
        }
        bench.applied = Some(limits.clone());
        let applied = self.ground.apply(limits).await;
        self.closing |= !applied;
        applied
    }
}

/// Limits as the node takes them: loans of one guest are one guest.
fn described(place: &Place, limits: &Limits, bench: &Bench) -> DeviceLimits {
    let mut guests: BTreeMap<Guest, GuestTerms> = BTreeMap::new();
    let known: Vec<_> = bench.lender.loans().collect();
    for (line, limit) in bench.point.lines().iter().zip(&limits.guests) {
        let loan = known.iter().find(|view| view.loan.id == line.loan).map(|view| &view.loan);
        let terms = guests.entry(limit.guest.clone()).or_insert_with(|| GuestTerms {
            guest: limit.guest.clone(),
            limit: Amount::ZERO,
            class: Class::Batch,
            data: headgate_quota::loan::DataClass::Raw,
            loans: Vec::new(),
            until: Micros::ZERO,
        });
        terms.limit = terms.limit.saturating_add(limit.limit);
        if let Some(loan) = loan {
            terms.class = terms.class.max(loan.class);
            terms.data = loan.data;
        }
        terms.loans.push(line.loan.clone());
        terms.until = terms.until.max(line.lapses);
    }
    DeviceLimits {
        device: place.device.clone(),
        owners: limits.owners.iter().map(|owner| (owner.tenant.clone(), owner.limit)).collect(),
        guests: guests.into_values().collect(),
    }
}

async fn asked_store(store: &dyn LoanStore, command: StoreCommand) -> StoreReply {
    match command {
        StoreCommand::Read { op, place } => match store.read(&place).await {
            Ok((revision, ledger)) => StoreReply::Read { op, revision, ledger },
            Err(error) => {
                tracing::warn!(%place, %error, "a ledger cannot be read");
                StoreReply::Failed { op }
            }
        },
        StoreCommand::Swap { op, place, expected, ledger } => {
            match store.swap(&place, expected, &ledger).await {
                Ok(Swap::Done(revision)) => StoreReply::Swapped { op, revision },
                Ok(Swap::Conflict) => StoreReply::Conflict { op },
                Err(error) => {
                    tracing::warn!(%place, %error, "nobody knows whether a ledger was written");
                    StoreReply::Failed { op }
                }
            }
        }
    }
}
