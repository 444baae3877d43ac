//! Three ledgers of the same memory, compared: the hook's, the kernel's, the driver's.
//!
//! The hook charges, the kernel probes see the driver hand out. Both know of every process, so they are compared process by process and
//! a surplus of one never hides a deficit of another. What a process holds that has no seat is drift as a whole.
//!
//! The two are read one after the other while calls go on, and a call under way is in one of them only. So a difference counts when the
//! hook has changed nothing since the last look: then it is exact. Of a process that never rests it counts when it had the same
//! sign for four seconds, and then the least of it: calls in flight lean to both sides, memory that one ledger does not know of to one.
//!
//! Not compared, and why: what a process held before its first look by these probes (the difference then is where it starts from);
//! memory beyond what the kernel saw of a process that uses pools (the driver keeps more in them than was asked for); a process that
//! has ended a context (its allocations ended without calls).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::SeatIndex;
use headgate_abi::segment::layout::ASIDE_UNIT_BYTES;
use headgate_ebpf::ProcessMemory;

use crate::segments::TenantSegments;

/// A tenant's seats.
#[derive(Clone, Debug)]
pub struct Sitting {
    /// Index of the tenant's slot.
    pub slot: u32,
    /// Tells two tenants apart that held one slot after another.
    pub serial: u64,
    /// Where its processes keep their ledger.
    pub segments: Arc<TenantSegments>,
    /// Seats and who sits there.
    pub seats: Vec<(SeatIndex, u32)>,
}

impl Sitting {
    /// The device rows that a seat uses.
    #[must_use]
    pub fn rows_of(&self, seat: SeatIndex) -> Vec<u8> {
        let seat = self.segments.ledger.seat(seat);
        let used = (0..DEVICES_MAX).filter(|&row| {
            seat.charged_bytes[row].load(Relaxed) != 0 || seat.counters[row].launches.load(Relaxed) != 0
        });
        used.filter_map(|row| u8::try_from(row).ok()).collect()
    }

    /// Bytes that a seat has charged for calls, on all devices.
    fn charged(&self, seat: SeatIndex) -> u64 {
        let seat = self.segments.ledger.seat(seat);
        let sum = |of: &[AtomicU64; DEVICES_MAX]| {
            of.iter().fold(0u64, |sum, row| sum.saturating_add(row.load(Relaxed)))
        };
        // What a checkpoint took off the devices no call has given back. Contexts and code are taken without a call for them.
        let aside = u64::from(seat.aside_units.load(Relaxed)) * ASIDE_UNIT_BYTES;
        let held = sum(&seat.charged_bytes).saturating_add(aside);
        held.saturating_sub(sum(&seat.overhead_bytes))
    }
}

/// A tenant's ledgers now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TenantLedgers {
    /// What the hook has charged for calls.
    pub hook: u64,
    /// What the kernel saw the driver hand out and not take back.
    pub probes: u64,
    /// How far apart the two are, process by process.
    pub drift: u64,
}

/// The comparison.
#[derive(Debug, Default)]
pub struct Ledgers {
    processes: HashMap<u32, Track>,
    tenants: HashMap<u64, TenantLedgers>,
    /// Processes that were seated for the first time since the probes came.
    fresh: HashSet<u32>,
}

/// Looks in a row after which a process that never rests is judged.
const LOOKS: usize = 16;

/// How a process' ledgers differed lately.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// The difference it started with.
    start: i128,
    /// Changes that the hook had made at the last look.
    changes: Option<u64>,
    /// Differences since it last rested.
    lately: [i128; LOOKS],
    looks: usize,
    /// What was last found.
    drift: u64,
}

impl Track {
    fn new(start: i128) -> Self {
        Self { start, changes: None, lately: [0; LOOKS], looks: 0, drift: 0 }
    }

    /// Takes a difference in; answers the drift.
    fn take(&mut self, difference: i128, changes: u64) -> u64 {
        let whole = |difference: i128| u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX);
        if self.changes.replace(changes) == Some(changes) {
            self.looks = 0;
            self.drift = whole(difference);
            return self.drift;
        }
        self.lately[self.looks % LOOKS] = difference;
        self.looks += 1;
        if LOOKS <= self.looks {
            let one_sided = self.lately.iter().all(|d| 0 < *d) || self.lately.iter().all(|d| *d < 0);
            let least = self.lately.iter().copied().map(whole).min().unwrap_or(0);
            self.drift = if one_sided { least } else { 0 };
        }
        self.drift
    }
}

impl Ledgers {
    /// A process has taken its first seat: all that it holds, the probes have seen.
    pub fn greet(&mut self, process: u32) {
        self.fresh.insert(process);
    }

    /// Compares. `memory` are the rows of the second ledger, `tenants` slot and serial of each tenant.
    pub fn look(
        &mut self,
        memory: &[ProcessMemory],
        tenants: impl Iterator<Item = (u32, u64)>,
        sittings: &[Sitting],
    ) {
        let seen: HashMap<u32, &ProcessMemory> =
            memory.iter().map(|process| (process.tgid, process)).collect();
        let mut seated: HashSet<u32> = HashSet::new();
        let mut tenants: HashMap<u32, (u64, TenantLedgers)> =
            tenants.map(|(slot, serial)| (slot, (serial, TenantLedgers::default()))).collect();
        for sitting in sittings {
            let Some((_, sums)) = tenants.get_mut(&sitting.slot).filter(|(of, _)| *of == sitting.serial)
            else {
                continue;
            };
            for &(seat, process) in &sitting.seats {
                seated.insert(process);
                let hook = sitting.charged(seat);
                let changes = sitting.segments.ledger.seat(seat).updates_begun.load(Relaxed);
                sums.hook = sums.hook.saturating_add(hook);
                let drift = self.drift(process, hook, changes, seen.get(&process).copied());
                sums.drift = sums.drift.saturating_add(drift);
            }
        }
        for process in memory {
            let Some((_, sums)) = process.slot.tenant().and_then(|slot| tenants.get_mut(&slot)) else {
                continue;
            };
            sums.probes = sums.probes.saturating_add(process.bytes());
            if !seated.contains(&process.tgid) {
                sums.drift = sums.drift.saturating_add(self.drift(process.tgid, 0, 0, Some(process)));
            }
        }
        self.tenants = tenants.into_values().collect();
        self.processes.retain(|process, _| seated.contains(process) || seen.contains_key(process));
        self.fresh.retain(|process| seated.contains(process));
    }

    fn drift(&mut self, process: u32, hook: u64, changes: u64, seen: Option<&ProcessMemory>) -> u64 {
        let probes = seen.map_or(0, ProcessMemory::bytes);
        let difference = i128::from(hook) - i128::from(probes);
        // Without a seat nothing was there before: the process is known from its first allocation.
        let is_known_whole = self.fresh.contains(&process) || hook == 0;
        let track = self
            .processes
            .entry(process)
            .or_insert_with(|| Track::new(if is_known_whole { 0 } else { difference }));
        if seen.is_some_and(|seen| seen.context_ends != 0) {
            return track.take(0, changes);
        }
        let mut difference = difference - track.start;
        if seen.is_some_and(|seen| seen.pool_calls != 0) {
            difference = difference.min(0);
        }
        track.take(difference, changes)
    }

    /// A tenant's ledgers when they were last looked at.
    #[must_use]
    pub fn of(&self, serial: u64) -> Option<TenantLedgers> {
        self.tenants.get(&serial).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOKS, Track};

    #[test]
    fn what_differs_at_rest_is_drift_at_once() {
        let mut track = Track::new(0);
        assert_eq!(track.take(64, 7), 0, "one look cannot tell rest");
        assert_eq!(track.take(64, 7), 64);
        assert_eq!(track.take(4_096, 8), 64, "not at rest: what was last found");
        assert_eq!(track.take(0, 8), 0);
    }

    #[test]
    fn calls_in_flight_lean_to_both_sides_and_missing_memory_to_one() {
        let mut track = Track::new(0);
        let mut changes = 0;
        let mut take = |difference| {
            changes += 1;
            track.take(difference, changes)
        };
        for look in 0..4 * LOOKS {
            assert_eq!(take(if look % 8 == 0 { -512 } else { 4_096 }), 0, "look {look}");
        }
        for _ in 0..LOOKS {
            take(-4_096);
        }
        assert_eq!(take(-64), 64);
    }
}
