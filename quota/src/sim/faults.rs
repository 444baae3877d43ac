//! What goes wrong.

use super::oracle::Oracle;
use super::world::{Cut, Event, Mail, Work, World, note};
use crate::loan::{
    Amount, Ask, DataClass, District, Guest, Incident, IncidentName, LoanId, Tenant, ToLender, lender,
};
use crate::tenant::Class;
use crate::units::{Bytes, Micros, Share};

/// Between faults that come from outside, in microseconds.
const FAULT_EVERY: (u64, u64) = (500_000, 12_000_000);

impl World {
    /// One thing goes wrong, of those that do in this run.
    pub(super) fn fault(&mut self) {
        let pause = self.rng.between(FAULT_EVERY.0, FAULT_EVERY.1);
        self.after(pause, Event::Fault);
        let faults = self.plan.faults;
        let node = self.rng.index(self.machines.len());
        let span = match self.rng.below(3) {
            0 => self.rng.between(10_000, 2_000_000),
            1 => self.rng.between(2_000_000, 20_000_000),
            _ => self.rng.between(10_000_000, 60_000_000),
        };
        match self.rng.below(12) {
            0 | 1 if faults.partitions => self.partition(node, span),
            2 if faults.outages => self.cut(Cut::Store, span.min(40_000_000)),
            3 if faults.reboots => self.reboot(node, span.min(15_000_000)),
            4 if faults.overlaps => self.overlap(node, span),
            5 if faults.pauses => {
                if let Some(process) = self.machines[node].main {
                    self.pause(process, span);
                }
            }
            6 if faults.reconfigure => self.reconfigure(node),
            7 if faults.incidents => self.declare(),
            8 | 9 if faults.replays => self.replay(),
            10 | 11 if faults.rude => self.be_rude(node),
            _ => {}
        }
    }

    /// Whether a daemon dies or stands still before its next step.
    pub(super) fn fails_at_a_step(&mut self, process: usize) -> bool {
        let faults = self.plan.faults;
        if !(faults.crashes || faults.pauses) || self.step_faults <= self.rng.below(100_000) {
            return false;
        }
        if faults.crashes && (!faults.pauses || self.rng.permille(500)) {
            self.kill(process);
        } else {
            let span = self.rng.between(100_000, 40_000_000);
            self.pause(process, span);
        }
        true
    }

    /// A daemon is gone, with all it had still to do. Its gates stay as they are.
    pub(super) fn kill(&mut self, process: usize) {
        if !self.processes[process].alive {
            return;
        }
        let node = self.processes[process].node;
        self.processes[process].alive = false;
        self.processes[process].todo.clear();
        self.stats.deaths += 1;
        note!(self, "n{node}#{process} dies");
        let machine = &mut self.machines[node];
        machine.others.retain(|other| *other != process);
        if machine.main == Some(process) {
            machine.main = None;
            machine.ready_since = None;
            machine.serving_since = None;
            if machine.point.is_some() {
                let delay = self.rng.between(100_000, 6_000_000);
                self.after(delay, Event::Start { node });
            }
        }
    }

    pub(super) fn pause(&mut self, process: usize, span: u64) {
        if !self.processes[process].alive || self.processes[process].paused {
            return;
        }
        let node = self.processes[process].node;
        self.processes[process].paused = true;
        note!(self, "n{node}#{process} stands still for {span} us");
        if self.machines[node].main == Some(process) {
            self.machines[node].ready_since = None;
            self.machines[node].serving_since = None;
            if self.plan.faults.overlaps && self.rng.permille(500) {
                // Somebody takes it for dead and starts another.
                let delay = self.rng.between(100_000, 3_000_000);
                self.after(delay, Event::Start { node });
            }
        }
        self.after(span, Event::Resume { process });
    }

    pub(super) fn resume(&mut self, process: usize) {
        if !self.processes[process].alive || !self.processes[process].paused {
            return;
        }
        let node = self.processes[process].node;
        self.processes[process].paused = false;
        note!(self, "n{node}#{process} goes on");
        if self.machines[node].main == Some(process) {
            self.machines[node].ready_since = Some(self.now);
        } else {
            let delay = self.rng.between(1_000_000, 20_000_000);
            self.after(delay, Event::Kill { process });
        }
        self.processes[process].wakes_at = None;
        self.give(process, Work::Lend(lender::Input::Tick));
        self.give(process, Work::Borrow(crate::loan::borrower::Input::Tick));
    }

    /// A second daemon is started beside the first, which goes on for a while.
    fn overlap(&mut self, node: usize, span: u64) {
        if let Some(old) = self.machines[node].main {
            self.start(node);
            self.after(span, Event::Kill { process: old });
        }
    }

    /// The machine goes off and comes back.
    fn reboot(&mut self, node: usize, span: u64) {
        // Gates that know nothing trust the lending limit of now; what was lent under another must be back first.
        let settled = self.machines[node].configured_at.is_none_or(|at| at + 90_000_000 < self.now);
        if self.machines[node].point.is_none() || !settled {
            return;
        }
        note!(self, "n{node} goes off");
        let point = self.machines[node].point.take();
        self.stats.stale_at_device += point.map_or(0, |point| point.stale());
        for process in self.daemons(node) {
            self.kill(process);
        }
        let machine = &mut self.machines[node];
        machine.workers.clear();
        for living in &mut machine.tenants {
            living.used = Bytes::ZERO;
        }
        self.stats.stale_at_node += machine.allowances.stale();
        machine.allowances = crate::loan::Allowances::new().with_flaws(self.flaws);
        Oracle::went_off(self, node);
        // Its sessions on other devices end when their connections do.
        let name = self.machines[node].place.node.clone();
        for device in 0..self.machines.len() {
            let loans: Vec<_> = self.machines[device].workers.keys().cloned().collect();
            for loan in loans.into_iter().filter(|loan| loan.node == name) {
                self.after(200_000, Event::Leave { node: device, loan });
            }
        }
        self.after(span, Event::Start { node });
    }

    /// Messages that were sent once are delivered again.
    fn replay(&mut self) {
        for _ in 0..self.rng.between(1, 20) {
            if !self.archive.is_empty() {
                let index = self.rng.index(self.archive.len());
                let (from, to, mail) = self.archive[index].clone();
                let delay = self.rng.between(0, 2_000_000);
                self.after(delay, Event::Deliver { from, to, mail });
            }
        }
    }

    /// A peer that is who it says asks for what it must not have, or speaks of what is not its own.
    fn be_rude(&mut self, from: usize) {
        let to = self.rng.index(self.machines.len());
        let ledger = self.store.ledger(&self.machines[to].place);
        let foreign = ledger.and_then(|ledger| ledger.loans.first()).map(|loan| loan.id.clone());
        let (place, home) = (self.machines[to].place.clone(), self.machines[from].place.clone());
        let other = self.rng.index(self.machines.len());
        let for_other = self.rng.permille(500);
        let district = self.machines[if for_other { other } else { from }].place.district.clone();
        let Some(tenant) = Tenant::new("stranger") else { return };
        let number = self.rng.between(1 << 40, 1 << 50);
        let message = match (self.rng.below(4), foreign) {
            (0, Some(loan)) => ToLender::Release { loan, incarnation: u64::MAX },
            (1, Some(loan)) => ToLender::Acknowledge { loan, incarnation: u64::MAX },
            (2, Some(loan)) => {
                ToLender::Renew { loan, incarnation: u64::MAX, attempt: u64::MAX, class: Class::Express }
            }
            _ => ToLender::Ask(Ask {
                loan: LoanId { node: home.node, incarnation: u64::MAX, number },
                attempt: 1,
                place,
                guest: Guest { district, tenant },
                class: Class::Express,
                data: if for_other { DataClass::Synthetic } else { DataClass::Raw },
                amount: Amount::compute(Share(100_000)),
            }),
        };
        // A peer may well tell lies about its own loans: it harms nobody but itself.
        if message.loan().node != self.machines[from].place.node || matches!(message, ToLender::Ask(_)) {
            note!(self, "n{from} is rude to n{to}: {message:?}");
            self.after(1_000, Event::Deliver { from, to, mail: Mail::Up(message) });
        }
    }

    fn partition(&mut self, node: usize, span: u64) {
        if self.rng.permille(300) {
            return self.cut(Cut::ToStore(node), span);
        }
        let alone = self.rng.permille(400);
        for other in 0..self.machines.len() {
            if other != node && (alone || self.rng.permille(400)) {
                self.cut(Cut::Between(node.min(other), node.max(other)), span);
            }
        }
        if alone && self.rng.permille(500) {
            self.cut(Cut::ToStore(node), span);
        }
    }

    fn cut(&mut self, cut: Cut, span: u64) {
        note!(self, "cut {cut:?} for {span} us");
        self.cuts.push(cut);
        self.after(span, Event::Heal { cut });
    }

    /// The operator changes what a node's tenants own and lend.
    fn reconfigure(&mut self, node: usize) {
        if self.machines[node].point.is_none() {
            return;
        }
        let tenant = self.rng.index(self.machines[node].tenants.len());
        let planned = self.plan.nodes[node].owners[tenant].clone();
        let percent = self.rng.between(30, 100);
        let owner = &mut self.machines[node].tenants[tenant].owner;
        owner.nominal.sm = Share(planned.nominal.sm.0 / 100 * percent);
        owner.lending_limit = Amount {
            sm: Share(owner.nominal.sm.0 / 4 * self.rng.below(5)),
            memory: planned.lending_limit.memory.min(owner.nominal.memory),
        };
        let owners: Vec<_> = self.machines[node].tenants.iter().map(|living| living.owner.clone()).collect();
        note!(self, "n{node} is configured anew: {owners:?}");
        self.machines[node].configured_at = Some(self.now);
        if let Some(point) = &mut self.machines[node].point
            && point.configure(owners.clone()).is_err()
        {
            unreachable!("nominal quotas only shrink below what was planned");
        }
        for process in self.daemons(node) {
            self.give(process, Work::Lend(lender::Input::Configure(owners.clone())));
        }
        self.touched.insert(node);
    }

    /// Somebody declares an incident that concerns a few tenants.
    fn declare(&mut self) {
        let mut tenants = Vec::new();
        for node in 0..self.machines.len() {
            for living in &self.machines[node].tenants {
                if self.rng.permille(200) {
                    let district = self.machines[node].place.district.clone();
                    tenants.push(Guest { district, tenant: living.owner.tenant.clone() });
                }
            }
        }
        self.incidents += 1;
        let name = IncidentName::new(&format!("drill-{}", self.incidents));
        let (Some(issuer), Some(name)) = (District::new("city"), name) else { return };
        let incident = Incident {
            issuer,
            number: self.incidents,
            name,
            tenants,
            class: Class::Express,
            duration: Micros(self.rng.between(1_000_000, 40_000_000)),
            reclaim: self.rng.permille(500),
        };
        note!(self, "incident {} names {} tenants", incident.number, incident.tenants.len());
        for node in 0..self.machines.len() {
            let copies = 1 + u64::from(self.rng.permille(self.plan.faults.double));
            for _ in 0..copies {
                if !self.rng.permille(self.plan.faults.loss) {
                    let delay = self.rng.between(1_000, 3_000_000);
                    self.after(delay, Event::Declared { node, incident: incident.clone() });
                }
            }
        }
    }
}
