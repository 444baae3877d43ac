//! The process's seat with the daemon.
//!
//! ```text
//!            first cuInit, or first metered call
//!   NONE ------------------------------------------> SEATED <---+
//!     ^  \                                              |       | heartbeat stale and a daemon answers again
//!     |   \--- refused, or nobody answers ---> REFUSED  +-------+
//!     |                                           |
//!     +---- fork (child) ----+--- next cuInit ----+
//! ```
//!
//! A process that gets no seat gets no GPU: it would otherwise be unlimited. One that has a seat keeps it when
//! the daemon dies: limits stay as last known, frees always work, and gates open or stay by the tenant's
//! policy. Sessions are never unmapped: another thread may be reading one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};

use headgate_abi::cuda::CUresult;
use headgate_abi::limits::{DEVICES_MAX, FRAME_BYTES_MAX, HEARTBEAT_STALE_US, SESSION_WAIT_MS_MAX};
use headgate_abi::segment::layout::{DeviceLimits, Seat, UNLIMITED};
use headgate_abi::segment::map::{LedgerSegment, LimitsSegment};
use headgate_abi::segment::{Ledger, SeatIndex};
use headgate_abi::wire::{Answer, Frame, Hello, RefusalReason};

use crate::config::config;
use crate::{driver, ledger, log, sys};

/// How often a process whose daemon is gone tries to reach another.
const RECONNECT_PERIOD_US: u64 = 100_000;
/// How long such a try may take: the program is in the middle of a call.
const RECONNECT_WAIT_MS: u64 = 20;

/// A seat and what came with it.
#[derive(Debug)]
pub(crate) struct Session {
    limits: LimitsSegment,
    ledger: Ledger,
    seat: SeatIndex,
    generation: u64,
    off: bool,
    /// For each CUDA device of this process, its row in both segments plus one; zero while not looked up.
    /// Looked up one by one: a session may begin before CUDA does, for a program that asks NVML first.
    rows: [AtomicU8; DEVICES_MAX],
    /// Open for as long as the session stands.
    _socket: OwnedFd,
    /// Open so that a daemon without privileges can find the ledger again after a restart.
    _ledger_file: OwnedFd,
}

fn is_old(beat_us: u64) -> bool {
    HEARTBEAT_STALE_US < sys::now_coarse_us().saturating_sub(beat_us)
}

static SESSION: AtomicPtr<Session> = AtomicPtr::new(std::ptr::null_mut());
/// Status given to calls that need a seat while there is none; zero when none was asked for yet.
static REFUSED: AtomicU32 = AtomicU32::new(0);
/// Changes whenever what threads have cached about the session may be wrong.
static EPOCH: AtomicU64 = AtomicU64::new(1);
static ATTACHING: AtomicBool = AtomicBool::new(false);
static LAST_ATTEMPT_US: AtomicU64 = AtomicU64::new(0);

impl Session {
    /// The tenant's limits on a device row.
    pub(crate) fn limits(&self, row: usize) -> &DeviceLimits {
        self.limits.device(row)
    }

    /// What a stale heartbeat means for gates.
    pub(crate) fn fail_policy(&self) -> u32 {
        self.limits.header().fail_policy.load(Acquire)
    }

    /// Most bytes the tenant may have on a device row, [`UNLIMITED`] for no limit.
    pub(crate) fn memory_limit(&self, row: usize) -> u64 {
        self.limits(row).memory_bytes_max.load(Acquire)
    }

    /// Bytes the tenant has charged on a device row.
    pub(crate) fn used_bytes(&self, row: usize) -> u64 {
        self.ledger.used_bytes(row)
    }

    /// Tells the daemon that this process, which had no work on a device, has some. A system call only while the
    /// daemon sleeps: it says so first and then compares the word, so that neither can miss the other.
    pub(crate) fn ring(&self, row: usize) {
        let bell = self.ledger.bell();
        bell.fetch_add(1, SeqCst);
        if self.limits(row).bell_wanted.load(SeqCst) != 0 {
            sys::futex_wake_all(bell);
        }
    }

    /// This process has opened a gate that the daemon, which is silent, would have had to open.
    pub(crate) fn count_open(&self) {
        self.ledger.failed_open().fetch_add(1, Relaxed);
    }

    /// The tenant's ledger.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// This process's seat.
    pub(crate) fn seat(&self) -> &Seat {
        self.ledger.seat(self.seat)
    }

    /// Its index.
    pub(crate) fn seat_index(&self) -> SeatIndex {
        self.seat
    }

    /// Which taking of the seat it is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether enforcement is off for the tenant.
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// The row of a CUDA device, `None` when the daemon does not know the device.
    #[inline]
    pub(crate) fn row(&self, device: i32) -> Option<usize> {
        let known = self.rows.get(usize::try_from(device).ok()?)?;
        match known.load(Relaxed) {
            0 => self.look_up_row(device, known),
            row => Some(usize::from(row) - 1),
        }
    }

    #[cold]
    fn look_up_row(&self, device: i32, known: &AtomicU8) -> Option<usize> {
        let row = self.row_by_uuid(&driver::device_uuid(device)?)?;
        known.store(u8::try_from(row + 1).unwrap_or(0), Relaxed);
        Some(row)
    }

    /// The row of a device by UUID.
    pub(crate) fn row_by_uuid(&self, uuid: &[u8; 16]) -> Option<usize> {
        row_by_uuid(&self.limits, uuid)
    }

    /// Whether the daemon of this session has shown no sign of life for too long.
    pub(crate) fn stale(&self) -> bool {
        is_old(self.limits.header().heartbeat_us.load(Acquire))
    }

    /// Whether no daemon at all minds this process's gates: its own is silent, and no other has adopted the ledger.
    pub(crate) fn abandoned(&self) -> bool {
        self.stale() && is_old(self.ledger.heartbeat().load(Acquire))
    }
}

/// The session, if the process has a seat.
#[inline]
pub(crate) fn seated() -> Option<&'static Session> {
    let session = SESSION.load(Acquire);
    as_ref(session)
}

#[expect(unsafe_code, reason = "sessions are leaked on purpose, so a loaded pointer stays valid for good")]
fn as_ref(session: *mut Session) -> Option<&'static Session> {
    // SAFETY: null, or a session leaked by `attach` and never freed.
    unsafe { session.as_ref() }
}

/// Changes whenever cached facts about the session, its lanes or its gates may be wrong.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// Makes every thread look again.
pub(crate) fn invalidate() {
    EPOCH.fetch_add(1, AcqRel);
}

/// The session, asking the daemon for a seat if there is none. `Err` is the status for the call.
pub(crate) fn require() -> Result<&'static Session, CUresult> {
    match (seated(), REFUSED.load(Acquire)) {
        (None, 0) => attach(None, SESSION_WAIT_MS_MAX).map_err(|unseated| {
            // A program that has not started CUDA has nothing to be refused yet, and hears what the driver says to that.
            if driver::initialised() { unseated.stand() } else { CUresult::ERROR_NOT_INITIALIZED }
        }),
        (None, status) => Err(CUresult(status)),
        (Some(session), _) => Ok(current(session)),
    }
}

/// As [`require`], for a program that is starting CUDA: asks again after a refusal, and leaves it to the caller whether a
/// new one stands.
pub(crate) fn seek() -> Result<&'static Session, Unseated> {
    REFUSED.store(0, Release);
    match seated() {
        Some(session) => Ok(current(session)),
        None => attach(None, SESSION_WAIT_MS_MAX),
    }
}

fn current(session: &'static Session) -> &'static Session {
    if session.stale() { renew(session) } else { session }
}

/// Tries to find a new daemon behind the socket, at a bounded rate; keeps the old session otherwise.
#[cold]
fn renew(old: &'static Session) -> &'static Session {
    let now = sys::now_coarse_us();
    let last = LAST_ATTEMPT_US.load(Acquire);
    if now.saturating_sub(last) < RECONNECT_PERIOD_US
        || LAST_ATTEMPT_US.compare_exchange(last, now, AcqRel, Acquire).is_err()
    {
        return old;
    }
    attach(Some(old), RECONNECT_WAIT_MS).unwrap_or(old)
}

#[cold]
fn attach(old: Option<&'static Session>, wait_ms: u64) -> Result<&'static Session, Unseated> {
    crate::boundary::quiet_panics();
    // The driver is asked before anything is claimed: nothing of ours is held across a driver call.
    let devices: Vec<[u8; 16]> = (0..driver::device_count())
        .take(DEVICES_MAX)
        .map(|device| driver::device_uuid(device).unwrap_or_default())
        .collect();
    let driver_version = driver::driver_version();
    if ATTACHING.compare_exchange(false, true, AcqRel, Acquire).is_err() {
        return wait_for_other_thread(wait_ms);
    }
    let outcome = if let (None, Some(session)) = (old, seated()) {
        Ok(session)
    } else {
        ask(old, devices, driver_version, wait_ms)
    };
    ATTACHING.store(false, Release);
    outcome.map_err(|why| Unseated { status: why.status(), why: Some(why) })
}

/// Another thread is asking: its answer is ours.
fn wait_for_other_thread(wait_ms: u64) -> Result<&'static Session, Unseated> {
    const STEP_US: u64 = 200;
    for _ in 0..(wait_ms * 1_000 / STEP_US) {
        if let Some(session) = seated() {
            return Ok(session);
        }
        if !ATTACHING.load(Acquire) {
            break;
        }
        sys::sleep_us(STEP_US);
    }
    seated().ok_or_else(|| {
        let status = match REFUSED.load(Acquire) {
            0 => CUresult::ERROR_SYSTEM_NOT_READY,
            status => CUresult(status),
        };
        Unseated { status, why: None }
    })
}

/// There was no seat to be had. Whoever asked decides whether the program hears of it.
#[derive(Debug)]
pub(crate) struct Unseated {
    status: CUresult,
    /// `None` when another thread asked, which says it.
    why: Option<NoSeat>,
}

impl Unseated {
    /// The status for the call. From now on every call that needs a seat answers so, and the log says why, once.
    #[cold]
    pub(crate) fn stand(self) -> CUresult {
        if let Some(why) = self.why {
            REFUSED.store(self.status.0, Release);
            log::notice(format_args!("{why}"));
        }
        self.status
    }
}

/// Why there is no seat.
#[derive(Debug)]
enum NoSeat {
    /// Nobody answers at the socket.
    Unreachable(io::Error),
    /// The daemon answered with something else than an answer.
    Garbled(String),
    /// The daemon said no.
    Refused(RefusalReason, String),
}

impl NoSeat {
    /// "System not yet initialised" is documented as "a daemon must be running": programs print it. A refusal
    /// by the daemon is a matter of permission.
    fn status(&self) -> CUresult {
        match self {
            Self::Unreachable(_) | Self::Garbled(_) => CUresult::ERROR_SYSTEM_NOT_READY,
            Self::Refused(..) => CUresult::ERROR_NOT_PERMITTED,
        }
    }
}

impl std::fmt::Display for NoSeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let socket = String::from_utf8_lossy(&config().socket);
        match self {
            Self::Unreachable(error) => write!(
                f,
                "no daemon answers at {socket} ({error}), so this process gets no GPU; \
                 start `headgate daemon`, or point HEADGATE_SOCKET at its socket"
            ),
            Self::Garbled(what) => write!(f, "the daemon at {socket} answered garbage ({what})"),
            Self::Refused(reason, text) => {
                write!(f, "the daemon refused this process a GPU ({reason}): {text}")
            }
        }
    }
}

fn ask(
    old: Option<&'static Session>,
    devices: Vec<[u8; 16]>,
    driver_version: i32,
    wait_ms: u64,
) -> Result<&'static Session, NoSeat> {
    let socket = sys::connect(&config().socket, wait_ms).map_err(NoSeat::Unreachable)?;
    let (text_start, text_end) = crate::exports::text_range();
    let hello = Hello {
        driver_version,
        text_start,
        text_end,
        seat: old.map(|session| (session.seat, session.generation)),
        devices,
    };
    sys::send(socket.as_fd(), &hello.encode()).map_err(NoSeat::Unreachable)?;
    let (answer, descriptors) = receive(&socket)?;
    let welcome = match answer {
        Answer::Welcome(welcome) => welcome,
        Answer::Refused { reason, text } => return Err(NoSeat::Refused(reason, text)),
    };
    let [limits, ledger_file] = <[OwnedFd; sys::WELCOME_DESCRIPTORS]>::try_from(descriptors)
        .map_err(|got| NoSeat::Garbled(format!("{} descriptors instead of two", got.len())))?;
    let limits = LimitsSegment::open(limits.as_fd()).map_err(|error| NoSeat::Garbled(error.to_string()))?;
    let ledger =
        LedgerSegment::open(ledger_file.as_fd()).map_err(|error| NoSeat::Garbled(error.to_string()))?;
    let session: &'static Session = Box::leak(Box::new(Session {
        limits,
        ledger: Ledger::new(ledger),
        seat: welcome.seat,
        generation: welcome.generation,
        off: welcome.off,
        rows: [const { AtomicU8::new(0) }; DEVICES_MAX],
        _socket: socket,
        _ledger_file: ledger_file,
    }));
    if welcome.fresh {
        ledger::charge_again(session);
    }
    SESSION.store(std::ptr::from_ref(session).cast_mut(), Release);
    crate::rung::tell(session);
    crate::ahead::tell(session);
    if let Some(old) = old.filter(|_| welcome.fresh) {
        crate::green::tell(old, session);
    }
    invalidate();
    sys::after_fork_in_child(forked);
    log::event(format_args!("seat {} of tenant {}", welcome.seat.get(), welcome.tenant_name));
    Ok(session)
}

fn receive(socket: &OwnedFd) -> Result<(Answer, Vec<OwnedFd>), NoSeat> {
    let mut bytes = vec![0u8; FRAME_BYTES_MAX];
    let mut filled = 0;
    let mut descriptors = Vec::new();
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        let count = sys::receive(socket.as_fd(), room, &mut descriptors).map_err(NoSeat::Unreachable)?;
        if count == 0 {
            return Err(NoSeat::Garbled("it closed the connection before answering".into()));
        }
        filled += count;
        match Frame::parse(&bytes[..filled]).map_err(|error| NoSeat::Garbled(error.to_string()))? {
            Some((frame, _)) => {
                let answer = Answer::decode(frame).map_err(|error| NoSeat::Garbled(error.to_string()))?;
                return Ok((answer, descriptors));
            }
            None if filled == bytes.len() => return Err(NoSeat::Garbled("an endless frame".into())),
            None => {}
        }
    }
}

fn row_by_uuid(limits: &LimitsSegment, uuid: &[u8; 16]) -> Option<usize> {
    let (low, high) = uuid.split_at(8);
    let half = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
    let wanted = [half(low), half(high)];
    (wanted != [0, 0]).then_some(())?;
    (0..DEVICES_MAX).find(|&row| {
        let device = limits.device(row);
        [device.uuid[0].load(Acquire), device.uuid[1].load(Acquire)] == wanted
    })
}

/// The child of a fork has no seat, no context and no allocations: CUDA does not survive a fork.
extern "C" fn forked() {
    SESSION.store(std::ptr::null_mut(), Release);
    REFUSED.store(0, Release);
    ATTACHING.store(false, Release);
    ledger::forget();
    crate::green::forget();
    crate::ahead::forget();
    crate::lanes::forget();
    crate::watch::forget();
    invalidate();
}

/// Counts a failure of our own, where the daemon can see it.
pub(crate) fn count_fault() {
    if let Some(session) = seated() {
        session.seat().faults.fetch_add(1, Relaxed);
    }
}

const _: () = assert!(UNLIMITED == u64::MAX);
