//! The least daemon a hook needs: a socket, segments, an open gate and a heartbeat.
//!
//! It gives whoever connects a seat in its one tenant, which has a memory quota of 8 GiB and a compute quota
//! (host gate, always open) on whatever devices the hook names. It matches no cgroup, reads no configuration,
//! schedules nothing and never closes a gate: benches run it in the real daemon's place to measure the hook
//! alone, and it must never be taken for a daemon that enforces anything.
//!
//! ```text
//! headgate-standin SOCKET   -> "listening MEMORY_BYTES"; "left LAUNCHES BATCHES" for each session that ended;
//!                              ends when standard input ends
//! ```
//!
//! Read in this order: [`tenant`] (what it hands out), [`service`] (the one thread that does everything).

mod tenant;
mod service;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

fn main() -> ExitCode {
    let outcome = std::env::args_os()
        .nth(1)
        .context("usage: headgate-standin SOCKET")
        .and_then(|socket| service::serve(socket.as_ref()));
    report(outcome)
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standin: {error:#}");
            ExitCode::FAILURE
        }
    }
}
