//! A client that keeps to nothing, against the worker that is shipped, on the simulated device.
//!
//! Sessions of our own making send operations as their grammar, the table, has them, with handles of the wrong kind, dead
//! or taken ones, lengths and addresses without sense; and now and then something that is no frame or no operation. Every
//! other session goes over rings, and may end by an index that no ring has.
//! Whatever comes, a worker answers with an error of the driver or ends its session by a named breach; it never
//! panics, leaves nothing on the device, and another session beside it finds its memory as it was. `SEED=` replays a
//! run, and `SESSION=` one session of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/session.rs"]
mod session;
mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headgate_abi::cuda::remote::{Class, Column, KINDS, Kind, Len, Rule};
use headgate_abi::cuda::symbols::{SYMBOLS, Symbol};
use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Node, Program, TenantSpec, eventually, workspace};
use headgate_remote::limits::{FRAME_BYTES_MAX, IMAGE_BYTES_MAX, PIECE_BYTES_MAX};
use headgate_remote::wire::Put as _;
use headgate_remote::wire::frame::{HEADER_BYTES, Header, Hello, Kind as Frame, Rings, VERSION};
use headgate_remote::wire::operation::{
    Argument, Arguments, Digest, LAUNCH_ATTRIBUTE_BYTES, Names, Operation, Shape, TEMPLATES,
};
use session::{Chance, Session};
use support::{SOON, eventually_used, node};

/// Sessions of a run, and operations of one.
const SESSIONS: u64 = 48;
const OPERATIONS: u64 = 160;
/// Numbers of handles are drawn from these: few enough that most have meant something.
const NUMBERS: u64 = 6;
/// Bytes of the memory that nobody else may touch.
const WITNESS_BYTES: usize = 48 << 10;
/// Where a frame's header holds version, kind, and its payload's length.
const VERSION_AT: usize = 4;
const KIND_AT: usize = 5;
const BYTES_AT: usize = 8;
/// Until a session that does not answer is taken to be stuck.
const STUCK: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Calls that travel by rule. Those that a stream waits in are left to sessions that mean to get stuck.
fn calls(stuck: bool) -> Vec<(Symbol, &'static [Rule])> {
    let waits = |symbol: Symbol| symbol.row().elf_name.starts_with("cuStreamWaitValue");
    let lines = SYMBOLS.iter().filter(|&&symbol| !matches!(symbol.column(), Column::Twin(_)));
    let lines = lines.filter_map(|&symbol| Some((symbol, symbol.line()?.args)));
    lines.filter(|&(symbol, rules)| !rules.is_empty() && (stuck || !waits(symbol))).collect()
}

/// What a session draws from.
struct Foe {
    calls: Vec<(Symbol, &'static [Rule])>,
    image: Digest,
    /// Addresses that the device has given out.
    addresses: Vec<u64>,
}

impl Foe {
    fn number(chance: &mut Chance) -> u32 {
        u32::try_from(chance.below(NUMBERS)).unwrap()
    }

    fn address(&self, chance: &mut Chance) -> u64 {
        match chance.below(8) {
            0 => 0,
            1 => chance.next(),
            2 => u64::MAX - chance.below(4096),
            _ => chance.pick(&self.addresses).wrapping_add(chance.pick(&[0, 0, 0, 1, 512, 1 << 20, 1 << 40])),
        }
    }

    fn word(&self, chance: &mut Chance) -> u64 {
        match chance.below(3) {
            0 => self.address(chance),
            1 => chance.below(16),
            _ => chance.pick(&[32, 255, 4096, 1 << 20, 1 << 31, 1 << 32, 1 << 62, u64::MAX]),
        }
    }

    /// Some call, its arguments by rule and without sense.
    fn call(&self, chance: &mut Chance, to: &mut Vec<u8>) {
        let (symbol, rules) = chance.pick(&self.calls);
        let mut words: Vec<u64> = rules
            .iter()
            .map(|rule| if matches!(rule, Rule::Word | Rule::Address) { self.word(chance) } else { 0 })
            .collect();
        for rule in rules {
            // Whoever says how many must send as many, or it is no operation.
            if let Rule::In(Len::Elements(count, _)) = rule {
                words[*count] %= 8;
            }
        }
        let bytes: Vec<Vec<u8>> = rules
            .iter()
            .map(|rule| match rule {
                Rule::In(length) => {
                    let length = length.of(&words).unwrap_or(0);
                    (0..length).map(|_| if chance.one_in(3) { chance.byte() } else { 0 }).collect()
                }
                _ => Vec::new(),
            })
            .collect();
        let mut arguments = Arguments::new();
        for (index, rule) in rules.iter().enumerate() {
            arguments.push(match *rule {
                Rule::Word | Rule::Address => Argument::Word(words[index]),
                Rule::Handle(kind) => Argument::Handle(kind, Self::number(chance)),
                Rule::New(kind) => Argument::New(kind, Self::number(chance)),
                Rule::End(kind) => Argument::End(kind, Self::number(chance)),
                Rule::Out(_) | Rule::OutMaybe(_) => Argument::Out(!chance.one_in(4)),
                Rule::In(_) => Argument::In(&bytes[index]),
                Rule::Text => Argument::Text(chance.pick(&["spin", "", "no such kernel", "spin\0"])),
            });
        }
        Operation::Call(symbol, arguments).encode(to);
    }

    fn shape(chance: &mut Chance) -> Shape {
        let mut side = || chance.pick(&[1u32, 1, 1, 2, 3, 0, u32::MAX]);
        let grid = [side(), side(), side()];
        let block = [side(), side(), side()];
        let shared_bytes = chance.pick(&[0, 0, 1024, u32::MAX]);
        Shape { function: Self::number(chance), grid, block, shared_bytes, cooperative: chance.one_in(8) }
    }

    /// Some operation that is well-formed. What it names, it may not.
    fn operation(&self, chance: &mut Chance, to: &mut Vec<u8>) {
        let bytes: Vec<u8> = (0..chance.pick(&[0, 1, 8, 300, 40_000])).map(|_| chance.byte()).collect();
        let parameters = chance.pick(&self.addresses).to_le_bytes();
        let parameters = &parameters[..chance.pick(&[8, 8, 8, 8, 0, 3])];
        let attributes = [chance.byte() % 16; LAUNCH_ATTRIBUTE_BYTES];
        let digest = if chance.one_in(3) { [chance.byte(); 32] } else { self.image };
        let options = [[7, 0, 0, 0, 2, 0, 0, 0], [chance.byte(), 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat();
        let names = Names::encode(["spin", "none"].into_iter());
        let (stream, number) = (Self::number(chance), Self::number(chance));
        let (address, token) = (self.address(chance), chance.below(100));
        let operation = match chance.below(34) {
            0..=10 => return self.call(chance, to),
            11 => Operation::Context(number),
            12 => Operation::Launch {
                shape: Self::shape(chance),
                stream,
                attributes: if chance.one_in(4) { &attributes } else { &[] },
                parameters,
            },
            13 | 14 => {
                let slot = u8::try_from(chance.below(TEMPLATES as u64)).unwrap();
                Operation::Template { slot, shape: Self::shape(chance), parameters: &[0; 8] }.encode(to);
                let words = chance.pick(&self.addresses).to_le_bytes();
                Operation::Again { slot, stream, changed: 1, words: &words }.encode(to);
                return;
            }
            15 | 16 => Operation::Write { stream, to: address, bytes: &bytes },
            17 | 18 => {
                let length = chance.pick(&[0, 1, 4096, 1 << 20, 1 << 40, u64::MAX]);
                Operation::Read { stream, from: address, bytes: length, token }
            }
            19 => Operation::Fence { stream, token },
            20 => Operation::Record { event: number, stream, flags: stream % 3, token },
            21 => Operation::Load { module: number, digest, options: &options, kernels: Names::of(&names) },
            22 => Operation::LoadLibrary { library: number, digest, options: &options },
            23 => Operation::Describe { function: number },
            24 => Operation::DefaultPool { device: stream, pool: number },
            25 => Operation::LinkCreate { link: number, options: &options },
            26 => Operation::LinkAdd { link: number, kind: stream, digest, name: "x.ptx", options: &options },
            27 => Operation::LinkComplete { link: number },
            28 => Operation::Linked { digest, offset: address },
            29 => Operation::Ahead {
                bytes: chance.pick(&[0, 1, 4096, 512 << 10, 2 << 20, (2 << 20) + 1, u64::MAX]),
            },
            30 => Operation::Barrier,
            32 => Operation::GiveBack { address },
            33 => Operation::GaveBack { call: number },
            31 if chance.one_in(2) => Operation::Observe { device: number },
            _ => Operation::Settle,
        };
        operation.encode(to);
    }
}

fn encoded(operation: Operation<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    bytes
}

/// How a session ends, and what the worker must say of it. Nothing, where it is a good end.
fn end(session: &mut Session, chance: &mut Chance) -> &'static str {
    match chance.below(8) {
        0 => {
            session.frame(1, &encoded(Operation::Goodbye));
            ""
        }
        1 => {
            session.raw(&Header { kind: Frame::Drain, ..head(0, 0, 0) }.encode(), &[]);
            ""
        }
        2 => {
            session.cut();
            "has gone without a word"
        }
        3 | 4 => breach_by_frame(session, chance),
        5 | 6 if session.over_rings() => breach_by_index(session, chance),
        _ => breach_by_operation(session, chance),
    }
}

fn head(bytes: usize, operations: u32, number: u64) -> Header {
    Header { operations, number, ..Header::unnumbered(Frame::Operations, bytes) }
}

/// A frame that is none, or not the next.
fn breach_by_frame(session: &mut Session, chance: &mut Chance) -> &'static str {
    let fence = encoded(Operation::Fence { stream: 0, token: 1 });
    let number = session.frames() + 1;
    let raw = |at: usize, value: &[u8]| {
        let mut header = head(0, 1, number).encode();
        header[at..at + value.len()].copy_from_slice(value);
        session.raw(&header, &[]);
    };
    match chance.below(5) {
        0 => {
            session.raw(&head(fence.len(), 1, number + 1).encode(), &fence);
            "a frame that leaves others out"
        }
        1 => {
            raw(0, b"X");
            "protocol: "
        }
        2 => {
            raw(VERSION_AT, &[VERSION + 1]);
            "install the same release"
        }
        3 => {
            raw(KIND_AT, &[77]);
            "kind of frame: 77 means nothing"
        }
        _ => {
            raw(BYTES_AT, &u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes());
            "bytes where"
        }
    }
}

/// An index that no ring has.
fn breach_by_index(session: &mut Session, chance: &mut Chance) -> &'static str {
    if chance.one_in(2) {
        session.misplace_written();
    } else {
        session.misplace_read(STUCK);
    }
    "indices that no ring has"
}

/// Operations that are none, or fewer or more than their frame says.
fn breach_by_operation(session: &mut Session, chance: &mut Chance) -> &'static str {
    let fence = encoded(Operation::Fence { stream: 0, token: 1 });
    let image = |total, offset| Operation::Image { digest: [1; 32], total, offset, bytes: &[1] };
    let (count, payload, said) = match chance.below(9) {
        0 => (2, fence, "cut short"),
        1 => (1, [&fence[..], &fence[..]].concat(), "bytes behind the last operation"),
        2 => (1, vec![99], "an operation: 99 means nothing"),
        3 => {
            let absent = SYMBOLS.iter().find(|symbol| *symbol.column() == Column::Absent).unwrap();
            (1, encoded(Operation::Call(*absent, Arguments::new())), "a call: ")
        }
        4 => {
            // A copy that is cut off: its length says more than there is.
            let mut bytes = encoded(Operation::Write { stream: 0, to: 0, bytes: &[1; 1000] });
            bytes.pop();
            (1, bytes, "cut short")
        }
        5 => {
            let mut bytes = encoded(Operation::Write { stream: 0, to: 0, bytes: &[] });
            bytes.pop();
            bytes.varint(PIECE_BYTES_MAX as u64 + 1);
            (1, bytes, "bytes where")
        }
        7 => (1, encoded(Operation::Hold { stream: 0, token: 0 }), "a wait without a name of its own"),
        6 => (1, encoded(image(IMAGE_BYTES_MAX as u64 + 1, 0)), "bytes where"),
        _ => (1, encoded(image(9, 1)), "image"),
    };
    session.frame(count, &payload);
    said
}

/// Starts a worker in a tenant, and a session with it.
fn open(node: &Node, tenant: &str, name: &str, rings: Rings) -> (Program, Session) {
    let path: PathBuf = node.path(&format!("{name}.sock"));
    let worker = workspace::program("headgate-worker").unwrap();
    let mut command = node.command(tenant, &worker).unwrap();
    command.args(["--listen", &format!("unix:{}", path.display())]);
    let program = Program::start("headgate-worker", &mut command).unwrap();
    let session = eventually("the worker listens", SOON, || Session::open(&path, rings).ok());
    (program, session)
}

/// Context 1, streams 1 and 2, event 1, module 1 with kernel 1, and memory.
fn settle(session: &mut Session) -> Foe {
    let made = |kind, number| Argument::New(kind, number);
    let calls = [
        (Symbol::cuDevicePrimaryCtxRetain, [made(Kind::Context, 1), Argument::Word(0)]),
        (Symbol::cuStreamCreate, [made(Kind::Stream, 1), Argument::Word(1)]),
        (Symbol::cuStreamCreate, [made(Kind::Stream, 2), Argument::Word(0)]),
        (Symbol::cuEventCreate, [made(Kind::Event, 1), Argument::Word(0)]),
    ];
    for (symbol, arguments) in &calls {
        session.call(*symbol, arguments);
        session.say(&Operation::Context(1));
    }
    let image = session.image(concat!(include_str!("../../apps/kernels/ptx/spin.ptx"), "\0").as_bytes());
    let load = Operation::Load { module: 1, digest: image, options: &[], kernels: Names::default() };
    assert_eq!(session.ask(&load, STUCK).unwrap().0, 0, "the kernels load");
    let kernel = [made(Kind::Function, 1), Argument::Handle(Kind::Module, 1), Argument::Text("spin")];
    session.call(Symbol::cuModuleGetFunction, &kernel);
    let addresses = (0..3).map(|size| allocate(session, 4096 << (4 * size))).collect();
    Foe { calls: Vec::new(), image, addresses }
}

fn allocate(session: &mut Session, bytes: u64) -> u64 {
    let mut arguments = Arguments::new();
    arguments.push(Argument::Out(true));
    arguments.push(Argument::Word(bytes));
    let (status, results) = session.ask(&Operation::Call(Symbol::cuMemAlloc_v2, arguments), STUCK).unwrap();
    assert_eq!(status, 0, "there is memory");
    u64::from_le_bytes(results.try_into().unwrap())
}

/// One session of a client that keeps to nothing.
fn misbehave(node: &Node, seed: u64, index: u64) {
    let what = format!("SEED={seed} SESSION={index}");
    let mut chance = Chance::new(seed.wrapping_mul(1_000_003).wrapping_add(index));
    // Half of them over memory that both have, the others over the socket.
    let rings = if index.is_multiple_of(2) { Rings::Direct } else { Rings::None };
    let (worker, mut session) = open(node, "guest", &format!("foe-{index}"), rings);
    let stuck = chance.one_in(8);
    let foe = Foe { calls: calls(stuck), ..settle(&mut session) };
    let mut sent = 0;
    while sent < OPERATIONS {
        let (mut payload, mut count) = (Vec::new(), 0);
        for _ in 0..=chance.below(12) {
            let before = payload.len();
            foe.operation(&mut chance, &mut payload);
            count += 1 + u32::from(payload[before] == Session::TEMPLATE);
        }
        sent += u64::from(count);
        session.frame(count, &payload);
        if chance.one_in(6) {
            // The same once more, as after a break: it is left out.
            session.again(count, &payload);
        }
        if chance.one_in(4) {
            let heard = hold_up(&foe, &mut session, &mut chance, stuck);
            assert!(heard || stuck, "{what}: not asked for bytes after {sent} operations");
        }
        // Whoever waits for its own stuck stream waits; that is no answer to wait for here.
        if !stuck && chance.one_in(2) {
            let answered = session.ping(STUCK);
            assert!(answered, "{what}: no answer after {sent} operations");
        }
    }
    let expected = if stuck {
        session.cut();
        "has gone without a word"
    } else {
        end(&mut session, &mut chance)
    };
    let outcome = worker.finish(SOON).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    session.close();
    let said = &outcome.stderr;
    assert!(!said.contains("panicked"), "{what}: {said}");
    let code = outcome.status.code();
    assert!(code.is_some(), "{what}: {}: {said}", outcome.status);
    if expected.is_empty() {
        assert_eq!(code, Some(0), "{what}: {said}");
    } else {
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(expected), "{what}: `{expected}` is not what it said: {said}");
    }
}

/// Has a stream wait for bytes and sends some to wherever, others for nobody; or, where the session means to get stuck, none. Whether
/// the worker said something.
fn hold_up(foe: &Foe, session: &mut Session, chance: &mut Chance, stuck: bool) -> bool {
    let stream = Foe::number(chance);
    let held = session.hold(stream, if stuck { Duration::ZERO } else { STUCK });
    let token = held.map_or(0, |(token, _)| token);
    for _ in 0..chance.below(4) {
        let bytes = vec![chance.byte(); chance.pick(&[0, 1, 4096, PIECE_BYTES_MAX])];
        let token = if chance.one_in(4) { chance.next() } else { token };
        session.late(token, foe.address(chance), false, &bytes);
    }
    session.late(token, foe.address(chance), true, &[1; 8]);
    held.is_some()
}

fn on_the_device(node: &Node) -> u64 {
    node.device().control().statistics().unwrap()["devices"][0]["memory_used_bytes"].as_u64().unwrap()
}

#[test]
fn a_client_that_keeps_to_nothing_harms_its_own_session_only() {
    let node = node(vec![
        TenantSpec::new("guest").sm(40).memory("1Gi"),
        TenantSpec::new("other").sm(40).memory("1Gi"),
    ]);
    let (worker, mut witness) = open(&node, "other", "witness", Rings::Direct);
    let place = settle(&mut witness).addresses[1];
    let pattern: Vec<u8> = (0..WITNESS_BYTES).map(|index| index.to_le_bytes()[0] ^ 0x5a).collect();
    witness.say(&Operation::Write { stream: 1, to: place, bytes: &pattern });
    assert_eq!(witness.read(1, place, WITNESS_BYTES, STUCK).unwrap(), pattern);
    let before = on_the_device(&node);
    let seed = seed();
    let only = std::env::var("SESSION").ok().and_then(|index| index.parse().ok());
    for index in (0..SESSIONS).filter(|index| only.is_none_or(|only: u64| only == *index)) {
        misbehave(&node, seed, index);
        eventually(&format!("SEED={seed} SESSION={index}: the device has its memory back"), SOON, || {
            (on_the_device(&node) == before).then_some(())
        });
        eventually_used(&node, "guest", 0, SOON);
        let found = witness.read(1, place, WITNESS_BYTES, STUCK);
        assert_eq!(found.as_deref(), Some(&pattern[..]), "SEED={seed} SESSION={index}: another's memory");
    }
    witness.say(&Operation::Goodbye);
    let outcome = worker.finish(SOON).unwrap();
    assert!(outcome.status.success(), "{}", outcome.stderr);
}

#[test]
fn who_is_of_another_release_is_refused_in_its_own_version_and_harms_nobody() {
    let node = node(vec![TenantSpec::new("guest").sm(40).memory("1Gi")]);
    let worker = Worker::in_tenant(&node, "guest", Transport::Unix).unwrap();
    let path = Path::new(worker.address().trim_start_matches("unix:"));
    let mut stranger = UnixStream::connect(path).unwrap();
    let mut hello = Frame::Hello.alone(&Hello::default().encode());
    hello[VERSION_AT] = VERSION - 1;
    stranger.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    stranger.read_to_end(&mut answer).unwrap();
    assert_eq!((answer[VERSION_AT], answer[KIND_AT]), (VERSION - 1, Frame::Refused as u8));
    let said = String::from_utf8_lossy(&answer[HEADER_BYTES..]);
    for version in [VERSION, VERSION - 1] {
        assert!(said.contains(&format!("version {version} ")), "{said}");
    }
    Session::open(path, Rings::None).expect("the worker still waits for its client").close();
}

/// Every class of call and every kind of handle is in reach of the sessions above.
#[test]
fn the_grammar_reaches_every_kind() {
    let calls = calls(true);
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Link) {
        let names = |rule: &Rule| matches!(rule, Rule::Handle(k) | Rule::New(k) | Rule::End(k) if *k == kind);
        assert!(calls.iter().any(|(_, rules)| rules.iter().any(names)), "{kind:?}");
    }
    for class in [Class::Forget, Class::Promise, Class::Reply] {
        assert!(calls.iter().any(|(symbol, _)| symbol.line().unwrap().class == class), "{class:?}");
    }
}
