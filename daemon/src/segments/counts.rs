//! A seat's counters, read as numbers that mean nothing more than what the tenant wrote.

use std::sync::atomic::Ordering::Relaxed;

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::{GATE_WAIT_BUCKETS, Seat};
use headgate_quota::Micros;

/// Counters of one device row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowCounts {
    /// Kernel launches that reached the driver.
    pub launches: u64,
    /// Batches closed.
    pub batches: u64,
    /// Microseconds launches waited at the gate.
    pub gate_wait_us: u64,
}

/// Counters of a seat, or of many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Per device row.
    pub rows: [RowCounts; DEVICES_MAX],
    /// Waits by length.
    pub gate_wait_buckets: [u64; GATE_WAIT_BUCKETS],
    /// Frees of what was never charged.
    pub untracked_frees: u64,
    /// Failures of the hook.
    pub faults: u64,
    /// Lanes that could not be followed.
    pub lanes_refused: u64,
}

impl Counts {
    /// Time launches waited at any gate.
    #[must_use]
    pub fn gate_wait(&self) -> Micros {
        Micros(self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.gate_wait_us)))
    }

    /// Adds what a seat says. Sums saturate: a scribbled counter spoils its own tenant's metric and no more.
    pub fn add_seat(&mut self, seat: &Seat) {
        for (row, counters) in self.rows.iter_mut().zip(&seat.counters) {
            row.launches = row.launches.saturating_add(counters.launches.load(Relaxed));
            row.batches = row.batches.saturating_add(counters.batches.load(Relaxed));
            row.gate_wait_us = row.gate_wait_us.saturating_add(counters.gate_wait_us.load(Relaxed));
        }
        for (bucket, word) in self.gate_wait_buckets.iter_mut().zip(&seat.gate_wait_buckets) {
            *bucket = bucket.saturating_add(word.load(Relaxed));
        }
        self.untracked_frees = self.untracked_frees.saturating_add(seat.untracked_frees.load(Relaxed));
        self.faults = self.faults.saturating_add(seat.faults.load(Relaxed));
        self.lanes_refused = self.lanes_refused.saturating_add(seat.lanes_refused.load(Relaxed));
    }
}
