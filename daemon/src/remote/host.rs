//! The lender's side: sessions that peers bring, each with a worker of its own in the guest's cgroup.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use headgate_loans::desk::GuestTerms;
use headgate_loans::identity::Identity;
use headgate_loans::peer::{Accepted, Permit, Session as Arrival};
use headgate_quota::loan::{DataClass, Device, LoanId};
use headgate_quota::units::Share;
use headgate_remote::limits::UNSENT_FURTHER_BYTES_MAX;
use headgate_remote::wire::Claim;
use headgate_remote::wire::bundle::Refusal;
use headgate_remote::wire::frame::{Hello, Kind, Ticket};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Node;
use super::book::About;
use super::bundle::{self, Bundles, Opening};
use super::carry::{End, Lane, Owner, Role, Session};
use super::confined::Confinement;
use super::frames::{Frames, say};
use super::phase::{Parting, Phase};
use super::tally::{Reason, Refused};
use super::view::SessionView;
use super::worker::Worker;
use crate::config::model::Name;
use crate::limits::{
    HELLO_WAIT, SESSION_ASIDE_MAX, SESSION_FAREWELL_WAIT, SESSION_RESUME_WAIT, SESSIONS_MAX,
};

/// Sessions hosted here, by their name.
#[derive(Debug, Default)]
pub(super) struct Table {
    sessions: Mutex<HashMap<u64, Arc<Hosted>>>,
    /// What further connections are for.
    bundles: Bundles<Accepted>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Hosted>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to see of them.
    pub(super) fn views(&self) -> Vec<SessionView> {
        let view = |hosted: &Arc<Hosted>| {
            let mut view =
                SessionView::of(Role::Lender, &hosted.guest, &hosted.from.to_string(), &hosted.session);
            view.connections = hosted.wires.lock().unwrap_or_else(PoisonError::into_inner).connections();
            view.worker = hosted.worker.process();
            view.confined = view.worker.map(Confinement::of);
            view
        };
        self.lock().values().map(view).collect()
    }
}

/// A session and its worker.
#[derive(Debug)]
struct Hosted {
    from: Identity,
    /// Its tenant here.
    guest: String,
    session: Session,
    worker: Worker,
    device: Device,
    /// Bytes of this node's memory that are set apart for what it had on the device; 0 while that is there.
    kept: AtomicU64,
    node: std::sync::Weak<Node>,
    /// Held while a connection is carried.
    lane: AsyncMutex<()>,
    /// What it goes over now, or went over last.
    wires: Mutex<bundle::Seen>,
    /// Counts connections: a newer one takes the place of one that has not been seen to break.
    connections: watch::Sender<u64>,
}

/// Takes sessions up for as long as the task lives.
pub(super) async fn listen(node: Arc<Node>, mut arrivals: mpsc::Receiver<Arrival>) {
    while let Some(arrival) = arrivals.recv().await {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let from = arrival.from.clone();
            if let Err(Refused { reason, why, .. }) = serve(&node, arrival).await {
                node.tally.refused(Role::Lender, reason);
                tracing::warn!(peer = %from, why, "a remote session was refused");
            }
        });
    }
}

/// Takes a connection up: a session's first, or one more.
async fn serve(node: &Arc<Node>, mut arrival: Arrival) -> Result<(), Refused> {
    super::watch_over(arrival.stream.get_ref().0);
    if !arrival.bundled {
        let Arrival { stream, from, permit, .. } = arrival;
        return session(node, &from, bundle::plain(stream), permit).await;
    }
    let opening = timeout(HELLO_WAIT, bundle::opening(&mut arrival.stream)).await;
    let silent = || Refused::new(Reason::Silent, "the peer opens a connection and does not say what for");
    let opening = opening.map_err(|_| silent())??;
    let Arrival { stream, from, permit, .. } = arrival;
    let ticket = match opening {
        Opening::First => {
            let begun = node.host.bundles.begin(&from, stream, node.connections());
            return session(node, &from, begun.map_err(Refused::of(Reason::Worker))?, permit).await;
        }
        Opening::Further(ticket) => ticket,
    };
    if let Err(error) = headgate_loans::peer::tune_further(stream.get_ref().0, UNSENT_FURTHER_BYTES_MAX) {
        tracing::debug!(%error, "a further connection of a session holds as much back as a first one");
    }
    let Err((refusal, stream)) = node.host.bundles.join(&from, ticket, stream, permit) else { return Ok(()) };
    // Whoever is refused may be gone already.
    let _gone = timeout(SESSION_FAREWELL_WAIT, bundle::refuse(stream, refusal)).await;
    let reason = if refusal == Refusal::Full { Reason::Full } else { Reason::Forgotten };
    Err(Refused::new(reason, format_args!("a further connection: {refusal}")))
}

/// Takes a session up. `_permit` is its first connection's.
async fn session<S: bundle::Wire>(
    node: &Arc<Node>,
    from: &Identity,
    (reader, mut writer): (bundle::Reader<S>, bundle::Writer<S>),
    _permit: Permit,
) -> Result<(), Refused> {
    let seen = writer.seen();
    let mut far = Frames::new(reader);
    let outcome = match timeout(HELLO_WAIT, read_claim(&mut far)).await {
        Ok(Ok((claim, hello))) => find(node, from, &claim, hello.ticket),
        Ok(Err(refused)) => Err(refused),
        Err(_) => {
            let why = format!("nothing was claimed within {} ms", HELLO_WAIT.as_millis());
            Err(Refused::new(Reason::Silent, why))
        }
    };
    let hosted = match outcome {
        Ok(hosted) => hosted,
        Err(refused) => {
            let told = async {
                writer.write_all(&refused.frame()).await?;
                writer.shutdown().await
            };
            // Whoever is refused may be gone already.
            let _gone = timeout(SESSION_FAREWELL_WAIT, told).await;
            return Err(refused);
        }
    };
    if hosted.session.ticket().is_some() {
        node.tally.resumed(Role::Lender);
    }
    carry(node, &hosted, far, writer, seen).await;
    Ok(())
}

/// What a peer claims, and the greeting behind it, which stays for the worker.
async fn read_claim<R: AsyncRead + Unpin>(far: &mut Frames<R>) -> Result<(Claim, Hello), Refused> {
    let silent = |what: &str| Refused::new(Reason::Silent, what);
    let gone = || silent("the peer went away before it claimed anything");
    let claim = loop {
        if !far.arrive().await? {
            return Err(gone());
        }
        let Some(seen) = far.seen(0)? else { continue };
        if seen.header.kind != Kind::Call {
            return Err(silent("the peer greets before it claims anything"));
        }
        let claim = Claim::decode(seen.payload)?;
        let bytes = seen.bytes;
        far.consume(bytes);
        break claim;
    };
    if !far.arrive().await? {
        return Err(gone());
    }
    match far.seen(0)? {
        Some(seen) if seen.header.kind == Kind::Hello => Ok((claim, Hello::decode(seen.payload)?)),
        _ => Err(silent("the peer claims something and does not greet")),
    }
}

/// The session that is claimed: a new one if the loan allows it, or one that goes on.
fn find(node: &Arc<Node>, from: &Identity, claim: &Claim, ticket: Ticket) -> Result<Arc<Hosted>, Refused> {
    if ticket.session != 0 {
        let known = node.host.lock().get(&ticket.session).cloned();
        let same = |hosted: &Arc<Hosted>| hosted.from == *from && hosted.session.ticket() == Some(ticket);
        let gone = || Refused::new(Reason::Forgotten, "no such session is hosted here any more");
        return known.filter(same).ok_or_else(gone);
    }
    let (loan, device, terms) = lent(node, from, claim)?;
    if node.host.lock().len() >= SESSIONS_MAX {
        let why = format!("{SESSIONS_MAX} sessions are hosted here already");
        return Err(Refused::new(Reason::Full, why));
    }
    let guest = Name::guest(terms.guest.district.as_str(), terms.guest.tenant.as_str())
        .ok_or_else(|| Refused::new(Reason::Loan, format_args!("{} is no guest's name", terms.guest)))?;
    let worker = Worker::start(node, guest.as_str(), device.as_str());
    let worker = worker.map_err(Refused::of(Reason::Worker))?;
    let flow = node.tally.flow(Role::Lender, from.district().as_str());
    let about = About {
        loan: loan.to_string(),
        guest: terms.guest.to_string(),
        place: format!("{}/{}/{device}", node.district(), node.setup.config.node),
        data: terms.data.word(),
    };
    Ok(Arc::new(Hosted {
        from: from.clone(),
        guest: guest.to_string(),
        session: Session::new(Role::Lender, about, flow),
        worker,
        device,
        kept: AtomicU64::new(0),
        node: Arc::downgrade(node),
        lane: AsyncMutex::new(()),
        wires: Mutex::default(),
        connections: watch::channel(0).0,
    }))
}

/// What is lent by the loan that a peer claims, if it is its own and may be used now.
fn lent(node: &Node, from: &Identity, claim: &Claim) -> Result<(LoanId, Device, GuestTerms), Refused> {
    let no_loan = |why: String| Refused::new(Reason::Loan, why);
    let loan: LoanId = claim.loan.parse().map_err(|_| no_loan(format!("`{}` is no loan", claim.loan)))?;
    let terms = node.setup.floor.guests().into_iter().find(|(device, terms)| {
        device.as_str() == claim.device
            && terms.loans.contains(&loan)
            && terms.guest.tenant.as_str() == claim.tenant
    });
    let (device, terms) = terms.ok_or_else(|| no_loan(format!("loan {loan} lends nothing here")))?;
    // Its certificate says who speaks; a loan is its node's, and a guest its district's.
    if loan.node != *from.node() || terms.guest.district != *from.district() {
        return Err(no_loan(format!("loan {loan} is not {from}'s")));
    }
    if terms.limit.sm == Share::ZERO {
        return Err(no_loan(format!("loan {loan} is being taken back")));
    }
    let leaves = from.district().as_str() != node.district();
    if leaves && !DataClass::may_leave_its_district(terms.data) {
        let why = format!("raw data of {} stays in its district", from.district());
        return Err(Refused::new(Reason::RawData, why));
    }
    Ok((loan, device, terms))
}

async fn carry<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    node: &Arc<Node>,
    hosted: &Arc<Hosted>,
    far: Frames<R>,
    mut to_far: W,
    seen: bundle::Seen,
) {
    let mut mine = 0;
    hosted.connections.send_modify(|count| {
        *count += 1;
        mine = *count;
    });
    // The one before lets go as soon as it hears of this one.
    let lane = hosted.lane.lock().await;
    *hosted.wires.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    let near = match hosted.worker.connect().await {
        Ok(near) => near,
        Err(error) => {
            let why = format!("the worker cannot be reached: {error}");
            // The other side may be gone already.
            let _gone = say(&mut to_far, Kind::Over, why.as_bytes()).await;
            return;
        }
    };
    let (near, to_near) = near.into_split();
    let owner = HostOwner { hosted, mine };
    let lane_of = Lane { near: Frames::new(near), to_near, far, to_far };
    let end = lane_of.carry(&hosted.session, &node.book, &owner).await;
    let newest = *hosted.connections.borrow() == mine;
    drop(lane);
    if end.may_resume() || !newest {
        tracing::info!(peer = %hosted.from, "the connection of a remote session broke");
        node.tally.lost(Role::Lender);
        forget_later(Arc::clone(hosted), mine);
        return;
    }
    finish(hosted, &end);
}

fn finish(hosted: &Hosted, end: &End) {
    if let (Some(node), Some(ticket)) = (hosted.node.upgrade(), hosted.session.ticket())
        && node.host.lock().remove(&ticket.session).is_some()
    {
        node.tally.ended(Role::Lender, end);
        hosted.session.ended(&node.book, &end.why());
    }
    hosted.worker.kill();
}

/// Ends a session that nobody comes back for.
fn forget_later(hosted: Arc<Hosted>, connection: u64) {
    tokio::spawn(async move {
        tokio::select! {
            () = sleep(SESSION_RESUME_WAIT) => {}
            _why = hosted.worker.ended() => {}
        }
        if *hosted.connections.borrow() == connection {
            finish(&hosted, &End::Broken);
        }
    });
}

struct HostOwner<'a> {
    hosted: &'a Arc<Hosted>,
    mine: u64,
}

impl Owner for HostOwner<'_> {
    fn allow(&self, _bytes: u64) -> Result<(), String> {
        Ok(())
    }

    fn welcomed(&self, ticket: Ticket) {
        if let Some(node) = self.hosted.node.upgrade() {
            node.tally.begun(Role::Lender);
            node.host.lock().insert(ticket.session, Arc::clone(self.hosted));
        }
    }

    fn farewell(&self, _goodbye: bool) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            let ended = timeout(SESSION_FAREWELL_WAIT, self.hosted.worker.ended()).await;
            Some(ended.unwrap_or_else(|_| "the worker let go of its session".to_owned()))
        })
    }

    fn drain(&self) -> BoxFuture<'_, Parting> {
        // The borrower's daemon says so; it comes over the connection.
        Box::pin(std::future::pending())
    }

    fn stop(&self) -> BoxFuture<'_, String> {
        let mut connections = self.hosted.connections.subscribe();
        let mut phases = self.hosted.session.phases().changes();
        let kept_too_long = async move {
            loop {
                // A phase that never ends is its session's own affair, which ends otherwise.
                if phases.wait_for(|phase| *phase == Phase::Aside).await.is_err() {
                    return std::future::pending().await;
                }
                if timeout(SESSION_ASIDE_MAX, phases.wait_for(|phase| *phase != Phase::Aside)).await.is_err()
                {
                    return;
                }
            }
        };
        Box::pin(async move {
            tokio::select! {
                newer = connections.wait_for(|count| *count != self.mine) => {
                    let shut = newer.is_err();
                    if shut { "the daemon is shutting down" } else { "the session goes on over another connection" }.to_owned()
                }
                () = kept_too_long => {
                    format!("what it had on the device was kept for {} s", SESSION_ASIDE_MAX.as_secs())
                }
            }
        })
    }

    fn may_put_aside(&self) -> Result<(), String> {
        let hosted = self.hosted;
        let ending = || "the daemon is shutting down".to_owned();
        let node = hosted.node.upgrade().ok_or_else(ending)?;
        let most = node.setup.config.loans.as_ref().map_or(0, |loans| loans.set_aside.0);
        // All of the guest's, though this session may have a part of it only.
        let bytes = node.setup.floor.guest_bytes(&hosted.guest);
        let others = node.host.lock();
        let kept = others.values().filter(|other| !Arc::ptr_eq(other, hosted));
        let kept: u64 = kept.map(|other| other.kept.load(Relaxed)).sum();
        if most.saturating_sub(kept) < bytes {
            return Err(format!(
                "{bytes} bytes of guest {} and {kept} of others are more than `setAside: {most}`",
                hosted.guest
            ));
        }
        hosted.kept.store(bytes, Relaxed);
        Ok(())
    }

    fn put_aside(&self) {
        if let Some(node) = self.hosted.node.upgrade() {
            node.tally.aside(Role::Lender);
        }
    }

    fn next_loan(&self) -> BoxFuture<'_, Claim> {
        // The borrower's daemon has it first.
        Box::pin(std::future::pending())
    }

    fn claim(&self) -> Claim {
        Claim::default()
    }

    fn may_return(&self, claim: &Claim) -> Result<(), String> {
        let hosted = self.hosted;
        let node = hosted.node.upgrade().ok_or_else(|| "the daemon is shutting down".to_owned())?;
        let (_, device, terms) = lent(&node, &hosted.from, claim).map_err(|refused| refused.why)?;
        let guest = Name::guest(terms.guest.district.as_str(), terms.guest.tenant.as_str());
        if device != hosted.device || guest.is_none_or(|guest| guest.as_str() != hosted.guest) {
            return Err(format!("loan {} lends another device, or to another tenant", claim.loan));
        }
        Ok(())
    }

    fn returned(&self) {
        self.hosted.kept.store(0, Relaxed);
        if let Some(node) = self.hosted.node.upgrade() {
            node.tally.returned(Role::Lender);
        }
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        // Its worker's connection tells.
        Box::pin(std::future::pending())
    }
}
