//! Round trips and retransmits of a tenant's TCP connections.
//!
//! # Why
//! Network time between districts must be told apart from GPU time, per tenant, without touching the application.
//!
//! # How
//! The program sits on the sockets of a tenant's cgroup. Round trips arrive in soft interrupts, where the current task
//! is anyone's, so the tenant comes from the cgroup that the program was attached to: the loader writes it into that
//! attachment's local storage. The kernel runs the programs of a nested cgroup before its ancestors'; the first one to
//! see a socket claims it in the socket's own storage, so a tenant inside a tenant counts once, as itself.
//!
//! # Known drift
//! Connections established before the program was attached are not seen. The claim of a cgroup that stops being a
//! tenant's stays with its open connections: they are then counted for nobody.

#![no_std]
#![no_main]

#[expect(
    deprecated,
    reason = "its successor needs a cgroup pointer, which this program type cannot have without CO-RE"
)]
use aya_ebpf::btf_maps::CgroupStorage;
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RETRANS_CB,
        BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
    },
    btf_maps::PerCpuArray,
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use headgate_ebpf_programs::{
    count::{add, count, observe},
    storage::SocketStorage,
};
use headgate_ebpf_records::{
    counters::{Counter, Sockets},
    events::{Attached, Claim},
    histogram::Histogram,
    slots::ROWS_MAX,
};

#[btf_map]
#[expect(deprecated, reason = "see the import")]
static ATTACHED: CgroupStorage<Attached> = CgroupStorage::new();

#[btf_map]
static CLAIMS: SocketStorage<Claim> = SocketStorage::new();

#[btf_map]
static RTTS: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

#[btf_map]
static SOCKETS: PerCpuArray<Sockets, { ROWS_MAX as usize }> = PerCpuArray::new();

/// Lets the other programs on the cgroup and the kernel go on; anything else would fail the socket operation.
const PROCEED: u32 = 1;

/// The callbacks that feed the figures.
const CALLBACKS: u32 = BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG;

#[sock_ops]
pub fn socket_event(context: SockOpsContext) -> u32 {
    let operation = context.op();
    let established =
        matches!(operation, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB);
    if !established && !matches!(operation, BPF_SOCK_OPS_RTT_CB | BPF_SOCK_OPS_RETRANS_CB) {
        return PROCEED;
    }
    if established {
        // Or-ed into what other programs on this cgroup may have asked for.
        let wanted = context.cb_flags() | CALLBACKS;
        if context.set_cb_flags(wanted as i32).is_err() {
            count(Counter::RttRefused);
        }
    }
    let Some(row) = claim(&context) else {
        return PROCEED;
    };
    match operation {
        BPF_SOCK_OPS_RTT_CB => observe(&RTTS, row, round_trip_ns(&context)),
        BPF_SOCK_OPS_RETRANS_CB => {
            if let Some(sockets) = SOCKETS.get_ptr_mut(row) {
                // The second argument is the number of segments sent again.
                // SAFETY: the value was just looked up.
                unsafe { add(&raw mut (*sockets).retransmits, u64::from(context.arg(1))) };
            }
        }
        _ => {
            if let Some(sockets) = SOCKETS.get_ptr_mut(row) {
                // SAFETY: the value was just looked up.
                unsafe { add(&raw mut (*sockets).established, 1) };
            }
        }
    }
    PROCEED
}

/// The tenant row to count this socket under, or `None` when it is an inner cgroup's.
#[inline(always)]
fn claim(context: &SockOpsContext) -> Option<u32> {
    let attached = ATTACHED.get_ptr_mut();
    // SAFETY: cgroup-local storage exists for as long as the program is attached; one aligned load.
    let cgroup_id = unsafe { (&raw const (*attached).cgroup_id).read_volatile() };
    if cgroup_id == 0 {
        // Attached this instant and not yet named: leave the socket to be claimed at its next callback.
        return None;
    }
    // SAFETY: the kernel passes a valid context; the verifier tracks the pointer it yields.
    let socket = unsafe { (*context.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        count(Counter::RttRefused);
        return None;
    }
    // SAFETY: the context's own socket, not null.
    let claim = unsafe { CLAIMS.of_or_new(socket) };
    if claim.is_null() {
        count(Counter::RttRefused);
        return None;
    }
    // SAFETY: not null; programs on one socket run one after the other, under the socket's lock.
    let owner = unsafe { (*claim).cgroup_id };
    if owner == 0 {
        // SAFETY: as above.
        unsafe { (*claim).cgroup_id = cgroup_id };
    } else if owner != cgroup_id {
        return None;
    }
    // SAFETY: as for the cgroup id above.
    Some(unsafe { (&raw const (*attached).row).read_volatile() })
}

/// The round trip just measured. Kernels before 6.11 pass no arguments; there the smoothed value stands in.
#[inline(always)]
fn round_trip_ns(context: &SockOpsContext) -> u64 {
    let measured_us = context.arg(0);
    let smoothed_us = context.arg(1);
    let us = if smoothed_us != 0 {
        measured_us
    } else {
        // SAFETY: the kernel passes a valid context. The kernel keeps eight times the smoothed value.
        unsafe { (*context.ops).srtt_us >> 3 }
    };
    u64::from(us) * 1000
}
