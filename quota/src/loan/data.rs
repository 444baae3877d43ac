//! What kind of data a loan lets out of a district.

use core::fmt;
use core::str::FromStr;

use crate::tenant::UnknownWord;

/// What a borrower sends to a device that is not its own. Copying a frame to a remote device ships the video.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum DataClass {
    /// Video and anything a person can be seen in. Never leaves its district. The default, so that forgetting
    /// to say loses nothing.
    #[default]
    Raw,
    /// Features, boxes, scores: computed from raw data and not convertible back.
    Derived,
    /// Models.
    Weights,
    /// Made up, for load tests.
    Synthetic,
}

impl DataClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Derived, Self::Weights, Self::Synthetic];

    /// The word for it in configuration, ledgers and the audit log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Derived => "derived",
            Self::Weights => "weights",
            Self::Synthetic => "synthetic",
        }
    }

    /// Whether it may go to another district.
    #[must_use]
    pub const fn may_leave_its_district(self) -> bool {
        !matches!(self, Self::Raw)
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for DataClass {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|class| class.word() == word)
            .ok_or(UnknownWord { expected: "raw, derived, weights, synthetic" })
    }
}
