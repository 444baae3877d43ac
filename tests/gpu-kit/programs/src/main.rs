//! `kit-gpu`: what the kit measures with on a GPU. An ordinary CUDA program that knows nothing of Headgate, so that it can
//! be run natively and under it.
//!
//! Every line it prints is one JSON object, flushed at once, so that what was found before a crash or a kill is not lost:
//! `{"figure", "case", "unit", "samples"}` or `{"fact", "value"}`.
//!
//! Read in this order: [`gpu`] (the driver), [`constants`] (what calls cost), [`load`] (work for shares and latencies).

mod gpu;
mod constants;
mod load;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
#[command(name = "kit-gpu", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What the device and its driver are.
    Describe,
    /// Host time of calls: launches, stream memory operations, events, questions.
    Calls {
        /// Launches only.
        #[arg(long)]
        launches_only: bool,
    },
    /// Device time of an edge between kernels, and the gate: latency, memory registered from a memfd, depth of the queue.
    Gate,
    /// Holds a context, idle or with a stream that waits at a closed gate, until standard input ends.
    Hold {
        /// Wait at a gate.
        #[arg(long)]
        blocked: bool,
    },
    /// Pauses of a kernel that never stops, in device time.
    Trace {
        /// How long.
        #[arg(long, default_value_t = 1_000)]
        milliseconds: u64,
        /// Shorter pauses are not turns of others.
        #[arg(long, default_value_t = 20_000)]
        threshold_ns: u64,
    },
    /// Finds how many steps of the `work` kernel take a microsecond.
    Calibrate,
    /// The same kernel over and over; prints how many were done when.
    Loop(Looping),
    /// Requests that arrive by chance, each some kernels and a wait; prints how long they took.
    Serve {
        #[command(flatten)]
        work: WorkArgs,
        /// Kernels of a request.
        #[arg(long, default_value_t = 8)]
        kernels: u32,
        /// Mean requests a second.
        #[arg(long)]
        rate: f64,
        /// For how long.
        #[arg(long)]
        seconds: f64,
    },
}

/// How much one kernel does.
#[derive(Clone, Copy, Debug, Args)]
struct WorkArgs {
    /// Steps of every thread.
    #[arg(long, default_value_t = 1)]
    steps: u32,
    /// Blocks of 128 threads.
    #[arg(long, default_value_t = 1)]
    blocks: u32,
}

#[derive(Clone, Copy, Debug, Args)]
struct Looping {
    #[command(flatten)]
    work: WorkArgs,
    /// For how long.
    #[arg(long)]
    seconds: f64,
    /// Launches between two looks at what is done; two of them are under way at a time.
    #[arg(long, default_value_t = 100)]
    round: u32,
    /// Wait for the device after every so many launches; 0 for never.
    #[arg(long, default_value_t = 0)]
    sync_every: u32,
    /// Launch graphs of so many kernels instead of kernels.
    #[arg(long, default_value_t = 0)]
    graph: u32,
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Describe => constants::describe(),
        What::Calls { launches_only } => constants::calls(launches_only),
        What::Gate => constants::gate(),
        What::Hold { blocked } => constants::hold(blocked),
        What::Trace { milliseconds, threshold_ns } => constants::trace(milliseconds, threshold_ns),
        What::Calibrate => load::calibrate(),
        What::Loop(looping) => load::looping(&looping),
        What::Serve { work, kernels, rate, seconds } => load::serve(work, kernels, rate, seconds),
    }
}

#[expect(clippy::disallowed_methods, reason = "an ordinary program that reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "requests arrive when they arrive")]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// `CLOCK_MONOTONIC` in microseconds, the same for all processes of the machine.
#[expect(unsafe_code, reason = "clock_gettime(2); the standard library hides the clock's zero")]
fn now_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the output is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1_000
}

fn line(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()?;
    Ok(())
}

fn figure(name: &str, case: &str, unit: &str, samples: &[f64]) -> Result<()> {
    line(&json!({ "figure": name, "case": case, "unit": unit, "samples": samples }))
}

fn fact(name: &str, value: impl Into<Value>) -> Result<()> {
    line(&json!({ "fact": name, "value": value.into() }))
}

#[expect(clippy::cast_precision_loss, reason = "figures, not accounts")]
fn as_f64(value: u64) -> f64 {
    value as f64
}
