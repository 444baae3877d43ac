//! The worker: one process, one session, on the lender's node.
//!
//! It is an ordinary CUDA program and an ordinary tenant: it finds the driver as any program does, so the hook stands in
//! front of it and the lender's quota holds for it. What a client sends is hostile input: every number is bounded before
//! anything is allocated, every handle must be of the right kind and still live, and what breaks the protocol ends the
//! session and nothing else.
//!
//! ```text
//!              accept ──hello──> dispatcher ──operations──> driver
//!                │                  │ events                  │
//!            (again, after a break) └──────> watch <──looks───┘
//!                                              └──notices──> outbox ──> client
//! ```

mod driver;
mod handles;
mod staging;
mod images;
mod watch;
mod timer;
mod mourner;
mod call;
mod launch;
pub(crate) mod compiler;
mod load;
mod ahead;
mod recall;
mod late;
mod reader;
mod link;
mod aside;
mod gauges;
mod session;
pub mod confine;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use headgate_abi::cuda::symbols::Symbol;
use thiserror::Error;

use driver::Driver;
pub use driver::NoDriver;
use gauges::Nvml;
use reader::{Backlog, Item, Reader};
use recall::Recall;
use session::{End, Session, Stop};
use staging::Staging;
use watch::Watch;

pub(crate) use launch::travels as launch_attribute_travels;

use crate::limits::{DEVICES_MAX, HELLO_WITHIN, RESUME_WITHIN, UNASKED_AFTER, WORKER_LOOKS_FOR};
use crate::link::{Arrival, Frame, Inlet, Listener, Memory, Outbox, Patience, ReadError, Side, Stream};
use crate::wire::Malformed;
use crate::wire::frame::{
    ATTRIBUTES, DeviceSnapshot, Header, Hello, Kind, Rings, Ticket, VERSION, Welcome, refusal,
};

/// Why a worker ended otherwise than by its client's goodbye.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// There is no driver to work with.
    #[error(transparent)]
    NoDriver(#[from] NoDriver),
    /// The operating system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Client(#[from] Malformed),
    /// The client is gone and has not come back in time.
    #[error("the client has gone without a word and did not come back within {} s", RESUME_WITHIN.as_secs())]
    Abandoned,
}

/// A connection that has said hello.
#[derive(Debug)]
struct Greeted {
    stream: Arc<Stream>,
    inlet: Inlet,
    /// What the client has received.
    acknowledged: u64,
    /// Whether it would go on over rings.
    rings: bool,
}

/// Serves one session on a listening socket. `ready` is called when the driver has started, and before anything of the
/// client's is read.
///
/// # Errors
/// When there is no driver, or the session ends otherwise than by the client's goodbye.
pub fn serve(listener: Listener, ready: impl FnOnce()) -> Result<(), WorkerError> {
    let system = |what| move |error| WorkerError::System { what, error };
    let driver = Arc::new(Driver::load()?);
    let nvml = Nvml::load();
    let may_break = listener.may_break();
    let welcome = Welcome { ticket: ticket()?, driver_version: version(&driver), devices: devices(&driver) };
    ready();
    let (first, ticket) = (first_client(&listener, &welcome)?, welcome.ticket);
    let out = Arc::new(Outbox::new(Arc::clone(&first.stream), may_break, ()));
    let (sender, again) = sync_channel(1);
    if may_break {
        let current = Arc::clone(&first.stream);
        let greeter = move || greet_again(&listener, ticket, current, &sender);
        thread::Builder::new()
            .name("greeter".to_owned())
            .spawn(greeter)
            .map_err(system("starting a thread"))?;
    }
    if !may_break {
        mourner::watch_over(&first.stream).map_err(system("starting a thread"))?;
    }
    let staging = Arc::new(Staging::default());
    let watch = Arc::new(Watch::new(Arc::clone(&driver), Arc::clone(&out)));
    for (name, body) in [("sender", true), ("watch", false)] {
        let (out, watch) = (Arc::clone(&out), Arc::clone(&watch));
        let work = move || if body { out.run() } else { watch.run() };
        thread::Builder::new().name(name.to_owned()).spawn(work).map_err(system("starting a thread"))?;
    }
    let recall = Arc::new(Recall::new(driver.ahead(), Arc::clone(&out)));
    if recall.may_be_called() {
        let recall = Arc::clone(&recall);
        let listen = move || recall.run();
        thread::Builder::new()
            .name("recall".to_owned())
            .spawn(listen)
            .map_err(system("starting a thread"))?;
    }
    driver.relax_captures();
    let mut session = Session::new(Arc::clone(&driver), nvml, staging, watch, recall, Arc::clone(&out));
    let reader =
        Reader { inlet: first.inlet, ticket, out: Arc::clone(&out), again: may_break.then_some(again) };
    let outcome = dispatch(&mut session, reader, &driver, &out);
    session.finish();
    outcome
}

/// Where the dispatcher's frames come from.
enum Source {
    /// From the connection, as it asks for them.
    Here(Box<Reader>),
    /// From a thread that reads ahead of it.
    Ahead(Arc<Backlog>),
}

/// Executes frame after frame.
fn dispatch(
    session: &mut Session,
    reader: Reader,
    driver: &Arc<Driver>,
    out: &Outbox<()>,
) -> Result<(), WorkerError> {
    let mut source = Source::Here(Box::new(reader));
    loop {
        match one_frame(session, &mut source, out) {
            Ok(()) => source = read_ahead_if_need_be(source, session, driver)?,
            Err(Stop::Session(End::Goodbye)) => return Ok(()),
            Err(Stop::Drain) => {
                session.drain();
                out.last_word(Kind::Over, "the lender takes its device back; what was under way is finished");
                return Ok(());
            }
            Err(Stop::Aside) => match session.put_aside() {
                Ok(()) => out.say(Kind::Aside),
                Err(status) => {
                    let why = format!(
                        "the lender takes its device back, and cannot keep what is on it: {status:?}"
                    );
                    out.last_word(Kind::Over, &why);
                    return Ok(());
                }
            },
            Err(Stop::Return) => match session.come_back() {
                Ok(()) => out.say(Kind::Return),
                Err(status) => {
                    let why = format!("what was put aside cannot come back to the device: {status:?}");
                    out.last_word(Kind::Over, &why);
                    return Ok(());
                }
            },
            Err(Stop::Session(End::Malformed(malformed)) | Stop::Read(ReadError::Malformed(malformed))) => {
                return Err(malformed.into());
            }
            Err(Stop::Session(End::Closed)) => return Err(WorkerError::Abandoned),
            Err(Stop::Read(ReadError::Place(error))) => {
                return Err(WorkerError::System { what: "receiving into pinned memory", error });
            }
            Err(Stop::Read(ReadError::Gone(_))) => {
                let resumed = match &mut source {
                    Source::Here(reader) => reader.resume(),
                    // Whoever reads ahead has waited already.
                    Source::Ahead(_) => false,
                };
                if !resumed {
                    return Err(WorkerError::Abandoned);
                }
            }
        }
    }
}

/// Once a stream is to wait for bytes, the dispatcher must not be the one who reads them.
fn read_ahead_if_need_be(
    source: Source,
    session: &Session,
    driver: &Arc<Driver>,
) -> Result<Source, WorkerError> {
    match source {
        Source::Here(reader) if session.late.is_used() => {
            let backlog = reader.go_ahead(Arc::clone(driver), Arc::clone(&session.late));
            let backlog =
                backlog.map_err(|error| WorkerError::System { what: "starting a thread", error })?;
            Ok(Source::Ahead(backlog))
        }
        source => Ok(source),
    }
}

fn one_frame(session: &mut Session, source: &mut Source, out: &Outbox<()>) -> Result<(), Stop> {
    let header = match source {
        Source::Here(reader) => frame_from_here(session, &mut reader.inlet)?,
        Source::Ahead(backlog) => frame_from_ahead(session, backlog)?,
    };
    out.received(&header);
    Ok(())
}

fn frame_from_here(session: &mut Session, inlet: &mut Inlet) -> Result<Header, Stop> {
    // What comes soon is seen sooner by a thread that looks than by one that sleeps.
    let mut ready = false;
    if session.owes_word() {
        ready = inlet.ready(Patience::Looks(UNASKED_AFTER))?;
        if !ready {
            session.tell_unasked();
        }
    }
    if !ready {
        let _soon = inlet.ready(Patience::Looks(WORKER_LOOKS_FOR))?;
    }
    match inlet.arrival()? {
        Arrival::Whole(Frame { header, payload }) => {
            execute(session, &header, payload)?;
            Ok(header)
        }
        Arrival::Large(large) => {
            let header = large.header();
            session.execute_large(large)?;
            Ok(header)
        }
    }
}

fn frame_from_ahead(session: &mut Session, backlog: &Backlog) -> Result<Header, Stop> {
    let mut item = None;
    if session.owes_word() {
        item = backlog.take_within(UNASKED_AFTER);
        if item.is_none() {
            session.tell_unasked();
        }
    }
    match item.unwrap_or_else(|| backlog.take()) {
        Item::Frame(header, payload) => {
            execute(session, &header, &payload)?;
            Ok(header)
        }
        Item::Landed(header) => Ok(header),
        Item::End(error) => Err(error.into()),
    }
}

fn execute(session: &mut Session, header: &Header, payload: &[u8]) -> Result<(), Stop> {
    match header.kind {
        Kind::Operations => Ok(session.execute(header.operations, payload)?),
        Kind::Drain => Err(Stop::Drain),
        Kind::Aside => Err(Stop::Aside),
        Kind::Return => Err(Stop::Return),
        _ => Ok(()),
    }
}

/// Waits for the client. Whoever does not greet properly, or in time, is not it; where only one can come, that one has
/// thought better of it.
fn first_client(listener: &Listener, welcome: &Welcome) -> Result<Greeted, WorkerError> {
    loop {
        if let Ok(stream) = listener.accept()
            && let Some(greeted) = greet(stream, |claimed| claimed.session == 0)
            && let Some(welcomed) = welcome_in(greeted, welcome, listener.is_near())
        {
            return Ok(welcomed);
        }
        if matches!(listener, Listener::Carried(_) | Listener::Connected(_)) {
            return Err(WorkerError::Abandoned);
        }
    }
}

/// Answers the first greeting: with rings, if the client would have them and nobody is in between.
fn welcome_in(greeted: Greeted, welcome: &Welcome, near: bool) -> Option<Greeted> {
    let made = if near && greeted.rings { Memory::make().ok() } else { None };
    let Some((memory, descriptor)) = made else {
        return answer_hello(&greeted.stream, welcome, 0).is_ok().then_some(greeted);
    };
    let Greeted { stream, mut inlet, acknowledged, rings } = greeted;
    let payload = welcome.encode();
    let header = Header { rings: Rings::Direct, ..Header::unnumbered(Kind::Welcome, payload.len()) };
    stream.write_with(&[&header.encode()[..], &payload].concat(), descriptor.as_fd()).ok()?;
    // The memory does not come through everything that passes bytes on, and not everybody can have it.
    stream.set_patience(Some(HELLO_WITHIN)).ok()?;
    let answer = inlet.frame().ok()?;
    let taken = match (answer.header.kind, answer.payload) {
        (Kind::Rings, [1]) => true,
        (Kind::Rings, [0]) => false,
        _ => return None,
    };
    stream.set_patience(None).ok()?;
    if !taken {
        return Some(Greeted { stream, inlet, acknowledged, rings });
    }
    // What the client has written since is in the ring.
    drop(stream);
    let stream = Arc::new(inlet.into_stream().ok()?.over(memory, Side::Worker).ok()?);
    let inlet = Inlet::new(Arc::clone(&stream), 0);
    Some(Greeted { stream, inlet, acknowledged, rings })
}

/// Lets the client come back after a break. Ends with the process.
fn greet_again(listener: &Listener, ticket: Ticket, mut current: Arc<Stream>, sender: &SyncSender<Greeted>) {
    loop {
        let Ok(stream) = listener.accept() else { continue };
        // Known to whoever was given the first welcome, and nobody else.
        let Some(greeted) = greet(stream, |claimed| *claimed == ticket) else { continue };
        // The old connection may still look alive here; its reader must let go first.
        current.shut();
        current = Arc::clone(&greeted.stream);
        if sender.send(greeted).is_err() {
            return;
        }
    }
}

/// Reads the first frame of a connection. Who says something else is told what is wrong.
fn hello(stream: Stream) -> Option<(Hello, Header, Arc<Stream>, Inlet)> {
    let stream = Arc::new(stream);
    stream.set_patience(Some(HELLO_WITHIN)).ok()?;
    let mut inlet = Inlet::new(Arc::clone(&stream), 0);
    let (header, hello) = match inlet.frame() {
        Ok(frame) => (frame.header, Hello::decode(frame.payload)),
        Err(ReadError::Malformed(malformed)) => {
            refuse(&stream, malformed);
            return None;
        }
        Err(ReadError::Gone(_) | ReadError::Place(_)) => return None,
    };
    let hello = hello.map_err(|malformed| refuse(&stream, malformed)).ok()?;
    stream.set_patience(None).ok()?;
    (header.kind == Kind::Hello).then_some((hello, header, stream, inlet))
}

fn greet(stream: Stream, accept: impl Fn(&Ticket) -> bool) -> Option<Greeted> {
    let (hello, header, stream, inlet) = hello(stream)?;
    if !accept(&hello.ticket) {
        refuse(&stream, Malformed::Misplaced("this worker has no such session"));
        return None;
    }
    Some(Greeted { stream, inlet, acknowledged: header.acknowledged, rings: header.rings == Rings::Direct })
}

fn answer_hello(stream: &Stream, welcome: &Welcome, received: u64) -> io::Result<()> {
    let payload = welcome.encode();
    let header = Header { acknowledged: received, ..Header::unnumbered(Kind::Welcome, payload.len()) };
    stream.write_both(&header.encode(), &payload)
}

/// Says why not, in the other side's version.
fn refuse(stream: &Stream, why: Malformed) {
    let version = if let Malformed::Version { theirs, .. } = why { theirs } else { VERSION };
    // Whoever is refused may be gone already.
    let _gone = stream.write_both(&refusal(&why.to_string(), version), &[]);
}

/// A session's name and secret.
fn ticket() -> Result<Ticket, WorkerError> {
    use std::io::Read as _;
    let mut bytes = [0; 24];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|error| WorkerError::System { what: "reading random bytes", error })?;
    let (name, secret) = bytes.split_at(8);
    let session = u64::from_le_bytes(name.try_into().unwrap_or_default()).max(1);
    Ok(Ticket { session, secret: secret.try_into().unwrap_or_default() })
}

fn version(driver: &Driver) -> u32 {
    let mut version = 0u32;
    let place = (&raw mut version).expose_provenance() as u64;
    let _status = driver.call(Symbol::cuDriverGetVersion, &[place]);
    version
}

/// Everything about the devices that does not change.
fn devices(driver: &Driver) -> Vec<DeviceSnapshot> {
    let mut count = 0u32;
    let place = (&raw mut count).expose_provenance() as u64;
    let _status = driver.call(Symbol::cuDeviceGetCount, &[place]);
    (0..u64::from(count).min(DEVICES_MAX as u64)).map(|ordinal| device(driver, ordinal)).collect()
}

fn device(driver: &Driver, ordinal: u64) -> DeviceSnapshot {
    const TEXT_BYTES: usize = 256;
    let mut device = 0u32;
    let _status = driver.call(Symbol::cuDeviceGet, &[(&raw mut device).expose_provenance() as u64, ordinal]);
    let device = u64::from(device);
    let text = |symbol| {
        let mut text = [0u8; TEXT_BYTES];
        let place = text.as_mut_ptr().expose_provenance() as u64;
        let _status = driver.call(symbol, &[place, TEXT_BYTES as u64, device]);
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..end]).into_owned()
    };
    let (mut uuid, mut memory_bytes) = ([0u8; 16], 0u64);
    let _status =
        driver.call(Symbol::cuDeviceGetUuid_v2, &[uuid.as_mut_ptr().expose_provenance() as u64, device]);
    let place = (&raw mut memory_bytes).expose_provenance() as u64;
    let _status = driver.call(Symbol::cuDeviceTotalMem_v2, &[place, device]);
    let attribute = |number: u32| {
        let mut value = 0i32;
        let place = (&raw mut value).expose_provenance() as u64;
        driver
            .call(Symbol::cuDeviceGetAttribute, &[place, number.into(), device])
            .is_success()
            .then_some(value)
    };
    DeviceSnapshot {
        name: text(Symbol::cuDeviceGetName),
        uuid,
        pci: text(Symbol::cuDeviceGetPCIBusId),
        memory_bytes,
        attributes: (0..ATTRIBUTES).map(attribute).collect(),
    }
}
