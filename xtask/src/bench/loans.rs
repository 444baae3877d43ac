//! A city's districts renewing their loans against a real NATS server: how many a second, and how long each takes.
//!
//! The load (`loans/examples/renewals.rs`) has a real lender and a connection for each district; the server has
//! file storage and one replica. No GPU takes part.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use headgate_harness::nats::Nats;
use serde_json::Value;

use super::{Figure, Settings, Subject};
use crate::workspace;

/// What issue and design ask for.
const DISTRICTS: u64 = 1_000;
/// Two rounds of renewals, one every five seconds.
const SECONDS: u64 = 15;

/// Runs the bench.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let (districts, seconds) = if settings.quick { (50, 5) } else { (DISTRICTS, SECONDS) };
    let nats = Nats::start().context("the bench needs a NATS server")?;
    let mut load = workspace::cargo();
    load.args(["run", "--quiet", "--release", "--package", "headgate-loans", "--example", "renewals", "--"]);
    load.args([nats.url(), districts.to_string(), seconds.to_string()]);
    let output = load.stderr(Stdio::inherit()).output().context("starting the load")?;
    ensure!(output.status.success(), "the load ended with {}", output.status);
    let told: Value = serde_json::from_slice(&output.stdout).context("reading what the load printed")?;
    let figure = |key: &str| told[key].as_f64().with_context(|| format!("the load printed no {key}: {told}"));
    let subject = Subject { bench: "loans", device: "none".to_owned(), commit: settings.commit.clone() };
    let paced = format!("{districts} districts, one renewal each every 5 s");
    let at_once = format!("{districts} districts asking within a second");
    let flat_out = format!("{districts} districts, as fast as they can");
    Ok(vec![
        subject.higher("renewals", &paced, "1/s", None, &[figure("per_second")?])?,
        subject.lower("renewal p50", &paced, "us", None, &[figure("p50_us")?])?,
        subject.lower("renewal p99", &paced, "us", Some(100_000.0), &[figure("p99_us")?])?,
        subject.lower("slowest renewal", &paced, "us", None, &[figure("max_us")?])?,
        subject.lower("grant p50", &at_once, "us", None, &[figure("grant_p50_us")?])?,
        subject.lower("grant p99", &at_once, "us", Some(500_000.0), &[figure("grant_p99_us")?])?,
        subject.higher("renewals", &flat_out, "1/s", Some(200.0), &[figure("flat_out_per_second")?])?,
        subject.lower("renewal p50", &flat_out, "us", None, &[figure("flat_out_p50_us")?])?,
        subject.lower("renewal p99", &flat_out, "us", None, &[figure("flat_out_p99_us")?])?,
    ])
}
