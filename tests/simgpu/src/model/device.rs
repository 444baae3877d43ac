//! One device: which context has the SMs, for how long, and what the copy engines do.

use std::collections::{BTreeMap, VecDeque};

use super::stream::Stream;
use super::{
    Active, Context, ContextId, CopyEngine, DeviceMeter, DeviceSpec, FOREVER, Nanos, StreamId, Work,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Switching { to: ContextId, until: Nanos },
    Running { context: ContextId, slice_end: Nanos },
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
    resident: Option<ContextId>,
    /// Contexts that have kernels to run and are neither running nor being brought in.
    turns: VecDeque<ContextId>,
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
            copies: [Engine::default(), Engine::default()],
            meter: DeviceMeter::default(),
        }
    }

    pub(super) fn next_event(&self, now: Nanos, contexts: &BTreeMap<ContextId, Context>) -> Option<Nanos> {
        let compute = match self.phase {
            Phase::Idle => None,
            Phase::Switching { until, .. } => Some(until),
            Phase::Running { context, slice_end } => {
                let shortest = contexts
                    .get(&context)
                    .and_then(|context| context.active.iter().map(|kernel| kernel.left).min())
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
            Phase::Running { context, .. } => {
                self.meter.busy_ns += span;
                let Some(context) = contexts.get_mut(&context) else { return };
                context.meter.busy_ns += span;
                for kernel in &mut context.active {
                    context.meter.sm_ns += span.saturating_mul(u64::from(kernel.sms));
                    if kernel.left != FOREVER {
                        kernel.left = kernel.left.saturating_sub(span);
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
                self.phase =
                    Phase::Running { context: to, slice_end: now.saturating_add(self.spec.slice_ns) };
            }
            Phase::Running { context, .. } => {
                if let Some(context) = contexts.get_mut(&context) {
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

    /// A context has a kernel to run.
    pub(super) fn want(&mut self, id: ContextId, now: Nanos) {
        if self.is_served(id) || self.turns.contains(&id) {
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
        self.turns.push_back(id);
    }

    pub(super) fn queue_copy(&mut self, engine: CopyEngine, stream: StreamId) {
        self.copies[engine as usize].queue.push_back(stream);
    }

    /// Drops all that is known of a context that has died.
    pub(super) fn forget(&mut self, id: ContextId, streams: &[StreamId]) {
        self.turns.retain(|&other| other != id);
        if let Phase::Running { context, .. } = self.phase
            && context == id
        {
            self.phase = Phase::Idle;
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
                Phase::Running { context: id, slice_end } => {
                    let Some(context) = contexts.get_mut(&id) else {
                        self.phase = Phase::Idle;
                        continue;
                    };
                    fill(context, self.spec.sms, streams);
                    if context.active.is_empty() {
                        self.phase = Phase::Idle;
                    } else if now >= slice_end && !self.turns.is_empty() {
                        self.turns.push_back(id);
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
                        self.phase = Phase::Running { context: next, slice_end };
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

    fn is_served(&self, id: ContextId) -> bool {
        match self.phase {
            Phase::Idle => false,
            Phase::Switching { to, .. } => to == id,
            Phase::Running { context, .. } => context == id,
        }
    }
}

/// Starts ready kernels, best priority first, while their SMs are free. The first always starts. A kernel whose part of
/// the SMs is full lets those of other parts go before it.
fn fill<P>(context: &mut Context, sms: u32, streams: &BTreeMap<StreamId, Stream<P>>) {
    let mut taken: u32 = context.active.iter().map(|kernel| kernel.sms).sum();
    loop {
        let priority = |stream: &StreamId| streams.get(stream).map_or(i32::MAX, |stream| stream.priority);
        let part_of = |stream: &StreamId| streams.get(stream).and_then(|stream| stream.part);
        let is_full = |stream: &StreamId| {
            part_of(stream).is_some_and(|part| {
                let inside = context.active.iter().filter(|kernel| kernel.part == Some(part));
                let held: u32 = inside.map(|kernel| kernel.sms).sum();
                held > 0 && held + wanted_sms(streams, *stream, part.sms) > part.sms
            })
        };
        let free = (0..context.ready.len()).filter(|&index| !is_full(&context.ready[index]));
        let Some(best) = free.min_by_key(|&index| priority(&context.ready[index])) else {
            return;
        };
        let stream = context.ready[best];
        let Some(Work::Kernel { duration, .. }) = head_work(streams, stream) else {
            context.ready.remove(best);
            continue;
        };
        let part = part_of(&stream);
        let wanted = wanted_sms(streams, stream, part.map_or(sms, |part| part.sms.min(sms)));
        if !context.active.is_empty() && taken + wanted > sms {
            return;
        }
        context.ready.remove(best);
        taken += wanted;
        context.active.push(Active { stream, left: duration, sms: wanted, part });
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
