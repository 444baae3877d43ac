//! Whose turn it is on one device: exclusive windows, charged by measured time.
//!
//! ```text
//!             a second tenant becomes active
//!   OPEN  ------------------------------------>  WINDOWS
//!   every gate with credit is open               one owner's gate is open
//!         <------------------------------------  owner changes when its window ends and it has drained, it
//!             at most one tenant is active        idles, or someone who goes before it shows up
//! ```
//!
//! Without MPS, processes time-slice a GPU and never run at once, so an exclusive window costs no concurrency,
//! and inside it wall time is GPU time: metering is exact without a model of any kernel. When a window ends,
//! the owner's gate closes, and the next one opens when what the owner had under way is done: were both at
//! work, the device would alternate between them at a rhythm of its own that nobody here can see. Where several
//! are at work all the same (an express tenant in another's window, a kernel that does not end), each pays for the
//! batches it completes, and the rest of the time goes to who may have had it (`contender`). Every microsecond in
//! which some tenant is active is charged once.
//!
//! Each round of windows is divided in proportion to rates, and rounds grow while the same tenants contend without
//! a pause, because each change of context costs the device time; they are short again as soon as someone comes
//! or goes. The gate of an express tenant that has tokens stays open in the windows of those who are not, so that
//! it need not wait for a tick.
//!
//! A program that waits for each of its results leaves the device idle in between. Such a host-bound tenant gives
//! its window up at once and keeps its gate open, as long as it has not had more than its part: its next burst
//! takes the device back. Before a burst ends, the gate of whoever fills the gap opens. Two host-bound tenants
//! take turns by themselves.
//!
//! A tenant whose work makes no progress long after its gate closed is stuck: nobody waits for its end any more, and the
//! device's own slices keep the others alive. If it still makes none, its kernel has no end, or its program was stopped
//! and cannot report: it is lost, and the others go on as if it were not there. Its debt stops growing at some point, so
//! that it is not shut out for ever should the kernel end.
//!
//! Where tenants have SMs of their own (`Room`), they run side by side: no windows, every gate is open as long as its
//! tenant has tokens, and each pays for its own time only, as much of it as it holds of the device. So time and space
//! compose: who holds more of the device than it was given, because its share shrank under running programs or several of
//! them hold a part each, gets it for less of the time.
//!
//! Tokens accrue at each tenant's rate: its nominal share, plus, in borrow mode, its part of what the idle
//! ones leave. The active tenant whose bucket is fullest, as a part of its cap, goes next: caps are in proportion
//! to shares, so equal fill means equal service. The long-run error of a share is thus at most
//! the largest overshoot divided by the time looked at; there is no gain to tune and nothing to oscillate.
//!
//! Read in this order: `settings`, `contender` (what one tenant is seen to do, and pays), this file (whose turn it
//! is), `room` (parts of the device instead of turns), `rates`, `sleep` (when to look again), `lead` (which of a tenant's processes), `filling` (batches not closed).

mod settings;
mod contender;
mod room;
mod rates;
mod sleep;
mod lead;
mod filling;

pub use contender::Observation;
pub use filling::Filling;
pub use lead::Lead;
pub use room::Room;
pub use settings::WindowSettings;

use crate::tenant::{Class, ComputeQuota};
use crate::units::Micros;
use contender::{Contender, share_of};

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
    /// Whether work of it is under way that does not end.
    pub stuck: bool,
}

/// The scheduler of one device.
#[derive(Clone, Debug)]
pub struct WindowScheduler<K> {
    settings: WindowSettings,
    contenders: Vec<(K, Contender)>,
    /// Index of the tenant whose window it is; `None` in the open phase.
    owner: Option<usize>,
    /// Since when the owner's gate has been closed; the next one opens when it has drained.
    draining: Option<Micros>,
    window_end: Micros,
    /// Length of the next window.
    length: Micros,
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
            length: settings.window_min,
            now: None,
        }
    }

    /// Replaces the set of tenants. Those that stay keep their debt, or as full a bucket as before: what they
    /// saved under another share does not delay the new one. New ones start with a half-full bucket and an
    /// open gate. Takes effect at the next tick.
    pub fn set_tenants(&mut self, tenants: impl IntoIterator<Item = (K, ComputeQuota)>) {
        let owner = self.owner.map(|index| self.contenders[index].0);
        let mut next = Vec::new();
        for (key, quota) in tenants {
            let burst = match quota.class {
                Class::Express => self.settings.burst_express,
                Class::Standard | Class::Batch => self.settings.burst,
            };
            let cap = share_of(burst, quota.nominal);
            let kept =
                self.contenders.iter().find(|(known, _)| *known == key).map(|(_, contender)| *contender);
            let mut contender = kept.unwrap_or_else(|| Contender::new(quota, cap));
            contender.quota = quota;
            contender.bucket.resize(cap);
            next.push((key, contender));
        }
        self.contenders = next;
        self.owner = owner.and_then(|key| self.index_of(key));
        self.draining = self.draining.filter(|_| self.owner.is_some());
    }

    /// Charges the time since the last tick, then decides whose gates are open. `observe` is asked once per
    /// tenant. Ticks may come at any spacing; the spacing bounds how late a window ends, not what is charged.
    pub fn tick(&mut self, now: Micros, mut observe: impl FnMut(K) -> Observation) {
        let elapsed = now.saturating_sub(self.now.unwrap_or(now));
        self.now = Some(now);
        self.observe(now, &mut observe);
        self.charge(elapsed, now);
        for (index, rate) in self.rates(now).into_iter().enumerate() {
            self.contenders[index].1.earn(elapsed, rate, &self.settings);
        }
        let active = self.contenders.iter().filter(|(_, c)| c.is_active(now, &self.settings)).count();
        if self.is_spatial() {
            self.step_rooms();
        } else if 1 < active {
            self.step_windows(now);
        } else {
            self.step_open();
        }
    }

    /// Whether the tenant's gate is to be open. `false` for a tenant the scheduler does not know.
    #[must_use]
    pub fn gate_open(&self, key: K) -> bool {
        self.index_of(key).is_some_and(|index| self.contenders[index].1.gate_open)
    }

    /// Whether the device is to be the tenant's alone now. An express tenant's gate stays open in others' windows, and
    /// its processes are not kept waiting for one another.
    #[must_use]
    pub fn is_exclusive(&self, key: K) -> bool {
        let index = self.index_of(key);
        self.owner.is_some()
            && self.owner == index
            && self.draining.is_none()
            && index.is_some_and(|index| self.contenders[index].1.quota.class != Class::Express)
    }

    /// What the tenant has used.
    #[must_use]
    pub fn account(&self, key: K) -> Option<Account> {
        let contender = &self.contenders[self.index_of(key)?].1;
        Some(Account {
            charged: contender.charged,
            tokens_us: contender.bucket.level_us(),
            throttled: contender.throttled,
            active: contender.is_active(self.now.unwrap_or(Micros::ZERO), &self.settings),
            stuck: contender.stuck,
        })
    }

    fn index_of(&self, key: K) -> Option<usize> {
        self.contenders.iter().position(|(known, _)| *known == key)
    }

    fn observe(&mut self, now: Micros, observe: &mut impl FnMut(K) -> Observation) {
        let mut came = false;
        for (index, (key, contender)) in self.contenders.iter_mut().enumerate() {
            came |= contender.look(now, observe(*key), &self.settings) && self.owner != Some(index);
        }
        if came {
            self.length = self.settings.window_min;
            self.window_end = self.window_end.min(now.saturating_add(self.settings.window_min));
        }
    }

    /// See the head of this module for who pays. What several claim is divided among them by their claims; what
    /// nobody claims is the owner's, whose switch and drain it is, unless others' gates stood open as well.
    fn charge(&mut self, elapsed: Micros, now: Micros) {
        if self.is_spatial() {
            return self.charge_rooms(elapsed);
        }
        let (settings, owner) = (self.settings, self.owner);
        let guest = |(i, (_, c)): (usize, &(K, Contender))| Some(i) != owner && c.host_bound && c.gate_open;
        let alone = !self.contenders.iter().enumerate().any(guest);
        let mut uses: Vec<u64> =
            self.contenders.iter_mut().map(|(_, contender)| contender.used(elapsed, &settings).0).collect();
        if 1 < uses.iter().filter(|&&used| 0 < used).count() {
            self.share_out(&mut uses);
        } else {
            for ((_, contender), &used) in self.contenders.iter_mut().zip(&uses) {
                contender.had_device(Micros(used), now);
            }
        }
        let claimed: u64 = uses.iter().sum();
        // Each pays from where the one before ended, so that no division loses a microsecond.
        let up_to = |uses: u64| uses.min(elapsed.0).min(elapsed.0 * uses / claimed.max(1));
        let part = |uses: u64| if claimed <= elapsed.0 { uses } else { up_to(uses) };
        let mut counted = 0;
        for (index, own) in uses.into_iter().enumerate() {
            self.charge_one(index, Micros(part(counted + own) - part(counted)));
            counted += own;
        }
        if let Some(owner) = owner.filter(|_| alone) {
            self.charge_one(owner, Micros(elapsed.0 - part(counted)));
        }
    }

    /// Divides a span in which several were at work: first what completed batches took for sure, then the rest
    /// among those who may have had it. The device was busy for at least as long as any one seemed to be.
    fn share_out(&mut self, uses: &mut [u64]) {
        let greatest = uses.iter().copied().max().unwrap_or(0);
        let parts: Vec<(u64, u64)> = self
            .contenders
            .iter_mut()
            .zip(uses.iter())
            .map(|((_, contender), &used)| contender.shared_device(Micros(used)))
            .collect();
        let rest = greatest.saturating_sub(parts.iter().map(|(sure, _)| sure).sum());
        let possible: u64 = parts.iter().map(|(_, more)| more).sum();
        let claimed: u64 = uses.iter().sum();
        for (index, (sure, more)) in parts.into_iter().enumerate() {
            let part = (rest * more).checked_div(possible).unwrap_or(rest * uses[index] / claimed);
            self.contenders[index].1.pay(part);
            uses[index] = sure + part;
        }
    }

    fn charge_one(&mut self, index: usize, used: Micros) {
        self.contenders[index].1.charge(used, self.settings.debt_max);
    }

    /// At most one tenant is active: gates stand open, except those of tenants that spent what they own and
    /// may not borrow.
    fn step_open(&mut self) {
        self.owner = None;
        self.draining = None;
        self.length = self.settings.window_min;
        for (_, contender) in &mut self.contenders {
            contender.set_gate(!contender.shut);
            contender.throttled = contender.shut && contender.seen.waiting;
        }
    }

    fn step_windows(&mut self, now: Micros) {
        let end = self.owner.map_or(End::None, |index| {
            let owner = &self.contenders[index].1;
            let since = |last| self.settings.yield_after <= now.saturating_sub(last);
            if !owner.has_work() && owner.last_work.is_none_or(since) {
                End::Idle
            } else if self.is_outranked(index, now) {
                End::Outranked
            } else if owner.shut || self.window_end <= now {
                End::Spent
            } else {
                End::NotYet
            }
        });
        if end == End::NotYet {
            self.draining = None;
        } else {
            self.end_window(end, now);
        }
        let express_owns = self.owner.is_some_and(|owner| self.contenders[owner].1.is_express_now());
        let filler = self.filler(now);
        for index in 0..self.contenders.len() {
            let own = self.owner == Some(index) && self.draining.is_none();
            let guest = self.is_guest(index, now) || filler == Some(index);
            let contender = &mut self.contenders[index].1;
            contender.set_gate(own || guest || (contender.is_express_now() && !express_owns));
            contender.throttled =
                !contender.gate_open && contender.seen.waiting && !contender.bucket.is_positive();
        }
    }

    /// Hands the device on, or, while the owner still has work under way that will end, to nobody.
    fn end_window(&mut self, end: End, now: Micros) {
        let next = self.pick(now);
        if let Some(owner) = self.owner {
            let owner = &mut self.contenders[owner].1;
            match end {
                End::Idle => owner.host_bound = true,
                End::Spent => owner.host_bound = owner.idled,
                End::None | End::NotYet | End::Outranked => {}
            }
        }
        let mut length = self.settings.window_min;
        if next != self.owner {
            let drains = self.owner.is_some_and(|owner| {
                let owner = &self.contenders[owner].1;
                owner.seen.in_flight && !owner.stuck
            });
            if drains && end != End::Outranked {
                self.draining = self.draining.or(Some(now));
                return;
            }
            self.owner = next;
            self.length = match end {
                End::Spent => Micros(self.length.0 * 2).min(self.settings.window_max),
                End::Idle | End::Outranked => self.length,
                End::None | End::NotYet => self.settings.window_min,
            };
            length = next.map_or(length, |next| self.part_of_round(next, now));
        }
        if let Some(next) = next {
            self.contenders[next].1.idled = false;
        }
        self.draining = None;
        self.window_end = now.saturating_add(length);
    }

    /// A tenant's part of a round in which every active one has a window: windows in proportion to rates keep
    /// shares right within every round, however short the time looked at.
    fn part_of_round(&self, index: usize, now: Micros) -> Micros {
        let rates = self.rates(now);
        let active = |i: &usize| *i == index || self.contenders[*i].1.is_active(now, &self.settings);
        let (count, sum) = (0..rates.len())
            .filter(active)
            .fold((0, 0), |(count, sum), i| (count + 1, sum + u64::from(rates[i].get())));
        let part = (self.length.0 * count * u64::from(rates[index].get())).checked_div(sum);
        Micros(part.unwrap_or(self.length.0).max(self.settings.window_min.0 / 2))
    }

    /// Whether someone with an open gate shows work and goes before the owner: an express tenant, or one that gave
    /// its own window up and has had less than the owner.
    fn is_outranked(&self, owner: usize, now: Micros) -> bool {
        let own = &self.contenders[owner].1;
        self.contenders.iter().enumerate().any(|(index, (_, contender))| {
            let express = !own.is_express_now() && contender.is_express_now();
            let guest = !own.host_bound && contender.gate_open && self.is_guest(index, now);
            index != owner && contender.has_work() && (express || guest)
        })
    }

    /// Whether its gate stays open in another's window: it leaves the device idle in its own, and what it does not
    /// use others fill. Two such tenants take turns by themselves, as long as neither runs away from the other.
    fn is_guest(&self, index: usize, now: Micros) -> bool {
        let contender = &self.contenders[index].1;
        let not_behind = self.owner.is_none_or(|owner| {
            let owner = &self.contenders[owner].1;
            let ahead_max = if owner.host_bound { GUEST_AHEAD_PPM_MAX } else { 0 };
            let measured = !owner.has_work() || owner.is_measured(now, &self.settings);
            measured
                && !owner.is_express_now()
                && owner.bucket.fill_ppm() - ahead_max <= contender.bucket.fill_ppm()
        });
        contender.host_bound && !contender.shut && not_behind
    }

    /// The next owner: express tenants with tokens first, then the one with the most tokens.
    fn pick(&self, now: Micros) -> Option<usize> {
        self.pick_of(now, |_| true)
    }

    /// Who goes on when the owner, which leaves the device idle between its bursts, has come to the end of one. Its
    /// gate opens a little early: the device goes from one to the next faster than anybody here can see.
    fn filler(&self, now: Micros) -> Option<usize> {
        let owner = self.owner.filter(|_| self.draining.is_none())?;
        let own = &self.contenders[owner].1;
        let ends = own.host_bound
            && own.is_measured(now, &self.settings)
            && own.seen.last_batch
            && own.has_work()
            && !own.is_express_now();
        ends.then(|| self.pick_of(now, |index| index != owner))?
    }

    fn pick_of(&self, now: Micros, among: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.contenders.len())
            .filter(|&index| among(index))
            .filter(|&index| {
                let contender = &self.contenders[index].1;
                let stays = self.owner == Some(index) && contender.is_active(now, &self.settings);
                (contender.has_work() || stays) && !contender.shut
            })
            .max_by_key(|&index| {
                let contender = &self.contenders[index].1;
                let express = contender.is_express_now();
                // The lower index wins a tie, so that equal tenants take turns by their tokens alone.
                (express, contender.bucket.fill_ppm(), core::cmp::Reverse(index))
            })
    }
}

/// How much more of its bucket than another a host-bound tenant may have used while both gates stay open, in parts
/// per million of the bucket's cap: two milliseconds of a whole device's.
const GUEST_AHEAD_PPM_MAX: i64 = 100_000;

/// Why a window ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is none.
    None,
    /// It does not.
    NotYet,
    /// Its owner has nothing to do.
    Idle,
    /// Someone who goes first shows work.
    Outranked,
    /// It is over, or its owner's tokens are.
    Spent,
}
