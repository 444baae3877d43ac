//! Memory isolation: what it costs, and whether the books are right whatever programs do.
//!
//! The costs are measured on the null driver with the stand-in daemon, as in the bench `hook`. The books are kept by
//! the real daemon over the simulated device, whose own accounting is the other side of every comparison:
//!
//! * random operations over every family of allocation against a model that only adds and subtracts;
//! * the same in eight threads of one program;
//! * random operations of which each third one fails in the driver, in any call on the way;
//! * rounds of taking and giving back;
//! * programs that race for the last byte of a quota;
//! * programs killed at random moments;
//! * a quota that shrinks below what is in use.
//!
//! Figures of the books are counts of what went wrong, and their goal is zero. What forks and `exec` do to the books is a
//! test of its own (`tests/e2e/tests/lifecycle.rs`).
//!
//! The parts `calls` and `starts` take half a minute each and want the machine to themselves; `books` takes many minutes
//! and does not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use headgate_harness::{Node, NodeOptions, TenantSpec, wait_for};

use super::hook::node::Node as Standin;
use super::stopwatch::{self, Stopwatch, Way};
use super::{Figure, Settings, Subject};
use crate::workspace::{self, Profile};

/// Most the hook may add to an allocation and its free, however many allocations live.
const PAIR_NS_MAX: f64 = 120.0;
/// Most it may add to `cuMemGetInfo`.
const MEMORY_INFO_NS_MAX: f64 = 50.0;
/// Numbers of programs that start at once. The second one's goal is the first one's, in proportion.
const STARTS: [usize; 2] = [200, 300];
/// Most the hook may add until the last of the first number has its first allocation.
const STARTS_MS_MAX: f64 = 40.0;
/// What giving a killed program's memory back may take.
const CLEANUP: Duration = Duration::from_secs(1);
/// Longest one run of random operations may take.
const CHURN_WAIT: Duration = Duration::from_secs(900);
/// What a call that is ordered to fail returns; the program expects this very code.
const FAULT: u32 = 719;
/// Threads of one program that take and give at once.
const THREADS: u64 = 8;
/// Bytes of a unit of the suite.
const UNIT: u64 = 2 << 20;

struct Effort {
    rounds: usize,
    batches: u32,
    /// Random operations, in runs of different seeds.
    churns: u64,
    operations: u64,
    /// Random operations of each of the threads of one program.
    crowd: u64,
    /// Random operations on a driver that fails.
    failing: u64,
    /// Rounds of taking and giving back.
    turns: u64,
    kills: u32,
    races: usize,
}

const FULL: Effort = Effort {
    rounds: 5,
    batches: 10_000,
    churns: 10,
    operations: 100_000,
    crowd: 10_000,
    failing: 50_000,
    turns: 10_000,
    kills: 1_000,
    races: 10,
};
const QUICK: Effort = Effort {
    rounds: 2,
    batches: 1_000,
    churns: 2,
    operations: 5_000,
    crowd: 500,
    failing: 2_000,
    turns: 500,
    kills: 20,
    races: 2,
};

type Part = fn(&Settings, &Effort) -> Result<Vec<Figure>>;

const PARTS: &[(&str, Part)] = &[("calls", calls), ("starts", starts), ("books", books)];

/// Runs the bench, or the part asked for.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let effort = if settings.quick { QUICK } else { FULL };
    let wanted = |name: &str| settings.part.as_ref().is_none_or(|part| part == name);
    let names = || PARTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let mut parts = PARTS.iter().filter(|(name, _)| wanted(name)).peekable();
    parts.peek().with_context(|| format!("there is no such part; there are: {}", names()))?;
    let mut figures = Vec::new();
    for (_, part) in parts {
        figures.extend(part(settings, &effort)?);
    }
    Ok(figures)
}

/// The null driver with the stand-in daemon, and what figures say of it.
fn costs(settings: &Settings) -> Result<(Standin, Stopwatch, Subject)> {
    let packages: Vec<&str> = stopwatch::PACKAGES.into_iter().chain(["headgate-standin"]).collect();
    let built = workspace::build(Profile::Release, &packages)?;
    let node = Standin::start(built.path("headgate-standin")?)?;
    let program = Stopwatch::new(&built, &node.daemon())?;
    let subject =
        Subject { bench: "memory", device: "null driver".to_owned(), commit: settings.commit.clone() };
    Ok((node, program, subject))
}

fn starts(settings: &Settings, effort: &Effort) -> Result<Vec<Figure>> {
    let (mut node, program, subject) = costs(settings)?;
    let (mut figures, mut goal) = (Vec::new(), STARTS_MS_MAX);
    for count in STARTS {
        // Once for nothing: the first start reads programs and libraries from disk.
        program.starts(count, true)?;
        (0..count).try_for_each(|_| node.next_to_leave().map(drop))?;
        let mut added = Vec::new();
        for _ in 0..effort.rounds {
            let without = program.starts(count, false)?;
            added.push(program.starts(count, true)? - without);
            (0..count).try_for_each(|_| node.next_to_leave().map(drop))?;
        }
        figures.push(subject.lower("added", format!("start of {count}"), "ms", Some(goal), &added)?);
        // Half as many again may take half as long again.
        goal = STARTS_MS_MAX * 1.5;
    }
    Ok(figures)
}

fn calls(settings: &Settings, effort: &Effort) -> Result<Vec<Figure>> {
    let (mut node, program, subject) = costs(settings)?;
    let wanted = [
        ("pair/0-live", PAIR_NS_MAX),
        ("pair/1000-live", PAIR_NS_MAX),
        ("pair/20000-live", PAIR_NS_MAX),
        ("cuMemGetInfo", MEMORY_INFO_NS_MAX),
    ];
    let mut added = wanted.map(|_| Vec::new());
    for _ in 0..effort.rounds {
        let without = program.calls(Way::Dlsym, effort.batches, false)?;
        let with = program.calls(Way::Dlsym, effort.batches, true)?;
        node.next_to_leave()?;
        for ((call, _), samples) in wanted.iter().zip(&mut added) {
            let cost = |calls: &stopwatch::Calls| calls.calls.get(*call).map(|cost| cost.p50_ns);
            let (without, with) = cost(&without).zip(cost(&with)).with_context(|| format!("no {call}"))?;
            samples.push(with - without);
        }
    }
    let figure = |((call, goal), samples): ((&str, f64), Vec<f64>)| {
        subject.lower("added", call, "ns", Some(goal), &samples)
    };
    wanted.into_iter().zip(added).map(figure).collect()
}

fn books(settings: &Settings, effort: &Effort) -> Result<Vec<Figure>> {
    let built = workspace::build(Profile::Dev, &["headgate-conformance"])?;
    let suite = Suite { program: built.path("conform")? };
    let subject =
        Subject { bench: "memory", device: "simulated".to_owned(), commit: settings.commit.clone() };
    let zero =
        |figure, case: String, unit, samples: &[f64]| subject.lower(figure, case, unit, Some(0.0), samples);
    let total = effort.churns * effort.operations;
    Ok(vec![
        zero("drift", format!("{total} operations, every family"), "bytes", &suite.churn(effort)?)?,
        zero(
            "drift",
            format!("{} operations of {THREADS} threads", effort.crowd * THREADS),
            "bytes",
            &suite.crowd(effort)?,
        )?,
        zero(
            "drift",
            format!("{} operations, each third fails", effort.failing),
            "bytes",
            &suite.fail(effort)?,
        )?,
        zero("left behind", format!("{} rounds", effort.turns), "bytes", &suite.turns(effort)?)?,
        zero("wrongly shared", "8 programs, last byte".to_owned(), "units", &suite.race(effort)?)?,
        zero("left behind", format!("{} kills", effort.kills), "bytes", &suite.kill(effort)?)?,
        zero("taken away", "quota below use".to_owned(), "bytes", &suite.shrink()?)?,
    ])
}

/// The conformance suite's program.
struct Suite<'a> {
    program: &'a Path,
}

/// Programs that hold what they took. None outlives this value.
struct Crowd(Vec<(Child, BufReader<ChildStdout>)>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("bench: ending a program: {error}");
            }
        }
    }
}

impl Suite<'_> {
    fn node(quota: &str) -> Result<Node> {
        Node::start(NodeOptions::simulated(vec![TenantSpec::new("bench").memory(quota)]))
    }

    /// Drift of each run, in bytes. A program that is refused what fits, or given what does not, fails.
    fn churn(&self, effort: &Effort) -> Result<Vec<f64>> {
        let node = Self::node("128Mi")?;
        let mut drifts = Vec::new();
        for seed in 1..=effort.churns {
            let mut command = node.command("bench", self.program)?;
            command.args(["churn", &effort.operations.to_string(), &seed.to_string()]);
            let outcome = headgate_harness::Program::start("churn", &mut command)?.finish(CHURN_WAIT)?;
            ensure!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
            drifts.push(bytes(used(&node)?));
        }
        Ok(drifts)
    }

    /// Drift of threads that take and give at once, in bytes.
    fn crowd(&self, effort: &Effort) -> Result<Vec<f64>> {
        let node = Self::node("128Mi")?;
        let mut command = node.command("bench", self.program)?;
        command.args(["crowd", &THREADS.to_string(), &effort.crowd.to_string(), "1"]);
        let outcome = headgate_harness::Program::start("crowd", &mut command)?.finish(CHURN_WAIT)?;
        ensure!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
        Ok(vec![bytes(used(&node)?)])
    }

    /// Drift on a driver of which every third call on the way fails. The program checks, too, that it is told the driver's
    /// own code and that what is free is as before.
    fn fail(&self, effort: &Effort) -> Result<Vec<f64>> {
        let node = Self::node("64Mi")?;
        let mut command = node.command("bench", self.program)?;
        command
            .args(["chaos", &effort.failing.to_string(), "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("starting the failing operations")?;
        let pid = child.id();
        let mut orders = child.stdin.take().context("its input is a pipe")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut crowd = Crowd(vec![(child, BufReader::new(output))]);
        let (mut line, mut asked, mut failures) = (String::new(), 0u64, 0u64);
        let Some((child, output)) = crowd.0.first_mut() else { bail!("nothing was started") };
        while output.read_line(&mut line)? != 0 {
            let call = line.trim_end();
            asked += u64::from(call != "-");
            let fails = call != "-" && asked.is_multiple_of(3);
            if fails {
                node.device().control().inject_fault(call, FAULT, 1, Some(pid))?;
                failures += 1;
            }
            // A program that has found something wrong listens no more, and says so itself.
            if writeln!(orders, "{}", if fails { "fails" } else { "works" }).is_err() {
                break;
            }
            line.clear();
        }
        drop(orders);
        ensure!(child.wait()?.success(), "the program found something wrong; its message is above");
        ensure!(effort.failing / 10 < failures, "only {failures} failures");
        Ok(vec![bytes(used(&node)?)])
    }

    /// Bytes still charged after so many rounds of taking and giving back.
    fn turns(&self, effort: &Effort) -> Result<Vec<f64>> {
        let node = Self::node("128Mi")?;
        let mut command = node.command("bench", self.program)?;
        command.args(["turns", &effort.turns.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting the rounds")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut crowd = Crowd(vec![(child, BufReader::new(output))]);
        let mut line = String::new();
        for (_, output) in &mut crowd.0 {
            output.read_line(&mut line)?;
        }
        // It still lives: nothing was given back by its end.
        ensure!(line.trim() == format!("turned {}", effort.turns), "the program said {line:?}");
        Ok(vec![bytes(used(&node)?)])
    }

    /// Units by which what the racers took together differs from the quota.
    fn race(&self, effort: &Effort) -> Result<Vec<f64>> {
        const RACERS: usize = 8;
        const UNITS: u64 = 128;
        let node = Self::node("256Mi")?;
        let mut wrong = Vec::new();
        for _ in 0..effort.races {
            let mut crowd = Crowd(Vec::new());
            for _ in 0..RACERS {
                crowd.0.push(self.hog(&node)?);
            }
            let mut taken = 0;
            for (_, output) in &mut crowd.0 {
                taken += took(output)?;
            }
            ensure!(used(&node)? == taken * UNIT, "the ledger differs from what the programs took");
            wrong.push(bytes(taken.abs_diff(UNITS)));
            drop(crowd);
            ensure!(empty(&node), "killed programs still hold memory after {CLEANUP:?}");
        }
        Ok(wrong)
    }

    /// Bytes still held a second after each kill.
    fn kill(&self, effort: &Effort) -> Result<Vec<f64>> {
        let node = Self::node("256Mi")?;
        let mut left = Vec::new();
        for kill in 0..effort.kills {
            let mut command = node.command("bench", self.program)?;
            let mut victim = command.args(["loop", &kill.to_string()]).stdout(Stdio::null()).spawn()?;
            // A different moment of its life each time: from its start to well into its work.
            let moment = Duration::from_micros(u64::from(kill.wrapping_mul(7_919) % 60_000));
            let ended = wait_for(moment, || victim.try_wait().transpose());
            ensure!(ended.is_none(), "the program ended by itself: {ended:?}");
            victim.kill()?;
            victim.wait()?;
            left.push(if empty(&node) { 0.0 } else { bytes(used(&node)?) });
        }
        Ok(left)
    }

    /// Bytes that a program loses when its quota shrinks below what it uses.
    fn shrink(&self) -> Result<Vec<f64>> {
        let mut node = Self::node("256Mi")?;
        let mut crowd = Crowd(vec![self.hog(&node)?]);
        let held = match crowd.0.first_mut() {
            Some((_, output)) => took(output)? * UNIT,
            None => 0,
        };
        node.set_tenants(vec![TenantSpec::new("bench").memory("64Mi")])?;
        let seen = wait_for(Duration::from_secs(5), || {
            let quota = row(&node).ok()?["memory_quota_bytes"].as_u64()?;
            (quota == 64 << 20).then_some(())
        });
        seen.context("the daemon did not take the smaller quota within 5 s")?;
        let standing = row(&node)?;
        ensure!(standing["status"] == "Throttled", "the status does not say so: {standing}");
        // Somebody new is refused at once.
        let mut late = Crowd(vec![self.hog(&node)?]);
        for (_, output) in &mut late.0 {
            ensure!(took(output)? == 0, "a program was given memory beyond the smaller quota");
        }
        Ok(vec![bytes(held.abs_diff(used(&node)?))])
    }

    fn hog(&self, node: &Node) -> Result<(Child, BufReader<ChildStdout>)> {
        let mut command = node.command("bench", self.program)?;
        command.args(["hog", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a hog")?;
        let output = child.stdout.take().context("the hog's output is a pipe")?;
        Ok((child, BufReader::new(output)))
    }
}

fn took(output: &mut BufReader<ChildStdout>) -> Result<u64> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    let count = line.trim().strip_prefix("took ").with_context(|| format!("the hog said {line:?}"))?;
    Ok(count.parse()?)
}

fn row(node: &Node) -> Result<serde_json::Value> {
    Ok(node.status()?["tenants"][0]["gpus"][0].clone())
}

fn used(node: &Node) -> Result<u64> {
    row(node)?["memory_used_bytes"].as_u64().context("the status shows no memory in use")
}

fn empty(node: &Node) -> bool {
    wait_for(CLEANUP, || used(node).is_ok_and(|used| used == 0).then_some(())).is_some()
}

/// Sizes and counts here are far below 2^52, so a float holds them exactly.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn bytes(count: u64) -> f64 {
    count as f64
}
