//! Names of maps and programs, as the object files spell them and the loader asks for them.

/// Cgroup id -> tenant row; written by the daemon. In the wait object and in the exit object.
pub const CGROUPS: &str = "CGROUPS";
/// One number, raised after every change of [`CGROUPS`]: a cached row from an older epoch is looked up again.
pub const EPOCH: &str = "EPOCH";
/// Per-thread record of the wait under way, in task storage.
pub const WAITING: &str = "WAITING";
/// GPU wait, per tenant and per cell.
pub const WAITS: &str = "WAITS";
/// [`crate::events::CellKey`] -> [`crate::events::Cell`]. In the wait object and in the ledger object.
pub const CELLS: &str = "CELLS";
/// Duration of audited launches, per tenant and per cell.
pub const LAUNCH_TIMES: &str = "LAUNCH_TIMES";
/// From the first audited launch to the end of the synchronous call behind it, per tenant and per cell.
pub const SPANS: &str = "SPANS";
/// Duration of the calls that the second ledger follows, per tenant and per cell.
pub const CALL_TIMES: &str = "CALL_TIMES";
/// What the witness does about calls around the hook, per tenant: see [`crate::ledger::rule`].
pub const RULES: &str = "RULES";
/// The tenant row of the cgroup that a socket program was attached to, in cgroup-local storage.
pub const ATTACHED: &str = "ATTACHED";
/// Which cgroup a socket counts for, in socket storage.
pub const CLAIMS: &str = "CLAIMS";
/// [`crate::events::PeerKey`] -> [`crate::counters::Sockets`].
pub const SOCKETS: &str = "SOCKETS";
/// One number: which of the two tables that share a trie of addresses is in force.
pub const GENERATION: &str = "GENERATION";
/// Exits of tenants' processes, a ring buffer.
pub const EXITS: &str = "EXITS";
/// [`crate::counters::Counter`] rows; every object has its own.
pub const COUNTERS: &str = "COUNTERS";

/// A tenant's rules, one [`crate::policy::Policy`] per row; mapped into the loader.
pub const POLICIES: &str = "POLICIES";
/// The words of [`crate::border::control`]; mapped into the loader.
pub const CONTROL: &str = "CONTROL";
/// Names of tenants by row. Only the loader reads it.
pub const TENANT_NAMES: &str = "TENANT_NAMES";
/// Names of districts by index. Only the loader reads it.
pub const DISTRICT_NAMES: &str = "DISTRICT_NAMES";
/// IPv4 address range -> district.
pub const RANGES_V4: &str = "RANGES_V4";
/// IPv6 address range -> district.
pub const RANGES_V6: &str = "RANGES_V6";
/// Bytes granted per tenant and district, ever; mapped into the loader, which alone writes it.
pub const GRANTS: &str = "GRANTS";
/// Bytes spent per tenant and district, ever: [`crate::border::Spend`]; mapped into the loader, which only reads it.
pub const SPENDS: &str = "SPENDS";
/// Bytes per tenant and district: [`crate::border::Flow`].
pub const FLOWS: &str = "FLOWS";
/// Refusals by tenant and reason at the border: [`crate::border::Refusals`].
pub const REFUSALS: &str = "REFUSALS";
/// Whose a socket is, in socket storage.
pub const OWNERS: &str = "OWNERS";
/// Network interface -> tenant row of its guard.
pub const GUARDED: &str = "GUARDED";
/// Process -> [`crate::gate::Attested`].
pub const ATTESTED: &str = "ATTESTED";
/// Major number -> [`crate::gate::class`].
pub const MAJORS: &str = "MAJORS";
/// Single device -> [`crate::gate::class`].
pub const DEVICES: &str = "DEVICES";
/// Refusals by tenant and reason at the device gate: [`crate::border::Refusals`].
pub const GATE_REFUSALS: &str = "GATE_REFUSALS";

/// Opens of GPUs, a ring buffer of [`crate::gate::Opened`].
pub const OPENS: &str = "OPENS";
/// Per-thread record of the ioctl under way, in task storage.
pub const IOCTLS: &str = "IOCTLS";
/// Per-tenant duration of ioctls.
pub const IOCTL_TIMES: &str = "IOCTL_TIMES";
/// How often each ioctl number was called: [`crate::ioctl::Numbers`].
pub const IOCTL_NUMBERS: &str = "IOCTL_NUMBERS";
/// Per-thread record of the driver call under way, in task storage.
pub const CALLS: &str = "CALLS";
/// Process -> [`crate::ledger::Process`].
pub const PROCESSES: &str = "PROCESSES";
/// [`crate::ledger::AllocationKey`] -> [`crate::ledger::Allocation`].
pub const ALLOCATIONS: &str = "ALLOCATIONS";
/// Calls around the hook: [`crate::ledger::Bypasses`].
pub const BYPASSES: &str = "BYPASSES";

/// Program on what tenants send.
pub const BORDER_EGRESS: &str = "border_egress";
/// Program on what tenants receive.
pub const BORDER_INGRESS: &str = "border_ingress";
/// Program on IPv4 connects.
pub const BORDER_CONNECT4: &str = "border_connect4";
/// Program on IPv6 connects.
pub const BORDER_CONNECT6: &str = "border_connect6";
/// Program on IPv4 datagrams sent without connecting.
pub const BORDER_SENDMSG4: &str = "border_sendmsg4";
/// Program on IPv6 datagrams sent without connecting.
pub const BORDER_SENDMSG6: &str = "border_sendmsg6";
/// Program on a tenant's network interface.
pub const BORDER_FRAME: &str = "border_frame";
/// Program on opening devices.
pub const DEVICE_GATE: &str = "device_gate";
/// Program on executing another program.
pub const GATE_EXEC: &str = "gate_exec";
/// Program on the end of a process, for kernels that say when its last thread ends.
pub const GATE_EXIT: &str = "gate_exit";
/// Program on the end of a process, for kernels that do not.
pub const GATE_EXIT_LEADER: &str = "gate_exit_leader";

/// Program on every system call's entry, while ioctls are audited.
pub const IOCTL_ENTER: &str = "ioctl_enter";
/// Program on every system call's return, while ioctls are audited.
pub const IOCTL_LEAVE: &str = "ioctl_leave";
/// Program at the entry of a call that hands out memory or takes it back.
pub const LEDGER_ENTER: &str = "ledger_enter";
/// Program at its return.
pub const LEDGER_LEAVE: &str = "ledger_leave";
/// Program at the entry of a launch, on demand.
pub const LEDGER_LAUNCH: &str = "ledger_launch";
/// Program on executing another program.
pub const LEDGER_EXEC: &str = "ledger_exec";
/// Program on the end of a process, for kernels that say when its last thread ends.
pub const LEDGER_EXIT: &str = "ledger_exit";
/// Program on the end of a process, for kernels that do not.
pub const LEDGER_EXIT_LEADER: &str = "ledger_exit_leader";

/// Program at entry and return of a sync call, for kernels with sessions.
pub const WAIT_SESSION: &str = "wait_session";
/// Program at entry and return of a launch, on demand, for kernels with sessions.
pub const LAUNCH_SESSION: &str = "launch_session";
/// Program at entry and return of a call that hands out memory or takes it back, for kernels with sessions.
pub const LEDGER_SESSION: &str = "ledger_session";
/// Program at the entry of a sync call.
pub const WAIT_ENTER: &str = "wait_enter";
/// Program at the entry of a launch, on demand, for its duration.
pub const WAIT_LAUNCH: &str = "wait_launch";
/// Program at the return of a launch, on demand.
pub const WAIT_LAUNCHED: &str = "wait_launched";
/// Program at the return of a sync call.
pub const WAIT_LEAVE: &str = "wait_leave";
/// Program on a tenant cgroup's sockets.
pub const SOCKET_EVENT: &str = "socket_event";
/// Program on process exit.
pub const PROCESS_EXIT: &str = "process_exit";
