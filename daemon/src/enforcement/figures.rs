//! What enforcement came to: one reading of the kernel's tables.

use std::collections::BTreeMap;

use headgate_ebpf::enforce::{FlowBytes, RefusalCounts};
use headgate_ebpf::{Counter, Enforcement, PartStatus};

use super::warden::Applied;

/// How one part of the kernel's enforcement or witness stands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct PartState {
    /// Its name.
    pub name: String,
    /// Whether it is at work.
    pub up: bool,
    /// By what means; empty while it is not.
    pub mode: String,
    /// Why it is not, or what to know.
    pub reason: String,
}

impl From<PartStatus> for PartState {
    fn from(status: PartStatus) -> Self {
        Self {
            name: status.part.name().to_owned(),
            up: status.up(),
            mode: status.mode.map(|mode| mode.name().to_owned()).unwrap_or_default(),
            reason: status.reason,
        }
    }
}

/// One reading.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How the parts stand.
    pub parts: Vec<PartState>,
    /// Per tenant, by name.
    pub tenants: BTreeMap<String, TenantFigures>,
    /// What the programs gave up on.
    pub counters: BTreeMap<Counter, u64>,
}

/// What the kernel counted for a tenant.
#[derive(Clone, Debug, Default)]
pub struct TenantFigures {
    /// Bytes by peer district, of those that anything went to or came from.
    pub flows: BTreeMap<String, FlowBytes>,
    /// Refusals by reason, every reason listed.
    pub refusals: BTreeMap<&'static str, RefusalCounts>,
    /// Budgets by district: granted for a period, and left of it.
    pub budgets: BTreeMap<String, (u64, u64)>,
}

/// Reads everything. What the kernel will not tell is absent, not zero.
pub(super) fn read(enforcement: &Enforcement, applied: &BTreeMap<String, Applied>) -> Figures {
    let tenants = applied.iter().map(|(name, applied)| {
        let flows = enforcement.flows(name).unwrap_or_default().into_iter();
        let flows = flows.filter(|(_, bytes)| *bytes != FlowBytes::default());
        let refusals = enforcement.refusals(name).unwrap_or_default().into_iter();
        let budgets = applied.budgets.iter().filter_map(|(district, bytes)| {
            let left = enforcement.budget(name, district).ok()?.remaining;
            Some((district.clone(), (*bytes, left)))
        });
        let figures = TenantFigures {
            flows: flows.map(|(peer, bytes)| (peer.label().to_owned(), bytes)).collect(),
            refusals: refusals.map(|(reason, counts)| (reason.name(), counts)).collect(),
            budgets: budgets.collect(),
        };
        (name.clone(), figures)
    });
    Figures {
        parts: enforcement.status().into_iter().map(PartState::from).collect(),
        tenants: tenants.collect(),
        counters: enforcement.counters().unwrap_or_default(),
    }
}
