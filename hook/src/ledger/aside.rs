//! What a checkpoint has taken off the devices: charged to nobody until it is restored.
//!
//! Only a process that checkpoints itself is seen here; one that another process checkpoints stays charged, which promises nobody
//! too much. The driver keeps every other call of a checkpointed process out, so nothing is taken or given back meanwhile.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::ASIDE_UNIT_BYTES;
use headgate_abi::segment::{Charge, Refusal};

use super::credit;
use crate::session::Session;

/// Bytes by device row.
static ASIDE: [AtomicU64; DEVICES_MAX] = [const { AtomicU64::new(0) }; DEVICES_MAX];

/// The driver has taken everything off the devices.
pub(crate) fn put(session: &Session) {
    for (device, aside) in ASIDE.iter().enumerate() {
        let bytes = session.seat().charged_bytes[device].load(Acquire);
        credit(Charge { bytes, device });
        aside.fetch_add(bytes, Release);
    }
    tell(session);
}

/// Charges for what is about to come back, all of it or nothing. What pools keep cannot be given back first: the driver keeps
/// calls out.
pub(crate) fn reserve(session: &Session) -> Result<(), Refusal> {
    let charge = |device: usize, bytes| {
        session.ledger().charge(session.seat_index(), device, bytes, session.memory_limit(device))
    };
    for (device, aside) in ASIDE.iter().enumerate() {
        let bytes = aside.load(Acquire);
        if bytes > 0
            && let Err(refusal) = charge(device, bytes)
        {
            release(device);
            return Err(refusal);
        }
    }
    Ok(())
}

/// It did not come back after all.
pub(crate) fn give_up() {
    release(DEVICES_MAX);
}

/// It is back.
pub(crate) fn taken(session: &Session) {
    forget();
    tell(session);
}

/// Gives back what was charged for the rows before one.
fn release(before: usize) {
    for (device, aside) in ASIDE.iter().enumerate().take(before) {
        credit(Charge { bytes: aside.load(Acquire), device });
    }
}

/// Has the daemon see how much is away: its witnesses count it still, or no longer.
fn tell(session: &Session) {
    let all = ASIDE.iter().map(|aside| aside.load(Acquire)).fold(0, u64::saturating_add);
    let units = u32::try_from(all.div_ceil(ASIDE_UNIT_BYTES)).unwrap_or(u32::MAX);
    session.seat().aside_units.store(units, Release);
}

/// Nothing is aside, as in the child of a fork.
pub(super) fn forget() {
    ASIDE.iter().for_each(|aside| aside.store(0, Relaxed));
}
