//! Carrying one session over one connection, in either role.
//!
//! ```text
//! near (program or worker)  --outward-->  far (the other daemon)
//!                           <--inward---
//! outward: count, hold the budget, pass on; at a window's end tell the other daemon what was counted
//! inward:  what the other daemon told is compared with what was counted here; everything else is counted and passed on
//! ```
//!
//! The only frames it adds are between the two daemons, or end the session. A connection that breaks ends nothing: the
//! session's meters go on over the next.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use headgate_remote::meter::{Direction, Mark, Meter};
use headgate_remote::wire::frame::{Header, Kind, Ticket, Welcome};
use headgate_remote::wire::{Claim, Malformed};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::book::{About, Book, Entry};
use super::frames::{FrameError, Frames, say};
use super::phase::{Parting, Phase, Phases};
use super::tally::Flow;
use crate::limits::{SESSION_FAREWELL_WAIT, SESSION_WINDOW};

/// Which daemon this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// The program's.
    Borrower,
    /// The worker's.
    Lender,
}

impl Role {
    /// The word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Borrower => "borrower",
            Self::Lender => "lender",
        }
    }
}

/// What is known of a session, whatever connection it is on.
#[derive(Debug)]
pub(super) struct Session {
    role: Role,
    about: Mutex<Arc<About>>,
    phases: Phases,
    /// How often the daemons compare.
    window: Duration,
    outward: Mutex<Meter>,
    inward: Mutex<Meter>,
    ticket: OnceLock<Ticket>,
    /// What the worker said when it ended, if it did.
    last_word: OnceLock<String>,
    /// Where its bytes are added up with others'.
    flow: Arc<Flow>,
    connected: AtomicBool,
}

fn locked(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn new(role: Role, about: About, flow: Arc<Flow>) -> Self {
        let (outward, inward) = match role {
            Role::Borrower => (Direction::Up, Direction::Down),
            Role::Lender => (Direction::Down, Direction::Up),
        };
        Self {
            role,
            about: Mutex::new(Arc::new(about)),
            phases: Phases::default(),
            window: SESSION_WINDOW,
            outward: Mutex::new(Meter::new(outward)),
            inward: Mutex::new(Meter::new(inward)),
            ticket: OnceLock::new(),
            last_word: OnceLock::new(),
            flow,
            connected: AtomicBool::new(false),
        }
    }

    /// What it is about.
    pub(super) fn about(&self) -> Arc<About> {
        Arc::clone(&self.about.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on it stands on another loan.
    pub(super) fn stands_on(&self, loan: String) {
        let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        *about = Arc::new(About { loan, ..About::clone(&about) });
    }

    /// Whether its loan is over, and what comes then.
    pub(super) fn phases(&self) -> &Phases {
        &self.phases
    }

    /// Whether it has a connection now.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// What has passed: to the device, and back.
    pub(super) fn marks(&self) -> (Mark, Mark) {
        let (outward, inward) = (locked(&self.outward).mark(), locked(&self.inward).mark());
        match self.role {
            Role::Borrower => (outward, inward),
            Role::Lender => (inward, outward),
        }
    }

    /// Whether nothing that the near end sends is passed on: the program's, while the session's loan is over.
    fn holds(&self) -> bool {
        self.role == Role::Borrower && self.phases.now() != Phase::Going
    }

    /// Counts a frame that passes.
    fn pass(&self, meter: &Mutex<Meter>, header: &Header, payload: &[u8]) -> Result<(), Malformed> {
        let mut meter = locked(meter);
        let before = meter.mark();
        meter.pass(header, payload)?;
        self.flow.add(meter.direction(), &before, &meter.mark());
        Ok(())
    }

    /// What the worker called it; `None` before it did.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.ticket.get().copied()
    }

    fn write(&self, book: &Book, entry: &Entry) -> Result<(), End> {
        let name = self.ticket().map_or(0, |ticket| ticket.session);
        if book.write(name, &self.about(), entry) { Ok(()) } else { Err(End::Unrecorded) }
    }

    /// Writes down that it has ended, and why.
    pub(super) fn ended(&self, book: &Book, why: &str) {
        // What cannot be written is in the log of the daemon by now, and there is nothing left to stop.
        let _logged = self.write(book, &Entry::Ended(why.to_owned()));
    }
}

/// How carrying over a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The connection broke; the session may go on over another.
    Broken,
    /// The near end is gone, and whoever is far knows.
    Left,
    /// The other daemon ended it.
    Over(String),
    /// The two daemons do not agree on what was carried.
    Differs,
    /// The near or the far end sent what is no session.
    Malformed(&'static str, Malformed),
    /// The budget is used up.
    Spent(String),
    /// This node's owner of the session ended it.
    Stopped(String),
    /// What was carried could not be written down.
    Unrecorded,
}

impl End {
    /// Whether the session may go on.
    pub(super) fn may_resume(&self) -> bool {
        matches!(self, Self::Broken)
    }

    /// All words for it.
    pub(super) const WORDS: [&'static str; 8] =
        ["broken", "left", "over", "differs", "malformed", "budget", "stopped", "unrecorded"];

    /// The word for it.
    pub(super) fn word(&self) -> &'static str {
        let index = match self {
            Self::Broken => 0,
            Self::Left => 1,
            Self::Over(_) => 2,
            Self::Differs => 3,
            Self::Malformed(..) => 4,
            Self::Spent(_) => 5,
            Self::Stopped(_) => 6,
            Self::Unrecorded => 7,
        };
        Self::WORDS[index]
    }

    /// The sentence for it.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Broken => "the connection broke and did not come back".to_owned(),
            Self::Left => "the program ended".to_owned(),
            Self::Over(why) | Self::Spent(why) | Self::Stopped(why) => why.clone(),
            Self::Differs => "the two daemons counted different bytes; the audit logs say which".to_owned(),
            Self::Malformed(who, what) => format!("{who} broke the protocol: {what}"),
            Self::Unrecorded => "what it carries could not be written into the audit log".to_owned(),
        }
    }
}

/// What the owner of a session has a say in.
pub(super) trait Owner: Sync {
    /// Whether so many bytes may go out; why not.
    fn allow(&self, bytes: u64) -> Result<(), String>;
    /// The worker named the session.
    fn welcomed(&self, ticket: Ticket);
    /// The near end has gone, after a goodbye or not; what the other daemon is told, if anything.
    fn farewell(&self, goodbye: bool) -> BoxFuture<'_, Option<String>>;
    /// Resolves when what is under way is to be finished; what comes then.
    fn drain(&self) -> BoxFuture<'_, Parting>;
    /// Resolves when the session is to end, with why.
    fn stop(&self) -> BoxFuture<'_, String>;
    /// Whether what is on the device may be put aside; why not.
    fn may_put_aside(&self) -> Result<(), String>;
    /// It is aside: the loan has nothing under it any more.
    fn put_aside(&self);
    /// Resolves when it has a loan again.
    fn next_loan(&self) -> BoxFuture<'_, Claim>;
    /// The loan that it has now.
    fn claim(&self) -> Claim;
    /// Whether it may come back under a loan; why not.
    fn may_return(&self, claim: &Claim) -> Result<(), String>;
    /// It is back, under the loan it has now.
    fn returned(&self);
    /// Resolves when the near end's process is gone. Asked while nothing is taken from it.
    fn gone(&self) -> BoxFuture<'_, ()>;
}

/// One connection of a session.
#[derive(Debug)]
pub(super) struct Lane<NR, NW, FR, FW> {
    /// From the program or worker.
    pub(super) near: Frames<NR>,
    /// To it.
    pub(super) to_near: NW,
    /// From the other daemon.
    pub(super) far: Frames<FR>,
    /// To it.
    pub(super) to_far: FW,
}

impl<NR, NW, FR, FW> Lane<NR, NW, FR, FW>
where
    NR: AsyncRead + Unpin,
    NW: AsyncWrite + Unpin,
    FR: AsyncRead + Unpin,
    FW: AsyncWrite + Unpin,
{
    /// Carries until it ends. Both ends are told unless one of them ended it or the connection broke.
    pub(super) async fn carry(mut self, session: &Session, book: &Book, owner: &dyn Owner) -> End {
        locked(&session.outward).connected();
        locked(&session.inward).connected();
        session.connected.store(true, Relaxed);
        let out = outward(&mut self.near, &mut self.to_far, session, book, owner);
        let back = inward(&mut self.far, &mut self.to_near, session, book, owner);
        let end = {
            tokio::pin!(out, back);
            tokio::select! {
                biased;
                why = owner.stop() => End::Stopped(why),
                end = &mut back => match end {
                    // The worker has answered a goodbye; what led to it is still to be told.
                    End::Over(_) if locked(&session.outward).said_goodbye() => {
                        timeout(SESSION_FAREWELL_WAIT, out).await.unwrap_or(End::Left)
                    }
                    other => other,
                },
                end = &mut out => match end {
                    // What the other daemon still has to say is heard out.
                    End::Left => timeout(SESSION_FAREWELL_WAIT, back).await.map_or(End::Left, |end| match end {
                        End::Broken | End::Over(_) => End::Left,
                        other => other,
                    }),
                    other => other,
                },
            }
        };
        if !matches!(end, End::Broken | End::Left) {
            let why = end.why();
            if !matches!(end, End::Over(_)) {
                // Whoever is gone already needs no reason.
                let _gone =
                    timeout(SESSION_FAREWELL_WAIT, say(&mut self.to_far, Kind::Over, why.as_bytes())).await;
            }
            if session.role == Role::Borrower {
                let _gone =
                    timeout(SESSION_FAREWELL_WAIT, say(&mut self.to_near, Kind::Over, why.as_bytes())).await;
            }
        }
        // TLS wants its farewell said, or the other side takes this for a break.
        let _gone = timeout(SESSION_FAREWELL_WAIT, self.to_far.shutdown()).await;
        session.connected.store(false, Relaxed);
        end
    }
}

/// From the near end to the far one.
async fn outward<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    near: &mut Frames<R>,
    far: &mut W,
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
) -> End {
    let mut window = interval_at(Instant::now() + session.window, session.window);
    window.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Mark::default();
    let (phases, mut changes) = (&session.phases, session.phases.changes());
    let mut draining = owner.drain();
    let mut drained = false;
    // The other daemon expects the greeting first.
    let mut greeted = session.role == Role::Lender;
    loop {
        let phase = *changes.borrow_and_update();
        // A frame that waits is there already. Up to there is read: what comes before may be about the connection itself.
        let waiting = near.seen(0).is_ok_and(|seen| seen.is_some_and(|seen| !begins(&seen.header)));
        let held = session.holds() && waiting;
        let step = tokio::select! {
            parting = &mut draining, if greeted && !drained && phase == Phase::Going => {
                drained = true;
                part(far, session, parting).await
            }
            claim = owner.next_loan(), if greeted && phase == Phase::Aside => {
                session.stands_on(claim.loan.clone());
                phases.enter(Phase::Returning);
                say(far, Kind::Return, &claim.encode()).await.map_err(|_| End::Broken)
            }
            _ = changes.changed() => {
                // Under another loan: that one may be called back as well.
                if drained && phases.now() == Phase::Going {
                    draining = owner.drain();
                    drained = false;
                }
                Ok(())
            }
            () = owner.gone(), if session.holds() => return leave(far, session, book, owner, &mut told).await,
            _ = window.tick() => tell(far, session, book, &mut told).await,
            arrived = near.arrive(), if !held => match arrived {
                Ok(true) => {
                    let passed = pass_outward(near, far, session, book, owner).await;
                    match passed {
                        Ok(()) if !greeted => {
                            greeted = true;
                            say_again(far, session, owner).await
                        }
                        passed => passed,
                    }
                }
                Ok(false) | Err(FrameError::Gone(_)) => return leave(far, session, book, owner, &mut told).await,
                Err(FrameError::Malformed(what)) => Err(End::Malformed("this node's end", what)),
            },
        };
        if let Err(end) = step {
            return end;
        }
    }
}

/// Whether a frame begins a connection: only these pass while a session's loan is over.
fn begins(header: &Header) -> bool {
    header.kind == Kind::Hello
}

/// The loan is called back: tells the lender's daemon what comes of it.
async fn part<W: AsyncWrite + Unpin>(far: &mut W, session: &Session, parting: Parting) -> Result<(), End> {
    let kind = match parting {
        Parting::End => Kind::Drain,
        Parting::Aside => {
            session.phases.enter(Phase::Parting);
            Kind::Aside
        }
    };
    say(far, kind, &[]).await.map_err(|_| End::Broken)
}

/// After a break: what may not have been heard.
async fn say_again<W: AsyncWrite + Unpin>(
    far: &mut W,
    session: &Session,
    owner: &dyn Owner,
) -> Result<(), End> {
    let (kind, payload) = match (session.role, session.phases.now()) {
        (Role::Borrower, Phase::Parting) => (Kind::Aside, Vec::new()),
        (Role::Borrower, Phase::Returning) => (Kind::Return, owner.claim().encode()),
        _ => return Ok(()),
    };
    say(far, kind, &payload).await.map_err(|_| End::Broken)
}

async fn pass_outward<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    near: &mut Frames<R>,
    far: &mut W,
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
) -> Result<(), End> {
    let malformed = |what| End::Malformed("this node's end", what);
    let (mut bytes, mut kept) = (0, 0);
    let mut answer = None;
    while let Some(seen) = near.seen(bytes).map_err(malformed)? {
        if session.holds() && !begins(&seen.header) {
            break;
        }
        let known = match session.role {
            Role::Borrower => {
                matches!(seen.header.kind, Kind::Hello | Kind::Operations | Kind::Acknowledge)
            }
            Role::Lender => matches!(
                seen.header.kind,
                Kind::Welcome
                    | Kind::Refused
                    | Kind::Operations
                    | Kind::Acknowledge
                    | Kind::Over
                    | Kind::Aside
                    | Kind::Return
            ),
        };
        if !known {
            return Err(malformed(Malformed::Misplaced("a frame that only daemons send")));
        }
        if seen.header.kind == Kind::Over {
            // The worker has finished and ends next. The other daemon first hears what was counted, then this.
            let _first = session.last_word.set(String::from_utf8_lossy(seen.payload).into_owned());
            kept = seen.bytes;
            break;
        }
        if matches!(seen.header.kind, Kind::Aside | Kind::Return) {
            answer = Some(seen.header.kind);
            kept = seen.bytes;
            break;
        }
        owner.allow(seen.bytes as u64).map_err(End::Spent)?;
        name(owner, session, book, &seen.header, seen.payload)?;
        session.pass(&session.outward, &seen.header, seen.payload).map_err(malformed)?;
        bytes += seen.bytes;
    }
    let sent = async {
        far.write_all(near.run(0, bytes)).await?;
        far.flush().await
    };
    sent.await.map_err(|_: io::Error| End::Broken)?;
    near.consume(bytes + kept);
    let Some(kind) = answer else { return Ok(()) };
    answered(session, book, owner, kind, "the worker")?;
    say(far, kind, &[]).await.map_err(|_| End::Broken)
}

/// Takes note of what names the session: the first welcome.
fn name(
    owner: &dyn Owner,
    session: &Session,
    book: &Book,
    header: &Header,
    payload: &[u8],
) -> Result<(), End> {
    if header.kind != Kind::Welcome || session.ticket.get().is_some() {
        return Ok(());
    }
    let welcome = Welcome::decode(payload).map_err(|what| End::Malformed("the worker", what))?;
    if session.ticket.set(welcome.ticket).is_ok() {
        session.write(book, &Entry::Begun)?;
        owner.welcomed(welcome.ticket);
    }
    Ok(())
}

/// Tells the other daemon what was counted, if that is news.
async fn tell<W: AsyncWrite + Unpin>(
    far: &mut W,
    session: &Session,
    book: &Book,
    told: &mut Mark,
) -> Result<(), End> {
    let (direction, mark) = {
        let meter = locked(&session.outward);
        (meter.direction(), meter.mark())
    };
    if mark == *told {
        return Ok(());
    }
    session.write(book, &Entry::Told(direction, mark))?;
    say(far, Kind::Meter, &mark.encode()).await.map_err(|_| End::Broken)?;
    *told = mark;
    Ok(())
}

/// The near end is gone: the other daemon hears what was counted, and that it is over.
async fn leave<W: AsyncWrite + Unpin>(
    far: &mut W,
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
    told: &mut Mark,
) -> End {
    let goodbye = locked(&session.outward).said_goodbye() || locked(&session.inward).said_goodbye();
    let last = owner.farewell(goodbye).await.map(|why| session.last_word.get().cloned().unwrap_or(why));
    if let Err(end) = tell(far, session, book, told).await {
        return end;
    }
    if let Some(why) = last
        && say(far, Kind::Over, why.as_bytes()).await.is_err()
    {
        return End::Broken;
    }
    End::Left
}

/// From the far end to the near one.
async fn inward<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    far: &mut Frames<R>,
    near: &mut W,
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
) -> End {
    let mut listens = true;
    loop {
        match far.arrive().await {
            Ok(true) => {}
            Ok(false) | Err(FrameError::Gone(_)) => return End::Broken,
            Err(FrameError::Malformed(what)) => return End::Malformed(OTHER, what),
        }
        let (bytes, own) = match pass_inward(far, session, book, owner) {
            Ok(passed) => passed,
            Err(end) => return end,
        };
        if listens {
            let sent = async {
                near.write_all(far.run(0, bytes)).await?;
                near.flush().await
            };
            let sent: io::Result<()> = sent.await;
            // What still comes for whoever is gone is counted and dropped; outward notices that it is gone.
            listens = sent.is_ok();
        }
        far.consume(bytes);
        if let Some(own) = own {
            match own {
                Own::Told(bytes, mark) => {
                    far.consume(bytes);
                    if let Err(end) = compare(session, book, mark) {
                        return end;
                    }
                }
                Own::Over(why) => return End::Over(why),
                Own::Order(bytes, order) => {
                    far.consume(bytes);
                    if let Err(end) = carry_out(near, session, book, owner, order).await {
                        return end;
                    }
                }
            }
        }
    }
}

/// Who is at fault if what it sends is no session.
const OTHER: &str = "the other daemon";

/// A frame that is for this daemon.
enum Own {
    Told(usize, Mark),
    Over(String),
    Order(usize, Order),
}

/// What becomes of a session whose loan ends: to the lender's daemon an order, to the borrower's the answer.
enum Order {
    Aside,
    Return(Option<Claim>),
}

/// Counts what has arrived, up to a frame that is for this daemon.
fn pass_inward<R: AsyncRead + Unpin>(
    far: &Frames<R>,
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
) -> Result<(usize, Option<Own>), End> {
    let malformed = |what| End::Malformed(OTHER, what);
    let mut bytes = 0;
    while let Some(seen) = far.seen(bytes).map_err(malformed)? {
        match (seen.header.kind, session.role) {
            (Kind::Meter, _) => {
                let mark = Mark::decode(seen.payload).map_err(malformed)?;
                return Ok((bytes, Some(Own::Told(seen.bytes, mark))));
            }
            (Kind::Over, _) => {
                let why = String::from_utf8_lossy(seen.payload).into_owned();
                return Ok((bytes, Some(Own::Over(why))));
            }
            (Kind::Hello | Kind::Operations | Kind::Acknowledge, Role::Lender)
            | (Kind::Welcome | Kind::Refused | Kind::Operations | Kind::Acknowledge, Role::Borrower) => {
                name(owner, session, book, &seen.header, seen.payload)?;
                session.pass(&session.inward, &seen.header, seen.payload).map_err(malformed)?;
            }
            (Kind::Aside, _) => return Ok((bytes, Some(Own::Order(seen.bytes, Order::Aside)))),
            (Kind::Return, role) => {
                let claim = (role == Role::Lender).then(|| Claim::decode(seen.payload)).transpose();
                let order = Order::Return(claim.map_err(malformed)?);
                return Ok((bytes, Some(Own::Order(seen.bytes, order))));
            }
            // The lender's worker heeds it; it is nothing the program sent.
            (Kind::Drain, Role::Lender) => {}
            _ => return Err(malformed(Malformed::Misplaced("a frame that does not go this way"))),
        }
        bytes += seen.bytes;
    }
    Ok((bytes, None))
}

/// An order that `who` has carried out, perhaps once more: takes note.
fn answered(
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
    kind: Kind,
    who: &'static str,
) -> Result<(), End> {
    match (kind, session.phases.now()) {
        (Kind::Aside, Phase::Parting) => {
            owner.put_aside();
            session.phases.enter(Phase::Aside);
            session.write(book, &Entry::Aside)
        }
        (Kind::Return, Phase::Returning) => {
            session.phases.enter(Phase::Going);
            owner.returned();
            session.write(book, &Entry::Returned)
        }
        (Kind::Aside, Phase::Aside) | (Kind::Return, Phase::Going) => Ok(()),
        _ => Err(End::Malformed(who, Malformed::Misplaced("an answer to no order"))),
    }
}

/// Does what the other daemon orders, or notes what it answers.
async fn carry_out<W: AsyncWrite + Unpin>(
    near: &mut W,
    session: &Session,
    book: &Book,
    owner: &dyn Owner,
    order: Order,
) -> Result<(), End> {
    let malformed = |what| End::Malformed(OTHER, what);
    let kind = match (order, session.role) {
        (Order::Aside, Role::Borrower) => return answered(session, book, owner, Kind::Aside, OTHER),
        (Order::Return(_), Role::Borrower) => return answered(session, book, owner, Kind::Return, OTHER),
        (Order::Aside, Role::Lender) => match owner.may_put_aside() {
            Ok(()) => {
                if session.phases.now() == Phase::Going {
                    session.phases.enter(Phase::Parting);
                }
                Kind::Aside
            }
            Err(why) => {
                tracing::info!(why, "a remote session ends with its loan and is not put aside");
                Kind::Drain
            }
        },
        (Order::Return(claim), Role::Lender) => {
            let claim = claim.unwrap_or_default();
            if session.phases.now() == Phase::Parting {
                return Err(malformed(Malformed::Misplaced("a return of what is not aside yet")));
            }
            owner.may_return(&claim).map_err(End::Stopped)?;
            if session.phases.now() == Phase::Aside {
                session.stands_on(claim.loan);
                session.phases.enter(Phase::Returning);
            }
            Kind::Return
        }
    };
    // Whoever is gone is noticed by whoever reads from it.
    let _gone = say(near, kind, &[]).await;
    Ok(())
}

/// Holds what the other daemon told against what was counted here.
fn compare(session: &Session, book: &Book, told: Mark) -> Result<(), End> {
    let (direction, here) = {
        let meter = locked(&session.inward);
        (meter.direction(), meter.mark())
    };
    if here == told {
        return session.write(book, &Entry::Agreed(direction, told));
    }
    tracing::error!(direction = direction.word(), %here, %told, "a remote session was not counted alike");
    session.write(book, &Entry::Differs { direction, here, told })?;
    Err(End::Differs)
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
