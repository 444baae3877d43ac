//! The reading end of a bundle.
//!
//! Each strand brings its chunks in the order of their numbers. The first one is read by whoever reads, straight into its
//! place, and only as far as it is its turn. Each other one has a task that keeps one chunk until its turn comes, and reads
//! nothing meanwhile. So all that is kept is one chunk for each further strand.
//!
//! That cannot stop by itself. Take the chunk whose turn it is, and the strand that it was sent on: whatever came there before
//! has a lower number, so its turn was earlier, and nothing of it is kept any more. So that strand is being read, and the chunk is
//! what it brings next, however full all others are. Where every strand already shows another chunk, or its end, nobody
//! can bring it any more: then the other side has left it out.
//!
//! A break is told when what is in turn is not there: what came whole before it is still read, and the other side's last
//! words with it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use headgate_remote::wire::Malformed;
use headgate_remote::wire::bundle::{CARD_BYTES, CHUNK_HEAD_BYTES, Card, ChunkHead};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf, ReadHalf};
use tokio::sync::mpsc;

use super::{Held, Shared, Way, Wire, locked};

/// What a strand has brought.
#[derive(Debug)]
pub(super) struct Strand {
    /// The number of the chunk that it shows, until all of it has been read.
    shown: Option<u64>,
    /// Its bytes, if they are kept here.
    kept: Option<Vec<u8>>,
    /// The memory goes back this way, and with it the leave to read on.
    back: Option<mpsc::Sender<Vec<u8>>>,
    ended: bool,
}

impl Strand {
    /// A further strand's, and where its task hears that its chunk was read.
    pub(super) fn new() -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (back, returned) = mpsc::channel(1);
        (Self { back: Some(back), ..Self::first() }, returned)
    }

    fn first() -> Self {
        Self { shown: None, kept: None, back: None, ended: false }
    }
}

/// What has come over all strands.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Whose turn it is.
    next: u64,
    strands: Vec<Strand>,
    /// Strands on their way, which may bring what is missing.
    pub(super) joining: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { next: 0, strands: vec![Strand::first()], joining: 0 }
    }

    /// Takes a strand in; its place.
    pub(super) fn add(&mut self, strand: Strand) -> usize {
        self.strands.push(strand);
        self.strands.len() - 1
    }

    /// A strand shows its next chunk. Whatever it showed before was read, so that what comes behind that in the wrong order was
    /// read, too.
    fn show(&mut self, strand: usize, sequence: u64) -> Result<(), Malformed> {
        let again = self.strands.iter().any(|other| other.shown == Some(sequence));
        if sequence < self.next || again {
            return Err(Malformed::Misplaced("a chunk that was there before"));
        }
        self.strands[strand].shown = Some(sequence);
        Ok(())
    }

    /// Which strand has the chunk in turn.
    fn in_turn(&self) -> Option<usize> {
        self.strands.iter().position(|strand| strand.shown == Some(self.next))
    }

    /// The chunk in turn was read.
    fn read(&mut self, strand: usize) {
        self.strands[strand].shown = None;
        self.next += 1;
    }

    /// What it means that nothing can be read: the end, or that there will be nothing. `None`: it may still come, or is on
    /// its way.
    fn without(&self) -> Option<Result<(), Malformed>> {
        let waits =
            |strand: &Strand| strand.shown == Some(self.next) || (strand.shown.is_none() && !strand.ended);
        if self.joining > 0 || self.strands.iter().any(waits) {
            return None;
        }
        let over = self.strands.iter().all(|strand| strand.shown.is_none());
        Some(if over { Ok(()) } else { Err(Malformed::Misplaced("a chunk that was left out")) })
    }
}

/// The first strand: what comes over it, and how much of that has come.
#[derive(Debug)]
enum Stage {
    Plain,
    Card([u8; CARD_BYTES], usize),
    Head([u8; CHUNK_HEAD_BYTES], usize),
    /// Bytes of the chunk that it shows.
    Chunk(usize),
    Ended,
}

const HEAD: Stage = Stage::Head([0; CHUNK_HEAD_BYTES], 0);

/// A chunk of another strand that is being read: whose, and up to where.
#[derive(Debug)]
struct Current {
    strand: usize,
    bytes: Vec<u8>,
    at: usize,
}

/// See the head of this module.
#[derive(Debug)]
pub(in crate::remote) struct Reader<S> {
    held: Arc<Held<S>>,
    half: ReadHalf<S>,
    stage: Stage,
    current: Option<Current>,
}

/// Reads into a place of known size; whether it is full now, and `None` at the end of the stream.
fn poll_fill<R: AsyncRead + Unpin>(
    half: &mut R,
    cx: &mut Context<'_>,
    place: &mut [u8],
    have: &mut usize,
) -> Poll<io::Result<Option<()>>> {
    while *have < place.len() {
        let mut rest = ReadBuf::new(&mut place[*have..]);
        ready!(Pin::new(&mut *half).poll_read(cx, &mut rest))?;
        match rest.filled().len() {
            0 if *have == 0 => return Poll::Ready(Ok(None)),
            0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            count => *have += count,
        }
    }
    Poll::Ready(Ok(Some(())))
}

impl<S: Wire> Reader<S> {
    pub(super) fn new(held: Arc<Held<S>>, half: ReadHalf<S>, way: &Way) -> Self {
        let stage = match way {
            Way::Plain => Stage::Plain,
            // The other side says first what it thinks of further strands.
            Way::Dialled { .. } => Stage::Card([0; CARD_BYTES], 0),
            // It has said so.
            Way::Accepted { .. } => HEAD,
        };
        Self { held, half, stage, current: None }
    }

    /// Reads on the first strand, up to and with what is in turn there. `true`: some of it is in `buf`. `false`: no more can
    /// be had there now.
    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<bool, super::Broken>> {
        let shared = &*self.held.0;
        loop {
            match &mut self.stage {
                Stage::Plain => {
                    ready!(Pin::new(&mut self.half).poll_read(cx, buf))?;
                    return Poll::Ready(Ok(true));
                }
                Stage::Card(bytes, have) => {
                    if ready!(poll_fill(&mut self.half, cx, bytes, have))?.is_none() {
                        self.stage = Stage::Ended;
                        continue;
                    }
                    let Card::Opened { ticket, most } = Card::decode(bytes)? else {
                        return Poll::Ready(Err(Malformed::Misplaced("another card than was due").into()));
                    };
                    // Only here.
                    let _first = shared.answer.set((ticket, most));
                    shared.grown.notify_one();
                    self.stage = HEAD;
                }
                Stage::Head(bytes, have) => {
                    if ready!(poll_fill(&mut self.half, cx, bytes, have))?.is_none() {
                        self.stage = Stage::Ended;
                        continue;
                    }
                    let head = ChunkHead::decode(bytes)?;
                    locked(&shared.inbox).show(0, head.sequence)?;
                    self.stage = Stage::Chunk(head.bytes);
                    shared.moved(head.bytes);
                }
                Stage::Chunk(left) => {
                    if locked(&shared.inbox).in_turn() != Some(0) {
                        return Poll::Ready(Ok(false));
                    }
                    let before = buf.filled().len();
                    let mut rest = (&mut self.half).take(*left as u64);
                    ready!(Pin::new(&mut rest).poll_read(cx, buf))?;
                    let count = buf.filled().len() - before;
                    if count == 0 {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                    }
                    *left -= count;
                    if *left == 0 {
                        locked(&shared.inbox).read(0);
                        self.stage = HEAD;
                    }
                    return Poll::Ready(Ok(true));
                }
                Stage::Ended => {
                    locked(&shared.inbox).strands[0].ended = true;
                    return Poll::Ready(Ok(false));
                }
            }
        }
    }

    /// Reads of another strand's chunk, if that is in turn.
    fn read_kept(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let shared = &*self.held.0;
        if self.current.is_none() {
            let mut inbox = locked(&shared.inbox);
            let kept = inbox.in_turn().and_then(|strand| Some((strand, inbox.strands[strand].kept.take()?)));
            self.current = kept.map(|(strand, bytes)| Current { strand, bytes, at: 0 });
        }
        let Some(mut current) = self.current.take() else { return false };
        let count = buf.remaining().min(current.bytes.len() - current.at);
        buf.put_slice(&current.bytes[current.at..current.at + count]);
        current.at += count;
        if current.at < current.bytes.len() {
            self.current = Some(current);
            return true;
        }
        let mut inbox = locked(&shared.inbox);
        inbox.read(current.strand);
        if let Some(back) = &inbox.strands[current.strand].back {
            // One at most is under way. Its task may have ended.
            let _gone = back.try_send(current.bytes);
        }
        true
    }
}

impl<S: Wire> AsyncRead for Reader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shared = Arc::clone(&this.held.0);
        // Before it looks, so that what comes in between wakes it.
        shared.reader.register(cx.waker());
        if buf.remaining() == 0 || this.read_kept(buf) {
            return Poll::Ready(Ok(()));
        }
        match this.poll_first(cx, buf) {
            Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(false)) | Poll::Pending => {}
            Poll::Ready(Err(broken)) => {
                // What others have brought is still read; from here nothing comes any more.
                this.stage = Stage::Ended;
                drop(shared.fail(broken));
            }
        }
        // A strand may have shown what is in turn while the first one was looked at.
        if this.read_kept(buf) {
            return Poll::Ready(Ok(()));
        }
        shared.sound()?;
        let without = locked(&shared.inbox).without();
        match without {
            None => Poll::Pending,
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(what)) => Poll::Ready(Err(shared.fail(what))),
        }
    }
}

/// Brings a further strand's chunks, one at a time, until its end.
pub(super) async fn further<S: Wire>(
    shared: &Shared<S>,
    mut half: ReadHalf<S>,
    strand: usize,
    mut returned: mpsc::Receiver<Vec<u8>>,
) {
    let bringing = async {
        let mut bytes = Vec::new();
        loop {
            let mut head = [0; CHUNK_HEAD_BYTES];
            if half.read(&mut head[..1]).await? == 0 {
                return Ok(());
            }
            half.read_exact(&mut head[1..]).await?;
            let head = ChunkHead::decode(&head)?;
            bytes.resize(head.bytes, 0);
            half.read_exact(&mut bytes).await?;
            {
                let mut inbox = locked(&shared.inbox);
                inbox.show(strand, head.sequence)?;
                inbox.strands[strand].kept = Some(bytes);
            }
            shared.moved(head.bytes);
            shared.reader.wake();
            match returned.recv().await {
                Some(again) => bytes = again,
                None => return Ok(()),
            }
        }
    };
    let outcome: Result<(), super::Broken> = bringing.await;
    match outcome {
        Ok(()) => {
            locked(&shared.inbox).strands[strand].ended = true;
            shared.reader.wake();
        }
        Err(broken) => drop(shared.fail(broken)),
    }
}
