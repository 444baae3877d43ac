//! The wire's own client: says what it is told, well or badly, and hears everything.

#![allow(unreachable_pub, reason = "part of a test")]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_abi::cuda::symbols::Symbol;
use headgate_remote::link::{Inlet, ReadError, Stream};
use headgate_remote::wire::Reader;
use headgate_remote::wire::frame::{Header, Hello, Kind, Rings};
use headgate_remote::wire::operation::{Argument, Arguments, Digest, Notice, Operation};
use sha2::Digest as _;

/// Numbers that a seed decides (xorshift).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 32) % bound
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

#[derive(Debug, Default)]
struct Heard {
    replies: HashMap<u64, (u32, Vec<u8>)>,
    done: HashMap<u64, u32>,
    data: HashMap<u64, Vec<u8>>,
    asked: HashSet<u64>,
    over: bool,
}

#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Heard>,
    arrival: Condvar,
    received: AtomicU64,
}

/// Where the memory of rings has the index of what the client has written, and of what it has read.
const WRITTEN_AT: u64 = 0;
const READ_AT: u64 = 256 + 64;

/// The rings as a hostile process has them: their memory, and the socket that rings for them.
#[derive(Debug)]
struct Grip {
    memory: File,
    socket: UnixStream,
}

impl Grip {
    fn misplace(&self, at: u64) -> io::Result<()> {
        let mut index = [0; 4];
        self.memory.read_exact_at(&mut index, at)?;
        // Half of all indices away, which is more than any ring holds, wherever the worker is by now.
        index[3] ^= 0x80;
        self.memory.write_all_at(&index, at)
    }
}

/// A session with a worker on a Unix socket.
#[derive(Debug)]
pub struct Session {
    stream: Arc<Stream>,
    /// None, if it goes over the socket.
    rings: Option<Grip>,
    ear: Arc<Ear>,
    listener: JoinHandle<()>,
    frames: u64,
    operations: u64,
    tokens: u64,
}

impl Session {
    /// What an operation begins with that another one stands behind.
    pub const TEMPLATE: u8 = 4;

    /// Greets, reads the welcome, and goes on over rings or over the socket. Which of them, the worker is held to.
    pub fn open(path: &Path, rings: Rings) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let bell = socket.try_clone()?;
        let stream = Arc::new(Stream::Unix(socket));
        let payload = Hello::default().encode();
        let header = Header { rings, ..Header::unnumbered(Kind::Hello, payload.len()) };
        stream.write_both(&header.encode(), &payload)?;
        let mut inlet = Inlet::new(stream, 0);
        let memory = inlet.begin_with_descriptor().map_err(io::Error::other)?;
        let welcome = inlet.frame().map_err(io::Error::other)?.header;
        assert_eq!((welcome.kind, welcome.rings), (Kind::Welcome, rings));
        assert_eq!(memory.is_some(), rings == Rings::Direct, "memory comes with a welcome that says so");
        let mut stream = inlet.into_stream().map_err(io::Error::other)?;
        let mut grip = None;
        if let Some(memory) = memory {
            grip = Some(Grip { memory: memory.try_clone()?.into(), socket: bell });
            stream.write_both(&Kind::Rings.alone(&[1]), &[])?;
            stream = stream.over_rings(memory)?;
        }
        let stream = Arc::new(stream);
        let inlet = Inlet::new(Arc::clone(&stream), 0);
        let ear = Arc::new(Ear::default());
        let listener = {
            let ear = Arc::clone(&ear);
            std::thread::spawn(move || listen(inlet, &ear))
        };
        Ok(Self { stream, rings: grip, ear, listener, frames: 0, operations: 0, tokens: 1 << 32 })
    }

    /// Frames sent so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes whatever it is given. The worker may have ended by then.
    pub fn raw(&self, head: &[u8], payload: &[u8]) {
        let _gone = self.stream.write_both(head, payload);
    }

    fn head(&self, operations: u32, payload: &[u8]) -> Header {
        let acknowledged = self.ear.received.load(SeqCst);
        let unnumbered = Header::unnumbered(Kind::Operations, payload.len());
        Header { operations, number: self.frames, acknowledged, ..unnumbered }
    }

    /// Sends the next frame.
    pub fn frame(&mut self, operations: u32, payload: &[u8]) {
        self.frames += 1;
        self.operations += u64::from(operations);
        self.raw(&self.head(operations, payload).encode(), payload);
    }

    /// Sends a frame that was sent before.
    pub fn again(&self, operations: u32, payload: &[u8]) {
        self.raw(&self.head(operations, payload).encode(), payload);
    }

    /// Sends one operation.
    pub fn say(&mut self, operation: &Operation<'_>) {
        let mut payload = Vec::new();
        operation.encode(&mut payload);
        self.frame(1, &payload);
    }

    /// Has a stream wait for bytes. Whether the worker asks for them; it does not where that went wrong. `None` when neither is said.
    pub fn hold(&mut self, stream: u32, patience: Duration) -> Option<(u64, bool)> {
        self.tokens += 1;
        let token = self.tokens;
        self.say(&Operation::Hold { stream, token });
        self.until(patience, |heard| {
            let failed = heard.done.remove(&token).map(|_| false);
            heard.asked.remove(&token).then_some(true).or(failed)
        })
        .map(|asked| (token, asked))
    }

    /// Sends bytes for a stream that waits, which are not counted among the operations.
    pub fn late(&mut self, token: u64, to: u64, last: bool, bytes: &[u8]) {
        let mut payload = Vec::new();
        Operation::Late { token, to, last, bytes }.encode(&mut payload);
        self.frames += 1;
        self.raw(&self.head(1, &payload).encode(), &payload);
    }

    /// Sends a call by rule.
    pub fn call(&mut self, symbol: Symbol, arguments: &[Argument<'_>]) {
        let mut list = Arguments::new();
        arguments.iter().for_each(|argument| list.push(*argument));
        self.say(&Operation::Call(symbol, list));
    }

    /// Sends an image, in one piece.
    pub fn image(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest::from(sha2::Sha256::digest(bytes));
        self.say(&Operation::Image { digest, total: bytes.len() as u64, offset: 0, bytes });
        digest
    }

    /// Sends an operation and waits for its answer: status and results; `None` when none comes.
    pub fn ask(&mut self, operation: &Operation<'_>, patience: Duration) -> Option<(u32, Vec<u8>)> {
        self.say(operation);
        let number = self.operations;
        self.until(patience, |heard| heard.replies.remove(&number))
    }

    /// Whether the worker answers a question that no state can make wrong.
    pub fn ping(&mut self, patience: Duration) -> bool {
        let mut arguments = Arguments::new();
        for argument in [Argument::Out(true), Argument::Word(0), Argument::Word(0)] {
            arguments.push(argument);
        }
        let question = Operation::Call(Symbol::cuDeviceCanAccessPeer, arguments);
        self.ask(&question, patience).is_some()
    }

    /// Device memory, as the worker reads it; `None` where it says otherwise.
    pub fn read(&mut self, stream: u32, from: u64, bytes: usize, patience: Duration) -> Option<Vec<u8>> {
        self.tokens += 1;
        let token = self.tokens;
        self.say(&Operation::Read { stream, from, bytes: bytes as u64, token });
        let status = self.until(patience, |heard| heard.done.remove(&token))?;
        let data = self.ear.heard.lock().unwrap().data.remove(&token);
        data.filter(|data| status == 0 && data.len() == bytes)
    }

    fn until<T>(&self, patience: Duration, look: impl Fn(&mut Heard) -> Option<T>) -> Option<T> {
        let heard = self.ear.heard.lock().unwrap();
        let mut found = None;
        let waits = |heard: &mut Heard| {
            found = look(heard);
            found.is_none() && !heard.over
        };
        drop(self.ear.arrival.wait_timeout_while(heard, patience, waits).unwrap());
        found
    }

    /// Whether it goes over rings.
    pub fn over_rings(&self) -> bool {
        self.rings.is_some()
    }

    /// Says that it has written what no ring holds, and has the worker look.
    pub fn misplace_written(&self) {
        let grip = self.rings.as_ref().unwrap();
        grip.misplace(WRITTEN_AT).unwrap();
        // The worker may be awake, have looked, and be gone.
        let _gone = (&grip.socket).write(&[1]);
    }

    /// Says that it has read what no ring holds, until the worker has looked.
    pub fn misplace_read(&mut self, patience: Duration) {
        let mut asked = 0;
        let grip = |session: &Self| session.rings.as_ref().unwrap().misplace(READ_AT).unwrap();
        grip(self);
        // What is read meanwhile puts the index right again.
        while self.ping(patience) {
            grip(self);
            asked += 1;
            assert!(asked < 1_000, "the worker does not mind");
        }
    }

    /// Goes away without a word.
    pub fn cut(&self) {
        self.stream.shut();
    }

    /// Ends, after what came was all understood.
    pub fn close(self) {
        self.stream.shut();
        self.listener.join().unwrap();
    }
}

/// Takes notices until the connection ends. What is none fails the test.
fn listen(mut inlet: Inlet, ear: &Ear) {
    loop {
        let (count, payload) = match inlet.frame() {
            Ok(frame) if frame.header.kind == Kind::Operations => {
                (frame.header.operations, frame.payload.to_vec())
            }
            Ok(_) => continue,
            Err(ReadError::Gone(_)) => break,
            Err(error) => panic!("the worker broke the protocol: {error}"),
        };
        ear.received.store(inlet.received(), SeqCst);
        let mut reader = Reader::new(&payload);
        let mut heard = ear.heard.lock().unwrap();
        for _ in 0..count {
            match Notice::decode(&mut reader).unwrap() {
                Notice::Reply { operation, status, results } => {
                    heard.replies.insert(operation, (status, results.to_vec()));
                }
                Notice::Done { token, status } => {
                    heard.done.insert(token, status);
                }
                Notice::Data { token, offset, bytes } => {
                    let data = heard.data.entry(token).or_default();
                    // Tokens of badly meant reads come again and again; nobody asks for those.
                    if data.len() as u64 == offset {
                        data.extend_from_slice(bytes);
                    }
                }
                Notice::Fault { .. } | Notice::Reached { .. } | Notice::Idle | Notice::CallBack { .. } => {}
                Notice::Fetch { token } => {
                    heard.asked.insert(token);
                }
            }
        }
        assert!(reader.is_empty());
        drop(heard);
        ear.arrival.notify_all();
    }
    ear.heard.lock().unwrap().over = true;
    ear.arrival.notify_all();
}
