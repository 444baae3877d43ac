//! What the kernel refused and witnessed: the part of the snapshot that no process can falsify, and its samples.

use crate::families::{Sink, Value};
use crate::snapshot::{Histogram, Network, Snapshot};

/// What stands for a tenant, district or GPU that is not known.
pub const UNKNOWN: &str = "_unknown";

/// What the kernel counted for a tenant. What is missing on the node is absent, not zero.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Kernel {
    /// Where its time goes, by GPU.
    pub latencies: Vec<Latency>,
    /// Its TCP connections, by peer district.
    pub networks: Vec<(String, Network)>,
    /// Bytes by peer district: sent, received.
    pub flows: Vec<(String, u64, u64)>,
    /// Refusals by reason: refused, and let through because only audited.
    pub refusals: Vec<(&'static str, u64, u64)>,
    /// Budgets by peer district: granted for the period, and left of it.
    pub budgets: Vec<(String, u64, u64)>,
    /// Calls of the driver around the hook, by call: from outside the hook's code, and by processes that are not attested.
    pub bypasses: Vec<(&'static str, u64, u64)>,
    /// Launches seen in launch audits.
    pub audited_launches: Option<u64>,
    /// Processes ended for calling the driver around the hook.
    pub bypass_refusals: Option<u64>,
    /// Device memory by ledger.
    pub ledgers: Vec<(&'static str, u64)>,
    /// How far a ledger is from the hook's, by ledger.
    pub drifts: Vec<(&'static str, u64)>,
}

/// Where a tenant's time goes on one GPU. What is missing on the node is `None`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Latency {
    /// UUID of the GPU; `_unknown` for processes that use several, or of which it is not known.
    pub gpu: String,
    /// In the driver's synchronising calls.
    pub wait: Option<Histogram>,
    /// In other calls of the driver, by kind.
    pub calls: Vec<(&'static str, Histogram)>,
    /// From the first launch to the end of the synchronising call behind it, while launches were audited.
    pub span: Option<Histogram>,
}

/// Takes what the kernel counted for a tenant, or for nobody, with the words for whom.
fn each<'s>(snapshot: &'s Snapshot, mut sample: impl FnMut(&'s str, &'s str, &'s Kernel)) {
    let known = snapshot.tenants.iter().map(|tenant| (&*tenant.tenant, &*tenant.district, &tenant.kernel));
    let unknown = snapshot.unknown.iter().map(|kernel| (UNKNOWN, UNKNOWN, kernel));
    known.chain(unknown).for_each(|(tenant, district, kernel)| sample(tenant, district, kernel));
}

pub(crate) fn waits(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&Latency) -> Option<&Histogram>) {
    each(snapshot, |tenant, district, kernel| {
        for latency in &kernel.latencies {
            if let Some(histogram) = of(latency) {
                sink(&[tenant, district, &latency.gpu], Value::Histogram(histogram));
            }
        }
    });
}

pub(crate) fn calls(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, district, kernel| {
        for latency in &kernel.latencies {
            for (call, histogram) in &latency.calls {
                sink(&[tenant, district, &latency.gpu, call], Value::Histogram(histogram));
            }
        }
    });
}

pub(crate) fn networks(snapshot: &Snapshot, sink: &mut Sink<'_>, of: for<'n> fn(&'n Network) -> Value<'n>) {
    each(snapshot, |tenant, district, kernel| {
        for (peer, network) in &kernel.networks {
            sink(&[tenant, district, peer], of(network));
        }
    });
}

pub(crate) fn flows(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, district, kernel| {
        for (peer, egress, ingress) in &kernel.flows {
            for (direction, bytes) in [("egress", egress), ("ingress", ingress)] {
                sink(&[tenant, district, peer, direction], Value::Whole(*bytes));
            }
        }
    });
}

pub(crate) fn refusals(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, district, kernel| {
        for (reason, refused, audited) in &kernel.refusals {
            for (outcome, count) in [("refused", refused), ("audited", audited)] {
                sink(&[tenant, district, reason, outcome], Value::Whole(*count));
            }
        }
    });
}

pub(crate) fn budgets(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&(String, u64, u64)) -> u64) {
    each(snapshot, |tenant, district, kernel| {
        for budget in &kernel.budgets {
            sink(&[tenant, district, &budget.0], Value::Whole(of(budget)));
        }
    });
}

pub(crate) fn bypasses(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, district, kernel| {
        for (call, outside, unattested) in &kernel.bypasses {
            for (origin, count) in [("outside", outside), ("unattested", unattested)] {
                sink(&[tenant, district, call, origin], Value::Whole(*count));
            }
        }
    });
}

pub(crate) fn of_witness(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&Kernel) -> Option<u64>) {
    each(snapshot, |tenant, district, kernel| {
        if let Some(count) = of(kernel) {
            sink(&[tenant, district], Value::Whole(count));
        }
    });
}

pub(crate) fn ledgers(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&Kernel) -> &[(&'static str, u64)]) {
    each(snapshot, |tenant, district, kernel| {
        for (ledger, bytes) in of(kernel) {
            sink(&[tenant, district, ledger], Value::Whole(*bytes));
        }
    });
}
