//! A tiny writer: off by default, one line per event, a bounded number of lines per process.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::config;

/// Lines one process may write. A tenant in a loop must not fill the node's logs through us.
const LINES_MAX: u32 = 200;

static LINES: AtomicU32 = AtomicU32::new(0);

/// Writes an event when logging is on.
pub(crate) fn event(args: fmt::Arguments<'_>) {
    if config().log {
        line(args);
    }
}

/// Writes what the program's owner must see even with logging off: why CUDA will not start.
pub(crate) fn notice(args: fmt::Arguments<'_>) {
    line(args);
}

fn line(args: fmt::Arguments<'_>) {
    if LINES.fetch_add(1, Relaxed) < LINES_MAX {
        let text = format!("headgate: {args}\n");
        // One write keeps lines of several processes apart. A closed or full standard error is the program's
        // own business: there is nobody left to tell.
        let _written = std::io::stderr().write(text.as_bytes());
    }
}
