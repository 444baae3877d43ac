//! Laws of the model: order, fairness, exact accounts, and that late wake-ups change nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const US: Nanos = 1_000;
const SLICE: Nanos = 1_000 * US;
const SWITCH: Nanos = 50 * US;

/// What a test's operations do.
#[derive(Clone, Debug)]
enum Deed {
    Note(u32),
    Write(u64, u64),
    WaitFor(u64, u64),
    Die(u32),
}

/// A world of words, which writes down what happened when.
#[derive(Default, Debug)]
struct Diary {
    done: Vec<(Nanos, u32)>,
    words: BTreeMap<u64, u64>,
    reached: BTreeMap<StreamId, u64>,
    faults: Vec<(ContextId, u32)>,
}

impl World<Deed> for Diary {
    fn perform(&mut self, at: Nanos, _context: ContextId, deed: Deed) -> Result<(), Fault> {
        match deed {
            Deed::Note(name) => self.done.push((at, name)),
            Deed::Write(word, value) => {
                self.words.insert(word, value);
            }
            Deed::WaitFor(..) => {}
            Deed::Die(code) => return Err(Fault(code)),
        }
        Ok(())
    }

    fn satisfied(&mut self, _at: Nanos, _context: ContextId, deed: &Deed) -> Result<bool, Fault> {
        let Deed::WaitFor(word, value) = deed else { return Ok(true) };
        let held = self.words.get(word).copied().unwrap_or(0);
        Ok(holds(Condition::AtLeast, Width::Word, held, *value))
    }

    fn completed(&mut self, _at: Nanos, mark: Mark) {
        let before = self.reached.insert(mark.stream, mark.seq);
        assert!(before.is_none_or(|before| before < mark.seq), "a stream only moves forward");
    }

    fn faulted(&mut self, _at: Nanos, context: ContextId, fault: Fault) {
        self.faults.push((context, fault.0));
    }
}

struct Bench {
    model: Model<Deed>,
    world: Diary,
}

impl Bench {
    fn new() -> Self {
        let spec = DeviceSpec { sms: 132, slice_ns: SLICE, switch_ns: SWITCH };
        Self { model: Model::new(0, &[spec]), world: Diary::default() }
    }

    fn stream(&mut self, kind: StreamKind) -> StreamId {
        let context = self.model.open_context(0);
        self.stream_in(context, kind)
    }

    fn stream_in(&mut self, context: ContextId, kind: StreamKind) -> StreamId {
        self.model.open_stream(context, kind, 0, 0).expect("the context exists")
    }

    fn submit(&mut self, stream: StreamId, work: Work, deed: Deed, after: Vec<Mark>) -> u64 {
        self.model
            .submit(stream, Op { work, after, payload: deed }, &mut self.world)
            .expect("the stream exists")
    }

    fn kernel(&mut self, stream: StreamId, duration: Nanos, name: u32) -> u64 {
        self.submit(stream, Work::Kernel { duration, sms: 132 }, Deed::Note(name), Vec::new())
    }

    fn advance(&mut self, to: Nanos) {
        self.model.advance(to, &mut self.world);
    }

    fn drain(&mut self) {
        while let Some(next) = self.model.next_event() {
            self.advance(next);
        }
    }

    fn order(&self) -> Vec<u32> {
        self.world.done.iter().map(|(_, name)| *name).collect()
    }

    fn context_of(&self, stream: StreamId) -> ContextId {
        self.model.streams[&stream].context
    }

    fn busy(&self, stream: StreamId) -> Nanos {
        self.model.context_meter(self.context_of(stream)).expect("the context exists").busy_ns
    }

    fn meter(&self) -> DeviceMeter {
        self.model.device_meter(0).expect("there is a device")
    }
}

#[test]
fn kernels_follow_each_other_without_gaps() {
    let mut bench = Bench::new();
    let stream = bench.stream(StreamKind::NonBlocking);
    bench.advance(7);
    for name in 0..3 {
        bench.kernel(stream, 100 * US, name);
    }
    // The caller wakes late; the moments are those of the device.
    bench.advance(10_000 * US);
    assert_eq!(bench.world.done, [(7 + 100 * US, 0), (7 + 200 * US, 1), (7 + 300 * US, 2)]);
    assert_eq!(bench.meter().busy_ns, 300 * US);
    assert_eq!(bench.meter().idle_ns, 10_000 * US - 300 * US);
}

#[test]
fn two_saturating_contexts_get_half_each() {
    for duration in [5 * US, 70 * US, 999 * US, 3_700 * US] {
        let mut bench = Bench::new();
        let streams = [bench.stream(StreamKind::Legacy), bench.stream(StreamKind::Legacy)];
        for _ in 0..400_000 * US / duration {
            for stream in streams {
                bench.kernel(stream, duration, 0);
            }
        }
        bench.advance(400_000 * US);
        let [one, two] = streams.map(|stream| bench.busy(stream));
        assert!(one.abs_diff(two) <= SLICE, "{duration}: {one} against {two}");
        assert_eq!(one + two, bench.meter().busy_ns);
        assert_eq!(bench.meter().idle_ns, 0);
        // The last switch may be under way.
        assert!(bench.meter().switches - bench.meter().switch_ns / SWITCH <= 1, "{:?}", bench.meter());
    }
}

#[test]
fn a_long_kernel_is_sliced() {
    let mut bench = Bench::new();
    let (long, short) = (bench.stream(StreamKind::Legacy), bench.stream(StreamKind::Legacy));
    bench.kernel(long, 10 * SLICE, 1);
    bench.advance(SLICE / 2);
    bench.kernel(short, 10 * US, 2);
    bench.drain();
    // The newcomer waits for the end of the slice, and the long one pays for two switches and the visit.
    assert_eq!(bench.world.done, [(SLICE + SWITCH + 10 * US, 2), (10 * SLICE + 2 * SWITCH + 10 * US, 1)]);
    assert_eq!((bench.busy(long), bench.busy(short)), (10 * SLICE, 10 * US));
}

#[test]
fn a_context_that_was_alone_keeps_whole_slices() {
    let mut bench = Bench::new();
    let (long, short) = (bench.stream(StreamKind::Legacy), bench.stream(StreamKind::Legacy));
    bench.kernel(long, 10 * SLICE, 1);
    bench.advance(3 * SLICE + 1);
    bench.kernel(short, 10 * US, 2);
    bench.drain();
    assert_eq!(bench.world.done[0], (4 * SLICE + SWITCH + 10 * US, 2));
}

#[test]
fn a_blocked_stream_gives_the_device_away() {
    let mut bench = Bench::new();
    let (gated, other) = (bench.stream(StreamKind::Legacy), bench.stream(StreamKind::Legacy));
    bench.submit(gated, Work::Wait, Deed::WaitFor(8, 1), Vec::new());
    bench.kernel(gated, 100 * US, 1);
    bench.kernel(other, 5 * SLICE, 2);
    bench.advance(5 * SLICE);
    assert_eq!(bench.busy(other), 5 * SLICE);
    assert!(bench.model.is_waiting());
    assert_eq!(bench.model.next_event(), None, "only somebody's write can go on from here");
    bench.world.words.insert(8, 1);
    bench.model.poll(&mut bench.world);
    bench.drain();
    assert_eq!(bench.order(), [2, 1]);
}

#[test]
fn a_write_in_one_stream_opens_a_wait_in_another_at_once() {
    let mut bench = Bench::new();
    let (one, two) = (bench.stream(StreamKind::NonBlocking), bench.stream(StreamKind::NonBlocking));
    bench.submit(one, Work::Wait, Deed::WaitFor(8, 5), Vec::new());
    bench.submit(one, Work::Instant, Deed::Note(1), Vec::new());
    bench.kernel(two, 30 * US, 2);
    bench.submit(two, Work::Instant, Deed::Write(8, 5), Vec::new());
    bench.drain();
    assert_eq!(bench.world.done, [(30 * US, 2), (30 * US, 1)]);
}

#[test]
fn the_legacy_stream_and_blocking_streams_wait_for_each_other() {
    let mut bench = Bench::new();
    let legacy = bench.stream(StreamKind::Legacy);
    let context = bench.context_of(legacy);
    let blocking = bench.stream_in(context, StreamKind::Blocking);
    let free = bench.stream_in(context, StreamKind::NonBlocking);
    bench.kernel(blocking, 30 * US, 1);
    bench.kernel(legacy, 10 * US, 2);
    bench.kernel(blocking, 10 * US, 3);
    // Small enough to run beside the others, and not held up by the legacy stream.
    bench.submit(free, Work::Instant, Deed::Note(4), Vec::new());
    bench.drain();
    assert_eq!(bench.order(), [4, 1, 2, 3]);
}

#[test]
fn small_kernels_of_one_context_run_beside_each_other() {
    let mut bench = Bench::new();
    let one = bench.stream(StreamKind::Blocking);
    let context = bench.context_of(one);
    let streams =
        [one, bench.stream_in(context, StreamKind::Blocking), bench.stream_in(context, StreamKind::Blocking)];
    for (stream, name) in streams.into_iter().zip(1..) {
        bench.submit(stream, Work::Kernel { duration: 100 * US, sms: 60 }, Deed::Note(name), Vec::new());
    }
    bench.drain();
    assert_eq!(bench.world.done, [(100 * US, 1), (100 * US, 2), (200 * US, 3)]);
    let meter = bench.model.context_meter(context).expect("the context exists");
    assert_eq!((meter.busy_ns, meter.sm_ns, meter.kernels), (200 * US, 3 * 60 * 100 * US, 3));
}

#[test]
fn higher_priority_goes_first() {
    let mut bench = Bench::new();
    let low = bench.stream(StreamKind::Blocking);
    let context = bench.context_of(low);
    let high = bench.model.open_stream(context, StreamKind::Blocking, -5, 0).expect("the context exists");
    bench.kernel(low, 10 * US, 1);
    bench.kernel(low, 10 * US, 2);
    bench.kernel(high, 10 * US, 3);
    bench.kernel(high, 10 * US, 4);
    bench.drain();
    assert_eq!(bench.order(), [1, 3, 4, 2]);
}

#[test]
fn copies_run_beside_kernels() {
    let mut bench = Bench::new();
    let (kernels, copies) = (bench.stream(StreamKind::NonBlocking), bench.stream(StreamKind::NonBlocking));
    bench.kernel(kernels, 100 * US, 1);
    let copy = Work::Copy { engine: CopyEngine::ToDevice, duration: 40 * US };
    bench.submit(copies, copy, Deed::Note(2), Vec::new());
    bench.submit(copies, copy, Deed::Note(3), Vec::new());
    bench.drain();
    assert_eq!(bench.world.done, [(40 * US, 2), (80 * US, 3), (100 * US, 1)]);
    assert_eq!((bench.meter().busy_ns, bench.meter().copy_ns), (100 * US, 80 * US));
}

#[test]
fn a_fault_kills_its_context_and_no_other() {
    let mut bench = Bench::new();
    let (bad, good) = (bench.stream(StreamKind::Legacy), bench.stream(StreamKind::Legacy));
    bench.submit(bad, Work::Kernel { duration: 10 * US, sms: 1 }, Deed::Die(700), Vec::new());
    let last = bench.kernel(bad, 10 * US, 1);
    bench.kernel(good, 10 * US, 2);
    bench.drain();
    assert_eq!(bench.order(), [2]);
    assert_eq!(bench.world.faults, [(bench.context_of(bad), 700)]);
    assert_eq!(bench.model.completed(bad), Some(last), "whoever waits for the dead is woken");
    let late = bench.kernel(bad, 10 * US, 3);
    assert_eq!(bench.model.completed(bad), Some(late));
    assert_eq!(bench.order(), [2]);
}

#[test]
fn closing_a_context_stops_its_kernel_at_once() {
    let mut bench = Bench::new();
    let (one, two) = (bench.stream(StreamKind::Legacy), bench.stream(StreamKind::Legacy));
    bench.kernel(one, FOREVER, 1);
    bench.kernel(two, 10 * US, 2);
    let after = Mark { stream: one, seq: 1 };
    bench.submit(two, Work::Instant, Deed::Note(3), vec![after]);
    bench.advance(100 * US);
    let context = bench.context_of(one);
    let meter = bench.model.close_context(context, &mut bench.world).expect("it was open");
    assert_eq!(meter.busy_ns, 100 * US);
    bench.drain();
    assert_eq!(bench.world.done, [(100 * US + SWITCH + 10 * US, 2), (100 * US + SWITCH + 10 * US, 3)]);
}

#[test]
fn host_functions_block_their_stream_until_they_return() {
    let mut bench = Bench::new();
    let stream = bench.stream(StreamKind::Legacy);
    let host = bench.submit(stream, Work::Host, Deed::Note(1), Vec::new());
    bench.kernel(stream, 10 * US, 2);
    bench.advance(500 * US);
    assert_eq!(bench.order(), [1]);
    bench.model.finish_host(Mark { stream, seq: host + 1 }, &mut bench.world);
    assert_eq!(bench.model.next_event(), None, "another number means nothing");
    bench.model.finish_host(Mark { stream, seq: host }, &mut bench.world);
    bench.drain();
    assert_eq!(bench.world.done, [(0, 1), (510 * US, 2)]);
}

#[test]
fn a_closed_stream_ends_with_its_work() {
    let mut bench = Bench::new();
    let stream = bench.stream(StreamKind::NonBlocking);
    bench.kernel(stream, 10 * US, 1);
    bench.model.close_stream(stream);
    assert_eq!(bench.model.completed(stream), Some(0));
    bench.drain();
    assert_eq!((bench.order(), bench.model.completed(stream)), (vec![1], None));
}

/// One step of a random program.
#[derive(Clone, Debug)]
struct Step {
    wait: Nanos,
    stream: usize,
    work: Work,
    after: Vec<prop::sample::Index>,
}

fn steps(streams: usize) -> impl Strategy<Value = Vec<Step>> {
    let work = prop_oneof![
        (1..3_000 * US, 1..200_u32).prop_map(|(duration, sms)| Work::Kernel { duration, sms }),
        (1..500 * US).prop_map(|duration| Work::Copy { engine: CopyEngine::ToDevice, duration }),
        (1..500 * US).prop_map(|duration| Work::Copy { engine: CopyEngine::FromDevice, duration }),
        Just(Work::Instant),
    ];
    let step = (0..400 * US, 0..streams, work, prop::collection::vec(any::<prop::sample::Index>(), 0..3))
        .prop_map(|(wait, stream, work, after)| Step { wait, stream, work, after });
    prop::collection::vec(step, 1..60)
}

/// Three contexts with a legacy, a blocking and a non-blocking stream each.
fn nine_streams(bench: &mut Bench) -> Vec<StreamId> {
    let kinds = [StreamKind::Legacy, StreamKind::Blocking, StreamKind::NonBlocking];
    let contexts: Vec<_> = (0..3).map(|_| bench.model.open_context(0)).collect();
    contexts
        .into_iter()
        .flat_map(|context| kinds.map(|kind| (context, kind)))
        .map(|(context, kind)| bench.stream_in(context, kind))
        .collect()
}

/// Runs a program, waking up at the given times besides those at which something is handed in.
fn run(steps: &[Step], wakes: &[Nanos]) -> (Bench, Vec<StreamId>) {
    let mut bench = Bench::new();
    let streams = nine_streams(&mut bench);
    let mut given: Vec<Mark> = Vec::new();
    let mut now = 0;
    for (name, step) in (0..).zip(steps) {
        let next = now + step.wait;
        for &wake in wakes.iter().filter(|&&wake| (now..next).contains(&wake)) {
            bench.advance(wake);
        }
        now = next;
        bench.advance(now);
        let after = step.after.iter().filter(|_| !given.is_empty()).map(|index| *index.get(&given)).collect();
        let stream = streams[step.stream];
        let seq = bench.submit(stream, step.work, Deed::Note(name), after);
        given.push(Mark { stream, seq });
    }
    bench.drain();
    (bench, streams)
}

proptest! {
    #[test]
    fn everything_ends_and_every_nanosecond_is_accounted_for(steps in steps(9)) {
        let (bench, streams) = run(&steps, &[]);
        prop_assert_eq!(bench.world.done.len(), steps.len(), "random graphs of events never deadlock");
        for stream in &streams {
            let pending = &bench.model.streams[stream];
            prop_assert_eq!(pending.completed, pending.submitted);
        }
        let meter = bench.meter();
        prop_assert_eq!(meter.busy_ns + meter.idle_ns + meter.switch_ns, bench.model.now());
        let contexts: Nanos = bench.model.contexts.values().map(|context| context.meter.busy_ns).sum();
        prop_assert_eq!(contexts, meter.busy_ns);
        let wanted: u64 = steps.iter().map(|step| match step.work {
            Work::Kernel { duration, sms } => duration * u64::from(sms.min(132)),
            _ => 0,
        }).sum();
        let given: u64 = bench.model.contexts.values().map(|context| context.meter.sm_ns).sum();
        prop_assert_eq!(given, wanted, "each kernel had its SMs for exactly its time");
    }

    #[test]
    fn streams_keep_their_order_and_their_dependencies(steps in steps(9)) {
        let (bench, _) = run(&steps, &[]);
        let when: BTreeMap<u32, usize> =
            bench.world.done.iter().enumerate().map(|(place, (_, name))| (*name, place)).collect();
        let mut names: Vec<u32> = Vec::new();
        for (name, step) in (0..).zip(&steps) {
            for earlier in (0..name).filter(|&earlier| steps[earlier as usize].stream == step.stream) {
                prop_assert!(when[&earlier] < when[&name], "{earlier} before {name}");
            }
            for index in step.after.iter().filter(|_| !names.is_empty()) {
                let earlier = *index.get(&names);
                prop_assert!(when[&earlier] < when[&name], "{earlier} before {name}");
            }
            names.push(name);
        }
    }

    #[test]
    fn waking_up_more_often_changes_nothing(steps in steps(9), wakes in prop::collection::vec(0..20_000 * US, 0..50)) {
        let (rarely, _) = run(&steps, &[]);
        let mut wakes = wakes;
        wakes.sort_unstable();
        let (often, _) = run(&steps, &wakes);
        prop_assert_eq!(rarely.world.done, often.world.done);
        prop_assert_eq!(rarely.model.device_meter(0), often.model.device_meter(0));
    }
}

/// Two streams of a context with so many channels, 0 for one each.
fn two_streams(bench: &mut Bench, channels: usize) -> (StreamId, StreamId) {
    let context = bench.model.open_context(0);
    bench.model.use_channels(context, channels);
    (bench.stream_in(context, StreamKind::NonBlocking), bench.stream_in(context, StreamKind::NonBlocking))
}

#[test]
fn a_wait_holds_up_the_streams_that_share_its_channel() {
    for (channels, done) in [(0, 1), (2, 1), (1, 0)] {
        let mut bench = Bench::new();
        let (held, other) = two_streams(&mut bench, channels);
        bench.submit(held, Work::Wait, Deed::WaitFor(8, 1), Vec::new());
        bench.kernel(other, 10 * US, 1);
        bench.advance(100 * US);
        assert_eq!(bench.order().len(), done, "{channels} channels");
        bench.world.words.insert(8, 1);
        bench.model.poll(&mut bench.world);
        bench.drain();
        assert_eq!(bench.order(), [1], "{channels} channels");
        assert_eq!(bench.model.completed(held), Some(1));
    }
}

#[test]
fn a_kernel_that_waits_for_its_stream_holds_up_its_channel() {
    let small = Work::Kernel { duration: 100 * US, sms: 1 };
    for (channels, begins) in [(0, 0), (1, 100 * US)] {
        let mut bench = Bench::new();
        let (first, other) = two_streams(&mut bench, channels);
        for name in [1, 2] {
            bench.submit(first, small, Deed::Note(name), Vec::new());
        }
        bench.submit(other, small, Deed::Note(3), Vec::new());
        bench.drain();
        let ended = bench.world.done.iter().find(|(_, name)| *name == 3).expect("it ran").0;
        assert_eq!(ended, begins + 100 * US, "{channels} channels");
    }
}

#[test]
fn a_context_that_dies_leaves_nothing_in_its_channels() {
    let mut bench = Bench::new();
    let (held, other) = two_streams(&mut bench, 1);
    bench.submit(held, Work::Wait, Deed::WaitFor(8, 1), Vec::new());
    bench.kernel(other, 10 * US, 1);
    let context = bench.context_of(held);
    bench.model.fault(context, Fault(700), &mut bench.world);
    bench.kernel(other, 10 * US, 2);
    bench.drain();
    assert_eq!((bench.model.completed(held), bench.model.completed(other)), (Some(1), Some(2)));
    assert!(bench.model.contexts[&context].channels[0].is_empty());
}

#[test]
fn contexts_of_one_turn_run_beside_each_other_within_their_parts() {
    let mut bench = Bench::new();
    let turn = bench.model.open_turn();
    let streams: Vec<StreamId> = [(1, 40), (2, 88)]
        .into_iter()
        .map(|(id, sms)| {
            let context = bench.model.open_context(0);
            bench.model.join_turn(context, turn, Part { id, sms });
            bench.stream_in(context, StreamKind::NonBlocking)
        })
        .collect();
    for name in 0..3 {
        bench.kernel(streams[0], 300 * US, name);
        bench.kernel(streams[1], 100 * US, 10 + name);
    }
    bench.drain();
    let at: BTreeMap<u32, Nanos> = bench.world.done.iter().map(|(at, name)| (*name, *at / US)).collect();
    assert_eq!(at, BTreeMap::from([(0, 300), (1, 600), (2, 900), (10, 100), (11, 200), (12, 300)]));
    assert_eq!(bench.meter().switches, 0, "nobody is brought in");
    let meter = |stream| bench.model.context_meter(bench.context_of(stream)).expect("the context exists");
    assert_eq!((meter(streams[0]).busy_ns, meter(streams[0]).sm_ns), (900 * US, 900 * US * 40));
    assert_eq!((meter(streams[1]).busy_ns, meter(streams[1]).sm_ns), (300 * US, 300 * US * 88));
    assert_eq!(bench.meter().busy_ns, 900 * US);
}

#[test]
fn who_shares_a_turn_shares_it_with_others_by_time_and_the_sms_by_what_they_had() {
    let mut bench = Bench::new();
    let turn = bench.model.open_turn();
    let mut join = |id| {
        let context = bench.model.open_context(0);
        bench.model.join_turn(context, turn, Part { id, sms: 132 });
        bench.model.open_stream(context, StreamKind::NonBlocking, 0, 0).expect("the context exists")
    };
    let (one, two) = (join(1), join(2));
    let alone = bench.stream(StreamKind::NonBlocking);
    for name in 0..40 {
        bench.kernel(one, 100 * US, name);
        bench.kernel(two, 100 * US, 100 + name);
        bench.kernel(alone, 100 * US, 200 + name);
    }
    bench.advance(6_000 * US);
    let (one, two, alone) = (bench.busy(one), bench.busy(two), bench.busy(alone));
    assert!(one.abs_diff(two) <= 100 * US, "{one} and {two} of ceilings that do not fit together");
    assert!((one + two).abs_diff(alone) <= SLICE, "{one} and {two} together, {alone} alone");
}

#[test]
fn a_context_that_dies_takes_nobody_of_its_turn_along() {
    let mut bench = Bench::new();
    let turn = bench.model.open_turn();
    let mut join = |id| {
        let context = bench.model.open_context(0);
        bench.model.join_turn(context, turn, Part { id, sms: 66 });
        bench.model.open_stream(context, StreamKind::NonBlocking, 0, 0).expect("the context exists")
    };
    let (one, two) = (join(1), join(2));
    bench.submit(one, Work::Kernel { duration: 10 * US, sms: 132 }, Deed::Die(700), Vec::new());
    bench.kernel(one, 10 * US, 1);
    for name in 2..4 {
        bench.kernel(two, 10 * US, name);
    }
    bench.drain();
    assert_eq!(bench.order(), [2, 3]);
    assert_eq!(bench.world.faults.len(), 1);
    let context = bench.context_of(two);
    bench.model.close_context(context, &mut bench.world).expect("it is there");
    assert_eq!(bench.model.next_event(), None);
}
