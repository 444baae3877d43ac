//! What the kernel refused and witnessed: the part of the snapshot that no process can falsify, and its samples.

use crate::families::{Sink, Value};
use crate::snapshot::{Snapshot, Tenant};

/// What the kernel counted for a tenant. What is missing on the node is absent, not zero.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Kernel {
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
    /// Device memory by ledger.
    pub ledgers: Vec<(&'static str, u64)>,
    /// How far a ledger is from the hook's, by ledger.
    pub drifts: Vec<(&'static str, u64)>,
}

fn each(snapshot: &Snapshot, mut sample: impl FnMut(&Tenant, &Kernel)) {
    snapshot.tenants.iter().for_each(|tenant| sample(tenant, &tenant.kernel));
}

pub(crate) fn flows(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, kernel| {
        for (peer, egress, ingress) in &kernel.flows {
            for (direction, bytes) in [("egress", egress), ("ingress", ingress)] {
                sink(&[&tenant.tenant, &tenant.district, peer, direction], Value::Whole(*bytes));
            }
        }
    });
}

pub(crate) fn refusals(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, kernel| {
        for (reason, refused, audited) in &kernel.refusals {
            for (outcome, count) in [("refused", refused), ("audited", audited)] {
                sink(&[&tenant.tenant, &tenant.district, reason, outcome], Value::Whole(*count));
            }
        }
    });
}

pub(crate) fn budgets(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&(String, u64, u64)) -> u64) {
    each(snapshot, |tenant, kernel| {
        for budget in &kernel.budgets {
            sink(&[&tenant.tenant, &tenant.district, &budget.0], Value::Whole(of(budget)));
        }
    });
}

pub(crate) fn bypasses(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, kernel| {
        for (call, outside, unattested) in &kernel.bypasses {
            for (origin, count) in [("outside", outside), ("unattested", unattested)] {
                sink(&[&tenant.tenant, &tenant.district, call, origin], Value::Whole(*count));
            }
        }
    });
}

pub(crate) fn audited_launches(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |tenant, kernel| {
        if let Some(launches) = kernel.audited_launches {
            sink(&[&tenant.tenant, &tenant.district], Value::Whole(launches));
        }
    });
}

pub(crate) fn ledgers(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&Kernel) -> &[(&'static str, u64)]) {
    each(snapshot, |tenant, kernel| {
        for (ledger, bytes) in of(kernel) {
            sink(&[&tenant.tenant, &tenant.district, ledger], Value::Whole(*bytes));
        }
    });
}
