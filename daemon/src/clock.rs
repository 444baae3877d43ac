//! The one place where the daemon reads a clock. Everything else takes `now` as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the clock module the ban points to")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headgate_quota::Micros;
use nix::time::{ClockId, clock_gettime};

use crate::segments::record::BothClocks;

/// `CLOCK_MONOTONIC`, which every process on the host shares: heartbeats in segments are in this time.
#[must_use]
pub fn monotonic() -> Micros {
    // The kernel refuses this clock only when the argument is a bad pointer, which nix rules out.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Micros::ZERO, |spec| {
        let spec = Duration::from(spec);
        Micros(u64::try_from(spec.as_micros()).unwrap_or(u64::MAX))
    })
}

/// A point in time for timers inside this process.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// Wall-clock time since 1970, for people and for numbers that must differ between runs of the daemon.
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// `CLOCK_BOOTTIME`: time since boot, suspended time included. Periods that outlive a restart are in this time.
#[must_use]
pub fn since_boot() -> Duration {
    // As for the monotonic clock: refused for a bad pointer only.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Time since boot and time since 1970, in microseconds.
#[must_use]
pub fn both() -> BothClocks {
    let micros = |span: Duration| Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    BothClocks { boot: micros(since_boot()), wall: micros(wall()) }
}

/// Time since boot in the clock ticks that `/proc/<pid>/stat` gives start times in.
#[must_use]
pub fn boot_ticks() -> u64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let per_second = per_second.ok().flatten().and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |spec| {
        let micros = u64::try_from(Duration::from(spec).as_micros()).unwrap_or(u64::MAX);
        micros.saturating_mul(per_second) / 1_000_000
    })
}
