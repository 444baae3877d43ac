//! One of many processes that start CUDA at the same moment.
#![expect(clippy::print_stdout, reason = "the time is the output")]

use std::io::{Read as _, Write as _};

use crate::driver::{Driver, Way, check};
use crate::sys;

/// Says it is there, waits until standard input ends, then does what a program does first: load the driver,
/// find functions, `cuInit`, a context, an allocation. Standard input is a pipe that all processes share; its
/// other end, closed once, starts them all. Nobody leaves before the bench has stopped listening: starts are
/// measured, not exits.
pub(crate) fn run() -> Result<(), String> {
    let io = |error: std::io::Error| format!("talking to the bench: {error}");
    println!("ready");
    std::io::stdout().flush().map_err(io)?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(io)?;

    let driver = Driver::find(Way::Dlsym)?;
    driver.start()?;
    let (status, address) = driver.allocate(64 << 10);
    check(status, "cuMemAlloc")?;
    let done = sys::now_ns();

    println!("done {done}");
    std::io::stdout().flush().map_err(io)?;
    sys::wait_for_reader_to_leave();
    check(driver.free(address), "cuMemFree")
}
