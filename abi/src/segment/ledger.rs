//! The protocol of a charge: how many processes share one total without a lock and without drift.
//!
//! ```text
//! charge:  begun += 1 -> total CAS up (refused above the limit) -> charged += n -> finished += 1
//! credit:  begun += 1 -> charged -= n -> total -= n                             -> finished += 1
//! ```
//!
//! The total is what the limit is held against; each seat also carries what it charged itself. A process may
//! die between any two of these steps, so the total alone cannot be trusted after a death. The daemon repairs
//! it with [`Ledger::reap`]: it drops the dead seat and then sets the total right by the difference between
//! the total and the sum of the live seats, taken in a moment when no live seat is inside an update (the
//! begun/finished counters of all live seats are equal and did not move while it summed). No update contains a
//! driver call, so such a moment is never far away.
//!
//! Arithmetic saturates: whatever a tenant scribbles into its own ledger, the daemon neither panics nor
//! underflows.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::layout::{DeviceTotals, GATE_OPEN_BIT, SEAT_DEAD, SEAT_FREE, SEAT_TAKEN, Seat, UNLIMITED};
use super::map::LedgerSegment;
use super::sync::{AtomicU32, AtomicU64, pause};
use crate::limits::{DEVICES_MAX, SEATS_MAX};

/// Index of a seat in its tenant's ledger, below [`SEATS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SeatIndex(u16);

impl SeatIndex {
    /// The index, when it is in range.
    #[must_use]
    pub fn new(index: u32) -> Option<Self> {
        u16::try_from(index).ok().filter(|&i| usize::from(i) < SEATS_MAX).map(Self)
    }

    /// The index as an array index.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The index as the wire carries it.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        u32::from(self.0)
    }
}

/// A charge that was accepted and not yet settled. Give it back with [`Ledger::credit`] if the driver refuses.
#[must_use = "a charge that is dropped is never given back"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Charge {
    /// Bytes charged.
    pub bytes: u64,
    /// Device row charged.
    pub device: usize,
}

/// The quota has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Bytes asked for.
    pub asked_bytes: u64,
    /// Bytes in use when it was refused.
    pub used_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

/// One tenant's ledger, seen by one of its processes or by the daemon.
#[derive(Debug)]
pub struct Ledger {
    segment: LedgerSegment,
}

impl Ledger {
    /// The protocol over a mapped segment.
    #[must_use]
    pub fn new(segment: LedgerSegment) -> Self {
        Self { segment }
    }

    /// The segment underneath.
    #[must_use]
    pub fn segment(&self) -> &LedgerSegment {
        &self.segment
    }

    /// The word that the tenant's processes count up when one of them hands work to a device at rest.
    #[must_use]
    pub fn bell(&self) -> &AtomicU32 {
        &self.segment.header().bell
    }

    /// When a daemon last minded this ledger, in `CLOCK_MONOTONIC` microseconds.
    #[must_use]
    pub fn heartbeat(&self) -> &AtomicU64 {
        &self.segment.header().heartbeat_us
    }

    /// How often processes of the tenant opened their gates by themselves because the daemon was silent.
    #[must_use]
    pub fn failed_open(&self) -> &AtomicU64 {
        &self.segment.header().failed_open
    }

    /// The seat itself.
    #[must_use]
    pub fn seat(&self, seat: SeatIndex) -> &Seat {
        self.segment.seat(seat.get())
    }

    /// Charges `bytes` on `device` to `seat`, or refuses when the tenant's total would pass `limit_bytes`.
    ///
    /// Exact under any number of racing processes: never a byte over the limit, never refused while the
    /// bytes would fit.
    pub fn charge(
        &self,
        seat: SeatIndex,
        device: usize,
        bytes: u64,
        limit_bytes: u64,
    ) -> Result<Charge, Refusal> {
        self.try_charge(seat, device, bytes, limit_bytes).inspect_err(|_| {
            self.segment.totals(device).denied.fetch_add(1, Relaxed);
            self.seat(seat).counters[device].denied.fetch_add(1, Relaxed);
        })
    }

    /// As [`Ledger::charge`], but a refusal is not counted as a denial: the caller has another way to go.
    pub fn try_charge(
        &self,
        seat: SeatIndex,
        device: usize,
        bytes: u64,
        limit_bytes: u64,
    ) -> Result<Charge, Refusal> {
        let row = self.seat(seat);
        let totals = self.segment.totals(device);
        row.updates_begun.fetch_add(1, AcqRel);
        let outcome = raise(totals, bytes, limit_bytes);
        if let Ok(used) = outcome {
            row.charged_bytes[device].fetch_add(bytes, AcqRel);
            if totals.peak_bytes.load(Relaxed) < used {
                totals.peak_bytes.fetch_max(used, Relaxed);
            }
        }
        row.updates_finished.fetch_add(1, AcqRel);
        outcome.map(|_| Charge { bytes, device })
    }

    /// Gives a charge back.
    pub fn credit(&self, seat: SeatIndex, charge: Charge) {
        let row = self.seat(seat);
        row.updates_begun.fetch_add(1, AcqRel);
        lower(&row.charged_bytes[charge.device], charge.bytes);
        lower(&self.segment.totals(charge.device).used_bytes, charge.bytes);
        row.updates_finished.fetch_add(1, AcqRel);
    }

    /// Bytes the tenant has charged on `device`.
    #[must_use]
    pub fn used_bytes(&self, device: usize) -> u64 {
        self.segment.totals(device).used_bytes.load(Acquire)
    }

    /// Hands the first free seat to a process. Daemon only: it is the one writer of `state`.
    pub fn take_seat(&self, pid: u32, generation: u64) -> Option<SeatIndex> {
        let free = |index: &SeatIndex| self.seat(*index).state.load(Acquire) == SEAT_FREE;
        let seat = (0..).map_while(SeatIndex::new).find(free)?;
        self.take_this_seat(seat, pid, generation);
        Some(seat)
    }

    /// Hands this seat to a process, whatever the seat's own words say: a daemon that keeps its own list of
    /// who sits where need not believe the tenant's. Daemon only.
    pub fn take_this_seat(&self, seat: SeatIndex, pid: u32, generation: u64) {
        let row = self.seat(seat);
        clear(row);
        row.pid.store(pid, Relaxed);
        row.generation.store(generation, Relaxed);
        row.state.store(SEAT_TAKEN, Release);
        self.segment.header().seats_high.fetch_max(seat.to_u32() + 1, AcqRel);
    }

    /// Takes a dead process's seat back and sets every total right. Daemon only.
    ///
    /// Returns `false` when some live seat stayed inside updates for the whole of a bounded number of looks:
    /// what the seat is known to hold has then been credited already, and [`Ledger::recount`] should be called
    /// again on the next tick for the rest.
    pub fn reap(&self, seat: SeatIndex) -> bool {
        let row = self.seat(seat);
        row.state.store(SEAT_DEAD, Release);
        for device in 0..DEVICES_MAX {
            let held = row.charged_bytes[device].swap(0, AcqRel);
            lower(&self.segment.totals(device).used_bytes, held);
        }
        let exact = self.recount();
        clear(row);
        row.state.store(SEAT_FREE, Release);
        exact
    }

    /// Sets the totals to the sum of the live seats, in a moment when no live seat is inside an update.
    /// Daemon only. `false` when no such moment was found in a bounded number of looks.
    pub fn recount(&self) -> bool {
        // The model checker tries every way that two looks can go.
        const LOOKS_MAX: usize = if cfg!(all(test, loom)) { 2 } else { 1000 };
        for _ in 0..LOOKS_MAX {
            let Some(before) = self.at_rest() else {
                pause();
                continue;
            };
            let mut sums = [0u64; DEVICES_MAX];
            let mut totals = [0u64; DEVICES_MAX];
            for (device, total) in totals.iter_mut().enumerate() {
                *total = self.used_bytes(device);
            }
            for seat in self.live() {
                for (device, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.saturating_add(seat.charged_bytes[device].load(Acquire));
                }
            }
            if self.at_rest() != Some(before) {
                continue;
            }
            for device in 0..DEVICES_MAX {
                let used = &self.segment.totals(device).used_bytes;
                if sums[device] < totals[device] {
                    lower(used, totals[device] - sums[device]);
                } else if totals[device] < sums[device] {
                    used.fetch_add(sums[device] - totals[device], AcqRel);
                }
            }
            return true;
        }
        false
    }

    /// Number of updates finished by all live seats, when none of them is inside one.
    fn at_rest(&self) -> Option<u64> {
        let mut finished_sum = 0u64;
        for seat in self.live() {
            // Finished is read first: an update that ends in between then shows as begun > finished.
            let finished = seat.updates_finished.load(Acquire);
            if seat.updates_begun.load(Acquire) != finished {
                return None;
            }
            finished_sum = finished_sum.wrapping_add(finished);
        }
        Some(finished_sum)
    }

    /// Seats of live processes. Looks no further than the highest seat ever handed out, so that the sparse
    /// pages above it stay sparse.
    pub fn live(&self) -> impl Iterator<Item = &Seat> + '_ {
        let high = self.segment.header().seats_high.load(Acquire) as usize;
        (0..high.min(SEATS_MAX))
            .map(|index| self.segment.seat(index))
            .filter(|seat| seat.state.load(Acquire) == SEAT_TAKEN)
    }
}

fn raise(totals: &DeviceTotals, bytes: u64, limit_bytes: u64) -> Result<u64, Refusal> {
    let mut used = totals.used_bytes.load(Acquire);
    loop {
        let wanted = used.saturating_add(bytes);
        if limit_bytes != UNLIMITED && limit_bytes < wanted {
            return Err(Refusal { asked_bytes: bytes, used_bytes: used, limit_bytes });
        }
        match totals.used_bytes.compare_exchange_weak(used, wanted, AcqRel, Acquire) {
            Ok(_) => return Ok(wanted),
            Err(now) => used = now,
        }
    }
}

fn lower(word: &AtomicU64, bytes: u64) {
    // The closure never returns `None`, so this cannot fail.
    let _previous = word.fetch_update(AcqRel, Acquire, |now| Some(now.saturating_sub(bytes)));
}

fn clear(seat: &Seat) {
    seat.updates_begun.store(0, Relaxed);
    seat.updates_finished.store(0, Relaxed);
    seat.untracked_frees.store(0, Relaxed);
    seat.faults.store(0, Relaxed);
    seat.lanes_high.store(0, Relaxed);
    seat.gate_backend.store(0, Relaxed);
    seat.lanes_refused.store(0, Relaxed);
    for word in [&seat.ahead_rows, &seat.recalled, &seat.recalling] {
        word.store(0, Relaxed);
    }
    for device in 0..DEVICES_MAX {
        seat.charged_bytes[device].store(0, Relaxed);
        seat.overhead_bytes[device].store(0, Relaxed);
        seat.parts[device].store(0, Relaxed);
        let counters = &seat.counters[device];
        for word in [&counters.launches, &counters.batches, &counters.gate_wait_us, &counters.denied] {
            word.store(0, Relaxed);
        }
        seat.waiting[device].store(0, Relaxed);
        for word in [&seat.busy[device].total_us, &seat.busy[device].since_us] {
            word.store(0, Relaxed);
        }
    }
    for word in &seat.gate_wait_buckets {
        word.store(0, Relaxed);
    }
    seat.aside_units.store(0, Relaxed);
    for gate in &seat.gates {
        // Open until the scheduler says otherwise: a lone program need not wait for a tick.
        gate.store(GATE_OPEN_BIT, Relaxed);
    }
    for (lane, marks) in seat.lanes.iter().zip(&seat.marks) {
        for word in [&lane.device, &lane.begun, &lane.submitted, &marks.started, &marks.completed] {
            word.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
#[cfg(not(all(test, loom)))]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(LedgerSegment::create().unwrap().0)
    }

    #[test]
    fn a_charge_stops_at_the_limit_exactly() {
        let ledger = ledger();
        let seat = ledger.take_seat(1, 1).unwrap();
        let first = ledger.charge(seat, 0, 60, 100).unwrap();
        assert_eq!(ledger.charge(seat, 0, 41, 100).unwrap_err().used_bytes, 60);
        let second = ledger.charge(seat, 0, 40, 100).unwrap();
        assert_eq!(ledger.used_bytes(0), 100);
        ledger.credit(seat, first);
        ledger.credit(seat, second);
        assert_eq!(ledger.used_bytes(0), 0);
        assert_eq!(ledger.segment().totals(0).peak_bytes.load(Acquire), 100);
        assert_eq!(ledger.segment().totals(0).denied.load(Acquire), 1);
    }

    #[test]
    fn racing_seats_never_pass_the_limit_and_leave_no_drift() {
        let ledger = ledger();
        let limit = 1000;
        std::thread::scope(|scope| {
            for pid in 0..4 {
                let seat = ledger.take_seat(pid, 1).unwrap();
                let ledger = &ledger;
                scope.spawn(move || {
                    for round in 0..20_000u64 {
                        if let Ok(charge) = ledger.charge(seat, 2, 1 + (round % 400), limit) {
                            assert!(ledger.used_bytes(2) <= limit);
                            ledger.credit(seat, charge);
                        }
                    }
                });
            }
        });
        assert_eq!(ledger.used_bytes(2), 0);
    }

    #[test]
    fn a_death_between_any_two_steps_leaves_no_drift() {
        // The four places inside a charge where a process can be killed, written out by hand.
        for step in 0..4 {
            let ledger = ledger();
            let (dead, alive) = (ledger.take_seat(1, 1).unwrap(), ledger.take_seat(2, 1).unwrap());
            let _kept = ledger.charge(alive, 0, 7, UNLIMITED).unwrap();
            let _lost = ledger.charge(dead, 0, 5, UNLIMITED).unwrap();
            let row = ledger.seat(dead);
            if 0 < step {
                row.updates_begun.fetch_add(1, AcqRel);
            }
            if 1 < step {
                raise(ledger.segment().totals(0), 100, UNLIMITED).unwrap();
            }
            if 2 < step {
                row.charged_bytes[0].fetch_add(100, AcqRel);
            }
            assert!(ledger.reap(dead));
            assert_eq!(ledger.used_bytes(0), 7, "killed after step {step}");
            assert_eq!(ledger.take_seat(3, 2), Some(dead), "the seat is free again");
        }
    }

    #[test]
    fn a_seat_that_never_rests_delays_the_recount_but_not_the_known_part() {
        let ledger = ledger();
        let (dead, busy) = (ledger.take_seat(1, 1).unwrap(), ledger.take_seat(2, 1).unwrap());
        let _lost = ledger.charge(dead, 0, 5, UNLIMITED).unwrap();
        ledger.seat(busy).updates_begun.fetch_add(1, AcqRel);
        assert!(!ledger.reap(dead));
        assert_eq!(ledger.used_bytes(0), 0);
        ledger.seat(busy).updates_finished.fetch_add(1, AcqRel);
        assert!(ledger.recount());
    }

    #[test]
    fn scribbled_words_neither_panic_nor_underflow() {
        let ledger = ledger();
        let seat = ledger.take_seat(1, 1).unwrap();
        ledger.seat(seat).charged_bytes[0].store(u64::MAX, Relaxed);
        ledger.credit(seat, Charge { bytes: 5, device: 0 });
        assert_eq!(ledger.used_bytes(0), 0);
        assert!(ledger.reap(seat));
        assert_eq!(ledger.used_bytes(0), 0);
    }
}
