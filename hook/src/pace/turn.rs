//! Waiting for one's turn on the host, where the GPU does not: for room behind what the device has, and for the gate.
//!
//! A gate on the host stops nothing that is queued on the device. So a lane stays little ahead of it: what still runs when the
//! gate closes is what keeps the device busy meanwhile, and no more.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use headgate_abi::limits::GATE_WAIT_US_MAX;
use headgate_abi::segment::layout::{
    BACKEND_EVENTS, BACKEND_WATCHDOG, FAIL_OPEN, GATE_OPEN_BIT, GATE_WAIT_BUCKETS,
};

use super::Lane;
use crate::session::{self, Session};
use crate::{lanes, reports, rung, sys};

/// Work a lane may be ahead of the device, in microseconds and in batches: enough for the device to go on while the host is held
/// up, and no more of it behind a closed gate than the shortest window is long.
const AHEAD_US: u64 = 1_000;
const AHEAD_BATCHES: RangeInclusive<u32> = 2..=4;
/// From this length on a batch has none behind it: the gap between two is little beside it, and much is won by who waits for the
/// end of one and not of two.
const LONG_US: u64 = 10_000;
/// Between two questions while a program waits for room, or for its last batches behind a closed gate.
const ASK_US: u64 = 50;
/// Longest wait for room, however long kernels are known to be. What the device works at may itself wait for something
/// that only this thread can do.
const ROOM_US_MAX: u64 = 500_000;

/// Waits until the first of a thread's lanes has room for a batch and the gate of its device is open, or long enough.
pub(super) fn wait(session: &'static Session, row: usize, own: &mut [Lane]) {
    let Some(front) = own.first_mut() else { return };
    if has_room(session, front) && gate_open(session, row) {
        return;
    }
    // Who waits for room has more to do, though the device may have nothing of it for a moment.
    let waiting = &session.seat().waiting[row];
    waiting.fetch_add(1, AcqRel);
    wait_for_room(session, row, front);
    wait_for_gate(session, row, own);
    waiting.fetch_sub(1, AcqRel);
}

/// Whether the tenant's gate is open on a device.
pub(super) fn gate_open(session: &Session, row: usize) -> bool {
    session.limits(row).gate.load(Acquire) & GATE_OPEN_BIT != 0
}

fn has_room(session: &Session, lane: &mut Lane) -> bool {
    // On the last rung nothing tells how far the device is.
    let Some(index) = lane.seat_lane.filter(|_| rung::rung() != BACKEND_WATCHDOG) else { return true };
    let ahead = reports::ahead(session, index);
    let completed = session.seat().lanes[index].submitted.load(Relaxed).wrapping_sub(ahead);
    lane.cost.look(sys::now_us(), completed, ahead);
    ahead < ahead_max(lane.cost.batch_us())
}

/// Batches of this length, zero for unknown, that a lane may be ahead.
fn ahead_max(batch_us: u64) -> u32 {
    if LONG_US <= batch_us {
        return 1;
    }
    let fit = AHEAD_US.checked_div(batch_us).unwrap_or(0);
    u32::try_from(fit).unwrap_or(u32::MAX).clamp(*AHEAD_BATCHES.start(), *AHEAD_BATCHES.end())
}

fn wait_for_room(session: &Session, row: usize, lane: &mut Lane) {
    if has_room(session, lane) {
        return;
    }
    // A batch may be one long kernel; that it ends is waited for as long as it is known to take, and half as long again.
    let batch_us = lane.cost.batch_us();
    let patience = (batch_us + batch_us / 2).clamp(GATE_WAIT_US_MAX, ROOM_US_MAX);
    let start = sys::now_us();
    loop {
        sys::sleep_us(ASK_US);
        let now = sys::now_us();
        if has_room(session, lane) || patience <= now.saturating_sub(start) {
            if lanes::all_at_rest(session.seat(), row) {
                // All is done, and that is what was waited for: it took until now.
                session.seat().busy[row].finish(now);
            }
            return;
        }
    }
}

/// Waits until the gate is open, or until the daemon has been silent for too long and the policy is to open.
fn wait_for_gate(session: &'static Session, row: usize, own: &[Lane]) {
    let gate = &session.limits(row).gate;
    let mut seen = gate.load(Acquire);
    if seen & GATE_OPEN_BIT != 0 {
        return;
    }
    let seat = session.seat();
    let start = sys::now_us();
    session.ring(row);
    while seen & GATE_OPEN_BIT == 0 {
        if session.stale() {
            // Another daemon may be there already; its gates are in another segment. Else the policy decides.
            if session::require().is_ok_and(|now| !std::ptr::eq(now, session)) {
                break;
            }
            if session.abandoned() && session.fail_policy() == FAIL_OPEN {
                session.count_open();
                break;
            }
        }
        // The next tenant waits until it is known that the last of this one's batches are done.
        let span = if is_asked_about(session, own) { ASK_US } else { GATE_WAIT_US_MAX };
        sys::futex_wait(gate, seen, span);
        seen = gate.load(Acquire);
    }
    let waited = sys::now_us().saturating_sub(start);
    seat.counters[row].gate_wait_us.fetch_add(waited, Relaxed);
    let bucket = usize::try_from(waited.max(1).ilog2()).unwrap_or(0).min(GATE_WAIT_BUCKETS - 1);
    seat.gate_wait_buckets[bucket].fetch_add(1, Relaxed);
}

/// Whether batches are under way whose end only shows when somebody asks.
fn is_asked_about(session: &Session, own: &[Lane]) -> bool {
    rung::rung() == BACKEND_EVENTS
        && own.iter().filter_map(|lane| lane.seat_lane).fold(false, |due, lane| {
            // All are asked, not only up to the first that is under way.
            (reports::ahead(session, lane) != 0) | due
        })
}

const _: () = assert!(*AHEAD_BATCHES.end() as usize * 2 <= reports::EVENTS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_a_millisecond_ahead_in_two_to_four_batches_and_none_behind_a_long_one() {
        let expected = [
            (0, 2),
            (50, 4),
            (250, 4),
            (330, 3),
            (400, 2),
            (5_000, 2),
            (LONG_US - 1, 2),
            (LONG_US, 1),
            (u64::MAX, 1),
        ];
        for (batch_us, batches) in expected {
            assert_eq!(ahead_max(batch_us), batches, "{batch_us} us");
        }
    }
}
