//! What a tenant owns, in Kueue's vocabulary: nominal, lending limit, borrowing limit.

use core::fmt;
use core::str::FromStr;

use crate::units::{Bytes, Ppm};

/// Who goes first when several tenants want one device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Class {
    /// Case review, training: runs in what the others leave of a window's beginning.
    Batch,
    /// The ordinary class.
    #[default]
    Standard,
    /// Alerts: takes the device at once while it has tokens.
    Express,
}

/// What happens to device time nobody else wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// The tenant may use it, up to its borrowing limit.
    #[default]
    Borrow,
    /// The tenant is held to its nominal share even on an idle device.
    Hard,
}

/// Compute quota on one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ComputeQuota {
    /// Owned share of SM-time.
    pub nominal: Ppm,
    /// Most it may use beyond nominal while others leave it unused; `None` is no cap.
    pub borrowing_limit: Option<Ppm>,
    /// Most of its own it lends to other nodes; `None` is all of it.
    pub lending_limit: Option<Ppm>,
    /// What happens to idle time.
    pub mode: Mode,
    /// Who goes first.
    pub class: Class,
}

impl ComputeQuota {
    /// The greatest share it may reach.
    #[must_use]
    pub fn ceiling(&self) -> Ppm {
        match (self.mode, self.borrowing_limit) {
            (Mode::Hard, _) => self.nominal,
            (Mode::Borrow, None) => Ppm::WHOLE,
            (Mode::Borrow, Some(limit)) => self.nominal.saturating_add(limit),
        }
    }
}

/// Memory quota on one device. Memory cannot be taken back at once, so nothing of it is lent unless asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryQuota {
    /// Most bytes in use at once.
    pub nominal: Bytes,
    /// Most of it that may be lent to other nodes; zero by default.
    pub lending_limit: Bytes,
}

/// A word that names no class or mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownWord {
    /// The words that would have been right.
    pub expected: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected one of: {}", self.expected)
    }
}

impl core::error::Error for UnknownWord {}

impl Class {
    /// The word for it in configuration, metrics and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Standard => "standard",
            Self::Express => "express",
        }
    }
}

impl Mode {
    /// The word for it in configuration, metrics and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Borrow => "borrow",
            Self::Hard => "hard",
        }
    }
}

impl FromStr for Class {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Batch, Self::Standard, Self::Express]
            .into_iter()
            .find(|class| class.word() == word)
            .ok_or(UnknownWord { expected: "express, standard, batch" })
    }
}

impl FromStr for Mode {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Borrow, Self::Hard]
            .into_iter()
            .find(|mode| mode.word() == word)
            .ok_or(UnknownWord { expected: "borrow, hard" })
    }
}
