//! The clock, the processor this thread runs on, and the end of a pipe.
#![expect(unsafe_code, reason = "libc calls")]

/// Monotonic time in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Keeps this thread on the last processor it may use: the first ones serve interrupts and the rest of the
/// machine. Measuring goes on without it where the kernel refuses.
pub(crate) fn pin() {
    // SAFETY: an all-zero set is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writing its own size; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return;
    }
    // SAFETY: every index below CPU_SETSIZE is inside the set.
    let last = (0..libc::CPU_SETSIZE as usize).rev().find(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    let Some(last) = last else { return };
    // SAFETY: as for the first set.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `last` is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(last, &mut one) };
    // SAFETY: `one` is valid for reading its own size.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&one), &raw const one) } != 0 {
        eprintln!("stopwatch: not pinned: {}", std::io::Error::last_os_error());
    }
}

/// Blocks until nobody reads our standard output any more, be it that the bench has closed it or has died.
pub(crate) fn wait_for_reader_to_leave() {
    let mut pipe = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
    // A pipe without a reader polls as an error, asked for or not; a signal only makes us look again.
    while pipe.revents == 0 {
        // SAFETY: one record, valid for reading and writing.
        if unsafe { libc::poll(&raw mut pipe, 1, -1) } < 0 && pipe.revents == 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return;
            }
        }
    }
}
