//! Fuzzing what is read from strangers: builds the targets in `fuzz/`, runs each for a while, says what it found.
//!
//! The targets are built by the pinned stable compiler: LLVM's coverage pass is asked for by stable flags, and the fuzzer
//! itself (libFuzzer) comes with its crate and needs a C++ compiler. There is no address sanitizer in it: that flag is
//! for nightly compilers. What is fuzzed is safe code on bounded memory, with overflow checks and debug assertions
//! on, so a mistake is a panic. With a nightly compiler, `cargo +nightly fuzz run TARGET` adds the sanitizer.
//!
//! New inputs are kept in `fuzz/target/corpus`; `--keep` adds what they cover to the committed corpus, minimised.
//! Exit 1: an input that fails was found, its file is named. Exit 3: there is no C++ compiler here.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::workspace;

/// Exit code when the tool chain is absent.
const ABSENT: u8 = 3;
/// What the targets are built for: where the flags below hold.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Coverage as libFuzzer reads it: a counter and an address a block, and the operands of comparisons.
const FLAGS: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// Seconds one input may take: the slowest honest one takes milliseconds.
const INPUT_SECONDS: &str = "10";
/// Memory one target may take.
const MEMORY_MIB: &str = "2048";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Targets; all of them when none is named.
    targets: Vec<String>,
    /// Seconds each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Targets that run at a time.
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// Adds what was found to the committed corpus, minimised.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if Command::new(&compiler).arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("fuzz: no C++ compiler ({}); install g++ or name one in CXX", compiler.display());
        return Ok(ExitCode::from(ABSENT));
    }
    let fuzz = workspace::root()?.join("fuzz");
    let known = targets(&fuzz)?;
    for target in &options.targets {
        ensure!(known.contains(target), "no target {target}; there are {}", known.join(", "));
    }
    let chosen = if options.targets.is_empty() { known } else { options.targets.clone() };
    build(&fuzz)?;
    let failed = run_all(&fuzz, &chosen, options)?;
    if options.keep {
        chosen.iter().try_for_each(|target| keep(&fuzz, target))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Names of the targets: their files.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(fuzz.join("fuzz_targets"))? {
        names.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort_unstable();
    Ok(names)
}

fn build(fuzz: &Path) -> Result<()> {
    let mut cargo = workspace::cargo();
    // Given a target, cargo keeps the flags away from build scripts and macros.
    cargo.current_dir(fuzz).args(["build", "--quiet", "--locked", "--release", "--target", TRIPLE]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = cargo.status().context("starting cargo")?;
    ensure!(status.success(), "building the fuzz targets failed: {status}");
    Ok(())
}

/// A target at work.
struct Running {
    target: String,
    log: PathBuf,
    child: Child,
}

#[expect(clippy::print_stdout, reason = "the figures are what was asked for")]
fn run_all(fuzz: &Path, targets: &[String], options: &Options) -> Result<bool> {
    let mut waiting: VecDeque<&String> = targets.iter().collect();
    let mut running: VecDeque<Running> = VecDeque::new();
    let mut failed = false;
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < options.at_once.max(1)
            && let Some(target) = waiting.pop_front()
        {
            running.push_back(start(fuzz, target, options.seconds)?);
        }
        // All run equally long, so the first started is the first to end.
        if let Some(mut first) = running.pop_front() {
            let status = first.child.wait()?;
            let log = std::fs::read_to_string(&first.log).unwrap_or_default();
            println!("{}", summary(&first.target, &log));
            if !status.success() {
                failed = true;
                eprintln!("{}\n{}: {status}; the input is kept in fuzz/artifacts", tail(&log), first.target);
            }
        }
    }
    Ok(failed)
}

fn start(fuzz: &Path, target: &str, seconds: u32) -> Result<Running> {
    let (found, seeds) = (fuzz.join("target/corpus").join(target), fuzz.join("corpus").join(target));
    let artifacts = fuzz.join("artifacts").join(target);
    for directory in [&found, &seeds, &artifacts] {
        std::fs::create_dir_all(directory)?;
    }
    let log = fuzz.join("target").join(format!("{target}.log"));
    let mut command = Command::new(program(fuzz, target));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).args(["-print_final_stats=1", "-max_len=4096"]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(&found).arg(&seeds);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
    let child = command.spawn().with_context(|| format!("starting {target}"))?;
    Ok(Running { target: target.to_owned(), log, child })
}

fn program(fuzz: &Path, target: &str) -> PathBuf {
    fuzz.join("target").join(TRIPLE).join("release").join(target)
}

/// Adds to the committed corpus what it does not cover yet.
fn keep(fuzz: &Path, target: &str) -> Result<()> {
    let mut command = Command::new(program(fuzz, target));
    command.args(["-merge=1", "-max_len=4096"]);
    command.arg(fuzz.join("corpus").join(target)).arg(fuzz.join("target/corpus").join(target));
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "minimising the corpus of {target} failed: {status}");
    Ok(())
}

/// One line of figures from libFuzzer's log.
fn summary(target: &str, log: &str) -> String {
    let figure = |name: &str| {
        let line = log.lines().rfind(|line| line.contains(name))?;
        line.split(name).nth(1)?.split_whitespace().next().map(str::to_owned)
    };
    let shown = |name: &str| figure(name).unwrap_or_else(|| "?".into());
    format!(
        "{target}: {} inputs, {} a second, {} edges covered, corpus {}",
        shown("stat::number_of_executed_units:"),
        shown("stat::average_exec_per_sec:"),
        shown(" cov: "),
        shown(" corp: "),
    )
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_a_line() {
        let log = "#2\tINITED cov: 12 ft: 13 corp: 1/1b\n#99\tDONE   cov: 34 ft: 50 corp: 7/90b lim: 4\n\
                   stat::number_of_executed_units: 99\nstat::average_exec_per_sec:     49\n";
        assert_eq!(summary("t", log), "t: 99 inputs, 49 a second, 34 edges covered, corpus 7/90b");
        assert_eq!(summary("t", ""), "t: ? inputs, ? a second, ? edges covered, corpus ?");
    }

    #[test]
    fn every_target_is_built_and_has_a_corpus() {
        let fuzz = workspace::root().unwrap().join("fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for target in targets(&fuzz).unwrap() {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target} is no [[bin]] of fuzz/Cargo.toml"
            );
            let seeds = fuzz.join("corpus").join(&target);
            assert!(seeds.read_dir().is_ok_and(|mut seeds| seeds.next().is_some()), "{target} has no corpus");
        }
    }
}
