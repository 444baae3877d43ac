//! Bundles over pipes that take and give what they like, wait when they like, and break where a test wants it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use headgate_loans::identity::Identity;
use headgate_remote::limits::CHUNK_BYTES_MAX;
use headgate_remote::wire::bundle::{CARD_BYTES, CHUNK_HEAD_BYTES};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};
use tokio::time::timeout;

use super::*;

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of which a test decides when it moves, and how far.
#[derive(Debug)]
struct Wire {
    pipe: DuplexStream,
    /// Chance's state; `None` for one that does what it can.
    chance: Option<u64>,
    /// It was cut: its end is none that was said.
    cut: Arc<AtomicBool>,
    /// Bytes that were written to it.
    written: Arc<AtomicU64>,
}

impl Wire {
    fn of(pipe: DuplexStream) -> Self {
        Self { pipe, chance: None, cut: Arc::default(), written: Arc::default() }
    }

    fn fickle(pipe: DuplexStream, seed: u64) -> Self {
        Self { chance: Some(seed | 1), ..Self::of(pipe) }
    }

    /// How many bytes it moves now; `None` for "later".
    fn whim(&mut self, cx: &Context<'_>) -> Option<usize> {
        let Some(chance) = &mut self.chance else { return Some(usize::MAX) };
        *chance ^= *chance << 13;
        *chance ^= *chance >> 7;
        *chance ^= *chance << 17;
        if *chance % 3 == 0 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(1 + usize::try_from(*chance >> 8).unwrap() % if *chance % 5 == 0 { 20_000 } else { 40 })
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(most) = self.whim(cx) else { return Poll::Pending };
        let before = buf.filled().len();
        let mut some = (&mut self.pipe).take(most as u64);
        ready!(Pin::new(&mut some).poll_read(cx, buf))?;
        if buf.filled().len() == before && self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let Some(most) = self.whim(cx) else { return Poll::Pending };
        let taken = ready!(Pin::new(&mut self.pipe).poll_write(cx, &from[..from.len().min(most)]))?;
        self.written.fetch_add(taken as u64, Ordering::SeqCst);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // As TLS does: of all of them together.
        self.poll_write(cx, &from.iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Long for what needs no more than a few turns.
const SOON: Duration = Duration::from_secs(5);

type End = (Reader<Wire>, Writer<Wire>);

fn node(name: &str) -> Identity {
    Identity::new("south", name).unwrap()
}

/// A bundle of one strand: who dialled it, and who accepted.
async fn pair((near, mut far): (Wire, Wire), most: u8) -> (End, End) {
    let mut dialled = dialled(near, most);
    // What says what the connection is for goes with the first chunk.
    dialled.1.write_all(&[0]).await.unwrap();
    let flushed = tokio::spawn(async move {
        dialled.1.flush().await.unwrap();
        dialled
    });
    assert_eq!(opening(&mut far).await.unwrap(), Opening::First);
    let mut accepted = Bundles::default().begin(&node("a"), far, most).unwrap();
    accepted.0.read_exact(&mut [1]).await.unwrap();
    (flushed.await.unwrap(), accepted)
}

/// Adds a strand at both ends, without asking.
fn add(dialled: &End, accepted: &End, (near, far): (Wire, Wire)) {
    accepted.1.held.0.add(far, None, ()).unwrap();
    dialled.1.held.0.add(near, None, ()).unwrap();
}

fn wires(bytes: usize, seed: Option<u64>) -> (Wire, Wire) {
    let (near, far) = duplex(bytes);
    match seed {
        Some(seed) => (Wire::fickle(near, seed), Wire::fickle(far, seed.rotate_left(31))),
        None => (Wire::of(near), Wire::of(far)),
    }
}

fn pattern(bytes: usize, salt: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ salt).collect()
}

/// Writes all of it in pieces of these sizes, again and again, then says farewell.
async fn write_in(writer: &mut Writer<Wire>, bytes: &[u8], pieces: &[usize]) -> io::Result<()> {
    let mut rest = bytes;
    for piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(*piece));
        writer.write_all(now).await?;
        if piece % 3 != 0 {
            writer.flush().await?;
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    writer.flush().await?;
    writer.shutdown().await
}

/// Reads to the end, so many bytes at a time at most.
async fn read_in(reader: &mut Reader<Wire>, most: usize) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut place) = (Vec::new(), vec![0; most]);
    loop {
        match reader.read(&mut place).await {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&place[..count]),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run_on(&runtime, test)
}

fn run_on<T>(runtime: &tokio::runtime::Runtime, test: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("nothing hangs") })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Both ways at once, whatever the sizes, and whichever strand moves when.
    #[test]
    fn what_is_written_is_read(
        strands in prop::collection::vec((1..9_000_usize, any::<u64>()), 1..6),
        pieces in prop::collection::vec(prop_oneof![1..40_usize, 100..9_000_usize, 60_000..300_000_usize], 1..8),
        (up, down) in (1..400_000_usize, 1..400_000_usize),
        most in 1..70_000_usize,
        all_at_once in any::<bool>(),
        threads in any::<bool>(),
    ) {
        let mut builder = match threads {
            true => tokio::runtime::Builder::new_multi_thread(),
            false => tokio::runtime::Builder::new_current_thread(),
        };
        run_on(&builder.worker_threads(2).enable_all().build().unwrap(), async move {
            let mut wires = strands.into_iter().map(|(bytes, seed)| wires(bytes, Some(seed)));
            let (dialled, accepted) = pair(wires.next().unwrap(), 8).await;
            let mut later = wires.collect::<VecDeque<_>>();
            while let Some(wires) = later.pop_front().filter(|_| all_at_once) {
                add(&dialled, &accepted, wires);
            }
            let (near, far) = (Arc::clone(&dialled.1.held.0), Arc::clone(&accepted.1.held.0));
            let adding = async {
                for wires in later {
                    tokio::task::yield_now().await;
                    far.add(wires.1, None, ()).unwrap();
                    tokio::task::yield_now().await;
                    near.add(wires.0, None, ()).unwrap();
                }
                drop((near, far));
            };
            let ((mut from_far, mut to_far), (mut from_near, mut to_near)) = (dialled, accepted);
            let (sent, answered) = (pattern(up, 0), pattern(down, 9));
            let (wrote, wrote_back, arrived, back, ()) = tokio::join!(
                write_in(&mut to_far, &sent, &pieces),
                write_in(&mut to_near, &answered, &pieces),
                read_in(&mut from_near, most),
                read_in(&mut from_far, most),
                adding,
            );
            wrote.unwrap();
            wrote_back.unwrap();
            for ((found, end), expected) in [(arrived, sent), (back, answered)] {
                end.unwrap();
                assert!(found == expected, "{} bytes of {}", found.len(), expected.len());
            }
        });
    }
}

#[test]
fn a_slow_strand_takes_fewer_chunks_and_holds_up_only_what_comes_after_its_own() {
    run(async {
        let ((_from_far, mut to_far), (mut from_near, to_near)) = pair(wires(1 << 20, None), 8).await;
        // One has hardly any room, and what is in it stands still for now.
        let (near, taking) = duplex(1_000);
        let (giving, far) = duplex(1_000);
        let (go, mut pipes) = (Arc::new(Notify::new()), (taking, giving));
        let gone = Arc::clone(&go);
        tokio::spawn(async move {
            gone.notified().await;
            tokio::io::copy_bidirectional(&mut pipes.0, &mut pipes.1).await
        });
        let slow = (Wire::of(near), Wire::of(far));
        let mut written = Vec::new();
        for (near, far) in [slow, wires(1 << 20, None), wires(1 << 20, None)] {
            written.push(Arc::clone(&near.written));
            to_near.held.0.add(far, None, ()).unwrap();
            to_far.held.0.add(near, None, ()).unwrap();
        }
        let bytes = pattern(8 << 20, 3);
        let sending = async {
            to_far.write_all(&bytes).await.unwrap();
            to_far.shutdown().await.unwrap();
        };
        let receiving = async {
            // Until what is missing is what the slow one has.
            let (mut found, mut place) = (Vec::new(), vec![0; 100_000]);
            while let Ok(count) = timeout(Duration::from_millis(200), from_near.read(&mut place)).await {
                found.extend_from_slice(&place[..count.unwrap()]);
            }
            assert!(found.len() < bytes.len(), "it was held up");
            go.notify_one();
            let (rest, end) = read_in(&mut from_near, 100_000).await;
            end.unwrap();
            assert!([found, rest].concat() == bytes);
        };
        tokio::join!(sending, receiving);
        let written: Vec<_> = written.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        assert!(2 * written[0] < written[1] && 2 * written[0] < written[2], "{written:?}");
    });
}

/// A wire that is cut after so many bytes from its near end to its far one.
fn cut_after(bytes: usize) -> (Wire, Wire) {
    let (near, mut taking) = duplex(5_000);
    let (mut giving, far) = duplex(5_000);
    let (near, far) = (Wire::of(near), Wire::of(far));
    let cuts = [Arc::clone(&near.cut), Arc::clone(&far.cut)];
    tokio::spawn(async move {
        let (mut buffer, mut left) = (vec![0; 4_000], bytes);
        while left > 0 {
            let most = left.min(buffer.len());
            match taking.read(&mut buffer[..most]).await {
                Ok(count) if count > 0 && giving.write_all(&buffer[..count]).await.is_ok() => left -= count,
                // One end said farewell, or is gone.
                _ => return,
            }
        }
        cuts.iter().for_each(|cut| cut.store(true, Ordering::SeqCst));
    });
    (near, far)
}

#[test]
fn a_break_of_any_strand_anywhere_ends_both_ends_and_what_came_is_a_beginning() {
    let bytes = pattern(600_000, 5);
    let mut broken = 0;
    for (strand, cut) in (0..3).flat_map(|strand| (0..150_000).step_by(2_503).map(move |cut| (strand, cut))) {
        broken += run(async {
            let wire = |at: usize| {
                // Behind what `pair` sends.
                let begun = if at == 0 { CARD_BYTES + CHUNK_HEAD_BYTES + 1 } else { 0 };
                if at == strand { cut_after(begun + cut) } else { wires(5_000, None) }
            };
            let (dialled, accepted) = pair(wire(0), 8).await;
            add(&dialled, &accepted, wire(1));
            add(&dialled, &accepted, wire(2));
            let shared = [Arc::downgrade(&dialled.1.held.0), Arc::downgrade(&accepted.1.held.0)];
            let ((mut from_far, mut to_far), (mut from_near, mut to_near)) = (dialled, accepted);
            let reading = async {
                let (found, end) = read_in(&mut from_near, 30_000).await;
                if end.is_ok() {
                    // Broken perhaps where nothing was under way any more.
                    let _either = to_near.shutdown().await;
                }
                (found, end)
            };
            let (wrote, (found, end), (back, far_end)) = tokio::join!(
                write_in(&mut to_far, &bytes, &[70_000, 30, 9_000]),
                reading,
                read_in(&mut from_far, 30_000),
            );
            assert!(bytes.starts_with(&found) && back.is_empty(), "strand {strand} at {cut}");
            let (wrote, read) = (wrote.is_ok(), end.is_ok());
            drop((from_far, to_far, from_near, to_near));
            while shared.iter().any(|shared| shared.strong_count() > 0) {
                tokio::task::yield_now().await;
            }
            assert!(read || far_end.is_err(), "strand {strand} at {cut}: both ends hear of it");
            assert!(!read || found == bytes, "strand {strand} at {cut}: no end but the whole's");
            usize::from(!read && !wrote)
        });
    }
    assert!(broken > 150, "{broken} of 180 broke while something was to be sent");
}

/// What a reader makes of what is said on its strands, in this order; `None` where it waits for more.
fn told(strands: &[&[(u64, u32, usize)]]) -> Option<Result<Vec<u8>, Malformed>> {
    run(async {
        let (mut raw, far) = duplex(1 << 20);
        let (mut reader, writer) = made(Wire::of(far), Way::Accepted { ticket: Ticket::default(), most: 8 });
        let mut wires = Vec::new();
        for (index, chunks) in strands.iter().enumerate() {
            if index > 0 {
                let (near, far) = duplex(1 << 20);
                writer.held.0.add(Wire::of(far), None, ()).unwrap();
                wires.push(std::mem::replace(&mut raw, near));
            }
            for (sequence, length, bytes) in *chunks {
                raw.write_all(&sequence.to_le_bytes()).await.unwrap();
                raw.write_all(&length.to_le_bytes()).await.unwrap();
                raw.write_all(&vec![u8::try_from(*sequence).unwrap_or(0); *bytes]).await.unwrap();
            }
        }
        wires.push(raw);
        let mut place = vec![0; 1 << 20];
        let mut found = Vec::new();
        loop {
            match timeout(Duration::from_millis(50), reader.read(&mut place)).await {
                Err(_) => return (!found.is_empty()).then_some(Ok(found)),
                Ok(Ok(count)) => found.extend_from_slice(&place[..count]),
                Ok(Err(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                    return Some(Err(error.downcast().unwrap()));
                }
            }
        }
    })
}

#[test]
fn what_breaks_the_protocol_is_named_and_takes_no_memory() {
    let again = Malformed::Misplaced("a chunk that was there before");
    let left_out = Malformed::Misplaced("a chunk that was left out");
    let too_long = |length: u32| Malformed::TooLong { length: length.into(), most: CHUNK_BYTES_MAX };
    let most = u32::try_from(CHUNK_BYTES_MAX).unwrap();
    // As it should be, in turn and out of it.
    assert_eq!(told(&[&[(0, 3, 3), (1, 2, 2)]]), Some(Ok(vec![0, 0, 0, 1, 1])));
    assert_eq!(told(&[&[(1, 1, 1)], &[(0, 1, 1), (3, 1, 1)], &[(2, 1, 1)]]), Some(Ok(vec![0, 1, 2, 3])));
    assert_eq!(told(&[&[(2, 1, 1)], &[]]), None, "it may still come");
    for first in [true, false] {
        let on = |chunks: &[(u64, u32, usize)]| {
            if first { told(&[chunks]) } else { told(&[&[(0, 1, 1)], chunks]) }
        };
        let next = u64::from(!first);
        assert_eq!(on(&[(next, 0, 0)]), Some(Err(Malformed::Misplaced("an empty chunk"))));
        assert_eq!(on(&[(next, most + 1, 0)]), Some(Err(too_long(most + 1))));
        assert_eq!(on(&[(next, u32::MAX, 0)]), Some(Err(too_long(u32::MAX))));
        assert_eq!(on(&[(next, 1, 1), (next, 1, 1)]), Some(Err(again)));
    }
    assert_eq!(told(&[&[(0, 1, 1)], &[(0, 1, 1)]]), Some(Err(again)), "on another strand");
    assert_eq!(told(&[&[(1, 1, 1), (0, 1, 1)], &[(0, 1, 1)]]), Some(Err(again)), "behind a later one");
    assert_eq!(told(&[&[(5, 1, 1)], &[(5, 1, 1)]]), Some(Err(again)), "before its turn");
    assert_eq!(told(&[&[(1, 1, 1)]]), Some(Err(left_out)), "nobody can bring 0 any more");
    assert_eq!(told(&[&[(0, 1, 1), (2, 1, 1)], &[(3, 1, 1)]]), Some(Err(left_out)));
    assert_eq!(told(&[&[(u64::MAX, 1, 1)], &[(0, 1, 1), (2, 1, 1)]]), Some(Err(left_out)));
}

#[test]
fn what_is_no_answer_ends_the_bundle() {
    let garbled = [[7; CARD_BYTES], Card::Joined.encode(), Card::Open.encode()];
    for answer in garbled {
        run(async {
            let (near, mut far) = duplex(1 << 10);
            let (mut reader, _writer) = dialled(Wire::of(near), 4);
            far.write_all(&answer).await.unwrap();
            let error = reader.read(&mut [0; 9]).await.unwrap_err();
            assert!(error.downcast::<Malformed>().is_ok());
        });
        run(async {
            let (mut near, far) = duplex(1 << 10);
            near.write_all(&answer).await.unwrap();
            let opened = opening(&mut Wire::of(far)).await;
            assert_eq!(opened.is_ok(), answer == Card::Open.encode());
        });
    }
}

/// A lender's daemon that takes connections in as they are dialled: its bundles, and what it said to each.
#[derive(Debug, Default)]
struct Lender {
    bundles: Bundles<Wire>,
    dials: AtomicUsize,
}

impl Lender {
    /// A bundle of one of its borrowers, which grows as it wants to.
    async fn serve(self: &Arc<Self>, from: &'static str, ours: u8, theirs: u8) -> (End, End) {
        let (near, mut far) = wires(100_000, None);
        let mut dialled = dialled(near, ours);
        let this = Arc::clone(self);
        dialled.1.grow(move || {
            this.dials.fetch_add(1, Ordering::SeqCst);
            let this = Arc::clone(&this);
            Box::pin(async move {
                let (near, mut far) = wires(100_000, None);
                tokio::spawn(async move {
                    let Ok(Opening::Further(ticket)) = opening(&mut far).await else { panic!("it joins") };
                    if let Err((refusal, far)) = this.bundles.join(&node(from), ticket, far, ()) {
                        refuse(far, refusal).await.unwrap();
                    }
                });
                Ok(near)
            })
        });
        dialled.1.write_all(&[0]).await.unwrap();
        dialled.1.flush().await.unwrap();
        assert_eq!(opening(&mut far).await.unwrap(), Opening::First);
        let mut accepted = self.bundles.begin(&node(from), far, theirs).unwrap();
        accepted.0.read_exact(&mut [1]).await.unwrap();
        (dialled, accepted)
    }
}

/// Sends so many bytes, so many at a time, in one direction.
async fn send((_, writer): &mut End, (reader, _): &mut End, bytes: usize, piece: usize) {
    let (all, mut found) = (pattern(bytes, 1), vec![0; bytes]);
    let writing = async {
        for piece in all.chunks(piece) {
            writer.write_all(piece).await.unwrap();
            writer.flush().await.unwrap();
        }
    };
    let ((), read) = tokio::join!(writing, reader.read_exact(&mut found));
    read.unwrap();
    assert!(found == all);
}

#[test]
fn only_what_copies_in_bulk_opens_further_connections_and_no_more_than_both_would_have() {
    for (ours, theirs, expected) in [(4, 4, 4), (2, 4, 2), (8, 3, 3), (4, 1, 1), (1, 4, 1)] {
        for to_the_lender in [true, false] {
            run(async {
                let lender = Arc::new(Lender::default());
                let (mut near, mut far) = lender.serve("a", ours, theirs).await;
                // Answered, so that the ticket is known.
                send(&mut far, &mut near, 100, 100).await;
                send(&mut near, &mut far, 4 << 20, 1_000).await;
                assert_eq!(lender.dials.load(Ordering::SeqCst), 0, "launches open nothing");
                let seen = near.1.seen();
                assert_eq!(seen.connections(), 1);
                while seen.connections() < expected {
                    let (from, to) =
                        if to_the_lender { (&mut near, &mut far) } else { (&mut far, &mut near) };
                    send(from, to, 1 << 20, 300_000).await;
                }
                send(&mut near, &mut far, 8 << 20, 300_000).await;
                send(&mut far, &mut near, 8 << 20, 300_000).await;
                assert_eq!(lender.dials.load(Ordering::SeqCst), expected - 1);
                assert_eq!((seen.connections(), far.1.seen().connections()), (expected, expected));
                drop((near, far));
                tokio::task::yield_now().await;
                assert_eq!(seen.connections(), 0, "they end with the bundle");
            });
        }
    }
}

#[test]
fn only_its_own_node_with_its_secret_joins_a_bundle() {
    run(async {
        let lender = Arc::new(Lender::default());
        let (mut near, mut far) = lender.serve("a", 1, 2).await;
        send(&mut far, &mut near, 100, 100).await;
        let (ticket, _) = *near.1.held.0.answer.get().unwrap();
        let join = |from: &str, ticket: Ticket| {
            let outcome = lender.bundles.join(&node(from), ticket, Wire::of(duplex(1_000).0), ());
            outcome.map_err(|(refusal, _)| refusal)
        };
        let mut guessed = ticket;
        guessed.secret[15] ^= 1;
        let other = Ticket { session: ticket.session ^ 1, ..ticket };
        for (from, ticket) in [("b", ticket), ("a", guessed), ("a", other), ("a", Ticket::default())] {
            assert_eq!(join(from, ticket), Err(Refusal::Unknown), "{from} {ticket:?}");
        }
        let (mut again, _again) = lender.serve("b", 1, 2).await;
        assert_eq!(join("b", ticket), Err(Refusal::Unknown), "nor one that has a bundle of its own");
        assert_eq!(far.1.seen().connections(), 1, "and nobody was let in");
        assert_eq!(join("a", ticket), Ok(()));
        assert_eq!(join("a", ticket), Err(Refusal::Full));
        drop((near, far));
        tokio::task::yield_now().await;
        assert_eq!(join("a", ticket), Err(Refusal::Unknown), "over is over");
        drop(again.1.shutdown());
    });
}

#[test]
fn a_small_chunk_waits_for_no_task() {
    run(async {
        let (near, far) = wires(1 << 20, None);
        let there = Arc::clone(&near.written);
        let (mut dialled, mut accepted) = pair((near, far), 8).await;
        for strands in [1, 3] {
            if strands == 3 {
                add(&dialled, &accepted, wires(1 << 20, None));
                add(&dialled, &accepted, wires(1 << 20, None));
                // Their tasks have looked, and found nothing.
                send(&mut dialled, &mut accepted, 1 << 20, 300_000).await;
                tokio::task::yield_now().await;
            }
            for _ in 0..10 {
                let before = there.load(Ordering::SeqCst);
                let mut place = [0; 700];
                let wrote = async {
                    dialled.1.write_all(&[7; 700]).await.unwrap();
                    dialled.1.flush().await.unwrap();
                };
                // Polled once, and no task has run since.
                wrote.now_or_never().expect("it waits for nothing");
                let on_it = there.load(Ordering::SeqCst) - before;
                assert_eq!(on_it, (CHUNK_HEAD_BYTES + 700) as u64, "on the first of {strands}");
                accepted.0.read_exact(&mut place).now_or_never().expect("nor whoever reads it").unwrap();
            }
        }
    });
}

#[test]
fn a_peer_that_knows_no_bundles_is_sent_what_is_written_and_nothing_else() {
    run(async {
        let (near, mut far) = duplex(1 << 10);
        let (mut reader, mut writer) = plain(Wire::of(near));
        writer.write_all(b"as it is").await.unwrap();
        writer.flush().await.unwrap();
        let mut there = [0; 8];
        far.read_exact(&mut there).await.unwrap();
        assert_eq!(&there, b"as it is");
        far.write_all(b"back").await.unwrap();
        reader.read_exact(&mut there[..4]).await.unwrap();
        assert_eq!(&there, b"backt is");
        writer.shutdown().await.unwrap();
        assert_eq!(far.read(&mut there).await.unwrap(), 0);
    });
}

#[test]
fn a_small_chunk_does_not_get_in_front_of_what_waits_for_the_same_strand() {
    run(async {
        let (mut dialled, mut accepted) = pair(wires(1 << 20, None), 8).await;
        add(&dialled, &accepted, wires(1 << 20, None));
        for round in 0..40 {
            // Nothing is under way, and both tasks wait.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let (large, small) = (pattern(50_000, round), pattern(10, !round));
            let wrote = async {
                dialled.1.write_all(&large).await.unwrap();
                dialled.1.write_all(&small).await.unwrap();
                dialled.1.flush().await.unwrap();
            };
            wrote.now_or_never().expect("there is room for both");
            let mut found = vec![0; 50_010];
            timeout(SOON, accepted.0.read_exact(&mut found)).await.expect("both come").unwrap();
            assert!(found == [large, small].concat());
        }
    });
}

#[test]
fn what_whoever_writes_leaves_on_a_full_strand_is_finished_without_him() {
    run(async {
        let (mut dialled, mut accepted) = pair(wires(100, None), 8).await;
        add(&dialled, &accepted, wires(100, None));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let sent = pattern(700, 1);
        let wrote = async {
            dialled.1.write_all(&sent).await.unwrap();
            dialled.1.flush().await.unwrap();
        };
        wrote.now_or_never().expect("it is a task's");
        let mut found = vec![0; 700];
        timeout(SOON, accepted.0.read_exact(&mut found)).await.expect("all of it comes").unwrap();
        assert!(found == sent);
    });
}

#[test]
fn whoever_waits_for_a_full_strand_is_let_go_when_another_one_joins() {
    run(async {
        let (mut dialled, mut accepted) = pair(wires(100, None), 8).await;
        let shared = Arc::clone(&dialled.1.held.0);
        let sent = pattern(10_000, 1);
        let expected = sent.clone();
        // A task of its own: whoever shares one is woken with the other.
        let writing = tokio::spawn(async move {
            dialled.1.write_all(&sent).await.unwrap();
            dialled.1.flush().await.unwrap();
            dialled
        });
        tokio::task::yield_now().await;
        let (near, far) = wires(100, None);
        accepted.1.held.0.add(far, None, ()).unwrap();
        shared.add(near, None, ()).unwrap();
        tokio::task::yield_now().await;
        let mut found = vec![0; 10_000];
        timeout(SOON, accepted.0.read_exact(&mut found)).await.expect("all of it comes").unwrap();
        assert!(found == expected);
        timeout(SOON, writing).await.expect("it is let go").unwrap();
    });
}
