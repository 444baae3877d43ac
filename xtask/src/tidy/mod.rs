//! `cargo xtask tidy`: what the compiler cannot see.
//!
//! * [`graph`]: who may depend on whom.
//! * [`symbols`]: what the hook exports and may never import; that the driver stand-ins are complete.
//! * [`sources`]: the shape of source files.
//! * [`links`]: links between documents.
//!
//! Every check gathers all its problems; each names its place and what to do. Warnings do not fail.
#![expect(clippy::print_stdout, reason = "a chore's verdict is its output")]

mod graph;
mod symbols;
mod sources;
mod links;

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

/// What the checks found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    /// Something that must be mended.
    pub(crate) fn problem(&mut self, place: impl fmt::Display, what: impl fmt::Display) {
        self.problems.push(format!("{place}: {what}"));
    }

    /// Something to look at.
    pub(crate) fn warning(&mut self, place: impl fmt::Display, what: impl fmt::Display) {
        self.warnings.push(format!("{place}: {what}"));
    }
}

/// Runs every check.
pub(crate) fn run() -> Result<ExitCode> {
    let mut findings = Findings::default();
    graph::check(&mut findings)?;
    sources::check(&mut findings)?;
    links::check(&mut findings)?;
    symbols::check(&mut findings)?;
    for warning in &findings.warnings {
        println!("warning: {warning}");
    }
    for problem in &findings.problems {
        println!("error: {problem}");
    }
    let (problems, warnings) = (findings.problems.len(), findings.warnings.len());
    println!("tidy: {problems} problems, {warnings} warnings");
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
