//! Names of maps and programs, as the object files spell them and the loader asks for them.

/// Cgroup id -> tenant row; written by the daemon. In the wait object and in the exit object.
pub const CGROUPS: &str = "CGROUPS";
/// One number, raised after every change of [`CGROUPS`]: a cached row from an older epoch is looked up again.
pub const EPOCH: &str = "EPOCH";
/// Per-thread record of the wait under way, in task storage.
pub const WAITING: &str = "WAITING";
/// Per-tenant GPU wait.
pub const WAITS: &str = "WAITS";
/// The tenant row of the cgroup that a socket program was attached to, in cgroup-local storage.
pub const ATTACHED: &str = "ATTACHED";
/// Which cgroup a socket counts for, in socket storage.
pub const CLAIMS: &str = "CLAIMS";
/// Per-tenant TCP round trip.
pub const RTTS: &str = "RTTS";
/// Per-tenant socket counts.
pub const SOCKETS: &str = "SOCKETS";
/// Exits of tenants' processes, a ring buffer.
pub const EXITS: &str = "EXITS";
/// [`crate::counters::Counter`] rows; every object has its own.
pub const COUNTERS: &str = "COUNTERS";

/// Program at the entry of a sync call.
pub const WAIT_ENTER: &str = "wait_enter";
/// Program at the return of a sync call.
pub const WAIT_LEAVE: &str = "wait_leave";
/// Program on a tenant cgroup's sockets.
pub const SOCKET_EVENT: &str = "socket_event";
/// Program on process exit.
pub const PROCESS_EXIT: &str = "process_exit";
