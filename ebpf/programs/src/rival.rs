//! The design not taken: a wait's start in a hash keyed by thread, the tenant looked up at every return.
//!
//! Never loaded by the daemon. It exists so that `tests/costs.rs` measures it beside the wait probe, in one run on one
//! machine; delete it when the comparison no longer interests anyone.

#![no_std]
#![no_main]

mod attribution;

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray},
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_map, raw_tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use headgate_ebpf_programs::count::{count, observe};
use headgate_ebpf_records::{counters::Counter, histogram::Histogram, slots::ROWS_MAX};

use crate::attribution::current_row;

#[btf_map]
static STARTS: HashMap<u64, u64, 10_240> = HashMap::new();

#[btf_map]
static WAITS: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

/// Nothing at all: what the kernel's clock shows for it, it shows for every program.
#[raw_tracepoint]
pub fn nothing(_: RawTracePointContext) -> i32 {
    0
}

#[uprobe]
pub fn wait_enter(_: ProbeContext) -> u32 {
    // SAFETY: the helper takes nothing.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if STARTS.insert(thread, now_ns, 0).is_err() {
        count(Counter::WaitStartLost);
    }
    0
}

#[uretprobe]
pub fn wait_leave(_: RetProbeContext) -> u32 {
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the helper takes nothing.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: only this thread writes its own entry, and it is copied before it is removed.
    let Some(started_ns) = (unsafe { STARTS.get(thread) }).copied() else {
        count(Counter::WaitUnmatched);
        return 0;
    };
    if STARTS.remove(thread).is_err() {
        count(Counter::WaitUnmatched);
    }
    observe(&WAITS, current_row(), now_ns.wrapping_sub(started_ns));
    0
}
