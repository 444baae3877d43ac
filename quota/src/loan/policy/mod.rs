//! What may be lent, to whom, and what is taken back first. Plain functions on plain values.

pub mod lend;
pub mod rank;
pub mod reclaim;
