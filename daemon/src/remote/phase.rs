//! Where a session stands between a loan that ends and the next.
//!
//! ```text
//!          the loan is called back               the worker has put everything aside
//!  going ─────────────────────────> parting ───────────────────────────────────────> aside
//!    ^                                                                                 │ lent again
//!    └──────────────────────────────────────────────── returning <─────────────────────┘
//!                     the worker goes on                      (the same device, to the same tenant)
//! ```
//!
//! The borrower's daemon leads: it knows of loans first. From parting on it passes nothing on that the program sends, and takes
//! nothing from it, so that whoever is ahead waits as it does for a busy device. After a break it says once more what the other
//! side may not have heard; each order that has been carried out is answered again.

use tokio::sync::watch;

/// See the head of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    /// It works.
    #[default]
    Going,
    /// What is under way is finished and put aside; nothing new is passed on.
    Parting,
    /// What was on the device is in its worker's memory, and no loan stands under it.
    Aside,
    /// It has a loan again, and its device's memory comes back.
    Returning,
}

impl Phase {
    /// The word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Going => "going",
            Self::Parting => "parting",
            Self::Aside => "aside",
            Self::Returning => "returning",
        }
    }
}

/// What becomes of a session whose loan is called back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parting {
    /// What was submitted finishes, and it ends.
    End,
    /// What was submitted finishes, and it waits for a loan.
    Aside,
}

/// A session's phase, and whoever waits for it to change.
#[derive(Debug, Default)]
pub(super) struct Phases(watch::Sender<Phase>);

impl Phases {
    pub(super) fn now(&self) -> Phase {
        *self.0.borrow()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}
