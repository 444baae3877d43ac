//! Where a call that takes memory takes it, and why one is not metered.

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::types::{CUcontext, CUdevice};

use crate::driver;
use crate::ledger::{self, Held};
use crate::session::{self, Session};
use crate::verdict::{Bypass, Denial, Verdict};

/// A context of a device that the tenant is metered on.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) session: &'static Session,
    pub(super) context: CUcontext,
    pub(super) device: CUdevice,
    pub(super) row: usize,
}

/// Why a call goes no further with us.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    NoSeat(CUresult),
    NoRoom,
    Bypass(Bypass),
}

impl Stop {
    pub(super) fn verdict<S>(self) -> Verdict<S> {
        match self {
            Self::NoSeat(status) => Verdict::Deny(status, Denial::NoSeat),
            Self::NoRoom => Verdict::Deny(CUresult::ERROR_OUT_OF_MEMORY, Denial::MemoryQuota),
            Self::Bypass(reason) => Verdict::Bypass(reason),
        }
    }
}

/// The session of a tenant that is enforced.
pub(super) fn metered() -> Result<&'static Session, Stop> {
    let session = session::require().map_err(Stop::NoSeat)?;
    if session.is_off() { Err(Stop::Bypass(Bypass::Off)) } else { Ok(session) }
}

/// The calling thread's current context.
#[inline]
pub(super) fn here() -> Result<Place, Stop> {
    let session = metered()?;
    let (context, device) = driver::current_context().ok_or(Stop::Bypass(Bypass::DriverWillRefuse))?;
    let row = session.row(device).ok_or(Stop::Bypass(Bypass::UnknownDevice))?;
    Ok(Place { session, context, device, row })
}

impl Place {
    /// Charges what is about to be allocated here.
    #[inline]
    pub(super) fn reserve(self, bytes: u64) -> Result<Held, Stop> {
        ledger::overhead::measure_if_due(self.session);
        match ledger::charge(self.session, self.row, bytes) {
            Ok(charge) => Ok(Held { charge, context: self.context, pool: None }),
            Err(_) => Err(Stop::NoRoom),
        }
    }
}
