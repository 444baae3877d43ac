//! What contexts and loaded code take: memory that no call asks for by size.
//!
//! It is measured, not guessed: NVML says how much the process has on a device, and what is more than its
//! allocations is overhead. Measuring costs milliseconds once, so it is put off until the program has been
//! running for a while and then done by one thread inside a call that is not on the way to its first
//! allocation; starting many programs at once is not slowed down. The charge may exceed the quota: the memory is
//! in use already.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Release},
};

use headgate_abi::cuda::types::CUcontext;
use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::Charge;
use headgate_abi::segment::layout::UNLIMITED;

use super::{credit, holdings, lock};
use crate::session::{self, Session};
use crate::{driver, sys};

/// How long after a context was made its overhead is measured.
const SETTLING_US: u64 = 300_000;
/// Less than this is the rounding of allocations. A context of a real device takes a hundred times as much.
const OVERHEAD_BYTES_MIN: u64 = 2 << 20;

#[derive(Default)]
pub(super) struct Overhead(Vec<(CUcontext, Charge)>);

/// When a measurement is due; zero when none is.
static DUE_US: AtomicU64 = AtomicU64::new(0);

/// A context was made, or code was loaded: something to measure later.
pub(crate) fn note() {
    let _kept = DUE_US.compare_exchange(0, sys::now_coarse_us() + SETTLING_US, AcqRel, Acquire);
}

/// Measures, if it is time to.
#[inline]
pub(crate) fn measure_if_due(session: &Session) {
    let due = DUE_US.load(Acquire);
    if due != 0 && due <= sys::now_coarse_us() {
        measure(session, due);
    }
}

#[cold]
fn measure(session: &Session, due: u64) {
    if DUE_US.compare_exchange(due, 0, AcqRel, Acquire).is_err() {
        return;
    }
    let Some((context, device)) = driver::current_context() else { return };
    let Some(row) = session.row(device) else { return };
    let charged = &session.seat().charged_bytes[row];
    let pid = session.seat().pid.load(Acquire);
    let before = charged.load(Acquire);
    let Some(used) = driver::device_uuid(device).and_then(|uuid| driver::process_bytes(&uuid, pid)) else {
        return;
    };
    if charged.load(Acquire) != before {
        // Allocations came in between: look again later.
        note();
        return;
    }
    let mut overhead = lock(&holdings().overhead);
    let known: u64 =
        overhead.0.iter().filter(|(_, charge)| charge.device == row).map(|(_, charge)| charge.bytes).sum();
    let found = used.saturating_sub(before.saturating_sub(known));
    if known.saturating_add(OVERHEAD_BYTES_MIN) <= found
        && let Ok(charge) = session.ledger().charge(session.seat_index(), row, found - known, UNLIMITED)
    {
        overhead.0.push((context, charge));
        show(session, &overhead, row);
    }
}

/// Says in the seat how much of what it has charged is overhead.
fn show(session: &Session, overhead: &Overhead, row: usize) {
    let of_row = overhead.0.iter().filter(|(_, charge)| charge.device == row);
    let bytes = of_row.fold(0u64, |sum, (_, charge)| sum.saturating_add(charge.bytes));
    session.seat().overhead_bytes[row].store(bytes, Release);
}

/// Says so in a fresh seat.
pub(super) fn show_again(session: &Session) {
    let overhead = lock(&holdings().overhead);
    (0..DEVICES_MAX).for_each(|row| show(session, &overhead, row));
}

/// The context is gone, and its overhead with it.
pub(super) fn end_context(context: CUcontext) {
    let mut overhead = lock(&holdings().overhead);
    let gone: Vec<_> = overhead.0.extract_if(.., |(of, _)| *of == context).collect();
    for (_, charge) in gone {
        credit(charge);
        if let Some(session) = session::seated() {
            show(session, &overhead, charge.device);
        }
    }
}

/// What is charged for overhead.
pub(super) fn each(add: &mut impl FnMut(Charge)) {
    lock(&holdings().overhead).0.iter().for_each(|(_, charge)| add(*charge));
}

pub(super) fn forget() {
    DUE_US.store(0, Release);
}
