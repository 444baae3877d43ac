//! The border: what a tenant may send where.
//!
//! # Why
//! Some tenants' data may not leave their district. That must hold whatever runs in the tenant, and it must go on holding
//! when the daemon is gone; so it is decided here, per packet, by tables that outlive their writer.
//!
//! # How
//! The programs sit on one ancestor of all tenants' cgroups. Every packet knows the socket it came from, and the socket
//! the cgroup it was made in; the innermost named one says whose rules apply. An address range table says in which
//! district the other end lies.
//!
//! ```text
//!   own district, or this machine   pass
//!   no known district               refuse: unknown_district
//!   another district                not the GPU channel's port: refuse: not_channel
//!                                   taken + bytes > granted:    refuse: budget (what was taken is given back)
//!                                   else                        pass, and the bytes are spent
//! ```
//! `connect` and `sendmsg` are refused early by the same rules, so that a program gets an error instead of a timeout. Only
//! packets touch the budget. In audit mode everything passes and is counted where it would have been refused, by the packet
//! alone, lest a datagram count twice.
//!
//! Frames that go around the network stack (`AF_PACKET`, `AF_XDP`) have no packet to judge. A guard on the tenant's network
//! interface drops them, and what leaves the tenant's network without coming from the tenant's cgroup.
//!
//! # Known drift
//! A tenant inside a tenant is judged by its own rules alone. What is refused is not metered; what is lost further down the
//! stack is. A budget may refuse a packet that would just have fitted while a larger one is being refused on another CPU.

#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod attribution;
mod seen;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_sock_addr},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    helpers::generated::{
        bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id, bpf_skb_load_bytes,
    },
    macros::{btf_map, cgroup_skb, cgroup_sock_addr, classifier},
    programs::{SkBuffContext, SockAddrContext, TcContext},
};
use headgate_ebpf_programs::{
    count::{add, fetch_add},
    storage::SocketStorage,
};
use headgate_ebpf_records::{
    border::{
        AddressV4, AddressV6, Flow, Found, FoundRow, GENERATION_BITS, GUARDS_LATELY, LATELY_ENTRIES, LOCAL,
        Owner, REASONS, Reason, Refusals, Spend, UNKNOWN, control, district_row, refusal_row,
    },
    limits::{CGROUP_LEVELS_MAX, DISTRICTS_MAX, GUARDS_MAX, RANGES_MAX},
    policy::{Mode, Policy},
    slots::{ROWS_MAX, Slot},
};

use crate::{
    attribution::{current_cgroup, row_above, row_named},
    seen::{row_of_cgroup, word},
};

#[btf_map]
static POLICIES: Array<Policy, { ROWS_MAX as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static RANGES_V4: LpmTrie<AddressV4, u32, { 2 * RANGES_MAX as usize }> = LpmTrie::new();

#[btf_map]
static RANGES_V6: LpmTrie<AddressV6, u32, { 2 * RANGES_MAX as usize }> = LpmTrie::new();

/// Districts of IPv4 addresses lately asked for, on this CPU: each a [`Found`] in one word, so that a look sees all of an
/// entry or none of it.
#[btf_map]
static LATELY: PerCpuArray<u64, { LATELY_ENTRIES as usize }> = PerCpuArray::new();

#[btf_map]
static GRANTS: Array<u64, { (ROWS_MAX * DISTRICTS_MAX) as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map]
static SPENDS: Array<Spend, { (ROWS_MAX * DISTRICTS_MAX) as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map]
static FLOWS: PerCpuArray<Flow, { (ROWS_MAX * DISTRICTS_MAX) as usize }> = PerCpuArray::new();

#[btf_map]
static REFUSALS: PerCpuArray<Refusals, { (ROWS_MAX * REASONS) as usize }> = PerCpuArray::new();

#[btf_map]
static OWNERS: SocketStorage<Owner> = SocketStorage::new();

#[btf_map]
static GUARDED: HashMap<u32, u32, { GUARDS_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The rows of guarded interfaces lately asked for, on this CPU: each a [`FoundRow`].
#[btf_map]
static GUARDS_SEEN: PerCpuArray<u64, { GUARDS_LATELY as usize }> = PerCpuArray::new();

/// What cgroup programs answer.
const PASS: i32 = 1;
const REFUSE: i32 = 0;

/// What interface programs answer: the next one may look, or the frame is dropped.
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERNET_BYTES: u32 = 14;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_RAW: u32 = 3;

#[cgroup_skb(egress)]
pub fn border_egress(context: SkBuffContext) -> i32 {
    let skb = context.skb.skb;
    let epoch = word(control::EPOCH);
    let row = row_of(skb, epoch);
    if row == Slot::UNKNOWN.row() {
        return PASS;
    }
    let policy = policy_of(row);
    let mut packet = Packet::NOTHING;
    if !read_packet::<0>(skb, Side::Destination, &mut packet) {
        return verdict(row, policy, Reason::NotIp);
    }
    let district = district_of(&packet, epoch);
    if let Some(reason) = objection(policy, district, packet.protocol, packet.port) {
        if policy.border() == Mode::Enforce {
            return verdict(row, policy, reason);
        }
        count_refusal(row, reason, policy.border());
    } else if is_abroad(policy, district) && !spend(row, district, packet.bytes) {
        if policy.border() == Mode::Enforce {
            return verdict(row, policy, Reason::Budget);
        }
        count_refusal(row, Reason::Budget, policy.border());
    }
    if let Some(flow) = FLOWS.get_ptr_mut(district_row(row, district)) {
        // SAFETY: the value was just looked up.
        unsafe { add(&raw mut (*flow).egress, packet.bytes) };
    }
    PASS
}

#[cgroup_skb(ingress)]
pub fn border_ingress(context: SkBuffContext) -> i32 {
    let skb = context.skb.skb;
    let epoch = word(control::EPOCH);
    let row = row_of(skb, epoch);
    if row == Slot::UNKNOWN.row() {
        return PASS;
    }
    let mut packet = Packet::NOTHING;
    // What cannot be read came from outside; whoever sent it is judged there.
    let is_ip = read_packet::<0>(skb, Side::Source, &mut packet);
    let district = if is_ip { district_of(&packet, epoch) } else { UNKNOWN };
    if let Some(flow) = FLOWS.get_ptr_mut(district_row(row, district)) {
        // SAFETY: the value was just looked up.
        unsafe { add(&raw mut (*flow).ingress, packet.bytes) };
    }
    PASS
}

#[cgroup_sock_addr(connect4)]
pub fn border_connect4(context: SockAddrContext) -> i32 {
    address_v4(context.sock_addr)
}

#[cgroup_sock_addr(connect6)]
pub fn border_connect6(context: SockAddrContext) -> i32 {
    address_v6(context.sock_addr)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn border_sendmsg4(context: SockAddrContext) -> i32 {
    address_v4(context.sock_addr)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn border_sendmsg6(context: SockAddrContext) -> i32 {
    address_v6(context.sock_addr)
}

#[classifier]
pub fn border_frame(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    let epoch = word(control::EPOCH);
    // SAFETY: the kernel passes a valid context.
    let Some(row) = guarded_for(unsafe { (*skb).ifindex }, epoch) else {
        return TCX_NEXT;
    };
    let policy = policy_of(row);
    if policy.border() == Mode::Off {
        return TCX_NEXT;
    }
    let Some(reason) = frame_objection(skb, policy, epoch) else {
        return TCX_NEXT;
    };
    count_refusal(row, reason, policy.border());
    if policy.border() == Mode::Enforce { TCX_DROP } else { TCX_NEXT }
}

/// Whose an interface is.
#[inline(always)]
fn guarded_for(interface: u32, epoch: u32) -> Option<u32> {
    let key = u64::from(interface);
    let lately = GUARDS_SEEN.get_ptr_mut(interface % GUARDS_LATELY);
    if let Some(lately) = lately
        // SAFETY: a 64-bit number in a value just looked up; one load.
        && let Some(row) = FoundRow(unsafe { lately.read_volatile() }).row(epoch, key)
    {
        return Some(row);
    }
    // SAFETY: a word, copied at once.
    let row = unsafe { GUARDED.get(interface) }.copied()?;
    if let Some(lately) = lately {
        // SAFETY: as above; one store.
        unsafe { lately.write_volatile(FoundRow::new(epoch, key, row).0) };
    }
    Some(row)
}

/// Why a frame may not leave the tenant's network.
#[inline(always)]
fn frame_objection(skb: *mut __sk_buff, policy: Policy, epoch: u32) -> Option<Reason> {
    // SAFETY: the kernel passes a valid context.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    let (mut family, mut kind) = (AF_INET, SOCK_RAW);
    if !socket.is_null() {
        // SAFETY: not null, and the verifier tracks it.
        family = unsafe { (*socket).family };
        // SAFETY: as above.
        let full = unsafe { bpf_sk_fullsock(socket) };
        if !full.is_null() {
            // SAFETY: as above.
            kind = unsafe { (*full).type_ };
        }
    }
    if family != AF_INET && family != AF_INET6 {
        return Some(Reason::RawFrame);
    }
    // SAFETY: the kernel passes a valid context.
    if unsafe { (*skb).vlan_present } != 0 {
        return Some(Reason::NotIp);
    }
    // SAFETY: as above.
    match u16::from_be(unsafe { (*skb).protocol } as u16) {
        ETHERTYPE_V4 | ETHERTYPE_V6 => {}
        // Without a socket it is the kernel's own question for a neighbour.
        ETHERTYPE_ARP if socket.is_null() => return None,
        _ => return Some(Reason::NotIp),
    }
    let mut packet = Packet::NOTHING;
    if !read_packet::<ETHERNET_BYTES>(skb, Side::Destination, &mut packet) {
        return Some(Reason::NotIp);
    }
    if row_of(skb, epoch) == Slot::UNKNOWN.row() {
        // A program outside the tenant's cgroup, in the tenant's network. The kernel's own sockets are raw ones.
        if kind != SOCK_RAW {
            return Some(Reason::NoTenant);
        }
        // Neighbour discovery and group membership stay on the link.
        if packet.stays_on_link() {
            return None;
        }
        let district = district_of(&packet, epoch);
        return is_abroad(policy, district).then_some(Reason::NoTenant);
    }
    // Judged as a packet already; once more by address, for what was wrapped into another packet since.
    objection(policy, district_of(&packet, epoch), packet.protocol, packet.port)
}

/// Whose end of a packet is the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// What a packet says that matters here.
struct Packet {
    /// The other end, an IPv4 address in the first four bytes.
    address: [u8; 16],
    is_v6: bool,
    protocol: u8,
    /// Destination port; zero where there is none to read.
    port: u16,
    /// Bytes on the wire, IP headers included.
    bytes: u64,
}

impl Packet {
    const NOTHING: Self = Self { address: [0; 16], is_v6: false, protocol: 0, port: 0, bytes: 0 };

    /// Whether it is to the link itself: fe80::/10, ff02::/16 or 224.0.0.0/24.
    #[inline(always)]
    fn stays_on_link(&self) -> bool {
        let [a, b, c, ..] = self.address;
        if self.is_v6 {
            (a == 0xff && b == 0x02)
                || (a == 0xfe && b & 0xc0 == 0x80 && (self.protocol == ICMP_V6 || self.protocol == 0))
        } else {
            a == 224 && b == 0 && c == 0
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct HeaderV4 {
    version_and_words: u8,
    service: u8,
    bytes: [u8; 2],
    identification: [u8; 2],
    fragment: [u8; 2],
    hops: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

/// A packet without options, and the ports.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ordinary {
    header: HeaderV4,
    ports: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct HeaderV6 {
    version: [u8; 4],
    bytes: [u8; 2],
    next: u8,
    hops: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

/// Reads a packet that begins `AT` bytes into the buffer. Answers whether it could be read as IP.
#[inline(always)]
fn read_packet<const AT: u32>(skb: *mut __sk_buff, side: Side, packet: &mut Packet) -> bool {
    let at = AT;
    // SAFETY: the kernel passes a valid context.
    packet.bytes = u64::from(unsafe { (*skb).len }.wrapping_sub(at));
    if peek::<AT>(skb, side, packet) {
        return true;
    }
    let Some(first) = load::<u8>(skb, at) else { return false };
    let network_bytes;
    let mut has_ports = true;
    if first >> 4 == 4 {
        let Some(header) = load::<HeaderV4>(skb, at) else { return false };
        let address = if side == Side::Source { header.source } else { header.destination };
        packet.address[..4].copy_from_slice(&address);
        packet.protocol = header.protocol;
        network_bytes = u32::from(header.version_and_words & 15) * 4;
        // Only the first fragment names the ports.
        has_ports = u16::from_be_bytes(header.fragment) & 0x1fff == 0;
    } else if first >> 4 == 6 {
        let Some(header) = load::<HeaderV6>(skb, at) else { return false };
        packet.address = if side == Side::Source { header.source } else { header.destination };
        packet.is_v6 = true;
        // Behind an extension header there is no port for us: such a packet is on no channel.
        packet.protocol = header.next;
        network_bytes = size_of::<HeaderV6>() as u32;
    } else {
        return false;
    }
    let transport = at + network_bytes;
    if has_ports
        && matches!(packet.protocol, TCP | UDP)
        && let Some([_, _, high, low]) = load::<[u8; 4]>(skb, transport)
    {
        packet.port = u16::from_be_bytes([high, low]);
    }
    // SAFETY: the kernel passes a valid context.
    let segments = u64::from(unsafe { (*skb).gso_segs });
    if segments > 1 {
        // The network card will repeat the headers before every segment.
        let transport_bytes = match packet.protocol {
            TCP => load::<u8>(skb, transport + 12).map_or(20, |offset| u64::from(offset >> 4) * 4),
            _ => 8,
        };
        packet.bytes += (segments - 1) * (u64::from(network_bytes) + transport_bytes);
    }
    true
}

/// Reads an ordinary IPv4 packet where it lies: a header without options, whole and not to be cut, ports right behind it.
/// Answers whether it was one; anything else is read piece by piece.
#[inline(always)]
fn peek<const AT: u32>(skb: *mut __sk_buff, side: Side, packet: &mut Packet) -> bool {
    // SAFETY: the kernel passes a valid context, here and below.
    if unsafe { (*skb).gso_segs } > 1 {
        return false;
    }
    // SAFETY: as above.
    let data = unsafe { (*skb).data } as usize;
    // SAFETY: as above.
    let end = unsafe { (*skb).data_end } as usize;
    if data + AT as usize + size_of::<Ordinary>() > end {
        return false;
    }
    // SAFETY: inside the packet by the comparison, and bytes only.
    let ordinary = unsafe { &*((data + AT as usize) as *const Ordinary) };
    let header = &ordinary.header;
    if header.version_and_words != 0x45 || u16::from_be_bytes(header.fragment) & 0x1fff != 0 {
        return false;
    }
    let address = if side == Side::Source { header.source } else { header.destination };
    packet.address[..4].copy_from_slice(&address);
    packet.protocol = header.protocol;
    if matches!(header.protocol, TCP | UDP) {
        let [_, _, high, low] = ordinary.ports;
        packet.port = u16::from_be_bytes([high, low]);
    }
    true
}

/// Copies a few bytes out of a packet.
#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the buffer is as long as its size says, and every T here is bytes only.
    let answer =
        unsafe { bpf_skb_load_bytes(skb.cast(), at, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
    // SAFETY: the helper filled it.
    (answer == 0).then(|| unsafe { value.assume_init() })
}

/// The district of the other end, by the table of an epoch that was read before.
#[inline(always)]
fn district_of(packet: &Packet, epoch: u32) -> u8 {
    if packet.is_v6 {
        district_of_v6(packet.address)
    } else {
        let [a, b, c, d, ..] = packet.address;
        district_of_v4([a, b, c, d], epoch)
    }
}

#[inline(always)]
fn district_of_v4(address: [u8; 4], epoch: u32) -> u8 {
    let lately = LATELY.get_ptr_mut(Found::place(address));
    if let Some(lately) = lately
        // SAFETY: a 64-bit number in a value just looked up; one load.
        && let Some(district) = Found(unsafe { lately.read_volatile() }).district(epoch, address)
    {
        return district;
    }
    let key = Key::new(GENERATION_BITS + 32, AddressV4 { generation: word(control::GENERATION), address });
    let district = RANGES_V4.get(&key).map_or(UNKNOWN, |district| *district as u8);
    if let Some(lately) = lately {
        // SAFETY: as above; one store.
        unsafe { lately.write_volatile(Found::new(epoch, address, district).0) };
    }
    district
}

#[inline(always)]
fn district_of_v6(address: [u8; 16]) -> u8 {
    let key = Key::new(GENERATION_BITS + 128, AddressV6 { generation: word(control::GENERATION), address });
    RANGES_V6.get(&key).map_or(UNKNOWN, |district| *district as u8)
}

/// Whether the tenant is bound and the address is neither its district's nor this machine's.
#[inline(always)]
fn is_abroad(policy: Policy, district: u8) -> bool {
    policy.border() != Mode::Off && district != LOCAL && district != policy.home()
}

/// Why a tenant may not send there at all, budget aside.
#[inline(always)]
fn objection(policy: Policy, district: u8, protocol: u8, port: u16) -> Option<Reason> {
    if !is_abroad(policy, district) {
        return None;
    }
    if district == UNKNOWN {
        return Some(Reason::UnknownDistrict);
    }
    let on_channel = port != 0 && port == policy.channel_port() && matches!(protocol, TCP | UDP);
    if on_channel { None } else { Some(Reason::NotChannel) }
}

/// Takes bytes from a budget; answers whether they were there.
#[inline(always)]
fn spend(row: u32, district: u8, bytes: u64) -> bool {
    let index = district_row(row, district);
    let (Some(granted), Some(spend)) = (GRANTS.get_ptr(index), SPENDS.get_ptr_mut(index)) else {
        return false;
    };
    // SAFETY: a 64-bit number in a value just looked up; the loader stores it whole.
    let granted = unsafe { granted.read_volatile() };
    // SAFETY: as above; every writer is atomic.
    let before = unsafe { fetch_add(&raw mut (*spend).taken, bytes) };
    if before.wrapping_add(bytes) > granted {
        // SAFETY: as above.
        unsafe { add(&raw mut (*spend).taken, bytes.wrapping_neg()) };
        return false;
    }
    // SAFETY: as above.
    unsafe { add(&raw mut (*spend).passed, bytes) };
    true
}

/// Counts a refusal and answers what the tenant's mode makes of it.
#[inline(always)]
fn verdict(row: u32, policy: Policy, reason: Reason) -> i32 {
    let mode = policy.border();
    if mode == Mode::Off {
        return PASS;
    }
    count_refusal(row, reason, mode);
    if mode == Mode::Enforce { REFUSE } else { PASS }
}

#[inline(always)]
fn count_refusal(row: u32, reason: Reason, mode: Mode) {
    if let Some(refusals) = REFUSALS.get_ptr_mut(refusal_row(row, reason)) {
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
}

/// A `connect`, or a datagram with an address, of the current process.
#[inline(always)]
fn address_v4(address: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let to = unsafe { (*address).user_ip4 };
    judge_address(address, |epoch| district_of_v4(to.to_ne_bytes(), epoch))
}

#[inline(always)]
fn address_v6(address: *mut bpf_sock_addr) -> i32 {
    let words =
        [word_at::<8>(address), word_at::<12>(address), word_at::<16>(address), word_at::<20>(address)];
    judge_address(address, |epoch| {
        // An IPv4 address in an IPv6 socket leaves as an IPv4 packet.
        if words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be() {
            return district_of_v4(words[3].to_ne_bytes(), epoch);
        }
        let mut bytes = [0; 16];
        for (to, from) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        district_of_v6(bytes)
    })
}

/// A word of the context. Spelled as the instruction: the kernel takes a context's words only by constant offsets from its
/// beginning, and the compiler likes to walk along them.
#[inline(always)]
fn word_at<const OFFSET: usize>(address: *mut bpf_sock_addr) -> u32 {
    const { assert!(OFFSET >= 8 && OFFSET < 24 && OFFSET % 4 == 0, "the words of `user_ip6`") };
    #[cfg(target_arch = "bpf")]
    {
        let word: u64;
        // SAFETY: the kernel passes a valid context, and the offset is inside it.
        unsafe {
            core::arch::asm!("{word} = *(u32 *)({context} + {offset})", word = out(reg) word, context = in(reg) address, offset = const OFFSET, options(pure, readonly, nostack));
        }
        word as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above; this arm only lets tools that know no BPF target read the crate.
    unsafe {
        (*address).user_ip6[(OFFSET - 8) / 4]
    }
}

#[inline(always)]
fn judge_address(address: *mut bpf_sock_addr, district: impl FnOnce(u32) -> u8) -> i32 {
    let epoch = word(control::EPOCH);
    let row = row_of_cgroup(epoch, current_cgroup(), row_above);
    if row == Slot::UNKNOWN.row() {
        return PASS;
    }
    let policy = policy_of(row);
    if policy.border() != Mode::Enforce {
        return PASS;
    }
    // SAFETY: the kernel passes a valid context, here and below; the port is in network byte order.
    let port = u16::from_be(unsafe { (*address).user_port } as u16);
    // SAFETY: as above.
    let protocol = unsafe { (*address).protocol } as u8;
    match objection(policy, district(epoch), protocol, port) {
        Some(reason) => verdict(row, policy, reason),
        None => PASS,
    }
}

#[inline(always)]
fn policy_of(row: u32) -> Policy {
    // SAFETY: a 64-bit number in a value just looked up; the loader stores it whole.
    POLICIES.get_ptr(row).map_or(Policy(0), |policy| unsafe { policy.read_volatile() })
}

/// The tenant row of the socket that a packet belongs to.
///
/// The socket remembers it, so that the walk over its cgroup's ancestors is made once. The epoch is read before the table:
/// a change that comes in between leaves an old epoch behind, and the next packet looks again.
#[inline(always)]
fn row_of(skb: *mut __sk_buff, epoch: u32) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return Slot::UNKNOWN.row();
    }
    // SAFETY: not null, and the verifier tracks it.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() {
        // A connection being made: the kernel finds its listener's cgroup, and there is nothing to remember it in.
        return find_row(skb, epoch);
    }
    // SAFETY: the context's own socket, not null.
    let owner = unsafe { OWNERS.of_or_new(full) };
    if owner.is_null() {
        return find_row(skb, epoch);
    }
    // SAFETY: not null, here and below; one 64-bit load or store, whole for the other CPUs.
    if let Some(row) = unsafe { owner.read_volatile() }.row_in(epoch) {
        return row;
    }
    let row = find_row(skb, epoch);
    // SAFETY: as above.
    unsafe { owner.write_volatile(Owner::new(epoch, row)) };
    row
}

/// The row of the innermost named cgroup around the socket's own.
#[inline(always)]
fn find_row(skb: *mut __sk_buff, epoch: u32) -> u32 {
    // SAFETY: the kernel passes a valid context; the helper answers zero without a socket.
    let own = unsafe { bpf_skb_cgroup_id(skb) };
    if own == 0 {
        return Slot::UNKNOWN.row();
    }
    row_of_cgroup(epoch, own, || {
        let mut level = CGROUP_LEVELS_MAX;
        while level > 0 {
            level -= 1;
            // SAFETY: as above; zero below the socket's own cgroup.
            let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
            if id == 0 {
                continue;
            }
            if let Some(row) = row_named(id) {
                return row;
            }
        }
        Slot::UNKNOWN.row()
    })
}
