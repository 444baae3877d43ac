//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Longest a store operation may take before its outcome counts as unknown. A renewal is a write, and two of them
/// must fit into what a promise lives.
pub const STORE_WAIT: Duration = Duration::from_secs(2);

/// Ledgers looked up at once when a daemon starts and searches for what it had borrowed. Hides the way to a
/// distant store without crowding it.
pub const STORE_READS_AT_ONCE: usize = 32;

/// Greatest size of the embedded store's page cache. Ledgers are a few kilobytes each.
pub const EMBEDDED_CACHE_BYTES: usize = 4 << 20;
