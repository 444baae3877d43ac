//! The gate word: bit 0 says open, the rest counts openings, so that no opening is missed by a waiter.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use headgate_abi::segment::layout::GATE_OPEN_BIT;

use crate::sys;

/// Opens the gate and wakes everyone who waits. Opening an open gate does nothing.
pub fn open(gate: &AtomicU32) {
    let word = gate.load(Acquire);
    if word & GATE_OPEN_BIT == 0 {
        gate.store(word.wrapping_add(2) | GATE_OPEN_BIT, Release);
        sys::futex_wake_all(gate);
    }
}

/// Closes the gate. Closing a closed gate does nothing.
pub fn close(gate: &AtomicU32) {
    let word = gate.load(Acquire);
    if word & GATE_OPEN_BIT != 0 {
        gate.store(word & !GATE_OPEN_BIT, Release);
    }
}

/// Whether the word says open.
#[must_use]
pub fn is_open(gate: &AtomicU32) -> bool {
    gate.load(Acquire) & GATE_OPEN_BIT != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opening_makes_a_new_word() {
        let gate = AtomicU32::new(0);
        let mut seen = Vec::new();
        for _ in 0..3 {
            open(&gate);
            open(&gate);
            assert!(is_open(&gate));
            seen.push(gate.load(Acquire));
            close(&gate);
            close(&gate);
            assert!(!is_open(&gate));
        }
        assert_eq!(seen, [3, 5, 7]);
        let last = AtomicU32::new(u32::MAX - 1);
        open(&last);
        assert!(is_open(&last), "the count wraps and the bit stays");
    }
}
