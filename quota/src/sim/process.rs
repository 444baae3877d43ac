//! Daemons: what reaches them, what they do, and the ways between them.

use std::collections::VecDeque;

use super::oracle::Oracle;
use super::world::{Cut, Event, InUse, Mail, Process, Work, World, note};
use crate::loan::{
    Borrower, DevicePoint, Lender, Loan, LoanId, Peer, Place, Revision, StoreCommand, StoreReply, ToBorrower,
    ToLender, borrower, lender,
};
use crate::units::Micros;

/// Messages kept for replays: some minutes of a busy run.
const ARCHIVED: usize = 512;

impl World {
    /// Starts a node's daemon. One that still runs goes on beside it.
    pub(super) fn start(&mut self, node: usize) {
        if self.machines[node].main.is_some() && !self.plan.faults.overlaps {
            return;
        }
        if self.machines[node].point.is_none() {
            // The machine was off. Its clock begins anew, and its gates know nothing.
            self.machines[node].clock = self.machines[node].clock.restarted(self.now);
            let point = self.fresh_point(node);
            self.machines[node].point = Some(point);
            Oracle::rebooted(self, node);
        }
        let machine = &self.machines[node];
        let owners = machine.tenants.iter().map(|living| living.owner.clone()).collect();
        let now = machine.local(self.now);
        let (place, lending) = (machine.place.clone(), self.plan.lending);
        let installed = machine.point.as_ref().map_or(Revision::default(), DevicePoint::token);
        let lender = match Lender::new(place, super::plan::CAPACITY, lending, owners, installed, now) {
            Ok(lender) => lender.with_flaws(self.flaws),
            Err(error) => unreachable!("{error}"),
        };
        let process = self.processes.len();
        self.processes.push(Process {
            node,
            alive: true,
            paused: false,
            lender,
            borrower: None,
            todo: VecDeque::new(),
            wakes_at: None,
            borrowing: vec![false; self.machines[node].tenants.len()],
            raised: Vec::new(),
        });
        if let Some(old) = self.machines[node].main.replace(process) {
            self.machines[node].others.push(old);
        }
        self.machines[node].ready_since = Some(self.now);
        self.machines[node].serving_since = None;
        note!(self, "n{node}#{process} starts");
        let delay = self.rng.between(200, 20_000);
        self.after(delay, Event::ClaimArrives { process });
        self.observe(process);
        self.touched.insert(node);
    }

    /// Shows a daemon its device.
    pub(super) fn observe(&mut self, process: usize) {
        let machine = &self.machines[self.processes[process].node];
        let borrowing = &self.processes[process].borrowing;
        let demands = machine.tenants.iter().zip(borrowing).map(|(living, borrows)| lender::Demand {
            tenant: living.owner.tenant.clone(),
            wants: living.wants,
            borrows: *borrows,
        });
        let usage = InUse { tenants: &machine.tenants, workers: &machine.workers };
        let guests = machine.point.as_ref().map(|point| point.guest_memory(&usage)).unwrap_or_default();
        let observed = lender::Observed { demands: demands.collect(), guests };
        // A daemon that stood still looks at the device as it is, not as it was.
        let todo = &mut self.processes[process].todo;
        todo.retain(|work| !matches!(work, Work::Lend(lender::Input::Observed(_))));
        self.give(process, Work::Lend(lender::Input::Observed(observed)));
    }

    pub(super) fn observe_all(&mut self, node: usize) {
        for process in self.daemons(node) {
            self.observe(process);
        }
    }

    /// Tells a borrower what its tenants want elsewhere.
    pub(super) fn tell_wants(&mut self, process: usize) {
        let machine = &self.machines[self.processes[process].node];
        let wants = machine
            .tenants
            .iter()
            .map(|living| borrower::Want { tenant: living.owner.tenant.clone(), amount: living.abroad });
        let wants = wants.collect();
        self.give(process, Work::Borrow(borrower::Input::Wants(wants)));
    }

    pub(super) fn give(&mut self, process: usize, work: Work) {
        if self.processes[process].alive {
            self.processes[process].todo.push_back(work);
            self.proceed(process);
        }
    }

    /// Lets a daemon do what it has to, unless it stands still or dies over it.
    pub(super) fn proceed(&mut self, process: usize) {
        let node = self.processes[process].node;
        self.touched.insert(node);
        while self.processes[process].alive && !self.processes[process].paused {
            let now = self.machines[node].local(self.now);
            let Some(work) = self.processes[process].todo.pop_front() else { break };
            match work {
                Work::Lend(input) => {
                    if let lender::Input::Declared(incident) = &input {
                        self.raise(process, incident);
                    }
                    let says = self.processes[process].lender.handle(now, input);
                    for output in &says {
                        match output {
                            lender::Output::Cut(loans) => Oracle::cuts(self, node, loans),
                            lender::Output::TakeAll { owner, .. } => Oracle::takes_all(self, node, owner),
                            _ => {}
                        }
                    }
                    self.processes[process].todo.push_front(Work::LenderSays(self.now, says.into()));
                }
                Work::Borrow(input) => {
                    if let Some(borrower) = &mut self.processes[process].borrower {
                        let says = borrower.handle(now, input);
                        self.processes[process].todo.push_front(Work::BorrowerSays(self.now, says.into()));
                    }
                }
                Work::LenderSays(at, mut says) => {
                    if let Some(output) = says.pop_front() {
                        if self.fails_at_a_step(process) {
                            says.push_front(output);
                            self.processes[process].todo.push_front(Work::LenderSays(at, says));
                        } else if self.lender_does(process, at, output) {
                            self.processes[process].todo.push_front(Work::LenderSays(at, says));
                        }
                    }
                }
                Work::BorrowerSays(at, mut says) => {
                    if let Some(output) = says.pop_front() {
                        if self.fails_at_a_step(process) {
                            says.push_front(output);
                            self.processes[process].todo.push_front(Work::BorrowerSays(at, says));
                        } else if self.borrower_does(process, at, output) {
                            self.processes[process].todo.push_front(Work::BorrowerSays(at, says));
                        }
                    } else {
                        self.notice_borrowing(process);
                    }
                }
            }
        }
        self.plan_wake(process);
    }

    /// A tenant that borrows does not lend; the lender learns from the borrower beside it.
    fn notice_borrowing(&mut self, process: usize) {
        let Process { node, borrower: Some(borrower), borrowing, .. } = &self.processes[process] else {
            return;
        };
        let tenants = &self.machines[*node].tenants;
        let now: Vec<bool> = tenants.iter().map(|living| borrower.borrows(&living.owner.tenant)).collect();
        if now != *borrowing {
            self.processes[process].borrowing = now;
            self.observe(process);
        }
    }

    fn plan_wake(&mut self, process: usize) {
        let Process { node, alive, paused, lender, borrower, wakes_at, .. } = &self.processes[process];
        let clock = self.machines[*node].clock;
        let wake = lender.wake_at().into_iter().chain(borrower.as_ref().and_then(Borrower::wake_at)).min();
        let Some(wake) = wake.filter(|_| *alive && !paused).map(|wake| clock.when(wake.0).max(self.now + 1))
        else {
            return;
        };
        if wakes_at.is_none_or(|planned| wake < planned) {
            self.processes[process].wakes_at = Some(wake);
            self.at(wake, Event::Wake { process });
        }
    }

    pub(super) fn wake(&mut self, process: usize) {
        if self.processes[process].wakes_at != Some(self.now) {
            return;
        }
        self.processes[process].wakes_at = None;
        let now = self.machines[self.processes[process].node].local(self.now);
        let due = |at: Option<Micros>| at.is_some_and(|at| at <= now);
        let Process { lender, borrower, .. } = &self.processes[process];
        let (lends, borrows) = (due(lender.wake_at()), due(borrower.as_ref().and_then(Borrower::wake_at)));
        if lends {
            self.give(process, Work::Lend(lender::Input::Tick));
        }
        if borrows {
            self.give(process, Work::Borrow(borrower::Input::Tick));
        }
        self.plan_wake(process);
    }

    /// Carries out what a lender says. False if it could not be, so that the rest must not be.
    fn lender_does(&mut self, process: usize, decided_at: u64, output: lender::Output) -> bool {
        let node = self.processes[process].node;
        let local = self.machines[node].local(self.now);
        match output {
            lender::Output::Store(command) => {
                let delay = self.way_to_store();
                self.after(delay, Event::StoreArrives { process, command });
            }
            lender::Output::Install { token, table } => {
                let machine = &mut self.machines[node];
                let Some(point) = &mut machine.point else { return false };
                let usage = InUse { tenants: &machine.tenants, workers: &machine.workers };
                let result = point.install(local, token, &table, &usage);
                note!(self, "n{node}#{process} installs {token}: {result:?}");
                if result.is_ok() {
                    Oracle::installed(self, node, token, &table);
                }
                self.processes[process].todo.push_back(Work::Lend(lender::Input::Installed(result)));
            }
            lender::Output::Settle { token, loan, lapses } => {
                let Some(point) = &mut self.machines[node].point else { return false };
                let result = point.settle(token, &loan, lapses);
                note!(self, "n{node}#{process} settles {loan} at {}: {result:?}", lapses.0);
                return result.is_ok();
            }
            lender::Output::Cut(loans) => {
                note!(self, "n{node}#{process} cuts {}", loans.len());
                if let Some(point) = &mut self.machines[node].point {
                    point.cut(&loans);
                }
            }
            lender::Output::TakeAll { token, owner } => {
                let Some(point) = &mut self.machines[node].point else { return false };
                let result = point.take_all(token, &owner);
                note!(self, "n{node}#{process} takes all of {owner}: {result:?}");
                if let Err(stale) = result {
                    let refused = lender::Input::NotTaken { owner, stale };
                    self.processes[process].todo.push_back(Work::Lend(refused));
                    return false;
                }
            }
            lender::Output::Evict(loan) => {
                let delay = self.rng.between(10_000, 500_000);
                self.after(delay, Event::Evicted { node, loan });
            }
            lender::Output::Send { to, message } => {
                if let Some(to) = self.machines.iter().position(|machine| machine.place.node == to) {
                    self.mail(node, to, Mail::Down(message));
                }
            }
            lender::Output::Record(record) => self.recorded(process, decided_at, &record),
            lender::Output::Fenced => {
                note!(self, "n{node}#{process} is fenced");
                self.stats.fenced += 1;
                self.kill(process);
            }
        }
        true
    }

    fn borrower_does(&mut self, process: usize, decided_at: u64, output: borrower::Output) -> bool {
        let node = self.processes[process].node;
        let local = self.machines[node].local(self.now);
        let Some(by) = self.processes[process].borrower.as_ref().map(Borrower::incarnation) else {
            return false;
        };
        match output {
            borrower::Output::Raise(allowance) => {
                let device = self.node_of(&allowance.place);
                let loan = allowance.loan.clone();
                let result = self.machines[node].allowances.raise(by, allowance.clone());
                note!(
                    self,
                    "n{node}#{process} raises {loan} token {} for {} us: {result:?}",
                    allowance.token,
                    allowance.until.saturating_sub(local).0
                );
                if result.is_err() {
                    return false;
                }
                if loan.incarnation < by {
                    self.stats.resumed += 1;
                }
                Oracle::raised(self, node, by, &allowance);
                if let Some(device) = device {
                    self.touched.insert(device);
                    let delay = self.rng.between(10_000, 200_000);
                    self.after(delay, Event::Allocate { node: device, loan, borrower: node });
                }
            }
            borrower::Output::Shorten { loan, until } => {
                return self.machines[node].allowances.shorten(by, &loan, until).is_ok();
            }
            borrower::Output::Drop(loan) => {
                if self.machines[node].allowances.drop(by, &loan).is_err() {
                    return false;
                }
                self.stop_guest(&loan, 500_000);
            }
            borrower::Output::Drain(loan) => {
                let delay = self.rng.between(10_000, 2_500_000);
                if self.stop_guest(&loan, delay) {
                    self.after(delay + 1_000, Event::Drained { node, loan });
                }
            }
            borrower::Output::Send { to, message } => {
                if let Some(to) = self.machines.iter().position(|machine| machine.place.node == to) {
                    self.mail(node, to, Mail::Up(message));
                }
            }
            borrower::Output::Record(record) => self.recorded(process, decided_at, &record),
        }
        true
    }

    /// Asks a guest's worker to end. Some do not listen.
    fn stop_guest(&mut self, loan: &LoanId, within: u64) -> bool {
        let device = self.machines.iter().position(|machine| machine.workers.contains_key(loan));
        let Some(device) = device else { return true };
        let stubborn = self.machines[device].workers.get(loan).is_some_and(|worker| worker.stubborn);
        if !stubborn {
            let delay = self.rng.between(0, within);
            self.after(delay, Event::Leave { node: device, loan: loan.clone() });
        }
        !stubborn
    }

    /// A message, on a way that may lose, double and delay it.
    fn mail(&mut self, from: usize, to: usize, mail: Mail) {
        let faults = self.plan.faults;
        let word = match &mail {
            Mail::Up(message) => (message.word(), message.loan()),
            Mail::Down(message) => (message.word(), message.loan()),
        };
        if faults.replays {
            if self.archive.len() == ARCHIVED {
                self.archive.pop_front();
            }
            self.archive.push_back((from, to, mail.clone()));
        }
        let lost = self.is_cut(from, to) || self.rng.permille(faults.loss);
        if self.is_traced() {
            let text =
                format!("n{from} -> n{to}: {} {}{}", word.0, word.1, if lost { " (lost)" } else { "" });
            self.line(text);
        }
        if lost {
            return;
        }
        let copies = 1 + u64::from(self.rng.permille(faults.double));
        for _ in 0..copies {
            let slow = self.rng.permille(faults.slow);
            let delay =
                if slow { self.rng.between(100_000, 30_000_000) } else { self.rng.between(200, 20_000) };
            self.after(delay, Event::Deliver { from, to, mail: mail.clone() });
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, mail: Mail) {
        if self.is_cut(from, to) {
            return;
        }
        for process in self.daemons(to) {
            let work = match &mail {
                Mail::Up(message) => self.heard_by_lender(from, to, message.clone()),
                Mail::Down(message) => self.heard_by_borrower(from, message.clone()),
            };
            self.give(process, work);
        }
    }

    fn heard_by_lender(&self, from: usize, to: usize, message: ToLender) -> Work {
        let place = &self.machines[from].place;
        let from = Peer {
            node: place.node.clone(),
            district: place.district.clone(),
            weight: u32::try_from(from % 3).unwrap_or(0),
            distance: u32::try_from(from.abs_diff(to)).unwrap_or(0),
        };
        Work::Lend(lender::Input::Heard { from, message })
    }

    fn heard_by_borrower(&self, from: usize, message: ToBorrower) -> Work {
        let from = self.machines[from].place.node.clone();
        Work::Borrow(borrower::Input::Heard { from, message })
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&Cut::Between(a.min(b), a.max(b)))
    }

    fn store_is_cut(&self, node: usize) -> bool {
        self.cuts.iter().any(|cut| *cut == Cut::Store || *cut == Cut::ToStore(node))
    }

    fn way_to_store(&mut self) -> u64 {
        let slow = self.rng.permille(self.plan.faults.slow / 2);
        if slow { self.rng.between(100_000, 8_000_000) } else { self.rng.between(200, 10_000) }
    }

    pub(super) fn store_arrives(&mut self, process: usize, command: StoreCommand) {
        let node = self.processes[process].node;
        let op = match &command {
            StoreCommand::Read { op, .. } | StoreCommand::Swap { op, .. } => *op,
        };
        let faults = self.plan.faults;
        if self.store_is_cut(node) || self.rng.permille(faults.loss / 2) {
            if self.rng.permille(500) {
                self.after(10_000, Event::StoreReplies { process, reply: StoreReply::Failed { op } });
            }
            return;
        }
        // A client that retries may deliver twice; the second swap meets its own first.
        let copies = 1 + u64::from(self.rng.permille(faults.double / 2));
        for _ in 0..copies {
            let lagging = faults.lag && self.rng.permille(100);
            let written = match &command {
                StoreCommand::Swap { place, ledger, .. } => Some((place.clone(), ledger.clone())),
                StoreCommand::Read { .. } => None,
            };
            let reply = self.store.carry_out(command.clone(), lagging);
            if let (Some((place, ledger)), StoreReply::Swapped { revision, .. }) = (written, &reply) {
                note!(
                    self,
                    "store: {place} is at {revision}, epoch {}, {} loans",
                    ledger.epoch,
                    ledger.loans.len()
                );
                Oracle::written(self, &place, &ledger);
            }
            if !self.rng.permille(faults.loss / 2) {
                let delay = self.way_to_store();
                self.after(delay, Event::StoreReplies { process, reply });
            }
        }
    }

    pub(super) fn claim_arrives(&mut self, process: usize) {
        let Process { node, alive, borrower, .. } = &self.processes[process];
        if !alive || borrower.is_some() {
            return;
        }
        if !self.store_is_cut(*node) {
            let (incarnation, found) = self.store.claim(&self.machines[*node].place.node);
            let delay = self.way_to_store();
            self.after(delay, Event::ClaimReplies { process, incarnation, found });
        }
        self.after(1_000_000, Event::ClaimArrives { process });
    }

    pub(super) fn claimed(&mut self, process: usize, incarnation: u64, found: Vec<(Place, Loan)>) {
        let Process { node, alive, borrower, .. } = &self.processes[process];
        let node = *node;
        // An answer that comes late, to one that has started already or is no longer the newest.
        if !alive || borrower.is_some() || self.machines[node].main != Some(process) {
            return;
        }
        let clients = self.plan.nodes[node].clients.clone();
        let machine = &mut self.machines[node];
        machine.allowances.adopt(incarnation);
        Oracle::adopted(self, node, incarnation);
        let machine = &self.machines[node];
        let (name, district) = (machine.place.node.clone(), machine.place.district.clone());
        let now = machine.local(self.now);
        let borrower = Borrower::new(name, district, incarnation, self.plan.borrowing, clients, now);
        self.processes[process].borrower = Some(borrower.with_flaws(self.flaws));
        note!(self, "n{node}#{process} borrows as {incarnation}, {} found", found.len());
        self.give(process, Work::Borrow(borrower::Input::Found(found)));
        self.tell_wants(process);
    }

    /// What every node hears of the others from time to time.
    pub(super) fn offers(&mut self, node: usize) {
        let mut offers = Vec::new();
        for other in 0..self.machines.len() {
            let lost = self.is_cut(node, other) || self.rng.permille(self.plan.faults.loss);
            let Some(main) = self.machines[other].main.filter(|_| other != node && !lost) else { continue };
            if !self.processes[main].paused {
                offers.push(borrower::Offer {
                    place: self.machines[other].place.clone(),
                    amount: self.processes[main].lender.offer(),
                    distance: u32::try_from(node.abs_diff(other)).unwrap_or(0),
                });
            }
        }
        for process in self.daemons(node) {
            self.give(process, Work::Borrow(borrower::Input::Offers(offers.clone())));
        }
        self.after(2_000_000, Event::Offers { node });
    }
}
