//! Leave to copy the records between kernel and user space as bytes.

#![expect(
    unsafe_code,
    reason = "`aya::Pod` is an unsafe promise about layout, kept by the assertions beside each record"
)]

use crate::{
    border::{AddressV4, AddressV6, Flow, Name, Refusals, Spend},
    counters::Sockets,
    events::{Attached, Cell, CellKey, Exit, PeerKey},
    gate,
    histogram::Histogram,
    ioctl::Numbers,
    ledger::{Allocation, AllocationKey, Bypasses, Process},
};

// SAFETY: repr(C), integers only, no padding (size asserted at its definition).
unsafe impl aya::Pod for Histogram {}
// SAFETY: as above.
unsafe impl aya::Pod for Sockets {}
// SAFETY: as above.
unsafe impl aya::Pod for Attached {}
// SAFETY: as above.
unsafe impl aya::Pod for Exit {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for Spend {}
// SAFETY: as above.
unsafe impl aya::Pod for Refusals {}
// SAFETY: as above.
unsafe impl aya::Pod for Name {}
// SAFETY: as above.
unsafe impl aya::Pod for AddressV4 {}
// SAFETY: as above.
unsafe impl aya::Pod for AddressV6 {}
// SAFETY: as above.
unsafe impl aya::Pod for gate::Attested {}
// SAFETY: as above.
unsafe impl aya::Pod for Process {}
// SAFETY: as above.
unsafe impl aya::Pod for AllocationKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Allocation {}
// SAFETY: as above.
unsafe impl aya::Pod for Bypasses {}
// SAFETY: as above.
unsafe impl aya::Pod for Numbers {}
// SAFETY: as above.
unsafe impl aya::Pod for Cell {}
// SAFETY: as above.
unsafe impl aya::Pod for CellKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PeerKey {}
