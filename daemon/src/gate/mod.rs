//! Opening and closing gates: one thread for each device, and one that keeps every tenant's heartbeat alive.
//!
//! ```text
//! seats in shared memory --observe--> WindowScheduler::tick --> gate words in shared memory, futex wake
//! ```
//!
//! These are plain threads with no runtime under them: a tick is a few memory reads, some arithmetic and a few
//! writes, and has to come on time. Policy is `headgate_quota`'s; here is only the carrying out.
//!
//! Read in this order: [`table`] (who contends), [`turn`] (one tick), [`bells`] (the sleep between two), [`threads`].

pub mod bells;
mod held;
pub mod table;
pub mod threads;
pub mod turn;

pub use table::{GateRoom, GateTable, GateTenant};
pub use threads::Gates;
