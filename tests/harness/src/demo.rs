//! `cargo demo`: the main job on one node. Two districts' tenants run the same launch loop side by side while a
//! third program tries to allocate past its quota.
//!
//! What counts is measured by the device, not by Headgate: on the simulated device the busy time of each
//! process, as a part of the busy time of both; on a real one the work each loop got done against what the same loop gets done alone.
#![expect(clippy::print_stdout, reason = "the demo's output is its purpose")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::node::{Node, NodeOptions, TenantSpec};
use crate::process::Program;
use crate::{device, wait_for, workspace};

/// How the demo runs.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Print one JSON object and nothing else.
    pub json: bool,
    /// How long the loops are measured.
    pub seconds: u32,
    /// On the simulated device, even where there is an NVIDIA driver.
    pub simulated: bool,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { json: false, seconds: 10, simulated: !device::has_real_driver() }
    }
}

/// The tenants whose shares are measured, with their districts and SM quotas in percent.
const LOOPS: [(&str, &str, u32); 2] = [("alerts", "north", 70), ("review", "south", 30)];
/// The tenant that tries to take more memory than it may.
const HOG: &str = "archive";
/// How far a share may be off, in points.
const SHARE_TOLERANCE: f64 = 3.0;
/// How much of the elapsed time the simulated device must have been at work for the tenants, in percent: shares
/// of a device that stands idle while both want it would prove nothing. Switching between contexts takes some.
const BUSY_MIN: f64 = 85.0;

/// What the demo found, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    simulated: bool,
    device: String,
    seconds: f64,
    device_busy: Option<f64>,
    tenants: BTreeMap<String, TenantSummary>,
    probes: BTreeMap<String, String>,
    metrics_series: usize,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TenantSummary {
    district: String,
    sm_quota: Option<f64>,
    sm_share: Option<f64>,
    memory_quota_bytes: Option<u64>,
    memory_peak_bytes: u64,
    denied_allocations: u64,
}

/// Runs the demo and prints what it found; the exit code says whether shares and limits held.
///
/// # Errors
/// When something could not be started or did not answer.
pub fn run(options: DemoOptions) -> Result<ExitCode> {
    let summary = measure(options)?;
    report(&summary, options)?;
    Ok(if summary.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the demo. What did not hold is in the summary's problems.
///
/// # Errors
/// When something could not be started or did not answer.
pub fn measure(options: DemoOptions) -> Result<Summary> {
    let simulated = options.simulated;
    if !options.json {
        println!(
            "{}",
            if simulated {
                "No NVIDIA driver here: starting the SIMULATED device. Every figure below is simulated."
            } else {
                "Using this machine's NVIDIA driver."
            }
        );
    }
    let node = Node::start(NodeOptions {
        device: simulated.then(|| json!({ "kernels": { "spin": { "base_ns": 50_000 } } })),
        tenants: tenants(),
        ..NodeOptions::default()
    })?;
    let solo = if simulated { None } else { Some(solo_rate(&node)?) };

    let duration = (options.seconds + 6).to_string();
    let arguments = ["--seconds", &duration, "--kernel", "spin"];
    let mut loops = Vec::new();
    for (tenant, ..) in LOOPS {
        loops.push(node.run(tenant, "app-loop", &arguments)?);
    }
    wait_until_launching(&node, &mut loops)?;
    let hog = node.run(HOG, "app-hog", &["--chunk", "256Mi"])?;

    let before = Sample::take(&node, simulated)?;
    if simulated {
        node.device().control().mark()?;
    }
    watch(&node, options, simulated, &loops)?;
    let after = Sample::take(&node, simulated)?;
    let page = node.metrics();
    let status = node.status()?;

    let mut summary = Summary {
        simulated,
        device: status["devices"][0]["name"].as_str().unwrap_or("unknown").to_owned(),
        seconds: f64::from(options.seconds),
        device_busy: None,
        tenants: BTreeMap::new(),
        probes: probes(&status),
        metrics_series: page.as_ref().map_or(0, crate::prometheus::Page::series),
        problems: Vec::new(),
    };
    if simulated {
        let busy = after.device_busy(&loops);
        summary.device_busy = Some(round(busy));
        if busy < BUSY_MIN {
            summary.problems.push(format!("the device worked {busy:.1} % of the time while both wanted it"));
        }
    }
    let shares: Vec<f64> = match solo {
        None => loops.iter().map(|program| after.device_share(program.pid(), &loops)).collect(),
        Some(solo) => LOOPS.iter().map(|(tenant, ..)| after.launch_share(&before, tenant, solo)).collect(),
    };
    for ((tenant, district, quota), share) in LOOPS.into_iter().zip(shares) {
        let mut row = tenant_summary(&status, tenant, district);
        row.sm_quota = Some(f64::from(quota));
        row.sm_share = Some(round(share));
        if SHARE_TOLERANCE < (share - f64::from(quota)).abs() {
            summary.problems.push(format!("{tenant}: {share:.1} % of the device instead of {quota} %"));
        }
        summary.tenants.insert(tenant.to_owned(), row);
    }
    judge_hog(&node, hog, &mut summary)?;
    if let Err(error) = page {
        summary.problems.push(format!("the metrics page: {error:#}"));
    }
    for program in loops {
        program.finish(Duration::from_secs(60))?.json().context("a launch loop")?;
    }
    Ok(summary)
}

/// The allocating program's own word is checked against its quota: what it got is what the device gave it.
fn judge_hog(node: &Node, hog: Program, summary: &mut Summary) -> Result<()> {
    let hogged = hog.finish(Duration::from_secs(30))?.json().context("the allocating program")?;
    let row = tenant_summary(&node.status()?, HOG, "south");
    let got = hogged["allocated_bytes"].as_u64().unwrap_or(0);
    let allowed = row.memory_quota_bytes.unwrap_or(0);
    if allowed < got {
        summary.problems.push(format!("{HOG}: allocated {got} bytes with a quota of {allowed}"));
    }
    if row.denied_allocations == 0 {
        summary.problems.push(format!("{HOG}: no allocation was denied"));
    }
    summary.tenants.insert(HOG.to_owned(), row);
    Ok(())
}

fn tenants() -> Vec<TenantSpec> {
    let mut tenants: Vec<TenantSpec> = LOOPS
        .into_iter()
        .map(|(name, district, percent)| TenantSpec::new(name).district(district).sm(percent).memory("8Gi"))
        .collect();
    tenants.push(TenantSpec::new(HOG).district("south").memory("2Gi"));
    tenants
}

/// Both loops must be at work before the measurement begins.
fn wait_until_launching(node: &Node, loops: &mut [Program]) -> Result<()> {
    let launching = wait_for(Duration::from_secs(20), || {
        let status = node.status().ok()?;
        let all = LOOPS.iter().all(|(tenant, ..)| 0 < field(&status, tenant, "launches").unwrap_or(0));
        (all || loops.iter_mut().any(|program| !program.is_running())).then_some(())
    });
    ensure!(launching.is_some(), "the launch loops did not start within 20 s\n{}", node.log());
    for program in loops {
        ensure!(program.is_running(), "a launch loop ended at once\n{}", node.log());
    }
    Ok(())
}

/// Launches a second of the loop alone on a real device: the yardstick of its share.
fn solo_rate(node: &Node) -> Result<f64> {
    let mut command = node.native_command(&workspace::program("app-loop")?);
    command.args(["--seconds", "3", "--kernel", "spin"]);
    let outcome = Program::start("app-loop", &mut command)?.finish(Duration::from_secs(60))?.json()?;
    outcome["launches_per_second"].as_f64().context("app-loop printed no rate")
}

/// One look at the device and the daemon.
struct Sample {
    status: Value,
    device: Value,
    at_us: u64,
}

impl Sample {
    fn take(node: &Node, simulated: bool) -> Result<Self> {
        let device = if simulated { node.device().control().statistics()? } else { Value::Null };
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let at_us = u64::try_from(now.tv_sec())? * 1_000_000 + u64::try_from(now.tv_nsec())? / 1_000;
        Ok(Self { status: node.status()?, device, at_us })
    }

    /// Nanoseconds a process kept the device busy.
    fn busy_ns(&self, pid: u32) -> u64 {
        let rows = self.device["processes"].as_array().into_iter().flatten();
        rows.filter(|process| process["pid"].as_u64() == Some(u64::from(pid)))
            .filter_map(|process| process["busy_ns"].as_u64())
            .sum()
    }

    /// Percent a process had of the device time that all loops together had.
    fn device_share(&self, pid: u32, loops: &[Program]) -> f64 {
        percent(self.busy_ns(pid), loops.iter().map(|program| self.busy_ns(program.pid())).sum())
    }

    /// Percent of the elapsed time the device worked for the loops.
    fn device_busy(&self, loops: &[Program]) -> f64 {
        let busy = loops.iter().map(|program| self.busy_ns(program.pid())).sum();
        percent(busy, self.device["elapsed_ns"].as_u64().unwrap_or(0))
    }

    /// Percent of the solo rate at which a tenant launched since `before`.
    fn launch_share(&self, before: &Self, tenant: &str, solo: f64) -> f64 {
        let launches = |sample: &Self| field(&sample.status, tenant, "launches").unwrap_or(0);
        let per_second =
            as_f64(launches(self) - launches(before)) * 1e6 / as_f64((self.at_us - before.at_us).max(1));
        per_second / solo * 100.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "display only")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

fn percent(part: u64, whole: u64) -> f64 {
    as_f64(part) * 100.0 / as_f64(whole.max(1))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A number of a tenant on the first device, as the daemon's status has it.
fn field(status: &Value, tenant: &str, name: &str) -> Option<u64> {
    let tenants = status["tenants"].as_array()?;
    let tenant = tenants.iter().find(|row| row["name"] == tenant)?;
    tenant["gpus"][0][name].as_u64()
}

fn tenant_summary(status: &Value, tenant: &str, district: &str) -> TenantSummary {
    TenantSummary {
        district: district.to_owned(),
        sm_quota: None,
        sm_share: None,
        memory_quota_bytes: field(status, tenant, "memory_quota_bytes"),
        memory_peak_bytes: field(status, tenant, "memory_peak_bytes").unwrap_or(0),
        denied_allocations: field(status, tenant, "denied_allocations").unwrap_or(0),
    }
}

fn probes(status: &Value) -> BTreeMap<String, String> {
    status["probes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|probe| {
            let up = probe["up"].as_bool().unwrap_or(false);
            let reason = probe["reason"].as_str().unwrap_or("no reason given");
            let state = if up { "up".to_owned() } else { format!("missing: {reason}") };
            (probe["name"].as_str().unwrap_or("?").to_owned(), state)
        })
        .collect()
}

/// Shows a live table for as long as the measurement lasts.
fn watch(node: &Node, options: DemoOptions, simulated: bool, loops: &[Program]) -> Result<()> {
    if !options.json {
        println!(
            "\n  {:>3}  {:<8} {:>8} {:>9} {:>11} {:>12}",
            "s", "tenant", "sm quota", "sm share", "launches", "memory"
        );
    }
    for second in 1..=options.seconds {
        pause(Duration::from_secs(1));
        if options.json {
            continue;
        }
        let sample = Sample::take(node, simulated)?;
        for ((tenant, _, quota), program) in LOOPS.into_iter().zip(loops) {
            let share = if simulated {
                format!("{:.1} %", sample.device_share(program.pid(), loops))
            } else {
                "-".into()
            };
            println!(
                "  {second:>3}  {tenant:<8} {quota:>6} % {share:>9} {:>11} {:>12}",
                field(&sample.status, tenant, "launches").unwrap_or(0),
                mebibytes(field(&sample.status, tenant, "memory_used_bytes").unwrap_or(0)),
            );
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the demo lasts as long as it was told to")]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn report(summary: &Summary, options: DemoOptions) -> Result<()> {
    if options.json {
        println!("{}", serde_json::to_string_pretty(summary)?);
        return Ok(());
    }
    println!("\nAfter {} s on {} (measured by the device):", summary.seconds, summary.device);
    for (name, tenant) in &summary.tenants {
        let share = match (tenant.sm_quota, tenant.sm_share) {
            (Some(quota), Some(share)) => format!("quota {quota:.0} %, had {share:.1} %"),
            _ => "no compute quota".to_owned(),
        };
        println!(
            "  {name:<8} ({}): {share}; memory quota {}, peak {}, {} allocations denied",
            tenant.district,
            tenant.memory_quota_bytes.map_or_else(|| "none".to_owned(), mebibytes),
            mebibytes(tenant.memory_peak_bytes),
            tenant.denied_allocations,
        );
    }
    if let Some(busy) = summary.device_busy {
        println!("  the device was busy {busy:.1} % of the time; the rest is switching between contexts");
    }
    println!("  probes:");
    for (name, state) in &summary.probes {
        println!("    {name}: {state}");
    }
    println!(
        "  metrics: {} series, page well-formed: {}",
        summary.metrics_series,
        0 < summary.metrics_series
    );
    for problem in &summary.problems {
        println!("  PROBLEM: {problem}");
    }
    if summary.problems.is_empty() {
        println!("  Shares and limits held.");
    }
    Ok(())
}
