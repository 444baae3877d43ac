//! The metrics page: what the node, its tenants and its loans are on it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use headgate_exporter::kernel::Kernel;
use headgate_exporter::loans::Loans;
use headgate_exporter::snapshot::{self, Histogram, Snapshot};
use headgate_loans::desk::DeskView;
use headgate_quota::loan::What;
use headgate_quota::{Bytes, Micros, Ppm, Status};

use super::{BACKENDS, View, backend, denied, overhead, peak};
use crate::devices::xids;
use crate::node::state::REASONS;
use crate::node::{TenantLimits, TenantSlot};
use crate::page::Keys;

impl View<'_> {
    /// Everything on the metrics page but what the probes saw.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let config = self.state.configured.as_ref();
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.map(|c| c.config.node.to_string()).unwrap_or_default(),
            district: config.map(|c| c.config.district.to_string()).unwrap_or_default(),
            config: snapshot::ConfigState {
                last_reload_successful: config.is_some_and(|c| c.rejected.is_none()),
                last_success_unix_seconds: config.map_or(0, |c| c.at.as_secs()),
                hash: config.map(|c| c.hash.clone()).unwrap_or_default(),
            },
            devices: self
                .rows()
                .filter(|(_, row)| row.present)
                .map(|(_, row)| snapshot::Device {
                    sharing: self.sharing(row.uuid).word(),
                    shared_as_wanted: !self.sharing(row.uuid).is_spatial()
                        || self.state.space.0.contains_key(&row.uuid)
                            && self.sharing_down(row.uuid).is_none(),
                    gpu: row.uuid.to_string(),
                    name: row.name.clone(),
                    memory: row.memory,
                })
                .collect(),
            xids: xids::rows(&self.hands.xids),
            gate_backends: self.gate_backends(),
            tenants: self.state.tenants().map(|(slot, _)| self.tenant_snapshot(slot)).collect(),
            refused: REASONS.iter().zip(self.state.refused).map(|((_, word), n)| (*word, n)).collect(),
            probes: Vec::new(),
            parts: Vec::new(),
            loans: None,
            remote: None,
            unhooked_symbols: Vec::new(),
            unknown: None,
            probe_events: Vec::new(),
        }
    }

    fn gate_backends(&self) -> Vec<(&'static str, u64)> {
        let mut seats = BACKENDS.map(|word| (word, 0));
        for (seat, _) in self.state.seats() {
            let Some(segments) = self.hands.segments.get(&seat.slot) else { continue };
            let word = backend(segments, seat.seat);
            seats.iter_mut().filter(|(known, _)| *known == word).for_each(|(_, count)| *count += 1);
        }
        seats.to_vec()
    }

    fn tenant_snapshot(&self, slot: TenantSlot) -> snapshot::Tenant {
        let Some(tenant) = self.state.tenant(slot) else { unreachable!("asked for tenants there are") };
        let limits = TenantLimits::of(self.state, slot, tenant);
        let counts = self.counts(slot);
        let segments = self.hands.segments.get(&slot).map(AsRef::as_ref);
        let mut status = Status::Nominal;
        let gpus = self
            .rows()
            .filter_map(|(row, device)| {
                let of_row = limits.rows[row]?;
                status = status.max(self.account(slot, row, &limits).status);
                Some(snapshot::Account {
                    gpu: device.uuid.to_string(),
                    memory_quota: Bytes(of_row.memory_bytes_max.min(device.memory.0)),
                    memory_used: Bytes(segments.map_or(0, |s| s.ledger.used_bytes(row))),
                    memory_overhead: Bytes(overhead(segments, row)),
                    memory_peak: Bytes(peak(segments, row)),
                    denied: denied(segments, row),
                    space: self
                        .space(device, tenant.policy.name.as_str())
                        .and_then(|space| Ppm::new(space.held_ppm)),
                    sm_quota: of_row.sm.min(Ppm::WHOLE),
                    charged: segments.map_or(Micros::ZERO, |s| s.accounts[row].charged()),
                    tokens_us: segments.map_or(0, |s| s.accounts[row].tokens_us()),
                    launches: counts.rows[row].launches,
                    batches: counts.rows[row].batches,
                    gate_waits: vec![
                        ("host", Micros(counts.rows[row].gate_wait_us)),
                        ("device", segments.map_or(Micros::ZERO, |s| s.accounts[row].held())),
                    ],
                })
            })
            .collect();
        snapshot::Tenant {
            tenant: tenant.policy.name.to_string(),
            district: tenant.policy.district.to_string(),
            status,
            seats: tenant.seats.len() as u64,
            untracked_frees: counts.untracked_frees,
            hook_faults: counts.faults,
            process_exits: 0,
            gate_wait: Histogram::of_doubling_micros(&counts.gate_wait_buckets, counts.gate_wait()),
            lanes_refused: counts.lanes_refused,
            unenforced: self.state.census.as_ref().map(|census| census.unenforced(slot).len() as u64),
            failed_open: segments.map_or(0, |s| s.ledger.failed_open().load(Relaxed)),
            kernel: Kernel { ledgers: self.driver_ledger(slot), ..Kernel::default() },
            gpus,
        }
    }

    /// Who and what is which on the snapshot, for the probes' figures.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys {
            serials: self.state.tenants().map(|(_, tenant)| tenant.serial).collect(),
            gpus: self.rows().map(|(_, row)| row.uuid.to_string()).collect(),
        }
    }
}

/// What the desk says, in the page's terms.
#[must_use]
pub fn loans(snapshot: &Snapshot, view: &DeskView) -> Loans {
    let part = |text: &str, index: usize| text.split('/').nth(index).unwrap_or_default().to_owned();
    let mut lent: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for line in view.lent.iter().filter(|line| matches!(line.phase.as_str(), "active" | "noticed")) {
        let key = (line.owner.clone(), part(&line.place, 2), part(&line.guest, 0));
        *lent.entry(key).or_default() += line.sm_ppm;
    }
    let mut borrowed: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in view.borrowed.iter().filter(|line| line.left_seconds.is_some()) {
        *borrowed.entry((line.tenant.clone(), part(&line.place, 0))).or_default() += line.sm_ppm;
    }
    let mut peers: BTreeMap<String, u64> = BTreeMap::new();
    for peer in &view.peers {
        *peers.entry(peer.district.clone()).or_default() += u64::from(peer.heard_seconds.is_some());
    }
    let counts = &view.counts;
    let decided = |what: &What| counts.decisions.get(what.word()).copied().unwrap_or(0);
    let own = &snapshot.district;
    Loans {
        lent: lent.into_iter().map(|((t, gpu, peer), ppm)| (t, own.clone(), gpu, peer, ppm)).collect(),
        borrowed: borrowed.into_iter().map(|((t, peer), ppm)| (t, own.clone(), peer, ppm)).collect(),
        decisions: What::ALL.iter().map(|what| (what.word().to_owned(), decided(what))).collect(),
        stale: vec![("message", counts.stale_messages), ("order", counts.stale_orders)],
        refused: view.refused.clone(),
        peers: peers.into_iter().collect(),
        swaps: counts.swaps,
        conflicts: counts.conflicts,
        unanswered: counts.store_unanswered,
        serving: view.places.iter().all(|place| place.state == "serving"),
        audited: view.audit.0,
        audit_failures: counts.audit_failures,
    }
}
