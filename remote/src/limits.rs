//! Bounds of everything that grows, each with its reason.

use std::time::Duration;

use headgate_abi::limits::{RECALL_PERIOD_MS, RECALL_WAIT_MS_MAX};

use crate::wire::large::BEGINNING_BYTES;

/// Most bytes of a frame's payload. A reader allocates no more than this for one.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Encoded operations that wait for the sender before whoever adds more has to wait.
pub const PENDING_BYTES_MAX: usize = 512 << 10;
/// Most bytes of one piece of a copy or an image. Two fit into what may be pending.
pub const PIECE_BYTES_MAX: usize = 256 << 10;
/// A piece of at least so many bytes travels in a frame of its own, past the gathering of operations: from here on copying its
/// bytes once more costs more than a frame.
pub const LARGE_BYTES: usize = 32 << 10;
/// A copy of at least so many bytes is written from the program's memory also where the connection may break: of a shorter one
/// little would be acknowledged by its end, and all the rest is copied then.
pub const LENT_BYTES: usize = 2 << 20;
/// Bytes that the kernel holds of a connection and has not put on the wire yet, before a writer waits. What waits there is
/// ahead of whatever another thread of the program says next: on a wire of 1 Gbit/s so many bytes are a millisecond, a full
/// socket buffer some thirty. Enough to keep the wire busy until the writer has woken.
pub const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// The same for each connection that a session has between two daemons beside its first: together they have little more than the one.
pub const UNSENT_FURTHER_BYTES_MAX: u32 = UNSENT_BYTES_MAX / 2;
/// Most bytes of a chunk of a stream that goes over several connections: with its head, what TLS takes at once. A receiver keeps one
/// for each connection.
pub const CHUNK_BYTES_MAX: usize = (64 << 10) - crate::wire::bundle::CHUNK_HEAD_BYTES;
/// Bytes of each of two rings. Four pieces: enough for both sides to be at work, and little enough to stay in a cache.
pub const RING_BYTES: usize = 1 << 20;
/// Bytes written to a ring before the reader is told: it is at work on them while the next are written.
pub const RING_TOLD_BYTES: usize = 64 << 10;
/// How often whoever waits for room in a ring looks whether the other side still lives.
pub const RING_LOOKS_EVERY: Duration = Duration::from_millis(50);
/// Sent and not yet acknowledged. It is what a resumed session sends again, and what a sender may be ahead.
pub const JOURNAL_BYTES_MAX: usize = 32 << 20;
/// Bytes that a worker has read ahead of its dispatcher before it reads no more. A sender that keeps to what it may be ahead by
/// never gets there: bytes that a stream waits for must always come through.
pub const BACKLOG_BYTES_MAX: usize = 2 * JOURNAL_BYTES_MAX;
/// Streams of a session that wait for bytes of the program at a time, each for a word of its own: a page of them. As many
/// operations as drivers let a program be ahead by; another waits for the first to be done.
pub const HOLDS_MAX: usize = 1024;
/// Operations sent and not yet executed: how far a program runs ahead of its device. Drivers allow about a thousand
/// launches; a link needs as many more as are on their way.
pub const AHEAD_OPERATIONS_MAX: u64 = 8192;
/// Operations that wait for the sender before whoever adds more has to wait.
pub const PENDING_OPERATIONS_MAX: u32 = 2048;
/// Received operations after which an acknowledgement is sent on its own.
pub const ACK_OPERATIONS: u64 = 512;
/// Received bytes after which an acknowledgement is sent on its own.
pub const ACK_BYTES: usize = 512 << 10;
/// Received frames after which an acknowledgement is sent on its own.
pub const ACK_FRAMES: u32 = 32;
/// How long a client's thread that waits looks for the answer before it sleeps: an answer from nearby comes sooner than
/// a sleeper wakes.
pub const CLIENT_LOOKS_FOR: Duration = Duration::from_micros(60);
/// How long a sender's thread that has sent something looks for more before it sleeps.
pub const SENDER_LINGERS: Duration = Duration::from_micros(20);
/// The same for a worker that has nothing to do.
pub const WORKER_LOOKS_FOR: Duration = Duration::from_micros(20);
/// How long nothing has come when a worker begins to tell, unasked, what streams have reached. A program that goes on
/// launching meanwhile would only be told of something that is no longer the last.
pub const UNASKED_AFTER: Duration = Duration::from_micros(20);
/// How long a session outlives its connection.
pub const RESUME_WITHIN: Duration = Duration::from_secs(30);
/// How long a program that ends waits to say so.
pub const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// How long a worker whose client is gone for good may still be in a call of the driver.
pub const MOURNED_AFTER: Duration = Duration::from_secs(5);
/// Pause between two attempts to connect again.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long a new connection may take to say who it is.
pub const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Live handles of one kind. A program with more has lost count of them.
pub const HANDLES_MAX: usize = 1 << 20;
/// Bytes of a module's image.
pub const IMAGE_BYTES_MAX: usize = 512 << 20;
/// Images kept by a worker, in bytes. The oldest go first; a client sends them again.
pub const IMAGES_KEPT_BYTES: usize = 1 << 30;
/// Bytes of what the compiler or the linker may say of errors, and again of everything else.
pub const COMPILER_LOG_BYTES: usize = 16 << 10;
/// Bytes of one answer's piece of a linked image.
pub const LINKED_PIECE_BYTES: usize = 128 << 10;
/// Inputs of one link.
pub const LINK_INPUTS_MAX: usize = 4096;
/// Bytes of one result of a call that travels by rule.
pub const RESULT_BYTES_MAX: usize = 256;
/// Kernels whose attributes come with the load's reply. Libraries with more tell them when asked.
pub const KERNELS_TOLD_MAX: usize = 256;
/// Bytes of a kernel's parameters (CUDA 12.1 and later).
pub const PARAMETER_BYTES_MAX: usize = 32_764;
/// Launch attributes of one launch.
pub const LAUNCH_ATTRIBUTES_MAX: usize = 16;
/// Bytes of a name or path.
pub const NAME_BYTES_MAX: usize = 64 << 10;
/// Devices of a session.
pub const DEVICES_MAX: usize = 64;
/// Pinned bytes in which a worker holds copies that are under way.
pub const STAGING_BYTES_MAX: usize = 256 << 20;
/// Bytes one copy may hold of them.
pub const STAGING_PIECE_BYTES: usize = 256 << 10;
/// Descriptors of a worker: a driver opens some dozens for each device.
pub const WORKER_DESCRIPTORS_MAX: u64 = 4096;
/// Threads of a worker: its own six, and a driver's, some for each device and context.
pub const WORKER_TASKS_MAX: u64 = 1024;
/// Files and directories of the host that a worker sees.
pub const WORKER_PATHS_MAX: usize = 256;

/// How long a worker tries to keep its own calls out of the driver before what is on the device is put aside: everything is
/// finished by then, and other threads are in the driver for moments.
pub const LOCK_WITHIN: Duration = Duration::from_millis(500);

/// How long what comes back to a device may find no room there: a process that has ended gives back what it was charged with within
/// a second.
pub const FREED_WITHIN: Duration = Duration::from_secs(1);
/// Pause between two attempts.
pub const FREED_LOOKS_EVERY: Duration = Duration::from_millis(20);

/// First and longest slab of device memory that a client takes ahead of its use. What of a slab is unused while something is
/// in it, nobody else has: an allocation may be refused so many bytes early at most.
pub const SLAB_BYTES_MIN: u64 = 512 << 10;
/// See [`SLAB_BYTES_MIN`]. Drivers take so much at a time for small allocations themselves.
pub const SLAB_BYTES_MAX: u64 = 2 << 20;
/// All slabs of a session: what is scattered over them in small pieces may keep so much from others at worst. Small
/// allocations beyond it wait for the worker.
pub const SLABS_BYTES_MAX: u64 = 16 << 20;
/// A slab is granted while as much as so many of it is free: where memory is short, nobody takes it ahead.
pub const SLABS_LEFT_MIN: u64 = 16;
/// Longest allocation that is carved from a slab unless it would be refused otherwise.
pub const CARVED_BYTES_MAX: u64 = 128 << 10;
/// How long a worker that is asked for memory taken ahead waits for work of its context to finish, since that is what giving it
/// back would wait for. Enough for what a program mostly has under way, and with the way there and back it fits into what whoever
/// asked waits at most.
pub const QUIET_WITHIN: Duration = Duration::from_millis(150);
/// Then it lets so many times as long pass before it waits so again: a session that is never quiet has its operations held up for a
/// small part of its time.
pub const QUIET_REST: u32 = 12;
/// It waits so long in any case: what was done a moment ago may not show yet.
pub const QUIET_AT_LEAST: Duration = Duration::from_millis(5);
/// Pause between two looks whether a context is quiet.
pub const QUIET_LOOKS_EVERY: Duration = Duration::from_micros(50);
/// How long after such a question a session takes nothing ahead: whoever was short of memory is to have it first.
pub const MODEST_FOR: Duration = Duration::from_secs(1);
/// How long nothing has come when a client hears that it had better give back what it took ahead.
pub const IDLE_AFTER: Duration = Duration::from_secs(1);

const _: () = assert!(4 * CARVED_BYTES_MAX <= SLAB_BYTES_MIN && SLAB_BYTES_MIN <= SLAB_BYTES_MAX);
const _: () = assert!(SLAB_BYTES_MAX <= SLABS_BYTES_MAX);
const _: () = assert!(QUIET_WITHIN.as_millis() < RECALL_WAIT_MS_MAX as u128);
const _: () = assert!(QUIET_AT_LEAST.as_millis() * 10 <= RECALL_PERIOD_MS as u128);
const _: () = assert!(2 * PIECE_BYTES_MAX <= PENDING_BYTES_MAX);
const _: () = assert!(PENDING_BYTES_MAX + PIECE_BYTES_MAX + PARAMETER_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(LINKED_PIECE_BYTES + 3 * COMPILER_LOG_BYTES <= PIECE_BYTES_MAX);
const _: () = assert!(LARGE_BYTES > BEGINNING_BYTES && LARGE_BYTES <= PIECE_BYTES_MAX);
const _: () = assert!(PIECE_BYTES_MAX <= STAGING_PIECE_BYTES);
// Indices count modulo 2^32, so the size of a ring must divide that.
const _: () = assert!(RING_BYTES.is_power_of_two() && RING_BYTES <= 1 << 30 && RING_TOLD_BYTES < RING_BYTES);
const _: () = assert!(ACK_OPERATIONS * 4 <= AHEAD_OPERATIONS_MAX);
const _: () = assert!(ACK_BYTES * 4 <= JOURNAL_BYTES_MAX);
