//! The end of a worker whose client is gone while it is in a call of the driver that does not return: a context that is
//! waited for in which a kernel runs for ever, or a stream waits for a word that nobody is left to write. A driver ends
//! such work when its process ends, so that is what happens.

#![expect(
    unsafe_code,
    reason = "the standard library's exit runs what libraries left to be run, and that may wait as well"
)]

use std::io::{self, Write as _};
use std::sync::Arc;
use std::thread;

use crate::limits::MOURNED_AFTER;
use crate::link::{Bell, Stream};

/// Looks out for the end of a connection that does not come back. Nobody is held up by it: a worker that is not stuck has
/// ended by the time this one would end it.
pub(super) fn watch_over(stream: &Arc<Stream>) -> io::Result<()> {
    let (bell, stream) = (Bell::for_end_of(stream)?, Arc::clone(stream));
    let mourner = move || {
        mourn(&bell);
        drop(stream);
    };
    thread::Builder::new().name("mourner".to_owned()).spawn(mourner)?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own that waits, then ends what cannot end itself"
)]
fn mourn(bell: &Bell) {
    bell.wait_for_end();
    thread::sleep(MOURNED_AFTER);
    // An interruption rings once; an end goes on ringing.
    bell.wait_for_end();
    let said =
        "headgate-worker: the client has gone without a word, and a call of the driver does not return\n";
    // Standard error may be gone as well.
    drop(io::stderr().write_all(said.as_bytes()));
    // SAFETY: takes a number. Nothing of this process is to be left in order: it ends as if killed, with a word.
    unsafe { libc::_exit(1) }
}
