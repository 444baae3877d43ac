//! The real daemon and hook on the simulated device.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, wait_for, workspace};
use serde_json::{Value, json};

use super::{SHARE_POINTS_MAX, SPLITS, TOTAL_MIN, named};
use crate::bench::{Figure, Settings, Subject};
use crate::clock::now_ns;

/// Longest wait for a program to launch.
const LAUNCH_WAIT: Duration = Duration::from_secs(20);
/// Length of kernels in the sweep, in microseconds; shorter ones measure this machine's processors.
const KERNELS_US: [u64; 4] = [50, 500, 5_000, 50_000];
/// Clock ticks of `/proc/PID/stat` in a second.
const TICKS_PER_S: f64 = 100.0;

/// E1: splits, with kernels of half a millisecond.
pub(super) fn splits(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for split in SPLITS {
        shares(settings, subject, split, 500, &mut figures)?;
    }
    Ok(figures)
}

/// E2: lengths of kernels, at 30/70.
pub(super) fn kernels(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kernel_us in KERNELS_US {
        shares(settings, subject, SPLITS[0], kernel_us, &mut figures)?;
    }
    Ok(figures)
}

fn shares(
    settings: &Settings,
    subject: &Subject,
    split: &[u32],
    kernel_us: u64,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let (span, runs) = spans(settings);
    let load = Load::start(split, kernel_us, &[])?;
    let (mut errors, mut totals) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let shares = load.shares(span)?;
        let off = |(share, cap): (&f64, &u32)| (share - f64::from(*cap)).abs();
        errors.push(shares.iter().zip(split).map(off).fold(0.0, f64::max));
        totals.push(shares.iter().sum::<f64>() / 100.0);
    }
    let case = format!("{}, {kernel_us} us kernels, {} s", named(split), span.as_secs());
    figures.push(subject.lower("share error", case.clone(), "points", Some(SHARE_POINTS_MAX), &errors)?);
    figures.push(subject.higher("total of solo", case, "ratio", Some(TOTAL_MIN), &totals)?);
    Ok(())
}

/// E4 and the lone rows: a tenant by itself, held to its share, lent the rest, and at 100 % against no Headgate.
pub(super) fn alone(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let (span, runs) = spans(settings);
    let mut figures = Vec::new();
    let hard = Load::start(&[30], 500, &["mode: hard"])?;
    let shares: Vec<f64> = (0..runs).map(|_| Ok(hard.shares(span)?[0])).collect::<Result<_>>()?;
    let errors: Vec<f64> = shares.iter().map(|share| (share - 30.0).abs()).collect();
    figures.push(subject.lower("share error", "hard 30 %, alone", "points", Some(1.5), &errors)?);
    drop(hard);
    let lone = Load::start(&[30], 500, &[])?;
    let shares: Vec<f64> = (0..runs).map(|_| Ok(lone.shares(span)?[0] / 100.0)).collect::<Result<_>>()?;
    figures.push(subject.higher("lone borrower of solo", "500 us kernels", "ratio", Some(0.98), &shares)?);
    drop(lone);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..2 * runs {
        // With and without by turns, and each first as often as last.
        for governed in if round % 2 == 0 { [true, false] } else { [false, true] } {
            let load = if governed { Load::start(&[100], 500, &[])? } else { Load::native(500)? };
            let share = load.shares(span / 4)?[0];
            if governed { with.push(share) } else { without.push(share) }
        }
    }
    let slower: Vec<f64> =
        with.iter().zip(&without).map(|(with, without)| (1.0 - with / without) * 100.0).collect();
    figures.push(subject.lower(
        "slower than without",
        "alone at 100 %, 500 us kernels",
        "%",
        Some(0.3),
        &slower,
    )?);
    Ok(figures)
}

/// E9: processor time of the daemon.
pub(super) fn daemon(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let (span, runs) = spans(settings);
    let mut figures = Vec::new();
    for (tenants, goal) in [(0, 1.0), (1, 20.0), (8, 20.0)] {
        let mut load = Load::start(&vec![12; tenants], 2_000, &[])?;
        let percent: Vec<f64> = (0..runs).map(|_| load.daemon_percent(span)).collect::<Result<_>>()?;
        let case = if tenants == 0 { "idle".to_owned() } else { format!("{tenants} busy tenants") };
        figures.push(subject.lower("daemon's processor time", case, "% of a core", Some(goal), &percent)?);
    }
    Ok(figures)
}

fn spans(settings: &Settings) -> (Duration, usize) {
    if settings.quick { (Duration::from_secs(2), 1) } else { (Duration::from_secs(10), 2) }
}

/// Saturating programs in tenants of a node.
struct Load {
    programs: Vec<Program>,
    node: Node,
}

impl Load {
    fn start(split: &[u32], kernel_us: u64, more: &[&str]) -> Result<Self> {
        let spec = |(index, percent): (usize, &u32)| {
            let spec = TenantSpec::new(&format!("t{index}")).sm(*percent);
            more.iter().fold(spec, |spec, line| spec.with(line))
        };
        let mut tenants: Vec<TenantSpec> = split.iter().enumerate().map(spec).collect();
        if tenants.is_empty() {
            tenants.push(TenantSpec::new("nobody").sm(50));
        }
        let node = Node::start(options(tenants, kernel_us))?;
        let start =
            |index| node.run(&format!("t{index}"), "app-loop", &["--seconds", "600", "--kernel", "spin"]);
        let programs = (0..split.len()).map(start).collect::<Result<_>>()?;
        Self { programs, node }.launched()
    }

    /// One program that Headgate has no part in, beside a daemon that has nothing to do.
    fn native(kernel_us: u64) -> Result<Self> {
        let node = Node::start(options(vec![TenantSpec::new("nobody").sm(50)], kernel_us))?;
        let mut command = node.native_command(&workspace::program("app-loop")?);
        command.args(["--seconds", "600", "--kernel", "spin"]);
        let program = Program::start("app-loop", &mut command)?;
        Self { programs: vec![program], node }.launched()
    }

    fn launched(self) -> Result<Self> {
        wait_for(LAUNCH_WAIT, || self.all_launch().then_some(())).context("not every program launches")?;
        Ok(self)
    }

    fn all_launch(&self) -> bool {
        let Ok(statistics) = self.node.device().control().statistics() else { return false };
        self.programs.iter().all(|program| 0.0 < busy_ns(&statistics, program))
    }

    /// Percent of elapsed device time, by program.
    fn shares(&self, span: Duration) -> Result<Vec<f64>> {
        let control = self.node.device().control();
        control.mark()?;
        let statistics = wait_for(span * 3, || {
            let statistics = control.statistics().ok()?;
            (span.as_secs_f64() * 1e9 <= statistics["elapsed_ns"].as_f64()?).then_some(statistics)
        });
        let statistics = statistics.context("the device's clock stands still")?;
        let elapsed = statistics["elapsed_ns"].as_f64().context("no elapsed time")?;
        Ok(self.programs.iter().map(|program| busy_ns(&statistics, program) * 100.0 / elapsed).collect())
    }

    /// Processor time of the daemon, in percent of a core.
    fn daemon_percent(&mut self, span: Duration) -> Result<f64> {
        let pid = self.node.daemon().pid();
        let (before, from) = (ticks_of(pid)?, now_ns()?);
        let over = || now_ns().ok().filter(|now| span.as_nanos() <= u128::from(now - from));
        let until = wait_for(span * 3, over).context("the clock stands still")?;
        let spent = (ticks_of(pid)? - before) / TICKS_PER_S;
        Ok(spent * 100.0 / Duration::from_nanos(until - from).as_secs_f64())
    }
}

fn options(tenants: Vec<TenantSpec>, kernel_us: u64) -> NodeOptions {
    let mut options = NodeOptions::simulated(tenants);
    // Nobody reads what the kernels compute, so their instructions are not interpreted.
    let spin = json!({ "base_ns": kernel_us * 1_000, "execute": false });
    options.device = Some(json!({ "kernels": { "spin": spin } }));
    options
}

fn busy_ns(statistics: &Value, program: &Program) -> f64 {
    let rows = statistics["processes"].as_array().into_iter().flatten();
    rows.filter(|row| row["pid"] == program.pid()).filter_map(|row| row["busy_ns"].as_f64()).sum()
}

/// User and system time of a process, in clock ticks.
fn ticks_of(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; what follows the last one are numbers.
    let (_, rest) = text.rsplit_once(')').context("no such form of /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    field(11).zip(field(12)).map(|(user, system)| user + system).context("no processor time")
}
