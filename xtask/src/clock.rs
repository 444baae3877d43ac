//! The chores' clock.

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds, comparable between processes of one machine.
pub(crate) fn now_ns() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the monotonic clock")?;
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec())?, u64::try_from(time.tv_nsec())?);
    Ok(seconds * 1_000_000_000 + nanoseconds)
}
