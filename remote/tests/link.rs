//! A session's order survives whatever happens to its connections: nothing is lost, nothing comes twice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(unsafe_code, reason = "gives SIGPIPE back its default, as a C program has it")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use headgate_remote::link::{Inlet, Outbox, ReadError, Stream};
use headgate_remote::wire::frame::{Header, Kind};
use headgate_remote::wire::{Put as _, Reader};
use proptest::prelude::*;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many operations are added.
    Add(u8),
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
    frames: u64,
    got: Vec<u64>,
}

fn pair() -> (Arc<Stream>, Arc<Stream>) {
    let (near, far) = UnixStream::pair().unwrap();
    (Arc::new(Stream::Unix(near)), Arc::new(Stream::Unix(far)))
}

impl Session {
    fn new() -> Self {
        let (near, far) = pair();
        let inlet = Inlet::new(Arc::clone(&far), 0);
        Self { out: Outbox::new(near, true, ()), inlet, far, added: 0, frames: 0, got: Vec::new() }
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
            Event::Flush => self.out.flush(),
            Event::Receive(count) => {
                for _ in 0..count {
                    self.receive();
                }
            }
            Event::Acknowledge => {
                let acknowledged = self.inlet.received();
                self.out.received(&Header {
                    kind: Kind::Acknowledge,
                    bytes: 0,
                    operations: 0,
                    number: 0,
                    acknowledged,
                });
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
        self.far.set_patience(Some(std::time::Duration::from_millis(1))).unwrap();
        match self.inlet.frame() {
            Ok(frame) => {
                let mut reader = Reader::new(frame.payload);
                for _ in 0..frame.header.operations {
                    self.got.push(reader.varint().unwrap());
                }
                assert!(reader.is_empty());
                self.frames += 1;
                true
            }
            Err(ReadError::Gone(_)) => false,
            Err(ReadError::Malformed(malformed)) => panic!("{malformed}"),
        }
    }
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
    }
}

#[test]
fn a_gap_is_the_other_sides_fault() {
    let (near, far) = pair();
    for number in [1, 3] {
        let header = Header { kind: Kind::Operations, bytes: 0, operations: 0, number, acknowledged: 0 };
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
