//! Devices shared by green contexts: this process's work keeps to the groups of SMs that lie in its tenant's place.
//!
//! ```text
//!  what the program holds              what is current to its threads
//!  the primary context's handle <----> the context that stands for a green context of the tenant's groups
//! ```
//!
//! A green context shares the primary context's memory and code, and whatever a thread does while it is current (streams that
//! are made, the null stream, launches) keeps to its SMs. So the program is given the primary context's own handle, and
//! wherever it makes that current, the green one is made current in its place; where it asks which is, it hears the primary
//! one. One green context serves all threads: with several, null streams would be several, too, and no longer in order.
//!
//! ```text
//! NONE ----> MAKING ----> READY ----> NONE        (the program releases the primary context for the last time, or resets it)
//!               |-------> LACKING                 the driver has no green contexts: the daemon is told, and shares by time
//!               |-------> OUTSIDE                 there was a primary context before: it keeps all SMs, and pays for them
//!               '-------> NONE, and the call is refused
//! ```
//!
//! Contexts of a program's own, which cannot be green, are refused on such a device. Its own green contexts are made of what it
//! is told the device has: its tenant's groups.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUdevice, CUenum, CUgreenCtx};
use headgate_abi::limits::{DEVICES_MAX, SESSION_WAIT_MS_MAX};
use headgate_abi::space::{Part, place_of};

use crate::driver::groups::{self, Resource, SM};
use crate::driver::{self, Out};
use crate::session::{self, Session};
use crate::{log, sys};

const NONE: u32 = 0;
const MAKING: u32 = 1;
const READY: u32 = 2;
const LACKING: u32 = 3;
const OUTSIDE: u32 = 4;

/// A device's primary context in this process, and what stands in its place.
#[derive(Debug)]
struct Stand {
    state: AtomicU32,
    /// The primary context's handle, which is the same whenever it is active.
    primary: AtomicUsize,
    green: AtomicUsize,
    /// The green one as a context.
    context: AtomicUsize,
    /// The one before, which may still be current to a thread.
    former: AtomicUsize,
    /// Times the program has retained the primary context and not released it.
    retained: AtomicU32,
}

impl Stand {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(NONE),
            primary: AtomicUsize::new(0),
            green: AtomicUsize::new(0),
            context: AtomicUsize::new(0),
            former: AtomicUsize::new(0),
            retained: AtomicU32::new(0),
        }
    }

    fn is_ready(&self) -> bool {
        self.state.load(Acquire) == READY
    }

    fn context(&self) -> CUcontext {
        CUcontext::from_addr(self.context.load(Acquire))
    }

    fn green(&self) -> CUgreenCtx {
        CUgreenCtx::from_addr(self.green.load(Acquire))
    }

    fn primary(&self) -> CUcontext {
        CUcontext::from_addr(self.primary.load(Acquire))
    }

    /// Whether a context that is current is one of ours, now or before.
    fn is_ours(&self, context: CUcontext) -> bool {
        let address = context.addr();
        address != 0 && (address == self.context.load(Acquire) || address == self.former.load(Acquire))
    }

    /// Whether another context should be current where this one is.
    fn is_misplaced(&self, context: CUcontext) -> bool {
        let address = context.addr();
        self.is_ready()
            && address != self.context.load(Acquire)
            && (address == self.primary.load(Acquire) || address == self.former.load(Acquire))
    }
}

static STANDS: [Stand; DEVICES_MAX] = [const { Stand::new() }; DEVICES_MAX];
/// Whether a device was shared so when the program started CUDA. What started otherwise stays as it is.
static SHARED: AtomicBool = AtomicBool::new(false);
/// Whether the program has made green contexts of its own.
static OWN_GREENS: AtomicBool = AtomicBool::new(false);

/// The program starts CUDA.
pub(crate) fn decide(session: &Session) {
    let places = (0..DEVICES_MAX).any(|row| session.limits(row).place.load(Acquire) != 0);
    if places && !session.is_off() {
        SHARED.store(true, Release);
    }
}

#[inline]
fn is_shared() -> bool {
    SHARED.load(Relaxed)
}

fn stand(device: CUdevice) -> Option<&'static Stand> {
    STANDS.get(usize::try_from(device).ok()?)
}

/// Whether this process's work on a device has to keep to groups.
pub(crate) fn is_confined(device: CUdevice) -> bool {
    let lacks = || stand(device).is_some_and(|stand| stand.state.load(Acquire) == LACKING);
    let has_place = |session: &'static Session| {
        let row = session.row(device)?;
        Some(session.limits(row).place.load(Acquire) != 0)
    };
    is_shared() && session::seated().and_then(has_place) == Some(true) && !lacks()
}

/// Sees to it that a green context of the tenant's groups stands in the place of a device's primary context, where the
/// device is shared so. `Err` is the status for the call.
pub(crate) fn require(device: CUdevice) -> Result<(), CUresult> {
    if !is_confined(device) {
        return Ok(());
    }
    let (Some(stand), Some(session)) = (stand(device), session::seated()) else { return Ok(()) };
    let Some(row) = session.row(device) else { return Ok(()) };
    loop {
        match stand.state.compare_exchange(NONE, MAKING, AcqRel, Acquire) {
            Ok(_) => break,
            Err(MAKING) => wait_for_other_thread(stand)?,
            Err(_) => return Ok(()),
        }
    }
    let (state, part, outcome) = match make(session, row, device, stand) {
        Ok(part) => (READY, Some(part), Ok(())),
        Err(Stop::Lacking(status)) => {
            log::notice(format_args!(
                "the GPU is to be shared by green contexts, which this driver does not have ({status:?}); it is shared by time"
            ));
            (LACKING, Some(Part::Unavailable), Ok(()))
        }
        Err(Stop::Outside) => (OUTSIDE, Some(Part::Outside), Ok(())),
        Err(Stop::NoGroups(why)) => {
            log::notice(format_args!("this process gets no context: {why}; `headgate status` tells more"));
            (NONE, None, Err(CUresult::ERROR_NOT_PERMITTED))
        }
        Err(Stop::Failed(status)) => {
            log::notice(format_args!("the driver makes no green context of its tenant's SMs ({status:?})"));
            (NONE, None, Err(status))
        }
    };
    session.seat().parts[row].store(part.unwrap_or(Part::Nothing).word(), Release);
    stand.state.store(state, Release);
    // Threads may have the primary context in mind, or current.
    session::invalidate();
    outcome
}

/// Bounded, as every wait in a stranger's thread.
fn wait_for_other_thread(stand: &Stand) -> Result<(), CUresult> {
    const STEP_US: u64 = 200;
    let steps = SESSION_WAIT_MS_MAX * 1_000 / STEP_US;
    let made = (0..steps).any(|_| {
        sys::sleep_us(STEP_US);
        stand.state.load(Acquire) != MAKING
    });
    if made { Ok(()) } else { Err(CUresult::ERROR_SYSTEM_NOT_READY) }
}

/// Why there is no green context.
enum Stop {
    Lacking(CUresult),
    Outside,
    NoGroups(&'static str),
    Failed(CUresult),
}

/// What an answer means to a step without which there are no green contexts at all.
fn lacking(status: CUresult) -> Stop {
    match status {
        CUresult::ERROR_NOT_FOUND | CUresult::ERROR_NOT_SUPPORTED => Stop::Lacking(status),
        other => Stop::Failed(other),
    }
}

#[cold]
fn make(session: &Session, row: usize, device: CUdevice, stand: &Stand) -> Result<Part, Stop> {
    let place = place_of(session.limits(row).place.load(Acquire)).flatten();
    let place = place.ok_or(Stop::NoGroups("its tenant has no SMs of the GPU yet"))?;
    if driver::primary_context_active(device) == Some(true) {
        return Err(Stop::Outside);
    }
    let whole = groups::whole(device).map_err(lacking)?;
    let mut all = groups::split(&whole).map_err(lacking)?;
    let range = place.groups(u32::try_from(all.len()).unwrap_or(0));
    let (first, end) = (range.start as usize, range.end as usize);
    let own = all.get_mut(first..end).filter(|own| !own.is_empty());
    let own = own.ok_or(Stop::NoGroups("its tenant's share comes to no group of the GPU's SMs"))?;
    let green = groups::create(device, own).map_err(lacking)?;
    let sms: u32 = own.iter().map(|group| group.sms).sum();
    let made = groups::of(green).and_then(|made| Ok((made.sms, groups::context(green)?)));
    let primary = driver::primary_context(device);
    let (Ok((held, context)), Some(primary)) = (made, primary) else {
        let ended = groups::destroy(green);
        return Err(Stop::Failed(made.err().unwrap_or(ended)));
    };
    if held != sms {
        // Under MPS with a percentage it may have all of the client's.
        let _ended = groups::destroy(green);
        return Err(Stop::Failed(CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION));
    }
    stand.primary.store(primary.addr(), Release);
    stand.green.store(green.addr(), Release);
    stand.context.store(context.addr(), Release);
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    log::event(format_args!("groups {first} to {end} of {}: {sms} of {} SMs", all.len(), whole.sms));
    Ok(Part::Groups {
        first: short(range.start),
        count: short(range.end - range.start),
        sms: short(sms),
        of: short(whole.sms),
    })
}

/// The calling thread has just made a context current, by pushing it if `pushed`. Puts the green one in the place of a primary
/// one. `Err` is the status for the call, which is then undone.
pub(crate) fn entered(pushed: bool) -> Result<(), CUresult> {
    if !is_shared() {
        return Ok(());
    }
    let context = groups::current();
    if context.is_null() || STANDS.iter().any(|stand| stand.is_ready() && stand.context() == context) {
        return Ok(());
    }
    if put_right(context) {
        return Ok(());
    }
    // A primary context that nobody has retained yet, or another one.
    let Some(device) = groups::current_device() else { return Ok(()) };
    if let Err(status) = require(device) {
        let _undone = if pushed { groups::pop_current() } else { groups::set_current(CUcontext::NULL) };
        return Err(status);
    }
    put_right(context);
    Ok(())
}

/// Makes the green context current where `context`, which is, is a primary one that it stands for. Whether it is.
fn put_right(context: CUcontext) -> bool {
    let misplaced = STANDS.iter().find(|stand| stand.is_misplaced(context));
    misplaced.is_some_and(|stand| groups::set_current(stand.context()).is_success())
}

/// The context that the program means by one that is current: the primary one, for a green one that stands for it.
#[inline]
pub(crate) fn meant(context: CUcontext) -> CUcontext {
    if !is_shared() {
        return context;
    }
    STANDS.iter().find(|stand| stand.is_ours(context)).map_or(context, Stand::primary)
}

/// As [`meant`], for the calling thread's own context. If that is a primary one, for which another thread has put a green one in the
/// place meanwhile, the green one is made current here, too.
#[inline]
pub(crate) fn meant_here(context: CUcontext) -> CUcontext {
    if is_shared() {
        put_right(context);
    }
    meant(context)
}

/// A green context as the program may see it: ours it does not know.
pub(crate) fn seen(green: CUgreenCtx) -> CUgreenCtx {
    let ours = is_shared() && STANDS.iter().any(|stand| stand.green() == green);
    if ours { CUgreenCtx::NULL } else { green }
}

/// The program has retained a primary context.
pub(crate) fn retained(device: CUdevice) {
    if let Some(stand) = stand(device).filter(|_| is_shared()) {
        stand.retained.fetch_add(1, AcqRel);
        put_right(groups::current());
    }
}

/// The program is about to release a primary context. With its last release the green one, which retains it as well, must go
/// first.
pub(crate) fn releasing(device: CUdevice) {
    if let Some(stand) = stand(device).filter(|stand| is_shared() && stand.retained.load(Acquire) == 1) {
        end(device, stand);
    }
}

/// It has.
pub(crate) fn released(device: CUdevice) {
    if let Some(stand) = stand(device).filter(|_| is_shared()) {
        let less = |retained: u32| Some(retained.saturating_sub(1));
        let _before = stand.retained.fetch_update(AcqRel, Acquire, less);
    }
}

/// The program is about to end everything in a primary context.
pub(crate) fn resetting(device: CUdevice) {
    if let Some(stand) = stand(device).filter(|_| is_shared()) {
        end(device, stand);
        stand.retained.store(0, Release);
    }
}

/// A primary context has ended. What was outside of any groups with it may be inside with the next one.
pub(crate) fn ended(device: CUdevice) {
    let Some(stand) = stand(device).filter(|_| is_shared()) else { return };
    if stand.state.compare_exchange(OUTSIDE, NONE, AcqRel, Acquire).is_ok() {
        clear(device);
    }
}

fn end(device: CUdevice, stand: &Stand) {
    if stand.state.compare_exchange(READY, MAKING, AcqRel, Acquire).is_err() {
        return;
    }
    let context = stand.context.swap(0, AcqRel);
    stand.former.store(context, Release);
    if groups::current().addr() == context {
        let _back = groups::set_current(stand.primary());
    }
    let status = groups::destroy(CUgreenCtx::from_addr(stand.green.swap(0, AcqRel)));
    if !status.is_success() {
        log::event(format_args!("ending a green context: {status:?}"));
    }
    clear(device);
    stand.state.store(NONE, Release);
    session::invalidate();
}

fn clear(device: CUdevice) {
    let session = session::seated();
    if let Some((session, row)) = session.and_then(|session| Some((session, session.row(device)?))) {
        session.seat().parts[row].store(Part::Nothing.word(), Release);
    }
}

/// Says to the program that a device, or a context of it, has the SMs of its tenant's groups.
pub(crate) fn show(device: CUdevice, kind: CUenum, told: &Out<Resource>) {
    let ready = stand(device).filter(|stand| is_shared() && kind == SM && stand.is_ready());
    if let Some(own) = ready.and_then(|stand| groups::of(stand.green()).ok()) {
        told.set(own);
    }
}

/// The device whose primary context it is, if a green one stands in its place; null means the calling thread's.
pub(crate) fn device_of(context: CUcontext) -> Option<CUdevice> {
    if !is_shared() {
        return None;
    }
    let context = if context.is_null() { groups::current() } else { context };
    let at = STANDS
        .iter()
        .position(|stand| stand.is_ready() && (stand.primary() == context || stand.is_ours(context)));
    CUdevice::try_from(at?).ok()
}

/// The program has made a green context. `Err` is the status for the call, and then it has not: what it was made of is not
/// its tenant's.
pub(crate) fn check(device: CUdevice, made: CUgreenCtx) -> Result<(), CUresult> {
    let Some(stand) = stand(device).filter(|stand| is_shared() && stand.is_ready()) else { return Ok(()) };
    OWN_GREENS.store(true, Release);
    let sms = |green| groups::of(green).map(|resource: Resource| resource.sms);
    match (sms(stand.green()), sms(made)) {
        (Ok(own), Ok(made)) if made <= own => Ok(()),
        _ => {
            let _ended = groups::destroy(made);
            Err(CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION)
        }
    }
}

/// What remains to be waited for when the program has waited for its context: a primary one includes all green ones, of which
/// ours is only one.
pub(crate) fn synchronised(status: CUresult) -> CUresult {
    if !status.is_success() || !is_shared() || !OWN_GREENS.load(Acquire) {
        return status;
    }
    let context = groups::current();
    let stand = STANDS.iter().find(|stand| stand.is_ready() && stand.context() == context);
    stand.map_or(status, |stand| groups::synchronise(stand.primary()))
}

/// The process has another seat, which is to say what the one before said.
pub(crate) fn tell(before: &Session, session: &Session) {
    let devices = (0..DEVICES_MAX).filter_map(|device| CUdevice::try_from(device).ok());
    for device in devices.filter(|_| is_shared()) {
        if let (Some(old), Some(new)) = (before.row(device), session.row(device)) {
            session.seat().parts[new].store(before.seat().parts[old].load(Acquire), Release);
        }
    }
}

/// Contexts do not survive a fork.
pub(crate) fn forget() {
    SHARED.store(false, Release);
    OWN_GREENS.store(false, Release);
    for stand in &STANDS {
        for address in [&stand.primary, &stand.green, &stand.context, &stand.former] {
            address.store(0, Release);
        }
        stand.retained.store(0, Release);
        stand.state.store(NONE, Release);
    }
}
