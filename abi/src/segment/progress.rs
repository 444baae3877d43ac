//! Reading a seat's progress: does it wait at the gate, does it run, is it at rest?
//!
//! ```text
//! hook    begun = k        "GPU: wait for the gate; started = k"      launch, launch, ...
//!         submitted = k    "GPU: completed = k"
//! daemon  waiting  <=>  begun != started              some batch is held at the gate
//!         running  <=>  started != completed          some batch is past it and not done, and closed
//!                       and submitted != completed
//! ```
//!
//! A batch that is still being filled does not count as running: its program may have stopped launching, and
//! a tenant must not keep a window because of that. What it launched is at most one batch.

use std::sync::atomic::Ordering::Acquire;

use super::layout::{AWAITING_ONE, Lane, LaneMarks, Seat};
use crate::limits::LANES_MAX;

/// What the lanes of a seat show for one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Work is held at the gate, or would be if it were closed.
    pub waiting: bool,
    /// Work is past the gate and not done.
    pub running: bool,
    /// More than one batch of a lane is queued: the device will not run dry at the end of the one it is at.
    pub queued: bool,
    /// Batches begun and not complete, in all lanes together.
    pub backlog: u32,
    /// A number that changes when a batch completes.
    pub completed: u32,
}

/// Reads the lanes of a seat for `device`. Each word is read once; whatever a tenant scribbled there, the
/// answers are yes or no.
#[must_use]
pub fn progress(seat: &Seat, device: usize) -> Progress {
    let mut progress = Progress::default();
    let high = (seat.lanes_high.load(Acquire) as usize).min(LANES_MAX);
    for (lane, marks) in seat.lanes.iter().zip(&seat.marks).take(high) {
        if lane.device.load(Acquire) as usize == device + 1 {
            let one = lane_progress(lane, marks);
            progress.waiting |= one.waiting;
            progress.running |= one.running;
            progress.queued |= one.queued;
            progress.backlog = progress.backlog.saturating_add(one.backlog);
            progress.completed = progress.completed.wrapping_add(one.completed);
        }
    }
    progress
}

fn lane_progress(lane: &Lane, marks: &LaneMarks) -> Progress {
    // The GPU's words are read first: a batch that moves on in between is seen one step behind, never ahead.
    let completed = marks.completed.load(Acquire);
    let started = marks.started.load(Acquire);
    let begun = lane.begun.load(Acquire);
    let submitted = lane.submitted.load(Acquire);
    Progress {
        waiting: ahead(begun, started),
        queued: ahead(begun, completed.wrapping_add(1)),
        backlog: if ahead(begun, completed) { begun.wrapping_sub(completed) } else { 0 },
        running: ahead(started, completed) && ahead(submitted, completed),
        completed,
    }
}

/// Whether threads wait on the host for their turn on `device`.
#[must_use]
pub fn waits_at_host(seat: &Seat, device: usize) -> bool {
    seat.waiting[device].load(Acquire) & (AWAITING_ONE - 1) != 0
}

/// Threads inside a call that waits for `device`.
#[must_use]
pub fn awaiting(seat: &Seat, device: usize) -> u32 {
    seat.waiting[device].load(Acquire) / AWAITING_ONE
}

/// The lanes of a seat, with the number of its batch, in which a batch for `device` is past the gate and not closed: its
/// program is still filling it, or has stopped launching.
pub fn open_batches(seat: &Seat, device: usize) -> impl Iterator<Item = (usize, u32)> + '_ {
    let high = (seat.lanes_high.load(Acquire) as usize).min(LANES_MAX);
    let lanes = seat.lanes.iter().zip(&seat.marks).take(high).enumerate();
    lanes.filter_map(move |(index, (lane, marks))| {
        let completed = marks.completed.load(Acquire);
        let started = marks.started.load(Acquire);
        let open = lane.device.load(Acquire) as usize == device + 1
            && ahead(started, completed)
            && ahead(started, lane.submitted.load(Acquire));
        open.then_some((index, started))
    })
}

/// Whether batch number `a` comes after `b`.
fn ahead(a: u32, b: u32) -> bool {
    0 < a.wrapping_sub(b).cast_signed()
}

#[cfg(test)]
#[cfg(not(all(test, loom)))]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use super::*;
    use crate::segment::Ledger;
    use crate::segment::map::LedgerSegment;

    fn shown(seat: &Seat, device: usize) -> (bool, bool) {
        let progress = progress(seat, device);
        (progress.waiting, progress.running)
    }

    #[test]
    fn a_batch_goes_from_waiting_to_running_to_rest() {
        let ledger = Ledger::new(LedgerSegment::create().unwrap().0);
        let index = ledger.take_seat(1, 1).unwrap();
        let seat = ledger.seat(index);
        seat.lanes_high.store(3, Release);
        let (lane, marks) = (&seat.lanes[2], &seat.marks[2]);
        lane.device.store(1, Release);
        for number in [1, 2, u32::MAX, 0, 1] {
            let before = number.wrapping_sub(1);
            for word in [&lane.begun, &lane.submitted, &marks.started, &marks.completed] {
                word.store(before, Release);
            }
            assert_eq!(shown(seat, 0), (false, false));
            lane.begun.store(number, Release);
            assert_eq!(shown(seat, 0), (true, false));
            marks.started.store(number, Release);
            assert_eq!(shown(seat, 0), (false, false), "an open batch is not yet work");
            assert_eq!(open_batches(seat, 0).collect::<Vec<_>>(), [(2, number)]);
            assert_eq!(open_batches(seat, 1).count(), 0);
            lane.submitted.store(number, Release);
            assert_eq!(shown(seat, 0), (false, true));
            assert_eq!(progress(seat, 0).completed, before);
            assert_eq!(shown(seat, 1), (false, false), "another device");
            assert!(!progress(seat, 0).queued && open_batches(seat, 0).next().is_none());
            lane.begun.store(number.wrapping_add(1), Release);
            assert!(progress(seat, 0).queued, "the next one waits already");
            assert_eq!(progress(seat, 0).backlog, 2);
            lane.begun.store(number, Release);
            marks.completed.store(number, Release);
            assert_eq!(shown(seat, 0), (false, false));
            assert_eq!(progress(seat, 0).completed, number);
        }
    }
}
