//! A program's end over rings, with a client's own end at the other side: what passes, and what happens when either stops.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_remote::limits::RING_BYTES;
use headgate_remote::link::{Inlet, Stream};
use headgate_remote::wire::frame::{Hello, Ticket, Welcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::super::frames::{FrameError, Frames};
use super::*;

/// Nothing here takes seconds; whoever is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ at.to_le_bytes()[2]).collect()
}

fn hello(rings: Rings) -> Vec<u8> {
    let payload = Hello::default().encode();
    let header = Header { rings, acknowledged: 9, ..Header::unnumbered(Kind::Hello, payload.len()) };
    [&header.encode()[..], &payload].concat()
}

fn welcome() -> Vec<u8> {
    let ticket = Ticket { session: 3, secret: [1; 16] };
    Kind::Welcome.alone(&Welcome { ticket, ..Welcome::default() }.encode())
}

/// The daemon's end, and the program's socket, after the program has greeted.
async fn greeted(rings: Rings) -> (Frames<FromProgram>, ToProgram, StdStream) {
    let (near, far) = StdStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let (from, mut to) = halves(UnixStream::from_std(far).unwrap());
    let mut frames = Frames::new(from);
    (&near).write_all(&hello(rings)).unwrap();
    assert!(frames.arrive().await.unwrap());
    if frames.take_wish() {
        to.offer();
    }
    let bytes = hello(Rings::None).len();
    assert_eq!(frames.run(0, bytes), hello(Rings::None), "the wish is on no wire");
    frames.consume(bytes);
    (frames, to, near)
}

/// What a client makes of a welcome: the memory, and what is said of it.
fn welcomed(near: StdStream) -> (Inlet, Option<OwnedFd>, Rings) {
    let mut inlet = Inlet::new(Arc::new(Stream::Unix(near)), 0);
    let memory = inlet.begin_with_descriptor().unwrap();
    let frame = inlet.frame().unwrap();
    assert_eq!(
        (frame.header.kind, Welcome::decode(frame.payload).unwrap().ticket.session),
        (Kind::Welcome, 3)
    );
    let rings = frame.header.rings;
    (inlet, memory, rings)
}

/// A client that takes the rings.
fn takes(near: StdStream) -> Stream {
    let (inlet, memory, rings) = welcomed(near);
    assert_eq!(rings, Rings::Carried);
    let stream = inlet.into_stream().unwrap();
    stream.write_both(&Kind::Rings.alone(&[1]), &[]).unwrap();
    stream.over_rings(memory.unwrap()).unwrap()
}

/// Both ends of a connection that goes over rings.
async fn joined() -> (Frames<FromProgram>, ToProgram, Stream) {
    let (mut frames, mut to, near) = greeted(Rings::Direct).await;
    let program = std::thread::spawn(|| takes(near));
    let seen = to.seen();
    to.write_all(&welcome()).await.unwrap();
    to.flush().await.unwrap();
    // The answer is nothing that is handed on; nor is anything written before it is there.
    let (read, written) =
        tokio::join!(timeout(Duration::from_millis(20), frames.arrive()), to.write_all(b"!"));
    assert!(read.is_err(), "{read:?}");
    written.unwrap();
    let program = program.join().unwrap();
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 1);
    assert!(seen.over_rings());
    (frames, to, program)
}

/// A program's two threads: one writes, one reads so many bytes.
fn work(program: Stream, up: usize, down: usize, piece: usize) -> JoinHandle<(Arc<Stream>, Vec<u8>)> {
    let program = Arc::new(program);
    let writer = {
        let program = Arc::clone(&program);
        std::thread::spawn(move || {
            for run in pattern(up).chunks(piece) {
                program.write_both(run, &[]).unwrap();
            }
        })
    };
    std::thread::spawn(move || {
        let (mut all, mut place) = (Vec::new(), vec![0; 100_000]);
        while all.len() < down {
            let count = program.read(&mut place).unwrap();
            assert!(count > 0, "the end came too early");
            all.extend_from_slice(&place[..count]);
        }
        writer.join().unwrap();
        (program, all)
    })
}

#[tokio::test]
async fn more_than_the_rings_hold_passes_both_ways_in_one_task() {
    let (up, down) = (5 * RING_BYTES + 77, 4 * RING_BYTES + 3);
    for piece in [7_000, 300_000] {
        let (frames, mut to, program) = joined().await;
        let program = work(program, up, down, piece);
        let mut from = frames.into_inner();
        let mut come = vec![0; up];
        let sent = pattern(down);
        let both = async { tokio::join!(from.read_exact(&mut come), to.write_all(&sent)) };
        let (read, written) = timeout(PATIENCE, both).await.unwrap();
        read.unwrap();
        written.unwrap();
        assert!(come == pattern(up));
        assert!(program.join().unwrap().1 == sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_in_two_tasks_on_two_threads_however_often_they_sleep() {
    let (up, down) = (3 * RING_BYTES, 3 * RING_BYTES);
    for _ in 0..20 {
        let (frames, mut to, program) = joined().await;
        let program = work(program, up, down, 40_000);
        let mut from = frames.into_inner();
        let reading = tokio::spawn(async move {
            let mut come = vec![0; up];
            from.read_exact(&mut come).await.map(|_| come)
        });
        let writing = tokio::spawn(async move { to.write_all(&pattern(down)).await.map(|()| to) });
        let come = timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap();
        let _to = timeout(PATIENCE, writing).await.unwrap().unwrap().unwrap();
        assert!(come == pattern(up));
        assert!(program.join().unwrap().1 == pattern(down));
    }
}

#[tokio::test]
async fn small_messages_go_there_and_back() {
    let (frames, mut to, program) = joined().await;
    let client = std::thread::spawn(move || {
        for round in 0..5_000u32 {
            program.write_both(&round.to_le_bytes(), &[]).unwrap();
            let mut word = [0; 4];
            assert_eq!(program.read(&mut word).unwrap(), 4);
            assert_eq!(u32::from_le_bytes(word), round);
        }
    });
    let mut from = frames.into_inner();
    for _ in 0..5_000 {
        let mut word = [0; 4];
        timeout(PATIENCE, from.read_exact(&mut word)).await.unwrap().unwrap();
        to.write_all(&word).await.unwrap();
    }
    client.join().unwrap();
}

/// What a program answers that goes on over the socket, and what of it is for the other side.
async fn goes_on_over_the_socket(rings: Rings, answer: &[u8], handed_on: &[u8]) {
    let (frames, mut to, near) = greeted(rings).await;
    to.write_all(&welcome()).await.unwrap();
    to.flush().await.unwrap();
    let (_, memory, said) = welcomed(near.try_clone().unwrap());
    assert_eq!((memory.is_some(), said == Rings::Carried), (rings == Rings::Direct, rings == Rings::Direct));
    (&near).write_all(answer).unwrap();
    (&near).write_all(b"more").unwrap();
    let mut come = vec![0; handed_on.len() + 4];
    let mut from = frames.into_inner();
    let both = async { tokio::join!(from.read_exact(&mut come), to.write_all(b"down")) };
    let (read, written) = timeout(PATIENCE, both).await.unwrap();
    read.unwrap();
    written.unwrap();
    assert_eq!(come, [handed_on, b"more"].concat());
    let mut heard = [0; 4];
    io::Read::read_exact(&mut &near, &mut heard).unwrap();
    assert_eq!(heard, *b"down");
    assert!(!to.seen().over_rings());
    drop(near);
    assert_eq!(from.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn who_knows_or_takes_no_rings_goes_on_over_the_socket() {
    let other = Kind::Acknowledge.alone(&[]);
    goes_on_over_the_socket(Rings::None, &[], &[]).await;
    goes_on_over_the_socket(Rings::Direct, &Kind::Rings.alone(&[0]), &[]).await;
    // A client that knows rings of workers only makes nothing of these, and goes on with its first frame.
    goes_on_over_the_socket(Rings::Direct, &other, &other).await;
    // What is no answer is somebody else's to judge.
    for strange in [Kind::Rings.alone(&[1, 1]), Kind::Rings.alone(&[7]), vec![0xff; 40]] {
        goes_on_over_the_socket(Rings::Direct, &strange, &strange).await;
    }
}

#[tokio::test]
async fn a_refusal_or_an_end_comes_over_the_socket() {
    let (_frames, mut to, near) = greeted(Rings::Direct).await;
    to.write_all(&Kind::Refused.alone(b"why")).await.unwrap();
    let mut inlet = Inlet::new(Arc::new(Stream::Unix(near)), 0);
    assert!(inlet.begin_with_descriptor().unwrap().is_none());
    assert_eq!(inlet.frame().unwrap().header.kind, Kind::Refused);
}

#[tokio::test]
async fn a_program_that_goes_in_the_middle_of_its_answer_keeps_nobody() {
    let answer = Kind::Rings.alone(&[1]);
    for cut in 0..answer.len() {
        let (frames, mut to, near) = greeted(Rings::Direct).await;
        to.write_all(&welcome()).await.unwrap();
        to.flush().await.unwrap();
        (&near).write_all(&answer[..cut]).unwrap();
        drop(near);
        let mut from = frames.into_inner();
        let (mut come, down) = (Vec::new(), vec![0; 2 * RING_BYTES]);
        let both = async { tokio::join!(from.read_to_end(&mut come), to.write_all(&down)) };
        let (_read, written) = timeout(PATIENCE, both).await.unwrap();
        assert!(written.is_err(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_program_that_is_killed_is_read_to_its_end_and_written_to_no_more() {
    let (frames, mut to, program) = joined().await;
    program.write_both(&pattern(5_000), &[]).unwrap();
    let full = vec![0; RING_BYTES];
    to.write_all(&full).await.unwrap();
    let dying = std::thread::spawn(move || drop(program));
    let mut from = frames.into_inner();
    let mut come = Vec::new();
    let both = async { tokio::join!(from.read_to_end(&mut come), to.write_all(&[1])) };
    let (read, written) = timeout(PATIENCE, both).await.unwrap();
    assert_eq!(read.unwrap(), 5_000);
    assert!(come == pattern(5_000));
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    dying.join().unwrap();
}

/// Counts how often somebody is woken.
#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[tokio::test]
async fn a_program_that_stops_costs_nothing_until_it_goes_on() {
    let (frames, mut to, program) = joined().await;
    to.write_all(&vec![0; RING_BYTES]).await.unwrap();
    let mut from = frames.into_inner();
    let woken = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut place = [0; 8];
    // The bytes that rang so far are heard first.
    let quiet = async {
        loop {
            let before = woken.0.load(Ordering::Acquire);
            assert!(Pin::new(&mut to).poll_write(&mut cx, &[1]).is_pending());
            assert!(Pin::new(&mut from).poll_read(&mut cx, &mut ReadBuf::new(&mut place)).is_pending());
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            if woken.0.load(Ordering::Acquire) == before {
                return before;
            }
        }
    };
    let before = timeout(PATIENCE, quiet).await.unwrap();
    assert_eq!(program.read(&mut [0; 3]).unwrap(), 3);
    let heard = async {
        while woken.0.load(Ordering::Acquire) == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, heard).await.unwrap();
    assert!(matches!(Pin::new(&mut to).poll_write(&mut cx, &[1; 9]), Poll::Ready(Ok(3))));
}

/// A program that takes the rings, and the memory as it may write it.
async fn with_a_vandal() -> (Frames<FromProgram>, ToProgram, File, StdStream) {
    let (frames, mut to, near) = greeted(Rings::Direct).await;
    to.write_all(&welcome()).await.unwrap();
    to.flush().await.unwrap();
    let (_, memory, _) = welcomed(near.try_clone().unwrap());
    (&near).write_all(&Kind::Rings.alone(&[1])).unwrap();
    (frames, to, File::from(memory.unwrap()), near)
}

/// Where the index lies that the program writes of the ring that comes here, and of the one that goes there.
const HEAD_UP: u64 = 0;
const TAIL_DOWN: u64 = 256 + 64;

#[tokio::test]
async fn an_index_that_no_ring_has_is_the_programs_fault_and_not_its_end() {
    for (place, writes) in [(HEAD_UP, false), (TAIL_DOWN, true)] {
        let (mut frames, mut to, memory, _near) = with_a_vandal().await;
        let value = u32::try_from(RING_BYTES).unwrap() + 1;
        memory.write_at(&value.to_le_bytes(), place).unwrap();
        let writing = async {
            if writes {
                // What goes there is lost with it; the reading half says why.
                assert!(to.write_all(&[1; 100]).await.is_err());
            }
        };
        let both = async { tokio::join!(frames.arrive(), writing) };
        let (read, ()) = timeout(PATIENCE, both).await.unwrap();
        let Err(FrameError::Malformed(what)) = read else { panic!("{read:?}") };
        assert!(what.to_string().contains("indices that no ring has"), "{what}");
    }
}

/// Whatever a program writes into the memory and over the socket at once: it costs its own session, and nobody waits for it
/// when it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_scribbles_on_the_words_ends_nothing_but_its_session() {
    for seed in 0..40u32 {
        let (frames, mut to, memory, near) = with_a_vandal().await;
        let mut from = frames.into_inner();
        let vandal = std::thread::spawn(move || {
            let mut seed = seed.wrapping_mul(2_654_435_761) | 1;
            for _ in 0..2_000 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Often one that could be.
                let near_by = (seed >> 11) & (u32::try_from(RING_BYTES).unwrap() - 1);
                let value = if seed & 64 == 0 { seed } else { near_by };
                let word = u64::from(seed >> 28) % 8;
                memory.write_at(&value.to_le_bytes(), word / 4 * 256 + word % 4 * 64).unwrap();
                // The daemon may have let go by now.
                let _gone = (&near).write_all(&[1]);
            }
        });
        let reading = tokio::spawn(async move {
            let (mut place, mut total) = (vec![0; 300_000], 0);
            while let Ok(count @ 1..) = from.read(&mut place).await {
                assert!(count <= place.len());
                total += count;
            }
            total
        });
        let writing = tokio::spawn(async move { while to.write_all(&[7; 9_000]).await.is_ok() {} });
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        timeout(PATIENCE, writing).await.unwrap().unwrap();
        vandal.join().unwrap();
    }
}
