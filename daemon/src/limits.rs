//! Every bound of the daemon, with its reason. Bounds that two processes share stand in `headgate_abi::limits`.

use std::time::Duration;

/// Largest configuration file. Four thousand tenants at some 200 bytes each are under one MiB.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting of the configuration. The schema needs seven levels.
pub const CONFIG_DEPTH_MAX: usize = 32;
/// Problems reported for one file; a file with more is not the file that was meant.
pub const CONFIG_PROBLEMS_MAX: usize = 100;
/// Longest name of a tenant, district or node: a DNS label, and a bounded metric label.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest cgroup path; below `PATH_MAX` with room for the mount point.
pub const CGROUP_BYTES_MAX: usize = 2048;
/// Longest path of a Unix socket: `sun_path` less its terminator and the suffix it is first bound under.
pub const SOCKET_PATH_BYTES_MAX: usize = 95;

/// Longest directory of MPS's pipes: `sun_path` less the device's UUID, the pipe's name and their slashes.
pub const MPS_PATH_BYTES_MAX: usize = 57;
/// How often the MPS control programs are looked at, and what has come free in them.
pub const MPS_LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Longest a control program may take over a command. They answer in milliseconds, or hang with the driver.
pub const MPS_COMMAND_WAIT: Duration = Duration::from_secs(5);
/// Longest answer of a control program that is read: a line for each partition of a device.
pub const MPS_ANSWER_BYTES_MAX: usize = 256 << 10;

/// Districts that can be named: what the kernel's tables tell apart, less the unknown one and the machine itself.
pub const CONFIG_DISTRICTS_MAX: usize = 62;
/// Address ranges of all districts together; what the kernel's tries hold.
pub const RANGES_MAX: usize = 16 * 1024;
/// Budgets of one tenant: one for every other district.
pub const BUDGETS_MAX: usize = CONFIG_DISTRICTS_MAX;
/// Guarded interfaces of one tenant. A pod has one, some have a second and a third.
pub const INTERFACES_MAX: usize = 8;
/// Longest name of a network interface (`IFNAMSIZ` less its terminator).
pub const INTERFACE_BYTES_MAX: usize = 15;
/// Device nodes guarded besides the driver's own.
pub const GATE_DEVICES_MAX: usize = 64;
/// Shortest period of a budget: some multiples of how often the daemon looks whether one is due.
pub const REFILL_PERIOD_MIN: Duration = Duration::from_secs(1);

/// Threads of the runtime: one for the node, and one for whatever blocks it least.
pub const RUNTIME_THREADS_MIN: usize = 2;
/// The same where there are as many processors: a session's connections, of which there are so many unless the configuration says
/// otherwise, keep one busy each while it copies.
pub const RUNTIME_THREADS_MAX: usize = SESSION_CONNECTIONS_DEFAULT as usize;

/// Connections open at once. One per seated process, plus those still saying hello.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections of one process that have not been welcomed yet. A hook opens one; two leave room for a retry.
pub const GREETINGS_PER_PROCESS_MAX: usize = 2;
/// Longest a connection may take to say hello. Half of what a hook waits for its answer.
pub const HELLO_WAIT: Duration = Duration::from_secs(1);
/// Longest a refused peer may take to read why.
pub const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Events waiting for the node at once. Reaching it holds senders back; nothing is dropped.
pub const EVENTS_MAX: usize = 1024;

/// Admin connections open at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Longest admin request, one JSON line: an incident with as many tenants as one names.
pub const ADMIN_LINE_BYTES_MAX: usize = 64 << 10;
/// Longest admin answer: a full node of tenants with their devices.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest the admin side waits for the node.
pub const ADMIN_WAIT: Duration = Duration::from_secs(5);

/// Shortest incident that can be declared: it has to reach the other districts before it is over.
pub const INCIDENT_MIN: headgate_quota::Micros = headgate_quota::Micros::from_secs(1);

/// Longest audit of ioctls: it taxes every system call of the node while it is on.
pub const AUDIT_SPAN_MAX: Duration = Duration::from_secs(600);

/// Process-tree roots remembered at once, and how far up a process is followed to one.
pub const ROOTS_MAX: usize = 4096;
/// Ancestors looked at when a process is matched to a process-tree root.
pub const ANCESTORS_MAX: usize = 64;

/// How often seats are looked over for processes that live on without the ledger (after `exec`).
pub const AUDIT_PERIOD: Duration = Duration::from_secs(1);
/// Seats looked over each time: reading the maps of a CUDA process costs a millisecond or two.
pub const AUDIT_SEATS_MAX: usize = 4;
/// Seats are looked over only after this: a hook that was welcomed a moment ago may not have mapped the ledger
/// yet. As long as a hook waits for its answer.
pub const AUDIT_GRACE: Duration = Duration::from_millis(headgate_abi::limits::SESSION_WAIT_MS_MAX);
/// How often device time is sampled for the share over the last second.
pub const SAMPLE_PERIOD: Duration = Duration::from_millis(250);
/// Samples kept: one second, and one sample more to take the difference from.
pub const SAMPLES_MAX: usize = 5;
/// How often a missing NVIDIA driver is looked for again.
pub const DISCOVERY_PERIOD: Duration = Duration::from_secs(5);
/// How often the driver is asked who is on the devices: a process without the hook is to be seen within a second.
pub const CENSUS_PERIOD: Duration = Duration::from_millis(500);
/// Kinds of Xid errors counted apart, over all devices; NVIDIA's catalogue has some 170 numbers.
pub const XID_KINDS_MAX: usize = 256;
/// How long NVML is waited for at a time. It bounds how late the listening thread notices that it is not wanted any more.
pub const XID_WAIT: Duration = Duration::from_secs(1);
/// Processes on the devices looked at each time: four nodes full of seats of a busy tenant.
pub const RESIDENTS_MAX: usize = 4096;
/// Driver libraries of different files on one node: one for each container image that brings its own.
pub const DRIVERS_MAX: usize = 256;
/// Largest driver library that is read. The greatest so far has some 100 MB.
pub const DRIVER_BYTES_MAX: u64 = 512 << 20;
/// Longest the daemon waits for the first answer of the driver before it serves without devices.
pub const DISCOVERY_WAIT: Duration = Duration::from_secs(10);
/// How often the configuration file is read even if no change was announced.
pub const CONFIG_POLL_PERIOD: Duration = Duration::from_secs(10);
/// Quiet time after a change in the configuration's directory before it is read.
pub const CONFIG_DEBOUNCE: Duration = Duration::from_millis(100);
/// Largest state file: a line per tenant.
pub const STATE_BYTES_MAX: u64 = 4 << 20;

/// A gate thread that has not ticked for this long counts as stuck: heartbeats stop, and gates open by policy. Twice as
/// long as the longest sleep between two ticks (`WindowSettings::tick_rest`).
pub const TICK_STUCK_US: u64 = headgate_abi::limits::HEARTBEAT_STALE_US;

/// Log lines that a tenant can trigger, per kind and period; the rest is counted and told in the next line.
pub const LOGS_PER_PERIOD_MAX: u32 = 5;
/// The period.
pub const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Longest wait for everything to end at shutdown.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

const _: () = assert!(HELLO_WAIT.as_millis() <= headgate_abi::limits::SESSION_WAIT_MS_MAX as u128);

/// Leads of other districts that one lead talks to: as many districts as a large city has.
pub const PEER_LEADS_MAX: usize = 1_024;

/// Shortest and longest time between load summaries: a network should not be filled with them, and a peer is forgotten
/// after some.
pub const SUMMARY_EVERY_MIN: Duration = Duration::from_millis(100);
/// See [`SUMMARY_EVERY_MIN`].
pub const SUMMARY_EVERY_MAX: Duration = Duration::from_secs(60);

/// NATS servers one node is told of; a cluster names its other members itself.
pub const STORE_URLS_MAX: usize = 16;

/// Longest `host:port`: the longest DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Files of code remembered as looked at: every program and library of a few thousand containers.
pub const FILES_KNOWN_MAX: usize = 65_536;
/// Mappings of code looked at in one batch; the rest is found by the next round over the tenants' processes.
pub const MAPPINGS_MAX: usize = 1_024;

/// Remote sessions that begin here, and as many that are hosted here: each is a process somewhere.
pub const SESSIONS_MAX: usize = 256;
/// Sessions of one tenant, those that wait for a loan included.
pub const SESSIONS_PER_TENANT_MAX: usize = 32;
/// Bytes a session's connection is read in: what TLS and the kernel hand over at once, several times.
pub const SESSION_READ_BYTES: usize = 256 << 10;
/// Connections that a session goes over at most where it moves bytes in bulk, unless the configuration says otherwise: fewer where
/// the node has fewer than twice as many processors. A network
/// that gives each flow a share gives it four, and TLS that is bound by a processor has several.
pub const SESSION_CONNECTIONS_DEFAULT: u8 = 4;
/// What the configuration may say. More would not help, and each holds a chunk.
pub const SESSION_CONNECTIONS_MAX: u8 = 8;
/// Bytes that a session moves in bulk before more connections are opened for it: as much as makes a copy a large one. A session
/// that only launches never does, and pays for no handshake.
pub const SESSION_BULK_BYTES: u64 = headgate_remote::limits::LENT_BYTES as u64;
/// Least bytes of a chunk that count as bulk: a piece of a copy that has a frame of its own.
pub const SESSION_BULK_CHUNK_BYTES: usize = headgate_remote::limits::LARGE_BYTES;
/// Chunks that wait for a connection with room. What waits is ahead of what the session says next, so no more than keeps a connection
/// busy that has become free until the next one is cut.
pub const SESSION_CHUNKS_WAITING_MAX: usize = 2;
/// Most bytes that are written past what waits, if nothing does: one record of TLS. A longer chunk is better encrypted by a
/// task, beside others.
pub const SESSION_DIRECT_BYTES_MAX: usize = 16 << 10;
/// Longest way to a further connection: the dial, and one answer more.
pub const SESSION_JOIN_WAIT: Duration = Duration::from_secs(4);
/// How often two daemons compare what a session carried.
pub const SESSION_WINDOW: Duration = Duration::from_secs(10);
/// How long a program waits for a loan. Shorter than its patience for an answer, so that it hears why there is none.
pub const SESSION_LOAN_WAIT: Duration = Duration::from_secs(20);
/// How long a session without a connection is remembered: as long as its program tries, and a dial more.
pub const SESSION_RESUME_WAIT: Duration = Duration::from_secs(35);
/// How long whoever leaves is heard out.
pub const SESSION_FAREWELL_WAIT: Duration = Duration::from_secs(2);
/// How long a program waits, unless its tenant's configuration says otherwise, for a device that was taken back: longer than
/// an owner that took its own back lends nothing.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(120);
/// How long a lender keeps what a guest had on a device that was taken back, whatever the borrower's patience.
pub const SESSION_ASIDE_MAX: Duration = Duration::from_secs(900);
/// Bytes of guests' device memory that a lender keeps in its own memory, unless its configuration says otherwise.
pub const SET_ASIDE_DEFAULT: headgate_quota::Bytes = headgate_quota::Bytes(4 << 30);
/// Lines of a worker's that are written into the daemon's log, and bytes of one: a program of strangers' could say much.
pub const WORKER_LINES_MAX: usize = 16;
/// See [`WORKER_LINES_MAX`].
pub const WORKER_LINE_BYTES_MAX: usize = 512;
/// Seconds without a sign of life, and probes in them, after which a session's connection counts as broken.
pub const SESSION_SILENCE_S: u32 = 2;

const _: () = assert!(
    SESSION_LOAN_WAIT.as_secs()
        < headgate_remote::limits::HELLO_WITHIN.as_secs() + headgate_remote::limits::RESUME_WITHIN.as_secs()
);
const _: () = assert!(headgate_remote::limits::RESUME_WITHIN.as_secs() < SESSION_RESUME_WAIT.as_secs());
const _: () = assert!(headgate_loans::limits::DIAL_WAIT.as_millis() < SESSION_JOIN_WAIT.as_millis());
const _: () = assert!(SESSION_BULK_CHUNK_BYTES <= headgate_remote::limits::CHUNK_BYTES_MAX);
const _: () = assert!(SESSION_DIRECT_BYTES_MAX < SESSION_BULK_CHUNK_BYTES);
/// Sessions leave half of the connections to loans.
const _: () =
    assert!(2 * SESSIONS_MAX * (SESSION_CONNECTIONS_MAX as usize) <= headgate_loans::limits::CONNECTIONS_MAX);
