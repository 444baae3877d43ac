//! Leave to copy the records between kernel and user space as bytes.

#![expect(
    unsafe_code,
    reason = "`aya::Pod` is an unsafe promise about layout, kept by the assertions beside each record"
)]

use crate::{
    counters::Sockets,
    events::{Attached, Exit},
    histogram::Histogram,
};

// SAFETY: repr(C), integers only, no padding (size asserted at its definition).
unsafe impl aya::Pod for Histogram {}
// SAFETY: as above.
unsafe impl aya::Pod for Sockets {}
// SAFETY: as above.
unsafe impl aya::Pod for Attached {}
// SAFETY: as above.
unsafe impl aya::Pod for Exit {}
