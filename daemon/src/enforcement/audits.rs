//! What the witness does besides counting: when launches are watched, and when the log speaks of calls around the hook.

use std::collections::HashMap;

use headgate_ebpf::{Probes, Slot};
use headgate_quota::Micros;

use crate::config::enforcement::{LaunchAudit, Witness, WitnessPolicy};
use crate::probes::Whose;

/// The samples.
#[derive(Debug, Default)]
pub struct Audits {
    wanted: Witness,
    /// When the audit under way began.
    under_way: Option<Micros>,
    /// When the last one began.
    last: Option<Micros>,
    /// Calls around the hook that the log has spoken of, by tenant's serial.
    told: HashMap<u64, u64>,
}

impl Audits {
    /// What is wanted from now on.
    pub fn configure(&mut self, wanted: Witness) {
        self.wanted = wanted;
    }

    /// Whether processes that call the driver around the hook are to be ended.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.wanted.policy == WitnessPolicy::Refuse
    }

    /// Begins and ends audits when it is time. A kernel that refuses is asked again at the next sample.
    pub fn tick(&mut self, probes: Option<&mut Probes>, now: Micros) {
        let Some(probes) = probes else { return };
        match (self.under_way, self.wanted.launch_audit) {
            (Some(began), wanted)
                if wanted.is_none_or(|audit| micros(audit.length) <= now.0.saturating_sub(began.0)) =>
            {
                probes.end_launch_audit();
                self.under_way = None;
            }
            (None, Some(audit)) if self.is_due(&audit, now) => {
                self.last = Some(now);
                match probes.audit_launches() {
                    Ok(()) => self.under_way = Some(now),
                    Err(error) => tracing::warn!(%error, "launches cannot be watched"),
                }
            }
            _ => {}
        }
    }

    /// Tells the log of tenants that have called the driver around the hook since the last look.
    pub fn warn(&mut self, probes: Option<&Probes>, tenants: &[Whose]) {
        let Some(probes) = probes else { return };
        if self.wanted.policy == WitnessPolicy::Count {
            return;
        }
        self.told.retain(|serial, _| tenants.iter().any(|tenant| tenant.serial == *serial));
        for tenant in tenants {
            let Some(Ok(Some(seen))) = Slot::of_tenant(tenant.slot).map(|slot| probes.witnessed(slot)) else {
                continue;
            };
            let calls = seen.bypasses.values().map(|count| count.outside.saturating_add(count.unattested));
            let calls = calls.fold(0u64, u64::saturating_add);
            let told = self.told.entry(tenant.serial).or_default();
            if *told < calls {
                tracing::warn!(
                    tenant = tenant.name,
                    calls = calls - *told,
                    "calls of the driver around the hook"
                );
                *told = calls;
            }
        }
    }

    fn is_due(&self, audit: &LaunchAudit, now: Micros) -> bool {
        self.last.is_none_or(|last| micros(audit.every) <= now.0.saturating_sub(last.0))
    }
}

fn micros(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
