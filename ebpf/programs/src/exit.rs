//! Process exit: tells the daemon that a tenant's process has ended.
//!
//! # Why
//! A seat and its memory must be free within a second of `kill -9`. The daemon holds a pidfd for every process it
//! knows; this event also covers processes that never asked for a seat.
//!
//! # How
//! A raw tracepoint rather than a tracepoint: it needs no tracefs mount, costs half, and nothing is read from its
//! arguments, so there is no layout to depend on.
//!
//! # Known drift
//! A thread-group leader may end before its other threads (`pthread_exit` in `main`). The event is a hint to look, the
//! pidfd is the proof.

#![no_std]
#![no_main]

mod attribution;

use aya_ebpf::{
    btf_maps::RingBuf,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use headgate_ebpf_programs::count::count;
use headgate_ebpf_records::{counters::Counter, events::Exit, limits::EXITS_RING_BYTES, slots::Slot};

use crate::attribution::{current_cgroup, current_row};

#[btf_map]
static EXITS: RingBuf<Exit, { EXITS_RING_BYTES as usize }> = RingBuf::new();

#[raw_tracepoint]
pub fn process_exit(_: RawTracePointContext) -> i32 {
    // SAFETY: the helper takes nothing.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    let (tgid, thread) = ((ids >> 32) as u32, ids as u32);
    if tgid != thread {
        return 0;
    }
    let row = current_row();
    if row == Slot::UNKNOWN.row() {
        count(Counter::ExitOutside);
        return 0;
    }
    let Some(mut entry) = EXITS.reserve(0) else {
        count(Counter::ExitLost);
        return 0;
    };
    // SAFETY: the helper takes nothing.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    entry.write(Exit { tgid, row, cgroup_id: current_cgroup(), at_ns });
    entry.submit(0);
    count(Counter::ExitSent);
    0
}
