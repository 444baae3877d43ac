//! The loop: device, programs and daemon take turns in virtual time.

use std::sync::atomic::Ordering::{Acquire, Release};

use headgate_abi::segment::SegmentError;
use headgate_abi::segment::layout::GATE_OPEN_BIT;
use headgate_abi::segment::progress::{open_batches, progress, waits_at_host};
use headgate_quota::window::{Account, Filling, Lead};
use headgate_quota::{ComputeQuota, Micros, Observation, WindowScheduler, WindowSettings};
use headgate_simgpu::model::{DeviceMeter, DeviceSpec, Model, Nanos};

use crate::device::{Deed, Memories, Memory};
use crate::program::{Batches, Program, ProgramPlan};
use crate::rng::Rng;

const US: Nanos = 1_000;
/// Most launches in a batch, as the daemon publishes it.
const BATCH_LAUNCHES_MAX: u64 = 64;
/// How long a hook lets a daemon be silent, and how often it looks.
const SILENCE_NS: Nanos = (headgate_abi::limits::HEARTBEAT_STALE_US + 10_000) * US;

/// A tenant and its programs.
#[derive(Clone, PartialEq, Debug)]
pub struct TenantPlan {
    /// Its quota.
    pub quota: ComputeQuota,
    /// Its programs.
    pub programs: Vec<ProgramPlan>,
}

/// How the machine around the device behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// The scheduler's settings.
    pub settings: WindowSettings,
    /// Time the device takes to bring another context in.
    pub switch_ns: Nanos,
    /// Longest a tick comes late.
    pub late_ns: Nanos,
    /// Longest from a gate word's change to the device's seeing it.
    pub poll_ns: Nanos,
    /// Longest from the ring of a program at rest that gets work to the tick it causes; `None` where the kernel cannot
    /// wait for bells, and arrivals are looked for.
    pub bell_ns: Option<Nanos>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            settings: WindowSettings::default(),
            switch_ns: 50 * US,
            late_ns: 30 * US,
            poll_ns: 20 * US,
            bell_ns: Some(50 * US),
        }
    }
}

/// One device, its tenants, and the daemon's thread for it.
#[derive(Debug)]
pub struct Node {
    now: Nanos,
    pace: Pace,
    model: Model<Deed>,
    memories: Memories,
    programs: Vec<Program>,
    /// Whose a program is.
    owners: Vec<usize>,
    scheduler: WindowScheduler<usize>,
    leads: Vec<Lead>,
    fillings: Vec<Filling>,
    next_tick: Nanos,
    /// When the device looks at gate words again, after one changed.
    next_poll: Option<Nanos>,
    killed_at: Option<Nanos>,
    /// Ticks of the daemon.
    pub ticks: u64,
    rng: Rng,
}

impl Node {
    /// A node at the moment 0.
    ///
    /// # Errors
    /// When the kernel gives no shared memory.
    pub fn start(plans: &[TenantPlan], pace: Pace, seed: u64) -> Result<Self, SegmentError> {
        let mut rng = Rng::new(seed);
        let spec = DeviceSpec { sms: 132, slice_ns: 1_000 * US, switch_ns: pace.switch_ns };
        let mut node = Self {
            now: 0,
            pace,
            model: Model::new(0, &[spec]),
            memories: Memories::default(),
            programs: Vec::new(),
            owners: Vec::new(),
            scheduler: WindowScheduler::new(pace.settings),
            leads: vec![Lead::default(); plans.len()],
            fillings: vec![Filling::default(); plans.len()],
            next_tick: 0,
            next_poll: None,
            killed_at: None,
            ticks: 0,
            rng: rng.clone(),
        };
        for (tenant, plan) in plans.iter().enumerate() {
            for program in &plan.programs {
                let index = node.programs.len();
                node.memories.0.push(Memory::new()?);
                let own = Rng::new(rng.any());
                node.programs.push(Program::start(*program, index, &mut node.model, &node.memories, own));
                node.owners.push(tenant);
            }
        }
        node.set_quotas(&plans.iter().map(|plan| plan.quota).collect::<Vec<_>>());
        Ok(node)
    }

    /// Changes all quotas, as a reload of the configuration does.
    pub fn set_quotas(&mut self, quotas: &[ComputeQuota]) {
        self.scheduler.set_tenants(quotas.iter().copied().enumerate());
        self.next_tick = self.next_tick.min(self.now);
    }

    /// Kills the daemon.
    pub fn kill_daemon(&mut self) {
        self.killed_at = Some(self.now);
        self.next_tick = self.now + SILENCE_NS;
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Device time a tenant has had, by the device's own account.
    #[must_use]
    pub fn busy_ns(&self, tenant: usize) -> Nanos {
        let own = self.programs.iter().zip(&self.owners).filter(|(_, owner)| **owner == tenant);
        own.filter_map(|(program, _)| self.model.context_meter(program.context))
            .map(|meter| meter.busy_ns)
            .sum()
    }

    /// What the device has done.
    ///
    /// # Panics
    /// Never: there is a device.
    #[must_use]
    pub fn device(&self) -> DeviceMeter {
        self.model.device_meter(0).unwrap_or_default()
    }

    /// What the scheduler has charged a tenant.
    #[must_use]
    pub fn account(&self, tenant: usize) -> Option<Account> {
        self.scheduler.account(tenant)
    }

    /// How long answered requests of a program took.
    #[must_use]
    pub fn latencies(&self, program: usize) -> &[Nanos] {
        &self.programs[program].latencies
    }

    /// What the device did for a program.
    pub fn memory(&mut self, program: usize) -> &mut Memory {
        &mut self.memories.0[program]
    }

    /// Whether nothing launched is left undone.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let done = |program: &Program| program.launched() == self.memories.0[program.index()].kernels;
        self.programs.iter().all(done)
    }

    /// Goes on to a moment.
    pub fn run_until(&mut self, end: Nanos) {
        while self.now < end {
            let wakes = self.programs.iter().filter_map(|program| program.wake).min();
            let events = [self.model.next_event(), self.next_poll, wakes, Some(self.next_tick), Some(end)];
            let next = events.into_iter().flatten().min().unwrap_or(end);
            self.now = next.max(self.now);
            self.model.advance(self.now, &mut self.memories);
            if self.next_poll.is_some_and(|poll| poll <= self.now) {
                self.next_poll = None;
                self.model.poll(&mut self.memories);
            }
            for index in 0..self.programs.len() {
                if self.programs[index].is_due(self.now, &self.memories) {
                    let batches = Batches {
                        span_ns: self.scheduler.batch(self.owners[index]).0 * US,
                        launches_max: BATCH_LAUNCHES_MAX,
                    };
                    self.programs[index].go_on(self.now, &mut self.model, &mut self.memories, batches);
                }
            }
            self.hear();
            if self.next_tick <= self.now {
                self.tick();
            }
        }
    }

    /// Whoever was at rest and got work wakes the daemon.
    fn hear(&mut self) {
        let rung = self.programs.iter_mut().fold(false, |rung, program| rung | program.has_rung());
        if let Some(bell_ns) = self.pace.bell_ns.filter(|_| rung && self.killed_at.is_none()) {
            let heard = self.now + self.rng.between(5 * US, bell_ns);
            self.next_tick = self.next_tick.min(heard);
        }
    }

    fn tick(&mut self) {
        if self.killed_at.is_some() {
            // The hooks' watches, not the daemon.
            (0..self.programs.len()).for_each(|program| self.set_gate(program, true));
            self.next_tick = self.now + SILENCE_NS;
            return;
        }
        self.ticks += 1;
        let Self { scheduler, memories, owners, fillings, pace, .. } = self;
        let now = Micros(self.now / US);
        scheduler.tick(now, |tenant| {
            observe(tenant, now, memories, owners, &mut fillings[tenant], &pace.settings)
        });
        for tenant in 0..self.leads.len() {
            let own: Vec<usize> = (0..self.programs.len()).filter(|&p| self.owners[p] == tenant).collect();
            let works = |program: &usize| {
                let progress = progress(self.memories.0[*program].seat(), 0);
                let at_host = waits_at_host(self.memories.0[*program].seat(), 0);
                let works =
                    progress.waiting || progress.running || at_host || self.fillings[tenant].works(*program);
                (*program, works)
            };
            let working: Vec<(usize, bool)> = own.iter().map(works).collect();
            let (open, exclusive) = (self.scheduler.gate_open(tenant), self.scheduler.is_exclusive(tenant));
            let only =
                self.leads[tenant].choose(now, open, exclusive, &working, self.pace.settings.window_max);
            for program in own {
                // The host's gate is the tenant's.
                let turn = self.programs[program].waits_on_host() || only.is_none_or(|only| only == program);
                self.set_gate(program, open && turn);
            }
        }
        let late = self.rng.between(0, self.pace.late_ns);
        self.next_tick = self.now + self.scheduler.sleep(self.pace.bell_ns.is_some()).0 * US + late;
    }

    fn set_gate(&mut self, program: usize, open: bool) {
        let word = &self.memories.0[program].seat().gates[0];
        let before = word.load(Acquire);
        if open == (before & GATE_OPEN_BIT != 0) {
            return;
        }
        word.store(
            if open { before.wrapping_add(2) | GATE_OPEN_BIT } else { before & !GATE_OPEN_BIT },
            Release,
        );
        if open && self.next_poll.is_none() {
            self.next_poll = Some(self.now + self.rng.between(US, self.pace.poll_ns.max(US)));
        }
    }
}

/// What the daemon sees of a tenant, by the same words and the same law.
fn observe(
    tenant: usize,
    now: Micros,
    memories: &Memories,
    owners: &[usize],
    filling: &mut Filling,
    settings: &WindowSettings,
) -> Observation {
    let own = || memories.0.iter().enumerate().filter(|(program, _)| owners[*program] == tenant);
    let open = own().flat_map(|(program, memory)| {
        open_batches(memory.seat(), 0).map(move |(lane, batch)| (program, lane, batch))
    });
    filling.look(now, open, settings);
    let mut seen = Observation { last_batch: true, on_host: true, ..Observation::default() };
    for (program, memory) in own() {
        let fills = filling.works(program);
        let progress = progress(memory.seat(), 0);
        let at_host = waits_at_host(memory.seat(), 0);
        seen.waiting |= progress.waiting || at_host;
        seen.on_host &= !progress.waiting;
        seen.in_flight |= progress.running || fills;
        seen.last_batch &= !progress.queued && !at_host;
        if progress.backlog != 0 {
            seen.backlog =
                if seen.backlog == 0 { progress.backlog } else { seen.backlog.min(progress.backlog) };
        }
        let (finished, open) = memory.seat().busy[0].read(now.0);
        seen.finished = seen.finished.saturating_add(Micros(finished));
        if progress.waiting || progress.running || fills {
            seen.open = seen.open.max(open.map(Micros));
        }
        seen.progress = seen.progress.wrapping_add(u64::from(progress.completed));
    }
    seen
}
