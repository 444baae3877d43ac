//! `cargo demo`: the README's first command. The harness builds what it starts and runs it.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use headgate_harness::demo::DemoOptions;
use headgate_harness::workspace;

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// How long the tenants compete.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
}

/// Runs the demo; exit 1 when a share or a limit did not hold.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    eprintln!("building what the demo runs (the first time takes a few minutes)");
    let _directory = workspace::built().context("building the demo")?;
    headgate_harness::demo::run(DemoOptions {
        json: options.json,
        seconds: options.seconds,
        ..DemoOptions::default()
    })
}
