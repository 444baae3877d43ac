//! What each hooked call means, in safe code: one module a family. The functions judge a call and never make
//! it; [`crate::boundary::cross`] does.

mod place;
pub(crate) mod context;
pub(crate) mod groups;
pub(crate) mod memory;
pub(crate) mod pool;
pub(crate) mod physical;
pub(crate) mod array;
pub(crate) mod graph;
pub(crate) mod launch;
pub(crate) mod view;
pub(crate) mod processes;
pub(crate) mod checkpoint;
