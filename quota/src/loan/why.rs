//! Why something was decided: one sentence each, with the numbers it was decided by.

use core::fmt;
use std::sync::Arc;

use super::amount::Amount;
use super::names::{District, Guest, IncidentName, Tenant};
use crate::tenant::Class;
use crate::units::{Micros, Share};

/// The reason of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Granted: the owner left it idle.
    Idle {
        /// Whose quota.
        owner: Tenant,
        /// Most it used while watched.
        peak: Amount,
        /// How long it was watched.
        watched: Micros,
        /// The guest's class, which got it this turn.
        class: Class,
    },
    /// Renewed: the owner still does not want it.
    StillIdle {
        /// Whose quota.
        owner: Tenant,
    },
    /// Taken or called back: the owner wants it.
    OwnerWants {
        /// Whose quota.
        owner: Tenant,
        /// Its class now.
        class: Class,
        /// What it wants of its nominal quota.
        wants: Amount,
        /// What it has.
        has: Amount,
    },
    /// Called back: an incident names the owner.
    Incident {
        /// Whose quota.
        owner: Tenant,
        /// Who declared it.
        issuer: District,
        /// What it is called.
        name: IncidentName,
    },
    /// Called back: a guest of a higher class waits.
    HigherClassWaits {
        /// Who waits.
        guest: Guest,
        /// Its class.
        class: Class,
    },
    /// Called back: more is out than may be, since the operator lowered the quota.
    LimitLowered {
        /// Whose quota.
        owner: Tenant,
        /// What is out.
        lent: Amount,
        /// What may be out.
        limit: Amount,
    },
    /// Called back: its owner owns nothing here any more.
    OwnerGone {
        /// Who it was.
        owner: Tenant,
    },
    /// Called back: it has run as long as a loan may.
    TermOver {
        /// How long that is.
        after: Micros,
    },
    /// Refused: raw data stays in its district.
    RawStaysHome {
        /// Where it is.
        from: District,
        /// Where it would have gone.
        to: District,
    },
    /// Refused: the asker speaks for another district or node.
    NotYours {
        /// Whom it spoke for.
        claimed: Guest,
        /// Who it is.
        by: District,
    },
    /// Refused: another device's request.
    WrongPlace,
    /// Refused: the amount is below what is worth lending.
    AskedTooLittle {
        /// The least.
        least: Share,
    },
    /// Refused: no owner here has idled long enough.
    Watching {
        /// How long one must be idle.
        idle_for: Micros,
    },
    /// Refused: the owner took back lately.
    Resting {
        /// Whose quota.
        owner: Tenant,
        /// How long still.
        left: Micros,
    },
    /// Refused: the owner borrows elsewhere, and what is borrowed is not lent on.
    OwnerBorrows {
        /// Who borrows.
        owner: Tenant,
    },
    /// Refused: nothing idle is left above what the owners keep.
    NothingIdle {
        /// The most that any owner could lend now.
        most: Amount,
        /// The least worth lending.
        least: Share,
    },
    /// Refused: no owner here lends that much memory.
    NoMemory {
        /// The most that any owner could lend now.
        most: Amount,
    },
    /// Refused: as many loans are out as a device can have.
    LedgerFull,
    /// Refused: as many requests wait as can be kept.
    Crowded,
    /// Over: the borrower gave it back.
    Released,
    /// Over: the borrower was not heard of in time.
    Silent {
        /// For how long the lender waited.
        waited: Micros,
    },
    /// Over: given up before anyone was promised anything.
    Withdrawn,
    /// Over: the owner used the memory in the meantime.
    NoRoom,
    /// Over: the lender does not know it.
    Unknown,
    /// Stopped: its loan is over and it still holds memory.
    KeepsMemory {
        /// How much.
        held: Amount,
    },
    /// Asked: a tenant is short.
    Short {
        /// Who.
        tenant: Tenant,
        /// By how much.
        by: Amount,
        /// Its class.
        class: Class,
    },
    /// Given back: the tenant needs it no longer.
    NoLongerNeeded {
        /// Who.
        tenant: Tenant,
    },
    /// Given up: the lender did not answer.
    Unanswered {
        /// How often it was asked.
        tries: u32,
    },
    /// Ended: it could not be renewed in time.
    NotRenewed,
    /// What the other end said.
    Told(Arc<str>),
}

/// A span for people: seconds with as many decimals as it has.
struct Span(Micros);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, millis) = (self.0.0 / 1_000_000, self.0.0 % 1_000_000 / 1_000);
        if millis == 0 { write!(f, "{secs} s") } else { write!(f, "{secs}.{millis:03} s") }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { owner, peak, watched, class } => write!(
                f,
                "{owner} used at most {peak} in the last {}, and no request above class {} came first",
                Span(*watched),
                class.word()
            ),
            Self::StillIdle { owner } => write!(f, "{owner} still does not want it"),
            Self::OwnerWants { owner, class, wants, has } => write!(
                f,
                "{owner} ({}) wants {wants} of its own and has {has} while it is lent",
                class.word()
            ),
            Self::Incident { owner, issuer, name } => {
                write!(f, "incident {name} of {issuer} names {owner}, which may need it")
            }
            Self::HigherClassWaits { guest, class } => {
                write!(f, "{guest} waits, and {} goes first", class.word())
            }
            Self::LimitLowered { owner, lent, limit } => {
                write!(f, "{lent} of {owner} is out, and {limit} may be since the quota was changed")
            }
            Self::OwnerGone { owner } => write!(f, "{owner} owns nothing on this device any more"),
            Self::TermOver { after } => write!(f, "it has run for {}, the longest a loan may", Span(*after)),
            Self::Short { tenant, by, class } => {
                write!(f, "{tenant} ({}) is short of {by}", class.word())
            }
            Self::NoLongerNeeded { tenant } => write!(f, "{tenant} needs it no longer"),
            Self::Unanswered { tries } => write!(f, "the lender did not answer {tries} requests"),
            Self::NotRenewed => f.write_str("it could not be renewed in time"),
            Self::Told(text) => f.write_str(text),
            refused_or_over => refused_or_over.fmt_refused_or_over(f),
        }
    }
}

impl Why {
    fn fmt_refused_or_over(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawStaysHome { from, to } => {
                write!(f, "raw data of {from} may not go to {to}: it stays in its district")
            }
            Self::NotYours { claimed, by } => {
                write!(f, "it was asked for {claimed} by a node of {by}, which does not speak for it")
            }
            Self::WrongPlace => f.write_str("it was asked of a device that is not here"),
            Self::AskedTooLittle { least } => write!(f, "nothing below {least} is lent"),
            Self::Watching { idle_for } => {
                write!(f, "no owner has been watched for {}, which tells whether it idles", Span(*idle_for))
            }
            Self::Resting { owner, left } => {
                write!(f, "{owner} took back lately and lends nothing for another {}", Span(*left))
            }
            Self::OwnerBorrows { owner } => {
                write!(f, "{owner} borrows elsewhere, and nobody lends while borrowing")
            }
            Self::NothingIdle { most, least } => {
                write!(f, "the most that any owner leaves idle is {most}, and nothing below {least} is lent")
            }
            Self::NoMemory { most } => {
                write!(f, "no owner lends that much memory; the most that could be lent is {most}")
            }
            Self::LedgerFull => f.write_str("as many loans are out as one device can have"),
            Self::Crowded => f.write_str("too many requests wait at this device; ask again later"),
            Self::Released => f.write_str("the borrower gave it back"),
            Self::Silent { waited } => write!(f, "the borrower was not heard of for {}", Span(*waited)),
            Self::Withdrawn => f.write_str("it was given up before anything was promised"),
            Self::NoRoom => f.write_str("the owner used the memory in the meantime"),
            Self::Unknown => f.write_str("the lender does not know this loan"),
            Self::KeepsMemory { held } => {
                write!(f, "the loan is over and the guest still holds {} bytes", held.memory.0)
            }
            // Said by the caller. Named one by one, so that no new reason goes without its sentence.
            Self::Idle { .. }
            | Self::StillIdle { .. }
            | Self::OwnerWants { .. }
            | Self::Incident { .. }
            | Self::HigherClassWaits { .. }
            | Self::LimitLowered { .. }
            | Self::OwnerGone { .. }
            | Self::TermOver { .. }
            | Self::Short { .. }
            | Self::NoLongerNeeded { .. }
            | Self::Unanswered { .. }
            | Self::NotRenewed
            | Self::Told(_) => Ok(()),
        }
    }
}
