//! The real daemon and hook on the simulated device.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headgate_harness::{TenantSpec, wait_for};

use super::load::{Gate, Ground, Load, Loops, Tenant};
use super::{SHARE_POINTS_MAX, SPLITS, TOTAL_MIN, named};
use crate::bench::{Figure, Settings, Subject};

/// Length of kernels in the sweep, in microseconds; shorter ones measure this machine's processors.
const KERNELS_US: [u64; 4] = [50, 500, 5_000, 50_000];
/// Longest wait for a change of configuration to be read, or for a program to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// E1: splits, with kernels of half a millisecond.
pub(super) fn splits(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for split in SPLITS {
        let tenants: Vec<Tenant<'_>> = split.iter().map(|&percent| Tenant::plain(percent)).collect();
        shares(settings, subject, &tenants, &Ground::of(500), named(split), &mut figures)?;
    }
    Ok(figures)
}

/// E2: lengths of kernels, at 30/70.
pub(super) fn kernels(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kernel_us in KERNELS_US {
        let tenants = [30, 70].map(Tenant::plain);
        shares(settings, subject, &tenants, &Ground::of(kernel_us), named(SPLITS[0]), &mut figures)?;
    }
    Ok(figures)
}

/// E7: other ways to launch, and several processes, beside a tenant with plain launches.
pub(super) fn forms(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    const FORMS: [(&str, Loops<'_>); 3] = [
        ("graphs of 8", &[&["--as", "graph", "--graph-kernels", "8"]]),
        ("cooperative", &[&["--as", "cooperative"]]),
        ("four processes", &[&[], &[], &[], &[]]),
    ];
    let mut figures = Vec::new();
    for (name, loops) in FORMS {
        let tenants = [Tenant { loops, ..Tenant::plain(30) }, Tenant::plain(70)];
        let case = format!("{}, {name} at 30", named(SPLITS[0]));
        shares(settings, subject, &tenants, &Ground::of(500), case, &mut figures)?;
    }
    Ok(figures)
}

/// The same where work waits in the programs, by choice or because the driver lacks stream memory operations, against the
/// gate on the device.
pub(super) fn gates(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    const GATES: [(Gate, &str); 3] = [
        (Gate::Device, "on the device"),
        (Gate::Host, "on the host"),
        (Gate::Events, "on the host, by events"),
    ];
    let mut figures = Vec::new();
    for (gate, name) in GATES {
        for kernel_us in [100, 500, 5_000] {
            let case = format!("{}, gate {name}", named(SPLITS[0]));
            let ground = Ground { gate, ..Ground::of(kernel_us) };
            shares(settings, subject, &[30, 70].map(Tenant::plain), &ground, case, &mut figures)?;
        }
    }
    Ok(figures)
}

fn shares(
    settings: &Settings,
    subject: &Subject,
    tenants: &[Tenant<'_>],
    ground: &Ground,
    case: String,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let (span, runs) = spans(settings);
    let load = Load::start(tenants, ground)?;
    settle(&load)?;
    let (mut errors, mut totals) = (Vec::new(), Vec::new());
    let (mut idle, mut switching) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let shares = load.shares(span)?;
        let off = |(share, tenant): (&f64, &Tenant<'_>)| (share - f64::from(tenant.percent)).abs();
        errors.push(shares.iter().zip(tenants).map(off).fold(0.0, f64::max));
        totals.push(shares.iter().sum::<f64>() / 100.0);
        let rest = load.device_time()?;
        idle.push(rest.idle_percent);
        switching.push(rest.switch_percent);
    }
    let case = format!("{case}, {} us kernels, {} s", ground.spin_us, span.as_secs());
    figures.push(subject.lower("share error", case.clone(), "points", Some(SHARE_POINTS_MAX), &errors)?);
    figures.push(subject.higher("total of solo", case.clone(), "ratio", Some(TOTAL_MIN), &totals)?);
    figures.push(subject.lower("device idle", case.clone(), "%", None, &idle)?);
    figures.push(subject.lower("device changing context", case, "%", None, &switching)?);
    Ok(())
}

/// What the programs did one after the other while they started is paid for before anything is measured.
fn settle(load: &Load) -> Result<()> {
    load.shares(Duration::from_millis(500)).map(drop)
}

/// E4 and the lone rows: a tenant by itself, held to its share, lent the rest, and at 100 % against no Headgate.
pub(super) fn alone(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let (span, runs) = spans(settings);
    let mut figures = Vec::new();
    hard_cap(settings, subject, &mut figures)?;
    let lone = Load::start(&[Tenant::plain(30)], &Ground::of(500))?;
    settle(&lone)?;
    let shares: Vec<f64> = (0..runs).map(|_| Ok(lone.shares(span)?[0] / 100.0)).collect::<Result<_>>()?;
    figures.push(subject.higher("lone borrower of solo", "500 us kernels", "ratio", Some(0.98), &shares)?);
    drop(lone);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..2 * runs {
        // With and without by turns, and each first as often as last.
        for governed in if round % 2 == 0 { [true, false] } else { [false, true] } {
            let load = match governed {
                true => Load::start(&[Tenant::plain(100)], &Ground::of(500))?,
                false => Load::native(500)?,
            };
            settle(&load)?;
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

/// A lone hard tenant: how far each tenth of a second is off, and what was done of what it may have.
fn hard_cap(settings: &Settings, subject: &Subject, figures: &mut Vec<Figure>) -> Result<()> {
    const PERCENT: u32 = 30;
    const BIN: Duration = Duration::from_millis(100);
    let bins = if settings.quick { 10 } else { 100 };
    for kernel_us in [50, 1_000] {
        let tenant = Tenant { more: &["mode: hard"], ..Tenant::plain(PERCENT) };
        let load = Load::start(&[tenant], &Ground::of(kernel_us))?;
        settle(&load)?;
        let shares: Vec<f64> = (0..bins).map(|_| Ok(load.shares(BIN)?[0])).collect::<Result<_>>()?;
        let count = f64::from(bins);
        let goal = f64::from(PERCENT);
        let error = shares.iter().map(|share| (share - goal).abs()).sum::<f64>() / count;
        let done = shares.iter().sum::<f64>() / count / goal;
        let case = format!("hard {PERCENT} %, {kernel_us} us kernels, bins of 100 ms");
        figures.push(subject.lower("mean share error", case.clone(), "points", Some(1.5), &[error])?);
        figures.push(subject.higher("work of ideal", case, "ratio", Some(0.98), &[done])?);
    }
    Ok(())
}

/// E5: requests of 4 ms at load 0.5 beside a batch tenant, against the same requests on the device alone, and against the
/// same with the batch tenant on another device: then whatever it, its launches and the simulation take of this machine's
/// processors is in both, and the rest is what sharing the device costs.
pub(super) fn express(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let requests = if settings.quick { "100" } else { "1000" };
    let arguments = ["--requests", requests, "--kernels", "40", "--gap-us", "8000"];
    let mut figures = Vec::new();
    let solo = served(&[70], "express", &arguments, None)?;
    for (kernel_us, goal) in [(50, 1.07), (150, 1.07), (1_000, 1.30)] {
        let beside = |device| Some(Beside { kernel_us, device });
        let elsewhere = served(&[70, 30], "express", &arguments, beside(1))?;
        let here = served(&[70, 30], "express", &arguments, beside(0))?;
        let case = format!("4 ms requests, load 0.5, beside {kernel_us} us kernels");
        let mut against = |name: &'static str, goal, of: f64, to: f64| -> Result<()> {
            figures.push(subject.lower(name, case.clone(), "ratio", goal, &[of / to])?);
            Ok(())
        };
        against("express p99 of alone", Some(goal), here.p99_us, solo.p99_us)?;
        against("express p50 of alone", None, here.p50_us, solo.p50_us)?;
        against("express p99 of beside it on another device", None, here.p99_us, elsewhere.p99_us)?;
        against("express p50 of beside it on another device", None, here.p50_us, elsewhere.p50_us)?;
        figures.push(subject.higher("batch tenant's share", case, "%", None, &[here.other_percent])?);
    }
    Ok(figures)
}

/// E6: an owner that comes back from idling, and a quota that changes.
pub(super) fn steps(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let requests = if settings.quick { "20" } else { "100" };
    for kernel_us in [100, 1_000] {
        // One kernel of 100 us at a time: whatever it takes beyond that, it waited for the borrower to be gone.
        let arguments = ["--requests", requests, "--kernels", "1", "--gap-us", "50000"];
        let beside = Some(Beside { kernel_us, device: 0 });
        let beside = served(&[70, 30], "standard", &arguments, beside)?;
        let waited = [beside.p50_us - 100.0, beside.p99_us - 100.0];
        let goal = 1_000.0 + cast(kernel_us);
        let case = format!("beside {kernel_us} us kernels, half of them and 99 of 100");
        figures.push(subject.lower("reclaim", case, "us", Some(goal), &waited)?);
    }
    let errors: Vec<f64> =
        (0..if settings.quick { 1 } else { 3 }).map(|_| quota_step()).collect::<Result<_>>()?;
    let case = "20 to 60 %, 100 us kernels, the 100 ms from 20 ms after the daemon says so";
    figures.push(subject.lower("share error after a quota step", case, "points", Some(5.0), &errors)?);
    Ok(figures)
}

/// How far a hard tenant's share is off in the 100 ms that begin 20 ms after its quota has changed.
fn quota_step() -> Result<f64> {
    const SETTLED: Duration = Duration::from_millis(20);
    let tenant = Tenant { more: &["mode: hard"], ..Tenant::plain(20) };
    let mut load = Load::start(&[tenant], &Ground::of(100))?;
    settle(&load)?;
    load.node.set_tenants(vec![TenantSpec::new("t0").sm(60).with("mode: hard")])?;
    let told = || {
        let status = load.node.status().ok()?;
        (status["tenants"][0]["gpus"][0]["sm_quota_ppm"] == 600_000).then(now)
    };
    let changed = wait_for(PATIENCE, told).context("the new quota never showed")?;
    wait_for(PATIENCE, || (SETTLED <= changed.elapsed()).then_some(())).context("the clock stands still")?;
    Ok((load.shares(Duration::from_millis(100))?[0] - 60.0).abs())
}

/// E9: processor time of the daemon.
pub(super) fn daemon(settings: &Settings, subject: &Subject) -> Result<Vec<Figure>> {
    let (span, runs) = spans(settings);
    let mut figures = Vec::new();
    for (tenants, goal) in [(0, 1.0), (1, 20.0), (8, 20.0)] {
        let mut load = Load::start(&vec![Tenant::plain(12); tenants], &Ground::of(2_000))?;
        // What it does once, when it starts, is no part of what it costs to keep.
        load.shares(Duration::from_secs(3))?;
        let percent: Vec<f64> = (0..runs).map(|_| load.daemon_percent(span)).collect::<Result<_>>()?;
        let case = if tenants == 0 { "idle".to_owned() } else { format!("{tenants} busy tenants") };
        figures.push(subject.lower("daemon's processor time", case, "% of a core", Some(goal), &percent)?);
    }
    Ok(figures)
}

/// What requests came to.
struct Served {
    p50_us: f64,
    p99_us: f64,
    /// What the tenant beside them had of the device.
    other_percent: f64,
}

/// A program that saturates a device with kernels of a length.
#[derive(Clone, Copy)]
struct Beside {
    kernel_us: u64,
    /// 0 is the device that the requests are for.
    device: usize,
}

/// Runs app-serve, whose kernels take 100 us, in the first tenant, which has this class, and another program in the second,
/// if there is one.
fn served(split: &[u32], class: &str, arguments: &[&str], beside: Option<Beside>) -> Result<Served> {
    let class = format!("class: {class}");
    let classes = [[class.as_str()], ["class: batch"]];
    let device = beside.map_or(0, |beside| beside.device);
    let number = device.to_string();
    let other = ["--kernel", "spin_for", "--device", &number];
    let other = [&other[..]];
    let loops: [Loops<'_>; 2] = [&[], &other];
    let tenants: Vec<Tenant<'_>> = split
        .iter()
        .zip(classes.iter().zip(loops))
        .map(|(&percent, (more, loops))| Tenant { percent, more, loops })
        .collect();
    let spin_for_us = beside.map_or(100, |beside| beside.kernel_us);
    let load = Load::start(&tenants, &Ground { spin_for_us, devices: device + 1, ..Ground::of(100) })?;
    settle(&load)?;
    load.node.device().control().mark()?;
    let outcome = load.node.run("t0", "app-serve", arguments)?.finish(PATIENCE)?.json()?;
    let of = |key: &str| outcome[key].as_f64().with_context(|| format!("app-serve said no {key}"));
    let other = load.shares_since_mark(Duration::ZERO)?;
    ensure!(beside.is_none() || 0.0 < other[1], "the tenant beside did nothing");
    Ok(Served {
        p50_us: of("p50_us")?,
        p99_us: of("p99_us")?,
        other_percent: other.get(1).copied().unwrap_or(0.0),
    })
}

fn spans(settings: &Settings) -> (Duration, usize) {
    if settings.quick { (Duration::from_secs(2), 1) } else { (Duration::from_secs(10), 1) }
}

#[expect(clippy::disallowed_methods, reason = "how long ago something was seen")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand microseconds")]
fn cast(micros: u64) -> f64 {
    micros as f64
}
