//! Chores that only start other programs.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};

use crate::workspace;

/// `.ci/run`: one script, so that what a change must pass is the same everywhere.
pub(crate) fn ci() -> Result<ExitCode> {
    let script = workspace::root()?.join(".ci/run");
    let status = Command::new(&script).status().with_context(|| format!("starting {}", script.display()))?;
    Ok(code(status))
}

/// API documentation, private items included: the modules' own pages are what a newcomer reads.
pub(crate) fn docs(open: bool) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    // Links to private items are fine where private items are documented.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    if open {
        command.arg("--open");
    }
    Ok(code(command.status().context("starting cargo doc")?))
}

/// The protocols of shared memory, the ledger's and that of rings, under every order of their steps: the tests that the
/// model checker runs, in a build and a directory of their own, because its atomics are not the processor's. Optimised,
/// as it tries millions of orders.
pub(crate) fn loom() -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--package", "headgate-abi", "--package", "headgate-remote"]);
    command.args(["--lib", "interleavings"]);
    command.arg("--target-dir").arg(workspace::root()?.join("target/loom"));
    command.env("RUSTFLAGS", "--cfg loom");
    Ok(code(command.status().context("starting cargo test")?))
}

/// The exit code of a program; one that died of a signal counts as failed.
fn code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
