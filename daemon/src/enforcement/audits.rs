//! When launches are watched, by the configuration's sample.

use headgate_ebpf::Probes;
use headgate_quota::Micros;

use crate::config::enforcement::{LaunchAudit, Witness};

/// The samples.
#[derive(Debug, Default)]
pub struct Audits {
    wanted: Witness,
    /// When the audit under way began.
    under_way: Option<Micros>,
    /// When the last one began.
    last: Option<Micros>,
}

impl Audits {
    /// What is wanted from now on.
    pub fn configure(&mut self, wanted: Witness) {
        self.wanted = wanted;
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

    fn is_due(&self, audit: &LaunchAudit, now: Micros) -> bool {
        self.last.is_none_or(|last| micros(audit.every) <= now.0.saturating_sub(last.0))
    }
}

fn micros(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
