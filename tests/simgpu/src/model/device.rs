//! One device: which context has the SMs, for how long, and what the copy engines do.

use std::collections::{BTreeMap, VecDeque};

use super::stream::Stream;
use super::{
    Active, Context, ContextId, CopyEngine, DeviceMeter, DeviceSpec, FOREVER, Nanos, Part, StreamId, TurnId,
    Work,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Switching { to: TurnId, until: Nanos },
    Running { turn: TurnId, slice_end: Nanos },
}

#[derive(Debug, Default)]
struct Engine {
    queue: VecDeque<StreamId>,
    current: Option<(StreamId, Nanos)>,
}

#[derive(Debug)]
pub(super) struct Device {
    spec: DeviceSpec,
    phase: Phase,
    /// Whose state the SMs hold; it needs no switch to run again.
    resident: Option<TurnId>,
    /// Those who have kernels to run and are neither running nor being brought in.
    turns: VecDeque<TurnId>,
    /// Which contexts share which turn.
    members: BTreeMap<TurnId, Vec<ContextId>>,
    copies: [Engine; 2],
    pub(super) meter: DeviceMeter,
}

impl Device {
    pub(super) fn new(spec: DeviceSpec) -> Self {
        Self {
            spec,
            phase: Phase::Idle,
            resident: None,
            turns: VecDeque::new(),
            members: BTreeMap::new(),
            copies: [Engine::default(), Engine::default()],
            meter: DeviceMeter::default(),
        }
    }

    /// A context takes part in a turn.
    pub(super) fn join(&mut self, id: ContextId, turn: TurnId) {
        self.members.entry(turn).or_default().push(id);
    }

    /// It no longer does.
    pub(super) fn leave(&mut self, id: ContextId, turn: TurnId) {
        if let Some(members) = self.members.get_mut(&turn) {
            members.retain(|&other| other != id);
            if members.is_empty() {
                self.members.remove(&turn);
            }
        }
    }

    fn members(&self, turn: TurnId) -> &[ContextId] {
        self.members.get(&turn).map_or(&[], Vec::as_slice)
    }

    pub(super) fn next_event(&self, now: Nanos, contexts: &BTreeMap<ContextId, Context>) -> Option<Nanos> {
        let compute = match self.phase {
            Phase::Idle => None,
            Phase::Switching { until, .. } => Some(until),
            Phase::Running { turn, slice_end } => {
                let running = self.members(turn).iter().filter_map(|id| contexts.get(id));
                let shortest = running
                    .flat_map(|context| context.active.iter().map(|kernel| kernel.left))
                    .min()
                    .filter(|&left| left != FOREVER)
                    .map(|left| now.saturating_add(left));
                let slice = (!self.turns.is_empty()).then_some(slice_end);
                shortest.into_iter().chain(slice).min()
            }
        };
        let copies = self.copies.iter().filter_map(|engine| engine.current.map(|(_, end)| end));
        compute.into_iter().chain(copies).min()
    }

    /// Lets `span` pass. The caller never lets more pass than up to the next event.
    pub(super) fn pass(&mut self, span: Nanos, contexts: &mut BTreeMap<ContextId, Context>) {
        match self.phase {
            Phase::Idle => self.meter.idle_ns += span,
            Phase::Switching { .. } => self.meter.switch_ns += span,
            Phase::Running { turn, .. } => {
                self.meter.busy_ns += span;
                for id in self.members.get(&turn).into_iter().flatten() {
                    let Some(context) = contexts.get_mut(id).filter(|context| !context.active.is_empty())
                    else {
                        continue;
                    };
                    context.meter.busy_ns += span;
                    for kernel in &mut context.active {
                        context.meter.sm_ns += span.saturating_mul(u64::from(kernel.sms));
                        if kernel.left != FOREVER {
                            kernel.left = kernel.left.saturating_sub(span);
                        }
                    }
                }
            }
        }
        let copying = self.copies.iter().filter(|engine| engine.current.is_some()).count();
        self.meter.copy_ns += span * copying as u64;
    }

    /// Ends a switch that is over, and takes out the streams whose kernel or copy has ended, in order of their start.
    pub(super) fn take_due(
        &mut self,
        now: Nanos,
        contexts: &mut BTreeMap<ContextId, Context>,
    ) -> Vec<StreamId> {
        let mut due = Vec::new();
        match self.phase {
            Phase::Switching { to, until } if until <= now => {
                self.phase = Phase::Running { turn: to, slice_end: now.saturating_add(self.spec.slice_ns) };
            }
            Phase::Running { turn, .. } => {
                for id in self.members.get(&turn).into_iter().flatten() {
                    let Some(context) = contexts.get_mut(id) else { continue };
                    context.active.retain(|kernel| {
                        if kernel.left == 0 {
                            due.push(kernel.stream);
                        }
                        kernel.left != 0
                    });
                }
            }
            _ => {}
        }
        for engine in &mut self.copies {
            if let Some((stream, _)) = engine.current.take_if(|(_, end)| *end <= now) {
                due.push(stream);
            }
        }
        due
    }

    /// Someone has a kernel to run.
    pub(super) fn want(&mut self, turn: TurnId, now: Nanos) {
        if self.is_served(turn) || self.turns.contains(&turn) {
            return;
        }
        // A context that was alone has had its slice renewed all along; the newcomer waits for the end of the last one.
        if let Phase::Running { slice_end, .. } = &mut self.phase
            && self.turns.is_empty()
            && *slice_end < now
        {
            let slices = (now - *slice_end).div_ceil(self.spec.slice_ns.max(1));
            *slice_end = slice_end.saturating_add(slices.saturating_mul(self.spec.slice_ns));
        }
        self.turns.push_back(turn);
    }

    pub(super) fn queue_copy(&mut self, engine: CopyEngine, stream: StreamId) {
        self.copies[engine as usize].queue.push_back(stream);
    }

    /// Drops all that is known of a context that has died.
    pub(super) fn forget(&mut self, id: ContextId, turn: TurnId, streams: &[StreamId]) {
        self.leave(id, turn);
        if self.members(turn).is_empty() {
            self.turns.retain(|&other| other != turn);
            if let Phase::Running { turn: running, .. } = self.phase
                && running == turn
            {
                self.phase = Phase::Idle;
            }
        }
        for engine in &mut self.copies {
            engine.queue.retain(|stream| !streams.contains(stream));
            engine.current.take_if(|(stream, _)| streams.contains(stream));
        }
    }

    /// Gives free engines something to do.
    pub(super) fn dispatch<P>(
        &mut self,
        now: Nanos,
        contexts: &mut BTreeMap<ContextId, Context>,
        streams: &BTreeMap<StreamId, Stream<P>>,
    ) {
        for engine in &mut self.copies {
            if engine.current.is_none()
                && let Some(stream) = engine.queue.pop_front()
            {
                let duration = match head_work(streams, stream) {
                    Some(Work::Copy { duration, .. }) => duration,
                    _ => 0,
                };
                engine.current = Some((stream, now.saturating_add(duration)));
            }
        }
        loop {
            match self.phase {
                Phase::Switching { .. } => return,
                Phase::Running { turn, slice_end } => {
                    let members = self.members.get(&turn).map_or(&[][..], Vec::as_slice);
                    fill(contexts, members, self.spec.sms, streams);
                    let is_active = |id| contexts.get(id).is_some_and(|context| !context.active.is_empty());
                    if !members.iter().any(is_active) {
                        self.phase = Phase::Idle;
                    } else if now >= slice_end && !self.turns.is_empty() {
                        self.turns.push_back(turn);
                        self.phase = Phase::Idle;
                    } else {
                        return;
                    }
                }
                Phase::Idle => {
                    let Some(next) = self.turns.pop_front() else { return };
                    if self.resident.is_none_or(|resident| resident == next) || self.spec.switch_ns == 0 {
                        let slice_end = now.saturating_add(self.spec.slice_ns);
                        self.meter.switches +=
                            u64::from(self.resident.is_some_and(|resident| resident != next));
                        self.phase = Phase::Running { turn: next, slice_end };
                    } else {
                        self.meter.switches += 1;
                        self.phase =
                            Phase::Switching { to: next, until: now.saturating_add(self.spec.switch_ns) };
                    }
                    self.resident = Some(next);
                }
            }
        }
    }

    fn is_served(&self, turn: TurnId) -> bool {
        match self.phase {
            Phase::Idle => false,
            Phase::Switching { to, .. } => to == turn,
            Phase::Running { turn: running, .. } => running == turn,
        }
    }
}

/// Starts ready kernels of the contexts whose turn it is, best priority first, while their SMs are free. The first always
/// starts. A kernel whose part of the SMs is full lets those of other parts go before it.
fn fill<P>(
    contexts: &mut BTreeMap<ContextId, Context>,
    members: &[ContextId],
    sms: u32,
    streams: &BTreeMap<StreamId, Stream<P>>,
) {
    loop {
        let running = || members.iter().filter_map(|id| contexts.get(id)).flat_map(|context| &context.active);
        let taken: u32 = running().map(|kernel| kernel.sms).sum();
        let idle = running().next().is_none();
        let is_full = |stream: StreamId, part: Option<Part>| {
            part.is_some_and(|part| {
                let held: u32 =
                    running().filter(|kernel| kernel.part == Some(part)).map(|kernel| kernel.sms).sum();
                held > 0 && held + wanted_sms(streams, stream, part.sms) > part.sms
            })
        };
        let best = members
            .iter()
            .filter_map(|id| Some((*id, contexts.get(id)?)))
            .flat_map(|(id, context)| {
                let place = move |(index, stream): (usize, &StreamId)| (id, index, *stream, context);
                context.ready.iter().enumerate().map(place)
            })
            .map(|(id, index, stream, context)| {
                (id, index, stream, part_of(context, streams, stream), context)
            })
            .filter(|(_, _, stream, part, _)| !is_full(*stream, *part))
            .min_by_key(|(_, _, stream, _, context)| {
                let priority = streams.get(stream).map_or(i32::MAX, |stream| stream.priority);
                (priority, context.meter.sm_ns)
            })
            .map(|(id, index, stream, part, _)| (id, index, stream, part));
        let Some((id, index, stream, part)) = best else { return };
        let work = head_work(streams, stream);
        let wanted = wanted_sms(streams, stream, part.map_or(sms, |part| part.sms.min(sms)));
        if matches!(work, Some(Work::Kernel { .. })) && !idle && taken + wanted > sms {
            return;
        }
        let Some(context) = contexts.get_mut(&id) else { return };
        context.ready.remove(index);
        if let Some(Work::Kernel { duration, .. }) = work {
            context.active.push(Active { stream, left: duration, sms: wanted, part });
        }
    }
}

/// The SMs that a stream's kernels keep to: its own part, or its context's. What the context may not have, no part of it
/// gives.
fn part_of<P>(context: &Context, streams: &BTreeMap<StreamId, Stream<P>>, stream: StreamId) -> Option<Part> {
    let own = streams.get(&stream).and_then(|stream| stream.part);
    match (own, context.part) {
        (Some(own), Some(most)) => Some(Part { sms: own.sms.min(most.sms), ..own }),
        (own, most) => own.or(most),
    }
}

/// SMs that the kernel at the head of a stream holds, where it may hold `most`.
fn wanted_sms<P>(streams: &BTreeMap<StreamId, Stream<P>>, stream: StreamId, most: u32) -> u32 {
    match head_work(streams, stream) {
        Some(Work::Kernel { sms, .. }) => sms.clamp(1, most.max(1)),
        _ => 1,
    }
}

fn head_work<P>(streams: &BTreeMap<StreamId, Stream<P>>, stream: StreamId) -> Option<Work> {
    streams.get(&stream).and_then(|stream| stream.queue.front()).map(|head| head.work)
}
