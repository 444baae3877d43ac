//! Runs the measuring program `headgate-stopwatch` on the null driver, with and without the hook, and reads what it
//! says.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::clock;
use crate::workspace::Artifacts;

/// How the program finds entry points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Dlsym,
    GetProcAddress,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Dlsym, Self::GetProcAddress];

    /// The program's word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Dlsym => "dlsym",
            Self::GetProcAddress => "proc",
        }
    }
}

/// What one call costs, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
}

/// What one run of the program said.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) calls: BTreeMap<String, Cost>,
    origins: Vec<(String, String)>,
    memory_total: Option<u64>,
}

impl Calls {
    /// Launches a run of so many batches makes at least: a hundred a batch of either kind.
    pub(crate) fn launches(&self, batches: u32) -> u64 {
        let kinds = self.calls.keys().filter(|call| call.starts_with("cuLaunch")).count();
        kinds as u64 * u64::from(batches) * 100
    }
}

/// The packages a stopwatch needs built.
pub(crate) const PACKAGES: [&str; 3] = ["headgate-hook", "headgate-nulldriver", "headgate-stopwatch"];

/// The daemon that programs under the hook find.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// Its control socket.
    pub(crate) socket: PathBuf,
    /// The memory quota it gives them.
    pub(crate) quota_bytes: u64,
}

/// The program and what it runs on.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    program: PathBuf,
    hook: PathBuf,
    daemon: Daemon,
    /// Holds the null driver under the name programs load it by.
    libraries: tempfile::TempDir,
}

impl Stopwatch {
    /// The program on the null driver, and the hook with the daemon it is to find.
    pub(crate) fn new(built: &Artifacts, daemon: &Daemon) -> Result<Self> {
        let libraries = tempfile::tempdir().context("making a directory for the null driver")?;
        let driver = built.path("headgate_nullcuda")?;
        symlink(driver, libraries.path().join("libcuda.so.1")).context("linking the null driver")?;
        Ok(Self {
            program: built.path("headgate-stopwatch")?.into(),
            hook: built.path("headgate_hook")?.into(),
            daemon: daemon.clone(),
            libraries,
        })
    }

    fn command(&self, hooked: bool) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", self.libraries.path()).env_remove("LD_PRELOAD");
        if hooked {
            command.env("LD_PRELOAD", &self.hook).env("HEADGATE_SOCKET", &self.daemon.socket);
        }
        command
    }

    /// Times calls once.
    pub(crate) fn calls(&self, way: Way, batches: u32, hooked: bool) -> Result<Calls> {
        let output = self
            .command(hooked)
            .args(["calls", way.word(), &batches.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("starting the stopwatch")?;
        ensure!(output.status.success(), "the stopwatch failed: {}", output.status);
        let calls = parse(&String::from_utf8(output.stdout)?)?;
        self.check(&calls, hooked)?;
        Ok(calls)
    }

    /// The functions come from where they should, and the program sees what it should.
    fn check(&self, calls: &Calls, hooked: bool) -> Result<()> {
        let wanted = if hooked { &self.hook } else { &self.libraries.path().join("libcuda.so.1") };
        for (function, library) in &calls.origins {
            ensure!(
                Path::new(library) == wanted,
                "{function} comes from {library}, not from {}",
                wanted.display()
            );
        }
        ensure!(!calls.origins.is_empty(), "the stopwatch did not say where its functions come from");
        let total = calls.memory_total.context("the stopwatch did not say how much memory it sees")?;
        ensure!(
            (total == self.daemon.quota_bytes) == hooked,
            "the program sees {total} bytes of memory {} the hook; its quota is {}",
            if hooked { "under" } else { "without" },
            self.daemon.quota_bytes
        );
        Ok(())
    }

    /// Starts `count` programs at once; the milliseconds until the last one has its first allocation.
    pub(crate) fn starts(&self, count: usize, hooked: bool) -> Result<f64> {
        let (gate, hold) = std::io::pipe().context("making the starting gate")?;
        let mut crowd = Crowd(Vec::with_capacity(count));
        for _ in 0..count {
            let mut child = self
                .command(hooked)
                .arg("start")
                .stdin(gate.try_clone().context("sharing the starting gate")?)
                .stdout(Stdio::piped())
                .spawn()
                .context("starting a stopwatch")?;
            let output = child.stdout.take().context("the stopwatch's output is a pipe")?;
            crowd.0.push((child, BufReader::new(output)));
        }
        drop(gate);
        for (_, output) in &mut crowd.0 {
            let line = line(output)?;
            ensure!(line == "ready", "the stopwatch said `{line}` instead of `ready`");
        }
        let start = clock::now_ns()?;
        drop(hold);
        let mut last = start;
        for (_, output) in &mut crowd.0 {
            let line = line(output)?;
            let done = line.strip_prefix("done ").with_context(|| format!("the stopwatch said `{line}`"))?;
            last = last.max(done.parse().with_context(|| format!("the stopwatch said `{line}`"))?);
        }
        crowd.leave()?;
        // Whole nanoseconds of at most seconds: exact in a float.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let elapsed_ms = (last - start) as f64 / 1e6;
        Ok(elapsed_ms)
    }
}

/// Programs under way. None outlives this value.
struct Crowd(Vec<(Child, BufReader<ChildStdout>)>);

impl Crowd {
    /// Stops listening, which is what the programs wait for, and sees that all end well.
    fn leave(mut self) -> Result<()> {
        for (mut child, output) in self.0.drain(..) {
            drop(output);
            let status = child.wait().context("waiting for a stopwatch")?;
            ensure!(status.success(), "a stopwatch failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            // Already on the way out with an error; a child that has gone by itself is as good.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("bench: ending a stopwatch: {error}");
            }
        }
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    let count = output.read_line(&mut line).context("reading from a stopwatch")?;
    ensure!(count != 0, "a stopwatch ended before it was done; its message is above");
    Ok(line.trim_end().to_owned())
}

fn parse(text: &str) -> Result<Calls> {
    let mut calls = Calls::default();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["from", function, library] => calls.origins.push((function.to_owned(), library.to_owned())),
            ["memory_total", bytes] => calls.memory_total = Some(bytes.parse()?),
            ["call", name, "p50", p50, "p99", p99] => {
                let cost = Cost { p50_ns: p50.parse()?, p99_ns: p99.parse()? };
                calls.calls.insert(name.to_owned(), cost);
            }
            _ => bail!("the stopwatch said `{line}`, which is not understood"),
        }
    }
    ensure!(!calls.calls.is_empty(), "the stopwatch timed nothing");
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_says_is_read() {
        let said = "from cuMemFree /x/libcuda.so.1\nmemory_total 7\ncall pair/0-live p50 1.500 p99 2.000\n";
        let calls = parse(said).unwrap();
        assert_eq!(calls.memory_total, Some(7));
        assert!((calls.calls["pair/0-live"].p99_ns - 2.0).abs() < f64::EPSILON);
        assert_eq!(calls.origins, [("cuMemFree".to_owned(), "/x/libcuda.so.1".to_owned())]);
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(parse("").is_err());
        assert!(parse("call x p50 fast p99 2").is_err());
        assert!(parse("hello").is_err());
    }
}
