//! Tenants with SMs of their own, side by side.

use super::WindowScheduler;
use crate::units::{Micros, Ppm};

/// What a tenant has of a device that is shared by space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// What it was given: its share, rounded to what the device can be divided into.
    pub given: Ppm,
    /// What its programs that are at work hold now. More than it was given while programs run on that started under
    /// a greater share, or where each process of a tenant has a part of its own.
    pub held: Ppm,
}

impl<K: Copy + PartialEq> WindowScheduler<K> {
    /// Says what each tenant has of the device. With an entry for any of them the device is shared by space; a tenant
    /// without one then counts as holding all of it while it works. Takes effect at the next tick.
    pub fn set_rooms(&mut self, rooms: impl Fn(K) -> Option<Room>) {
        for (key, contender) in &mut self.contenders {
            contender.room = rooms(*key);
        }
        if self.is_spatial() {
            self.owner = None;
            self.draining = None;
        }
    }

    /// Whether tenants have parts of the device.
    #[must_use]
    pub fn is_spatial(&self) -> bool {
        self.contenders.iter().any(|(_, contender)| contender.room.is_some())
    }

    /// Each pays for its own time, as much of it as it holds of the device.
    pub(super) fn charge_rooms(&mut self, elapsed: Micros) {
        let (settings, debt_max) = (self.settings, self.settings.debt_max);
        for (_, contender) in &mut self.contenders {
            let used = contender.used(elapsed, &settings);
            let held = contender.room.map_or(Ppm::WHOLE, |room| room.held);
            let owed = contender.part_owed + used.0 * u64::from(held.get());
            let whole = u64::from(Ppm::WHOLE.get());
            contender.part_owed = owed % whole;
            contender.charge(Micros(owed / whole), debt_max);
        }
    }

    /// Every gate is open but those of tenants whose tokens are spent.
    pub(super) fn step_rooms(&mut self) {
        for (_, contender) in &mut self.contenders {
            let shut = contender.is_spent();
            contender.set_gate(!shut);
            contender.throttled = shut && contender.seen.waiting;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{Class, ComputeQuota, Mode};
    use crate::window::{Observation, WindowSettings};

    fn quota(percent: u32, mode: Mode) -> ComputeQuota {
        ComputeQuota {
            nominal: Ppm::from_percent(percent).unwrap_or(Ppm::WHOLE),
            borrowing_limit: None,
            lending_limit: None,
            mode,
            class: Class::Standard,
        }
    }

    fn ppm(parts: u32) -> Ppm {
        Ppm::new(parts).unwrap_or(Ppm::WHOLE)
    }

    /// Ticks of 100 us in which whoever has an open gate is at work. For how many of them each had one.
    fn run(scheduler: &mut WindowScheduler<u8>, ticks: u64, keys: &[u8]) -> Vec<u64> {
        let mut open = vec![0; keys.len()];
        let start = scheduler.now.unwrap_or(Micros::ZERO).0;
        for tick in 1..=ticks {
            let at: Vec<bool> = keys.iter().map(|key| scheduler.gate_open(*key)).collect();
            let works = |key: u8| keys.iter().zip(&at).any(|(known, open)| *known == key && *open);
            scheduler.tick(Micros(start + tick * 100), |key| Observation {
                in_flight: works(key),
                waiting: !works(key),
                progress: tick,
                ..Observation::default()
            });
            for (count, key) in open.iter_mut().zip(keys) {
                *count += u64::from(scheduler.gate_open(*key));
            }
        }
        open
    }

    #[test]
    fn tenants_with_rooms_run_side_by_side_and_pay_for_their_part() {
        for mode in [Mode::Borrow, Mode::Hard] {
            let mut scheduler = WindowScheduler::new(WindowSettings::default());
            scheduler.set_tenants([(1, quota(30, mode)), (2, quota(70, mode))]);
            // 40 and 88 of 132 SMs: what was given is never held against anyone, though it is rounded.
            let rooms = [(303_030, 303_030), (666_666, 666_666)];
            scheduler.set_rooms(|key| {
                let (given, held) = rooms[usize::from(key) - 1];
                Some(Room { given: ppm(given), held: ppm(held) })
            });
            let ticks = 100_000;
            assert_eq!(run(&mut scheduler, ticks, &[1, 2]), [ticks, ticks], "{mode:?}: nobody waits");
            for (key, (given, _)) in [1, 2].into_iter().zip(rooms) {
                let charged = scheduler.account(key).map_or(0, |account| account.charged.0);
                let due = ticks * 100 * u64::from(given) / 1_000_000;
                assert!(charged.abs_diff(due) * 1_000 <= due, "{mode:?}: {key} pays {charged} of {due} us");
            }
        }
    }

    #[test]
    fn who_holds_more_than_it_was_given_gets_it_for_less_of_the_time() {
        let mut scheduler = WindowScheduler::new(WindowSettings::default());
        scheduler.set_tenants([(1, quota(20, Mode::Hard)), (2, quota(80, Mode::Hard))]);
        scheduler.set_rooms(|key| {
            let given = ppm(if key == 1 { 200_000 } else { 800_000 });
            Some(Room { given, held: ppm(800_000).min(ppm(if key == 1 { 800_000 } else { 200_000 })) })
        });
        run(&mut scheduler, 20_000, &[1, 2]);
        let open = run(&mut scheduler, 100_000, &[1, 2]);
        let percent = open[0] / 1_000;
        assert!((23..=27).contains(&percent), "four times too much, {percent} % of the time");
        assert_eq!(open[1], 100_000, "who holds less than it was given never waits");
    }

    #[test]
    fn a_tenant_without_a_room_counts_as_holding_the_device() {
        let mut scheduler = WindowScheduler::new(WindowSettings::default());
        scheduler.set_tenants([(1, quota(50, Mode::Hard)), (2, quota(50, Mode::Hard))]);
        scheduler.set_rooms(|key| (key == 1).then_some(Room { given: ppm(500_000), held: ppm(500_000) }));
        run(&mut scheduler, 20_000, &[1, 2]);
        let open = run(&mut scheduler, 100_000, &[1, 2]);
        assert_eq!(open[0], 100_000);
        let percent = open[1] / 1_000;
        assert!((47..=53).contains(&percent), "the whole device, {percent} % of the time");
    }

    #[test]
    fn without_rooms_the_device_is_shared_by_time_again() {
        let mut scheduler = WindowScheduler::new(WindowSettings::default());
        scheduler.set_tenants([(1, quota(50, Mode::Borrow)), (2, quota(50, Mode::Borrow))]);
        scheduler.set_rooms(|_| Some(Room { given: ppm(500_000), held: ppm(500_000) }));
        assert!(scheduler.is_spatial());
        run(&mut scheduler, 1_000, &[1, 2]);
        scheduler.set_rooms(|_| None);
        run(&mut scheduler, 1_000, &[1, 2]);
        let open = run(&mut scheduler, 10_000, &[1, 2]);
        assert!(open.iter().all(|&open| open < 6_000), "{open:?}: windows take turns");
    }
}
