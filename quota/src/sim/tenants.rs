//! Tenants: what they want, and the memory they use.

use super::world::{Event, InUse, Work, Worker, World, note};
use crate::loan::{Amount, Incident, LoanId, borrower, lender};
use crate::units::{Bytes, Share};

impl World {
    /// A tenant enters another phase of its day.
    pub(super) fn demand(&mut self, node: usize, owner: usize) {
        let nominal = self.machines[node].tenants[owner].owner.nominal;
        let hundredth = nominal.sm.0 / 100;
        let (sm, memory) = match self.rng.below(100) {
            // Idle, moderate, all of its own, far beyond it.
            0..45 => (hundredth * self.rng.below(10), self.rng.below(15)),
            45..65 => (hundredth * self.rng.between(20, 70), self.rng.between(10, 60)),
            65..80 => (hundredth * self.rng.between(90, 120), self.rng.between(50, 100)),
            _ => (nominal.sm.0 + self.rng.between(50_000, 900_000), self.rng.between(20, 100)),
        };
        let wants = Amount { sm: Share(sm), memory: Bytes(nominal.memory.0 / 100 * memory) };
        let mut abroad = Amount::compute(wants.sm.saturating_sub(nominal.sm));
        if self.rng.permille(400) && abroad.sm != Share::ZERO {
            abroad.memory = Bytes(self.rng.between(1, 8) << 28);
        }
        let living = &mut self.machines[node].tenants[owner];
        living.wants = wants;
        living.abroad = abroad;
        note!(self, "n{node} tenant {owner} wants {wants}, abroad {abroad}");
        for process in self.daemons(node) {
            self.observe(process);
            self.tell_wants(process);
        }
        let pace = self.plan.nodes[node].pace_permille;
        let phase = if self.rng.permille(200) {
            self.rng.between(10_000, 2_000_000)
        } else {
            self.rng.between(2_000_000, 40_000_000)
        };
        self.touched.insert(node);
        self.after(phase / 1_000 * pace, Event::Demand { node, owner });
    }

    /// Owners take the memory they want as far as they may, and give back what they do not want.
    pub(super) fn breathe(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(point) = &machine.point else { return };
        let usage = InUse { tenants: &machine.tenants, workers: &machine.workers };
        let limits = point.limits(machine.local(now), &usage);
        for living in &mut machine.tenants {
            let limit = limits.of_owner(&living.owner.tenant).unwrap_or_default().memory;
            let target = living.wants.memory;
            living.used = if target < living.used { target } else { living.used.max(target.min(limit)) };
        }
    }

    /// A guest's worker takes the memory of its loan.
    pub(super) fn allocate(&mut self, node: usize, loan: &LoanId, borrower: usize) {
        let home = &self.machines[borrower];
        let now = home.local(self.now);
        if !home.allowances.held(now).any(|allowance| allowance.loan == *loan) {
            return;
        }
        let stubborn = self.plan.faults.stubborn && self.rng.permille(300);
        let machine = &self.machines[node];
        let Some(point) = &machine.point else { return };
        let usage = InUse { tenants: &machine.tenants, workers: &machine.workers };
        let limit = point.limits(machine.local(self.now), &usage).of_guest(loan).unwrap_or_default();
        let known = machine.workers.get(loan).copied();
        let held = known.map_or(Bytes::ZERO, |worker| worker.held);
        if held < limit.memory {
            let stubborn = known.map_or(stubborn, |worker| worker.stubborn);
            self.machines[node].workers.insert(loan.clone(), Worker { held: limit.memory, stubborn });
            note!(self, "n{node} guest {loan} holds {} bytes", limit.memory.0);
            self.observe_all(node);
        }
        self.touched.insert(node);
    }

    /// A guest's worker ends.
    pub(super) fn leave(&mut self, node: usize, loan: &LoanId, evicted: bool) {
        if self.machines[node].workers.remove(loan).is_some() {
            note!(self, "n{node} guest {loan} is gone{}", if evicted { ", evicted" } else { "" });
            self.observe_all(node);
        }
        self.touched.insert(node);
    }

    /// A node hears of an incident.
    pub(super) fn declared(&mut self, node: usize, incident: &Incident) {
        for process in self.daemons(node) {
            self.give(process, Work::Lend(lender::Input::Declared(incident.clone())));
            self.give(process, Work::Borrow(borrower::Input::Declared(incident.clone())));
        }
    }

    /// A daemon takes an incident in: from now on it must treat the tenants accordingly.
    pub(super) fn raise(&mut self, process: usize, incident: &Incident) {
        let clock = self.machines[self.processes[process].node].clock;
        let ends = clock.when(clock.local(self.now) + incident.duration.0);
        let raised = &mut self.processes[process].raised;
        if raised.iter().all(|(known, _)| known.number != incident.number) {
            raised.push((incident.clone(), ends));
        }
    }
}
