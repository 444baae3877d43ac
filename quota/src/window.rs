//! Whose turn it is on one device: exclusive windows, charged by measured time.
//!
//! ```text
//!             a second tenant becomes active
//!   OPEN  ------------------------------------>  WINDOWS
//!   every gate with credit is open               one owner's gate is open
//!         <------------------------------------  owner changes when its window ends, it runs dry,
//!             at most one tenant is active        or an express tenant with tokens shows up
//! ```
//!
//! Without MPS, processes time-slice a GPU and never run at once, so an exclusive window costs no concurrency,
//! and inside it wall time is GPU time: metering is exact without a model of any kernel. When a window ends,
//! the owner's gate closes and the next one's opens at once, so that the device does not idle while the new
//! owner's program wakes up. What the last owner still has under way is charged to it alone for one hardware
//! time slice, which the device finishes before it turns to another context; if it takes longer than that,
//! the device alternates, and time is split evenly among all that have work under way. So every microsecond
//! in which some tenant is active is charged once, whatever the kernels do.
//!
//! Tokens accrue at each tenant's rate: its nominal share, plus, in borrow mode, its part of what the idle
//! ones leave. The active tenant whose bucket is fullest, as a part of its cap, goes next: caps are in proportion
//! to shares, so equal fill means equal service. The long-run error of a share is thus at most
//! the largest overshoot divided by the time looked at; there is no gain to tune and nothing to oscillate.

use crate::bucket::Bucket;
use crate::tenant::{Class, ComputeQuota};
use crate::units::{Micros, Ppm};

/// How the scheduler paces itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowSettings {
    /// Length of a window.
    pub window: Micros,
    /// An owner without work for this long gives the window up.
    pub yield_after: Micros,
    /// Tokens a whole device's bucket holds; a tenant's holds its share of that. Bounds the burst of a tenant
    /// that comes back from idling.
    pub burst: Micros,
    /// The device's own time slice, for which a context keeps the device when another has work too.
    pub slice: Micros,
    /// How long a tenant counts as active after its last sign of work. Bridges the gaps of host-bound
    /// programs, so that a pause between two launches does not hand the window away for good.
    pub linger: Micros,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            window: Micros(2_000),
            yield_after: Micros(200),
            burst: Micros(50_000),
            slice: Micros(1_000),
            linger: Micros(1_000),
        }
    }
}

/// What the daemon saw of one tenant on the device since the last tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// Some batch is submitted and not complete.
    pub in_flight: bool,
    /// Some thread waits at the gate.
    pub waiting: bool,
}

/// One tenant's place at the device.
#[derive(Clone, Copy, Debug)]
struct Contender {
    quota: ComputeQuota,
    bucket: Bucket,
    gate_open: bool,
    /// When the gate last opened.
    opened: Micros,
    seen: Observation,
    last_work: Option<Micros>,
    charged: Micros,
    throttled: bool,
    /// Its tokens are spent, and it waits until it has earned enough for a window worth opening.
    shut: bool,
}

/// What a tenant has used, for display and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// Device time charged since the tenant was added.
    pub charged: Micros,
    /// Tokens left, negative in debt.
    pub tokens_us: i64,
    /// Whether it waits now because its tokens are spent.
    pub throttled: bool,
    /// Whether it shows signs of work.
    pub active: bool,
}

/// The scheduler of one device.
#[derive(Clone, Debug)]
pub struct WindowScheduler<K> {
    settings: WindowSettings,
    contenders: Vec<(K, Contender)>,
    /// Index of the tenant whose window it is; `None` in the open phase.
    owner: Option<usize>,
    /// The last owner while it still has work under way, and since when.
    draining: Option<(usize, Micros)>,
    window_end: Micros,
    now: Option<Micros>,
}

impl<K: Copy + PartialEq> WindowScheduler<K> {
    /// A scheduler without tenants.
    #[must_use]
    pub fn new(settings: WindowSettings) -> Self {
        Self {
            settings,
            contenders: Vec::new(),
            owner: None,
            draining: None,
            window_end: Micros::ZERO,
            now: None,
        }
    }

    /// Replaces the set of tenants. Those that stay keep their tokens, cut to the new cap; new ones start with
    /// a half-full bucket and an open gate. Takes effect at the next tick.
    pub fn set_tenants(&mut self, tenants: impl IntoIterator<Item = (K, ComputeQuota)>) {
        let owner = self.owner.map(|index| self.contenders[index].0);
        let draining = self.draining.map(|(index, since)| (self.contenders[index].0, since));
        let mut next = Vec::new();
        for (key, quota) in tenants {
            let cap = share_of(self.settings.burst, quota.nominal);
            let kept =
                self.contenders.iter().find(|(known, _)| *known == key).map(|(_, contender)| *contender);
            let mut contender = kept.unwrap_or(Contender {
                quota,
                bucket: Bucket::half_full(cap),
                gate_open: true,
                opened: Micros::ZERO,
                seen: Observation::default(),
                last_work: None,
                charged: Micros::ZERO,
                throttled: false,
                shut: false,
            });
            contender.quota = quota;
            contender.bucket.set_cap(cap);
            next.push((key, contender));
        }
        self.contenders = next;
        self.owner = owner.and_then(|key| self.index_of(key));
        self.draining = draining.and_then(|(key, since)| Some((self.index_of(key)?, since)));
    }

    /// Charges the time since the last tick, then decides whose gates are open. `observe` is asked once per
    /// tenant. Ticks may come at any spacing; the spacing bounds how late a window ends, not what is charged.
    pub fn tick(&mut self, now: Micros, mut observe: impl FnMut(K) -> Observation) {
        let elapsed = now.saturating_sub(self.now.unwrap_or(now));
        self.now = Some(now);
        self.charge(elapsed, now);
        for (key, contender) in &mut self.contenders {
            contender.seen = observe(*key);
            if contender.seen.in_flight || contender.seen.waiting {
                contender.last_work = Some(now);
            }
        }
        self.refill(elapsed, now);
        if let Some((index, _)) = self.draining
            && !self.contenders[index].1.seen.in_flight
        {
            self.draining = None;
        }
        let active = self.contenders.iter().filter(|(_, c)| self.is_active(c, now)).count();
        if 1 < active {
            self.step_windows(now);
        } else {
            self.step_open(now);
        }
    }

    /// Whether the tenant's gate is to be open. `false` for a tenant the scheduler does not know.
    #[must_use]
    pub fn gate_open(&self, key: K) -> bool {
        self.index_of(key).is_some_and(|index| self.contenders[index].1.gate_open)
    }

    /// Whether ticks should come often: several tenants contend, or one works that may not have the whole
    /// device. How late a gate closes is how much such a tenant overshoots.
    #[must_use]
    pub fn contended(&self) -> bool {
        let now = self.now.unwrap_or(Micros::ZERO);
        let held_back =
            |contender: &Contender| contender.quota.ceiling() < Ppm::WHOLE && self.is_active(contender, now);
        self.owner.is_some() || self.contenders.iter().any(|(_, contender)| held_back(contender))
    }

    /// Whether any tenant showed work lately or waits for tokens.
    #[must_use]
    pub fn busy(&self) -> bool {
        let now = self.now.unwrap_or(Micros::ZERO);
        self.contenders.iter().any(|(_, contender)| self.is_active(contender, now))
    }

    /// What the tenant has used.
    #[must_use]
    pub fn account(&self, key: K) -> Option<Account> {
        let contender = &self.contenders[self.index_of(key)?].1;
        Some(Account {
            charged: contender.charged,
            tokens_us: contender.bucket.level_us(),
            throttled: contender.throttled,
            active: self.is_active(contender, self.now.unwrap_or(Micros::ZERO)),
        })
    }

    fn index_of(&self, key: K) -> Option<usize> {
        self.contenders.iter().position(|(known, _)| *known == key)
    }

    fn is_active(&self, contender: &Contender, now: Micros) -> bool {
        contender.last_work.is_some_and(|last| now.saturating_sub(last) <= self.settings.linger)
    }

    /// See the head of this module for who pays.
    fn charge(&mut self, elapsed: Micros, now: Micros) {
        let draining = self.draining.filter(|(_, since)| now.saturating_sub(*since) <= self.settings.slice);
        if let Some((index, _)) = draining {
            return self.charge_one(index, elapsed);
        }
        let running: Vec<usize> = (0..self.contenders.len())
            .filter(|&index| {
                let contender = &self.contenders[index].1;
                // Work that waited when its gate opened has the device from that moment on; if it is not seen
                // to run soon, something else keeps it.
                let just_opened = contender.gate_open
                    && contender.seen.waiting
                    && now.saturating_sub(contender.opened) <= self.settings.yield_after;
                contender.seen.in_flight || just_opened
            })
            .collect();
        match (running.len() as u64, self.owner) {
            // The window is the owner's even while its program prepares the next launch.
            (0, Some(owner)) => self.charge_one(owner, elapsed),
            (0, None) => {}
            (count, _) => {
                let (part, mut rest) = (elapsed.0 / count, elapsed.0 % count);
                for index in running {
                    let extra = u64::from(0 < rest);
                    rest -= extra;
                    self.charge_one(index, Micros(part + extra));
                }
            }
        }
    }

    fn charge_one(&mut self, index: usize, elapsed: Micros) {
        let contender = &mut self.contenders[index].1;
        contender.bucket.charge(elapsed);
        contender.charged = contender.charged.saturating_add(elapsed);
    }

    fn refill(&mut self, elapsed: Micros, now: Micros) {
        let rates = self.rates(now);
        for ((_, contender), rate) in self.contenders.iter_mut().zip(rates) {
            contender.bucket.refill(elapsed, rate);
            // Who may have the whole device is never shut: the choice of the fullest bucket keeps it in order.
            if contender.quota.ceiling() == Ppm::WHOLE {
                contender.shut = false;
            } else if !contender.bucket.is_positive() {
                contender.shut = true;
            } else if self.settings.window.0.min(contender.bucket.cap().0 / 2)
                <= contender.bucket.level_us().unsigned_abs()
            {
                contender.shut = false;
            }
        }
    }

    /// Each tenant's rate: nominal, plus for active borrowers their part, by nominal share, of what the idle
    /// ones leave, up to their ceilings. If the active ones' nominal shares add up to more than the device
    /// (the operator overcommitted it), all are scaled down alike.
    fn rates(&self, now: Micros) -> Vec<Ppm> {
        let whole = u64::from(Ppm::WHOLE.get());
        let mut rates: Vec<u64> =
            self.contenders.iter().map(|(_, c)| u64::from(c.quota.nominal.get())).collect();
        let active: Vec<usize> =
            (0..rates.len()).filter(|&i| self.is_active(&self.contenders[i].1, now)).collect();
        let owned: u64 = active.iter().map(|&i| rates[i]).sum();
        if whole < owned {
            for &i in &active {
                rates[i] = rates[i] * whole / owned;
            }
        } else {
            self.lend(&mut rates, &active, whole - owned);
        }
        rates
            .into_iter()
            .map(|rate| u32::try_from(rate).ok().and_then(Ppm::new).unwrap_or(Ppm::WHOLE))
            .collect()
    }

    /// Water-filling: what a borrower at its ceiling cannot take goes round again to the others.
    fn lend(&self, rates: &mut [u64], active: &[usize], mut spare: u64) {
        let ceiling = |i: usize| u64::from(self.contenders[i].1.quota.ceiling().get());
        for _ in 0..active.len() {
            let takers: Vec<usize> = active.iter().copied().filter(|&i| rates[i] < ceiling(i)).collect();
            // A tenant that owns nothing still borrows, with the smallest possible weight.
            let weight = |i: usize| u64::from(self.contenders[i].1.quota.nominal.get()).max(1);
            let weights: u64 = takers.iter().map(|&i| weight(i)).sum();
            if spare == 0 || weights == 0 {
                return;
            }
            let mut given = 0;
            for &i in &takers {
                let part = (spare * weight(i) / weights).min(ceiling(i) - rates[i]);
                rates[i] += part;
                given += part;
            }
            if given == 0 {
                return;
            }
            spare -= given;
        }
    }

    /// At most one tenant is active: gates stand open, except those of tenants that spent what they own and
    /// may not borrow.
    fn step_open(&mut self, now: Micros) {
        self.owner = None;
        for (_, contender) in &mut self.contenders {
            contender.set_gate(!contender.shut, now);
            contender.throttled = contender.shut && contender.seen.waiting;
        }
    }

    fn step_windows(&mut self, now: Micros) {
        let keep = self.owner.is_some_and(|index| {
            let owner = &self.contenders[index].1;
            let idle =
                owner.last_work.is_none_or(|last| self.settings.yield_after <= now.saturating_sub(last));
            let outranked = owner.quota.class < Class::Express && self.express_waits(index);
            !idle && !outranked && now < self.window_end && !owner.shut
        });
        if !keep {
            let next = self.pick(now);
            if next != self.owner {
                let last = self.owner.filter(|&last| self.contenders[last].1.seen.in_flight);
                self.draining = last.map(|last| (last, now));
                self.owner = next;
            }
            self.window_end = now.saturating_add(self.settings.window);
        }
        for (index, (_, contender)) in self.contenders.iter_mut().enumerate() {
            contender.set_gate(self.owner == Some(index), now);
            contender.throttled =
                !contender.gate_open && contender.seen.waiting && !contender.bucket.is_positive();
        }
    }

    fn express_waits(&self, except: usize) -> bool {
        self.contenders.iter().enumerate().any(|(index, (_, contender))| {
            index != except
                && contender.quota.class == Class::Express
                && contender.seen.waiting
                && contender.bucket.is_positive()
        })
    }

    /// The next owner: express tenants with tokens first, then the one with the most tokens.
    fn pick(&self, now: Micros) -> Option<usize> {
        (0..self.contenders.len())
            .filter(|&index| {
                let contender = &self.contenders[index].1;
                let has_work = contender.seen.waiting || contender.seen.in_flight;
                (has_work || (self.owner == Some(index) && self.is_active(contender, now))) && !contender.shut
            })
            .max_by_key(|&index| {
                let contender = &self.contenders[index].1;
                let express = contender.quota.class == Class::Express && contender.bucket.is_positive();
                // The lower index wins a tie, so that equal tenants take turns by their tokens alone.
                (express, contender.bucket.fill_ppm(), core::cmp::Reverse(index))
            })
    }
}

impl Contender {
    fn set_gate(&mut self, open: bool, now: Micros) {
        if open && !self.gate_open {
            self.opened = now;
        }
        self.gate_open = open;
    }
}

fn share_of(span: Micros, share: Ppm) -> Micros {
    // A tenant that owns next to nothing still holds a millisecond, or it could never open a window.
    Micros((span.0.saturating_mul(u64::from(share.get())) / u64::from(Ppm::WHOLE.get())).max(1_000))
}
