//! `libheadgate_redirect.so`: a borrowed GPU in the place of this node's own.
//!
//! Preloaded in front of a genuine driver, it is what a program finds when it looks for the driver's functions: the
//! loader's look-ups (`dlsym`, `dlvsym`), the driver's (`cuGetProcAddress`) and programs that are linked with it all come
//! here. What each function does stands in `headgate-remote`, which answers most of them from elsewhere and a few by
//! asking the genuine driver (`client::contract` says which, and why).
//!
//! It is a library of its own beside `libheadgate_remote.so`, because what stands in the place of a driver must export
//! neither the loader's functions nor entry points that it lacks, and what stands in front of one must export both.
//!
//! What it never does: call anything of the driver that makes or needs a context, load the driver into a program that does
//! not look for it, or answer for a name that is not the driver's.
//!
//! Read in this order: [`route`], then [`exports`].

mod exports;
mod route;

/// The hook's reader of the loader's tables: the same file, as neither library may link the other.
#[path = "../../../hook/src/elf/mod.rs"]
mod elf;
