//! One tick of one device.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use headgate_abi::segment::SeatIndex;
use headgate_abi::segment::progress::{open_batches, progress, waits_at_host};
use headgate_quota::window::{Filling, Lead};
use headgate_quota::{Micros, Observation, WindowScheduler, WindowSettings};

use super::held::Held;
use super::table::{GateTable, GateTenant};
use crate::segments::gate;

/// A device's scheduler and whom it schedules.
#[derive(Debug)]
pub struct Turn {
    row: usize,
    scheduler: WindowScheduler<u64>,
    table: Arc<GateTable>,
    /// Where in the table a tenant stands.
    places: HashMap<u64, usize>,
    /// Device time charged when last looked at, per tenant.
    charged: HashMap<u64, Micros>,
    /// Whose turn it is within a tenant.
    leads: HashMap<u64, Lead>,
    /// Which of a tenant's open batches count as work.
    fillings: HashMap<u64, Filling>,
    /// Whose work stands at its gate.
    held: Held,
}

impl Turn {
    /// A device on which nobody contends yet.
    #[must_use]
    pub fn new(row: usize) -> Self {
        Self {
            row,
            scheduler: WindowScheduler::new(WindowSettings::default()),
            table: Arc::default(),
            places: HashMap::new(),
            charged: HashMap::new(),
            leads: HashMap::new(),
            fillings: HashMap::new(),
            held: Held::default(),
        }
    }

    /// Takes a new table in.
    pub fn retable(&mut self, table: Arc<GateTable>) {
        let row = self.row;
        self.scheduler
            .set_tenants(table.tenants.iter().filter_map(|tenant| Some((tenant.serial, tenant.quota[row]?))));
        // The scheduler forgets a tenant that is no longer governed; its account then starts over.
        let scheduler = &self.scheduler;
        self.charged.retain(|serial, _| scheduler.account(*serial).is_some());
        self.leads.retain(|serial, _| scheduler.account(*serial).is_some());
        self.fillings.retain(|serial, _| scheduler.account(*serial).is_some());
        for tenant in &table.tenants {
            let batch_us = u32::try_from(scheduler.batch(tenant.serial).0).unwrap_or(u32::MAX);
            tenant.segments.limits.device(row).batch_us.store(batch_us, Relaxed);
        }
        // The last tick of the table before may have closed a gate that nobody minds any more.
        for tenant in table.tenants.iter().filter(|tenant| tenant.quota[row].is_none()) {
            tenant.segments.open_row(row);
        }
        self.places = table.tenants.iter().enumerate().map(|(at, tenant)| (tenant.serial, at)).collect();
        self.table = table;
    }

    /// Lets everyone through: nobody will tick for this device any more.
    pub fn release(&self) {
        for tenant in &self.table.tenants {
            tenant.segments.open_row(self.row);
        }
    }

    /// Observes, schedules, carries out. How long to sleep until the next tick, where work that comes to a tenant at
    /// rest is `announced` or not.
    pub fn tick(&mut self, now: Micros, announced: bool) -> Duration {
        let Self { row, scheduler, table, places, charged, leads, fillings, held } = self;
        let row = *row;
        held.account(now, row, table);
        let by_serial = |serial| places.get(&serial).and_then(|&at| table.tenants.get(at));
        if table.tenants.iter().any(|tenant| tenant.rooms[row].is_some()) || scheduler.is_spatial() {
            // A driver without green contexts leaves everybody all SMs; then they take turns.
            let by_time =
                table.tenants.iter().any(|tenant| tenant.holding(row).is_some_and(|holding| holding.lacking));
            scheduler.set_rooms(|serial| {
                let tenant = by_serial(serial).filter(|_| !by_time)?;
                let at_work = fillings.get(&serial).map_or(1, |filling| {
                    working(tenant, row, filling).iter().filter(|(_, works)| *works).count()
                });
                tenant.room(row, at_work)
            });
        }
        scheduler.tick(now, |serial| {
            by_serial(serial).map_or_else(Observation::default, |tenant| {
                observe(tenant, row, now, fillings.entry(serial).or_default())
            })
        });
        for tenant in table.tenants.iter().filter(|tenant| tenant.quota[row].is_some()) {
            // The host's gate is the tenant's, the GPU's is each process's own: the GPU must be able to read
            // it, and a page that a process can only read is not one that every driver registers.
            let open = scheduler.gate_open(tenant.serial);
            let only = leads.entry(tenant.serial).or_default().choose(
                now,
                open,
                scheduler.is_exclusive(tenant.serial),
                &working(tenant, row, fillings.entry(tenant.serial).or_default()),
                WindowSettings::default().window_max,
            );
            for seat in &tenant.seats {
                let open = open && only.is_none_or(|only| only == seat.get());
                set(&tenant.segments.ledger.seat(*seat).gates[row], open);
            }
            set(&tenant.segments.limits.device(row).gate, open);
            if let Some(account) = scheduler.account(tenant.serial) {
                let before = charged.insert(tenant.serial, account.charged).unwrap_or(Micros::ZERO);
                let newly = account.charged.saturating_sub(before);
                tenant.segments.accounts[row].update(newly, &account);
            }
        }
        held.look(now, row, table);
        Duration::from_micros(scheduler.sleep(announced).0)
    }

    /// The tenants whose arrival would be news: governed here, and at rest at the last tick.
    pub fn at_rest(&self) -> impl Iterator<Item = &GateTenant> {
        self.governed().filter(|tenant| self.is_at_rest(tenant))
    }

    /// Whether a tenant showed no work at the last tick.
    #[must_use]
    pub fn is_at_rest(&self, tenant: &GateTenant) -> bool {
        !self.scheduler.has_work(tenant.serial)
    }

    /// The tenants that are scheduled here.
    pub fn governed(&self) -> impl Iterator<Item = &GateTenant> {
        self.table.tenants.iter().filter(|tenant| tenant.quota[self.row].is_some())
    }

    /// The device's row.
    #[must_use]
    pub fn row(&self) -> usize {
        self.row
    }
}

fn set(gate: &AtomicU32, open: bool) {
    if open { gate::open(gate) } else { gate::close(gate) }
}

/// Which of a tenant's processes show work, ascending; of no interest where there is only one.
fn working(tenant: &GateTenant, row: usize, filling: &Filling) -> Vec<(usize, bool)> {
    if tenant.seats.len() < 2 {
        return Vec::new();
    }
    let works = |seat: &SeatIndex| {
        let words = tenant.segments.ledger.seat(*seat);
        let progress = progress(words, row);
        progress.waiting || progress.running || filling.works(seat.get()) || waits_at_host(words, row)
    };
    let mut processes: Vec<_> = tenant.seats.iter().map(|seat| (seat.get(), works(seat))).collect();
    processes.sort_unstable();
    processes
}

/// What the tenant's processes show. Each word is read once; whatever it says, the answer is yes or no.
fn observe(tenant: &GateTenant, row: usize, now: Micros, filling: &mut Filling) -> Observation {
    let open = tenant.seats.iter().flat_map(|seat| {
        open_batches(tenant.segments.ledger.seat(*seat), row).map(|(lane, batch)| (seat.get(), lane, batch))
    });
    filling.look(now, open, &WindowSettings::default());
    let mut seen = Observation { last_batch: true, on_host: true, ..Observation::default() };
    for &index in &tenant.seats {
        let seat = tenant.segments.ledger.seat(index);
        let fills = filling.works(index.get());
        let progress = progress(seat, row);
        let at_host = waits_at_host(seat, row);
        seen.waiting |= progress.waiting || at_host;
        seen.on_host &= !progress.waiting;
        // What was launched into an open batch runs already.
        seen.in_flight |= progress.running || fills;
        seen.last_batch &= !progress.queued && !at_host;
        if progress.backlog != 0 {
            seen.backlog =
                if seen.backlog == 0 { progress.backlog } else { seen.backlog.min(progress.backlog) };
        }
        let (finished, open) = seat.busy[row].read(now.0);
        seen.finished = seen.finished.saturating_add(Micros(finished));
        if progress.waiting || progress.running || fills {
            seen.open = seen.open.max(open.map(Micros));
        }
        seen.progress = seen.progress.wrapping_add(u64::from(progress.completed));
    }
    seen
}

#[cfg(test)]
mod tests {
    use headgate_abi::segment::layout::{GATE_GPU, UNLIMITED};
    use headgate_quota::{Class, ComputeQuota, Mode, Ppm};
    use std::sync::atomic::Ordering::{Acquire, Release};

    use super::*;
    use crate::config::model::DeviceUuid;
    use crate::node::{RowLimits, TenantLimits};
    use crate::segments::TenantSegments;

    /// Spans between ticks: of contention, and of idleness.
    fn settings() -> (Duration, Duration) {
        let WindowSettings { tick_contended, tick_idle, tick_rest, .. } = WindowSettings::default();
        assert!(
            tick_rest.0 * 2 <= crate::limits::TICK_STUCK_US,
            "a thread that rests does not pass for stuck"
        );
        (Duration::from_micros(tick_contended.0), Duration::from_micros(tick_idle.0))
    }

    fn tenant(serial: u64, percent: u32) -> (GateTenant, SeatIndex) {
        let slot = crate::node::state::TenantSlot::for_test(usize::try_from(serial).unwrap());
        let mut rows = [None; headgate_abi::limits::DEVICES_MAX];
        rows[0] = Some(RowLimits {
            uuid: DeviceUuid([9; 16]),
            memory_bytes_max: UNLIMITED,
            gate_mode: GATE_GPU,
            sm: Ppm::from_percent(percent).unwrap(),
            environment: 0,
            place: 0,
        });
        let limits = TenantLimits { slot, fail_policy: 0, rows };
        let segments = TenantSegments::create(1, Micros(1), &limits).unwrap();
        let seat = segments.ledger.take_seat(1, 1).unwrap();
        let quota = ComputeQuota {
            nominal: Ppm::from_percent(percent).unwrap(),
            borrowing_limit: None,
            lending_limit: None,
            mode: Mode::Borrow,
            class: Class::Standard,
        };
        let mut quotas = [None; headgate_abi::limits::DEVICES_MAX];
        quotas[0] = Some(quota);
        let rooms = [None; headgate_abi::limits::DEVICES_MAX];
        let segments = Arc::new(segments);
        let tenant = GateTenant { serial, segments, seats: vec![seat], quota: quotas, rooms };
        (tenant, seat)
    }

    fn work(tenant: &GateTenant, seat: SeatIndex, submitted: u32) {
        let seat = tenant.segments.ledger.seat(seat);
        seat.lanes[3].device.store(1, Release);
        seat.lanes[3].begun.store(submitted, Release);
        seat.lanes[3].submitted.store(submitted, Release);
        seat.marks[3].started.store(submitted, Release);
        seat.lanes_high.store(4, Release);
        seat.waiting[0].store(1, Release);
    }

    #[test]
    fn an_idle_device_sleeps_long_and_leaves_gates_open() {
        let (a, _) = tenant(1, 70);
        let mut turn = Turn::new(0);
        turn.retable(Arc::new(GateTable { tenants: vec![a.clone()] }));
        assert_eq!(turn.tick(Micros(1_000), false), settings().1);
        assert!(gate::is_open(&a.segments.limits.device(0).gate));
    }

    #[test]
    fn two_that_contend_never_have_both_gates_open_and_all_time_is_charged() {
        let ((a, seat_a), (b, seat_b)) = (tenant(1, 70), tenant(2, 30));
        work(&a, seat_a, 1);
        work(&b, seat_b, 1);
        let mut turn = Turn::new(0);
        turn.retable(Arc::new(GateTable { tenants: vec![a.clone(), b.clone()] }));
        let open = |t: &GateTenant| gate::is_open(&t.segments.limits.device(0).gate);
        let mut now = 0;
        for round in 0..200_000 {
            now += 100;
            let sleep = turn.tick(Micros(now), false);
            if 0 < round {
                assert!(sleep <= settings().0, "a tick every {sleep:?} while two contend");
                assert!(!(open(&a) && open(&b)), "exclusive at {now} us");
            }
            // A device that finishes at once whatever was submitted, and a host that always has more.
            for (t, seat) in [(&a, seat_a), (&b, seat_b)] {
                let seat = t.segments.ledger.seat(seat);
                let submitted = seat.lanes[3].submitted.load(Acquire);
                seat.marks[3].completed.store(submitted, Release);
                if open(t) {
                    let next = submitted.wrapping_add(1);
                    seat.lanes[3].begun.store(next, Release);
                    seat.lanes[3].submitted.store(next, Release);
                    seat.marks[3].started.store(next, Release);
                }
            }
        }
        let (a, b) = (a.segments.accounts[0].charged().0, b.segments.accounts[0].charged().0);
        let share = a * 100 / (a + b);
        assert!((68..=72).contains(&share), "alerts got {share} % of what was charged");
        assert!((a + b) * 100 >= now * 99, "charged {} of {now} us", a + b);
    }

    #[test]
    fn whoever_is_governed_no_longer_finds_every_gate_open() {
        let ((a, seat_a), (b, seat_b)) = (tenant(1, 50), tenant(2, 50));
        let mut turn = Turn::new(0);
        turn.retable(Arc::new(GateTable { tenants: vec![a.clone(), b.clone()] }));
        let words = |t: &GateTenant, seat: SeatIndex| {
            let of_seat = gate::is_open(&t.segments.ledger.seat(seat).gates[0]);
            (gate::is_open(&t.segments.limits.device(0).gate), of_seat)
        };
        work(&a, seat_a, 1);
        work(&b, seat_b, 1);
        turn.tick(Micros(1_000), false);
        turn.tick(Micros(1_100), false);
        let (shut, seat) = if words(&a, seat_a).0 { (b.clone(), seat_b) } else { (a.clone(), seat_a) };
        assert_eq!(words(&shut, seat), (false, false), "one of two that contend waits");
        let mut tenants = vec![a, b];
        tenants.iter_mut().for_each(|tenant| tenant.quota[0] = None);
        turn.retable(Arc::new(GateTable { tenants }));
        assert_eq!(words(&shut, seat), (true, true));
    }
}
