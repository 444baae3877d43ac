//! `headgate-kit`: see [`headgate_gpu_kit`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use headgate_gpu_kit::kit::Kit;
use headgate_gpu_kit::{parts, report, run};

/// The proof of Headgate on a real GPU.
#[derive(Debug, Parser)]
#[command(name = "headgate-kit", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the parts, most valuable first. Exit 0: every part passed or was skipped; 1: one did not; 2: nothing could be run.
    Run(run::Options),
    /// Runs one part in this process; `run` does this.
    #[command(hide = true)]
    Part {
        name: String,
        #[arg(long)]
        file: PathBuf,
        #[arg(long)]
        seconds: f64,
        #[arg(long)]
        simulated: bool,
    },
    /// Turns returned results (a folder with `results*.json`) into a page for docs/results, on standard output.
    Report(report::Options),
}

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("headgate-kit: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn act(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(options) => run::run(&options),
        Command::Part { name, file, seconds, simulated } => {
            run::become_part()?;
            let kit = Kit::of_this_program(simulated)?;
            parts::run(&kit, &name, &file, Duration::from_secs_f64(seconds))
        }
        Command::Report(options) => report::print(&options),
    }
}
