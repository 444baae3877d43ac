//! Programs under the hook: what they launch, and how the hook makes batches of it.
//!
//! The batching is the hook's (`hook/src/pace.rs`) without its driver calls: a batch begins with a wait for the
//! gate and a mark, holds about `batch_us` of work by a cost it only knows roughly, and ends with a mark, when
//! it is full or before the program looks at the device.

use std::sync::atomic::Ordering::{Acquire, Release};

use headgate_abi::segment::layout::GATE_OPEN_BIT;
use headgate_simgpu::model::{ContextId, Mark, Model, Nanos, Op, StreamId, StreamKind, Work};

use crate::device::{Deed, Memories};
use crate::rng::Rng;

const US: Nanos = 1_000;
/// Host time of one launch.
const LAUNCH_NS: Nanos = 2 * US;
/// Launches the driver queues before it holds the program.
const QUEUE_MAX: u64 = 1_024;
/// Work that a program may be ahead of the device whose gate is on the host, and in how many batches: the hook's law
/// (`hook/src/pace/turn.rs`).
const AHEAD_NS: Nanos = 1_000 * US;
const AHEAD_BATCHES: std::ops::RangeInclusive<u64> = 2..=4;
const LONG_NS: Nanos = 10_000 * US;
/// Least and most between two looks of a program that waits on the host, its sleep's lateness included.
const LOOK_NS: (Nanos, Nanos) = (50 * US, 150 * US);
/// Launches made in one go of the simulation; their host time follows at once.
const CHUNK: u64 = 16;

/// What a program does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Behaviour {
    /// Launches as fast as the driver lets it.
    Saturate,
    /// Launches some kernels, waits for them, computes on the host, and so on.
    Pulse {
        /// Kernels launched at once.
        kernels: u64,
        /// Host time between the end of one pulse and the next.
        think_ns: Nanos,
    },
    /// Answers requests that come at random moments, one after the other.
    Serve {
        /// Kernels of a request.
        kernels: u64,
        /// Mean span between two requests.
        gap_ns: Nanos,
    },
    /// Launches some kernels and then neither looks at the device nor launches again.
    Abandon {
        /// Kernels launched.
        kernels: u64,
    },
}

/// Where a program's work waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Nowhere: the hook does not follow it. What the device does by itself.
    Nowhere,
    /// In its streams.
    Device,
    /// In the program, which looks every so often whether it may go on.
    Host,
}

/// A program.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProgramPlan {
    /// What it does.
    pub behaviour: Behaviour,
    /// Length of its kernels.
    pub kernel_ns: Nanos,
    /// Streams its launches go round; each waits for the one before where `crossed`.
    pub streams: usize,
    /// Kernels wait, by event, for the last one in another stream.
    pub crossed: bool,
    /// When it starts.
    pub from_ns: Nanos,
    /// When it launches for the last time.
    pub until_ns: Nanos,
    /// Where its work waits.
    pub gate: Gate,
}

impl ProgramPlan {
    /// A program that launches kernels of this length as fast as it can.
    #[must_use]
    pub fn saturating(kernel_ns: Nanos) -> Self {
        Self::of(Behaviour::Saturate, kernel_ns)
    }

    /// A program of one stream that runs all the time.
    #[must_use]
    pub fn of(behaviour: Behaviour, kernel_ns: Nanos) -> Self {
        let (from_ns, until_ns) = (0, Nanos::MAX);
        Self { behaviour, kernel_ns, streams: 1, crossed: false, from_ns, until_ns, gate: Gate::Device }
    }
}

/// One stream of a program and its lane.
#[derive(Debug)]
struct Lane {
    stream: StreamId,
    number: u32,
    batch: u64,
    launched: u64,
    /// Launches of the batch before.
    sized: u64,
    /// Size of the batch before, while nothing is known of what a launch costs.
    grown: u64,
    last: Option<Mark>,
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    plan: ProgramPlan,
    index: usize,
    /// Its context on the device.
    pub context: ContextId,
    lanes: Vec<Lane>,
    next_lane: usize,
    launched: u64,
    /// When it does something by itself again.
    pub wake: Option<Nanos>,
    /// It waits until this many of its kernels have ended.
    waits_for: Option<u64>,
    /// Kernels of the pulse or request under way that are still to be launched.
    to_launch: u64,
    /// When requests that are not answered yet came.
    requests: std::collections::VecDeque<Nanos>,
    next_request: Nanos,
    /// How long answered requests took.
    pub latencies: Vec<Nanos>,
    /// Whether it has handed work to the device while it had none there.
    rung: bool,
    /// Whether it stands at the host's gate, or waits for room behind what the device has.
    stands: bool,
    /// Whether it waits for room.
    full: bool,
    /// The hook's idea of a launch's cost, in percent of the truth.
    belief: u64,
    rng: Rng,
}

/// What the hook is told about batches.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// Work a batch should hold.
    pub span_ns: Nanos,
    /// Most launches in one.
    pub launches_max: u64,
}

impl Program {
    /// Starts a program on device 0.
    ///
    /// # Panics
    /// When the model loses a context that it has just made.
    pub fn start(
        plan: ProgramPlan,
        index: usize,
        model: &mut Model<Deed>,
        memories: &Memories,
        mut rng: Rng,
    ) -> Self {
        let context = model.open_context(0);
        let seat = memories.0[index].seat();
        let lanes: Vec<Lane> = (0..plan.streams.max(1))
            .map(|lane| {
                seat.lanes[lane].device.store(1, Release);
                let Some(stream) = model.open_stream(context, StreamKind::NonBlocking, 0, 0) else {
                    unreachable!("the context was just made")
                };
                Lane { stream, number: 0, batch: 0, launched: 0, sized: 0, grown: 1, last: None }
            })
            .collect();
        seat.lanes_high.store(u32::try_from(lanes.len()).unwrap_or(0), Release);
        let belief = rng.between(70, 140);
        let next_request = match plan.behaviour {
            Behaviour::Serve { gap_ns, .. } => plan.from_ns + rng.exponential(gap_ns),
            _ => plan.from_ns,
        };
        Self {
            plan,
            index,
            context,
            lanes,
            next_lane: 0,
            launched: 0,
            wake: Some(next_request),
            waits_for: None,
            to_launch: 0,
            requests: std::collections::VecDeque::new(),
            next_request,
            latencies: Vec::new(),
            rung: false,
            stands: false,
            full: false,
            belief,
            rng,
        }
    }

    /// Kernels launched.
    #[must_use]
    pub fn launched(&self) -> u64 {
        self.launched
    }

    /// Whether its work waits in the program.
    #[must_use]
    pub fn waits_on_host(&self) -> bool {
        self.plan.gate == Gate::Host
    }

    fn is_followed(&self) -> bool {
        self.plan.gate != Gate::Nowhere
    }

    /// Whether it has rung since it was last asked.
    pub fn has_rung(&mut self) -> bool {
        std::mem::take(&mut self.rung)
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether it can go on at `now`.
    #[must_use]
    pub fn is_due(&self, now: Nanos, memories: &Memories) -> bool {
        self.wake.is_some_and(|wake| wake <= now)
            || self.waits_for.is_some_and(|kernels| kernels <= memories.0[self.index].kernels)
    }

    /// Goes on.
    pub fn go_on(&mut self, now: Nanos, model: &mut Model<Deed>, memories: &mut Memories, batches: Batches) {
        let done = memories.0[self.index].kernels;
        match self.plan.behaviour {
            Behaviour::Saturate => {
                self.wake = None;
                self.waits_for = None;
                if self.plan.until_ns <= now {
                    self.flush(model, memories);
                } else if QUEUE_MAX <= self.launched - done {
                    // The driver lets a held program go when some of its queue is done.
                    self.waits_for = Some(self.launched - QUEUE_MAX + CHUNK);
                } else {
                    // Long kernels need no deep queue to keep the device busy; a shorter one simulates faster.
                    let launched = self.launch(CHUNK, model, memories, batches);
                    self.wake = Some(self.next_go(now, launched, CHUNK));
                }
            }
            Behaviour::Pulse { kernels, think_ns } => {
                self.pulse(now, kernels, think_ns, model, memories, batches)
            }
            Behaviour::Serve { kernels, gap_ns } => {
                self.serve(now, kernels, gap_ns, model, memories, batches)
            }
            Behaviour::Abandon { kernels } => {
                let launched = self.launch(kernels, model, memories, batches);
                self.plan.behaviour = Behaviour::Abandon { kernels: kernels - launched };
                self.wake = (launched < kernels).then(|| self.next_go(now, launched, kernels));
            }
        }
    }

    fn pulse(
        &mut self,
        now: Nanos,
        kernels: u64,
        think_ns: Nanos,
        model: &mut Model<Deed>,
        memories: &mut Memories,
        batches: Batches,
    ) {
        if self.waits_for.take().is_some() {
            self.looked(now, memories);
            let think = self.rng.between(think_ns / 2, think_ns + think_ns / 2);
            self.wake = Some(now + think);
            return;
        }
        if self.plan.until_ns <= now {
            self.wake = None;
            return;
        }
        self.launch_some(now, kernels, model, memories, batches);
    }

    fn serve(
        &mut self,
        now: Nanos,
        kernels: u64,
        gap_ns: Nanos,
        model: &mut Model<Deed>,
        memories: &mut Memories,
        batches: Batches,
    ) {
        while self.next_request <= now && self.next_request < self.plan.until_ns {
            self.requests.push_back(self.next_request);
            self.next_request += self.rng.exponential(gap_ns).max(1);
        }
        if self.waits_for.is_some_and(|kernels| kernels <= memories.0[self.index].kernels) {
            self.waits_for = None;
            self.looked(now, memories);
            if let Some(came) = self.requests.pop_front() {
                self.latencies.push(now - came);
            }
        }
        if self.waits_for.is_some() || self.requests.is_empty() {
            self.wake = (now < self.plan.until_ns).then_some(self.next_request);
            return;
        }
        self.launch_some(now, kernels, model, memories, batches);
    }

    /// Launches the next few of `kernels`; after the last, waits for them all.
    fn launch_some(
        &mut self,
        now: Nanos,
        kernels: u64,
        model: &mut Model<Deed>,
        memories: &mut Memories,
        batches: Batches,
    ) {
        if self.to_launch == 0 {
            self.to_launch = kernels;
        }
        let count = self.to_launch.min(CHUNK);
        let launched = self.launch(count, model, memories, batches);
        self.to_launch -= launched;
        if self.to_launch == 0 {
            self.flush(model, memories);
            self.waits_for = Some(self.launched);
            self.wake = None;
        } else {
            self.wake = Some(self.next_go(now, launched, count));
        }
    }

    /// When it launches again that has launched `launched` of `count`: as soon as the host has made them, or at the next look
    /// whether it may.
    fn next_go(&mut self, now: Nanos, launched: u64, count: u64) -> Nanos {
        let look = if launched < count { self.rng.between(LOOK_NS.0, LOOK_NS.1) } else { 0 };
        now + launched * LAUNCH_NS + look
    }

    /// The program has learnt that all its work is done.
    fn looked(&self, now: Nanos, memories: &Memories) {
        if self.is_followed() {
            memories.0[self.index].seat().busy[0].finish(now / US);
        }
    }

    /// Launches up to `count` kernels; how many it was before it had to wait on the host.
    fn launch(
        &mut self,
        count: u64,
        model: &mut Model<Deed>,
        memories: &mut Memories,
        batches: Batches,
    ) -> u64 {
        for launched in 0..count {
            let lane = self.next_lane;
            if self.lanes[lane].batch == 0 && !self.may_begin(lane, model.now(), memories) {
                return launched;
            }
            self.next_lane = (lane + 1) % self.lanes.len();
            let mut after = Vec::new();
            if self.plan.crossed && 1 < self.lanes.len() {
                // An event is recorded in the other stream, which ends its batch, and waited for in this one.
                let other = (lane + self.lanes.len() - 1) % self.lanes.len();
                self.close(other, model, memories);
                after.extend(self.lanes[other].last);
            }
            if self.is_followed() && self.lanes[lane].batch == 0 {
                self.begin(lane, model, memories, batches);
            }
            let kernel = Work::Kernel { duration: self.plan.kernel_ns, sms: u32::MAX };
            let deed = Deed::Kernel { program: self.index };
            self.submit(lane, Op { work: kernel, after, payload: deed }, model, memories);
            self.launched += 1;
            self.lanes[lane].launched += 1;
            if self.is_followed() && self.lanes[lane].batch <= self.lanes[lane].launched {
                self.close(lane, model, memories);
            }
        }
        count
    }

    /// Whether the host lets a batch through: it has room behind what the device has, and its gate is open.
    fn may_begin(&mut self, lane: usize, now: Nanos, memories: &Memories) -> bool {
        if self.plan.gate != Gate::Host {
            return true;
        }
        let memory = &memories.0[self.index];
        let seat = memory.seat();
        let ahead = self.lanes[lane].number.wrapping_sub(seat.marks[lane].completed.load(Acquire));
        let believed = (self.plan.kernel_ns * self.belief / 100).max(1) * self.lanes[lane].sized.max(1);
        let most = match believed {
            LONG_NS.. => 1,
            _ => (AHEAD_NS / believed).clamp(*AHEAD_BATCHES.start(), *AHEAD_BATCHES.end()),
        };
        let full = most <= u64::from(ahead);
        if self.full && !full && self.launched == memory.kernels {
            // It has waited for just that.
            seat.busy[0].finish(now / US);
        }
        self.full = full;
        let open = seat.gates[0].load(Acquire) & GATE_OPEN_BIT != 0;
        let stands = full || !open;
        if stands != self.stands {
            self.stands = stands;
            seat.waiting[0].store(u32::from(stands), Release);
            self.rung |= stands && !open;
        }
        !stands
    }

    fn begin(&mut self, lane: usize, model: &mut Model<Deed>, memories: &mut Memories, batches: Batches) {
        let believed = (self.plan.kernel_ns.saturating_mul(self.belief) / 100).max(1);
        let more = if self.waits_on_host() { believed } else { 0 };
        let aimed = ((batches.span_ns + more) / believed).clamp(1, batches.launches_max);
        let own = &mut self.lanes[lane];
        own.batch = aimed.min(own.grown);
        own.grown = (own.grown * 2).min(batches.launches_max);
        let number = own.number.wrapping_add(1);
        let program = self.index;
        let seat = memories.0[program].seat();
        let now_us = (model.now() / US).max(1);
        if !seat.busy[0].runs() {
            seat.busy[0].begin(now_us);
            self.rung = true;
        } else if self.launched == memories.0[program].kernels {
            seat.busy[0].restart(now_us);
            self.rung = true;
        }
        if self.plan.gate == Gate::Host {
            memories.0[program].seat().marks[lane].started.store(number, Release);
            memories.0[program].seat().lanes[lane].begun.store(number, Release);
            return;
        }
        memories.0[program].seat().lanes[lane].begun.store(number, Release);
        let gate = Op { work: Work::Wait, after: Vec::new(), payload: Deed::Gate { program } };
        self.submit(lane, gate, model, memories);
        let mark = Deed::Started { program, lane, number };
        self.submit(lane, Op { work: Work::Instant, after: Vec::new(), payload: mark }, model, memories);
    }

    fn close(&mut self, lane: usize, model: &mut Model<Deed>, memories: &mut Memories) {
        let followed = self.is_followed();
        let own = &mut self.lanes[lane];
        if own.launched == 0 || !followed {
            own.launched = 0;
            return;
        }
        own.sized = own.launched;
        (own.batch, own.launched) = (0, 0);
        own.number = own.number.wrapping_add(1);
        let (program, number) = (self.index, own.number);
        memories.0[program].seat().lanes[lane].submitted.store(number, Release);
        let mark = Deed::Completed { program, lane, number };
        self.submit(lane, Op { work: Work::Instant, after: Vec::new(), payload: mark }, model, memories);
    }

    fn flush(&mut self, model: &mut Model<Deed>, memories: &mut Memories) {
        for lane in 0..self.lanes.len() {
            self.close(lane, model, memories);
        }
    }

    fn submit(&mut self, lane: usize, op: Op<Deed>, model: &mut Model<Deed>, memories: &mut Memories) {
        let stream = self.lanes[lane].stream;
        if let Some(seq) = model.submit(stream, op, memories) {
            self.lanes[lane].last = Some(Mark { stream, seq });
        }
    }
}
