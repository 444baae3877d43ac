//! A ledger segment for the model checker: the same words, in memory of its own.
//!
//! Stands in for [`super::map`] under `--cfg loom`, where mapped bytes cannot be loom's atomics. The protocol above it
//! ([`super::ledger`]) is the very code that runs in tenants and in the daemon.

use std::io;

use super::busy::BusyClock;
use super::layout::{DeviceTotals, GATE_WAIT_BUCKETS, Lane, LaneMarks, LedgerHeader, Seat, SeatCounters};
use super::sync::{AtomicU32, AtomicU64};
use crate::limits::{DEVICES_MAX, LANES_MAX, SEATS_MAX};

/// As the mapped one.
#[derive(Debug)]
pub struct LedgerSegment {
    header: LedgerHeader,
    totals: Vec<DeviceTotals>,
    seats: Vec<Seat>,
}

fn word() -> AtomicU64 {
    AtomicU64::new(0)
}

fn half() -> AtomicU32 {
    AtomicU32::new(0)
}

fn words<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| word())
}

fn halves<const N: usize>() -> [AtomicU32; N] {
    std::array::from_fn(|_| half())
}

fn totals() -> DeviceTotals {
    DeviceTotals { used_bytes: word(), peak_bytes: word(), denied: word(), reserved: words() }
}

fn seat() -> Seat {
    let counters =
        |_| SeatCounters { launches: word(), batches: word(), gate_wait_us: word(), denied: word() };
    let lane = |_| Lane { begun: half(), submitted: half(), device: half(), reserved: half() };
    Seat {
        state: half(),
        pid: half(),
        generation: word(),
        updates_begun: word(),
        updates_finished: word(),
        untracked_frees: word(),
        faults: word(),
        lanes_high: half(),
        gate_backend: half(),
        lanes_refused: word(),
        charged_bytes: words(),
        counters: std::array::from_fn(counters),
        waiting: halves(),
        gate_wait_buckets: words::<GATE_WAIT_BUCKETS>(),
        gates: halves(),
        busy: std::array::from_fn(|_| BusyClock { total_us: word(), since_us: word() }),
        lanes: std::array::from_fn::<_, LANES_MAX, _>(lane),
        overhead_bytes: words(),
        parts: words(),
        ahead_rows: half(),
        recalled: half(),
        recalling: half(),
        aside_units: half(),
        marks: std::array::from_fn(|_| LaneMarks { started: half(), completed: half() }),
    }
}

impl LedgerSegment {
    /// A fresh, empty segment.
    pub fn create() -> Result<(Self, ()), io::Error> {
        let header = LedgerHeader {
            magic: word(),
            abi_version: half(),
            bytes: half(),
            seats_high: half(),
            bell: half(),
            heartbeat_us: word(),
            failed_open: word(),
            recall: word(),
            recalls: half(),
            recall_answers: half(),
            reserved: words(),
        };
        // On the heap: the model checker's stacks are small.
        let totals = (0..DEVICES_MAX).map(|_| totals()).collect();
        let seats = (0..SEATS_MAX).map(|_| seat()).collect();
        Ok((Self { header, totals, seats }, ()))
    }

    /// The head.
    pub fn header(&self) -> &LedgerHeader {
        &self.header
    }

    /// The tenant's total on a device.
    pub fn totals(&self, device: usize) -> &DeviceTotals {
        &self.totals[device]
    }

    /// A seat.
    pub fn seat(&self, seat: usize) -> &Seat {
        &self.seats[seat]
    }
}
