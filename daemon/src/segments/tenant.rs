//! Both segments of one tenant, and what the daemon keeps beside them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::GATE_UNGOVERNED;
use headgate_abi::segment::map::{LedgerSegment, LimitsSegment};
use headgate_abi::segment::{Ledger, SeatIndex, SegmentError};
use headgate_quota::{Micros, window::Account};

use super::counts::Counts;
use super::gate;
use crate::identity::process::FileId;
use crate::node::TenantLimits;

/// Predicted work a batch should hold.
const BATCH_US: u32 = 250;
/// Most launches in a batch.
const BATCH_LAUNCHES_MAX: u32 = 64;

/// A tenant's shared memory.
#[derive(Debug)]
pub struct TenantSegments {
    /// The limits, written by the daemon only.
    pub limits: LimitsSegment,
    /// The ledger, written by the tenant's processes.
    pub ledger: Ledger,
    /// What the gate threads know, per device row.
    pub accounts: [RowAccount; DEVICES_MAX],
    limits_fd: OwnedFd,
    ledger_fd: OwnedFd,
    ledger_id: FileId,
    /// Counters of processes that are gone, so that no counter ever goes back.
    past: Mutex<Counts>,
}

/// What the gate thread of a device last said about a tenant. Written by that thread, read by anyone.
#[derive(Debug, Default)]
pub struct RowAccount {
    charged_us: AtomicU64,
    tokens_us: AtomicI64,
    throttled: AtomicBool,
    stuck: AtomicBool,
    active: AtomicBool,
    held_us: AtomicU64,
}

impl RowAccount {
    /// Adds newly charged time, and replaces the rest.
    pub fn update(&self, newly_charged: Micros, account: &Account) {
        self.charged_us.fetch_add(newly_charged.0, Relaxed);
        self.tokens_us.store(account.tokens_us, Relaxed);
        self.throttled.store(account.throttled, Relaxed);
        self.stuck.store(account.stuck, Relaxed);
        self.active.store(account.active, Relaxed);
    }

    /// Adds time that threads waited for work which stood at the gate.
    pub fn held_at_gate(&self, waited: Micros) {
        self.held_us.fetch_add(waited.0, Relaxed);
    }

    /// Time that threads have waited for work which stood at the gate, since the tenant's segments were made.
    #[must_use]
    pub fn held(&self) -> Micros {
        Micros(self.held_us.load(Relaxed))
    }

    /// Device time charged since the tenant's segments were made.
    #[must_use]
    pub fn charged(&self) -> Micros {
        Micros(self.charged_us.load(Relaxed))
    }

    /// Tokens left in microseconds; negative is debt.
    #[must_use]
    pub fn tokens_us(&self) -> i64 {
        self.tokens_us.load(Relaxed)
    }

    /// Whether it waits for tokens.
    #[must_use]
    pub fn throttled(&self) -> bool {
        self.throttled.load(Relaxed)
    }

    /// Whether work of it is under way that does not end.
    #[must_use]
    pub fn stuck(&self) -> bool {
        self.stuck.load(Relaxed)
    }

    /// Whether it shows signs of work.
    #[must_use]
    pub fn active(&self) -> bool {
        self.active.load(Relaxed)
    }
}

impl TenantSegments {
    /// Fresh segments, with limits and open gates written before anyone can see them.
    pub fn create(epoch: u64, now: Micros, limits: &TenantLimits) -> Result<Self, SegmentError> {
        let (ledger, ledger_fd) = LedgerSegment::create()?;
        Self::with_ledger(ledger, ledger_fd, epoch, now, limits)
    }

    /// Fresh limits for a ledger of an earlier run. A sealed limits segment cannot be mapped writable again, so
    /// the tenant's processes get the new one when they say hello again.
    pub fn adopt(
        ledger_fd: OwnedFd,
        epoch: u64,
        now: Micros,
        limits: &TenantLimits,
    ) -> Result<Self, SegmentError> {
        let ledger = LedgerSegment::open(ledger_fd.as_fd())?;
        Self::with_ledger(ledger, ledger_fd, epoch, now, limits)
    }

    fn with_ledger(
        ledger: LedgerSegment,
        ledger_fd: OwnedFd,
        epoch: u64,
        now: Micros,
        limits: &TenantLimits,
    ) -> Result<Self, SegmentError> {
        let (segment, limits_fd) = LimitsSegment::create()?;
        let ledger_id = file_id(ledger_fd.as_fd())
            .map_err(|source| SegmentError::Kernel { step: "fstat of a ledger", source })?;
        let this = Self {
            limits: segment,
            ledger: Ledger::new(ledger),
            accounts: std::array::from_fn(|_| RowAccount::default()),
            limits_fd,
            ledger_fd,
            ledger_id,
            past: Mutex::new(Counts::default()),
        };
        let header = this.limits.header();
        header.epoch.store(epoch, Relaxed);
        header.tenant.store(limits.slot.to_u32(), Relaxed);
        header.heartbeat_us.store(now.0, Relaxed);
        this.publish(limits);
        this.beat(now);
        Ok(this)
    }

    /// Writes limits. Rows that are not governed get an open gate, so that nobody waits there.
    pub fn publish(&self, limits: &TenantLimits) {
        self.limits.header().fail_policy.store(limits.fail_policy, Relaxed);
        for (index, row) in limits.rows.iter().enumerate() {
            let Some(row) = row else { continue };
            let device = self.limits.device(index);
            device.memory_bytes_max.store(row.memory_bytes_max, Release);
            device.batch_us.store(BATCH_US, Relaxed);
            device.batch_launches_max.store(BATCH_LAUNCHES_MAX, Relaxed);
            device.sm_ppm.store(row.sm.get(), Relaxed);
            device.environment.store(row.environment, Relaxed);
            device.place.store(row.place, Release);
            let fresh = device.uuid[0].load(Relaxed) == 0 && device.uuid[1].load(Relaxed) == 0;
            let before = device.gate_mode.swap(row.gate_mode, AcqRel);
            if fresh || row.gate_mode != before || row.gate_mode == GATE_UNGOVERNED {
                self.open_row(index);
            }
            // The UUID is what makes a row valid, so it comes last.
            let [low, high] = row.uuid.halves();
            device.uuid[1].store(high, Release);
            device.uuid[0].store(low, Release);
        }
    }

    /// Lets everyone through, for good: the daemon is about to end.
    pub fn release_all(&self) {
        for index in 0..DEVICES_MAX {
            let device = self.limits.device(index);
            device.gate_mode.store(GATE_UNGOVERNED, Release);
            self.open_row(index);
        }
    }

    /// Opens every gate of a row: the tenant's own and those of its processes.
    pub fn open_row(&self, row: usize) {
        gate::open(&self.limits.device(row).gate);
        for seat in self.ledger.live() {
            gate::open(&seat.gates[row]);
        }
    }

    /// A sign of life.
    pub fn beat(&self, now: Micros) {
        self.limits.header().heartbeat_us.store(now.0, Release);
        self.ledger.heartbeat().store(now.0, Release);
    }

    /// Whether a row is governed now.
    #[must_use]
    pub fn governed(&self, row: usize) -> bool {
        self.limits.device(row).gate_mode.load(Acquire) != GATE_UNGOVERNED
    }

    /// The descriptors a hook gets: limits, then ledger.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.limits_fd.as_fd(), self.ledger_fd.as_fd()]
    }

    /// The ledger as a file, by which it is found again after a restart.
    #[must_use]
    pub fn ledger_id(&self) -> FileId {
        self.ledger_id
    }

    /// Gives back what a seat holds, keeping its counters in the past. `false` asks for a recount later.
    #[must_use]
    pub fn reap(&self, seat: SeatIndex) -> bool {
        self.past().add_seat(self.ledger.seat(seat));
        self.ledger.reap(seat)
    }

    /// Counters of the given seats and of all that are gone.
    #[must_use]
    pub fn counts(&self, seats: impl Iterator<Item = SeatIndex>) -> Counts {
        let mut counts = self.past().clone();
        seats.for_each(|seat| counts.add_seat(self.ledger.seat(seat)));
        counts
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Counts> {
        // A panic while adding numbers leaves numbers.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file by device and inode.
pub fn file_id(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    Ok(id_of(&nix::sys::stat::fstat(fd)?))
}

/// The file behind a path, without opening it. `None` when there is none.
#[must_use]
pub fn path_id(path: &Path) -> Option<FileId> {
    nix::sys::stat::stat(path).ok().map(|stat| id_of(&stat))
}

fn id_of(stat: &nix::sys::stat::FileStat) -> FileId {
    let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let device = (part(nix::sys::stat::major(stat.st_dev)), part(nix::sys::stat::minor(stat.st_dev)));
    FileId { device, inode: stat.st_ino }
}
