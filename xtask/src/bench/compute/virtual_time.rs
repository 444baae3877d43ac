//! The scheduler on the device's model in virtual time: E1, E2, E5, E6 and E7 of the issue.

use anyhow::Result;
use headgate_compute_sim::scenario::{express, hard_cap, reclaim, settles, shares, tenant};
use headgate_compute_sim::{Behaviour, Gate, ProgramPlan};

use super::{SHARE_POINTS_MAX, SPLITS, TOTAL_MIN, named};
use crate::bench::{Figure, Settings, Subject};

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
/// Kernel lengths, in microseconds.
const KERNELS_US: [u64; 5] = [5, 50, 500, 5_000, 50_000];

pub(super) fn measure(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let seeds = if settings.quick { 1 } else { 5 };
    let mut figures = Vec::new();
    for split in SPLITS {
        for kernel_us in KERNELS_US {
            for gate in [Gate::Device, Gate::Host] {
                saturating(subject, split, kernel_us, gate, seeds, &mut figures)?;
            }
        }
    }
    processes_and_streams(subject, seeds, &mut figures)?;
    host_bound(subject, &mut figures)?;
    for kernel_us in [5, 50, 250, 1_000] {
        let case = format!("hard 30 %, {kernel_us} us kernels, bins of 100 ms");
        let runs: Vec<(f64, f64)> =
            (0..seeds).map(|seed| hard_cap(30, kernel_us * US, 50, seed)).collect::<Result<_, _>>()?;
        let errors: Vec<f64> = runs.iter().map(|run| run.0).collect();
        let work: Vec<f64> = runs.iter().map(|run| run.1).collect();
        figures.push(subject.lower("mean share error", case.clone(), "points", Some(1.5), &errors)?);
        figures.push(subject.higher("work of ideal", case, "ratio", Some(0.98), &work)?);
    }
    for (kernel_us, goal) in [(50, 1.07), (150, 1.07), (1_000, 1.30)] {
        let case = format!("4 ms requests, load 0.5, beside {kernel_us} us kernels");
        let runs = (0..seeds).map(|seed| express(kernel_us * US, 30_000 * MS, seed));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let ratios: Vec<f64> = runs.iter().map(|run| run.p99_ratio).collect();
        let beside: Vec<f64> = runs.iter().map(|run| run.batch_share).collect();
        figures.push(subject.lower("express p99 of alone", case.clone(), "ratio", Some(goal), &ratios)?);
        figures.push(subject.higher("batch tenant's share", case, "%", None, &beside)?);
    }
    for kernel_us in [50, 1_000, 10_000] {
        let case = format!("{kernel_us} us kernels");
        let (mut after_us, mut alone) = (Vec::new(), Vec::new());
        for seed in 0..seeds * 4 {
            let (after_ns, borrowed) = reclaim(kernel_us * US, seed)?;
            after_us.push(micros(after_ns));
            alone.push(borrowed);
        }
        let goal = 1_000.0 + micros(kernel_us * US);
        figures.push(subject.lower("reclaim", case.clone(), "us", Some(goal), &after_us)?);
        figures.push(subject.higher("lone borrower of solo", case, "ratio", Some(0.98), &alone)?);
    }
    for kernel_us in [50, 1_000, 10_000] {
        let settled = (0..seeds * 2).map(|seed| settles(kernel_us * US, 5.0, seed).map(micros));
        let settled = settled.collect::<Result<Vec<f64>, _>>()?;
        let case = format!("20 to 60 %, {kernel_us} us kernels, within 5 points in every later 100 ms");
        figures.push(subject.lower("quota step", case, "us", Some(20_000.0), &settled)?);
    }
    Ok(figures)
}

/// Four processes against one, and three streams against one.
fn processes_and_streams(subject: &Subject, seeds: u64, figures: &mut Vec<Figure>) -> Result<()> {
    let one = ProgramPlan::saturating(500 * US);
    let mut four = tenant(30, one);
    four.programs = vec![one; 4];
    let streams = tenant(30, ProgramPlan { streams: 3, ..one });
    for (name, plan) in [("four processes", four), ("three streams", streams)] {
        let plans = [plan, tenant(70, one)];
        let runs = (0..seeds).map(|seed| shares(&plans, 10_000 * MS, seed));
        let errors = runs.map(|run| Ok(run?.error)).collect::<Result<Vec<f64>>>()?;
        let case = format!("30/70, 500 us kernels, {name} at 30, 10 s");
        figures.push(subject.lower("share error", case, "points", Some(SHARE_POINTS_MAX), &errors)?);
    }
    Ok(())
}

/// Programs that wait for each of their results, against what the device does with them by itself.
fn host_bound(subject: &Subject, figures: &mut Vec<Figure>) -> Result<()> {
    let pulse = ProgramPlan::of(Behaviour::Pulse { kernels: 4, think_ns: 300 * US }, 100 * US);
    for (name, other, goal) in
        [("the same", pulse, true), ("saturating", ProgramPlan::saturating(100 * US), false)]
    {
        let bare = |program| tenant(50, ProgramPlan { gate: Gate::Nowhere, ..program });
        let native = shares(&[bare(pulse), bare(other)], 4_000 * MS, 1)?;
        let ours = shares(&[tenant(50, pulse), tenant(50, other)], 4_000 * MS, 1)?;
        let case = format!("host-bound beside {name}, 50/50");
        let least = goal.then_some(native.total - 0.02);
        figures.push(subject.higher("total of solo", case.clone(), "ratio", least, &[ours.total])?);
        figures.push(subject.higher("host-bound share", case.clone(), "%", None, &[ours.percent[0]])?);
        figures.push(subject.higher(
            "total of solo, not governed",
            case.clone(),
            "ratio",
            None,
            &[native.total],
        )?);
        figures.push(subject.higher(
            "host-bound share, not governed",
            case,
            "%",
            None,
            &[native.percent[0]],
        )?);
    }
    Ok(())
}

fn saturating(
    subject: &Subject,
    split: &[u32],
    kernel_us: u64,
    gate: Gate,
    seeds: u64,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let program = ProgramPlan { gate, ..ProgramPlan::saturating(kernel_us * US) };
    let plans: Vec<_> = split.iter().map(|&percent| tenant(percent, program)).collect();
    let named = match gate {
        Gate::Host => format!("{}, gate on the host", named(split)),
        Gate::Device | Gate::Nowhere => named(split),
    };
    for (span_ms, goal) in [(10_000, SHARE_POINTS_MAX), (1_000, 2.0)] {
        let runs = (0..seeds).map(|seed| shares(&plans, span_ms * MS, seed));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let case = format!("{named}, {kernel_us} us kernels, {} s", span_ms / 1_000);
        let errors: Vec<f64> = runs.iter().map(|run| run.error).collect();
        figures.push(subject.lower("share error", case.clone(), "points", Some(goal), &errors)?);
        if span_ms == 10_000 {
            let totals: Vec<f64> = runs.iter().map(|run| run.total).collect();
            figures.push(subject.higher("total of solo", case, "ratio", Some(TOTAL_MIN), &totals)?);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "spans of device time")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
