//! Loans between nodes: the part of the snapshot that a desk knows, and its samples.

use crate::families::{Sink, Value};
use crate::snapshot::Snapshot;

/// What the desk knows, where the node has one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Loans {
    /// Lent now: owner, its district, device, the guest's district, millionths of the device.
    pub lent: Vec<(String, String, String, String, u64)>,
    /// Borrowed now: tenant, its district, the lender's district, millionths of a device.
    pub borrowed: Vec<(String, String, String, u64)>,
    /// Decisions, by what was decided. Every kind is listed, zero or not.
    pub decisions: Vec<(String, u64)>,
    /// What was put aside because it was stale: messages, and orders to an enforcement point.
    pub stale: Vec<(&'static str, u64)>,
    /// Peers refused, by reason. Every reason is listed, zero or not.
    pub refused: Vec<(String, u64)>,
    /// Nodes heard of lately, by district.
    pub peers: Vec<(String, u64)>,
    /// Changes of ledgers that the store confirmed.
    pub swaps: u64,
    /// Changes that met a ledger somebody else had changed.
    pub conflicts: u64,
    /// Store operations of which nobody knows what became.
    pub unanswered: u64,
    /// Whether every device's ledger is read and nobody else lends it.
    pub serving: bool,
    /// Lines of the audit log.
    pub audited: u64,
    /// Decisions that could not be written down.
    pub audit_failures: u64,
}

fn each(snapshot: &Snapshot, sample: impl FnOnce(&Loans)) {
    if let Some(loans) = &snapshot.loans {
        sample(loans);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a part of some devices, in millionths")]
fn ratio(ppm: u64) -> Value<'static> {
    Value::Real(ppm as f64 / 1e6)
}

pub(crate) fn lent(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |loans| {
        for (tenant, district, gpu, peer, ppm) in &loans.lent {
            sink(&[tenant, district, gpu, peer], ratio(*ppm));
        }
    });
}

pub(crate) fn borrowed(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |loans| {
        for (tenant, district, peer, ppm) in &loans.borrowed {
            sink(&[tenant, district, peer], ratio(*ppm));
        }
    });
}

pub(crate) fn decisions(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |loans| {
        loans.decisions.iter().for_each(|(what, count)| sink(&[what], Value::Whole(*count)));
    });
}

pub(crate) fn stale(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |loans| {
        loans.stale.iter().for_each(|(part, count)| sink(&[part], Value::Whole(*count)));
    });
}

pub(crate) fn refused(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |loans| {
        loans.refused.iter().for_each(|(reason, count)| sink(&[reason], Value::Whole(*count)));
    });
}

pub(crate) fn peers(snapshot: &Snapshot, sink: &mut Sink<'_>) {
    each(snapshot, |loans| {
        loans.peers.iter().for_each(|(district, count)| sink(&[district], Value::Whole(*count)));
    });
}

pub(crate) fn whole(snapshot: &Snapshot, sink: &mut Sink<'_>, of: fn(&Loans) -> u64) {
    each(snapshot, |loans| sink(&[], Value::Whole(of(loans))));
}
