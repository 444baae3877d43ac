//! Protections that the simulation can switch off, one at a time, to prove that its oracle would notice.
//!
//! Without the feature `simulation` there is nothing to switch: [`Flaws`] is empty and every question is
//! answered `false` at compile time.

/// One protection taken away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Flaw {
    /// Neither end keeps a margin.
    NoMargin,
    /// The lender does not stretch the time by the clocks' skew.
    NoSkew,
    /// The borrower counts from receipt instead of sending.
    CountFromReceipt,
    /// The device accepts stale tables.
    NoFencing,
    /// The node's allowances accept stale promises.
    StalePromise,
    /// The node's allowances listen to an earlier start of their daemon.
    OldIncarnation,
    /// A restarted lender forgets what it lent.
    ForgetAtRestart,
    /// A device whose table was lost starts with its owners at nominal.
    WarmStart,
    /// A grant is promised before the store has confirmed it.
    PromiseEarly,
    /// A renewal is promised without waiting longer for it.
    SilentRenewal,
    /// A release counts whichever start of the borrower's daemon sent it.
    AnyHolder,
    /// A loan that was cut is forgotten at once, though its borrower may not know.
    ForgetCut,
    /// What is out already is lent again.
    LendTwice,
    /// Express owners wait like all others.
    ExpressWaits,
    /// An ordinary owner's demand is ignored.
    OwnerIgnored,
    /// Loans are called back however young.
    NoMinimum,
    /// An owner that took back lends again at once, however short it idles.
    NoRest,
    /// The lender lets raw data in from other districts.
    RawCrosses,
    /// The lender believes whoever speaks, for whomever.
    AnySpeaker,
    /// An acknowledged notice is believed to have stopped the borrower already.
    AckIsRelease,
    /// A guest that keeps memory past its loan is left alone.
    NoEviction,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::NoMargin,
        Self::NoSkew,
        Self::CountFromReceipt,
        Self::NoFencing,
        Self::StalePromise,
        Self::OldIncarnation,
        Self::ForgetAtRestart,
        Self::WarmStart,
        Self::PromiseEarly,
        Self::SilentRenewal,
        Self::AnyHolder,
        Self::ForgetCut,
        Self::LendTwice,
        Self::ExpressWaits,
        Self::OwnerIgnored,
        Self::NoMinimum,
        Self::NoRest,
        Self::RawCrosses,
        Self::AnySpeaker,
        Self::AckIsRelease,
        Self::NoEviction,
    ];
}

/// Which protections are off. None, unless the simulation says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flaws {
    #[cfg(feature = "simulation")]
    only: Option<Flaw>,
}

impl Flaws {
    /// Everything is on.
    pub const NONE: Self = Self {
        #[cfg(feature = "simulation")]
        only: None,
    };

    /// Everything but one is on.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub const fn only(flaw: Flaw) -> Self {
        Self { only: Some(flaw) }
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn has(self, flaw: Flaw) -> bool {
        self.only == Some(flaw)
    }

    #[cfg(not(feature = "simulation"))]
    pub(crate) const fn has(self, _flaw: Flaw) -> bool {
        false
    }
}
