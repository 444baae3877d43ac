//! Sizes of everything the kernel side can hold, each with its reason.

/// Most tenants one node may have; the size of the control plane's own tenant table.
pub const TENANTS_MAX: u32 = 4096;

/// Most cgroups that may name a tenant. Four per tenant: a pod has one cgroup and rarely more than a few containers
/// that are listed one by one. An insert past it is refused by the kernel (`E2BIG`) and reported by the loader.
pub const CGROUPS_MAX: u32 = 4 * TENANTS_MAX;

/// Deepest level below the cgroup root at which a tenant's cgroup is recognised. Kubernetes nests five to eight deep,
/// a container inside a container twice that. It bounds the walk that a probe makes on a cache miss.
pub const CGROUP_LEVELS_MAX: u32 = 16;

/// Bytes of the ring buffer for process exits: 2,048 events of 32 bytes (8 of them the kernel's header), two seconds of a fork
/// bomb that ends a thousand processes a second. A full buffer loses events, and counts them.
pub const EXITS_RING_BYTES: u32 = 64 * 1024;

/// Most sync calls believed to be made inside one sync call. A driver's copy synchronises once or a few times; a thread that shows
/// more has left the outer call without returning and is calling from deeper in its stack.
pub const NESTED_WAITS_MAX: u32 = 32;

/// Most districts the border tells apart, the unknown one and the machine itself included. A city has one or two dozen; a
/// power of two, because rows of tables over tenants and districts are found by a shift.
pub const DISTRICTS_MAX: u32 = 64;

/// Most address ranges of each family. Both generations of the table share a trie, so it holds twice as many.
pub const RANGES_MAX: u32 = 16 * 1024;

/// Most network interfaces with a guard: one for every tenant and as many again for those with two.
pub const GUARDS_MAX: u32 = 2 * TENANTS_MAX;

/// Most processes with an attested hook at once: eight for every tenant. Past it, attesting is refused by name.
pub const ATTESTED_MAX: u32 = 8 * TENANTS_MAX;

/// Character device majors: the kernel keeps them below 4,096 (twelve bits of `dev_t`).
pub const MAJORS_MAX: u32 = 4096;

/// Most single devices guarded by minor number.
pub const DEVICES_MAX: u32 = 1024;

/// Bytes of the ring buffer for opens of GPUs: 2,048 of 32 bytes, a start-up of a hundred processes that open twenty nodes each.
pub const OPENS_RING_BYTES: u32 = 64 * 1024;

/// Most allocations that the second ledger follows at once: a thousand for each of a thousand processes. Memory is taken as they
/// come (some 80 bytes each); past it an allocation is counted as one that is not followed.
pub const ALLOCATIONS_MAX: u32 = 1024 * 1024;

/// Most processes that the second ledger follows at once: as many as may be attested.
pub const PROCESSES_MAX: u32 = ATTESTED_MAX;

/// Most driver calls believed to be made inside one driver call, as [`NESTED_WAITS_MAX`].
pub const NESTED_CALLS_MAX: u32 = 32;

/// Deepest that a driver's own calls lie below the application's. What is further down is on another stack, or has left the
/// outer call without returning.
pub const NESTED_STACK_BYTES: u64 = 64 * 1024;

/// Most processes whose GPU the probes know: as many as may be attested.
pub const SEATED_MAX: u32 = ATTESTED_MAX;

/// Most pairs of a tenant and a district with connections at once: 1,024 of 216 bytes take 216 KiB on every CPU. Past it a
/// connection is counted as one that is in no figure.
pub const PEERS_MAX: u32 = 1024;

const _: () = assert!(OPENS_RING_BYTES.is_power_of_two() && OPENS_RING_BYTES.is_multiple_of(4096));
const _: () = assert!(EXITS_RING_BYTES.is_power_of_two() && EXITS_RING_BYTES.is_multiple_of(4096));
const _: () = assert!(CGROUPS_MAX >= TENANTS_MAX);
