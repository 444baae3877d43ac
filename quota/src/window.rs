//! Whose turn it is on one device: exclusive windows, charged by measured time.
//!
//! ```text
//!             a second tenant becomes active
//!   OPEN  ------------------------------------>  WINDOWS
//!   every gate with credit is open               one owner's gate is open
//!         <------------------------------------  owner changes when its window ends and it has drained, it
//!             at most one tenant is active        idles, or an express tenant with tokens shows up
//! ```
//!
//! Without MPS, processes time-slice a GPU and never run at once, so an exclusive window costs no concurrency,
//! and inside it wall time is GPU time: metering is exact without a model of any kernel. When a window ends,
//! the owner's gate closes, and the next one opens when what the owner had under way is done: were both at
//! work, the device would alternate between them at a rhythm of its own that nobody here can see. Where several
//! are at work all the same (an express tenant in another's window, a kernel that does not end), time is split
//! evenly among them, as the device does. Every microsecond in which some tenant is active is charged once.
//!
//! Windows grow while the same tenants contend without a pause, because each change of context costs the device
//! time; they are short again as soon as someone comes or goes. The gate of an express tenant that has tokens
//! stays open in the windows of those who are not, so that it need not wait for a tick: what overlaps is split.
//!
//! A tenant whose work makes no progress long after its gate closed is stuck: the device's own slices keep the
//! others alive, and its debt stops growing, so that it is not shut out for ever should the kernel end.
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
    /// Length of a window after someone came or went.
    pub window_min: Micros,
    /// Length windows grow to.
    pub window_max: Micros,
    /// An owner without work for this long gives the window up.
    pub yield_after: Micros,
    /// Tokens a whole device's bucket holds; a tenant's holds its share of that. Bounds the burst of a tenant
    /// that comes back from idling, and how long a change of quota takes to settle.
    pub burst: Micros,
    /// The same for express tenants, whose requests come in bunches.
    pub burst_express: Micros,
    /// Deepest debt, for tenants whose work does not end.
    pub debt_max: Micros,
    /// How long a tenant counts as active after its last sign of work. Bridges the gaps of host-bound
    /// programs, so that a pause between two launches does not hand the window away for good.
    pub linger: Micros,
    /// Work under way that completes nothing for this long after its gate closed is stuck. Nobody waits for it
    /// any longer: the device's own slices share it out.
    pub stuck_after: Micros,
    /// Between two looks while tenants contend: how late a window ends.
    pub tick_contended: Micros,
    /// The same while the next tenant waits for the end of what the last one has under way; an eighth of how
    /// long it has waited already, if that is more.
    pub tick_draining: Micros,
    /// The same where an express tenant may show up.
    pub tick_express: Micros,
    /// Between two looks while one tenant is busy: how late a second one is noticed.
    pub tick_busy: Micros,
    /// Between two looks while nobody has been for as long as `wake`.
    pub tick_idle: Micros,
    /// How long after its last sign of work a tenant may be back at any moment.
    pub wake: Micros,
    /// Device time a batch should hold.
    pub batch: Micros,
    /// The same beside an express tenant, which waits for the end of one.
    pub batch_beside_express: Micros,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            window_min: Micros(1_000),
            window_max: Micros(5_000),
            yield_after: Micros(100),
            burst: Micros(20_000),
            burst_express: Micros(200_000),
            debt_max: Micros(1_000_000),
            linger: Micros(1_000),
            stuck_after: Micros(50_000),
            tick_contended: Micros(100),
            tick_draining: Micros(20),
            tick_express: Micros(50),
            tick_busy: Micros(500),
            tick_idle: Micros(15_000),
            wake: Micros(50_000),
            batch: Micros(250),
            batch_beside_express: Micros(100),
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
    /// A number that changes whenever a batch completes.
    pub progress: u64,
}

/// One tenant's place at the device.
#[derive(Clone, Copy, Debug)]
struct Contender {
    quota: ComputeQuota,
    bucket: Bucket,
    gate_open: bool,
    seen: Observation,
    /// Whether work was under way right after the last but one look.
    ran_before: bool,
    last_work: Option<Micros>,
    charged: Micros,
    throttled: bool,
    /// Its tokens are spent, and it waits until it has earned enough for a window worth opening.
    shut: bool,
    /// Since when its gate has been closed and nothing of what is under way has completed.
    overrun_since: Option<Micros>,
    stuck: bool,
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
            let mut contender = kept.unwrap_or(Contender {
                quota,
                bucket: Bucket::half_full(cap),
                gate_open: true,
                seen: Observation::default(),
                ran_before: false,
                last_work: None,
                charged: Micros::ZERO,
                throttled: false,
                shut: false,
                overrun_since: None,
                stuck: false,
            });
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
        self.charge(elapsed);
        self.refill(elapsed, now);
        let active = self.contenders.iter().filter(|(_, c)| self.is_active(c, now)).count();
        if 1 < active {
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

    /// Longest span until the next tick. How late a gate closes is how much a tenant overshoots.
    #[must_use]
    pub fn next_tick(&self) -> Micros {
        let now = self.now.unwrap_or(Micros::ZERO);
        let lately = |contender: &Contender| {
            contender.last_work.is_some_and(|last| now.saturating_sub(last) <= self.settings.wake)
        };
        let active = |contender: &Contender| self.is_active(contender, now);
        let express = self.contenders.iter().any(|(_, contender)| contender.is_express_now());
        if !self.contenders.iter().any(|(_, contender)| lately(contender)) {
            self.settings.tick_idle
        } else if !self.contenders.iter().any(|(_, contender)| active(contender)) {
            self.settings.tick_busy
        } else if express && 1 < self.contenders.len() {
            self.settings.tick_express
        } else if let Some(since) = self.draining {
            let waited = Micros(now.saturating_sub(since).0 / 8);
            waited.clamp(self.settings.tick_draining, self.settings.tick_contended)
        } else if self.contended() {
            self.settings.tick_contended
        } else {
            self.settings.tick_busy
        }
    }

    /// Whether several tenants contend, or one works that may not have the whole device.
    #[must_use]
    pub fn contended(&self) -> bool {
        let now = self.now.unwrap_or(Micros::ZERO);
        let held_back =
            |contender: &Contender| contender.quota.ceiling() < Ppm::WHOLE && self.is_active(contender, now);
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

    /// What the tenant has used.
    #[must_use]
    pub fn account(&self, key: K) -> Option<Account> {
        let contender = &self.contenders[self.index_of(key)?].1;
        Some(Account {
            charged: contender.charged,
            tokens_us: contender.bucket.level_us(),
            throttled: contender.throttled,
            active: self.is_active(contender, self.now.unwrap_or(Micros::ZERO)),
            stuck: contender.stuck,
        })
    }

    fn index_of(&self, key: K) -> Option<usize> {
        self.contenders.iter().position(|(known, _)| *known == key)
    }

    fn is_active(&self, contender: &Contender, now: Micros) -> bool {
        contender.last_work.is_some_and(|last| now.saturating_sub(last) <= self.settings.linger)
    }

    fn observe(&mut self, now: Micros, observe: &mut impl FnMut(K) -> Observation) {
        let WindowSettings { linger, stuck_after, window_min, .. } = self.settings;
        let mut came = false;
        for (index, (key, contender)) in self.contenders.iter_mut().enumerate() {
            let before = contender.seen;
            // What waited at a gate that opened at the last look has run since that look.
            contender.ran_before = before.in_flight || (before.waiting && contender.gate_open);
            contender.seen = observe(*key);
            if contender.seen.in_flight || contender.seen.waiting {
                let idled = contender.last_work.is_none_or(|last| linger < now.saturating_sub(last));
                came |= idled && self.owner != Some(index);
                contender.last_work = Some(now);
            }
            let overruns = contender.seen.in_flight
                && !contender.gate_open
                && before.progress == contender.seen.progress;
            contender.overrun_since = overruns.then(|| contender.overrun_since.unwrap_or(now));
            // Once stuck it stays so, whatever its gate, until something completes.
            let still =
                contender.stuck && contender.seen.in_flight && before.progress == contender.seen.progress;
            contender.stuck = still
                || contender.overrun_since.is_some_and(|since| stuck_after <= now.saturating_sub(since));
        }
        if came {
            self.length = window_min;
            self.window_end = self.window_end.min(now.saturating_add(window_min));
        }
    }

    /// See the head of this module for who pays. Who was seen at work at only one end of the span was so for
    /// half of it on average; what nobody was at work in is the owner's, even while its program prepares the
    /// next launch.
    fn charge(&mut self, elapsed: Micros) {
        let halves: Vec<u64> = self.contenders.iter().map(|(_, contender)| contender.halves()).collect();
        let parts = halves.iter().sum::<u64>().max(2);
        // Each pays from where the one before ended, so that no division loses a microsecond.
        let up_to = |halves: u64| elapsed.0 * halves / parts;
        let mut counted = 0;
        for (index, own) in halves.into_iter().enumerate() {
            self.charge_one(index, Micros(up_to(counted + own) - up_to(counted)));
            counted += own;
        }
        if let Some(owner) = self.owner {
            self.charge_one(owner, Micros(elapsed.0 - up_to(counted)));
        }
    }

    fn charge_one(&mut self, index: usize, elapsed: Micros) {
        let debt_max = i64::try_from(self.settings.debt_max.0).unwrap_or(i64::MAX);
        let contender = &mut self.contenders[index].1;
        if -debt_max < contender.bucket.level_us() {
            contender.bucket.charge(elapsed);
        }
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
            } else if self.settings.window_min.0.saturating_mul(2).min(contender.bucket.cap().0 / 2)
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
    fn step_open(&mut self) {
        self.owner = None;
        self.draining = None;
        self.length = self.settings.window_min;
        for (_, contender) in &mut self.contenders {
            contender.gate_open = !contender.shut;
            contender.throttled = contender.shut && contender.seen.waiting;
        }
    }

    fn step_windows(&mut self, now: Micros) {
        let end = self.owner.map_or(End::None, |index| {
            let owner = &self.contenders[index].1;
            let idle =
                owner.last_work.is_none_or(|last| self.settings.yield_after <= now.saturating_sub(last));
            if idle {
                End::Idle
            } else if !owner.is_express_now() && self.express_works(index) {
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
        for (index, (_, contender)) in self.contenders.iter_mut().enumerate() {
            let own = self.owner == Some(index) && self.draining.is_none();
            contender.gate_open = own || (contender.is_express_now() && !express_owns);
            contender.throttled =
                !contender.gate_open && contender.seen.waiting && !contender.bucket.is_positive();
        }
    }

    /// Hands the device on, or, while the owner still has work under way that will end, to nobody.
    fn end_window(&mut self, end: End, now: Micros) {
        let next = self.pick(now);
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
                _ => self.settings.window_min,
            };
        }
        self.draining = None;
        self.window_end = now.saturating_add(self.length);
    }

    fn express_works(&self, except: usize) -> bool {
        self.contenders.iter().enumerate().any(|(index, (_, contender))| {
            index != except
                && contender.is_express_now()
                && (contender.seen.waiting || contender.seen.in_flight)
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
                let express = contender.is_express_now();
                // The lower index wins a tie, so that equal tenants take turns by their tokens alone.
                (express, contender.bucket.fill_ppm(), core::cmp::Reverse(index))
            })
    }
}

/// Why a window ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is none.
    None,
    /// It does not.
    NotYet,
    /// Its owner has nothing to do.
    Idle,
    /// An express tenant shows work.
    Outranked,
    /// It is over, or its owner's tokens are.
    Spent,
}

impl Contender {
    /// Whether it goes before others and past closed gates: an express tenant with tokens.
    fn is_express_now(&self) -> bool {
        self.quota.class == Class::Express && self.bucket.is_positive() && !self.shut
    }

    /// At how many of the two ends of the last span work was under way.
    fn halves(&self) -> u64 {
        u64::from(self.ran_before) + u64::from(self.seen.in_flight)
    }
}

fn share_of(span: Micros, share: Ppm) -> Micros {
    // A tenant that owns next to nothing still holds a millisecond, or it could never open a window.
    Micros((span.0.saturating_mul(u64::from(share.get())) / u64::from(Ppm::WHOLE.get())).max(1_000))
}
