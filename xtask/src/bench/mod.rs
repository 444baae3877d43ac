//! `cargo xtask bench NAME [--json] [--quick]`: figures, each with its spread, compared with a goal.
//!
//! A bench compares two things in one run (with and without the hook, say), so that the machine cancels out, and
//! never asserts an absolute time. Every bench keeps this contract:
//!
//! * `--json` prints one JSON object per figure and line, with the fields of [`Figure`]; otherwise a table.
//! * Exit code 0: every goal is met. 1: a goal is missed. 2: it could not measure, and says why.
//!
//! A new bench is a module with a function `measure(&Settings) -> Result<Vec<Figure>>` and a line in [`BENCHES`].
#![expect(clippy::print_stdout, reason = "figures are the output")]

mod figure;
mod stopwatch;
mod hook;
mod starts;
mod compute;
mod memory;
mod ebpf;
mod loans;
mod remote;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

pub(crate) use figure::{Figure, Subject};

use crate::workspace;

/// Exit code for "could not measure": a missing figure must not look like a missed goal.
const EXIT_NOT_MEASURED: u8 = 2;

type Measure = fn(&Settings) -> Result<Vec<Figure>>;

/// Every bench: name, what it measures, how.
const BENCHES: &[(&str, &str, Measure)] = &[
    ("hook", "host time the hook adds to calls and to starting programs, on a null driver", hook::measure),
    (
        "starts",
        "time that hook and daemon together add to starting programs, on a null driver",
        starts::measure,
    ),
    (
        "compute",
        "shares, express latency, reclaim and the daemon's cost, on the simulated device and in virtual time",
        compute::measure,
    ),
    (
        "memory",
        "what memory isolation costs, and whether its books are right whatever programs do",
        memory::measure,
    ),
    ("ebpf", "what kernel programs cost, and reading them; needs root", ebpf::measure),
    ("loans", "a thousand districts renewing their loans against a real NATS server", loans::measure),
    (
        "remote",
        "what a borrowed GPU costs a program, natively and remotely in turn, on the simulated device",
        remote::measure,
    ),
];

/// Options of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which bench; without a name, lists them.
    name: Option<String>,
    /// One JSON object per figure instead of a table.
    #[arg(long)]
    json: bool,
    /// Fewer rounds and samples: shows that the bench works, not what the figures are worth.
    #[arg(long)]
    quick: bool,
    /// Only this part of a bench that has parts, so that a shared machine is not held for long; a wrong one lists them.
    #[arg(long, value_name = "PART")]
    part: Option<String>,
}

/// What a bench is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Fewer rounds and samples.
    pub(crate) quick: bool,
    /// Only this part, where a bench has parts.
    pub(crate) part: Option<String>,
    /// The commit the figures are of.
    pub(crate) commit: String,
}

/// Runs a bench and prints its figures.
pub(crate) fn run(options: &Options) -> ExitCode {
    let Some(name) = &options.name else {
        for (name, about, _) in BENCHES {
            println!("{name:<12} {about}");
        }
        return ExitCode::SUCCESS;
    };
    match measure(name, options) {
        Ok(figures) => report(&figures, options.json),
        Err(error) => {
            eprintln!("bench {name}: could not measure: {error:#}");
            ExitCode::from(EXIT_NOT_MEASURED)
        }
    }
}

fn measure(name: &str, options: &Options) -> Result<Vec<Figure>> {
    let names = || BENCHES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let (_, _, measure) = BENCHES
        .iter()
        .find(|(known, ..)| *known == name)
        .with_context(|| format!("there is no such bench; there are: {}", names()))?;
    measure(&Settings { quick: options.quick, part: options.part.clone(), commit: workspace::commit()? })
}

fn report(figures: &[Figure], json: bool) -> ExitCode {
    if json {
        for figure in figures {
            match serde_json::to_string(figure) {
                Ok(line) => println!("{line}"),
                Err(error) => {
                    eprintln!("bench: a figure cannot be written: {error}");
                    return ExitCode::from(EXIT_NOT_MEASURED);
                }
            }
        }
    } else {
        print!("{}", figure::table(figures));
    }
    let missed = figures.iter().any(|figure| figure.met == Some(false));
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
