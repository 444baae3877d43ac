//! Laws of the policy, held against models that are too simple to be wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use headgate_quota::units::{Bytes, Micros, Ppm};
use headgate_quota::{
    Bucket, Class, ComputeQuota, MemoryAccount, MemoryView, Mode, Observation, WindowScheduler,
    WindowSettings,
};
use proptest::prelude::*;

fn quota(percent: u32, mode: Mode) -> ComputeQuota {
    ComputeQuota {
        nominal: Ppm::from_percent(percent).unwrap(),
        borrowing_limit: None,
        lending_limit: None,
        mode,
        class: Class::Standard,
    }
}

const SLICE_US: u64 = 1_000;

/// A device and its tenants in the small: an open gate lets a tenant put work under way, `ahead_us` at most;
/// the device works off the queues of all tenants in time slices, as a GPU does with processes.
struct World {
    scheduler: WindowScheduler<usize>,
    queued_us: Vec<u64>,
    done_us: Vec<u64>,
    wants: Vec<bool>,
    ahead_us: u64,
    kernel_us: u64,
    now: u64,
    running: usize,
    slice_left: u64,
}

impl World {
    fn new(quotas: &[ComputeQuota], ahead_us: u64, kernel_us: u64) -> Self {
        let mut scheduler = WindowScheduler::new(WindowSettings::default());
        scheduler.set_tenants(quotas.iter().copied().enumerate());
        let none = vec![0; quotas.len()];
        Self {
            scheduler,
            queued_us: none.clone(),
            done_us: none,
            wants: vec![true; quotas.len()],
            ahead_us,
            kernel_us,
            now: 0,
            running: 0,
            slice_left: SLICE_US,
        }
    }

    fn step(&mut self, tick_us: u64) {
        let tenants = self.queued_us.len();
        let mut left = tick_us;
        while 0 < left && self.queued_us.iter().any(|&queued| 0 < queued) {
            let run = self.queued_us[self.running].min(left).min(self.slice_left);
            self.queued_us[self.running] -= run;
            self.done_us[self.running] += run;
            left -= run;
            self.slice_left -= run;
            if self.slice_left == 0 || self.queued_us[self.running] == 0 {
                self.running = (self.running + 1) % tenants;
                self.slice_left = SLICE_US;
            }
        }
        self.now += tick_us;
        for tenant in 0..self.queued_us.len() {
            if self.wants[tenant] && self.scheduler.gate_open(tenant) {
                while self.queued_us[tenant] < self.ahead_us {
                    self.queued_us[tenant] += self.kernel_us;
                }
            }
        }
        let (queued, wants) = (self.queued_us.clone(), self.wants.clone());
        let open: Vec<bool> = (0..queued.len()).map(|t| self.scheduler.gate_open(t)).collect();
        self.scheduler.tick(Micros(self.now), |tenant| Observation {
            in_flight: 0 < queued[tenant],
            waiting: wants[tenant] && !open[tenant],
            progress: 0,
            ..Observation::default()
        });
    }

    fn run(&mut self, span_us: u64, tick_us: u64) {
        let end = self.now + span_us;
        while self.now < end {
            self.step(tick_us);
        }
    }

    fn share_ppm(&self, tenant: usize, span_us: u64) -> u64 {
        self.done_us[tenant] * 1_000_000 / span_us
    }
}

#[test]
fn two_saturating_tenants_get_their_shares() {
    for (a, b) in [(70, 30), (50, 50), (10, 90)] {
        let mut world = World::new(&[quota(a, Mode::Borrow), quota(b, Mode::Borrow)], 500, 50);
        world.run(10_000_000, 100);
        let share = world.share_ppm(0, 10_000_000);
        assert!(share.abs_diff(u64::from(a) * 10_000) < 10_000, "{a}/{b}: {share} ppm");
    }
}

#[test]
fn three_tenants_and_long_kernels_keep_their_shares() {
    let quotas = [quota(50, Mode::Borrow), quota(30, Mode::Borrow), quota(20, Mode::Hard)];
    let mut world = World::new(&quotas, 500, 20_000);
    world.run(60_000_000, 100);
    for (tenant, percent) in [(0, 50), (1, 30), (2, 20)] {
        let share = world.share_ppm(tenant, 60_000_000);
        assert!(share.abs_diff(percent * 10_000) < 10_000, "tenant {tenant}: {share} ppm");
    }
}

#[test]
fn a_lone_borrower_has_the_device_and_a_lone_hard_tenant_its_share() {
    let mut world = World::new(&[quota(30, Mode::Borrow), quota(70, Mode::Borrow)], 500, 50);
    world.wants[1] = false;
    world.run(5_000_000, 100);
    assert!(980_000 < world.share_ppm(0, 5_000_000));
    let mut world = World::new(&[quota(30, Mode::Hard), quota(70, Mode::Borrow)], 500, 50);
    world.wants[1] = false;
    world.run(5_000_000, 100);
    assert!(world.share_ppm(0, 5_000_000).abs_diff(300_000) < 15_000, "{}", world.share_ppm(0, 5_000_000));
}

#[test]
fn an_owner_that_comes_back_is_served_within_a_window_and_the_residue() {
    let mut world = World::new(&[quota(30, Mode::Borrow), quota(70, Mode::Borrow)], 500, 50);
    world.wants[1] = false;
    world.run(1_000_000, 100);
    world.wants[1] = true;
    world.run(3_000, 100);
    assert!(0 < world.done_us[1], "served after {} us", 3_000);
}

#[test]
fn an_express_tenant_takes_the_window_at_once() {
    let express = ComputeQuota { class: Class::Express, ..quota(50, Mode::Borrow) };
    let mut world = World::new(&[quota(50, Mode::Borrow), express], 200, 50);
    world.run(100_050, 50);
    world.wants[1] = false;
    world.run(50_000, 50);
    world.wants[1] = true;
    let before = world.done_us[1];
    world.run(600, 50);
    assert!(before < world.done_us[1]);
}

#[test]
fn overcommitted_shares_are_scaled_alike() {
    let mut world = World::new(&[quota(100, Mode::Borrow), quota(50, Mode::Borrow)], 500, 50);
    world.run(10_000_000, 100);
    assert!(world.share_ppm(0, 10_000_000).abs_diff(666_666) < 15_000);
}

#[test]
fn a_removed_owner_leaves_no_trace() {
    let mut world = World::new(&[quota(50, Mode::Borrow), quota(50, Mode::Borrow)], 500, 50);
    world.run(10_000, 100);
    world.scheduler.set_tenants([(1, quota(50, Mode::Borrow))]);
    world.wants[0] = false;
    world.run(1_000_000, 100);
    assert!(!world.scheduler.gate_open(0));
    assert!(world.scheduler.gate_open(1));
}

proptest! {
    #[test]
    fn charged_time_is_conserved(percents in proptest::collection::vec(1u32..60, 2..5), tick in 20u64..500, kernel in 10u64..5_000) {
        let quotas: Vec<_> = percents.iter().map(|&p| quota(p, Mode::Borrow)).collect();
        let mut world = World::new(&quotas, 500, kernel);
        world.run(1_000_000, tick);
        let charged: u64 = (0..quotas.len()).map(|t| world.scheduler.account(t).unwrap().charged.0).sum();
        let elapsed = world.now;
        // Everyone is active all the time, so every microsecond but the first tick's is somebody's.
        prop_assert!(elapsed - 3 * tick <= charged && charged <= elapsed, "{} of {}", charged, elapsed);
    }

    #[test]
    fn nobody_starves(percents in proptest::collection::vec(1u32..100, 2..6)) {
        let quotas: Vec<_> = percents.iter().map(|&p| quota(p, Mode::Borrow)).collect();
        let mut world = World::new(&quotas, 500, 50);
        world.run(5_000_000, 200);
        for (tenant, done) in world.done_us.iter().enumerate() {
            prop_assert!(0 < *done, "tenant {} of {:?}", tenant, percents);
        }
    }

    #[test]
    fn a_bucket_never_passes_its_cap_and_forgets_nothing(cap in 1u64..1_000_000, steps in proptest::collection::vec((0u64..10_000, 0u32..=1_000_000, 0u64..20_000), 1..200)) {
        let mut bucket = Bucket::full(Micros(cap));
        let mut model = i128::from(cap) * 1_000_000;
        for (elapsed, rate, used) in steps {
            bucket.refill(Micros(elapsed), Ppm::new(rate).unwrap());
            model = (model + i128::from(elapsed) * i128::from(rate)).min(i128::from(cap) * 1_000_000);
            bucket.charge(Micros(used));
            model -= i128::from(used) * 1_000_000;
            prop_assert_eq!(i128::from(bucket.level()), model);
            prop_assert!(bucket.level_us() <= i64::try_from(cap).unwrap());
        }
    }

    #[test]
    fn the_view_never_lies_about_order(limit in proptest::option::of(any::<u64>()), used: u64, total: u64, free: u64) {
        let device = MemoryView { total: Bytes(total), free: Bytes(free.min(total)) };
        let view = MemoryView::under(limit.map(Bytes), Bytes(used), device);
        prop_assert!(view.free <= view.total);
        prop_assert!(view.total <= device.total);
        if let Some(limit) = limit {
            prop_assert_eq!(view.total, Bytes(limit).min(device.total));
        }
    }

    #[test]
    fn an_account_is_never_over_its_limit(limit in 0u64..1_000, steps in proptest::collection::vec((any::<bool>(), 0u64..400), 0..200)) {
        let mut account = MemoryAccount::new(Some(Bytes(limit)));
        let mut live: Vec<u64> = Vec::new();
        for (take, bytes) in steps {
            if take {
                let fits = live.iter().sum::<u64>() + bytes <= limit;
                prop_assert_eq!(account.charge(Bytes(bytes)).is_ok(), fits);
                if fits { live.push(bytes); }
            } else if let Some(bytes) = live.pop() {
                account.credit(Bytes(bytes));
            }
            prop_assert_eq!(account.used().0, live.iter().sum::<u64>());
        }
    }
}
