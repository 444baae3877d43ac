//! The threads that tick.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use headgate_abi::limits::HEARTBEAT_PERIOD_US;

use super::bells::Bells;
use super::table::GateTable;
use super::turn::Turn;
use crate::limits::TICK_STUCK_US;
use crate::{clock, sys};

/// All gate threads of the node.
#[derive(Debug)]
pub struct Gates {
    shared: Arc<Shared>,
    devices: HashMap<usize, DeviceThread>,
    pulse: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct DeviceThread {
    last_tick_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Counts the tables, and is the futex that device threads sleep on.
    version: AtomicU32,
    table: Mutex<Arc<GateTable>>,
    /// Each device thread's last tick, for the pulse: heartbeats stop when any of them is stuck.
    ticks: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Shared {
    fn table(&self) -> Arc<GateTable> {
        // The table is replaced whole, so a panic elsewhere leaves a whole one.
        Arc::clone(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Renews the heartbeat of every tenant that has a process to see it, while every device's thread ticks. Whether any
    /// tenant has.
    fn beat(&self) -> bool {
        let now = clock::monotonic();
        let alive = |tick: &Arc<AtomicU64>| now.0.saturating_sub(tick.load(Relaxed)) < TICK_STUCK_US;
        let all_alive = self.ticks.lock().unwrap_or_else(PoisonError::into_inner).iter().all(alive);
        let table = self.table();
        let mut seen = table.tenants.iter().filter(|tenant| !tenant.seats.is_empty()).peekable();
        let any = seen.peek().is_some();
        if all_alive {
            seen.for_each(|tenant| tenant.segments.beat(now));
        }
        any
    }

    /// Makes every device thread look at what has changed.
    fn wake(&self) {
        self.version.fetch_add(1, Release);
        sys::futex_wake_all(&self.version);
    }
}

impl Gates {
    /// Starts the pulse. Device threads come with [`Gates::serve`].
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let pulse = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("headgate-pulse".to_owned()).spawn(move || pulse(&shared))?
        };
        Ok(Self { shared, devices: HashMap::new(), pulse: Some(pulse) })
    }

    /// Serves exactly these device rows from now on.
    pub fn serve(&mut self, rows: &[usize]) -> io::Result<()> {
        let gone: Vec<usize> = self.devices.keys().copied().filter(|row| !rows.contains(row)).collect();
        for row in gone {
            if let Some(device) = self.devices.remove(&row) {
                device.end(&self.shared);
            }
        }
        for &row in rows {
            if self.devices.contains_key(&row) {
                continue;
            }
            let last_tick_us = Arc::new(AtomicU64::new(clock::monotonic().0));
            let stop = Arc::new(AtomicBool::new(false));
            let handle = {
                let (shared, ticked, stop) =
                    (Arc::clone(&self.shared), Arc::clone(&last_tick_us), Arc::clone(&stop));
                thread::Builder::new()
                    .name(format!("headgate-gate{row}"))
                    .spawn(move || device(row, &shared, &ticked, &stop))?
            };
            self.devices.insert(row, DeviceThread { last_tick_us, stop, handle });
        }
        let ticks = self.devices.values().map(|device| Arc::clone(&device.last_tick_us)).collect();
        *self.shared.ticks.lock().unwrap_or_else(PoisonError::into_inner) = ticks;
        Ok(())
    }

    /// Swaps the table in and wakes the threads to look at it, the pulse included: it rests while nobody has a seat.
    pub fn retable(&self, table: GateTable) {
        *self.shared.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.shared.wake();
        if let Some(pulse) = &self.pulse {
            pulse.thread().unpark();
        }
    }

    /// Device rows whose thread has not ticked for too long.
    #[must_use]
    pub fn stuck(&self) -> Vec<usize> {
        let now = clock::monotonic().0;
        let late = |device: &DeviceThread| {
            TICK_STUCK_US < now.saturating_sub(device.last_tick_us.load(Relaxed))
                || device.handle.is_finished()
        };
        self.devices.iter().filter(|(_, device)| late(device)).map(|(row, _)| *row).collect()
    }

    /// Ends all threads, then lets everyone through.
    pub fn stop(mut self) {
        for (_, device) in self.devices.drain() {
            device.end(&self.shared);
        }
        self.shared.stop.store(true, Release);
        if let Some(pulse) = self.pulse.take() {
            pulse.thread().unpark();
            join(pulse);
        }
        for tenant in &self.shared.table().tenants {
            tenant.segments.release_all();
        }
    }
}

impl DeviceThread {
    fn end(self, shared: &Shared) {
        self.stop.store(true, Release);
        shared.wake();
        join(self.handle);
    }
}

fn join(handle: JoinHandle<()>) {
    if handle.join().is_err() {
        tracing::error!("a gate thread panicked; this is a bug of Headgate");
    }
}

fn device(row: usize, shared: &Shared, ticked: &AtomicU64, stop: &AtomicBool) {
    // The kernel may otherwise be 50 us late on each sleep, half a contended tick.
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::warn!(row, %error, "cannot make timers exact; windows will end a little late");
    }
    run_ahead();
    let mut turn = Turn::new(row);
    let mut bells = Bells::default();
    let mut version = None;
    loop {
        let latest = shared.version.load(Acquire);
        // Looked at after the version, which is counted up behind it: a stop that comes later ends the sleep.
        if stop.load(Acquire) {
            break;
        }
        if version != Some(latest) {
            version = Some(latest);
            turn.retable(shared.table());
        }
        let announced = bells.listen(&turn);
        let now = clock::monotonic();
        let span = turn.tick(now, announced);
        ticked.store(now.0, Relaxed);
        bells.sleep(&turn, now, span, &shared.version, latest);
    }
    turn.release();
}

/// A tick is short and must come on time however busy the node's programs keep its processors: a late one lets a
/// window run over, and a heartbeat that is late by a tenth of a second opens gates.
fn run_ahead() {
    if let Err(error) = sys::run_ahead() {
        tracing::debug!(%error, "gates tick at ordinary priority; windows end late on a busy node");
    }
}

/// Renews heartbeats for as long as every device's thread ticks. If one is stuck, its gates might never open again; then
/// all heartbeats stop, and tenants fall back to their fail policy. While no process has a seat there is nothing to renew.
fn pulse(shared: &Shared) {
    const PERIOD: Duration = Duration::from_micros(HEARTBEAT_PERIOD_US);
    run_ahead();
    while !shared.stop.load(Acquire) {
        if shared.beat() {
            thread::park_timeout(PERIOD);
        } else {
            thread::park();
        }
    }
}
