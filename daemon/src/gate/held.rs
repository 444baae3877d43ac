//! Time that programs wait for their GPU because their work stands at a closed gate.
//!
//! To the kernel's probes a synchronising call is one wait. The gate threads know better: they close and open the gates, and a
//! process' seat shows whether its work is past the gate, and whether threads of it wait for the device. From one tick to the next
//! nothing changes at a gate, so what stood there behind a tick stands there until the next one.

use headgate_abi::segment::SeatIndex;
use headgate_abi::segment::progress::{awaiting, progress};
use headgate_quota::Micros;

use super::table::{GateTable, GateTenant};
use crate::segments::gate;

/// The processes that had work before a closed gate behind the last tick.
#[derive(Debug, Default)]
pub(super) struct Held {
    since: Micros,
    seats: Vec<Standing>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Standing {
    serial: u64,
    seat: SeatIndex,
    /// Whether an earlier batch of it still ran.
    ran: bool,
}

/// About as long as a batch runs on behind a gate that closes. Where ticks are further apart than that, the end of the batch was
/// seen by none.
const LAST_BATCH: Micros = Micros(250);

impl Held {
    /// Adds the time since the last tick to the accounts of those who wait for such work.
    pub(super) fn account(&self, now: Micros, row: usize, table: &GateTable) {
        let span = now.saturating_sub(self.since);
        for standing in &self.seats {
            // A table that has changed since may know the tenant no more.
            let tenant = table.tenants.iter().find(|tenant| tenant.serial == standing.serial);
            let Some(tenant) = tenant else { continue };
            let words = tenant.segments.ledger.seat(standing.seat);
            // While it runs, it is that batch that is waited for.
            if progress(words, row).running {
                continue;
            }
            let stood = if standing.ran { span.saturating_sub(LAST_BATCH) } else { span };
            let waited = stood.0.saturating_mul(u64::from(awaiting(words, row)));
            tenant.segments.accounts[row].held_at_gate(Micros(waited));
        }
    }

    /// Notes who has work before the gates as they are now.
    pub(super) fn look(&mut self, now: Micros, row: usize, table: &GateTable) {
        self.since = now;
        self.seats.clear();
        for tenant in table.tenants.iter().filter(|tenant| tenant.quota[row].is_some()) {
            self.seats.extend(tenant.seats.iter().filter_map(|seat| standing(tenant, *seat, row)));
        }
    }
}

fn standing(tenant: &GateTenant, seat: SeatIndex, row: usize) -> Option<Standing> {
    let words = tenant.segments.ledger.seat(seat);
    if gate::is_open(&words.gates[row]) {
        return None;
    }
    let progress = progress(words, row);
    progress.waiting.then_some(Standing { serial: tenant.serial, seat, ran: progress.running })
}
