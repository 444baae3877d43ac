//! How long nothing can happen that needs a look.
//!
//! Two ways to be on time. Where work that comes to a tenant at rest announces itself (the hook wakes the daemon),
//! the next look is due when something happens that only a clock or the device can tell: a window ends, tokens run
//! out or come in, the owner may have run dry, a drain may be over. Where nothing announces itself, arrivals are
//! looked for as well, and looks are as frequent as an arrival may be late.

use super::WindowScheduler;
use super::contender::Contender;
use crate::tenant::Class;
use crate::units::{Micros, Ppm};

impl<K: Copy + PartialEq> WindowScheduler<K> {
    /// Longest span until the next tick. `announced`: whoever is at rest and gets work makes itself heard. How late
    /// a gate closes is how much a tenant overshoots.
    #[must_use]
    pub fn sleep(&self, announced: bool) -> Micros {
        if announced { self.until_event() } else { self.until_look() }
    }

    /// Whether the tenant shows work, held or under way. Who does need not announce more.
    #[must_use]
    pub fn has_work(&self, key: K) -> bool {
        self.index_of(key).is_some_and(|index| self.contenders[index].1.has_work())
    }

    fn until_event(&self) -> Micros {
        let (now, settings) = (self.now.unwrap_or(Micros::ZERO), &self.settings);
        let all = || self.contenders.iter().map(|(_, contender)| contender);
        if !all().any(Contender::has_work) {
            // Whoever stops counting as active changes what the others earn.
            let active = all().filter(|contender| contender.is_active(now, settings));
            let ends = active.filter_map(|contender| contender.last_work).min();
            let left = ends.map(|last| last.saturating_add(settings.linger).saturating_sub(now));
            return left.map_or(settings.tick_rest, |left| Micros(left.0 + 1).max(settings.tick_draining));
        }
        let next = match (self.owner, self.draining) {
            (None, _) => self.until_open_changes(now),
            (Some(_), Some(since)) => self.drain_tick(since, now),
            (Some(owner), None) if !self.contenders[owner].1.has_work() => settings.tick_draining,
            (Some(owner), None) => self.until_window_changes(owner, now),
        };
        if !self.is_spatial() && 1 < all().filter(|contender| contender.is_at_device()).count() {
            // What each had of a span is told from the batches it completed in it, so spans are short.
            next.min(settings.tick_contended)
        } else if self.owner.is_some() && all().any(|contender| contender.host_bound && contender.has_work())
        {
            next.min(settings.tick_express)
        } else {
            next
        }
    }

    /// In the open phase: tokens that run out, tokens that suffice again, and whoever drains behind a closed gate.
    fn until_open_changes(&self, now: Micros) -> Micros {
        let settings = &self.settings;
        let rates = self.rates(now);
        let at_work = self.contenders.iter().zip(rates).filter(|((_, contender), _)| contender.has_work());
        let next = at_work.map(|((_, contender), rate)| match contender.gate_open {
            true => contender.until_spent(rate),
            false if contender.seen.in_flight => settings.tick_contended,
            false => contender.until_earned(rate, settings),
        });
        next.min().unwrap_or(settings.tick_busy).clamp(settings.tick_draining, settings.tick_busy)
    }

    /// In a window: its end, its owner's tokens, and the moment at which its owner may have nothing left to do.
    fn until_window_changes(&self, owner: usize, now: Micros) -> Micros {
        let settings = &self.settings;
        let own = &self.contenders[owner].1;
        let end = self.window_end.saturating_sub(now);
        let spent = self.rates(now).get(owner).map_or(end, |&rate| own.until_spent(rate));
        end.min(spent).min(own.until_dry(settings)).max(settings.tick_draining)
    }

    fn drain_tick(&self, since: Micros, now: Micros) -> Micros {
        let waited = Micros(now.saturating_sub(since).0 / 8);
        waited.clamp(self.settings.tick_draining, self.settings.tick_contended)
    }

    fn until_look(&self) -> Micros {
        let now = self.now.unwrap_or(Micros::ZERO);
        let lately = |contender: &Contender| {
            contender.last_work.is_some_and(|last| now.saturating_sub(last) <= self.settings.wake)
        };
        let active = |contender: &Contender| contender.is_active(now, &self.settings);
        let express = self.contenders.iter().any(|(_, contender)| contender.is_express_now());
        let guests = self.contenders.iter().any(|(_, contender)| contender.host_bound && active(contender));
        if !self.contenders.iter().any(|(_, contender)| lately(contender)) {
            self.settings.tick_idle
        } else if !self.contenders.iter().any(|(_, contender)| active(contender)) {
            self.settings.tick_busy
        } else if self.owner.is_some_and(|owner| !self.contenders[owner].1.has_work()) {
            self.settings.tick_draining
        } else if (express && 1 < self.contenders.len()) || (self.owner.is_some() && guests) {
            self.settings.tick_express
        } else if let Some(since) = self.draining {
            self.drain_tick(since, now)
        } else if self.contended() {
            self.settings.tick_contended
        } else {
            self.settings.tick_busy
        }
    }

    /// Whether several tenants contend, or one works that may not have the whole device.
    fn contended(&self) -> bool {
        let now = self.now.unwrap_or(Micros::ZERO);
        let held_back = |contender: &Contender| {
            contender.quota.ceiling() < Ppm::WHOLE && contender.is_active(now, &self.settings)
        };
        self.owner.is_some() || self.contenders.iter().any(|(_, contender)| held_back(contender))
    }

    /// Device time a batch of the tenant should hold: short where an express tenant may have to wait for its
    /// end.
    #[must_use]
    pub fn batch(&self, key: K) -> Micros {
        let express =
            |(other, contender): &(K, Contender)| *other != key && contender.quota.class == Class::Express;
        if self.contenders.iter().any(express) {
            self.settings.batch_beside_express
        } else {
            self.settings.batch
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{ComputeQuota, Mode};
    use crate::window::{Observation, WindowSettings};

    #[test]
    fn who_left_the_device_idle_and_is_alone_now_is_looked_at_as_seldom_as_anybody() {
        let settings = WindowSettings::default();
        let half = ComputeQuota {
            nominal: Ppm::from_percent(50).unwrap_or(Ppm::ZERO),
            borrowing_limit: None,
            lending_limit: None,
            mode: Mode::Borrow,
            class: Class::Standard,
        };
        let mut scheduler = WindowScheduler::new(settings);
        scheduler.set_tenants([(0u8, half), (1, half)]);
        let mut least = settings.tick_rest;
        for tick in 0u64..600 {
            // The first makes the device wait now and then, until the second is gone.
            let together = tick < 400;
            scheduler.tick(Micros(tick * 100), |key| Observation {
                in_flight: if key == 0 { !together || tick % 3 > 0 } else { together },
                progress: if key == 0 { tick } else { tick.min(400) },
                ..Observation::default()
            });
            if together {
                least = least.min(scheduler.sleep(true));
            }
        }
        assert!(least <= settings.tick_express, "{least:?} beside another");
        assert_eq!(scheduler.sleep(true), settings.tick_busy, "alone");
    }
}
