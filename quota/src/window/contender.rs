//! One tenant at one device: what is seen of it, and what it pays for a span.
//!
//! Two witnesses say how long a tenant kept the device busy between two looks. The looks themselves: at work at
//! both ends of the span, or at one, or at neither. And the clock its processes keep, from handing work to an idle
//! device until they learn that all of it is done. The looks are exact for work that is long compared with their
//! spacing and blind to what comes and goes between two of them; the clock is exact for just that, the bursts of
//! programs that wait for each of their results, and runs on for programs that never ask.
//!
//! Where several tenants are at work in the same span, neither witness can tell whose turn it was. Then a tenant is
//! charged for a batch what its batches took when it had the device for itself, and the rest goes to who has shown
//! no end yet: a short burst behind a long kernel waits for most of its time. Who never was alone pays an even part.

use super::room::Room;
use super::settings::WindowSettings;
use crate::bucket::Bucket;
use crate::tenant::{Class, ComputeQuota};
use crate::units::{Micros, Ppm};

/// What the daemon saw of one tenant on the device since the last tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// Some batch is submitted and not complete.
    pub in_flight: bool,
    /// Some work waits at the gate.
    pub waiting: bool,
    /// What waits are threads of its processes only, nothing on the device.
    pub on_host: bool,
    /// Its work will be done with the batch that is under way, as far as is known.
    pub last_batch: bool,
    /// Batches begun and not complete, in all streams of the process that has the fewest, of those that have any: the
    /// device is given to one process at a time, and is idle when that one has none.
    pub backlog: u32,
    /// A number that changes whenever a batch completes.
    pub progress: u64,
    /// Sum of the spans, by the tenant's own clock, that work of it was with the device, held at the gate or not.
    /// Only differences matter. A tenant that keeps no clock leaves it at zero.
    pub finished: Micros,
    /// How long ago the span began that its clock is in, while the marks show work.
    pub open: Option<Micros>,
}

/// Most that is charged later for batches completed in the company of others.
const OWES_US_MAX: i64 = 2_000;

/// One tenant's place at the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    pub(super) quota: ComputeQuota,
    pub(super) bucket: Bucket,
    /// Its part of the device, where that is shared by space.
    pub(super) room: Option<Room>,
    /// What it owes of a microsecond for that part, in parts per million.
    pub(super) part_owed: u64,
    pub(super) gate_open: bool,
    /// It opened at the last look.
    just_opened: bool,
    pub(super) seen: Observation,
    before: Observation,
    /// How much of the span its clock is in has been charged, or was no use of the device.
    accounted: Micros,
    /// What its clock has shown too late to fit the span between two looks.
    late: Micros,
    pub(super) last_work: Option<Micros>,
    pub(super) charged: Micros,
    pub(super) throttled: bool,
    /// Its tokens are spent, and it has not earned enough yet for a window worth opening.
    spent: bool,
    /// They are, and it may have no more than it earns.
    pub(super) shut: bool,
    /// It left the device idle in its last window: its program makes the device wait, not the device the program.
    pub(super) host_bound: bool,
    /// It was without work in this window, or since.
    pub(super) idled: bool,
    /// Since when its gate has been closed and nothing of what is under way has completed.
    overrun_since: Option<Micros>,
    pub(super) stuck: bool,
    /// Since when it is.
    stuck_since: Option<Micros>,
    /// It has been for so long that the others go on as if it were not there.
    lost: bool,
    /// When it was looked at last, for how long it has waited at an open gate since anything changed, and since when it
    /// counts as gone because of that.
    looked_at: Option<Micros>,
    unheard: Micros,
    gone_since: Option<Micros>,
    /// Device time of one batch while nobody else was at work, smoothed; zero while not known.
    solo: Micros,
    /// The least that a batch took lately, zero while not known. Time that the device idled unseen counts towards a mean,
    /// and looks further apart would make that more; a least it does not raise for long.
    quickest: Micros,
    /// When that was learnt last.
    solo_at: Option<Micros>,
    /// Device time since a batch completed, while nobody else was at work; `None` once somebody was.
    stretch: Option<Micros>,
    /// In the company of others: device time of batches that completed and is not charged yet; negative what is
    /// charged towards batches that have not.
    owes_us: i64,
}

impl Contender {
    /// A newcomer: some credit, and an open gate.
    pub(super) fn new(quota: ComputeQuota, cap: Micros) -> Self {
        Self {
            quota,
            bucket: Bucket::half_full(cap),
            room: None,
            part_owed: 0,
            gate_open: true,
            just_opened: false,
            seen: Observation::default(),
            before: Observation::default(),
            accounted: Micros::ZERO,
            late: Micros::ZERO,
            last_work: None,
            charged: Micros::ZERO,
            throttled: false,
            spent: false,
            shut: false,
            host_bound: false,
            idled: false,
            overrun_since: None,
            stuck: false,
            stuck_since: None,
            lost: false,
            looked_at: None,
            unheard: Micros::ZERO,
            gone_since: None,
            solo: Micros::ZERO,
            quickest: Micros::ZERO,
            solo_at: None,
            stretch: None,
            owes_us: 0,
        }
    }

    /// Takes in what is seen of it now. Whether it comes back from idling.
    pub(super) fn look(&mut self, now: Micros, seen: Observation, settings: &WindowSettings) -> bool {
        self.before = self.seen;
        let stands_still = self.before.progress == seen.progress;
        let gone = self.is_gone(now, seen, settings);
        let seen = Observation { waiting: seen.waiting && !gone, ..seen };
        self.seen = seen;
        let mut came = false;
        if self.shows_work() || !stands_still {
            // Looks may be far apart: who had work at the last one has been here all along.
            let rested = !self.before.waiting && !self.before.in_flight;
            came = rested && self.last_work.is_none_or(|last| settings.linger < now.saturating_sub(last));
            self.last_work = Some(now);
        }
        self.idled |= !self.shows_work();
        let overruns = seen.in_flight && !self.gate_open && stands_still;
        self.overrun_since = overruns.then(|| self.overrun_since.unwrap_or(now));
        // Once stuck it stays so, whatever its gate, until something completes.
        let still = self.stuck && seen.in_flight && stands_still;
        let overran = |since| settings.stuck_after <= now.saturating_sub(since);
        self.stuck = still || self.overrun_since.is_some_and(overran);
        self.stuck_since = self.stuck.then(|| self.stuck_since.unwrap_or(now));
        self.lost = self.stuck_since.is_some_and(|since| settings.lost_after <= now.saturating_sub(since));
        came
    }

    /// Whether what waits is nobody any more: its gate has been open for so long that whoever lives has gone through. A
    /// process that was stopped looks like that, and must not keep others from the device. It may be continued at any
    /// moment without anything to be seen of it, so that it gets another chance every so often.
    fn is_gone(&mut self, now: Micros, seen: Observation, settings: &WindowSettings) -> bool {
        let span = self.looked_at.replace(now).map_or(Micros::ZERO, |last| now.saturating_sub(last));
        if !seen.waiting || seen.in_flight || seen.progress != self.before.progress {
            self.unheard = Micros::ZERO;
            self.gone_since = None;
            return false;
        }
        if self.gate_open {
            self.unheard = self.unheard.saturating_add(span);
        }
        let patience = if seen.on_host { settings.unheard_host } else { settings.unheard_device };
        if self.unheard < patience {
            return false;
        }
        let since = *self.gone_since.get_or_insert(now);
        if settings.unheard_again <= now.saturating_sub(since) {
            self.unheard = Micros::ZERO;
            self.gone_since = None;
        }
        self.gone_since.is_some()
    }

    /// How much of the last `span` the device was its own, as far as the two witnesses know.
    pub(super) fn used(&mut self, span: Micros, settings: &WindowSettings) -> Micros {
        let (before, seen) = (self.before, self.seen);
        let finished = seen.finished.saturating_sub(before.finished);
        // What its clock adds to what the look before has shown: spans that have ended since, and one that began.
        let ended = finished.saturating_sub(self.accounted);
        let began = seen.open.filter(|&age| age < span);
        self.accounted = match seen.open {
            Some(age) => age,
            // Done, but its program has not learnt it yet.
            None if finished == Micros::ZERO && self.accounted != Micros::ZERO => {
                self.accounted.saturating_add(span)
            }
            None => Micros::ZERO,
        };
        let stood_still = before.progress == seen.progress;
        // What waited at a gate that opened at the look before has run since, unless nothing is seen of it.
        let released = before.waiting && self.just_opened && (seen.in_flight || !stood_still);
        let ran_before = before.in_flight || released;
        let by_looks = Micros(span.0 * (u64::from(ran_before) + u64::from(seen.in_flight)) / 2);
        if !before.in_flight && !seen.in_flight && stood_still {
            self.late = Micros::ZERO;
            return Micros::ZERO;
        }
        // At a closed gate its clock counts the wait for its turn as well; only the rest of a batch may run.
        let silent = finished == Micros::ZERO && began.is_none();
        if !self.gate_open || silent || (before.in_flight && seen.in_flight && stood_still) {
            return by_looks;
        }
        let clock = ended.saturating_add(began.unwrap_or(Micros::ZERO)).saturating_add(self.late);
        let used = clock.min(span);
        self.late = clock.saturating_sub(used).min(settings.linger);
        used
    }

    /// Batches completed since the look before. A process that leaves makes the number jump; such a jump is none.
    fn completed(&self) -> u64 {
        const BATCHES_MAX: u64 = 4_096;
        let completed = self.seen.progress.wrapping_sub(self.before.progress);
        if completed <= BATCHES_MAX { completed } else { 0 }
    }

    /// It alone was at work in the last span, and used this much: learns what its batches take.
    pub(super) fn had_device(&mut self, used: Micros, now: Micros) {
        let stretch = self.stretch.map(|stretch| stretch.saturating_add(used));
        self.stretch = match (self.completed(), stretch) {
            (0, stretch) if self.shows_work() => stretch,
            (0, _) => Some(Micros::ZERO),
            (batches, stretch) => {
                if let Some(Micros(stretch)) = stretch {
                    self.solo_at = Some(now);
                    let one = stretch.div_ceil(batches).max(1);
                    let slower = one.saturating_sub(self.quickest.0) / 16;
                    let known = self.quickest != Micros::ZERO && self.quickest.0 < one;
                    self.quickest = Micros(if known { self.quickest.0 + slower } else { one });
                    self.solo =
                        Micros(if self.solo.0 == 0 { one } else { (self.solo.0 * 3 + one).div_ceil(4) });
                }
                Some(Micros::ZERO)
            }
        };
        self.owes_us = 0;
    }

    /// Others were at work in the last span as well, of which it claims `used`: what it has had for sure, by the
    /// batches that completed, and what it may have had beyond that.
    pub(super) fn shared_device(&mut self, used: Micros) -> (u64, u64) {
        self.stretch = None;
        let Ok(solo) = i64::try_from(self.solo.0) else { return (0, used.0) };
        if solo == 0 || self.stuck {
            return (0, used.0);
        }
        let completed = i64::try_from(self.completed()).unwrap_or(0);
        self.owes_us = self.owes_us.saturating_add(completed.saturating_mul(solo)).min(OWES_US_MAX);
        let sure = u64::try_from(self.owes_us).unwrap_or(0).min(used.0);
        self.pay(sure);
        // What it has had towards a batch that has not completed is at most that batch.
        let more = u64::try_from(self.owes_us.saturating_add(solo)).unwrap_or(0);
        (sure, more.min(used.0 - sure))
    }

    /// It is charged this much of a span in which others were at work as well.
    pub(super) fn pay(&mut self, used: u64) {
        self.owes_us = self.owes_us.saturating_sub(i64::try_from(used).unwrap_or(i64::MAX));
    }

    pub(super) fn charge(&mut self, used: Micros, debt_max: Micros) {
        let debt_max = i64::try_from(debt_max.0).unwrap_or(i64::MAX);
        if -debt_max < self.bucket.level_us() {
            self.bucket.charge(used);
        }
        self.charged = self.charged.saturating_add(used);
    }

    /// Earns. Who is held at a closed gate loses nothing to the bucket's cap but what exceeds `held_max`.
    pub(super) fn earn(&mut self, span: Micros, rate: Ppm, settings: &WindowSettings) {
        let held = !self.gate_open && self.seen.waiting;
        let most = if held { share_of(settings.held_max, self.quota.nominal) } else { Micros::ZERO };
        // What rounding gave it in space is not taken from it in time.
        let rate = self.room.map_or(rate, |room| rate.max(room.given));
        self.bucket.refill_up_to(span, rate, most);
        if !self.bucket.is_positive() {
            self.spent = true;
        } else if self.worth_opening(settings) <= self.bucket.level_us() {
            self.spent = false;
        }
        // Who may have the whole device is never shut: the choice of the fullest bucket keeps it in order.
        self.shut = self.spent && self.quota.ceiling() < Ppm::WHOLE;
    }

    /// Whether its tokens are spent, and it has not earned enough yet for a window worth opening.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Opens or closes its gate. It is open in any case to threads that stand there while what their process has on the device
    /// is lost: it may wait for what only they can do, and what they launch comes behind it.
    pub(super) fn set_gate(&mut self, open: bool) {
        let open = open || (self.lost && self.seen.waiting && self.seen.on_host);
        self.just_opened = open && !self.gate_open;
        self.gate_open = open;
    }

    /// Whether what its batches take alone has been measured lately.
    pub(super) fn is_measured(&self, now: Micros, settings: &WindowSettings) -> bool {
        self.solo_at.is_some_and(|at| now.saturating_sub(at) <= settings.measured_within)
    }

    /// How long its tokens last at least. Whoever may have the whole device is not stopped by their end.
    pub(super) fn until_spent(&self, rate: Ppm) -> Micros {
        let left = u64::try_from(self.bucket.level_us()).unwrap_or(0);
        let net = u64::from(Ppm::WHOLE.get() - rate.get());
        if self.quota.ceiling() == Ppm::WHOLE || net == 0 {
            return Micros(u64::MAX);
        }
        Micros(left.saturating_mul(u64::from(Ppm::WHOLE.get())) / net)
    }

    /// How long until it has earned enough for a window worth opening.
    pub(super) fn until_earned(&self, rate: Ppm, settings: &WindowSettings) -> Micros {
        let missing = self.worth_opening(settings).saturating_sub(self.bucket.level_us());
        let missing = u64::try_from(missing).unwrap_or(0);
        Micros(missing.saturating_mul(u64::from(Ppm::WHOLE.get())).div_ceil(u64::from(rate.get()).max(1)))
    }

    /// How long the device will be busy with it at least, as far as can be told from the quickest of its batches: half of
    /// that, and never more than the shortest window, because what it idles unseen is paid as if it were work.
    pub(super) fn until_dry(&self, settings: &WindowSettings) -> Micros {
        let behind = u64::from(self.seen.backlog.saturating_sub(1));
        let busy = Micros(behind.saturating_mul(self.quickest.0) / 2);
        busy.clamp(settings.tick_contended, settings.window_min)
    }

    /// Tokens from which a window is worth opening.
    fn worth_opening(&self, settings: &WindowSettings) -> i64 {
        let least = settings.window_min.0.saturating_mul(2).min(self.bucket.cap().0 / 2);
        i64::try_from(least).unwrap_or(i64::MAX)
    }

    /// Whether it shows work, held or under way.
    fn shows_work(&self) -> bool {
        self.seen.waiting || self.seen.in_flight
    }

    /// Whether it shows work that a window would help. What is lost is with the device whatever the gates say, or belongs
    /// to a program that was stopped: it takes no turn from those who come to an end.
    pub(super) fn has_work(&self) -> bool {
        self.shows_work() && !self.lost
    }

    /// Whether it is at the device, or would be by now.
    pub(super) fn is_at_device(&self) -> bool {
        (self.seen.in_flight || (self.gate_open && self.seen.waiting)) && !self.lost
    }

    /// Whether it goes before others and past closed gates: an express tenant with tokens.
    pub(super) fn is_express_now(&self) -> bool {
        self.quota.class == Class::Express && !self.spent
    }

    pub(super) fn is_active(&self, now: Micros, settings: &WindowSettings) -> bool {
        !self.lost && self.last_work.is_some_and(|last| now.saturating_sub(last) <= settings.linger)
    }
}

pub(super) fn share_of(span: Micros, share: Ppm) -> Micros {
    // A tenant that owns next to nothing still holds a millisecond, or it could never open a window.
    Micros((span.0.saturating_mul(u64::from(share.get())) / u64::from(Ppm::WHOLE.get())).max(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Mode;

    const SETTINGS: fn() -> WindowSettings = WindowSettings::default;

    fn contender() -> Contender {
        let quota = ComputeQuota {
            nominal: Ppm::WHOLE,
            borrowing_limit: None,
            lending_limit: None,
            mode: Mode::Borrow,
            class: Class::Standard,
        };
        Contender::new(quota, Micros(20_000))
    }

    fn seen(in_flight: bool, progress: u64, finished: u64, open: Option<u64>) -> Observation {
        let (finished, open) = (Micros(finished), open.map(Micros));
        Observation { in_flight, progress, finished, open, ..Observation::default() }
    }

    fn used(contender: &mut Contender, now: u64, look: Observation) -> u64 {
        contender.look(Micros(now), look, &SETTINGS());
        contender.used(Micros(100), &SETTINGS()).0
    }

    #[test]
    fn a_burst_between_two_looks_is_paid_by_the_clock() {
        let mut contender = contender();
        assert_eq!(used(&mut contender, 100, seen(false, 0, 0, None)), 0);
        assert_eq!(used(&mut contender, 200, seen(false, 1, 30, None)), 30);
        assert_eq!(used(&mut contender, 300, seen(false, 2, 70, None)), 40);
        assert_eq!(used(&mut contender, 400, seen(false, 2, 70, None)), 0);
    }

    #[test]
    fn a_span_is_paid_once_however_late_the_clock_shows_it() {
        let mut contender = contender();
        assert_eq!(used(&mut contender, 100, seen(false, 0, 0, None)), 0);
        assert_eq!(used(&mut contender, 200, seen(true, 0, 0, Some(60))), 60);
        assert_eq!(used(&mut contender, 300, seen(true, 0, 0, Some(160))), 100);
        // Done, and the program has not learnt it yet.
        assert_eq!(used(&mut contender, 400, seen(false, 1, 0, None)), 50);
        assert_eq!(used(&mut contender, 500, seen(false, 1, 240, None)), 0, "nothing ran since");
        assert_eq!(used(&mut contender, 600, seen(false, 2, 260, None)), 20);
        // The end of one and the beginning of the next.
        assert_eq!(used(&mut contender, 700, seen(true, 2, 260, Some(30))), 30);
        assert_eq!(used(&mut contender, 800, seen(true, 3, 330, Some(20))), 60);
    }

    #[test]
    fn a_program_that_never_asks_is_seen_by_looks_however_long_its_clock_has_run() {
        let mut contender = contender();
        for (tick, in_flight, progress, expected) in
            [(1, true, 0, 50), (2, true, 1, 100), (3, false, 2, 50), (4, false, 2, 0), (5, true, 2, 50)]
        {
            let open = in_flight.then_some(9_000 + tick * 100);
            assert_eq!(used(&mut contender, tick * 100, seen(in_flight, progress, 0, open)), expected);
            assert_eq!(
                used(&mut self::contender(), tick * 100, seen(in_flight, 0, 0, None)),
                if in_flight { 50 } else { 0 }
            );
        }
    }

    #[test]
    fn waiting_at_a_closed_gate_is_free_whatever_the_clock_says() {
        let mut contender = contender();
        contender.gate_open = false;
        let held = |open| Observation { waiting: true, ..seen(false, 0, 0, Some(open)) };
        assert_eq!(used(&mut contender, 100, held(100)), 0);
        assert_eq!(used(&mut contender, 200, held(200)), 0);
        contender.gate_open = true;
        assert_eq!(used(&mut contender, 300, seen(false, 1, 270, None)), 70);
    }

    #[test]
    fn who_waits_at_an_open_gate_for_too_long_is_gone_until_it_gets_another_chance() {
        let settings = SETTINGS();
        for on_host in [true, false] {
            let mut contender = contender();
            let held = Observation { waiting: true, on_host, ..Observation::default() };
            let patience = if on_host { settings.unheard_host } else { settings.unheard_device };
            let mut at = 0;
            let mut waits_for = |contender: &mut Contender, span: Micros| {
                let end = at + span.0;
                let mut always = true;
                while at < end {
                    at += 1_000;
                    contender.look(Micros(at), held, &settings);
                    always &= contender.has_work();
                }
                always
            };
            contender.gate_open = false;
            assert!(waits_for(&mut contender, Micros(10_000_000)), "a closed gate may stay closed for long");
            contender.gate_open = true;
            assert!(waits_for(&mut contender, Micros(patience.0 - 1_000)), "waking up takes time");
            waits_for(&mut contender, Micros(2_000));
            assert!(!contender.has_work(), "nobody came through");
            contender.gate_open = false;
            waits_for(&mut contender, settings.unheard_again);
            assert!(contender.has_work(), "another chance");
            contender.gate_open = true;
            waits_for(&mut contender, Micros(patience.0 + 2_000));
            assert!(!contender.has_work());
            contender.look(Micros(at + 1_000), Observation { progress: 1, ..held }, &settings);
            assert!(contender.has_work(), "it lives");
        }
    }

    #[test]
    fn what_completes_nothing_for_long_is_lost_until_it_does() {
        let (settings, mut contender) = (SETTINGS(), contender());
        contender.gate_open = false;
        let at = |contender: &mut Contender, now, progress| {
            contender.look(Micros(now), seen(true, progress, 0, None), &settings);
            (contender.stuck, contender.has_work())
        };
        assert_eq!(at(&mut contender, 1_000, 7), (false, true));
        assert_eq!(at(&mut contender, 2_000, 7), (false, true));
        let stuck = 2_000 + settings.stuck_after.0;
        assert_eq!(at(&mut contender, stuck, 7), (true, true), "nobody waits for its end");
        let lost = stuck + settings.lost_after.0;
        assert_eq!(at(&mut contender, lost - 1, 7), (true, true));
        assert_eq!(at(&mut contender, lost, 7), (true, false), "nor gives it turns");
        assert_eq!(at(&mut contender, lost + 1_000, 8), (false, true), "it has come to an end");
    }

    #[test]
    fn threads_are_not_kept_from_what_their_own_work_may_wait_for() {
        let (settings, mut contender) = (SETTINGS(), contender());
        let opens = |contender: &mut Contender, now, on_host| {
            let held = Observation { waiting: true, on_host, ..seen(true, 7, 0, None) };
            contender.look(Micros(now), held, &settings);
            contender.set_gate(false);
            contender.gate_open
        };
        contender.gate_open = false;
        let end = settings.stuck_after.0 + settings.lost_after.0;
        for now in [1_000, 2_000, 2_000 + settings.stuck_after.0, 1_000 + end] {
            assert!(!opens(&mut contender, now, true), "{now}: work may take its time");
        }
        assert!(opens(&mut contender, 2_000 + end, true));
        assert!(opens(&mut contender, 3_000 + end, true), "as long as nothing completes");
        assert!(
            !opens(&mut contender, 4_000 + end, false),
            "work that waits on the device has its place there"
        );
    }

    #[test]
    fn a_short_batch_behind_a_long_kernel_pays_for_itself_only() {
        let mut contender = contender();
        // Ten batches alone, 40 us each.
        for round in 1..=10 {
            contender.look(Micros(round * 100), seen(false, round, 0, None), &SETTINGS());
            contender.had_device(Micros(40), Micros(round * 100));
        }
        // One more, which is seen under way for a millisecond.
        let mut had = 0;
        for round in 11..=20 {
            contender.look(Micros(round * 100), seen(true, 10, 0, None), &SETTINGS());
            let (sure, more) = contender.shared_device(Micros(100));
            contender.pay(more);
            had += sure + more;
        }
        contender.look(Micros(2_100), seen(false, 11, 0, None), &SETTINGS());
        let (sure, _) = contender.shared_device(Micros(50));
        assert_eq!(had + sure, 40);
    }
}
