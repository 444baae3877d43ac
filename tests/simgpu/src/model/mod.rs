//! The device model: what runs when, on devices that several processes share. Pure: no clock, no IO, integers only.
//!
//! Time is an argument, in nanoseconds. The caller brings the model up to a moment with [`Model::advance`], hands in
//! work with [`Model::submit`], and sleeps until [`Model::next_event`]. What an operation *does* (run a kernel, move
//! bytes, read a word) is the caller's [`World`]; the model only decides the order and the moments. A virtual clock
//! drives the same code as a real one, and a late wake-up changes no moment: a kernel starts when its predecessor
//! ended or when it was submitted, whichever is later.
//!
//! ```text
//! stream (FIFO) --head--> Fresh --deps met--> Engine  (kernel: its context's ready list; copy: the copy engine)
//!                                        \--> Waiting (memory wait, asked again after every step and by poll)
//!                                        \--> Host    (host function, until finish_host)
//!                                        \--> done    (marks, writes, frees: no device time)
//! device:  Idle --work of the resident context--> Running --its work ends or is blocked--> Idle
//!          Idle --work of another context--> Switching (switch_ns) --> Running --slice over, others want it--> Idle
//! ```
//!
//! Contexts take turns, one at a time, unless they share one ([`Model::join_turn`]), as the clients of one MPS server do:
//! then their kernels run beside each other, each context's within its part of the SMs, and changing between them costs
//! nothing. Who had less of the SMs so far goes first where they do not suffice for all.
//!
//! Streams may share channels ([`Model::use_channels`]): then an operation that waits holds up what was handed in behind
//! it in the same channel, whatever stream it belongs to.
//!
//! What is simplified, so that no figure is read for more than it is: contexts share the compute engine in round robin
//! whatever their priority; kernels of one context run beside each other only while their blocks fit on the SMs together,
//! and each takes its nominal time; the two copy engines serve contexts in order of arrival and are not sliced; memory
//! operations, marks and frees take no device time and need no turn of their context; a kernel that may overlap the one
//! before it saves its prologue as if both had begun together.

mod compare;
mod device;
mod meter;
mod stream;
mod progress;
mod timing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use compare::{Condition, Width, holds};
pub use meter::{ContextMeter, DeviceMeter};
pub use timing::{CopySpeed, KernelRule, KernelTimes};

use device::Device;
use stream::{Head, Pending, Stream};

/// A moment or a span, in nanoseconds.
pub type Nanos = u64;

/// A kernel duration that never ends by itself.
pub const FOREVER: Nanos = Nanos::MAX;

/// One context: one process's work on one device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContextId(u64);

/// Whose turn it is at a device: one context's, or that of all contexts that share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TurnId(u64);

/// One stream of a context. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(u64);

/// A point in a stream: everything up to and including the operation of that number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The stream.
    pub stream: StreamId,
    /// The operation, counted from 1 (or from where [`Model::open_stream`] was told to go on).
    pub seq: u64,
}

/// How a stream orders itself with the context's legacy default stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    /// The legacy default stream: waits for all blocking streams, and they for it.
    Legacy,
    /// An ordinary stream, or a thread's own default stream.
    Blocking,
    /// `CU_STREAM_NON_BLOCKING`: takes no part in that order.
    NonBlocking,
}

/// Which of a device's copy engines a copy needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyEngine {
    /// Host to device.
    ToDevice,
    /// Device to host.
    FromDevice,
}

/// What an operation asks of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// A kernel, or a fill or on-device copy that is run as one.
    Kernel {
        /// Time it takes on the SMs it holds; [`FOREVER`] for one that never ends.
        duration: Nanos,
        /// SMs it holds, at least 1.
        sms: u32,
    },
    /// A copy between host and device.
    Copy {
        /// Direction.
        engine: CopyEngine,
        /// Time on the engine.
        duration: Nanos,
    },
    /// Takes no device time: marks, writes, frees, waits for other streams.
    Instant,
    /// Blocks the stream until [`World::satisfied`].
    Wait,
    /// Runs on the host; blocks the stream until [`Model::finish_host`].
    Host,
}

/// An operation handed to a stream.
#[derive(Clone, Debug)]
pub struct Op<P> {
    /// What it asks of the device.
    pub work: Work,
    /// Points of other streams that must be reached first. Streams that no longer exist count as reached.
    pub after: Vec<Mark>,
    /// What it does; for the [`World`].
    pub payload: P,
}

/// An execution fault: the `CUresult` that sticks to the context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault(pub u32);

/// Effects of the model on everything else.
pub trait World<P> {
    /// An operation reached its moment: a kernel or copy ended, an instant operation or host function is due.
    ///
    /// # Errors
    /// The fault that the operation caused; the context is dead from then on.
    fn perform(&mut self, at: Nanos, context: ContextId, payload: P) -> Result<(), Fault>;

    /// Whether a wait's condition holds now.
    ///
    /// # Errors
    /// The fault that reading the word caused.
    fn satisfied(&mut self, at: Nanos, context: ContextId, payload: &P) -> Result<bool, Fault>;

    /// A stream has completed everything up to `mark`.
    fn completed(&mut self, at: Nanos, mark: Mark);

    /// A context died of a fault; told before its streams are reported as completed.
    fn faulted(&mut self, at: Nanos, context: ContextId, fault: Fault);
}

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSpec {
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Longest turn of a context while others want the device.
    pub slice_ns: Nanos,
    /// Time to bring another context in; nothing runs meanwhile.
    pub switch_ns: Nanos,
}

#[derive(Debug)]
struct Context {
    device: usize,
    /// Those of one turn run beside each other.
    turn: TurnId,
    /// The SMs that kernels of its streams keep to, unless those have a part of their own.
    part: Option<Part>,
    streams: Vec<StreamId>,
    legacy: Option<StreamId>,
    /// Streams whose head is a kernel that may start, in the order they became so.
    ready: VecDeque<StreamId>,
    active: Vec<Active>,
    fault: Option<Fault>,
    meter: ContextMeter,
    channels: Vec<Channel>,
    streams_made: usize,
}

/// A queue to the device that streams share: what was handed in and not issued, in order. Only the first may be issued,
/// so an operation that has to wait holds up other streams behind it.
type Channel = VecDeque<Mark>;

/// A kernel on the device, or paused when its context's turn ended.
#[derive(Debug)]
struct Active {
    stream: StreamId,
    left: Nanos,
    sms: u32,
    part: Option<Part>,
}

/// A part of a device's SMs, to which kernels of its streams keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Names it among the parts of the device: kernels of the same part share its SMs.
    pub id: u64,
    /// SMs it has.
    pub sms: u32,
}

/// All devices of a node, the contexts on them and the work in their streams.
#[derive(Debug)]
pub struct Model<P> {
    now: Nanos,
    devices: Vec<Device>,
    contexts: BTreeMap<ContextId, Context>,
    streams: BTreeMap<StreamId, Stream<P>>,
    next_id: u64,
    /// Streams whose head is a memory wait.
    waiting: BTreeSet<StreamId>,
    /// Streams whose head must be looked at.
    examine: VecDeque<StreamId>,
}

impl<P> Model<P> {
    /// Idle devices at the moment `now`.
    #[must_use]
    pub fn new(now: Nanos, devices: &[DeviceSpec]) -> Self {
        Self {
            now,
            devices: devices.iter().map(|&spec| Device::new(spec)).collect(),
            contexts: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_id: 1,
            waiting: BTreeSet::new(),
            examine: VecDeque::new(),
        }
    }

    /// The moment the model has been brought up to.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// When something will happen by itself; `None` while nothing can.
    #[must_use]
    pub fn next_event(&self) -> Option<Nanos> {
        self.devices.iter().filter_map(|device| device.next_event(self.now, &self.contexts)).min()
    }

    /// Whether a stream is blocked on a word of memory, so that [`Self::poll`] is needed.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lets everything happen that is due at `now` or before. A `now` in the past changes nothing.
    pub fn advance(&mut self, now: Nanos, world: &mut impl World<P>) {
        while let Some(at) = self.next_event().filter(|&at| at <= now) {
            self.settle(at);
            for device in 0..self.devices.len() {
                self.finish_due(device, world);
            }
            self.run(world);
        }
        self.settle(now);
    }

    /// Asks all memory waits again, after something outside the model may have changed memory.
    pub fn poll(&mut self, world: &mut impl World<P>) {
        self.run(world);
    }

    /// Makes a context on a device.
    ///
    /// # Panics
    /// When the model has no such device.
    pub fn open_context(&mut self, device: usize) -> ContextId {
        assert!(device < self.devices.len(), "no device {device}");
        let id = ContextId(self.fresh_id());
        let turn = TurnId(id.0);
        let context = Context {
            device,
            turn,
            part: None,
            streams: Vec::new(),
            legacy: None,
            ready: VecDeque::new(),
            active: Vec::new(),
            fault: None,
            meter: ContextMeter::default(),
            channels: Vec::new(),
            streams_made: 0,
        };
        self.contexts.insert(id, context);
        self.devices[device].join(id, turn);
        id
    }

    /// A turn that contexts can share.
    pub fn open_turn(&mut self) -> TurnId {
        TurnId(self.fresh_id())
    }

    /// Lets a context that has no work yet share a turn with others of its device, its kernels within a part of the SMs.
    pub fn join_turn(&mut self, id: ContextId, turn: TurnId, part: Part) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let own = std::mem::replace(&mut context.turn, turn);
        context.part = Some(part);
        let device = &mut self.devices[context.device];
        device.leave(id, own);
        device.join(id, turn);
    }

    /// Gives a context so many channels, among which the streams that it opens from now on are dealt out in turn.
    /// Without, every stream has one of its own.
    pub fn use_channels(&mut self, id: ContextId, channels: usize) {
        if let Some(context) = self.contexts.get_mut(&id) {
            context.channels = vec![Channel::new(); channels];
        }
    }

    /// Ends a context at once: running kernels stop, queued work is dropped. Returns what it had used.
    pub fn close_context(&mut self, id: ContextId, world: &mut impl World<P>) -> Option<ContextMeter> {
        let context = self.contexts.remove(&id)?;
        self.devices[context.device].forget(id, context.turn, &context.streams);
        for stream in context.streams {
            self.waiting.remove(&stream);
            if let Some(stream) = self.streams.remove(&stream) {
                self.examine.extend(stream.watchers);
            }
        }
        self.run(world);
        Some(context.meter)
    }

    /// Makes a stream. Its operations are numbered from `completed + 1`. A lower `priority` goes first.
    ///
    /// Returns `None` when there is no such context.
    pub fn open_stream(
        &mut self,
        context: ContextId,
        kind: StreamKind,
        priority: i32,
        completed: u64,
    ) -> Option<StreamId> {
        let id = StreamId(self.fresh_id());
        let owner = self.contexts.get_mut(&context)?;
        owner.streams.push(id);
        if kind == StreamKind::Legacy {
            owner.legacy = Some(id);
        }
        let channel = owner.streams_made.checked_rem(owner.channels.len());
        owner.streams_made += 1;
        let mut stream = Stream::new(context, kind, priority, completed);
        stream.channel = channel;
        self.streams.insert(id, stream);
        Some(id)
    }

    /// Keeps a stream's kernels to a part of the SMs. Streams of one part share it.
    pub fn keep_to(&mut self, id: StreamId, part: Part) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.part = Some(part);
        }
    }

    /// Ends a stream once all its work is done.
    pub fn close_stream(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.closing = true;
            if stream.queue.is_empty() {
                self.drop_stream(id);
            }
        }
    }

    /// Hands an operation to a stream, at the moment the model is at. Returns its number.
    ///
    /// In a context that has faulted the operation counts as completed and does nothing. `None` when there is no
    /// such stream.
    pub fn submit(&mut self, id: StreamId, mut op: Op<P>, world: &mut impl World<P>) -> Option<u64> {
        self.add_default_stream_order(id, &mut op.after)?;
        let stream = self.streams.get_mut(&id)?;
        stream.submitted += 1;
        let seq = stream.submitted;
        if let Some(channel) = stream.channel
            && let Some(context) = self.contexts.get_mut(&stream.context)
        {
            context.channels[channel].push_back(Mark { stream: id, seq });
        }
        stream.queue.push_back(Pending { work: op.work, after: op.after, payload: Some(op.payload) });
        if stream.queue.len() == 1 {
            self.examine.push_back(id);
            self.run(world);
        }
        Some(seq)
    }

    /// Reports that the host function at the head of a stream has returned.
    pub fn finish_host(&mut self, mark: Mark, world: &mut impl World<P>) {
        let due = self
            .streams
            .get(&mark.stream)
            .is_some_and(|stream| stream.head == Head::Host && stream.completed + 1 == mark.seq);
        if due {
            self.complete_head(mark.stream, world);
            self.run(world);
        }
    }

    /// Kills a context as an execution fault would.
    pub fn fault(&mut self, id: ContextId, fault: Fault, world: &mut impl World<P>) {
        self.mark_faulted(id, fault, world);
        self.run(world);
    }

    /// How far a stream has come; `None` when it no longer exists.
    #[must_use]
    pub fn completed(&self, id: StreamId) -> Option<u64> {
        self.streams.get(&id).map(|stream| stream.completed)
    }

    /// Number of operations handed to a stream and not completed.
    #[must_use]
    pub fn backlog(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, |stream| stream.queue.len())
    }

    /// What a device has done since the model began.
    #[must_use]
    pub fn device_meter(&self, device: usize) -> Option<DeviceMeter> {
        self.devices.get(device).map(|device| device.meter)
    }

    /// What a context has used since it was made.
    #[must_use]
    pub fn context_meter(&self, id: ContextId) -> Option<ContextMeter> {
        self.contexts.get(&id).map(|context| context.meter)
    }

    fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The order between the legacy default stream and the blocking streams of its context (CUDA driver API, "Stream
    /// synchronization behavior"): each waits for what the other had been given before.
    fn add_default_stream_order(&self, id: StreamId, after: &mut Vec<Mark>) -> Option<()> {
        let stream = self.streams.get(&id)?;
        let context = self.contexts.get(&stream.context)?;
        let mut wait_for = |other: StreamId| {
            if let Some(pending) = self.streams.get(&other).filter(|other| !other.queue.is_empty()) {
                after.push(Mark { stream: other, seq: pending.submitted });
            }
        };
        match stream.kind {
            StreamKind::NonBlocking => {}
            StreamKind::Blocking => context.legacy.into_iter().for_each(&mut wait_for),
            StreamKind::Legacy => {
                let is_blocking = |other: &StreamId| {
                    self.streams.get(other).is_some_and(|other| other.kind == StreamKind::Blocking)
                };
                context.streams.iter().copied().filter(is_blocking).for_each(&mut wait_for);
            }
        }
        Some(())
    }
}
