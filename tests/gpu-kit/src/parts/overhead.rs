//! E3 and E4: what a lone tenant with all of the device loses. With and without Headgate by turns (ABBA), so that the machine's
//! moods fall on both.

use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::TenantSpec;
use serde_json::Value;

use super::shares::Trace;
use crate::kit::{Calibration, How, Kit, fact, lines};
use crate::record::{Goal, Recorder};

const PATIENCE: Duration = Duration::from_secs(180);
const TENANT: How<'static> = How::Tenant("alone");

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let node =
        kit.node(vec![TenantSpec::new("alone").sm(100).memory(if kit.simulated { "8Gi" } else { "40Gi" })])?;
    let calls = |how: How<'static>| -> Result<Vec<(String, f64)>> {
        let found = lines(kit.gpu(&node, how, &["calls", "--launches-only"])?, PATIENCE)?;
        Ok(found
            .iter()
            .filter_map(|line| Some((line["case"].as_str()?.to_owned(), middle(&line["samples"])?)))
            .collect())
    };
    let mut added: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..if kit.simulated { 1 } else { 3 } {
        let (first, second, third, fourth) =
            (calls(How::Native)?, calls(TENANT)?, calls(TENANT)?, calls(How::Native)?);
        for (index, (case, native)) in first.iter().enumerate() {
            let other =
                |of: &[(String, f64)]| of.get(index).map(|(_, value)| *value).context("a figure is missing");
            let samples = [other(&second)? - native, other(&third)? - other(&fourth)?];
            match added.iter_mut().find(|(known, _)| known == case) {
                Some((_, known)) => known.extend(samples),
                None => added.push((case.clone(), samples.to_vec())),
            }
        }
    }
    for (case, samples) in added {
        let goal = Goal::AtMost(if case.contains("99th") { 150.0 } else { 40.0 });
        recorder.figure(
            "host time added to a launch",
            &case,
            "ns",
            &samples,
            (!kit.simulated).then_some(goal),
        )?;
    }

    let calibration = Calibration::measure(kit, &node)?;
    let seconds =
        recorder.each(14, Duration::from_secs(1), Duration::from_secs(6)).unwrap_or(Duration::from_secs(1));
    for us in [20, 200] {
        let round = (5_000 / us).to_string();
        let rate = |how: How<'static>| -> Result<f64> {
            let seconds = seconds.as_secs_f64().to_string();
            let mut words: Vec<String> =
                ["loop", "--seconds", &seconds, "--round", &round].map(str::to_owned).to_vec();
            words.extend(kit.work(&calibration, us));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Ok(Trace::of(&lines(kit.gpu(&node, how, &words)?, PATIENCE)?)?.rate_all())
        };
        slowdown(recorder, &format!("kernels of {us} us"), rate)?;
    }
    if kit.simulated {
        recorder.fact("training_and_inference", super::NEEDS_RUNTIME)?;
        return Ok(None);
    }
    for task in ["train", "infer", "graph"] {
        if recorder.left() < Duration::from_secs(20) {
            recorder.fact("cut_short", format!("no time for PyTorch: {task}"))?;
            break;
        }
        let rate = |how: How<'static>| -> Result<f64> {
            let found = lines(kit.python(&node, how, "throughput.py", &[task, "--seconds", "4"])?, PATIENCE)?;
            fact(&found, "per_second")?.as_f64().context("a rate")
        };
        if let Err(error) = slowdown(recorder, &format!("PyTorch: {task}"), rate) {
            recorder.problem(format!("PyTorch, {task}: {error:#}"))?;
        }
    }
    Ok(None)
}

fn slowdown(recorder: &mut Recorder, case: &str, rate: impl Fn(How<'static>) -> Result<f64>) -> Result<()> {
    let (first, second, third, fourth) =
        (rate(How::Native)?, rate(TENANT)?, rate(TENANT)?, rate(How::Native)?);
    let samples = [(first - second) / first * 100.0, (fourth - third) / fourth * 100.0];
    recorder.figure("throughput a lone tenant loses", case, "percent", &samples, Some(Goal::AtMost(0.3)))
}

fn middle(samples: &Value) -> Option<f64> {
    let mut values: Vec<f64> = samples.as_array()?.iter().filter_map(Value::as_f64).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
