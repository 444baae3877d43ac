//! The runner: one process per part, each with its share of the time.
//!
//! ```text
//! begun --> ended by itself -------------------------------> its own verdict
//!       \-> time is up -> TERM to its session -> 5 s -> KILL -> timed out, what it had written is kept
//!       \-> ended without a verdict -----------------------> crashed, likewise
//! ```
//!
//! A part runs in a session of its own, so that whatever it started can be found and ended even if the part itself is gone.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::kit::{Kit, tail};
use crate::parts::{self, Part};
use crate::record::{PartResult, Status, write_json};
use crate::{clock, features, summary};

/// Between asking a part to end and ending it.
const GRACE: Duration = Duration::from_secs(5);
/// Kept of what a part prints: a part that fills its output fills neither memory nor disk.
const OUTPUT_MAX: usize = 256 * 1024;
/// Held back of the whole time, for writing results and ending what is left.
const RESERVE: Duration = Duration::from_secs(15);

/// Options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Time for all parts together.
    #[arg(long, default_value_t = 9.0, value_parser = minutes)]
    minutes: f64,
    /// Runs this part only; may be given several times. Without it, every part.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where results go: three files. Default: the folder that the environment variable OUT names, else kit-results.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Runs on the simulated device, which comes with the kit. What needs NVIDIA's own software is skipped.
    #[arg(long)]
    simulated: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    (0.1..=600.0).contains(&minutes).then_some(minutes).ok_or_else(|| "between 0.1 and 600".to_owned())
}

/// Runs the parts.
///
/// # Errors
/// When nothing can be run: the kit is incomplete or results cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    let start = clock::now();
    let kit = Kit::of_this_program(options.simulated)?;
    let out = options.out.clone().or_else(|| std::env::var_os("OUT").map(PathBuf::from));
    let out = out.unwrap_or_else(|| "kit-results".into());
    let chosen = choose(&options.only)?;
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let deadline = start
        + Duration::from_secs_f64(options.minutes * 60.0).saturating_sub(RESERVE).max(Duration::from_secs(3));
    let mut whole = json!({
        "kit": kit.facts()?,
        "simulated": kit.simulated,
        "unix_seconds": clock::unix_seconds(),
        "minutes": options.minutes,
        "machine": features::survey(),
        "parts": [],
    });
    announce(&whole);
    let mut results: Vec<PartResult> = Vec::new();
    for (index, part) in chosen.iter().enumerate() {
        let share = share(deadline, &chosen[index..]);
        eprintln!("== {}: {} (up to {:.0} s)", part.name, part.about, share.as_secs_f64());
        // The driver comes first: without one, more time would not help.
        let obstacle = part.missing_driver(&kit).or_else(|| {
            (share < part.least && options.only.is_empty()).then(|| {
                format!("{:.0} s are left; it needs {} s", share.as_secs_f64(), part.least.as_secs())
            })
        });
        let result = match obstacle {
            Some(why) => {
                let mut result = PartResult::begun(part.name, kit.simulated);
                result.status = Status::Skipped;
                result.why = why;
                result
            }
            None => run_part(&kit, part, share, &out)?,
        };
        eprintln!("   {} after {:.1} s {}", result.status.word(), result.seconds, result.why);
        for problem in &result.problems {
            eprintln!("   PROBLEM: {problem}");
        }
        results.push(result);
        whole["parts"] = serde_json::to_value(&results)?;
        // After every part, so that the machine may be taken away at any time.
        write_json(&out.join("results.json"), &whole)?;
        std::fs::write(out.join("summary.md"), summary::page(&whole, &results))?;
    }
    eprintln!("{}", summary::table(&results));
    eprintln!("results: {}", out.display());
    let good = results.iter().all(|result| matches!(result.status, Status::Passed | Status::Skipped));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose(only: &[String]) -> Result<Vec<&'static Part>> {
    if only.is_empty() {
        return Ok(parts::PARTS.iter().filter(|part| !part.hidden).collect());
    }
    only.iter()
        .map(|name| {
            let found = parts::PARTS.iter().find(|part| part.name == name);
            found.with_context(|| {
                let names: Vec<&str> =
                    parts::PARTS.iter().filter(|part| !part.hidden).map(|part| part.name).collect();
                format!("there is no part {name}; there are {}", names.join(", "))
            })
        })
        .collect()
}

/// What the machine lacks, said before anything runs.
fn announce(whole: &Value) {
    let what =
        if whole["simulated"] == true { "the SIMULATED device" } else { "this machine's NVIDIA driver" };
    eprintln!("Headgate kit, commit {}, on {what}", whole["kit"]["commit"].as_str().unwrap_or("unknown"));
    for (name, state) in whole["machine"].as_object().into_iter().flatten() {
        if let Some(why) = state.as_str().filter(|_| !matches!(name.as_str(), "kernel" | "driver")) {
            eprintln!("   this machine lacks {name}: {why}");
        }
    }
}

/// A part's share of what is left, by its weight among those that are still to run.
fn share(deadline: Instant, rest: &[&Part]) -> Duration {
    let left = deadline.saturating_duration_since(clock::now());
    let weights: u32 = rest.iter().map(|part| part.weight).sum();
    left * rest[0].weight / weights.max(1)
}

fn run_part(kit: &Kit, part: &Part, time: Duration, out: &Path) -> Result<PartResult> {
    let file = out.join("part.json");
    write_json(&file, &serde_json::to_value(PartResult::begun(part.name, kit.simulated))?)?;
    let mut command = Command::new(std::env::current_exe().context("asking where this program is")?);
    command.args(["part", part.name, "--file"]).arg(&file).arg("--seconds");
    // A little less than it gets: a part that minds its time ends by itself.
    command.arg((time.as_secs_f64() * 0.94).to_string());
    if kit.simulated {
        command.arg("--simulated");
    }
    let start = clock::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting the part {}", part.name))?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let readers = [
        pipes.0.map(|pipe| std::thread::spawn(move || keep_end(pipe))),
        pipes.1.map(|pipe| std::thread::spawn(move || keep_end(pipe))),
    ];
    let status = wait(&mut child, start + time)?;
    let timed_out = status.is_none();
    // Also after an end of its own accord: what it left behind would disturb the parts that follow.
    end_session(&mut child, if timed_out { GRACE } else { Duration::ZERO })?;
    let log: Vec<String> =
        readers.into_iter().flatten().map(|reader| reader.join().unwrap_or_default()).collect();
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut result: PartResult = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
    remove_cgroups(child.id());
    result.seconds = start.elapsed().as_secs_f64();
    result.log = tail(&log.join("\n")).to_owned();
    if result.status == Status::Running {
        result.status = if timed_out { Status::TimedOut } else { Status::Crashed };
        result.why = match status {
            None => format!("did not end within {:.0} s; what it had found is kept", time.as_secs_f64()),
            Some(status) => format!("ended without a verdict: {status}"),
        };
    }
    Ok(result)
}

/// Waits until the child ends; `None` when the deadline comes first.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("waiting for a part")? {
            return Ok(Some(status));
        }
        if deadline <= clock::now() {
            return Ok(None);
        }
        clock::pause(Duration::from_millis(20));
    }
}

/// What a part does first: a session of its own, that ends with the runner.
///
/// # Errors
/// When the kernel refuses either.
pub fn become_part() -> Result<()> {
    nix::unistd::setsid().context("making a session")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("asking to end with the runner")?;
    Ok(())
}

/// Ends every process of a part's session: asks, waits, kills until none is left.
fn end_session(child: &mut Child, grace: Duration) -> Result<()> {
    const KILLING: Duration = Duration::from_secs(20);
    let session = child.id();
    let asked = clock::now();
    let mut signal = if grace.is_zero() { Signal::SIGKILL } else { Signal::SIGTERM };
    let mut sent = None;
    loop {
        // Reaped, so that its number is not taken for a living member of the session.
        child.try_wait().context("reaping a part")?;
        let members = members(session);
        if members.is_empty() {
            return Ok(());
        }
        if grace <= asked.elapsed() {
            signal = Signal::SIGKILL;
        }
        if sent != Some(signal) || signal == Signal::SIGKILL {
            for member in &members {
                // It may be gone by now, which is what is wanted.
                let _gone = kill(Pid::from_raw(*member), signal);
            }
            sent = Some(signal);
        }
        if grace + KILLING < asked.elapsed() {
            bail!(
                "processes {members:?} of a part cannot be killed; look at `ps -o pid,stat,wchan` and dmesg"
            );
        }
        clock::pause(Duration::from_millis(20));
    }
}

/// Processes of a session that are not zombies.
fn members(session: u32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name may hold anything; what follows its last parenthesis is state, parent, group, session.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let belongs = fields.get(3)?.parse() == Ok(session) && !matches!(*fields.first()?, "Z" | "X");
            belongs.then_some(pid)
        })
        .collect()
}

/// Removes the cgroups that a part which was killed could not remove itself. The kernel may need a moment.
fn remove_cgroups(pid: u32) {
    let Some(root) = headgate_harness::node::cgroup_root() else { return };
    let prefix = format!("headgate-test-{pid}-");
    let tops = std::fs::read_dir(root).into_iter().flatten().flatten();
    for top in tops.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        for _ in 0..50 {
            for inner in std::fs::read_dir(top.path()).into_iter().flatten().flatten() {
                // Files of the cgroup refuse, and a cgroup that is still busy: both are looked at again.
                let _busy = std::fs::remove_dir(inner.path());
            }
            if std::fs::remove_dir(top.path()).is_ok() {
                break;
            }
            clock::pause(Duration::from_millis(20));
        }
    }
}

/// Reads a pipe to its end and keeps the last part of it.
fn keep_end(mut pipe: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&kept).into_owned(),
            Ok(count) => kept.extend_from_slice(&buffer[..count]),
        }
        if 2 * OUTPUT_MAX < kept.len() {
            kept.drain(..kept.len() - OUTPUT_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_flood_is_kept() {
        let flood = std::io::repeat(b'x').take(3 * OUTPUT_MAX as u64).chain(&b"the end"[..]);
        let kept = keep_end(flood);
        assert!(kept.len() <= 2 * OUTPUT_MAX + 64 * 1024 && kept.ends_with("the end"));
    }

    #[test]
    fn this_process_is_in_its_session() {
        let session = u32::try_from(nix::unistd::getsid(None).unwrap().as_raw()).unwrap();
        assert!(members(session).contains(&i32::try_from(std::process::id()).unwrap()));
    }

    #[test]
    fn hidden_parts_run_by_name_only() {
        assert!(choose(&[]).unwrap().iter().all(|part| !part.hidden));
        assert!(choose(&["torture-hang".to_owned()]).unwrap()[0].hidden);
        assert!(choose(&["nonsense".to_owned()]).unwrap_err().to_string().contains("constants"));
    }
}
