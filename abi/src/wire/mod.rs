//! What a hook and its daemon say over the Unix socket.
//!
//! A conversation is two frames: the hook's [`message::Hello`] and the daemon's [`message::Answer`]. After a
//! welcome the socket only stands for the session; everything else happens in shared memory. Who the hook is
//! the daemon learns from the kernel (`SO_PEERCRED`, cgroup), never from a frame.

pub mod frame;
pub mod message;

pub use frame::{Frame, FrameError};
pub use message::{Answer, Hello, RefusalReason, Welcome};
