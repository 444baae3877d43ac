//! How long a process's work has been with a device: a clock the process keeps in its seat.
//!
//! ```text
//! at rest --hands work to the device: begin--> under way --learns that all of it is done: finish--> at rest
//!                                                  '-- hands over more after it all was done, unasked: restart
//! ```
//!
//! The daemon looks at marks every so often and is blind to bursts that come and go between two looks. The process
//! knows both ends of each burst that it waits for. A program that never asks never finishes: then the clock says
//! nothing new once the marks show rest, and looks have to do.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use super::sync::AtomicU64;

/// The clock of one device in one seat, in `CLOCK_MONOTONIC` microseconds. Writer: the process.
#[repr(C)]
#[derive(Debug)]
pub struct BusyClock {
    /// Sum of all spans that have finished.
    pub total_us: AtomicU64,
    /// When the span under way began, zero at rest.
    pub since_us: AtomicU64,
}

impl BusyClock {
    /// Whether a span is under way.
    #[must_use]
    #[inline]
    pub fn runs(&self) -> bool {
        self.since_us.load(Acquire) != 0
    }

    /// Work goes to the device, which had none of this process. Does nothing while a span is under way.
    pub fn begin(&self, now_us: u64) {
        // Whoever loses the race began at the same moment.
        let _already = self.since_us.fetch_update(AcqRel, Acquire, |since| (since == 0).then_some(now_us));
    }

    /// Work goes to the device, and what went before is done since nobody knows when.
    pub fn restart(&self, now_us: u64) {
        self.since_us.store(now_us, Release);
    }

    /// All work is done, as the process has just learnt.
    pub fn finish(&self, now_us: u64) {
        // In this order a reader in between sees too little for a moment, never a span twice.
        let since = self.since_us.swap(0, AcqRel);
        if since != 0 {
            self.total_us.fetch_add(now_us.saturating_sub(since), AcqRel);
        }
    }

    /// Sum of the spans that have finished, and how long ago the one under way began.
    #[must_use]
    pub fn read(&self, now_us: u64) -> (u64, Option<u64>) {
        let since = self.since_us.load(Acquire);
        (self.total_us.load(Acquire), (since != 0).then(|| now_us.saturating_sub(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up_and_an_unknown_end_adds_nothing() {
        let clock = BusyClock { total_us: AtomicU64::new(0), since_us: AtomicU64::new(0) };
        assert!(!clock.runs());
        clock.begin(100);
        clock.begin(150);
        assert!(clock.runs());
        assert_eq!(clock.read(180), (0, Some(80)));
        clock.finish(200);
        clock.finish(250);
        assert_eq!(clock.read(300), (100, None));
        clock.begin(300);
        clock.restart(400);
        clock.finish(410);
        assert_eq!(clock.read(500), (110, None));
        clock.begin(600);
        clock.finish(590);
        assert_eq!(clock.read(700), (110, None), "a clock that a tenant scribbled on does not go back");
    }
}
