//! Every bound two processes rely on, with its reason.

/// Under the model checker (`cargo xtask loom`), which tries every order of every step, one device and three seats
/// show all there is to see.
const MODELLED: bool = cfg!(all(test, loom));

/// Devices one tenant can see on a node. Sixteen is the most NVIDIA ships in one host (HGX/DGX class).
pub const DEVICES_MAX: usize = if MODELLED { 1 } else { 16 };

/// Processes of one tenant that may hold a seat at once. 300 starting together is a reported real load; a
/// thousand leaves room and keeps the ledger segment at 4 MiB of sparse memory.
pub const SEATS_MAX: usize = if MODELLED { 3 } else { 1024 };

/// Lanes of one process: pairs of a thread and a stream whose progress the daemon follows. Each lane has one
/// writer thread, so completions can never be written out of order. As many as fit a seat's page.
pub const LANES_MAX: usize = if MODELLED { 1 } else { 106 };

/// Tenants of one node, equal to the cap on metric label sets.
pub const TENANTS_MAX: usize = 4096;

/// Largest control frame, header included. A hello with sixteen devices needs less than 600 bytes.
pub const FRAME_BYTES_MAX: usize = 4096;

/// Longest text inside a frame (a refusal's reason, a tenant's name), in bytes.
pub const FRAME_TEXT_BYTES_MAX: usize = 1024;

/// Longest a hook waits for the daemon's answer when it asks for a seat. Start-up of a CUDA context takes
/// tens of milliseconds, so this bound is not what a user feels; a hung daemon must not hang a tenant.
pub const SESSION_WAIT_MS_MAX: u64 = 2_000;

/// A heartbeat older than this opens every gate whose policy is fail-open. With the look at it, every 10 ms, and the
/// kernel's coarse clock, gates are open within 100 ms of a daemon's death.
pub const HEARTBEAT_STALE_US: u64 = 80_000;

/// How often a live daemon renews the heartbeat. Five renewals fit in the stale limit, so one late tick on a
/// loaded node opens nothing.
pub const HEARTBEAT_PERIOD_US: u64 = 16_000;

/// Longest single sleep at a closed gate before the heartbeat is looked at again.
pub const GATE_WAIT_US_MAX: u64 = 10_000;

/// How long a refused allocation waits for memory that was taken ahead and is called back. On one host that takes a fraction of a
/// millisecond, to another site some tens; the wait in a worker that lets work under way finish first must fit as well. A
/// program that is told of no memory a quarter of a second late is not hurt; one that waits for a stopped one without end is.
pub const RECALL_WAIT_MS_MAX: u32 = 250;

/// Shortest time between two calls in a tenant: a program that asks again and again for what it cannot have sends no more
/// than ten questions a second to the clients of its tenant. What was unused was given back at the call before.
pub const RECALL_PERIOD_MS: u32 = 100;

/// Longest single sleep of a worker that waits to be called. It then looks whether its process has another ledger.
pub const RECALL_LISTEN_US_MAX: u64 = 1_000_000;

const _: () = assert!(RECALL_PERIOD_MS < RECALL_WAIT_MS_MAX);
const _: () = assert!(HEARTBEAT_PERIOD_US * 5 <= HEARTBEAT_STALE_US);
const _: () = assert!(GATE_WAIT_US_MAX < HEARTBEAT_STALE_US);
const _: () = assert!(FRAME_TEXT_BYTES_MAX < FRAME_BYTES_MAX);
