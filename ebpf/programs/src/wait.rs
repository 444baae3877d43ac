//! GPU wait: how long a tenant's threads sit in the driver's synchronous calls.
//!
//! # Why
//! A sync call is where a host program waits for its GPU. Its duration is what the tenant feels; it needs no CUPTI, no
//! library in the tenant and no sampling.
//!
//! # How
//! A thread's record follows its outermost sync call by stack pointer:
//!
//! ```text
//!                   enter at S                    leave at S: observe
//!   idle (0) ------------------------> waiting(S) ---------------------------> idle
//!                                       |   |   ^
//!        enter below S: nested, counted |   |   | leave below S: the nested call is back; nothing
//!                                       +---+---+
//!        enter at S again: the same frame; the wait starts again (a tail call, or the call repeated after a jump)
//!        enter or leave above S, or nested too often: the frame is gone without returning; abandoned, start again
//! ```
//! "At S" for a return means S plus the return address that `ret` has popped. A copy that synchronises inside counts
//! once, and a thread that leaves a call by `longjmp` or an exception heals within a bounded number of calls, counted.
//! Depth counters do not.
//!
//! While launches are audited, their calls are timed in the same way, and a thread remembers when its first one began: the
//! end of its next synchronous call closes the span. That is an upper bound of queueing and running together.
//!
//! The hook says in a register for which of a process' devices it calls ([`device_told`]); where it says nothing, the GPU is that
//! of the process, as the daemon knows it, and a process with several has its durations under none.
//!
//! Where the kernel has sessions (Linux 6.13), one program is told of entry and return, and of no return that nobody waits for.
//!
//! # Known drift
//! A wait under way is invisible until it returns. A thread killed while it waits leaves no duration. A launch has no register
//! to spare: of a process with several devices it counts under none.

#![no_std]
#![no_main]

mod attribution;
mod cells;

use aya_ebpf::{
    bindings::pt_regs,
    btf_maps::{Array, PerCpuArray},
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_map, uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use headgate_ebpf_programs::{
    count::{count, observe},
    session::is_return,
    storage::TaskStorage,
};
use headgate_ebpf_records::{
    counters::Counter,
    events::{Waiting, device_told},
    histogram::Histogram,
    limits::NESTED_WAITS_MAX,
    slots::ROWS_MAX,
};

use crate::{
    attribution::{current_cgroup, current_row},
    cells::cell_of,
};

/// See [`headgate_ebpf_records::maps::EPOCH`].
#[btf_map]
static EPOCH: Array<u32, 1> = Array::new();

#[btf_map]
static WAITING: TaskStorage<Waiting> = TaskStorage::new();

#[btf_map]
static WAITS: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

#[btf_map]
static LAUNCH_TIMES: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

#[btf_map]
static SPANS: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

/// What x86-64's `call` pushed and `ret` has popped by the time the return probe runs.
const RETURN_ADDRESS_BYTES: u64 = 8;

/// Entry and return of a sync call by one program, where the kernel has links that tell it both.
#[uprobe]
pub fn wait_session(context: ProbeContext) -> u32 {
    if is_return(&context) {
        leave(context.regs);
        return 0;
    }
    u32::from(enter(context.regs) == Call::NeedsNoReturn)
}

#[uprobe]
pub fn wait_enter(context: ProbeContext) -> u32 {
    enter(context.regs);
    0
}

#[uretprobe]
pub fn wait_leave(context: RetProbeContext) -> u32 {
    leave(context.regs);
    0
}

/// Entry and return of a launch by one program, while launches are audited.
#[uprobe]
pub fn launch_session(context: ProbeContext) -> u32 {
    if is_return(&context) {
        launched(context.regs);
        return 0;
    }
    u32::from(launch(context.regs) == Call::NeedsNoReturn)
}

/// A launch, while launches are audited.
#[uprobe]
pub fn wait_launch(context: ProbeContext) -> u32 {
    launch(context.regs);
    0
}

/// A launch has returned.
#[uretprobe]
pub fn wait_launched(context: RetProbeContext) -> u32 {
    launched(context.regs);
    0
}

/// Whether anybody wants to know that a call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Followed,
    NeedsNoReturn,
}

#[inline(always)]
fn enter(registers: *const pt_regs) -> Call {
    let waiting = WAITING.of_current_or_new();
    if waiting.is_null() {
        count(Counter::WaitStartLost);
        return Call::NeedsNoReturn;
    }
    // SAFETY: the kernel passes the registers of the probed thread.
    let stack_pointer = unsafe { (*registers).rsp };
    // SAFETY: not null, and only the current thread touches its own record.
    let outermost = unsafe { (*waiting).stack_pointer };
    if outermost != 0 {
        // SAFETY: as above.
        let nested = unsafe { (*waiting).nested };
        if stack_pointer < outermost && nested < NESTED_WAITS_MAX {
            // SAFETY: as above.
            unsafe { (*waiting).nested = nested + 1 };
            count(Counter::WaitNested);
            return Call::NeedsNoReturn;
        }
        count(if stack_pointer == outermost { Counter::WaitRestarted } else { Counter::WaitAbandoned });
    }
    // SAFETY: as above.
    unsafe { (*waiting).nested = 0 };
    // SAFETY: as above.
    unsafe { (*waiting).stack_pointer = stack_pointer };
    // SAFETY: as above; the helper takes nothing.
    unsafe { (*waiting).device = device_of(registers) };
    // SAFETY: as above; the helper takes nothing.
    unsafe { (*waiting).started_ns = bpf_ktime_get_ns() };
    Call::Followed
}

#[inline(always)]
fn leave(registers: *const pt_regs) {
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let waiting = WAITING.of_current();
    if waiting.is_null() {
        count(Counter::WaitUnmatched);
        return;
    }
    // SAFETY: the kernel passes the registers of the probed thread.
    let frame = unsafe { (*registers).rsp }.wrapping_sub(RETURN_ADDRESS_BYTES);
    // SAFETY: not null, and only the current thread touches its own record.
    let outermost = unsafe { (*waiting).stack_pointer };
    if outermost == 0 {
        count(Counter::WaitUnmatched);
        return;
    }
    if frame < outermost {
        return;
    }
    // SAFETY: as above.
    unsafe { (*waiting).stack_pointer = 0 };
    if frame > outermost {
        count(Counter::WaitAbandoned);
        return;
    }
    // SAFETY: as above.
    let started_ns = unsafe { (*waiting).started_ns };
    // SAFETY: as above.
    let device = unsafe { (*waiting).device };
    // SAFETY: as above.
    let cell = unsafe { cell_now(waiting, device) };
    observe(&WAITS, cell, now_ns.wrapping_sub(started_ns));
    // SAFETY: as above.
    let first_launch_ns = unsafe { (*waiting).first_launch_ns };
    if first_launch_ns != 0 {
        // SAFETY: as above.
        unsafe { (*waiting).first_launch_ns = 0 };
        observe(&SPANS, cell, now_ns.wrapping_sub(first_launch_ns));
    }
}

#[inline(always)]
fn launch(registers: *const pt_regs) -> Call {
    let waiting = WAITING.of_current_or_new();
    if waiting.is_null() {
        count(Counter::WaitStartLost);
        return Call::NeedsNoReturn;
    }
    // SAFETY: the kernel passes the registers of the probed thread.
    let stack_pointer = unsafe { (*registers).rsp };
    // SAFETY: not null, and only the current thread touches its own record, here and below.
    let outermost = unsafe { (*waiting).launch_stack_pointer };
    if outermost != 0 {
        // SAFETY: as above.
        let nested = unsafe { (*waiting).launches_nested };
        if stack_pointer < outermost && nested < NESTED_WAITS_MAX {
            // SAFETY: as above.
            unsafe { (*waiting).launches_nested = nested + 1 };
            count(Counter::WaitNested);
            return Call::NeedsNoReturn;
        }
        count(if stack_pointer == outermost { Counter::WaitRestarted } else { Counter::WaitAbandoned });
    }
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as above.
    unsafe { (*waiting).launches_nested = 0 };
    // SAFETY: as above.
    unsafe { (*waiting).launch_stack_pointer = stack_pointer };
    // SAFETY: as above.
    unsafe { (*waiting).launch_started_ns = now_ns };
    // SAFETY: as above.
    if unsafe { (*waiting).first_launch_ns } == 0 {
        // SAFETY: as above.
        unsafe { (*waiting).first_launch_ns = now_ns };
    }
    Call::Followed
}

#[inline(always)]
fn launched(registers: *const pt_regs) {
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let waiting = WAITING.of_current();
    if waiting.is_null() {
        count(Counter::WaitUnmatched);
        return;
    }
    // SAFETY: the kernel passes the registers of the probed thread.
    let frame = unsafe { (*registers).rsp }.wrapping_sub(RETURN_ADDRESS_BYTES);
    // SAFETY: not null, and only the current thread touches its own record, here and below.
    let outermost = unsafe { (*waiting).launch_stack_pointer };
    if outermost == 0 {
        count(Counter::WaitUnmatched);
        return;
    }
    if frame < outermost {
        return;
    }
    // SAFETY: as above.
    unsafe { (*waiting).launch_stack_pointer = 0 };
    if frame > outermost {
        count(Counter::WaitAbandoned);
        return;
    }
    // SAFETY: as above.
    let started_ns = unsafe { (*waiting).launch_started_ns };
    // A launch has no register to spare for its device.
    // SAFETY: as above.
    let cell = unsafe { cell_now(waiting, 0) };
    observe(&LAUNCH_TIMES, cell, now_ns.wrapping_sub(started_ns));
}

/// The device that the hook says the call waits for, in the register of a sixth argument, which none of these calls has.
#[inline(always)]
fn device_of(registers: *const pt_regs) -> u32 {
    // SAFETY: the kernel passes the registers of the probed thread.
    device_told(unsafe { (*registers).r9 })
}

/// Where the current thread's durations go, from its record if neither its cgroup nor the table has changed since.
///
/// The epoch is read before the table: a change that comes in between leaves an old epoch in the record, and the next
/// call looks again. What is cached can thus be stale for the calls already running, never longer.
///
/// # Safety
/// `waiting` is the current thread's own record.
#[inline(always)]
unsafe fn cell_now(waiting: *mut Waiting, device: u32) -> u32 {
    let epoch = match EPOCH.get_ptr(0) {
        // SAFETY: a 32-bit number in a map value just looked up; one load.
        Some(epoch) => unsafe { epoch.read_volatile() },
        None => 0,
    };
    let cgroup_id = current_cgroup();
    // SAFETY: the caller's promise.
    let cached = unsafe { *waiting };
    if cached.epoch == epoch && cached.cgroup_id == cgroup_id && cached.cell_device == device {
        return cached.cell;
    }
    let cell = cell_of(current_row(), device);
    // SAFETY: the caller's promise.
    unsafe { (*waiting).cgroup_id = cgroup_id };
    // SAFETY: the caller's promise.
    unsafe { (*waiting).epoch = epoch };
    // SAFETY: the caller's promise.
    unsafe { (*waiting).cell_device = device };
    // SAFETY: the caller's promise.
    unsafe { (*waiting).cell = cell };
    cell
}
