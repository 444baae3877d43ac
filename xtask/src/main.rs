//! Chores of this repository, as `cargo xtask CHORE`.
//!
//! * `ci`: everything `.ci/run` checks.
//! * `tidy`: what the compiler cannot see: who may depend on whom, what libraries export and import, the shape
//!   of source files, links in documents.
//! * `demo`: two tenants under quota on one GPU, live (also `cargo demo`).
//! * `bench NAME`: figures, compared with their goals.
//! * `ebpf`: rebuilds the kernel programs' committed objects.
//! * `loom`: the protocols of shared memory under a model checker.
//! * `fuzz`: runs the fuzz targets for a while.
//! * `gpu-kit`: the folder that proves Headgate on a real GPU, and a page of what it brought back.
//! * `docs`: the API documentation, warnings being errors.
//!
//! Nothing here is shipped. A chore exits 0 when all is well and 1 when it found something; `bench`, `ebpf` and
//! `fuzz` have further codes, named in their modules.
//!
//! Read in this order: [`workspace`], [`tidy`], [`mod@bench`].

mod workspace;
mod clock;
mod tidy;
mod demo;
mod bench;
mod ebpf;
mod fuzz;
mod gpu_kit;
mod chores;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_version_flag = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Everything a change must pass, in the order of `.ci/run`.
    Ci,
    /// What the compiler cannot see: dependency directions, exported symbols, file shapes, links.
    Tidy,
    /// Two tenants under quota on one GPU, live; on a simulated GPU where there is no NVIDIA driver.
    Demo(demo::Options),
    /// Figures compared with their goals. Exit 0: all met; 1: a goal is missed; 2: could not measure.
    Bench(bench::Options),
    /// Rebuilds the kernel programs' committed objects.
    Ebpf {
        /// Only compares a rebuild with what is committed. Exit 3: the tool chain is absent.
        #[arg(long)]
        check: bool,
    },
    /// The protocol of shared memory, every order of its steps and deaths between them, under a model checker.
    Loom,
    /// Fuzzes what is read from strangers. Exit 1: an input that fails was found; 3: no C++ compiler.
    Fuzz(fuzz::Options),
    /// Gathers the folder that proves Headgate on a real GPU, or makes a page of what it brought back.
    GpuKit(gpu_kit::Options),
    /// The API documentation of every crate, warnings being errors.
    Docs {
        /// Opens it in a browser.
        #[arg(long)]
        open: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments(std::env::args_os().collect()));
    let outcome = match cli.chore {
        Chore::Ci => chores::ci(),
        Chore::Tidy => tidy::run(),
        Chore::Demo(options) => demo::run(&options),
        Chore::Bench(options) => return bench::run(&options),
        Chore::Ebpf { check } => {
            ebpf::run(&check.then(|| "--check".to_owned()).into_iter().collect::<Vec<_>>())
        }
        Chore::Loom => chores::loom(),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::GpuKit(options) => gpu_kit::run(&options),
        Chore::Docs { open } => chores::docs(open),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// The command line without the `--` that `cargo demo -- --json` puts between the alias and its options.
fn arguments(mut given: Vec<OsString>) -> Vec<OsString> {
    if given.get(2).is_some_and(|word| word == "--") {
        given.remove(2);
    }
    given
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_alias_separator_is_dropped_once() {
        assert_eq!(arguments(words("xtask demo -- --json")), words("xtask demo --json"));
        assert_eq!(arguments(words("xtask demo --json")), words("xtask demo --json"));
        assert_eq!(arguments(words("xtask")), words("xtask"));
        let cli = Cli::try_parse_from(arguments(words("xtask demo -- --json --seconds 3"))).unwrap();
        assert!(matches!(cli.chore, Chore::Demo(options) if options.json && options.seconds == 3));
    }
}
