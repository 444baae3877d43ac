//! Recent moments, for what happened over the last second.

use std::collections::{HashMap, VecDeque};

use headgate_abi::limits::DEVICES_MAX;
use headgate_quota::Micros;

use super::seats_of;
use crate::effects::Hands;
use crate::limits::SAMPLES_MAX;
use crate::node::State;

/// Device time as it was at a few recent moments, for the share over the last second.
#[derive(Debug, Default)]
pub struct Samples(VecDeque<(Micros, HashMap<u64, [Seen; DEVICES_MAX]>)>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    charged: Micros,
    /// Time launches have spent waiting, summed over threads.
    waited: Micros,
    active: bool,
}

/// What happened to a tenant on a device since the oldest sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    /// Share of the device charged.
    pub(super) share_ppm: u64,
    /// Share of the time that launches waited at the gate; more than the whole if several threads did.
    pub(super) waited_ppm: u64,
    /// Whether it showed work in every sample.
    pub(super) always_active: bool,
}

impl Samples {
    /// Takes a sample.
    pub fn take(&mut self, now: Micros, state: &State, hands: &Hands) {
        let seen = state.tenants().filter_map(|(slot, tenant)| {
            let segments = hands.segments.get(&slot)?;
            let counts = segments.counts(seats_of(tenant));
            let row = |row: usize| {
                let account = &segments.accounts[row];
                let waited = Micros(counts.rows[row].gate_wait_us);
                Seen { charged: account.charged(), waited, active: account.active() }
            };
            Some((tenant.serial, std::array::from_fn(row)))
        });
        self.0.push_back((now, seen.collect()));
        if SAMPLES_MAX < self.0.len() {
            self.0.pop_front();
        }
    }

    pub(super) fn lately(&self, now: Micros, serial: u64, row: usize, charged: Micros) -> Lately {
        let (Some((then, oldest)), Some((latest, newest))) = (self.0.front(), self.0.back()) else {
            return Lately::default();
        };
        let of = |seen: &HashMap<u64, [Seen; DEVICES_MAX]>| seen.get(&serial).map(|rows| rows[row]);
        let (before, after) = (of(oldest).unwrap_or_default(), of(newest).unwrap_or_default());
        let per_million = |part: Micros, span: Micros| part.0.saturating_mul(1_000_000) / span.0.max(1);
        Lately {
            share_ppm: per_million(charged.saturating_sub(before.charged), now.saturating_sub(*then)),
            waited_ppm: per_million(after.waited.saturating_sub(before.waited), latest.saturating_sub(*then)),
            always_active: self.0.len() == SAMPLES_MAX
                && self.0.iter().all(|(_, seen)| of(seen).is_some_and(|seen| seen.active)),
        }
    }
}
