//! What each hooked call means, in safe code: one module a family. The functions judge a call and never make
//! it; [`crate::boundary::cross`] does.

pub(crate) mod context;
pub(crate) mod launch;
pub(crate) mod memory;
pub(crate) mod view;
