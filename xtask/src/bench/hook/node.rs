//! The hook's daemon: `headgate-standin`, which answers hellos and does nothing else.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::bench::stopwatch::Daemon;

/// What the seat of an ended session had counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(super) launches: u64,
    pub(super) batches: u64,
}

/// A running stand-in. Ends with this value.
#[derive(Debug)]
pub(crate) struct Node {
    directory: tempfile::TempDir,
    child: Child,
    said: BufReader<ChildStdout>,
    memory_bytes: u64,
}

impl Node {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the socket")?;
        let mut child = Command::new(program)
            .arg(socket_in(directory.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let said = BufReader::new(child.stdout.take().context("the stand-in's output is a pipe")?);
        let mut node = Self { directory, child, said, memory_bytes: 0 };
        let line = node.line()?;
        let bytes = line.strip_prefix("listening ").with_context(|| format!("the stand-in said `{line}`"))?;
        node.memory_bytes = bytes.parse().with_context(|| format!("the stand-in said `{line}`"))?;
        Ok(node)
    }

    pub(crate) fn daemon(&self) -> Daemon {
        Daemon { socket: socket_in(self.directory.path()), quota_bytes: self.memory_bytes }
    }

    /// Waits for one session to end; what its seat had counted.
    pub(crate) fn next_to_leave(&mut self) -> Result<Counts> {
        let line = self.line()?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["left", launches, batches] => {
                Ok(Counts { launches: launches.parse()?, batches: batches.parse()? })
            }
            _ => anyhow::bail!("the stand-in said `{line}`, which is not understood"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let count = self.said.read_line(&mut line).context("reading from the stand-in daemon")?;
        ensure!(count != 0, "the stand-in daemon ended; its message is above");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The end of its standard input ends it.
        drop(self.child.stdin.take());
        match self.child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("bench: the stand-in daemon ended with {status}"),
            Err(error) => eprintln!("bench: waiting for the stand-in daemon: {error}"),
        }
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}
