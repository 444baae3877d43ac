//! Two daemons, a program and a worker in one process, over pipes that break where a test wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use headgate_remote::wire::frame::Hello;
use headgate_remote::wire::operation::{Notice, Operation};
use tokio::io::{DuplexStream, duplex, split};
use tokio::sync::Notify;

use super::*;

#[path = "aside_tests.rs"]
mod aside;

const TICKET: Ticket = Ticket { session: 7, secret: [9; 16] };

/// An owner that lets so many bytes pass.
#[derive(Debug)]
struct Simple {
    left: AtomicU64,
    stop: Notify,
    drain: Notify,
    parting: Parting,
    lent: Notify,
    gone: Notify,
    keeps: bool,
    takes_back: bool,
    last: Option<&'static str>,
}

impl Simple {
    fn new(role: Role, bytes: u64) -> Self {
        let last = (role == Role::Lender).then_some("the session is over");
        Self {
            left: AtomicU64::new(bytes),
            stop: Notify::new(),
            drain: Notify::new(),
            parting: Parting::End,
            lent: Notify::new(),
            gone: Notify::new(),
            keeps: true,
            takes_back: true,
            last,
        }
    }
}

impl Owner for Simple {
    fn allow(&self, bytes: u64) -> Result<(), String> {
        let taken = self.left.try_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        taken.map(|_| ()).map_err(|_| "the budget is used up".to_owned())
    }

    fn welcomed(&self, ticket: Ticket) {
        assert_eq!(ticket, TICKET);
    }

    fn farewell(&self, goodbye: bool) -> BoxFuture<'_, Option<String>> {
        let last = self.last.or((!goodbye).then_some("the program is gone")).map(str::to_owned);
        Box::pin(async move { last })
    }

    fn drain(&self) -> BoxFuture<'_, Parting> {
        Box::pin(async {
            self.drain.notified().await;
            self.parting
        })
    }

    fn may_put_aside(&self) -> Result<(), String> {
        self.keeps.then_some(()).ok_or_else(|| "nothing is kept here".to_owned())
    }

    fn put_aside(&self) {}

    fn next_loan(&self) -> BoxFuture<'_, Claim> {
        Box::pin(async {
            self.lent.notified().await;
            self.claim()
        })
    }

    fn claim(&self) -> Claim {
        Claim { loan: "south.node/1/2".to_owned(), ..Claim::default() }
    }

    fn may_return(&self, claim: &Claim) -> Result<(), String> {
        let known = self.takes_back && *claim == self.claim();
        known.then_some(()).ok_or_else(|| "another's loan".to_owned())
    }

    fn returned(&self) {}

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.gone.notified())
    }

    fn stop(&self) -> BoxFuture<'_, String> {
        Box::pin(async {
            self.stop.notified().await;
            "stopped".to_owned()
        })
    }
}

/// A daemon's part: its session, its log, its owner.
struct Side {
    session: Arc<Session>,
    book: Arc<Book>,
    owner: Arc<Simple>,
    log: tempfile::NamedTempFile,
}

impl Side {
    fn new(role: Role, budget: u64) -> Self {
        let about = About {
            loan: "south.node/1/1".to_owned(),
            guest: "south/review".to_owned(),
            place: "north/node/GPU-1".to_owned(),
            data: "derived",
        };
        let log = tempfile::NamedTempFile::new().unwrap();
        Self {
            session: Arc::new(Session {
                window: Duration::from_millis(50),
                ..Session::new(role, about, Arc::default())
            }),
            book: Arc::new(Book::open(log.path()).unwrap()),
            owner: Arc::new(Simple::new(role, budget)),
            log,
        }
    }

    /// Carries one connection.
    fn carry(&self, near: DuplexStream, far: DuplexStream) -> tokio::task::JoinHandle<End> {
        let (session, book, owner) = (self.session.clone(), self.book.clone(), self.owner.clone());
        let ((near, to_near), (far, to_far)) = (split(near), split(far));
        let lane = Lane { near: Frames::new(near), to_near, far: Frames::new(far), to_far };
        tokio::spawn(async move { lane.carry(&session, &book, &*owner).await })
    }

    /// Its log's lines about what was counted, from the word on.
    fn lines(&self, word: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log.path()).unwrap();
        let found = text.lines().filter_map(|line| line.split_once(&format!(" {word} ")));
        found
            .map(|(_, rest)| rest.split_once("data=derived ").map_or("", |(_, mark)| mark).to_owned())
            .collect()
    }
}

fn operations(number: u64, operations: &[Operation<'_>]) -> Vec<u8> {
    let mut payload = Vec::new();
    operations.iter().for_each(|operation| operation.encode(&mut payload));
    framed(number, operations.len(), &payload)
}

fn framed(number: u64, operations: usize, payload: &[u8]) -> Vec<u8> {
    let operations = u32::try_from(operations).unwrap();
    let header = Header { operations, number, ..Header::unnumbered(Kind::Operations, payload.len()) };
    [&header.encode()[..], payload].concat()
}

fn write(bytes: &[u8]) -> Operation<'_> {
    Operation::Write { stream: 0, to: 0x1000, bytes }
}

fn data(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    Notice::Data { token: 1, offset: 0, bytes }.encode(&mut payload);
    framed(number, 1, &payload)
}

fn hello(ticket: Ticket) -> Vec<u8> {
    Kind::Hello.alone(&Hello { ticket }.encode())
}

fn welcome() -> Vec<u8> {
    Kind::Welcome.alone(&Welcome { ticket: TICKET, ..Welcome::default() }.encode())
}

/// Reads frames until one is of a kind; its payload.
async fn until(frames: &mut Frames<tokio::io::ReadHalf<DuplexStream>>, kind: Kind) -> Option<Vec<u8>> {
    while frames.arrive().await.ok()? {
        let seen = frames.seen(0).unwrap()?;
        let (found, payload, bytes) = (seen.header.kind, seen.payload.to_vec(), seen.bytes);
        frames.consume(bytes);
        if found == kind {
            return Some(payload);
        }
    }
    None
}

/// A program, two daemons and a worker, joined.
struct Chain {
    program: DuplexStream,
    worker: DuplexStream,
    ends: [tokio::task::JoinHandle<End>; 2],
}

/// `wire` is how many bytes fit between the daemons.
fn join(borrower: &Side, lender: &Side, wire: usize) -> Chain {
    let (program, near) = duplex(1 << 20);
    let (there, here) = duplex(wire);
    let (far_near, worker) = duplex(1 << 20);
    let ends = [borrower.carry(near, there), lender.carry(far_near, here)];
    Chain { program, worker, ends }
}

#[tokio::test]
async fn both_daemons_count_the_same_bytes_and_say_so() {
    let (borrower, lender) = (Side::new(Role::Borrower, u64::MAX), Side::new(Role::Lender, u64::MAX));
    let Chain { mut program, mut worker, ends } = join(&borrower, &lender, 100);
    program.write_all(&hello(Ticket::default())).await.unwrap();
    worker.write_all(&welcome()).await.unwrap();
    for number in 1..=20 {
        program.write_all(&operations(number, &[write(&[1; 777])])).await.unwrap();
        worker.write_all(&data(number, &[2; 55])).await.unwrap();
    }
    // Windows end in between.
    let told = async {
        while borrower.lines("agreed").is_empty() || lender.lines("agreed").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), told).await.unwrap();
    worker.write_all(&data(21, &[2; 55])).await.unwrap();
    program.write_all(&operations(21, &[write(&[3; 1]), Operation::Goodbye])).await.unwrap();
    drop(program);
    let (worker_reads, worker_writes) = split(worker);
    let mut arrived = Frames::new(worker_reads);
    let mut bytes = 0;
    for _ in 1..=21 {
        bytes += until(&mut arrived, Kind::Operations).await.unwrap().len();
    }
    drop((arrived, worker_writes));
    let [near, far] = ends;
    assert!(matches!(near.await.unwrap(), End::Left));
    assert!(matches!(far.await.unwrap(), End::Left));
    for (told, agreed) in [(&borrower, &lender), (&lender, &borrower)] {
        assert_eq!(told.lines("told"), agreed.lines("agreed"));
        assert!(told.lines("told").len() >= 2, "a window's end and the session's");
        assert!(told.lines("differs").is_empty());
    }
    let up = borrower.lines("told").pop().unwrap();
    assert!(up.starts_with(&format!("up frames=21 to_device={} from_device=0", 20 * 777 + 1)), "{up}");
    let down = borrower.lines("agreed").pop().unwrap();
    assert!(down.starts_with(&format!("down frames=21 to_device=0 from_device={}", 21 * 55)), "{down}");
    let payloads = 20 * (777 + 1 + 1 + 2 + 2) + (1 + 1 + 2 + 1 + 1) + 1;
    assert_eq!(bytes, payloads, "and all of it arrived");
}

#[tokio::test]
async fn a_side_that_lies_by_one_byte_ends_the_session() {
    for direction in [Role::Borrower, Role::Lender] {
        let honest = Side::new(direction, u64::MAX);
        let (mut near, ours) = duplex(1 << 20);
        let (theirs, mut liar) = duplex(1 << 20);
        let end = honest.carry(ours, theirs);
        let (sent, told) = if direction == Role::Borrower {
            near.write_all(&hello(Ticket::default())).await.unwrap();
            (vec![welcome(), data(1, &[0; 500])], Direction::Down)
        } else {
            (vec![hello(Ticket::default()), operations(1, &[write(&[0; 500])])], Direction::Up)
        };
        let mut meter = Meter::new(told);
        for frame in sent {
            let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
            meter.pass(&header, &frame[32..]).unwrap();
            liar.write_all(&frame).await.unwrap();
        }
        let mut mark = meter.mark();
        mark.counts.control -= 1;
        liar.write_all(&Kind::Meter.alone(&mark.encode())).await.unwrap();
        assert!(matches!(end.await.unwrap(), End::Differs));
        let line = honest.lines("differs").pop().expect("it is written down");
        assert!(line.contains(&mark.to_string()) && line.contains(&meter.mark().to_string()), "{line}");
        let over = until(&mut Frames::new(split(liar).0), Kind::Over).await.unwrap();
        assert!(String::from_utf8(over).unwrap().contains("counted different bytes"));
        if direction == Role::Borrower {
            assert!(
                until(&mut Frames::new(split(near).0), Kind::Over).await.is_some(),
                "the program hears it"
            );
        }
    }
}

#[tokio::test]
async fn a_break_at_any_byte_costs_nothing_and_counts_nothing_twice() {
    let sizes = [40, 80, 120, 160, 200];
    let frames: Vec<Vec<u8>> =
        (1..).zip(sizes).map(|(number, size)| operations(number, &[write(&vec![7; size])])).collect();
    let whole = frames.concat();
    for cut in (0..whole.len()).step_by(23) {
        let (borrower, lender) = (Side::new(Role::Borrower, u64::MAX), Side::new(Role::Lender, u64::MAX));
        let (mut program, near) = duplex(1 << 20);
        let (there, mut wire_near) = duplex(1 << 20);
        let (mut wire_far, here) = duplex(1 << 20);
        let (far_near, worker) = duplex(1 << 20);
        let ends = [borrower.carry(near, there), lender.carry(far_near, here)];
        let greeting = hello(Ticket::default());
        program.write_all(&[greeting.clone(), whole.clone()].concat()).await.unwrap();
        let mut carried = vec![0; greeting.len() + cut];
        tokio::io::AsyncReadExt::read_exact(&mut wire_near, &mut carried).await.unwrap();
        wire_far.write_all(&carried).await.unwrap();
        drop((wire_near, wire_far));
        for end in ends {
            assert!(end.await.unwrap().may_resume(), "cut at {cut}");
        }
        drop((program, worker));
        // The program sends again what its worker has not acknowledged: here, everything.
        let Chain { mut program, worker, ends } = join(&borrower, &lender, 1 << 20);
        program
            .write_all(&[hello(TICKET), whole.clone(), operations(6, &[Operation::Goodbye])].concat())
            .await
            .unwrap();
        drop(program);
        let (reads, writes) = split(worker);
        let mut arrived = Frames::new(reads);
        for _ in 0..6 {
            until(&mut arrived, Kind::Operations).await.unwrap();
        }
        drop((arrived, writes));
        for end in ends {
            assert!(matches!(end.await.unwrap(), End::Left), "cut at {cut}");
        }
        assert_eq!(borrower.lines("told"), lender.lines("agreed"), "cut at {cut}");
        let line = lender.lines("agreed").pop().unwrap();
        assert!(
            line.starts_with(&format!("up frames=6 to_device={}", sizes.iter().sum::<usize>())),
            "cut at {cut}: {line}"
        );
    }
}

#[tokio::test]
async fn a_budget_is_held_to_the_byte() {
    let frame = operations(1, &[write(&[1; 100])]);
    let greeting = hello(Ticket::default());
    let allowed = (greeting.len() + 3 * frame.len()) as u64;
    let side = Side::new(Role::Borrower, allowed);
    let (mut program, near) = duplex(1 << 20);
    let (there, lender) = duplex(1 << 20);
    let end = side.carry(near, there);
    program.write_all(&greeting).await.unwrap();
    for number in 1..=4 {
        program.write_all(&operations(number, &[write(&[1; 100])])).await.unwrap();
    }
    assert!(matches!(end.await.unwrap(), End::Spent(_)));
    let mut arrived = Frames::new(split(lender).0);
    let mut numbers = Vec::new();
    while arrived.arrive().await.unwrap() {
        let seen = arrived.seen(0).unwrap().unwrap();
        numbers.push((seen.header.kind, seen.header.number));
        let bytes = seen.bytes;
        arrived.consume(bytes);
    }
    assert!(!numbers.contains(&(Kind::Operations, 4)), "{numbers:?}");
    assert!(numbers.contains(&(Kind::Over, 0)), "{numbers:?}");
    assert!(until(&mut Frames::new(split(program).0), Kind::Over).await.is_some());
}

#[tokio::test]
async fn only_daemons_send_what_is_between_daemons() {
    let forged =
        [Kind::Meter.alone(&Mark::default().encode()), Kind::Drain.alone(&[]), Kind::Over.alone(b"x")];
    for frame in forged {
        let side = Side::new(Role::Borrower, u64::MAX);
        let (mut program, near) = duplex(1 << 20);
        let (there, _lender) = duplex(1 << 20);
        let end = side.carry(near, there);
        program.write_all(&frame).await.unwrap();
        assert!(matches!(end.await.unwrap(), End::Malformed("this node's end", _)));
    }
}

#[tokio::test]
async fn a_loan_that_is_taken_back_drains_before_it_ends() {
    let (borrower, lender) = (Side::new(Role::Borrower, u64::MAX), Side::new(Role::Lender, u64::MAX));
    let Chain { mut program, worker, ends } = join(&borrower, &lender, 1 << 20);
    program.write_all(&hello(Ticket::default())).await.unwrap();
    let (reads, mut says) = split(worker);
    says.write_all(&welcome()).await.unwrap();
    borrower.owner.drain.notify_one();
    let mut arrived = Frames::new(reads);
    assert!(until(&mut arrived, Kind::Drain).await.is_some(), "the worker is told");
    says.write_all(&data(1, &[5; 9])).await.unwrap();
    says.write_all(&Kind::Over.alone(b"drained")).await.unwrap();
    drop((arrived, says));
    let mut heard = Frames::new(split(program).0);
    assert!(until(&mut heard, Kind::Operations).await.is_some(), "what was under way comes first");
    let over = until(&mut heard, Kind::Over).await.unwrap();
    assert_eq!(over, b"drained");
    let [near, far] = ends;
    assert!(matches!(near.await.unwrap(), End::Over(_)));
    assert!(matches!(far.await.unwrap(), End::Left));
    assert_eq!(lender.lines("told"), borrower.lines("agreed"));
}
