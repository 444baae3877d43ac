//! What the probes saw, in the terms of the metrics page.

use std::collections::BTreeMap;

use headgate_ebpf::Latency;
use headgate_exporter::kernel::{self, Kernel};
use headgate_exporter::snapshot::{self, Histogram, Snapshot};

use crate::drivers::Unhooked;
use crate::enforcement;
use crate::probes::{Figures, TenantFigures};

/// Who and what is which on a snapshot.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Serials of its tenants, in their order.
    pub serials: Vec<u64>,
    /// UUIDs by device row, which have no gaps.
    pub gpus: Vec<String>,
}

/// Adds what the probes saw.
pub fn add_figures(snapshot: &mut Snapshot, keys: &Keys, mut figures: Figures) {
    snapshot.probes = figures
        .states
        .iter()
        .map(|state| snapshot::Probe { probe: state.name.clone(), up: state.up })
        .collect();
    snapshot.parts =
        figures.parts.iter().map(|part| snapshot::Probe { probe: part.name.clone(), up: part.up }).collect();
    snapshot.unhooked_symbols = figures.unhooked.as_deref().map(unhooked).unwrap_or_default();
    let mut enforcement = figures.enforcement.unwrap_or_default();
    figures.counters.append(&mut enforcement.counters);
    snapshot.probe_events = figures.counters.iter().map(|(counter, n)| (counter.name(), *n)).collect();
    let gpus = &keys.gpus;
    for (tenant, serial) in snapshot.tenants.iter_mut().zip(&keys.serials) {
        let seen = figures.tenants.remove(serial).unwrap_or_default();
        tenant.process_exits = seen.exits;
        let of_driver = std::mem::take(&mut tenant.kernel.ledgers);
        tenant.kernel = kernel(enforcement.tenants.remove(&tenant.tenant), &seen, gpus);
        tenant.kernel.ledgers.extend(of_driver);
    }
    snapshot.unknown = figures.unknown.as_ref().map(|seen| kernel(None, seen, gpus));
}

/// How many entry points have nothing in front of them, by library; none is said, too.
fn unhooked(found: &[Unhooked]) -> Vec<(&'static str, u64)> {
    let count = |library| (library, found.iter().filter(|entry| entry.library == library).count() as u64);
    ["libcuda", "libnvidia-ml"].map(count).into()
}

/// What the kernel counted, in the page's terms.
fn kernel(
    enforced: Option<enforcement::figures::TenantFigures>,
    seen: &TenantFigures,
    gpus: &[String],
) -> Kernel {
    let enforced = enforced.unwrap_or_default();
    let witnessed = seen.witnessed.as_ref();
    let networks = seen.peers.iter().map(|(peer, counts)| {
        let network = snapshot::Network {
            rtt: histogram(&counts.round_trips),
            connections: counts.sockets.established,
            retransmits: counts.sockets.retransmits,
        };
        (peer.clone(), network)
    });
    let bypasses = witnessed.map(|witnessed| {
        let calls = witnessed.bypasses.iter();
        calls.map(|(call, count)| (call.name(), count.outside, count.unattested)).collect()
    });
    Kernel {
        latencies: latencies(&seen.latencies, gpus),
        networks: networks.collect(),
        flows: enforced.flows.into_iter().map(|(peer, bytes)| (peer, bytes.egress, bytes.ingress)).collect(),
        refusals: enforced.refusals.into_iter().map(|(why, n)| (why, n.refused, n.audited)).collect(),
        budgets: enforced.budgets.into_iter().map(|(peer, (granted, left))| (peer, granted, left)).collect(),
        bypasses: bypasses.unwrap_or_default(),
        audited_launches: witnessed.map(|witnessed| witnessed.launches),
        bypass_refusals: witnessed.map(|witnessed| witnessed.refused),
        ledgers: seen.ledgers.iter().flat_map(|l| [("hook", l.hook), ("probes", l.probes)]).collect(),
        drifts: seen.ledgers.iter().map(|l| ("probes", l.drift)).collect(),
    }
}

/// A tenant's time by GPU. Where there is one GPU, whoever waited, waited for that.
fn latencies(seen: &[Latency], gpus: &[String]) -> Vec<kernel::Latency> {
    let mut by_gpu: BTreeMap<&str, Latency> = BTreeMap::new();
    for latency in seen {
        let gpu = match (gpus, latency.gpu) {
            ([only], _) => only.as_str(),
            (_, Some(row)) => gpus.get(usize::from(row)).map_or(kernel::UNKNOWN, String::as_str),
            (_, None) => kernel::UNKNOWN,
        };
        by_gpu.entry(gpu).or_default().merge(latency);
    }
    let nothing = |latency: &Latency| {
        [&latency.wait, &latency.launch, &latency.span, &latency.memory]
            .into_iter()
            .flatten()
            .all(|durations| durations.count() == 0)
    };
    let shown = by_gpu.into_iter().filter(|(gpu, latency)| *gpu != kernel::UNKNOWN || !nothing(latency));
    let shown = shown.map(|(gpu, latency)| {
        let calls = [("memory", &latency.memory), ("launch", &latency.launch)];
        let calls =
            calls.into_iter().filter_map(|(call, durations)| Some((call, histogram(durations.as_ref()?))));
        kernel::Latency {
            gpu: gpu.to_owned(),
            wait: latency.wait.as_ref().map(histogram),
            calls: calls.collect(),
            span: latency.span.as_ref().map(histogram),
        }
    });
    shown.collect()
}

fn histogram(durations: &headgate_ebpf::Durations) -> Histogram {
    let mut buckets: Vec<(f64, u64)> = durations.buckets().collect();
    let above = match buckets.last() {
        Some((bound, count)) if bound.is_infinite() => {
            let count = *count;
            buckets.pop();
            count
        }
        _ => 0,
    };
    Histogram { buckets, above, sum_seconds: durations.sum_seconds() }
}
