//! A session's order survives whatever happens to its connections: nothing is lost, nothing comes twice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(unsafe_code, reason = "gives SIGPIPE back its default, as a C program has it")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use headgate_remote::limits::{ACK_FRAMES, JOURNAL_BYTES_MAX, LARGE_BYTES, PIECE_BYTES_MAX};
use headgate_remote::link::{Arrival, Batch, Inlet, Large, Outbox, ReadError, Stream};
use headgate_remote::wire::frame::{Header, Kind};
use headgate_remote::wire::large::{LateHead, WriteHead};
use headgate_remote::wire::operation::Operation;
use headgate_remote::wire::{Put as _, Reader};
use proptest::prelude::*;

/// Longest wait for what another thread does.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many operations are added.
    Add(u8),
    /// One is added that is mostly bytes; those in memory of their own, or not.
    AddLarge(bool),
    /// One is written from memory that is lent.
    Lend,
    /// What was lent is given back.
    Keep,
    /// One that is waited for is sent past the others, from memory that is lent.
    Late,
    /// That is given back, too.
    KeepLate,
    /// What is pending is written.
    Flush,
    /// So many frames are received, if they are there.
    Receive(u8),
    /// The receiver says how far it is.
    Acknowledge,
    /// The connection breaks with everything in it.
    Cut,
    /// The two meet again.
    Mend,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1u8..20).prop_map(Event::Add),
        any::<bool>().prop_map(Event::AddLarge),
        Just(Event::Lend),
        Just(Event::Keep),
        Just(Event::Late),
        Just(Event::KeepLate),
        Just(Event::Flush),
        (1u8..5).prop_map(Event::Receive),
        Just(Event::Acknowledge),
        Just(Event::Cut),
        Just(Event::Mend),
    ]
}

/// Both ends of a session that sends one way.
struct Session {
    out: Outbox<()>,
    inlet: Inlet,
    far: Arc<Stream>,
    added: u64,
    large: u64,
    lent: Vec<Arc<[u8]>>,
    late: Vec<Arc<[u8]>>,
    got_late: Vec<u64>,
    frames: u64,
    got: Vec<u64>,
}

/// Large operations of a session: more than a socket holds would need a second thread to read them.
const LARGE_MAX: u64 = 4;
/// What a large operation has before its number: no other begins so.
const LARGE: u64 = 1 << 40;

fn large(number: u64) -> Vec<u8> {
    (0..LARGE_BYTES as u64).map(|at| (at ^ number).to_le_bytes()[0]).collect()
}

fn pair() -> (Arc<Stream>, Arc<Stream>) {
    let (near, far) = UnixStream::pair().unwrap();
    (Arc::new(Stream::Unix(near)), Arc::new(Stream::Unix(far)))
}

impl Session {
    fn new() -> Self {
        let (near, far) = pair();
        let inlet = Inlet::new(Arc::clone(&far), 0);
        Self {
            out: Outbox::new(near, true, ()),
            inlet,
            far,
            added: 0,
            large: 0,
            lent: Vec::new(),
            late: Vec::new(),
            got_late: Vec::new(),
            frames: 0,
            got: Vec::new(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Add(count) => {
                for _ in 0..count {
                    self.added += 1;
                    let value = self.added;
                    self.out.add(|batch| batch.push(|bytes| bytes.varint(value))).unwrap();
                }
            }
            Event::AddLarge(_) | Event::Lend | Event::Late if self.large == LARGE_MAX => {}
            Event::Late => {
                self.large += 1;
                let number = self.late.len() as u64;
                let bytes: Arc<[u8]> = large(number).into();
                let mut head = Vec::new();
                LateHead { token: number, to: 0, last: true, bytes: bytes.len() }.encode(&mut head);
                self.late.push(Arc::clone(&bytes));
                self.out.send_late(head, Box::new(bytes)).unwrap();
            }
            Event::KeepLate => {
                self.out.keep_late();
                for late in &self.late {
                    assert_eq!(Arc::strong_count(late), 1, "what was lent is given back");
                }
            }
            Event::Lend => {
                self.large += 1;
                self.added += 1;
                let bytes: Arc<[u8]> = large(self.added).into();
                let head = WriteHead { stream: 0, to: LARGE + self.added, bytes: bytes.len() };
                self.lent.push(Arc::clone(&bytes));
                self.out.send_lent(|_| (), |to| head.encode(to), Box::new(bytes)).unwrap();
            }
            Event::Keep => {
                self.out.keep();
                for lent in self.lent.drain(..) {
                    assert_eq!(Arc::strong_count(&lent), 1, "what was lent is given back");
                }
            }
            Event::AddLarge(own) => {
                self.large += 1;
                self.added += 1;
                let bytes = large(self.added);
                let head = WriteHead { stream: 0, to: LARGE + self.added, bytes: bytes.len() };
                let add = |batch: &mut Batch<()>| match own {
                    true => batch.push_alone(|to| head.encode(to), Some(Box::new(bytes))),
                    false => batch.push_alone(|to| write(&head, &bytes, to), None),
                };
                self.out.add(add).unwrap();
            }
            Event::Flush => self.out.flush(),
            Event::Receive(count) => {
                for _ in 0..count {
                    self.receive();
                }
            }
            Event::Acknowledge => {
                let acknowledged = self.inlet.received();
                self.out.received(&Header { acknowledged, ..Header::unnumbered(Kind::Acknowledge, 0) });
            }
            Event::Cut => self.far.shut(),
            Event::Mend => self.mend(),
        }
    }

    fn mend(&mut self) {
        self.far.shut();
        let (near, far) = pair();
        let received = self.inlet.received();
        self.inlet = Inlet::new(Arc::clone(&far), received);
        self.far = far;
        self.out.resume(near, received);
    }

    /// A frame, if one is there or on its way; nothing from a broken connection.
    fn receive(&mut self) -> bool {
        self.far.set_patience(Some(Duration::from_millis(1))).unwrap();
        let got = match self.inlet.arrival() {
            Ok(Arrival::Whole(frame)) => {
                let mut reader = Reader::new(frame.payload);
                let got = (0..frame.header.operations).map(|_| reader.varint().unwrap()).collect();
                assert!(reader.is_empty());
                got
            }
            Ok(Arrival::Large(large)) if LateHead::begins(large.beginning()) => match large.whole() {
                Ok(frame) => {
                    self.got_late.push(late(frame.payload));
                    self.frames += 1;
                    return true;
                }
                Err(error) => return gone(error),
            },
            // Into its place or not, in turn.
            Ok(Arrival::Large(large)) => match receive_large(large, self.frames.is_multiple_of(2)) {
                Ok(number) => vec![number],
                Err(error) => return gone(error),
            },
            Err(error) => return gone(error),
        };
        self.got.extend(got);
        self.frames += 1;
        true
    }
}

fn late(payload: &[u8]) -> u64 {
    let late = Operation::decode(&mut Reader::new(payload)).unwrap();
    let Operation::Late { token, bytes, last: true, .. } = late else { panic!("{late:?}") };
    assert!(bytes == large(token));
    token
}

fn gone(error: ReadError) -> bool {
    assert!(matches!(error, ReadError::Gone(_)), "{error}");
    false
}

fn write(head: &WriteHead, bytes: &[u8], to: &mut Vec<u8>) {
    head.encode(to);
    to.extend_from_slice(bytes);
}

fn receive_large(frame: Large<'_>, in_place: bool) -> Result<u64, ReadError> {
    let length = frame.header().bytes;
    let (head, behind) = WriteHead::decode(frame.beginning(), length).unwrap().unwrap();
    let bytes = if in_place {
        let mut place = vec![0; head.bytes];
        frame.land(behind, &mut place)?;
        place
    } else {
        frame.whole()?.payload[behind..].to_vec()
    };
    let number = head.to - LARGE;
    assert!(bytes == large(number));
    Ok(number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sent_arrives_once_and_in_order(events in proptest::collection::vec(event(), 1..60)) {
        let mut session = Session::new();
        for event in events {
            session.happen(event);
        }
        session.mend();
        session.out.flush();
        while session.receive() {}
        let all: Vec<u64> = (1..=session.added).collect();
        prop_assert_eq!(&session.got, &all);
        // Past the others, but not past each other.
        let late: Vec<u64> = (0..session.late.len() as u64).collect();
        prop_assert_eq!(&session.got_late, &late);
    }
}

/// Ends a session, and with it its sender's thread, however a test ends.
struct Closes<'a>(&'a Outbox<()>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where both sides have sent as much as they may, each waits for the other to say how far it is.
#[test]
fn who_is_ahead_as_far_as_may_be_still_acknowledges_and_sends_what_is_waited_for() {
    let (near, far) = pair();
    let out = Outbox::new(near, true, ());
    std::thread::scope(|scope| {
        let _closes = Closes(&out);
        let sender = scope.spawn(|| out.run());
        let received = scope.spawn(|| {
            far.set_patience(Some(PATIENCE)).unwrap();
            let mut inlet = Inlet::new(far, 0);
            let mut bytes = 0;
            loop {
                let frame = inlet.frame().unwrap();
                match frame.header.kind {
                    Kind::Acknowledge => return (bytes, frame.header.acknowledged),
                    _ => bytes += frame.header.bytes,
                }
            }
        });
        let pieces = JOURNAL_BYTES_MAX / PIECE_BYTES_MAX + 1;
        for _ in 0..pieces {
            let piece = vec![7; PIECE_BYTES_MAX];
            out.add_now(|batch| batch.push_alone(|_| (), Some(Box::new(piece)))).unwrap();
            out.flush();
        }
        out.add_now(|batch| batch.push(|bytes| bytes.varint(1))).unwrap();
        out.send_late(Vec::new(), Box::new([1; 9])).unwrap();
        for number in 1..=u64::from(ACK_FRAMES) {
            out.received(&Header { number, operations: 1, ..Header::unnumbered(Kind::Operations, 0) });
        }
        let (bytes, acknowledged) = received.join().unwrap();
        assert_eq!(acknowledged, u64::from(ACK_FRAMES));
        assert_eq!(
            bytes,
            pieces * PIECE_BYTES_MAX + 9,
            "all that may be, and what is waited for, and no more"
        );
        out.close();
        sender.join().unwrap();
    });
}

#[test]
fn a_connection_that_takes_nothing_keeps_nobody_from_the_next() {
    /// More than sockets hold.
    const PIECES: u64 = 200;
    let (near, taken) = pair();
    let out = Outbox::new(near, true, ());
    std::thread::scope(|scope| {
        let _closes = Closes(&out);
        // Open until the end, as those of a host are that nobody reads any more.
        let mut open = vec![taken];
        scope.spawn(|| out.run());
        for number in 1..=PIECES {
            let bytes = large(number);
            let head = WriteHead { stream: 0, to: LARGE + number, bytes: bytes.len() };
            out.add_now(|batch| batch.push_alone(|to| head.encode(to), Some(Box::new(bytes)))).unwrap();
        }
        for _ in 0..3 {
            // Somebody writes to the one before, and will have to wait there.
            let last = open.last().unwrap();
            last.set_patience(Some(PATIENCE)).unwrap();
            assert_eq!(last.read(&mut [0]).unwrap(), 1);
            let (near, far) = pair();
            let (done, resumed) = channel::<()>();
            let out = &out;
            scope.spawn(move || {
                out.resume(near, 0);
                // Who waits for it may have given up.
                drop(done);
            });
            let waited = resumed.recv_timeout(PATIENCE);
            assert_eq!(waited, Err(RecvTimeoutError::Disconnected), "whoever reads waits for no write");
            open.push(far);
        }
        let mut inlet = Inlet::new(open.pop().unwrap(), 0);
        for number in 1..=PIECES {
            match inlet.arrival().unwrap() {
                Arrival::Large(frame) => assert_eq!(receive_large(frame, true).unwrap(), number),
                Arrival::Whole(frame) => panic!("{frame:?} is none of those"),
            }
        }
    });
}

#[test]
fn a_gap_is_the_other_sides_fault() {
    let (near, far) = pair();
    for number in [1, 3] {
        let header = Header { number, ..Header::unnumbered(Kind::Operations, 0) };
        near.write_both(&header.encode(), &[]).unwrap();
    }
    let mut inlet = Inlet::new(far, 0);
    assert!(inlet.frame().is_ok());
    assert!(matches!(inlet.frame(), Err(ReadError::Malformed(_))));
}

#[test]
fn a_worker_that_is_gone_raises_no_signal() {
    // SAFETY: the default action of a signal that nothing in this test program handles.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (near, far) = pair();
    drop(far);
    let failed = near.write_both(b"to nobody", b"at all").unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn large_pieces_are_sent_from_where_they_are_behind_what_came_before() {
    const PIECES: u64 = 200;
    for resumes in [false, true] {
        let (near, far) = pair();
        let out = Outbox::new(near, resumes, ());
        let mut inlet = Inlet::new(far, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=PIECES {
                    out.add(|batch| batch.push(|bytes| bytes.varint(7))).unwrap();
                    let before = |batch: &mut Batch<()>| {
                        batch.push(|bytes| bytes.varint(8));
                    };
                    let bytes = large(number);
                    let head = WriteHead { stream: 0, to: LARGE + number, bytes: bytes.len() };
                    let bytes: Arc<[u8]> = bytes.into();
                    let lent = Box::new(Arc::clone(&bytes));
                    let placed = out.send_lent(before, |to| head.encode(to), lent).unwrap();
                    assert_eq!(placed, 3 * number);
                    if number % 5 == 0 {
                        out.keep();
                    }
                    if number % 5 == 0 || !resumes {
                        assert_eq!(Arc::strong_count(&bytes), 1, "what was lent is given back");
                    }
                    // Nothing but the other side's room may hold the next up.
                    out.flush();
                }
            });
            for number in 1..=PIECES {
                let mut small = Vec::new();
                while small.len() < 2 {
                    let frame = inlet.frame().unwrap();
                    let mut reader = Reader::new(frame.payload);
                    small.extend((0..frame.header.operations).map(|_| reader.varint().unwrap()));
                }
                assert_eq!(small, [7, 8]);
                let Arrival::Large(frame) = inlet.arrival().unwrap() else { panic!("it is large") };
                assert_eq!(receive_large(frame, number % 3 > 0).unwrap(), number);
                let acknowledged = inlet.received();
                out.received(&Header { acknowledged, ..Header::unnumbered(Kind::Acknowledge, 0) });
            }
        });
    }
}
