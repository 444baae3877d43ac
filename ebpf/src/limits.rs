//! Bounds on the loader's side, each with its reason. Those of the kernel side are in `headgate_ebpf_records::limits`.

/// Rows for tenants when the daemon does not say: a row costs 416 bytes per CPU over all arrays, so 512 of them take
/// 27 MiB on a node with 128 CPUs.
pub const TENANTS_DEFAULT: u32 = 512;

/// Most driver libraries attached at once. Every container with a libcuda of its own is one; a thousand is the seats of
/// one tenant. Past it, a library is refused by name.
pub const LIBRARIES_MAX: usize = 1024;

/// Most files remembered as being no driver: some hundred programs with all their libraries.
pub const STRANGERS_MAX: usize = 8192;

/// Most sites attached in one library. The sync calls and all their variants are under forty.
pub const SITES_MAX: usize = 256;

/// Most threads that detach side by side. Each only waits in the kernel, so there may be more of them than CPUs.
pub const DETACHERS_MAX: usize = 64;

/// Entries of the second ledger looked at in one sweep: some tens of milliseconds, so that whoever sweeps is never kept long.
pub const SWEEP_MAX: usize = 16 * 1024;

/// Most exits handed out by one drain: everything the ring buffer can hold (64 KiB of 32-byte records), so that a fork
/// storm cannot keep the caller in the loop.
pub const EXITS_PER_DRAIN_MAX: usize = 2048;

/// Most opens handed out by one drain, for the same reason.
pub const OPENS_PER_DRAIN_MAX: usize = 2048;

/// Bytes of a function looked at when choosing where to probe it. The longest skipped prologue is four short instructions.
pub const PROLOGUE_BYTES: usize = 32;

/// Pairs of a tenant and a GPU told apart by default: every tenant on its one GPU, or a quarter of them on four each.
pub const CELLS_DEFAULT: u32 = TENANTS_DEFAULT;

/// Pages of the ring of new code mappings on each CPU: some five hundred records, a few dozen programs that start at once.
pub const MAPPINGS_RING_PAGES: usize = 16;

const _: () = assert!(TENANTS_DEFAULT <= headgate_ebpf_records::limits::TENANTS_MAX);
const _: () = assert!(EXITS_PER_DRAIN_MAX * 32 >= headgate_ebpf_records::limits::EXITS_RING_BYTES as usize);
const _: () = assert!(OPENS_PER_DRAIN_MAX * 32 >= headgate_ebpf_records::limits::OPENS_RING_BYTES as usize);
