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

/// Longest message about a loan. The longest real one, a request with five names of full length, has below 1 KiB.
pub const FRAME_BYTES_MAX: usize = 4 << 10;

/// Longest load summary: a thousand nodes with sixteen devices each at fifty bytes, and incidents.
pub const SUMMARY_BYTES_MAX: usize = 1 << 20;

/// Longest list of HTTP headers. gRPC's own have some hundred bytes.
pub const HEADER_BYTES_MAX: u32 = 8 << 10;

/// Connections accepted at once: every node of a large city, twice while they reconnect, and as many of remote sessions.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Nodes dialled at once: those a node borrows from, and, for a lead, the other leads.
pub const LINKS_MAX: usize = 2_048;

/// Streams of one connection: one conversation, one summary, and their successors.
pub const STREAMS_MAX: usize = 16;

/// Messages that wait for one peer. A node's every loan may be renewed in one moment.
pub const OUTBOX_MAX: usize = 512;

/// Messages that wait for the desk.
pub const INBOX_MAX: usize = 4_096;

/// Connections of remote sessions that wait to be taken up.
pub const SESSIONS_WAITING_MAX: usize = 64;

/// Pairs of reason and peer that are logged; beyond it there is only counting.
pub const REFUSALS_LOGGED_MAX: usize = 1_024;

/// Longest TLS handshake. A peer on a poor link needs some round trips, an idle one holds a connection.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// Longest way to a connection.
pub const DIAL_WAIT: Duration = Duration::from_secs(3);

/// Between a broken stream and the next attempt. Shorter than the borrower's patience for an answer, so that what
/// it says again finds a new stream.
pub const REDIAL_PAUSE: Duration = Duration::from_millis(200);

/// After a connection could not be accepted: the kernel is out of something.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Between signs of life on a connection, and how long one may stay away: a partition is noticed in five seconds,
/// well before a promise ends.
pub const KEEPALIVE_PERIOD: Duration = Duration::from_secs(2);
/// See [`KEEPALIVE_PERIOD`].
pub const KEEPALIVE_WAIT: Duration = Duration::from_secs(3);

/// How long peers have to notice that this node ends: a round trip on a poor link.
pub const FAREWELL_WAIT: Duration = Duration::from_millis(300);

/// How long a load summary may take to be answered.
pub const SUMMARY_WAIT: Duration = Duration::from_secs(2);

/// Nodes known by their summaries: what the borrower remembers offers of, with room for those that have none.
pub const NODES_MAX: usize = 2_048;

/// Load summaries a node may miss before what it had to lend is forgotten.
pub const SUMMARIES_MISSED_MAX: u32 = 4;

/// Looks at one tenant that are remembered: a quarter of a second at the finest spacing of looks.
pub const DEMAND_SAMPLES_MAX: usize = 512;

/// Between looks while an express owner's quota is out: a part of what it may wait.
pub const LOOK_CLOSELY: Duration = Duration::from_millis(1);
/// Between looks otherwise: a part of the time after which a need counts.
pub const LOOK: Duration = Duration::from_millis(25);

/// Longest sleep of the desk: a machine that was suspended finds its clock advanced within it.
pub const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Between attempts to count a start with a store that does not answer.
pub const CLAIM_PAUSE: Duration = Duration::from_millis(500);

/// Most bytes in one file of the audit log: some forty thousand decisions, followed in well under a second at a start.
pub const AUDIT_FILE_BYTES_MAX: u64 = 16 << 20;

/// How often the files of an audit log are listed anew because one was filled while they were read.
pub const AUDIT_LISTINGS_MAX: usize = 8;

/// Between writes of the audit log to the disk.
pub const AUDIT_SYNC_PERIOD: Duration = Duration::from_secs(1);

/// Decisions kept for `headgate loans why`: some minutes of a busy node.
pub const DECISIONS_MAX: usize = 512;

/// Confirmed swaps whose time is remembered, for the figures.
pub const LATENCIES_MAX: usize = 1_024;
