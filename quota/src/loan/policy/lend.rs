//! What an owner may lend now.
//!
//! ```text
//! nominal |==== reserve ====|======== lending limit ========|
//!         |== peak ==|= headroom =|..... idle .....|= lent =|
//! ```
//!
//! Lent is what was idle for a while, above what the owner keeps for itself. The highest demand of the time it
//! was watched counts, not the latest; local tenants that use idle time beyond their own quota go before
//! remote ones.

use crate::loan::amount::Amount;
use crate::loan::flaw::{Flaw, Flaws};
use crate::loan::ledger::Owner;
use crate::loan::names::{District, IncidentName};
use crate::loan::settings::Lending;
use crate::loan::why::Why;
use crate::units::{Micros, Share};

/// An owner as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct OwnerView<'a> {
    /// What it owns.
    pub owner: &'a Owner,
    /// The most it wanted while watched; `None` if it was not watched for long enough.
    pub peak: Option<Amount>,
    /// What it wants now.
    pub wants: Amount,
    /// What is out of its quota, and memory that came back in name only.
    pub lent: Amount,
    /// Nothing is lent before.
    pub rests_until: Micros,
    /// Whether it borrows elsewhere.
    pub borrows: bool,
    /// The incident that calls back what it lent: issuer and name.
    pub called_back_by: Option<(&'a District, &'a IncidentName)>,
}

/// What an owner may lend, or why nothing. `spare` is the compute that nobody on the device uses, nor borrowed.
pub fn lendable(
    view: &OwnerView<'_>,
    spare: Share,
    lending: &Lending,
    now: Micros,
    flaws: Flaws,
) -> Result<Amount, Why> {
    let owner = &view.owner.tenant;
    let tireless = flaws.has(Flaw::NoRest);
    if let Some((issuer, name)) = view.called_back_by {
        return Err(Why::Incident { owner: owner.clone(), issuer: issuer.clone(), name: name.clone() });
    }
    if view.borrows {
        return Err(Why::OwnerBorrows { owner: owner.clone() });
    }
    if now < view.rests_until && !tireless {
        let left = view.rests_until.saturating_sub(now);
        return Err(Why::Resting { owner: owner.clone(), left });
    }
    let peak = match view.peak {
        _ if tireless => view.wants,
        Some(peak) => peak.max(view.wants),
        None => return Err(Why::Watching { idle_for: lending.idle_for }),
    };
    let lent = if flaws.has(Flaw::LendTwice) { Amount::ZERO } else { view.lent };
    let may_be_out = view.owner.lending_limit.min(view.owner.nominal).saturating_sub(lent);
    let idle = view.owner.nominal.saturating_sub(lent).saturating_sub(peak).saturating_sub(lending.headroom);
    let mut amount = may_be_out.min(idle);
    amount.sm = rounded(amount.sm.min(spare), lending.quantum);
    Ok(amount)
}

/// Down to a multiple of `quantum`.
#[must_use]
pub fn rounded(share: Share, quantum: Share) -> Share {
    Share(share.0 - share.0 % quantum.0.max(1))
}
