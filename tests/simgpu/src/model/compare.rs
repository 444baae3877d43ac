//! The conditions of `cuStreamWaitValue32` and `cuStreamWaitValue64`.

/// When a wait is over (`CUstreamWaitValue_flags`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Condition {
    /// `CU_STREAM_WAIT_VALUE_GEQ`: the difference, as a signed number of the same width, is not negative, so that a
    /// counter may wrap.
    AtLeast,
    /// `CU_STREAM_WAIT_VALUE_EQ`.
    Equal,
    /// `CU_STREAM_WAIT_VALUE_AND`: a bit of the value is set in the word.
    And,
    /// `CU_STREAM_WAIT_VALUE_NOR`: a bit is set in neither.
    Nor,
}

/// Width of a memory operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Width {
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

/// Whether a wait for `value` is over when memory holds `word`.
#[must_use]
pub fn holds(condition: Condition, width: Width, word: u64, value: u64) -> bool {
    let (mask, sign) = match width {
        Width::Word => (u64::from(u32::MAX), 1 << 31),
        Width::Double => (u64::MAX, 1 << 63),
    };
    match condition {
        Condition::AtLeast => word.wrapping_sub(value) & sign == 0,
        Condition::Equal => (word ^ value) & mask == 0,
        Condition::And => word & value & mask != 0,
        Condition::Nor => !(word | value) & mask != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_is_cyclic() {
        for (width, top) in [(Width::Word, u64::from(u32::MAX)), (Width::Double, u64::MAX)] {
            assert!(holds(Condition::AtLeast, width, 5, 5));
            assert!(holds(Condition::AtLeast, width, 6, 5));
            assert!(!holds(Condition::AtLeast, width, 4, 5));
            assert!(holds(Condition::AtLeast, width, 2, top - 2), "the counter has wrapped");
            assert!(!holds(Condition::AtLeast, width, top - 2, 2), "the counter has yet to wrap");
        }
    }

    #[test]
    fn bit_conditions() {
        assert!(holds(Condition::And, Width::Word, 0b0110, 0b0100));
        assert!(!holds(Condition::And, Width::Word, 0b0110, 0b1001));
        assert!(!holds(Condition::And, Width::Word, 1 << 40, 1 << 40), "only 32 bits count");
        assert!(holds(Condition::Nor, Width::Word, 0, 0));
        assert!(!holds(Condition::Nor, Width::Word, 0xffff_0000, 0x0000_ffff));
        assert!(holds(Condition::Nor, Width::Double, 0xffff_0000, 0x0000_ffff));
        assert!(holds(Condition::Equal, Width::Word, 1 << 40 | 7, 7));
        assert!(!holds(Condition::Equal, Width::Double, 1 << 40 | 7, 7));
    }
}
