//! Reading a seat's progress: has its work reached the end?
//!
//! ```text
//! hook   lanes[i].submitted = k   then enqueues "GPU: write k to completed[i]" behind the batch
//! GPU    completed[i] = k         when the batch is done
//! daemon in flight  <=>  some lane of the device has submitted != completed
//! ```

use std::sync::atomic::Ordering::Acquire;

use super::layout::Seat;
use crate::limits::LANES_MAX;

/// Batches of the seat's lanes on `device` that are submitted and not complete, wrapping counters compared
/// modulo 2^32.
#[must_use]
pub fn batches_in_flight(seat: &Seat, device: usize) -> u32 {
    let high = (seat.lanes_high.load(Acquire) as usize).min(LANES_MAX);
    let mut batches = 0u32;
    for (lane, completed) in seat.lanes.iter().zip(&seat.completed).take(high) {
        if lane.device.load(Acquire) as usize == device + 1 {
            // Completed is read first: a batch that completes in between counts as in flight once more.
            let completed = completed.load(Acquire);
            let ahead = lane.submitted.load(Acquire).wrapping_sub(completed).cast_signed();
            // A tenant that scribbles a completion ahead of its submissions has nothing in flight.
            batches = batches.saturating_add(ahead.max(0).unsigned_abs());
        }
    }
    batches
}

/// Whether any work of the seat is under way on `device`.
#[must_use]
pub fn in_flight(seat: &Seat, device: usize) -> bool {
    batches_in_flight(seat, device) != 0
}
