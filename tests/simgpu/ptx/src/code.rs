//! Instructions as the interpreter runs them: every name resolved to a slot, an offset or an index, every modifier to
//! a function. The decoder makes them, and upholds what the interpreter relies on: slots lie below the function's
//! register count, jump targets inside its code.

use crate::types::{Space, Type};

/// A register of a function. Slot 0 is never read: it takes what is written to `_`.
pub(crate) type Slot = u32;
/// The slot of `_`.
pub(crate) const SINK: Slot = 0;

pub(crate) type Unary = fn(u64) -> u64;
pub(crate) type Binary = fn(u64, u64) -> u64;
pub(crate) type Ternary = fn(u64, u64, u64) -> u64;
pub(crate) type Compare = fn(u64, u64) -> bool;

/// Something to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Src {
    Slot(Slot),
    Immediate(u64),
    Special(Special),
    /// Where the loader put a module variable, plus so many bytes.
    Variable(u32, i64),
    /// Offset of a shared variable in the kernel that was launched.
    Shared(u32, i64),
    /// Offset from the frame's local memory.
    Local(i64),
    /// Offset from the frame's parameters.
    Param(i64),
}

/// An address operand: a base and a constant number of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) base: Src,
    pub(crate) offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    WarpCount,
    SmId,
    SmCount,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    Clock,
    ClockHigh,
    Clock64,
    GlobalTimer,
    GlobalTimerLow,
    GlobalTimerHigh,
    DynamicShared,
    TotalShared,
}

impl Special {
    pub(crate) fn is_clock(self) -> bool {
        matches!(
            self,
            Self::Clock
                | Self::ClockHigh
                | Self::Clock64
                | Self::GlobalTimer
                | Self::GlobalTimerLow
                | Self::GlobalTimerHigh
        )
    }
}

/// A predicate operand that may be negated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predicate {
    pub(crate) slot: Slot,
    pub(crate) negated: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub(crate) guard: Option<Predicate>,
    pub(crate) op: Op,
    pub(crate) line: u32,
}

/// Parameters of a call: offset and size in the caller's frame, in the callee's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRange {
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Function(u32),
    Pointer(Src),
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) arguments: Vec<FrameRange>,
    pub(crate) returns: Vec<FrameRange>,
}

/// How `setp` and `set` combine the comparison with a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What a barrier does besides waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reduction {
    Population(Slot, Predicate),
    And(Slot, Predicate),
    Or(Slot, Predicate),
}

/// Extended-precision arithmetic: 32 or 64 bits, with the carry read, written or both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carry {
    pub(crate) wide: bool,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// Operations of one warp that need several lanes at once.
#[derive(Debug, Clone)]
pub(crate) enum WarpOp {
    Shuffle { mode: Shuffle, to: Slot, valid: Slot, value: Src, lane: Src, clamp: Src, mask: Src },
    Vote { mode: Vote, to: Slot, predicate: Predicate, mask: Src },
    Match { all: bool, to: Slot, agreed: Slot, value: Src, mask: Src },
    Reduce { combine: Binary, to: Slot, value: Src, mask: Src },
    Elect { lane: Slot, elected: Slot, mask: Src },
    Sync { mask: Src },
    ActiveMask { to: Slot },
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Move {
        to: Slot,
        value: Src,
    },
    /// A move from a clock. It also ends the thread's turn, so that all threads of a block that spin on the clock see
    /// it advance together.
    ReadClock {
        to: Slot,
        clock: Special,
    },
    Pack {
        to: Slot,
        parts: Vec<Src>,
        bits: u32,
    },
    Unpack {
        to: Vec<Slot>,
        value: Src,
        bits: u32,
    },
    Unary {
        apply: Unary,
        to: Slot,
        a: Src,
    },
    Binary {
        apply: Binary,
        to: Slot,
        a: Src,
        b: Src,
    },
    Ternary {
        apply: Ternary,
        to: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    /// Floating point with rounding, flushing or saturation away from the default.
    Float {
        apply: crate::alu::FloatOp,
        to: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    Lop3 {
        to: Slot,
        a: Src,
        b: Src,
        c: Src,
        table: u8,
    },
    BitInsert {
        to: Slot,
        a: Src,
        b: Src,
        position: Src,
        length: Src,
        wide: bool,
    },
    AddCarry {
        carry: Carry,
        to: Slot,
        a: Src,
        b: Src,
    },
    SubtractCarry {
        carry: Carry,
        to: Slot,
        a: Src,
        b: Src,
    },
    MultiplyAddCarry {
        product: Binary,
        carry: Carry,
        to: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    Convert {
        convert: crate::alu::Conversion,
        /// Fills a destination register that is wider than the type.
        extend: Unary,
        to: Slot,
        a: Src,
    },
    Compare {
        compare: Compare,
        combine: Option<(Combine, Predicate)>,
        to: Slot,
        other: Slot,
        a: Src,
        b: Src,
    },
    /// `set`: like `Compare`, but writes `yes` or zero.
    Set {
        compare: Compare,
        combine: Option<(Combine, Predicate)>,
        to: Slot,
        yes: u64,
        a: Src,
        b: Src,
    },
    Select {
        to: Slot,
        a: Src,
        b: Src,
        predicate: Predicate,
    },
    /// `slct`: `a` where `keeps(c)`, else `b`.
    SelectBy {
        keeps: fn(u64) -> bool,
        to: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    Not {
        to: Slot,
        predicate: Predicate,
    },
    Load {
        space: Space,
        element: Type,
        /// Sign-extends each element from memory to the register.
        extend: Unary,
        to: [Slot; 4],
        lanes: u8,
        address: Address,
    },
    Store {
        space: Space,
        element: Type,
        from: [Src; 4],
        lanes: u8,
        address: Address,
    },
    Atomic {
        space: Space,
        element: Type,
        /// The new value from the old one and the operands.
        change: Ternary,
        to: Slot,
        address: Address,
        b: Src,
        c: Src,
    },
    /// Generic address to one of a space; checks that it lies in the window.
    ToSpace {
        space: Space,
        to: Slot,
        a: Src,
    },
    /// Address of a space to a generic one.
    ToGeneric {
        space: Space,
        to: Slot,
        a: Src,
    },
    IsSpace {
        space: Space,
        to: Slot,
        a: Src,
    },
    Branch(u32),
    BranchIndexed {
        index: Src,
        targets: Vec<u32>,
    },
    Call(Box<Call>),
    Return,
    Exit,
    Trap,
    Yield,
    Nothing,
    Barrier {
        id: Src,
        threads: Option<Src>,
        reduction: Option<Reduction>,
    },
    Arrive {
        id: Src,
        threads: Src,
    },
    Warp(Box<WarpOp>),
}
