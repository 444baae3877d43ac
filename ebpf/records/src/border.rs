//! Records of the border: which address lies in which district, what may cross, and what was refused.

use crate::{limits::DISTRICTS_MAX, slots::ROWS_MAX};

/// An address of no known district. Its index is zero because a fresh array says zero.
pub const UNKNOWN: u8 = 0;
/// The machine itself: loopback, which is nobody's border.
pub const LOCAL: u8 = 1;
/// The first district that has a name.
pub const FIRST_NAMED: u8 = 2;

/// Words of the control array.
pub mod control {
    /// Raised after every change of a cgroup's tenant: what a socket remembers of an older epoch is looked up again.
    pub const EPOCH: u32 = 0;
    /// Which of the two address tables is in force: zero or one, so that a change is a change of one byte.
    pub const GENERATION: u32 = 1;
    /// How many.
    pub const WORDS: u32 = 2;
}

/// Key of an IPv4 address: the table's generation first, as part of the prefix, so that both tables live in one trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressV4 {
    /// Which table.
    pub generation: u32,
    /// In network byte order.
    pub address: [u8; 4],
}

/// Key of an IPv6 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressV6 {
    /// Which table.
    pub generation: u32,
    /// In network byte order.
    pub address: [u8; 16],
}

/// Bits of the generation in front of every prefix.
pub const GENERATION_BITS: u32 = 32;

/// Entries of the table of addresses lately asked for: a power of two. A tenant talks to a handful of peers.
pub const LATELY_ENTRIES: u32 = 256;

/// The district found for an IPv4 address, in one word.
///
/// ```text
/// bit 0        32         40      64
///     | address | district | epoch |
/// ```
/// The epoch is cut to 24 bits: what was found is believed again after exactly 16,777,216 changes of the tables and no
/// packet to that address in between. Zero is never found, because epochs begin at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found(pub u64);

impl Found {
    /// What was found in an epoch.
    #[inline(always)]
    #[must_use]
    pub const fn new(epoch: u32, address: [u8; 4], district: u8) -> Self {
        Self((epoch as u64) << 40 | (district as u64) << 32 | u32::from_ne_bytes(address) as u64)
    }

    /// The district, if this is about that address and still holds.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the eight bits of the district are what is asked for"
    )]
    pub const fn district(self, epoch: u32, address: [u8; 4]) -> Option<u8> {
        let district = (self.0 >> 32) as u8;
        if self.0 == Self::new(epoch, address, district).0 && self.0 != 0 { Some(district) } else { None }
    }

    /// Where an address is kept.
    #[inline(always)]
    #[must_use]
    pub const fn place(address: [u8; 4]) -> u32 {
        // The golden ratio's bits spread neighbours; the uppermost are the best.
        u32::from_ne_bytes(address).wrapping_mul(0x9e37_79b1) >> (32 - LATELY_ENTRIES.trailing_zeros())
    }
}

const _: () = {
    let found = Found::new(0x0100_0007, [10, 0, 0, 1], 9);
    assert!(matches!(found.district(7, [10, 0, 0, 1]), Some(9)));
    assert!(found.district(8, [10, 0, 0, 1]).is_none() && found.district(7, [10, 0, 0, 2]).is_none());
    assert!(Found(0).district(0, [0; 4]).is_none());
    assert!(LATELY_ENTRIES.is_power_of_two() && Found::place([255; 4]) < LATELY_ENTRIES);
};

/// Entries of the table of cgroups lately asked for: a power of two. A CPU runs a handful of containers at a time.
pub const CGROUPS_LATELY: u32 = 256;

/// Entries of the table of guarded interfaces lately asked for: a power of two, beyond the interfaces that one CPU forwards for.
pub const GUARDS_LATELY: u32 = 64;

/// The row found for a cgroup, or for a network interface, in one word.
///
/// ```text
/// bit 0       32     45      64
///     | cgroup | row  | epoch |
/// ```
/// Only cgroups whose number has 32 bits are kept; the kernel counts them up from one. The epoch is cut to 19 bits: what was found
/// is believed again after exactly 524,288 changes of the tables in which nothing else took the place. Zero is never found, because
/// no cgroup and no interface has that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRow(pub u64);

impl FoundRow {
    const ROW_BITS: u32 = 13;

    /// What was found in an epoch; zero for a cgroup that cannot be kept.
    #[inline(always)]
    #[must_use]
    pub const fn new(epoch: u32, cgroup_id: u64, row: u32) -> Self {
        if cgroup_id >> 32 != 0 {
            return Self(0);
        }
        Self((epoch as u64) << (32 + Self::ROW_BITS) | (row as u64) << 32 | cgroup_id)
    }

    /// The row, if this is about that cgroup and still holds.
    #[inline(always)]
    #[must_use]
    pub const fn row(self, epoch: u32, cgroup_id: u64) -> Option<u32> {
        let row = (self.0 >> 32) as u32 & ((1 << Self::ROW_BITS) - 1);
        if self.0 == Self::new(epoch, cgroup_id, row).0 && self.0 != 0 { Some(row) } else { None }
    }

    /// Where a cgroup is kept.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits tell cgroups apart")]
    pub const fn place(cgroup_id: u64) -> u32 {
        (cgroup_id as u32).wrapping_mul(0x9e37_79b1) >> (32 - CGROUPS_LATELY.trailing_zeros())
    }
}

const _: () = {
    let found = FoundRow::new(0x0100_0007, 9_000, 4_096);
    assert!(matches!(found.row(0x0100_0007, 9_000), Some(4_096)));
    assert!(found.row(8, 9_000).is_none() && found.row(0x0100_0007, 9_001).is_none());
    assert!(FoundRow(0).row(0, 0).is_none() && FoundRow::new(1, 1 << 32, 1).0 == 0);
    assert!(ROWS_MAX <= 1 << FoundRow::ROW_BITS);
    assert!(CGROUPS_LATELY.is_power_of_two() && FoundRow::place(u64::MAX) < CGROUPS_LATELY);
};

/// Bytes that crossed to (or from) one district on one CPU: of whole IP packets as they are on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Sent by the tenant.
    pub egress: u64,
    /// Received by it.
    pub ingress: u64,
}

impl Flow {
    /// Nothing has crossed.
    pub const EMPTY: Self = Self { egress: 0, ingress: 0 };
}

/// What was taken from one budget. Only programs write it.
///
/// `taken` is raised before the comparison and lowered again if the budget does not suffice, so it may be too high for
/// an instant and never too low: what has passed never exceeds what was granted. `passed` is raised afterwards, so it may
/// be too low for an instant and never too high: a refill computed from it never grants more than was meant.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    /// Bytes passed or just being tried.
    pub taken: u64,
    /// Bytes passed.
    pub passed: u64,
}

/// Why something was refused, or would have been.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// To an address of no known district.
    UnknownDistrict = 0,
    /// To another district, and not on the GPU channel.
    NotChannel = 1,
    /// On the GPU channel, and the budget does not suffice.
    Budget = 2,
    /// Past the network stack: from a socket that writes frames.
    RawFrame = 3,
    /// A frame or packet that cannot be read as IP.
    NotIp = 4,
    /// Out of the tenant's network, but not from the tenant's cgroup.
    NoTenant = 5,
    /// A GPU was opened by a process without an attested hook.
    Unattested = 6,
    /// A device that moves data past the network stack (RDMA) was opened by a tenant bound to its district.
    Rdma = 7,
}

impl Reason {
    /// Every reason, in row order.
    pub const ALL: [Self; 8] = [
        Self::UnknownDistrict,
        Self::NotChannel,
        Self::Budget,
        Self::RawFrame,
        Self::NotIp,
        Self::NoTenant,
        Self::Unattested,
        Self::Rdma,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownDistrict => "unknown_district",
            Self::NotChannel => "not_channel",
            Self::Budget => "budget",
            Self::RawFrame => "raw_frame",
            Self::NotIp => "not_ip",
            Self::NoTenant => "no_tenant",
            Self::Unattested => "unattested",
            Self::Rdma => "rdma",
        }
    }
}

/// How often one tenant ran into one reason, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Refused.
    pub refused: u64,
    /// Let through because the tenant is only audited.
    pub audited: u64,
}

impl Refusals {
    /// Nothing was.
    pub const EMPTY: Self = Self { refused: 0, audited: 0 };
}

/// Reasons per tenant row of the refusals array.
pub const REASONS: u32 = Reason::Rdma as u32 + 1;

/// The row of a tenant's reason.
#[inline(always)]
#[must_use]
pub const fn refusal_row(tenant_row: u32, reason: Reason) -> u32 {
    tenant_row * REASONS + reason as u32
}

/// The row of a tenant's dealings with a district.
#[inline(always)]
#[must_use]
pub const fn district_row(tenant_row: u32, district: u8) -> u32 {
    tenant_row * DISTRICTS_MAX + (district as u32 & (DISTRICTS_MAX - 1))
}

/// What a socket remembers of its tenant, in socket storage: the epoch in which its row was found in the upper half (zero means
/// never), the row in the lower. One word, because packets of one socket may look it up on two CPUs at once. A socket
/// keeps the cgroup it was made in.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// A row and when it was found.
    #[inline(always)]
    #[must_use]
    pub const fn new(epoch: u32, row: u32) -> Self {
        Self((epoch as u64) << 32 | row as u64)
    }

    /// The row, if it was found in this epoch.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
    pub const fn row_in(self, epoch: u32) -> Option<u32> {
        if (self.0 >> 32) as u32 == epoch { Some(self.0 as u32) } else { None }
    }
}

/// Name of a tenant or district, padded with zeros. Kept in the kernel so that a restarted loader knows whose rows are whose.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub [u8; NAME_BYTES]);

/// Room for a DNS label and the zero that ends it.
pub const NAME_BYTES: usize = 64;

const _: () = assert!(DISTRICTS_MAX.is_power_of_two() && DISTRICTS_MAX <= 256);
const _: () = assert!(REASONS as usize == Reason::ALL.len());
const _: () = assert!(REASONS.is_power_of_two(), "a tenant's row is found by a shift");
const _: () = {
    let mut row = 0;
    while row < Reason::ALL.len() {
        assert!(Reason::ALL[row] as usize == row, "rows are dense and in order");
        row += 1;
    }
};
const _: () = assert!(refusal_row(ROWS_MAX - 1, Reason::Rdma) < ROWS_MAX * REASONS);
const _: () = assert!(size_of::<AddressV4>() == 8 && size_of::<AddressV6>() == 20);
const _: () = assert!(size_of::<Flow>() == 16 && size_of::<Spend>() == 16 && size_of::<Refusals>() == 16);
const _: () = assert!(size_of::<Owner>() == 8 && size_of::<Name>() == NAME_BYTES);
