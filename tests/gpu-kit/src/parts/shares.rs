//! E1, E2, E7: what tenants get of the device. A share is what a program got done beside others over what it gets done alone; it
//! is counted by the program, not by Headgate.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headgate_harness::{Node, Program, TenantSpec};
use serde_json::Value;

use crate::kit::{Calibration, How, Kit, fact, lines, parse};
use crate::record::{Goal, Recorder};

const PATIENCE: Duration = Duration::from_secs(120);
/// A share may be this far off, in points, over ten seconds.
const GOAL: Goal = Goal::AtMost(1.0);

/// What a loop had done when.
#[derive(Clone, Debug)]
pub(super) struct Trace(Vec<(f64, f64)>);

impl Trace {
    pub(super) fn of(lines: &[Value]) -> Result<Self> {
        let samples = fact(lines, "done")?["samples"].as_array().context("a loop lists its samples")?;
        let points = samples.iter().filter_map(|pair| Some((pair[0].as_f64()? / 1e6, pair[1].as_f64()?)));
        let points: Vec<(f64, f64)> = points.collect();
        ensure!(
            3 <= points.len(),
            "a loop got through {} rounds only; give it more time or less work",
            points.len()
        );
        Ok(Self(points))
    }

    /// The time both ran, without the first tenth of it.
    pub(super) fn overlap(&self, other: &Self) -> (f64, f64) {
        let start = self.0[0].0.max(other.0[0].0);
        let end = self.0[self.0.len() - 1].0.min(other.0[other.0.len() - 1].0);
        (start + (end - start) / 10.0, end)
    }

    /// What was done at a moment, between two samples in proportion.
    fn at(&self, moment: f64) -> f64 {
        let next = self.0.partition_point(|point| point.0 < moment).clamp(1, self.0.len() - 1);
        let ((t0, n0), (t1, n1)) = (self.0[next - 1], self.0[next]);
        n0 + (n1 - n0) * ((moment - t0) / (t1 - t0).max(1e-9)).clamp(0.0, 1.0)
    }

    /// Rate over the whole of it.
    pub(super) fn rate_all(&self) -> f64 {
        rate(self, &self.overlap(self)).unwrap_or(f64::NAN)
    }

    /// Rates in bins of so many seconds.
    fn bins(&self, seconds: f64) -> Vec<f64> {
        let (mut start, end) = self.overlap(self);
        let mut rates = Vec::new();
        while start + seconds <= end {
            rates.extend(rate(self, &(start, start + seconds)));
            start += seconds;
        }
        rates
    }
}

/// What was done a second between two moments.
pub(super) fn rate(trace: &Trace, span: &(f64, f64)) -> Option<f64> {
    (span.0 < span.1).then(|| (trace.at(span.1) - trace.at(span.0)) / (span.1 - span.0))
}

/// What tenants run.
#[derive(Clone, Debug)]
enum Load {
    /// The `work` kernel, so many microseconds each, in graphs of so many or one by one.
    Kernels { us: u32, graph: u32, sync: bool },
    /// PyTorch's product of two matrices of 4096 x 4096 numbers of 32 bits.
    Matmul,
}

/// Gates in the programs instead of the device's streams.
const ON_HOST: &str = "gpus: { \"*\": { gate: host } }";

struct Bench<'a> {
    kit: &'a Kit,
    calibration: Calibration,
    seconds: f64,
    /// Lines of the nodes' configuration.
    spec: Vec<String>,
}

impl Bench<'_> {
    fn start(&self, node: &Node, how: How<'_>, load: &Load) -> Result<Program> {
        let seconds = self.seconds.to_string();
        let mut command = match load {
            Load::Matmul => self.kit.python(node, how, "matmul.py", &["--seconds", &seconds])?,
            Load::Kernels { us, graph, sync } => {
                let each = us * (*graph).max(1);
                let mut words: Vec<String> = ["loop", "--seconds", &seconds, "--graph", &graph.to_string()]
                    .map(str::to_owned)
                    .to_vec();
                words.extend(["--round".to_owned(), (5_000 / each).max(1).to_string()]);
                words.extend(["--sync-every".to_owned(), u32::from(*sync).to_string()]);
                words.extend(self.kit.work(&self.calibration, *us));
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.kit.gpu(node, how, &words)?
            }
        };
        Program::start("a load", &mut command)
    }

    fn solo(&self, load: &Load) -> Result<f64> {
        let node = self.kit.node(vec![TenantSpec::new("nobody")])?;
        Ok(Trace::of(&parse(&self.start(&node, How::Native, load)?.finish(PATIENCE)?)?)?.rate_all())
    }

    /// Runs so many processes of each tenant side by side; the traces by tenant.
    fn together(&self, tenants: &[(&str, u32, u32)], mode: &str, load: &Load) -> Result<Vec<Vec<Trace>>> {
        let specs = tenants
            .iter()
            .map(|(name, percent, _)| TenantSpec::new(name).sm(*percent).with(&format!("mode: {mode}")));
        let node = self.kit.node_with(specs.collect(), self.spec.clone())?;
        let mut running = Vec::new();
        for (name, _, processes) in tenants {
            let started: Result<Vec<Program>> =
                (0..*processes).map(|_| self.start(&node, How::Tenant(name), load)).collect();
            running.push(started?);
        }
        running
            .into_iter()
            .map(|programs| {
                programs.into_iter().map(|program| Trace::of(&parse(&program.finish(PATIENCE)?)?)).collect()
            })
            .collect()
    }
}

/// Percent of a solo rate that all processes of a tenant had together, while every process of every tenant ran.
fn shares(traces: &[Vec<Trace>], solo: f64) -> Result<Vec<f64>> {
    let all: Vec<&Trace> = traces.iter().flatten().collect();
    let first = all.first().context("no process ran")?;
    let span = all.iter().fold(first.overlap(first), |span, trace| {
        let (start, end) = trace.overlap(trace);
        (span.0.max(start), span.1.min(end))
    });
    traces
        .iter()
        .map(|of| {
            let rates: Option<Vec<f64>> = of.iter().map(|trace| rate(trace, &span)).collect();
            let rates = rates.context("the tenants did not run at the same time")?;
            Ok(rates.iter().sum::<f64>() / solo * 100.0)
        })
        .collect()
}

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let node = kit.node(vec![TenantSpec::new("nobody")])?;
    let calibration = Calibration::measure(kit, &node)?;
    let torch = !kit.simulated
        && lines(kit.python(&node, How::Native, "matmul.py", &["--seconds", "0.2"])?, PATIENCE).is_ok();
    drop(node);
    recorder.fact("pytorch", torch)?;
    let anchor = if torch { Load::Matmul } else { Load::Kernels { us: 500, graph: 0, sync: false } };
    let what = if torch { "4096 FP32 matmul" } else { "500 us kernels" };
    let seconds = recorder.each(15, Duration::from_secs(2), Duration::from_secs(12));
    let Some(seconds) = seconds else { return Ok(Some("too little time".to_owned())) };
    let mut bench = Bench { kit, calibration, seconds: seconds.as_secs_f64(), spec: Vec::new() };

    // E1: the pair that others publish, and the rest.
    let solo = bench.solo(&anchor)?;
    recorder.figure("alone", what, "per second", &[solo], None)?;
    pair(&bench, recorder, what, &anchor, solo, &[("first", 30, 1), ("second", 70, 1)])?;
    // What to fall back on, should streams that wait at a gate keep their turn.
    bench.spec = vec![ON_HOST.to_owned()];
    let on_host = format!("{what}, gate on the host");
    pair(&bench, recorder, &on_host, &anchor, solo, &[("first", 30, 1), ("second", 70, 1)])?;
    bench.spec.clear();
    pair(&bench, recorder, what, &anchor, solo, &[("first", 50, 1), ("second", 50, 1)])?;
    pair(&bench, recorder, what, &anchor, solo, &[("first", 10, 1), ("second", 90, 1)])?;
    // E2: one tenant alone, never more than its share, whatever its kernels are.
    let lengths: &[u32] = if kit.simulated { &[50, 5_000] } else { &[50, 500, 5_000, 50_000] };
    for &us in lengths {
        if recorder.left() < seconds * 3 {
            recorder.fact("cut_short", format!("no time for kernels of {us} us"))?;
            return Ok(None);
        }
        capped(&bench, recorder, us)?;
    }
    // E7: more than two, more than one process each, graphs.
    let load = Load::Kernels { us: 200, graph: 0, sync: false };
    let solo = bench.solo(&load)?;
    pair(
        &bench,
        recorder,
        "three tenants",
        &load,
        solo,
        &[("first", 50, 1), ("second", 30, 1), ("third", 20, 1)],
    )?;
    if seconds * 2 < recorder.left() && !kit.simulated {
        pair(&bench, recorder, "four processes each", &load, solo, &[("first", 30, 4), ("second", 70, 4)])?;
        let host_bound = Load::Kernels { us: 200, graph: 0, sync: true };
        pair(
            &bench,
            recorder,
            "a wait after every kernel",
            &host_bound,
            bench.solo(&host_bound)?,
            &[("first", 50, 1), ("second", 50, 1)],
        )?;
        let graphs = Load::Kernels { us: 50, graph: 20, sync: false };
        pair(
            &bench,
            recorder,
            "graphs of 20 kernels",
            &graphs,
            bench.solo(&graphs)?,
            &[("first", 30, 1), ("second", 70, 1)],
        )?;
    }
    Ok(None)
}

fn pair(
    bench: &Bench<'_>,
    recorder: &mut Recorder,
    what: &str,
    load: &Load,
    solo: f64,
    tenants: &[(&str, u32, u32)],
) -> Result<()> {
    let case: Vec<String> = tenants.iter().map(|(_, percent, _)| percent.to_string()).collect();
    let case = format!("{what}, {}", case.join("/"));
    let traces = match bench.together(tenants, "hard", load) {
        Ok(traces) => traces,
        Err(error) => return recorder.problem(format!("{case}: {error:#}")),
    };
    let had = shares(&traces, solo)?;
    let total: f64 = had.iter().sum();
    for ((_, percent, _), share) in tenants.iter().zip(&had) {
        let quota = f64::from(*percent);
        recorder.figure(
            "share of the solo rate",
            &format!("{case}: the {percent} %"),
            "percent",
            &[*share],
            None,
        )?;
        // Of what there was to divide: what switching costs is everybody's.
        let off = (share / total * 100.0 - quota).abs();
        recorder.figure(
            "share among the tenants, off by",
            &format!("{case}: the {percent} %"),
            "points",
            &[off],
            Some(GOAL),
        )?;
    }
    recorder.figure(
        "all tenants together, of the solo rate",
        &case,
        "ratio",
        &[total / 100.0],
        Some(Goal::AtLeast(0.96)),
    )
}

fn capped(bench: &Bench<'_>, recorder: &mut Recorder, us: u32) -> Result<()> {
    const CAP: f64 = 30.0;
    let load = Load::Kernels { us, graph: 0, sync: false };
    let solo = bench.solo(&load)?;
    let traces = bench.together(&[("capped", 30, 1)], "hard", &load)?;
    let trace = &traces[0][0];
    let case = format!("kernels of {us} us, cap 30 %, alone");
    let share = trace.rate_all() / solo * 100.0;
    recorder.figure("share of the solo rate", &case, "percent", &[share], None)?;
    recorder.figure("share of the solo rate, off by", &case, "points", &[(share - CAP).abs()], Some(GOAL))?;
    let bins: Vec<f64> = trace.bins(0.1).iter().map(|rate| (rate / solo * 100.0 - CAP).abs()).collect();
    if us <= 1_000 && !bins.is_empty() {
        let error = bins.iter().sum::<f64>() / f64::from(u32::try_from(bins.len())?);
        recorder.figure("mean error of 100 ms", &case, "points", &[error], Some(Goal::AtMost(1.5)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(start: f64, end: f64, per_second: f64) -> Trace {
        let step = (end - start) / 100.0;
        Trace((0..=100).map(|i| (start + step * f64::from(i), per_second * step * f64::from(i))).collect())
    }

    #[test]
    fn shares_are_taken_while_all_run() {
        // The second starts late and is twice as fast.
        let traces = [vec![steady(0.0, 10.0, 30.0)], vec![steady(5.0, 12.0, 60.0)]];
        let had = shares(&traces, 100.0).unwrap();
        assert!((had[0] - 30.0).abs() < 0.1 && (had[1] - 60.0).abs() < 0.1, "{had:?}");
    }

    #[test]
    fn processes_of_a_tenant_add_up_and_strangers_in_time_are_no_pair() {
        let both = [vec![steady(0.0, 10.0, 20.0), steady(0.0, 10.0, 25.0)]];
        assert!((shares(&both, 100.0).unwrap()[0] - 45.0).abs() < 0.1);
        let apart = [vec![steady(0.0, 1.0, 20.0)], vec![steady(5.0, 6.0, 20.0)]];
        assert!(shares(&apart, 100.0).is_err());
    }
}
