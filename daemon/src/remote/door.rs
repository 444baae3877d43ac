//! The borrower's side: programs of this node's tenants that want a device somewhere else.
//!
//! ```text
//! connect --> who is it (kernel) --> which loan (waits for one) --> dial the lender --> claim, and carry
//!                  |                                                      ^
//!                  '-- this node's own device: a worker of its own        '-- after a break, the same session again
//! ```

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use headgate_ebpf::RuleMode;
use headgate_loans::desk::DeskHandle;
use headgate_loans::peer::Dialled;
use headgate_loans::tls::Purpose;
use headgate_quota::loan::{Allowance, DataClass, LoanId, Node as LoanNode, Place, Tenant as LoanTenant};
use headgate_remote::limits::UNSENT_FURTHER_BYTES_MAX;
use headgate_remote::wire::frame::{HEADER_BYTES, Header, Hello, Kind, Ticket};
use headgate_remote::wire::{Claim, Wish};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Node;
use super::book::About;
use super::budget::Grant;
use super::bundle;
use super::carry::{End, Lane, Owner, Role, Session};
use super::frames::{Frames, say};
use super::phase::{Parting, Phase};
use super::program;
use super::tally::{Reason, Refused};
use super::view::SessionView;
use super::worker::Worker;
use crate::clock;
use crate::config::loans::BorrowedPrograms;
use crate::config::model::Tenant;
use crate::control::listener::Socket;
use crate::identity::peer::{self, Held};
use crate::limits::{
    HELLO_WAIT, SESSION_FAREWELL_WAIT, SESSION_LOAN_WAIT, SESSION_RESUME_WAIT, SESSIONS_MAX,
    SESSIONS_PER_TENANT_MAX,
};
use crate::loans::{Using, Wanting};

/// Sessions that began here, by their name.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<HashMap<u64, Arc<Away>>>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Away>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to see of them.
    pub(super) fn views(&self) -> Vec<SessionView> {
        let view = |away: &Arc<Away>| {
            let peer = away.place.node.to_string();
            let program = away.program.lock().unwrap_or_else(PoisonError::into_inner);
            SessionView {
                rings: program.over_rings(),
                connections: away.wires.lock().unwrap_or_else(PoisonError::into_inner).connections(),
                ..SessionView::of(Role::Borrower, &away.tenant, &peer, &away.session)
            }
        };
        self.lock().values().map(view).collect()
    }
}

/// A session whose device is elsewhere.
#[derive(Debug)]
struct Away {
    tenant: String,
    borrows: LoanTenant,
    place: Place,
    session: Session,
    grants: Vec<Grant>,
    /// How long it waits for another loan.
    patience: Duration,
    node: std::sync::Weak<Node>,
    /// The program's newest connection.
    program: Mutex<program::Seen>,
    /// The newest to the lender.
    wires: Mutex<bundle::Seen>,
    /// Counts connections, so that a session that was taken up again is not forgotten.
    connections: Mutex<u64>,
    standing: Mutex<Standing>,
    _wanting: Wanting,
}

/// What a session stands on.
#[derive(Debug)]
struct Standing {
    loan: LoanId,
    /// Counts for the loan; `None` while what was on the device is aside.
    using: Option<Using>,
    /// Since when that is so.
    aside_since: Option<Instant>,
}

impl Away {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self) -> Claim {
        Claim {
            loan: self.standing().loan.to_string(),
            tenant: self.tenant.clone(),
            device: self.place.device.to_string(),
        }
    }
}

/// Accepts for as long as the task lives.
pub(super) async fn listen(node: Arc<Node>, socket: Socket) {
    loop {
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot accept programs that want a device elsewhere");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            if let Err(Refused { reason, why, .. }) = visit(&node, stream).await {
                node.tally.refused(Role::Borrower, reason);
                tracing::info!(why, "a program got no device elsewhere");
            }
        });
    }
}

async fn visit(node: &Arc<Node>, mut stream: UnixStream) -> Result<(), Refused> {
    let late = |what| {
        move |_| Refused::new(Reason::Silent, format_args!("{what} within {} ms", HELLO_WAIT.as_millis()))
    };
    let known = timeout(HELLO_WAIT, introduce(node, &mut stream)).await;
    let (held, tenant, wish) = match known.map_err(late("nothing was asked for")).flatten() {
        Ok(known) => known,
        Err(refused) => return refuse(stream, refused).await,
    };
    if wish.lender == node.district() {
        return at_home(node, &tenant, stream).await;
    }
    let (reader, mut to_near) = program::halves(stream);
    let mut near = Frames::new(reader);
    let greeted = timeout(HELLO_WAIT, greeting(&mut near)).await.map_err(late("no greeting")).flatten();
    let away = match greeted {
        Ok(hello) => find(node, &tenant, &wish, hello.ticket).await,
        Err(refused) => Err(refused),
    };
    let away = match away {
        Ok(away) => away,
        Err(refused) => return refuse(to_near, refused).await,
    };
    if near.take_wish() {
        to_near.offer();
    }
    *away.program.lock().unwrap_or_else(PoisonError::into_inner) = to_near.seen();
    let to = &away.place.node;
    let unreachable = |error| Refused::new(Reason::Unreachable, format_args!("{to}: {error}"));
    let desk = node.setup.desk.as_ref();
    let desk = desk.ok_or_else(|| Refused::new(Reason::Loan, "this node has no loans"))?;
    // What cannot be reached now may be in a moment: the program comes again, for as long as sessions are kept.
    let (far, mut to_far) = dial(node, desk, to).await.map_err(|error| unreachable(error.to_string()))?;
    *away.wires.lock().unwrap_or_else(PoisonError::into_inner) = to_far.seen();
    say(&mut to_far, Kind::Call, &away.claim().encode())
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    if away.session.ticket().is_some() {
        node.tally.resumed(Role::Borrower);
    }
    let connection = {
        let mut connections = away.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *connections += 1;
        *connections
    };
    let lane = Lane { near, to_near, far: Frames::new(far), to_far };
    let owner = AwayOwner { away: &away, program: &held };
    let end = lane.carry(&away.session, &node.book, &owner).await;
    settle(node, away, connection, &end);
    Ok(())
}

/// A connection to a lender's daemon, or the first of several where both ends know how.
async fn dial(
    node: &Node,
    desk: &DeskHandle,
    to: &LoanNode,
) -> io::Result<(bundle::Reader<Dialled>, bundle::Writer<Dialled>)> {
    let most = node.connections();
    let purpose = if 1 < most { Purpose::Bundled } else { Purpose::Session };
    let far = desk.dial(to, purpose).await?;
    super::watch_over(far.get_ref().0);
    if Purpose::of(far.get_ref().1.alpn_protocol()) != Purpose::Bundled {
        return Ok(bundle::plain(far));
    }
    let (far, to_far) = bundle::dialled(far, most);
    let (desk, to) = (desk.clone(), to.clone());
    to_far.grow(move || {
        let (desk, to) = (desk.clone(), to.clone());
        Box::pin(async move {
            let further = desk.dial(&to, Purpose::Bundled).await?;
            if Purpose::of(further.get_ref().1.alpn_protocol()) != Purpose::Bundled {
                return Err(io::Error::other(format!("{to} knows no further connections any more")));
            }
            super::watch_over(further.get_ref().0);
            headgate_loans::peer::tune_further(further.get_ref().0, UNSENT_FURTHER_BYTES_MAX)?;
            Ok(further)
        })
    });
    Ok((far, to_far))
}

/// Who it is, and what it wants. Only the call is read: the greeting behind it is not for this daemon.
async fn introduce(node: &Node, stream: &mut UnixStream) -> Result<(Held, Arc<Tenant>, Wish), Refused> {
    let held = peer::hold(stream.as_fd()).map_err(Refused::of(Reason::Tenant))?;
    let facts = peer::facts(&held, node.setup.trees.load(Acquire)).map_err(Refused::of(Reason::Tenant))?;
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await.map_err(Refused::of(Reason::Silent))?;
    let header = Header::decode(&head)?;
    if header.kind != Kind::Call {
        return Err(Refused::new(Reason::Silent, "this is a daemon's socket; name it daemon:PATH"));
    }
    let mut payload = vec![0; header.bytes.min(crate::limits::SESSION_READ_BYTES)];
    stream.read_exact(&mut payload).await.map_err(Refused::of(Reason::Silent))?;
    let wish = Wish::decode(&payload)?;
    let tenant = node.who(facts).await.map_err(Refused::of(Reason::Tenant))?;
    Ok((held, tenant, wish))
}

async fn greeting<R: tokio::io::AsyncRead + Unpin>(near: &mut Frames<R>) -> Result<Hello, Refused> {
    let arrived = near.arrive().await?;
    let seen = near.seen(0)?.filter(|_| arrived);
    match seen {
        Some(seen) if seen.header.kind == Kind::Hello => Ok(Hello::decode(seen.payload)?),
        _ => Err(Refused::new(Reason::Silent, "the program does not greet")),
    }
}

async fn refuse<W: AsyncWrite + Unpin>(mut to_near: W, refused: Refused) -> Result<(), Refused> {
    let frame = refused.frame();
    let told = to_near.write_all(&frame);
    // Whoever is refused may be gone already.
    let _gone = timeout(SESSION_FAREWELL_WAIT, told).await;
    Err(refused)
}

/// A worker on this node, in the program's own tenant: daemon and lender are one, and nothing leaves the node.
async fn at_home(node: &Arc<Node>, tenant: &Tenant, stream: UnixStream) -> Result<(), Refused> {
    let kept = stream.into_std().and_then(|stream| {
        stream.set_nonblocking(false)?;
        Ok(OwnedFd::from(stream))
    });
    let stream = kept.map_err(Refused::of(Reason::Silent))?;
    let worker = Worker::start_on(node, tenant.name.as_str(), stream).map_err(Refused::of(Reason::Worker))?;
    // It ends with its program; until then it is this task's.
    let why = worker.ended().await;
    tracing::debug!(tenant = %tenant.name, why, "a session on this node's own device ended");
    Ok(())
}

/// The session that is asked for: a new one under a loan, or one that goes on.
async fn find(
    node: &Arc<Node>,
    tenant: &Arc<Tenant>,
    wish: &Wish,
    ticket: Ticket,
) -> Result<Arc<Away>, Refused> {
    if ticket.session != 0 {
        let known = node.door.lock().get(&ticket.session).cloned();
        let same =
            |away: &Arc<Away>| away.tenant == tenant.name.as_str() && away.session.ticket() == Some(ticket);
        return known.filter(same).ok_or_else(|| Refused::new(Reason::Forgotten, "this session is over"));
    }
    let refused = |reason, why: &str| Refused::new(reason, format_args!("tenant `{}` {why}", tenant.name));
    let own = LoanTenant::new(tenant.name.as_str())
        .ok_or_else(|| refused(Reason::Tenant, "cannot borrow: its name is too long for a loan"))?;
    let Some(borrow) = tenant.borrow else {
        let why = "borrows nothing; give it `borrow`, or name this node's own district as the lender";
        return Err(refused(Reason::Tenant, why));
    };
    let uses = node.setup.floor.uses();
    if uses.wanting(&own) >= SESSIONS_PER_TENANT_MAX || node.door.lock().len() >= SESSIONS_MAX {
        return Err(refused(Reason::Full, "has as many sessions as it may have"));
    }
    let wanting = uses.want(own.clone());
    let (allowance, using) = loan(node, &own, wish).await?;
    let district = allowance.place.district.as_str();
    let leaves = district != node.district();
    if leaves && !DataClass::may_leave_its_district(borrow.data) {
        let why = format!("raw data of tenant `{}` stays in its district", tenant.name);
        return Err(Refused::new(Reason::RawData, why));
    }
    let grants = grants(tenant, district, leaves).map_err(Refused::of(Reason::Budget))?;
    let flow = node.tally.flow(Role::Borrower, district);
    let about = About {
        loan: allowance.loan.to_string(),
        guest: format!("{}/{}", node.district(), tenant.name),
        place: format!(
            "{district}/{}/{}",
            allowance.place.node.as_str().split_once('.').map_or("", |(_, name)| name),
            allowance.place.device
        ),
        data: borrow.data.word(),
    };
    Ok(Arc::new(Away {
        tenant: tenant.name.to_string(),
        borrows: own,
        place: allowance.place,
        session: Session::new(Role::Borrower, about, flow),
        grants,
        patience: borrow.patience,
        node: Arc::downgrade(node),
        program: Mutex::default(),
        wires: Mutex::default(),
        connections: Mutex::new(0),
        standing: Mutex::new(Standing { loan: allowance.loan, using: Some(using), aside_since: None }),
        _wanting: wanting,
    }))
}

/// The district where a tenant's next program starts, if its policy says so and a loan is there to be used.
pub(super) fn next(node: &Node, tenant: &Tenant) -> Option<String> {
    let borrow = tenant.borrow.filter(|borrow| borrow.programs == BorrowedPrograms::Next)?;
    let own = LoanTenant::new(tenant.name.as_str())?;
    let uses = node.setup.floor.uses();
    if uses.wanting(&own) >= SESSIONS_PER_TENANT_MAX {
        return None;
    }
    let usable = |held: &Allowance| {
        let district = held.place.district.as_str();
        held.tenant == own
            && !uses.is_draining(&held.loan)
            && (district == node.district() || DataClass::may_leave_its_district(borrow.data))
    };
    node.setup.floor.allowed().into_iter().find(usable).map(|held| held.place.district.as_str().to_owned())
}

/// A loan for a tenant; waits for one to be granted.
async fn loan(node: &Node, tenant: &LoanTenant, wish: &Wish) -> Result<(Allowance, Using), Refused> {
    let uses = node.setup.floor.uses();
    let mut changes = uses.changes();
    let until = Instant::now() + SESSION_LOAN_WAIT;
    loop {
        changes.mark_unchanged();
        let fits = |held: &Allowance| {
            held.tenant == *tenant && (wish.lender.is_empty() || held.place.district.as_str() == wish.lender)
        };
        for held in node.setup.floor.allowed().into_iter().filter(fits) {
            if let Some(using) = uses.under(held.loan.clone()) {
                return Ok((held, using));
            }
        }
        if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
            let within = SESSION_LOAN_WAIT.as_secs();
            let why = format!(
                "no loan for tenant `{tenant}` came within {within} s; `headgate loans why {tenant}` says why"
            );
            return Err(Refused::new(Reason::Loan, why));
        }
    }
}

/// What may leave for a district: the loan's budget, and where the kernel holds the tenant's own traffic, that one too.
fn grants(tenant: &Tenant, district: &str, leaves: bool) -> Result<Vec<Grant>, String> {
    let mut grants = Vec::new();
    if !leaves {
        return Ok(grants);
    }
    if let Some(budget) = tenant.borrow.and_then(|borrow| borrow.budget) {
        grants.push(Grant { bytes: budget.bytes.0, every: budget.every });
    }
    if tenant.residency.mode == RuleMode::Enforce {
        let budget = tenant.residency.budgets.iter().find(|budget| budget.district.as_str() == district);
        let budget = budget.ok_or_else(|| {
            format!("the residency of tenant `{}` has no budget for district {district}", tenant.name)
        })?;
        grants.push(Grant { bytes: budget.bytes.0, every: budget.every });
    }
    Ok(grants)
}

fn settle(node: &Arc<Node>, away: Arc<Away>, connection: u64, end: &End) {
    if end.may_resume() && away.session.ticket().is_some() {
        tracing::info!(tenant = away.tenant, "the connection of a remote session broke");
        node.tally.lost(Role::Borrower);
        let node = Arc::clone(node);
        tokio::spawn(async move {
            sleep(SESSION_RESUME_WAIT).await;
            let newest = *away.connections.lock().unwrap_or_else(PoisonError::into_inner);
            if newest == connection {
                finish(&node, &away, &End::Broken);
            }
        });
        return;
    }
    finish(node, &away, end);
}

fn finish(node: &Node, away: &Away, end: &End) {
    if let Some(ticket) = away.session.ticket()
        && node.door.lock().remove(&ticket.session).is_some()
    {
        node.tally.ended(Role::Borrower, end);
        away.session.ended(&node.book, &end.why());
    }
}

/// What this node says to one connection of a session.
struct AwayOwner<'a> {
    away: &'a Arc<Away>,
    /// Who connected.
    program: &'a Held,
}

impl AwayOwner<'_> {
    /// Waits until something holds of the loan it stands on; looks whenever loans change.
    async fn when(&self, holds: impl Fn(&Node, &LoanId) -> bool) {
        let Some(node) = self.away.node.upgrade() else { return };
        let mut changes = node.setup.floor.uses().changes();
        loop {
            let loan = self.away.standing().loan.clone();
            if holds(&node, &loan) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until there is a loan of the device that it left.
    async fn lent_again(&self) -> Claim {
        let Some(node) = self.away.node.upgrade() else { return std::future::pending().await };
        let uses = node.setup.floor.uses();
        let mut changes = uses.changes();
        loop {
            changes.mark_unchanged();
            // The loan that it left may still be known for a moment after its last session has let go of it.
            let left = self.away.standing().loan.clone();
            let fits = |held: &Allowance| {
                held.tenant == self.away.borrows && held.place == self.away.place && held.loan != left
            };
            for held in node.setup.floor.allowed().into_iter().filter(fits) {
                let Some(using) = uses.under(held.loan.clone()) else { continue };
                *self.away.standing() = Standing { loan: held.loan, using: Some(using), aside_since: None };
                return self.away.claim();
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Owner for AwayOwner<'_> {
    fn allow(&self, bytes: u64) -> Result<(), String> {
        let away = self.away;
        let Some(node) = away.node.upgrade() else { return Err("the daemon is shutting down".to_owned()) };
        let district = away.place.district.to_string();
        for (index, grant) in away.grants.iter().enumerate() {
            // One account for each rule.
            let whose = (format!("{}#{index}", away.tenant), district.clone());
            if !node.budgets.take(&whose, *grant, clock::since_boot(), bytes) {
                return Err(format!(
                    "tenant `{}` has used its budget of {} bytes in {:?} for district {district}",
                    away.tenant, grant.bytes, grant.every
                ));
            }
        }
        Ok(())
    }

    fn welcomed(&self, ticket: Ticket) {
        if let Some(node) = self.away.node.upgrade() {
            node.tally.begun(Role::Borrower);
            node.door.lock().insert(ticket.session, Arc::clone(self.away));
        }
    }

    fn farewell(&self, goodbye: bool) -> BoxFuture<'_, Option<String>> {
        // A program that said goodbye has told its worker; one that was killed has told nobody.
        let last = (!goodbye).then(|| "the program is gone".to_owned());
        Box::pin(async move { last })
    }

    fn drain(&self) -> BoxFuture<'_, Parting> {
        let parting = if self.away.patience.is_zero() { Parting::End } else { Parting::Aside };
        Box::pin(async move {
            self.when(|node, loan| node.setup.floor.uses().is_draining(loan)).await;
            parting
        })
    }

    fn stop(&self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let mut phases = self.away.session.phases().changes();
            loop {
                let aside = *phases.borrow_and_update() == Phase::Aside;
                let since = self.away.standing().aside_since.filter(|_| aside);
                let over = async {
                    let Some(since) = since else {
                        self.when(|node, loan| {
                            node.setup.floor.allowed().iter().all(|held| held.loan != *loan)
                        })
                        .await;
                        return "the loan is over".to_owned();
                    };
                    sleep_until(since + self.away.patience).await;
                    let (place, within) = (&self.away.place.node, self.away.patience.as_secs());
                    format!("{place} took its device back and lent it to nobody here again within {within} s")
                };
                tokio::select! {
                    // What holds in one phase says nothing of the next.
                    biased;
                    changed = phases.changed() => if changed.is_err() {
                        return "the daemon is shutting down".to_owned();
                    },
                    why = over => return why,
                }
            }
        })
    }

    fn may_put_aside(&self) -> Result<(), String> {
        Err("the device is not here".to_owned())
    }

    fn put_aside(&self) {
        let using = {
            let mut standing = self.away.standing();
            standing.aside_since = Some(Instant::now());
            standing.using.take()
        };
        // The last one under the loan gives it back.
        drop(using);
        if let Some(node) = self.away.node.upgrade() {
            node.tally.aside(Role::Borrower);
        }
        tracing::info!(tenant = self.away.tenant, "a device was taken back; its program waits for it");
    }

    fn next_loan(&self) -> BoxFuture<'_, Claim> {
        Box::pin(self.lent_again())
    }

    fn claim(&self) -> Claim {
        self.away.claim()
    }

    fn may_return(&self, _claim: &Claim) -> Result<(), String> {
        Err("the device is not here".to_owned())
    }

    fn returned(&self) {
        if let Some(node) = self.away.node.upgrade() {
            node.tally.returned(Role::Borrower);
        }
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let ended = crate::sys::readable(self.program.pidfd.as_fd());
            match ended {
                // Only its end makes it readable.
                Ok(ended) => drop(ended.readable().await),
                Err(error) => {
                    tracing::debug!(%error, "the end of a program whose device was taken back may be noticed late");
                    std::future::pending().await
                }
            }
        })
    }
}
