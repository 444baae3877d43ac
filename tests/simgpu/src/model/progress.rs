//! How streams move on: heads are looked at, asked, performed and taken out, until nothing more can happen at a moment.

use super::stream::Head;
use super::{ContextId, Fault, Mark, Model, Nanos, StreamId, Work, World};

impl<P> Model<P> {
    /// Lets time pass up to `to` without anything happening.
    pub(super) fn settle(&mut self, to: Nanos) {
        let span = to.saturating_sub(self.now);
        if span == 0 {
            return;
        }
        for device in &mut self.devices {
            device.pass(span, &mut self.contexts);
        }
        self.now = to;
    }

    /// Completes what is due on one device at this very moment.
    pub(super) fn finish_due(&mut self, device: usize, world: &mut impl World<P>) {
        let now = self.now;
        for stream in self.devices[device].take_due(now, &mut self.contexts) {
            self.complete_head(stream, world);
        }
    }

    /// Looks at stream heads, asks waits and gives the engines work until nothing more can happen at this moment.
    pub(super) fn run(&mut self, world: &mut impl World<P>) {
        loop {
            while let Some(id) = self.examine.pop_front() {
                self.examine_head(id, world);
            }
            let waiting: Vec<_> = self.waiting.iter().copied().collect();
            for id in waiting {
                self.ask_wait(id, world);
            }
            if self.examine.is_empty() {
                break;
            }
        }
        for device in &mut self.devices {
            device.dispatch(self.now, &mut self.contexts, &self.streams);
        }
    }

    fn examine_head(&mut self, id: StreamId, world: &mut impl World<P>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.head != Head::Fresh {
            return;
        }
        let context_id = stream.context;
        if self.contexts.get(&context_id).is_none_or(|context| context.fault.is_some()) {
            self.drain(id, world);
            return;
        }
        if !self.is_first_in_channel(id) {
            return;
        }
        if let Some(blocker) = self.unreached(id) {
            if let Some(other) = self.streams.get_mut(&blocker) {
                other.watchers.push(id);
            }
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(pending) = stream.queue.front_mut() else { return };
        match pending.work {
            Work::Kernel { .. } => {
                stream.head = Head::Engine;
                if let Some(context) = self.contexts.get_mut(&context_id) {
                    context.ready.push_back(id);
                    self.devices[context.device].want(context.turn, self.now);
                }
                self.leave_channel(id);
            }
            Work::Copy { engine, .. } => {
                stream.head = Head::Engine;
                if let Some(context) = self.contexts.get(&context_id) {
                    self.devices[context.device].queue_copy(engine, id);
                }
                self.leave_channel(id);
            }
            Work::Wait => {
                stream.head = Head::Waiting;
                self.waiting.insert(id);
            }
            Work::Instant => self.complete_head(id, world),
            Work::Host => {
                stream.head = Head::Host;
                if let Some(payload) = pending.payload.take()
                    && let Err(fault) = world.perform(self.now, context_id, payload)
                {
                    self.mark_faulted(context_id, fault, world);
                }
            }
        }
    }

    /// Whether the head of a stream may be issued as far as its channel goes.
    fn is_first_in_channel(&self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(&id) else { return true };
        let context = self.contexts.get(&stream.context);
        let Some((channel, context)) = stream.channel.zip(context) else { return true };
        context.channels[channel].front().is_none_or(|first| first.stream == id)
    }

    /// The head of a stream has been issued: the next in its channel has its turn.
    fn leave_channel(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let context = self.contexts.get_mut(&stream.context);
        let Some((channel, context)) = stream.channel.zip(context) else { return };
        let head = Mark { stream: id, seq: stream.completed + 1 };
        if context.channels[channel].pop_front_if(|first| *first == head).is_some()
            && let Some(next) = context.channels[channel].front()
        {
            self.examine.push_back(next.stream);
        }
    }

    /// A stream that the head still has to wait for.
    fn unreached(&mut self, id: StreamId) -> Option<StreamId> {
        let mut after = match self.streams.get_mut(&id)?.queue.front_mut() {
            Some(head) => std::mem::take(&mut head.after),
            None => return None,
        };
        after.retain(|mark| self.streams.get(&mark.stream).is_some_and(|other| other.completed < mark.seq));
        let blocker = after.first().map(|mark| mark.stream);
        if let Some(head) = self.streams.get_mut(&id)?.queue.front_mut() {
            head.after = after;
        }
        blocker
    }

    fn ask_wait(&mut self, id: StreamId, world: &mut impl World<P>) {
        let Some(stream) = self.streams.get(&id) else { return };
        let context = stream.context;
        let Some(payload) = stream.queue.front().and_then(|head| head.payload.as_ref()) else { return };
        match world.satisfied(self.now, context, payload) {
            Ok(false) => {}
            Ok(true) => {
                self.waiting.remove(&id);
                self.complete_head(id, world);
            }
            Err(fault) => self.mark_faulted(context, fault, world),
        }
    }

    /// Performs the head of a stream and takes it out.
    pub(super) fn complete_head(&mut self, id: StreamId, world: &mut impl World<P>) {
        self.leave_channel(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(pending) = stream.queue.pop_front() else { return };
        stream.head = Head::Fresh;
        let context = stream.context;
        if matches!(pending.work, Work::Kernel { .. })
            && let Some(owner) = self.contexts.get_mut(&context)
        {
            owner.meter.kernels += 1;
        }
        let performed = match pending.payload {
            Some(payload) => world.perform(self.now, context, payload),
            None => Ok(()),
        };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.completed += 1;
        let mark = Mark { stream: id, seq: stream.completed };
        let watchers = std::mem::take(&mut stream.watchers);
        let ended = stream.closing && stream.queue.is_empty();
        if let Err(fault) = performed {
            self.mark_faulted(context, fault, world);
        }
        world.completed(self.now, mark);
        self.examine.push_back(id);
        self.examine.extend(watchers);
        if ended {
            self.drop_stream(id);
        }
    }

    pub(super) fn mark_faulted(&mut self, id: ContextId, fault: Fault, world: &mut impl World<P>) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        if context.fault.is_some() {
            return;
        }
        context.fault = Some(fault);
        context.ready.clear();
        context.active.clear();
        let streams = context.streams.clone();
        self.devices[context.device].forget(id, context.turn, &streams);
        world.faulted(self.now, id, fault);
        for stream in streams {
            self.waiting.remove(&stream);
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.head = Head::Fresh;
            }
            self.examine.push_back(stream);
        }
    }

    /// Completes everything in a stream of a dead context without doing it.
    fn drain(&mut self, id: StreamId, world: &mut impl World<P>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Some(context) = self.contexts.get_mut(&stream.context) {
            context.channels.iter_mut().for_each(|channel| channel.retain(|mark| mark.stream != id));
        }
        if !stream.queue.is_empty() {
            stream.queue.clear();
            stream.completed = stream.submitted;
            world.completed(self.now, Mark { stream: id, seq: stream.completed });
        }
        self.examine.extend(std::mem::take(&mut stream.watchers));
        if stream.closing {
            self.drop_stream(id);
        }
    }

    pub(super) fn drop_stream(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            if let Some(context) = self.contexts.get_mut(&stream.context) {
                context.streams.retain(|&other| other != id);
            }
            self.examine.extend(stream.watchers);
        }
    }
}
