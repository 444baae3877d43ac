//! Short pauses that are as short as asked for.
#![expect(unsafe_code, reason = "the standard library does not set a thread's timer slack")]

/// Has this thread's pauses end when they are over. Else the kernel adds up to 50 us to each, to wake several threads at
/// once (prctl(2), `PR_SET_TIMERSLACK`).
pub(super) fn be_exact() {
    const NANOSECONDS: libc::c_ulong = 1;
    // SAFETY: takes numbers here.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, NANOSECONDS, 0, 0, 0) };
    debug_assert_eq!(result, 0, "the slack of an ordinary thread");
}
