//! What the node looks like from outside: the status document ([`document`]) and the metrics snapshot ([`metrics`]).

mod document;
mod samples;
mod metrics;

use std::sync::atomic::Ordering::Relaxed;

use headgate_abi::segment::SeatIndex;
use headgate_abi::segment::layout::{
    BACKEND_EVENTS, BACKEND_HOST, BACKEND_MEMOPS, BACKEND_WATCHDOG, UNLIMITED,
};
use headgate_quota::{Micros, Status};

use crate::config::model::{DeviceUuid, Identity};
use crate::config::space::Sharing;
use crate::effects::Hands;
use crate::node::census::Presence;
use crate::node::state::REASONS;
use crate::node::state::TenantState;
use crate::node::{Row, State, TenantLimits, TenantSlot};
use crate::probes::Figures;
use crate::segments::TenantSegments;
use crate::segments::counts::Counts;
use crate::segments::gate;
use crate::space::holding::{Holding, LACKING, OUTSIDE};

pub use document::{
    AccountView, ConfigView, DeviceView, IdentityView, ProcessView, SpaceView, StatusDocument, TenantView,
};
pub use metrics::loans;
pub use samples::Samples;

use samples::Lately;

/// Share above nominal from which a tenant counts as borrowing: more than what windows overshoot by.
const BORROWING_ABOVE_PPM: u64 = 20_000;

/// Every way a process's work can be gated and measured, best first.
const BACKENDS: [&str; 5] = ["memops", "host", "events", "watchdog", "none"];

/// How a process's work is gated and measured.
fn backend(segments: &TenantSegments, seat: SeatIndex) -> &'static str {
    match segments.ledger.seat(seat).gate_backend.load(Relaxed) {
        BACKEND_MEMOPS => BACKENDS[0],
        BACKEND_HOST => BACKENDS[1],
        BACKEND_EVENTS => BACKENDS[2],
        BACKEND_WATCHDOG => BACKENDS[3],
        _ => BACKENDS[4],
    }
}

fn seats_of(tenant: &TenantState) -> impl Iterator<Item = SeatIndex> + '_ {
    tenant.seats.keys().filter_map(|&index| SeatIndex::new(u32::try_from(index).ok()?))
}

/// What a view is made of.
#[derive(Debug)]
pub struct View<'a> {
    /// The node.
    pub state: &'a State,
    /// What it acts on.
    pub hands: &'a Hands,
    /// Recent device time.
    pub samples: &'a Samples,
    /// Now.
    pub now: Micros,
    /// The configuration file.
    pub file: &'a str,
    /// Settings that wait for a restart.
    pub restart_needed: &'a [String],
}

struct Account {
    status: Status,
    reason: Option<String>,
    share_ppm: u64,
}

impl View<'_> {
    /// Why the node is not ready for tenants; empty when it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = self.state.unready();
        reasons.extend(self.hands.witness.standing.failing());
        for row in self.hands.gates.stuck() {
            reasons.push(format!("the gate thread of device row {row} does not tick"));
        }
        reasons
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.state.rows.iter().enumerate().filter_map(|(index, row)| Some((index, row.as_ref()?)))
    }

    fn counts(&self, slot: TenantSlot) -> Counts {
        let (Some(segments), Some(tenant)) = (self.hands.segments.get(&slot), self.state.tenant(slot)) else {
            return Counts::default();
        };
        segments.counts(seats_of(tenant))
    }

    /// The word for how a tenant stands on a device, and why.
    fn account(&self, slot: TenantSlot, row: usize, limits: &TenantLimits) -> Account {
        let none = Account { status: Status::Nominal, reason: None, share_ppm: 0 };
        let (Some(tenant), Some(of_row)) = (self.state.tenant(slot), limits.rows[row]) else { return none };
        let because =
            |status, reason: &str, share_ppm| Account { status, reason: Some(reason.to_owned()), share_ppm };
        if self.state.rows[row].as_ref().is_some_and(|row| !row.present) {
            return because(Status::Degraded, "the device is gone", 0);
        }
        if self.hands.gates.stuck().contains(&row) {
            return because(Status::Degraded, "the device's gate thread does not tick", 0);
        }
        if let Some(strangers) = self.presence(slot, row).filter(|here| !here.unenforced.is_empty()) {
            let pids: Vec<String> = strangers.unenforced.iter().take(8).map(ToString::to_string).collect();
            let reason = format!(
                "uses the device without the hook: process {}; preload the hook there, or end it",
                pids.join(", ")
            );
            return because(Status::Unenforced, &reason, 0);
        }
        let Some(segments) = self.hands.segments.get(&slot) else { return none };
        let account = &segments.accounts[row];
        let lately = self.samples.lately(self.now, tenant.serial, row, account.charged());
        let share = lately.share_ppm;
        let used = segments.ledger.used_bytes(row);
        if of_row.memory_bytes_max != UNLIMITED && of_row.memory_bytes_max < used {
            let reason = if tenant.retired {
                "removed from the configuration; what still runs may free memory and finish"
            } else {
                "uses more memory than its quota allows since the quota shrank; allocations are refused"
            };
            return because(Status::Throttled, reason, share);
        }
        let nominal = u64::from(of_row.sm.get());
        if !segments.governed(row) {
            return Account { share_ppm: share, ..none };
        }
        if account.stuck() {
            let reason =
                "stuck: work past its window completes nothing; the device shares it out in its own slices";
            return because(Status::Degraded, reason, share);
        }
        if account.throttled() {
            return because(Status::Throttled, "has spent its device time and waits for more", share);
        }
        let open = gate::is_open(&segments.limits.device(row).gate);
        if account.active() && starved(&lately, nominal, open) {
            return because(Status::Starved, "wants its share and does not get it", share);
        }
        let status = if nominal + BORROWING_ABOVE_PPM < share { Status::Borrowing } else { Status::Nominal };
        Account { status, reason: None, share_ppm: share }
    }

    /// How tenants are to share a device.
    fn sharing(&self, gpu: DeviceUuid) -> Sharing {
        let configured = self.state.configured.as_ref();
        configured.map_or(Sharing::Temporal, |configured| configured.config.gpus.sharing_on(gpu))
    }

    /// A tenant's part of a device that is shared by space.
    fn space(&self, device: &Row, tenant: &str) -> Option<SpaceView> {
        let grant = self.state.space.grant(device.uuid, tenant)?;
        if self.sharing_down(device.uuid).is_some() {
            return None;
        }
        let (room, sms, outside) = match self.holding(device.uuid, tenant) {
            Some(holding) => (
                holding.room(grant.room.given, grant.groups?),
                holding.sms,
                holding.outside.then_some(OUTSIDE),
            ),
            None => (grant.room, grant.sms, None),
        };
        Some(SpaceView {
            sms,
            given_ppm: room.given.get(),
            held_ppm: room.held.get(),
            exclusive: !grant.per_process,
            pending: grant.pending.clone().or_else(|| outside.map(str::to_owned)),
        })
    }

    /// What a tenant's processes say they hold of a device that green contexts share.
    fn holding(&self, gpu: DeviceUuid, tenant: &str) -> Option<Holding> {
        self.state.space.grant(gpu, tenant)?.groups?;
        let slot = self.state.slot_of(tenant)?;
        let row = self.rows().find(|(_, row)| row.uuid == gpu)?.0;
        Some(Holding::of(self.hands.segments.get(&slot)?, seats_of(self.state.tenant(slot)?), row))
    }

    /// Why a device is shared by time although it is to be shared by space.
    fn sharing_down(&self, gpu: DeviceUuid) -> Option<String> {
        let standing = self.state.space.0.get(&gpu)?;
        let lacking = |tenant: &String| self.holding(gpu, tenant).is_some_and(|holding| holding.lacking);
        let lacks = || standing.grants.keys().any(lacking).then(|| LACKING.to_owned());
        standing.down.clone().or_else(lacks)
    }

    /// A tenant's processes on a device, by the driver's word.
    fn presence(&self, slot: TenantSlot, row: usize) -> Option<&Presence> {
        self.state.census.as_ref()?.of(slot, row)
    }

    /// Bytes the driver says they have; `None` while it cannot tell.
    fn driver_bytes(&self, slot: TenantSlot, row: usize) -> Option<u64> {
        self.state.census.as_ref()?;
        Some(self.presence(slot, row).map_or(0, |here| here.bytes.0))
    }

    /// What the driver says of a tenant on all devices, as a ledger; none while it cannot tell.
    fn driver_ledger(&self, slot: TenantSlot) -> Vec<(&'static str, u64)> {
        if self.state.census.is_none() {
            return Vec::new();
        }
        let rows = self.rows().filter_map(|(row, _)| self.driver_bytes(slot, row));
        vec![("driver", rows.fold(0, u64::saturating_add))]
    }

    /// Who holds a tenant to its memory quota on a device.
    fn enforced_by(&self, tenant: &TenantState, device: &Row, limit: Option<u64>) -> &'static str {
        let Some(limit) = limit else { return "none" };
        let cgroup = tenant.policy.cgroup.as_ref().and_then(|path| self.hands.cgroups.directory(path));
        let by_driver = self.hands.driver_limits.iter().any(|held| {
            held.gpu == device.uuid && held.bytes.0 == limit && Some(&held.cgroup) == cgroup.as_ref()
        });
        if by_driver { "driver+hook" } else { "hook" }
    }

    /// The status document.
    #[must_use]
    pub fn status(&self, figures: Figures) -> StatusDocument {
        let config = self.state.configured.as_ref();
        let unready = self.unready();
        StatusDocument {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.map(|c| c.config.node.to_string()).unwrap_or_default(),
            district: config.map(|c| c.config.district.to_string()).unwrap_or_default(),
            pid: std::process::id(),
            ready: unready.is_empty(),
            unready,
            config: ConfigView {
                file: self.file.to_owned(),
                hash: config.map(|c| c.hash.clone()).unwrap_or_default(),
                loaded_unix_seconds: config.map_or(0, |c| c.at.as_secs()),
                last_reload_successful: config.is_some_and(|c| c.rejected.is_none()),
                error: config.and_then(|c| c.rejected.clone()),
                restart_needed: self.restart_needed.to_vec(),
            },
            identity: self.identity(),
            devices: self
                .rows()
                .map(|(index, row)| DeviceView {
                    row: index,
                    gpu: row.uuid.to_string(),
                    name: row.name.clone(),
                    memory_bytes: row.memory.0,
                    present: row.present,
                    sharing: self.sharing(row.uuid).word().to_owned(),
                    multiplied: self.sharing(row.uuid) == Sharing::GreenContexts { multiply: true },
                    sharing_down: self.sharing_down(row.uuid),
                })
                .collect(),
            tenants: self.state.tenants().map(|(slot, _)| self.tenant(slot)).collect(),
            probes: figures.states,
            parts: figures.parts,
            sessions: Vec::new(),
            unhooked_symbols: figures.unhooked,
            refused: REASONS
                .iter()
                .zip(self.state.refused)
                .map(|((_, word), count)| ((*word).to_owned(), count))
                .collect(),
        }
    }

    fn identity(&self) -> IdentityView {
        let wanted = self.state.configured.as_ref().map_or(Identity::Auto, |c| c.config.identity);
        let obstacle = self.hands.cgroups.obstacle();
        let weaker = "weaker than cgroups: a process that outlives the one that was placed loses its tenant";
        match (wanted, obstacle) {
            (Identity::ProcessTree, _) => {
                IdentityView { method: "process-tree".to_owned(), note: Some(weaker.to_owned()) }
            }
            (Identity::Auto, Some(obstacle)) => IdentityView {
                method: "process-tree".to_owned(),
                note: Some(format!("{obstacle}; {weaker}")),
            },
            (Identity::Cgroup, Some(obstacle)) => IdentityView {
                method: "cgroup".to_owned(),
                note: Some(format!("{obstacle}; `run` will fail")),
            },
            (_, None) => IdentityView { method: "cgroup".to_owned(), note: None },
        }
    }

    fn tenant(&self, slot: TenantSlot) -> TenantView {
        let Some(tenant) = self.state.tenant(slot) else { unreachable!("asked for tenants there are") };
        let policy = &tenant.policy;
        let limits = TenantLimits::of(self.state, slot, tenant);
        let counts = self.counts(slot);
        let segments = self.hands.segments.get(&slot).map(AsRef::as_ref);
        let mut worst = Status::Nominal;
        let gpus = self
            .rows()
            .filter_map(|(row, device)| {
                let of_row = limits.rows[row]?;
                let account = self.account(slot, row, &limits);
                worst = worst.max(account.status);
                let governed = policy.quota_on(device.uuid).sm.is_some() && policy.enforcement;
                let limit = (of_row.memory_bytes_max != UNLIMITED).then_some(of_row.memory_bytes_max);
                Some(AccountView {
                    gpu: device.uuid.to_string(),
                    status: account.status.word().to_owned(),
                    reason: account.reason,
                    sm_quota_ppm: governed.then_some(of_row.sm.get()),
                    sm_share_ppm: account.share_ppm,
                    space: self.space(device, policy.name.as_str()),
                    charged_us: segments.map_or(0, |s| s.accounts[row].charged().0),
                    tokens_us: segments.map_or(0, |s| s.accounts[row].tokens_us()),
                    gate: gate_word(segments, row, governed).to_owned(),
                    memory_quota_bytes: limit,
                    enforced_by: self.enforced_by(tenant, device, limit).to_owned(),
                    memory_overhead_bytes: overhead(segments, row),
                    memory_driver_bytes: self.driver_bytes(slot, row),
                    unenforced: self
                        .presence(slot, row)
                        .map(|here| here.unenforced.iter().copied().collect())
                        .unwrap_or_default(),
                    memory_used_bytes: segments.map_or(0, |s| s.ledger.used_bytes(row)),
                    memory_peak_bytes: peak(segments, row),
                    denied_allocations: denied(segments, row),
                    launches: counts.rows[row].launches,
                    batches: counts.rows[row].batches,
                })
            })
            .collect();
        let of_seat = |seat: usize| {
            let index = u32::try_from(seat).ok().and_then(SeatIndex::new);
            segments.zip(index).map_or(BACKENDS[4], |(segments, seat)| backend(segments, seat))
        };
        let processes = tenant.seats.iter().map(|(&seat, sitter)| ProcessView {
            pid: sitter.process.pid,
            seat,
            connected: sitter.connection.is_some(),
            gate_backend: of_seat(seat).to_owned(),
        });
        let (class, by) = self.state.class_of(policy);
        TenantView {
            name: policy.name.to_string(),
            district: policy.district.to_string(),
            cgroup: policy.cgroup.as_ref().map(ToString::to_string),
            class: class.word().to_owned(),
            raised_by: by.map(|incident| self.state.told_name(incident)),
            mode: policy.mode.word().to_owned(),
            fail_policy: policy.fail_policy.word().to_owned(),
            enforcement: policy.enforcement,
            removed: tenant.retired,
            status: worst.word().to_owned(),
            seats: tenant.seats.len(),
            untracked_frees: counts.untracked_frees,
            hook_faults: counts.faults,
            gpus,
            processes: processes.collect(),
        }
    }
}

/// A tenant is starved when it gets clearly less than it owns and waited at the gate for longer than the share
/// that others own explains. One that merely has nothing to launch does not wait.
fn starved(lately: &Lately, nominal_ppm: u64, gate_open: bool) -> bool {
    const CLEARLY_PPM: u64 = 100_000;
    let others_ppm = 1_000_000u64.saturating_sub(nominal_ppm);
    // A wait is only counted when it ends, so one that never ends shows as no share at a closed gate.
    let shut_out = lately.share_ppm == 0 && !gate_open;
    lately.always_active
        && lately.share_ppm < nominal_ppm / 10 * 9
        && (shut_out || others_ppm + CLEARLY_PPM < lately.waited_ppm)
}

fn gate_word(segments: Option<&TenantSegments>, row: usize, governed: bool) -> &'static str {
    match segments {
        _ if !governed => "ungoverned",
        Some(segments) if !gate::is_open(&segments.limits.device(row).gate) => "closed",
        _ => "open",
    }
}

/// What the seats say that contexts and code take. Sums saturate: a scribbled word spoils its own tenant's figure.
fn overhead(segments: Option<&TenantSegments>, row: usize) -> u64 {
    let seats = segments.into_iter().flat_map(|segments| segments.ledger.live());
    seats.fold(0, |sum, seat| sum.saturating_add(seat.overhead_bytes[row].load(Relaxed)))
}

fn peak(segments: Option<&TenantSegments>, row: usize) -> u64 {
    segments.map_or(0, |s| s.ledger.segment().totals(row).peak_bytes.load(Relaxed))
}

fn denied(segments: Option<&TenantSegments>, row: usize) -> u64 {
    segments.map_or(0, |s| s.ledger.segment().totals(row).denied.load(Relaxed))
}
