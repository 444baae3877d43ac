//! The kernel probes on the real driver library: where they sit, whether they see every wait, whether the second ledger agrees
//! with the first, and what they cost a program that waits after every kernel.

use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::{Node, TenantSpec, wait_for, workspace};

use super::shares::Trace;
use crate::kit::{Calibration, How, Kit, fact, lines};
use crate::record::{Goal, Recorder};

const PATIENCE: Duration = Duration::from_secs(120);
const TENANT: How<'_> = How::Tenant("watched");

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let node = kit.node(vec![TenantSpec::new("watched").sm(100).memory("8Gi")])?;
    let calibration = Calibration::measure(kit, &node)?;
    // The first program tells the daemon which library there is to probe.
    lines(kit.gpu(&node, TENANT, &["describe"])?, PATIENCE)?;
    let attached = wait_for(Duration::from_secs(15), || {
        node.log().lines().find(|line| line.contains("driver library probed")).map(str::to_owned)
    });
    recorder.fact(
        "attached",
        attached.clone().unwrap_or_else(|| "no driver library was probed within 15 s".to_owned()),
    )?;
    let status = node.status()?;
    recorder.fact("probes", status["probes"].clone())?;
    if attached.is_none() {
        return Ok(Some(format!("the probes are not up here: {}", status["probes"])));
    }

    // 100 us kernels, a wait after each: the kernel must have seen as many waits, at least.
    let before = waits(&node)?;
    let found = looping(kit, &node, &calibration, TENANT)?;
    let launches = fact(&found, "done")?["launches"].as_f64().context("a count")?;
    let seen = waits(&node)? - before;
    recorder.figure(
        "waits that the kernel saw, of those made",
        "100 us kernels, a wait after each",
        "ratio",
        &[seen / launches],
        Some(Goal::AtLeast(1.0)),
    )?;

    ledger(kit, recorder, &node)?;

    // With probes and gates against without either; the second tenant is governed and not probed by nobody's choice, so the
    // probes' own share is what `cargo test -p headgate-ebpf --test costs` says.
    let mut samples = Vec::new();
    for _ in 0..if kit.simulated { 1 } else { 3 } {
        let native = Trace::of(&looping(kit, &node, &calibration, How::Native)?)?.rate_all();
        let watched = Trace::of(&looping(kit, &node, &calibration, TENANT)?)?.rate_all();
        samples.push((native - watched) / native * 100.0);
    }
    recorder.figure(
        "throughput lost to hook, gates and probes",
        "100 us kernels, a wait after each",
        "percent",
        &samples,
        None,
    )?;
    Ok(None)
}

fn looping(
    kit: &Kit,
    node: &Node,
    calibration: &Calibration,
    how: How<'_>,
) -> Result<Vec<serde_json::Value>> {
    let seconds = if kit.simulated { "1" } else { "3" };
    let mut words: Vec<String> =
        ["loop", "--seconds", seconds, "--round", "50", "--sync-every", "1"].map(str::to_owned).to_vec();
    words.extend(kit.work(calibration, 100));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    lines(kit.gpu(node, how, &words)?, PATIENCE)
}

fn waits(node: &Node) -> Result<f64> {
    let page = node.metrics()?;
    Ok(page.value("headgate_gpu_wait_seconds_count", &["tenant=\"watched\""]).unwrap_or(0.0))
}

/// While a program holds memory, the ledgers must agree; when it is gone, they must be empty.
fn ledger(kit: &Kit, recorder: &mut Recorder, node: &Node) -> Result<()> {
    let hog = workspace::program("app-hog")?;
    let words = ["--chunk", "64Mi", "--most", "1Gi", "--hold", "4"];
    let hog = headgate_harness::Program::start("app-hog", &mut kit.command(node, TENANT, &hog, &words)?)?;
    let mut drift: Vec<(String, f64)> = Vec::new();
    let held = wait_for(Duration::from_secs(20), || {
        let used = node.status().ok()?["tenants"][0]["gpus"][0]["memory_used_bytes"].as_u64()?;
        (1 << 30 <= used).then_some(used)
    });
    recorder.fact("ledger_of_the_hook_bytes", held)?;
    // The daemon sweeps the second ledger every second.
    crate::clock::pause(Duration::from_millis(2_200));
    let page = node.metrics()?;
    for family in
        page.families().iter().filter(|family| family.contains("drift") || family.contains("witnessed"))
    {
        drift.extend(page.value(family, &["tenant=\"watched\""]).map(|value| (family.clone(), value)));
    }
    hog.finish(PATIENCE)?.json().context("the allocating program")?;
    if drift.is_empty() {
        return recorder.fact("ledger_drift", "this daemon has no metric of it");
    }
    for (family, value) in drift {
        let goal = family.contains("drift").then_some(Goal::AtMost(0.0));
        recorder.figure("second ledger", &family, "bytes", &[value.abs()], goal)?;
    }
    Ok(())
}
