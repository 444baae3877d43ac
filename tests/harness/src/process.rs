//! Child processes that do not outlive what started them.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait_for;

/// A started program. Killed, with its output read, when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Program {
    /// Starts a command with its output kept for [`Program::finish`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as_is(name, command)
    }

    /// Starts a command with its output wherever the command says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_as_is(name: &str, command: &mut Command) -> Result<Self> {
        die_with_parent(command);
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself and gives its status and output.
    ///
    /// # Errors
    /// When it does not end within `patience`; it is killed then, and the error holds what it wrote.
    pub fn finish(mut self, patience: Duration) -> Result<Outcome> {
        let mut stdout = self.child.stdout.take();
        let mut stderr = self.child.stderr.take();
        // Pipes are read while waiting: a program that fills one would never end.
        std::thread::scope(|scope| {
            let out = scope.spawn(move || drain(stdout.as_mut()));
            let err = scope.spawn(move || drain(stderr.as_mut()));
            let status = wait_for(patience, || self.child.try_wait().ok().flatten());
            if status.is_none() {
                self.kill()?;
            }
            let stdout = out.join().unwrap_or_default();
            let stderr = err.join().unwrap_or_default();
            match status {
                Some(status) => Ok(Outcome { status, stdout, stderr }),
                None => {
                    bail!("{} did not end within {patience:?}\nstdout: {stdout}\nstderr: {stderr}", self.name)
                }
            }
        })
    }
}

impl Outcome {
    /// Standard output as one JSON value.
    ///
    /// # Errors
    /// When the program failed or wrote something else; the error holds all it wrote.
    pub fn json(&self) -> Result<serde_json::Value> {
        if !self.status.success() {
            bail!("{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        }
        serde_json::from_str(self.stdout.trim())
            .with_context(|| format!("not JSON: {}\nstderr: {}", self.stdout, self.stderr))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_running() {
            // It may end between the look and the kill; either way it is gone afterwards.
            let _killed = self.kill();
        }
    }
}

fn drain(pipe: Option<&mut impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read before an error is still worth showing.
        let _read = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[expect(unsafe_code, reason = "pre_exec is the only way to set the parent-death signal")]
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure only makes an async-signal-safe system call.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from));
    }
}
