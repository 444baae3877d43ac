//! A CUDA program that times its own driver calls.
//!
//! It takes its entry points from `libcuda.so.1` the way CUDA's runtime does, by `dlsym` or by
//! `cuGetProcAddress_v2`, times batches of calls on one pinned thread, and prints one line per figure. It links
//! nothing of Headgate and reads no variable of it, so that whatever a hook adds is added by the hook.
//!
//! ```text
//! stopwatch calls (dlsym|proc) BATCHES   -> "from NAME LIBRARY", "memory_total BYTES",
//!                                           "call NAME p50 NS p99 NS"
//! stopwatch start                        -> "ready"; then, once standard input ends,
//!                                           "done CLOCK_MONOTONIC_NS" after cuInit, a context and an allocation
//! ```
//!
//! Read in this order: [`calls`], [`start`], [`driver`].

mod calls;
mod start;
mod driver;
mod sys;

use std::process::ExitCode;

const USAGE: &str = "usage: headgate-stopwatch calls (dlsym|proc) BATCHES | start";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["calls", way, batches] => way.parse().and_then(|way| {
            let batches = batches.parse().map_err(|error| format!("BATCHES `{batches}`: {error}"))?;
            calls::run(way, batches)
        }),
        ["start"] => start::run(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("stopwatch: {problem}");
            ExitCode::FAILURE
        }
    }
}
