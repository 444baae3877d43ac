//! How a device's thread sleeps: until a moment, or until a tenant at rest gets work.
//!
//! ```text
//! hook     begun = k   bell += 1            daemon asleep? ---yes---> futex wake
//! daemon   n = bell    look at everything   "asleep"    futex wait, unless bell != n
//! ```
//!
//! Each tenant has a bell of its own, in its ledger: tenants share no memory. A tenant that rings without need wakes the
//! daemon for a tick, at most once in [`RINGS_APART`]; one that does not ring is found at the next tick that is due anyway.
//! The kernel waits for several words at once since Linux 5.16; where it cannot, arrivals are looked for.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::time::Duration;

use headgate_quota::Micros;

use super::turn::Turn;
use crate::{clock, sys};

/// Sleeps shorter than this are not worth waking from: a program pays for the system call.
const SHORT: Duration = Duration::from_micros(100);
/// A tick comes no sooner than this after the last one, however often tenants ring.
const RINGS_APART: Duration = Duration::from_micros(20);

/// The bells of one device's tenants.
#[derive(Debug)]
pub struct Bells {
    /// Whether the kernel can wait for more than one word.
    several: bool,
    /// What each governed tenant's bell was before the last tick, in the table's order.
    heard: Vec<u32>,
}

impl Default for Bells {
    fn default() -> Self {
        Self { several: can_wait_for_several(), heard: Vec::new() }
    }
}

impl Bells {
    /// Notes what the bells say, before everything is looked at. Whether arrivals announce themselves.
    pub fn listen(&mut self, turn: &Turn) -> bool {
        self.heard.clear();
        self.heard.extend(turn.governed().map(|tenant| tenant.segments.ledger.bell().load(Acquire)));
        self.announced()
    }

    /// One word is the thread's own.
    fn announced(&self) -> bool {
        self.several && self.heard.len() < sys::FUTEX_WORDS_MAX
    }

    /// Sleeps for `span` from the tick at `now`, until a tenant rings that was at rest in it, or until `own` changes from
    /// `seen`.
    pub fn sleep(&self, turn: &Turn, now: Micros, span: Duration, own: &AtomicU32, seen: u32) {
        let start = Duration::from_micros(now.0);
        let mut words = vec![(own, seen)];
        let wanted = |turn: &Turn, on: u32| {
            for tenant in turn.at_rest() {
                tenant.segments.limits.device(turn.row()).bell_wanted.store(on, SeqCst);
            }
        };
        let listens = self.announced() && SHORT <= span;
        if listens {
            wanted(turn, 1);
            let bells = turn.governed().zip(&self.heard).filter(|(tenant, _)| turn.is_at_rest(tenant));
            words.extend(bells.map(|(tenant, &heard)| (tenant.segments.ledger.bell(), heard)));
        }
        wait(&words, start + span);
        if listens {
            wanted(turn, 0);
        }
        let soonest = start + RINGS_APART;
        if own.load(Acquire) == seen && Duration::from_micros(clock::monotonic().0) < soonest {
            wait(&[(own, seen)], soonest);
        }
    }
}

fn wait(words: &[(&AtomicU32, u32)], until: Duration) {
    let outcome = match words {
        [(word, seen)] => sys::futex_wait(word, *seen, until),
        several => sys::futex_wait_any(several, until),
    };
    if let Err(error) = outcome {
        // Only a kernel that takes neither call gets here; a busy thread is better than gates that nobody opens.
        tracing::error!(%error, "a gate thread cannot sleep");
    }
}

/// Asks for two words that have changed already: a kernel that knows the call says so at once.
fn can_wait_for_several() -> bool {
    let word = AtomicU32::new(0);
    sys::futex_wait_any(&[(&word, 1), (&word, 1)], Duration::ZERO).is_ok()
}
