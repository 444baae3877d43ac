//! The only place where time enters.

use nix::time::{ClockId, clock_gettime};

use crate::model::Nanos;

/// CLOCK_MONOTONIC, in nanoseconds.
#[must_use]
pub fn now() -> Nanos {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME, in microseconds: what NVML stamps its samples with.
#[must_use]
pub fn real_us() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1_000
}

fn read(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock).map_or(std::time::Duration::ZERO, std::time::Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}
