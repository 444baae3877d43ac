//! E5: what requests of an express tenant suffer from a neighbour that takes all it can, and what the neighbour still gets done.

use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::{Node, Program, TenantSpec};
use serde_json::Value;

use super::shares::Trace;
use crate::kit::{Calibration, How, Kit, fact, lines, parse};
use crate::record::{Goal, Recorder};

const PATIENCE: Duration = Duration::from_secs(180);
/// A request is eight kernels of this many microseconds: 4 ms. Half of the device's time is asked for.
const REQUEST_US: u32 = 500;
const KERNELS: u32 = 8;
const RATE: f64 = 125.0;

struct Bench<'a> {
    kit: &'a Kit,
    node: Node,
    calibration: Calibration,
    seconds: f64,
}

impl Bench<'_> {
    fn neighbour(&self, how: How<'_>, us: u32) -> Result<Program> {
        // It begins before the requests and ends after them.
        let seconds = (self.seconds + 3.0).to_string();
        let round = (5_000 / us).max(1).to_string();
        let mut words: Vec<String> =
            ["loop", "--seconds", &seconds, "--round", &round].map(str::to_owned).to_vec();
        words.extend(self.kit.work(&self.calibration, us));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Program::start("the neighbour", &mut self.kit.gpu(&self.node, how, &words)?)
    }

    fn serve(&self, how: How<'_>) -> Result<Value> {
        let (seconds, kernels, rate) = (self.seconds.to_string(), KERNELS.to_string(), RATE.to_string());
        let mut words: Vec<String> = ["serve", "--seconds", &seconds, "--kernels", &kernels, "--rate", &rate]
            .map(str::to_owned)
            .to_vec();
        words.extend(self.kit.work(&self.calibration, REQUEST_US));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = lines(self.kit.gpu(&self.node, how, &words)?, PATIENCE)?;
        Ok(fact(&found, "served")?.clone())
    }
}

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let tenants = vec![
        TenantSpec::new("requests").sm(60).with("class: express"),
        TenantSpec::new("neighbour").sm(40).with("class: batch"),
    ];
    let node = kit.node(tenants)?;
    let calibration = Calibration::measure(kit, &node)?;
    let seconds = recorder.each(9, Duration::from_secs(2), Duration::from_secs(15));
    let Some(seconds) = seconds else { return Ok(Some("too little time".to_owned())) };
    let bench = Bench { kit, node, calibration, seconds: seconds.as_secs_f64() };

    let alone = bench.serve(How::Native)?;
    note(recorder, "alone", &alone, None)?;
    let solo_p99 = alone["p99_ms"].as_f64().context("a percentile")?;
    for us in [150, 1_000] {
        if recorder.left() < seconds * 3 {
            recorder.fact("cut_short", format!("no time for a neighbour with kernels of {us} us"))?;
            break;
        }
        let solo = Trace::of(&parse(&bench.neighbour(How::Native, us)?.finish(PATIENCE)?)?)?.rate_all();
        for (who, served, neighbour) in [
            ("without Headgate", How::Native, How::Native),
            ("express beside batch", How::Tenant("requests"), How::Tenant("neighbour")),
        ] {
            let case = format!("{who}, neighbour with kernels of {us} us");
            let other = bench.neighbour(neighbour, us)?;
            let found = bench.serve(served)?;
            let trace = Trace::of(&parse(&other.finish(PATIENCE)?)?)?;
            let governed = matches!(served, How::Tenant(_)) && !kit.simulated;
            let goal = governed.then_some(Goal::AtMost(if us == 150 { 1.07 } else { 1.30 }));
            note(recorder, &case, &found, Some((solo_p99, goal)))?;
            let share = trace.rate_all() / solo;
            let goal = governed.then_some(Goal::AtLeast(0.45));
            recorder.figure(
                "what the neighbour gets done, of what it does alone",
                &case,
                "ratio",
                &[share],
                goal,
            )?;
        }
    }
    Ok(None)
}

fn note(
    recorder: &mut Recorder,
    case: &str,
    found: &Value,
    beside: Option<(f64, Option<Goal>)>,
) -> Result<()> {
    for percentile in ["p50_ms", "p95_ms", "p99_ms", "p999_ms"] {
        let value = found[percentile].as_f64().context("a percentile")?;
        recorder.figure(
            &format!("time of a request, {}", percentile.trim_end_matches("_ms")),
            case,
            "ms",
            &[value],
            None,
        )?;
    }
    if let Some((solo, goal)) = beside {
        let ratio = found["p99_ms"].as_f64().context("a percentile")? / solo;
        recorder.figure("p99 of a request, of what it is alone", case, "ratio", &[ratio], goal)?;
    }
    recorder.fact(&format!("requests, {case}"), found["requests"].clone())
}
