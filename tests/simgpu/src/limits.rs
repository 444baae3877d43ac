//! Every bound of the simulated node, with its reason.

/// Devices of a node. Sixteen is the most NVIDIA ships in one host (HGX/DGX class).
pub const DEVICES_MAX: usize = 16;
/// Connections at once: 300 programs starting together, each with a driver and an NVML connection, and room beside.
pub const SESSIONS_MAX: usize = 2_048;
/// Streams of one process, its default streams included. Each has a cell of the status page.
pub const STREAMS_MAX: usize = 4_096;
/// Contexts of one process. Each has an error word of the status page.
pub const CONTEXTS_MAX: usize = 256;
/// Channels of a context: the most that `CUDA_DEVICE_MAX_CONNECTIONS` allows.
pub const CONNECTIONS_MAX: u32 = 32;
/// Entry points whose calls the status page counts, more than the symbol table has rows.
pub const SYMBOLS_MAX: usize = 1_024;
/// Operations one stream may have pending: what a channel's ring holds on a real device. A call that finds the stream
/// full blocks until there is room.
pub const PENDING_MAX: u64 = 1_024;
/// Most pending operations the server takes from one stream, however its client behaves.
pub const BACKLOG_MAX: usize = 4_096;
/// Partitions of all devices that one MPS control program serves: every device in chunks of the smallest size.
pub const PARTITIONS_MAX: usize = 1_024;
/// Largest frame. Launch parameters take at most 32,764 bytes; module text and copied bytes are read from the
/// client's memory and never framed.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Largest reply: the journal and the statistics of a full node.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Frames taken from one client before others get a turn.
pub const FRAMES_PER_TURN_MAX: usize = 1_024;
/// Journal entries kept.
pub const JOURNAL_MAX: usize = 65_536;
/// Xid errors of a server's life; later ones are refused.
pub const XIDS_MAX: usize = 1_024;
/// Ended processes whose use is remembered until the next mark.
pub const ENDED_MAX: usize = 4_096;
/// Largest module image read from a client.
pub const IMAGE_BYTES_MAX: usize = 64 << 20;
/// Longest a client waits for a reply. Replies need no device time; only interpreting a long kernel delays them.
pub const REPLY_WAIT_S_MAX: i64 = 60;
/// How often a waiting client looks whether the server is still there.
pub const LOST_CHECK_MS: u64 = 100;
/// Longest the server waits for a client to take a reply.
pub const SEND_WAIT_MS_MAX: u64 = 1_000;
/// Bytes copied between a client and the device at once.
pub const COPY_CHUNK_BYTES: usize = 16 << 20;
/// Utilisation samples kept for each process.
pub const SAMPLES_MAX: usize = 128;
/// Shortest span between two utilisation samples. NVML's own period is between 1/6 s and 1 s.
pub const SAMPLE_NS: u64 = 100_000_000;

const _: () = assert!(headgate_abi::cuda::symbols::COUNT < SYMBOLS_MAX);
const _: () = assert!(4 * PENDING_MAX <= BACKLOG_MAX as u64);
