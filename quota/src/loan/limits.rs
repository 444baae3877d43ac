//! Every bound of the loan protocol, with its reason.

use crate::units::Micros;

/// Longest name of a district, node, tenant or device: a DNS label, and room for `GPU-` and a UUID.
pub const NAME_BYTES_MAX: usize = 63;

/// Loans out on one device at once. At the least share worth lending, a device cannot hold more, and one ledger
/// stays well below the megabyte that stores allow a value.
pub const LOANS_PER_DEVICE_MAX: usize = 64;

/// Tenants that own a part of one device.
pub const OWNERS_PER_DEVICE_MAX: usize = 64;

/// Requests that wait at one device. A hundred districts can ask at once; more are told to come back.
pub const WAITING_MAX: usize = 128;

/// Loans one node holds or asks for at once.
pub const BORROWED_MAX: usize = 256;

/// Offers a node remembers: the nearest are kept.
pub const OFFERS_MAX: usize = 256;

/// Sendings of one request that a borrower remembers, to count the loan's time from the right one. At one retry
/// a second this outlasts what a loan lives without renewal.
pub const ATTEMPTS_MAX: usize = 32;

/// Changes of demand remembered within the time an owner is watched. Beyond it the oldest two are merged, to
/// the higher of both.
pub const PEAKS_MAX: usize = 32;

/// Incidents that hold at once, and as many that were ended before their time, which others must hear.
pub const INCIDENTS_MAX: usize = 64;

/// Incidents that are over and remembered by number, so that a declaration that comes late raises nobody again.
pub const INCIDENTS_OVER_MAX: usize = 1_024;

/// Tenants one incident names.
pub const INCIDENT_TENANTS_MAX: usize = 256;

/// Longest incident. One that lasts longer is declared again by somebody who looked.
pub const INCIDENT_MAX: Micros = Micros::from_secs(24 * 3_600);

/// Longest time a loan runs without renewal. Beyond an hour a lost borrower would cost the lender too much.
pub const TTL_MAX: Micros = Micros::from_secs(3_600);

/// Longest text of a ledger in bytes: every line full.
pub const LEDGER_BYTES_MAX: usize = 64 * 1_024;

/// Longest line of the audit log in bytes.
pub const AUDIT_LINE_BYTES_MAX: usize = 2_048;

/// What one line of a ledger can need: five names, two numbers of the identity and fifteen others of twenty
/// digits, and their keys.
const LEDGER_LINE_BYTES_MAX: usize = 5 * NAME_BYTES_MAX + 17 * 20 + 200;

const _: () = assert!(LOANS_PER_DEVICE_MAX * LEDGER_LINE_BYTES_MAX < LEDGER_BYTES_MAX);
const _: () = assert!(1 < PEAKS_MAX && 1 < ATTEMPTS_MAX);
