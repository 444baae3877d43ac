//! Ioctl audit: what a tenant's processes ask of the GPU driver in the kernel, and how long it takes.
//!
//! # Why
//! A program can do without the driver library and talk to the device itself. Its ioctls show it; and slow ones explain waits that
//! no library call does.
//!
//! # How
//! Two raw tracepoints on every system call of the node. Each costs every system call something while it is on, so the audit is
//! attached for a while and taken off again; off, it costs nothing.
//!
//! # Known drift
//! Only requests of the driver's type letter count. The driver's memory device uses bare numbers, and 32-bit processes have
//! another system call table; neither is seen. Arguments are not looked at.

#![no_std]
#![no_main]

mod attribution;

use aya_ebpf::{
    bindings::pt_regs,
    btf_maps::PerCpuArray,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use headgate_ebpf_programs::{
    count::{add, count, observe},
    storage::TaskStorage,
};
use headgate_ebpf_records::{
    counters::Counter,
    histogram::Histogram,
    ioctl::{Ioctl, NUMBERS, Numbers, TYPE},
    slots::ROWS_MAX,
};

use crate::attribution::current_row;

#[btf_map]
static IOCTLS: TaskStorage<Ioctl> = TaskStorage::new();

#[btf_map]
static IOCTL_TIMES: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

#[btf_map]
static IOCTL_NUMBERS: PerCpuArray<Numbers, { NUMBERS as usize }> = PerCpuArray::new();

/// `ioctl` on x86-64.
const SYSCALL_IOCTL: u64 = 16;

/// What every system call above this answers is an error number, negated.
const ERRORS: u64 = -4095_i64 as u64;

#[raw_tracepoint]
pub fn ioctl_enter(context: RawTracePointContext) -> i32 {
    let call: u64 = context.arg(1);
    if call != SYSCALL_IOCTL {
        return 0;
    }
    let registers: *const pt_regs = context.arg(0);
    let mut request = 0u64;
    // SAFETY: the destination is as long as said; the layout of the registers is the UAPI's and the helper checks the address.
    let answer = unsafe {
        bpf_probe_read_kernel(
            (&raw mut request).cast(),
            size_of::<u64>() as u32,
            (&raw const (*registers).rsi).cast(),
        )
    };
    if answer != 0 || (request as u32 >> 8) & 0xff != TYPE {
        return 0;
    }
    let ioctl = IOCTLS.of_current_or_new();
    if ioctl.is_null() {
        count(Counter::IoctlLost);
        return 0;
    }
    // SAFETY: not null, and only the current thread touches its own record.
    unsafe { (*ioctl).number = request as u32 & 0xff };
    // SAFETY: as above; the helper takes nothing.
    unsafe { (*ioctl).started_ns = bpf_ktime_get_ns() };
    0
}

#[raw_tracepoint]
pub fn ioctl_leave(context: RawTracePointContext) -> i32 {
    // Threads that never made such a call have no record, and most have none.
    let ioctl = IOCTLS.of_current();
    if ioctl.is_null() {
        return 0;
    }
    // SAFETY: not null, and only the current thread touches its own record, here and below.
    let started_ns = unsafe { (*ioctl).started_ns };
    if started_ns == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*ioctl).started_ns = 0 };
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    observe(&IOCTL_TIMES, current_row(), now_ns.wrapping_sub(started_ns));
    // SAFETY: as above.
    let number = unsafe { (*ioctl).number };
    if let Some(numbers) = IOCTL_NUMBERS.get_ptr_mut(number) {
        // SAFETY: the value was just looked up, here and below.
        unsafe { add(&raw mut (*numbers).calls, 1) };
        let answer: u64 = context.arg(1);
        if answer >= ERRORS {
            // SAFETY: as above.
            unsafe { add(&raw mut (*numbers).failed, 1) };
        }
    }
    0
}
