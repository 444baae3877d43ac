//! An audit of the GPU driver's ioctls: on for a while because somebody asked, then off.

use std::collections::BTreeMap;

use headgate_ebpf::{IoctlReport, Probes, Slot};
use headgate_quota::Micros;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::probes::Whose;

/// What an audit saw.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuditDocument {
    /// For how long it was on, in seconds.
    pub seconds: f64,
    /// How long ioctls of the GPU driver took, by tenant; `_unknown` for processes that are no tenant's. Tenants without
    /// any are left out.
    pub tenants: BTreeMap<String, AuditedTenant>,
    /// How often each number was called, by the low eight bits of the request, whoever called it.
    pub numbers: BTreeMap<String, AuditedNumber>,
}

/// A tenant's ioctls.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuditedTenant {
    /// How many.
    pub calls: u64,
    /// Their time together, in seconds.
    pub seconds: f64,
    /// Half of them took no longer than this, in seconds; the upper bound of a histogram's bucket, none beyond the last.
    pub half_within_seconds: Option<f64>,
    /// Of a hundred, ninety-nine took no longer than this.
    pub most_within_seconds: Option<f64>,
}

/// One request number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditedNumber {
    /// Calls that returned.
    pub calls: u64,
    /// Of those, how many with an error.
    pub failed: u64,
}

/// Where the answer goes.
pub type Reply = oneshot::Sender<Result<AuditDocument, String>>;

/// The audit under way, if any. One at a time: it taxes every system call of the node.
#[derive(Debug, Default)]
pub struct IoctlAudits {
    under_way: Option<(Micros, Micros, Reply)>,
}

impl IoctlAudits {
    /// Begins one.
    pub fn begin(&mut self, probes: Option<&mut Probes>, now: Micros, span: Micros, reply: Reply) {
        let refusal = match probes {
            None => Some("no kernel probe is loaded; switch one on in spec.probes".to_owned()),
            Some(_) if self.under_way.is_some() => {
                Some("an audit is under way already; wait for its end".to_owned())
            }
            Some(probes) => probes.audit_ioctls().err().map(|error| error.to_string()),
        };
        match refusal {
            // Whoever asked may have given up, here and below.
            Some(reason) => drop(reply.send(Err(reason))),
            None => self.under_way = Some((now, span, reply)),
        }
    }

    /// Ends the one under way when it is time, or when nobody waits for it any more.
    pub fn tick(&mut self, probes: Option<&mut Probes>, tenants: &[Whose], now: Micros) {
        let over = |(began, span, reply): &mut (Micros, Micros, Reply)| {
            span.0 <= now.0.saturating_sub(began.0) || reply.is_closed()
        };
        let Some((began, _, reply)) = self.under_way.take_if(over) else { return };
        let seconds = headgate_exporter::snapshot::seconds(Micros(now.0.saturating_sub(began.0)));
        let outcome = match probes.map(Probes::end_ioctl_audit) {
            Some(Ok(Some(report))) => Ok(document(&report, tenants, seconds)),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(None)) | None => Err("the audit was ended by something else".to_owned()),
        };
        drop(reply.send(outcome));
    }
}

fn document(report: &IoctlReport, tenants: &[Whose], seconds: f64) -> AuditDocument {
    let name = |slot: Slot| {
        let known = slot.tenant().and_then(|slot| tenants.iter().find(|tenant| tenant.slot == slot));
        known.map_or_else(|| "_unknown".to_owned(), |tenant| tenant.name.clone())
    };
    let durations = report.durations.iter().map(|(slot, durations)| {
        let count = durations.count();
        let within = |share: u64| {
            let wanted = count.saturating_mul(share).div_ceil(100);
            durations
                .cumulative()
                .find(|(_, below)| wanted <= *below)
                .map(|(bound, _)| bound)
                .filter(|b| b.is_finite())
        };
        let audited = AuditedTenant {
            calls: count,
            seconds: durations.sum_seconds(),
            half_within_seconds: within(50),
            most_within_seconds: within(99),
        };
        (name(*slot), audited)
    });
    let numbers = report.numbers.iter().map(|(number, count)| {
        (format!("0x{number:02x}"), AuditedNumber { calls: count.calls, failed: count.failed })
    });
    AuditDocument { seconds, tenants: durations.collect(), numbers: numbers.collect() }
}
