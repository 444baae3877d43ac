//! The device gate: no attested hook, no GPU.
//!
//! # Why
//! A process that loads no hook (a static binary, a cleared environment, another loader) has no quota. It needs the GPU's
//! device node to do anything, and opening that is a question the kernel asks here first.
//!
//! # How
//! The program sits on an ancestor of all tenants' cgroups by a link, so whatever a service manager puts on a tenant's own
//! cgroup is asked as well and replaces nothing. The loader attests a process once it has seen the hook in its memory; the
//! kernel takes that back itself when the process executes another program or ends.
//!
//! Every attempt without a hook is told to the loader, so that somebody looks at what that process has loaded.
//!
//! # Known drift
//! A device opened before the gate came, inherited over a fork or received over a socket is open already and not asked for
//! again; calls through it are what the bypass witness sees. On kernels that do not say when the last thread of a process
//! ends, it is the end of the first one that revokes.

#![no_std]
#![no_main]

mod attribution;
mod seen;

use aya_ebpf::{
    bindings::{
        BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE, BPF_DEVCG_DEV_CHAR, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC,
    },
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{btf_map, cgroup_device, raw_tracepoint},
    programs::{DeviceContext, RawTracePointContext},
};
use headgate_ebpf_programs::count::{add, count};
use headgate_ebpf_records::{
    border::{REASONS, Reason, Refusals, control, refusal_row},
    counters::Counter,
    gate::{Attested, Opened, class, device_key},
    limits::{ATTESTED_MAX, DEVICES_MAX, MAJORS_MAX, OPENS_RING_BYTES},
    policy::{Mode, Policy},
    slots::{ROWS_MAX, Slot},
};

use crate::{
    attribution::{current_cgroup, row_above},
    seen::{row_of_cgroup, word},
};

#[btf_map]
static POLICIES: Array<Policy, { ROWS_MAX as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static MAJORS: Array<u32, { MAJORS_MAX as usize }> = Array::new();

#[btf_map]
static DEVICES: HashMap<u64, u32, { DEVICES_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
static ATTESTED: HashMap<u32, Attested, { ATTESTED_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static GATE_REFUSALS: PerCpuArray<Refusals, { (ROWS_MAX * REASONS) as usize }> = PerCpuArray::new();

#[btf_map]
static OPENS: RingBuf<Opened, { OPENS_RING_BYTES as usize }> = RingBuf::new();

const PASS: i32 = 1;
const REFUSE: i32 = 0;

#[cgroup_device]
pub fn device_gate(context: DeviceContext) -> i32 {
    // SAFETY: the kernel passes a valid context, here and below.
    let access = unsafe { (*context.device).access_type };
    // The kind of device in the lower half, what is to be done with it in the upper. Making a node opens nothing.
    if access & 0xffff != BPF_DEVCG_DEV_CHAR || access >> 16 & (BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE) == 0
    {
        return PASS;
    }
    // SAFETY: as above.
    let major = unsafe { (*context.device).major };
    // SAFETY: as above.
    let minor = unsafe { (*context.device).minor };
    let class = match MAJORS.get(major) {
        None | Some(&class::FREE) => return PASS,
        // SAFETY: the value is copied at once.
        Some(&class::BY_MINOR) => match unsafe { DEVICES.get(device_key(major, minor)) } {
            Some(class) => *class,
            None => return PASS,
        },
        Some(class) => *class,
    };
    let row = row_of_cgroup(word(control::EPOCH), current_cgroup(), row_above);
    if row == Slot::UNKNOWN.row() {
        return PASS;
    }
    // SAFETY: a 64-bit number in a value just looked up; the loader stores it whole.
    let policy = POLICIES.get_ptr(row).map_or(Policy(0), |policy| unsafe { policy.read_volatile() });
    if class == class::RDMA {
        return verdict(row, policy.border(), Reason::Rdma);
    }
    if is_attested() {
        return PASS;
    }
    let answer = verdict(row, policy.gate(), Reason::Unattested);
    // Told of, because it is one to look at; those with a hook have said hello.
    let opened =
        Opened { tgid: process(), row, major, minor, passed: u32::from(answer == PASS), reserved: 0 };
    match OPENS.reserve(0) {
        Some(mut entry) => {
            entry.write(opened);
            entry.submit(0);
        }
        None => count(Counter::GateUntold),
    }
    answer
}

/// The tracepoint's second argument says whether the last thread is ending. A kernel without it refuses the attachment.
#[raw_tracepoint]
pub fn gate_exit(context: RawTracePointContext) -> i32 {
    let last: u64 = context.arg(1);
    if last as u8 != 0 {
        revoke();
    }
    0
}

#[raw_tracepoint]
pub fn gate_exit_leader(_: RawTracePointContext) -> i32 {
    // SAFETY: the helper takes nothing.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    if (ids >> 32) as u32 == ids as u32 {
        revoke();
    }
    0
}

#[raw_tracepoint]
pub fn gate_exec(_: RawTracePointContext) -> i32 {
    revoke();
    0
}

/// The current process.
#[inline(always)]
fn process() -> u32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

#[inline(always)]
fn is_attested() -> bool {
    // SAFETY: only its presence matters.
    unsafe { ATTESTED.get(process()) }.is_some()
}

#[inline(always)]
fn revoke() {
    // Most processes were never attested: that there is nothing to remove is no error.
    let _absent = ATTESTED.remove(process());
}

/// Counts a refusal and answers what the mode makes of it.
#[inline(always)]
fn verdict(row: u32, mode: Mode, reason: Reason) -> i32 {
    if mode == Mode::Off {
        return PASS;
    }
    if let Some(refusals) = GATE_REFUSALS.get_ptr_mut(refusal_row(row, reason)) {
        let number = if mode == Mode::Enforce {
            // SAFETY: the value was just looked up, here and below.
            unsafe { &raw mut (*refusals).refused }
        } else {
            // SAFETY: as above.
            unsafe { &raw mut (*refusals).audited }
        };
        // SAFETY: as above.
        unsafe { add(number, 1) };
    }
    if mode == Mode::Enforce { REFUSE } else { PASS }
}
