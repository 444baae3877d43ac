//! How a district lends and how a node borrows.

use super::amount::Amount;
use super::terms::Terms;
use crate::units::{Bytes, Micros, Share};

/// How a district lends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lending {
    /// The times of its loans.
    pub terms: Terms,
    /// How long an owner is watched before any of its quota counts as idle.
    pub idle_for: Micros,
    /// How long ordinary demand must stay unmet before loans are called back. Express demand does not wait.
    pub rise_for: Micros,
    /// After taking back for an owner, how long nothing of that owner's is lent.
    pub rest: Micros,
    /// Kept free above the highest demand seen: compute and memory.
    pub headroom: Amount,
    /// Least compute worth a loan.
    pub least: Share,
    /// Loans are cut to multiples of this.
    pub quantum: Share,
    /// How long requests are gathered before they are ranked.
    pub gather: Micros,
    /// How long a request waits before it is refused.
    pub wait_for: Micros,
    /// How long the store may take to answer before its answer counts as lost.
    pub store_within: Micros,
    /// How often a notice is repeated until it is acknowledged.
    pub resend: Micros,
    /// Whether a guest that keeps memory past its loan is stopped. If not, the owner waits for it.
    pub evict: bool,
}

impl Default for Lending {
    fn default() -> Self {
        Self {
            terms: Terms::default(),
            idle_for: Micros::from_secs(5),
            rise_for: Micros::from_secs(1),
            rest: Micros::from_secs(30),
            headroom: Amount { sm: Share(50_000), memory: Bytes(256 << 20) },
            least: Share(50_000),
            quantum: Share(10_000),
            gather: Micros::from_millis(50),
            wait_for: Micros::from_secs(2),
            store_within: Micros::from_secs(2),
            resend: Micros::from_secs(1),
            evict: true,
        }
    }
}

/// How a node borrows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Borrowing {
    /// How long a tenant must be short before the node asks for it.
    pub need_for: Micros,
    /// How long a loan must be superfluous before it is given back.
    pub spare_for: Micros,
    /// Least compute worth asking for.
    pub least: Share,
    /// How long an answer may take before the request is sent again.
    pub answer_within: Micros,
    /// How often a request or a release is sent before the node gives up.
    pub tries: u32,
    /// Pause before a lender that refused is asked again; doubles up to sixteen times.
    pub backoff: Micros,
    /// An offer older than this is forgotten.
    pub offer_holds: Micros,
}

impl Default for Borrowing {
    fn default() -> Self {
        Self {
            need_for: Micros::from_millis(300),
            spare_for: Micros::from_secs(5),
            least: Share(50_000),
            answer_within: Micros::from_secs(1),
            tries: 4,
            backoff: Micros::from_secs(2),
            offer_holds: Micros::from_secs(15),
        }
    }
}
