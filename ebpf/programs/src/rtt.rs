//! Round trips and retransmits of a tenant's TCP connections.
//!
//! # Why
//! Network time between districts must be told apart from GPU time, per tenant, without touching the application.
//!
//! # How
//! The program sits on the sockets of a tenant's cgroup. Round trips arrive in soft interrupts, where the current task
//! is anyone's, so the tenant comes from the cgroup that the program was attached to: the loader writes it into that
//! attachment's local storage. The kernel runs the programs of a nested cgroup before its ancestors'; the first one to
//! see a socket claims it in the socket's own storage, so a tenant inside a tenant counts once, as itself. The claim also
//! remembers the district of the other end, looked up once in a connection's life.
//!
//! # Known drift
//! Connections established before the program was attached are not seen. The claim of a cgroup that stops being a
//! tenant's stays with its open connections: they are then counted for nobody. A connection keeps the district that its
//! other end had when it was claimed, whatever the address table says later.

#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[expect(
    deprecated,
    reason = "its successor needs a cgroup pointer, which this program type cannot have without CO-RE"
)]
use aya_ebpf::btf_maps::CgroupStorage;
use aya_ebpf::{
    bindings::{
        BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RETRANS_CB, BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
    },
    btf_maps::{Array, LpmTrie, PerCpuHashMap, lpm_trie::Key},
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use headgate_ebpf_programs::{
    count::{add, count, observe_in},
    storage::SocketStorage,
};
use headgate_ebpf_records::{
    border::{AddressV4, AddressV6, GENERATION_BITS, UNKNOWN},
    counters::{Counter, Sockets},
    events::{Attached, Claim, PeerKey},
    limits::{PEERS_MAX, RANGES_MAX},
};

#[btf_map]
#[expect(deprecated, reason = "see the import")]
static ATTACHED: CgroupStorage<Attached> = CgroupStorage::new();

#[btf_map]
static CLAIMS: SocketStorage<Claim> = SocketStorage::new();

#[btf_map]
static SOCKETS: PerCpuHashMap<PeerKey, Sockets, { PEERS_MAX as usize }> = PerCpuHashMap::new();

#[btf_map]
static RANGES_V4: LpmTrie<AddressV4, u32, { 2 * RANGES_MAX as usize }> = LpmTrie::new();

#[btf_map]
static RANGES_V6: LpmTrie<AddressV6, u32, { 2 * RANGES_MAX as usize }> = LpmTrie::new();

#[btf_map]
static GENERATION: Array<u32, 1> = Array::new();

const AF_INET: u32 = 2;

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
    let Some(key) = claim(&context) else {
        return PROCEED;
    };
    let Some(sockets) = sockets_of(&key) else {
        // Told once for a connection, not for each of its round trips.
        if established {
            count(Counter::PeersFull);
        }
        return PROCEED;
    };
    match operation {
        // SAFETY: the value was just looked up, here and below.
        BPF_SOCK_OPS_RTT_CB => unsafe {
            observe_in(&raw mut (*sockets).round_trips, round_trip_ns(&context));
        },
        // The second argument is the number of segments sent again.
        // SAFETY: as above.
        BPF_SOCK_OPS_RETRANS_CB => unsafe {
            add(&raw mut (*sockets).retransmits, u64::from(context.arg(1)));
        },
        // SAFETY: as above.
        _ => unsafe { add(&raw mut (*sockets).established, 1) },
    }
    PROCEED
}

/// The figures of a tenant and a district, made if there are none. `None` if the table is full.
#[inline(always)]
fn sockets_of(key: &PeerKey) -> Option<*mut Sockets> {
    if let Some(sockets) = SOCKETS.get_ptr_mut(key) {
        return Some(sockets);
    }
    // Another CPU may have been faster: then its entry counts.
    let _there = SOCKETS.insert(key, Sockets::EMPTY, u64::from(BPF_NOEXIST));
    SOCKETS.get_ptr_mut(key)
}

/// The tenant and district to count this socket under, or `None` when it is an inner cgroup's.
#[inline(always)]
fn claim(context: &SockOpsContext) -> Option<PeerKey> {
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
        unsafe { (*claim).district = district_of(context) };
        // SAFETY: as above.
        unsafe { (*claim).cgroup_id = cgroup_id };
    } else if owner != cgroup_id {
        return None;
    }
    // SAFETY: as for the cgroup id above.
    let row = unsafe { (&raw const (*attached).row).read_volatile() };
    // SAFETY: as for the claim above.
    Some(PeerKey { row, district: unsafe { (*claim).district } })
}

/// The district of a socket's other end.
#[inline(always)]
fn district_of(context: &SockOpsContext) -> u32 {
    // SAFETY: a 32-bit number in a value just looked up; the loader stores it whole.
    let generation = GENERATION.get_ptr(0).map_or(0, |generation| unsafe { generation.read_volatile() });
    if context.family() == AF_INET {
        return district_of_v4(generation, context.remote_ip4());
    }
    let words =
        [word_at::<32>(context), word_at::<36>(context), word_at::<40>(context), word_at::<44>(context)];
    // An IPv4 address in an IPv6 socket.
    if words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be() {
        return district_of_v4(generation, words[3]);
    }
    let mut address = [0; 16];
    for (to, from) in address.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    let key = Key::new(GENERATION_BITS + 128, AddressV6 { generation, address });
    RANGES_V6.get(&key).map_or(u32::from(UNKNOWN), |district| *district)
}

/// A word of the context, spelled as the instruction: see `border.rs`.
#[inline(always)]
fn word_at<const OFFSET: usize>(context: &SockOpsContext) -> u32 {
    const { assert!(OFFSET >= 32 && OFFSET < 48 && OFFSET % 4 == 0, "the words of `remote_ip6`") };
    #[cfg(target_arch = "bpf")]
    {
        let word: u64;
        // SAFETY: the kernel passes a valid context, and the offset is inside it.
        unsafe {
            core::arch::asm!("{word} = *(u32 *)({context} + {offset})", word = out(reg) word, context = in(reg) context.ops, offset = const OFFSET, options(pure, readonly, nostack));
        }
        word as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        context.remote_ip6()[(OFFSET - 32) / 4]
    }
}

#[inline(always)]
fn district_of_v4(generation: u32, address: u32) -> u32 {
    let key = Key::new(GENERATION_BITS + 32, AddressV4 { generation, address: address.to_ne_bytes() });
    RANGES_V4.get(&key).map_or(u32::from(UNKNOWN), |district| *district)
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
