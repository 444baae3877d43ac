//! The one tenant: its segments, and a seat for whoever asks.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use anyhow::{Context as _, Result};
use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::{FAIL_OPEN, GATE_GPU, GATE_OPEN_BIT};
use headgate_abi::segment::map::{LedgerSegment, LimitsSegment};
use headgate_abi::segment::{Ledger, SeatIndex};
use headgate_abi::wire::{Hello, Welcome};
use nix::time::{ClockId, clock_gettime};

/// The tenant's memory quota.
pub(crate) const MEMORY_BYTES: u64 = 8 << 30;
/// 50 % of a device.
const SM_PPM: u32 = 500_000;
/// Batches as the real daemon sets them.
const BATCH_US: u32 = 250;
const BATCH_LAUNCHES_MAX: u32 = 64;

/// What a seat had counted when its session ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) launches: u64,
    pub(crate) batches: u64,
}

pub(crate) struct Tenant {
    limits: LimitsSegment,
    limits_fd: OwnedFd,
    ledger: Ledger,
    ledger_fd: OwnedFd,
    generation: u64,
}

impl Tenant {
    pub(crate) fn new() -> Result<Self> {
        let (limits, limits_fd) = LimitsSegment::create()?;
        let (ledger, ledger_fd) = LedgerSegment::create()?;
        limits.header().fail_policy.store(FAIL_OPEN, Relaxed);
        limits.header().epoch.store(1, Relaxed);
        let tenant = Self { limits, limits_fd, ledger: Ledger::new(ledger), ledger_fd, generation: 0 };
        tenant.beat()?;
        Ok(tenant)
    }

    /// Renews the heartbeat.
    pub(crate) fn beat(&self) -> Result<()> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
        let micros = u64::try_from(now.tv_sec())? * 1_000_000 + u64::try_from(now.tv_nsec())? / 1_000;
        self.limits.header().heartbeat_us.store(micros, Release);
        Ok(())
    }

    /// The segments, in the order a welcome carries them.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.limits_fd.as_raw_fd(), self.ledger_fd.as_raw_fd()]
    }

    /// Takes a seat and governs the devices the hook names, in its order.
    pub(crate) fn welcome(&mut self, hello: &Hello) -> Result<(SeatIndex, Welcome)> {
        self.generation += 1;
        let seat = self.ledger.take_seat(0, self.generation).context("more sessions than seats")?;
        for (row, uuid) in hello.devices.iter().enumerate().take(DEVICES_MAX) {
            self.govern(row, uuid);
            self.ledger.seat(seat).gates[row].store(GATE_OPEN_BIT, Release);
        }
        let rows = (0..hello.devices.len()).map(|row| u8::try_from(row).ok()).collect();
        let welcome = Welcome {
            tenant: 0,
            seat,
            generation: self.generation,
            fresh: true,
            off: false,
            rows,
            tenant_name: "bench".to_owned(),
        };
        Ok((seat, welcome))
    }

    fn govern(&self, row: usize, uuid: &[u8; 16]) {
        let device = self.limits.device(row);
        device.memory_bytes_max.store(MEMORY_BYTES, Relaxed);
        device.batch_us.store(BATCH_US, Relaxed);
        device.batch_launches_max.store(BATCH_LAUNCHES_MAX, Relaxed);
        device.sm_ppm.store(SM_PPM, Relaxed);
        device.gate_mode.store(GATE_GPU, Relaxed);
        device.gate.store(GATE_OPEN_BIT, Release);
        let (low, high) = uuid.split_at(8);
        for (word, half) in device.uuid.iter().zip([low, high]) {
            word.store(half.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)), Release);
        }
    }

    /// Takes a seat back.
    pub(crate) fn take_back(&self, seat: SeatIndex) -> Counts {
        let mut counts = Counts { launches: 0, batches: 0 };
        for counters in &self.ledger.seat(seat).counters {
            counts.launches += counters.launches.load(Acquire);
            counts.batches += counters.batches.load(Acquire);
        }
        // Another session may be inside an update; the next seat that is taken back sets the totals right.
        let _exact = self.ledger.reap(seat);
        counts
    }
}
