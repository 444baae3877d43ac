//! Parts that misbehave, for the test of the runner.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigHandler, Signal};

use crate::clock;
use crate::kit::Kit;
use crate::record::Recorder;

/// Finds something and never ends.
pub(super) fn hang(_kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    recorder.fact("found", "before it hung")?;
    loop {
        clock::pause(Duration::from_secs(1));
    }
}

/// Finds something and dies of a signal.
pub(super) fn crash(_kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    recorder.fact("found", "before it crashed")?;
    nix::sys::signal::raise(Signal::SIGKILL).context("raising a signal")?;
    Ok(None)
}

/// Prints without end.
pub(super) fn flood(_kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    recorder.fact("found", "before the flood")?;
    let line = "a line that nobody will read\n".repeat(1_000);
    loop {
        std::io::stdout().write_all(line.as_bytes())?;
        std::io::stderr().write_all(line.as_bytes())?;
    }
}

/// Does not listen when asked to end, nor does what it started.
pub(super) fn deaf(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    #[expect(unsafe_code, reason = "ignoring a signal is what this part is for")]
    // SAFETY: no handler runs; the signal is ignored, and children inherit that.
    unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::SigIgn) }.context("ignoring SIGTERM")?;
    let child = Command::new("sleep").arg("1000").spawn().context("starting sleep")?;
    recorder.fact("child", child.id())?;
    hang(kit, recorder)
}

/// Ends well and leaves a process behind, in a process group of its own.
pub(super) fn orphan(_kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let script = "set -m; sleep 1000 & echo $!";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut shell = command.spawn().context("starting sh")?;
    shell.wait().context("waiting for sh")?;
    let mut text = String::new();
    // Only the first line: the orphan keeps the pipe open.
    let pipe = shell.stdout.take().context("its output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(pipe), &mut text)?;
    recorder.fact("child", text.trim().parse::<u32>().context("a process id")?)?;
    Ok(None)
}
