//! What is measured, for tests and benches alike. Shares are the device's, in percent of elapsed device time.

use headgate_abi::segment::SegmentError;
use headgate_quota::{Class, ComputeQuota, Mode, Ppm};
use headgate_simgpu::model::Nanos;

use crate::node::{Node, Pace, TenantPlan};
use crate::program::{Behaviour, ProgramPlan};

const US: Nanos = 1_000;
const MS: Nanos = 1_000 * US;

/// A quota in percent.
///
/// # Panics
/// Above 100.
#[must_use]
pub fn quota(percent: u32, mode: Mode, class: Class) -> ComputeQuota {
    let Some(nominal) = Ppm::from_percent(percent) else { panic!("{percent} % of a device") };
    ComputeQuota { nominal, borrowing_limit: None, lending_limit: None, mode, class }
}

/// A standard tenant that borrows, with one program.
#[must_use]
pub fn tenant(percent: u32, program: ProgramPlan) -> TenantPlan {
    TenantPlan { quota: quota(percent, Mode::Borrow, Class::Standard), programs: vec![program] }
}

/// Shares of saturating tenants, and how much of the device they had together.
#[derive(Clone, PartialEq, Debug)]
pub struct Shares {
    /// Percent of elapsed device time, by tenant.
    pub percent: Vec<f64>,
    /// Greatest distance of any tenant's share from its quota, in points.
    pub error: f64,
    /// Device time of all together over elapsed time.
    pub total: f64,
}

/// Shares over `span_ns`, after 100 ms to settle, or the time of ten kernels of each tenant if that is more: all
/// gates are open at first, and what long kernels overlap then is repaid.
///
/// # Errors
/// When the kernel gives no shared memory.
pub fn shares(plans: &[TenantPlan], span_ns: Nanos, seed: u64) -> Result<Shares, SegmentError> {
    let mut node = Node::start(plans, Pace::default(), seed)?;
    let ten: Nanos = plans.iter().flat_map(|plan| &plan.programs).map(|program| program.kernel_ns * 10).sum();
    let settled = ten.max(100 * MS);
    node.run_until(settled);
    let before: Vec<Nanos> = (0..plans.len()).map(|tenant| node.busy_ns(tenant)).collect();
    node.run_until(settled + span_ns);
    let percent: Vec<f64> =
        (0..plans.len()).map(|tenant| percent(node.busy_ns(tenant) - before[tenant], span_ns)).collect();
    let off = |(share, plan): (&f64, &TenantPlan)| (share - f64::from(plan.quota.nominal.get()) / 1e4).abs();
    let error = percent.iter().zip(plans).map(off).fold(0.0, f64::max);
    let total = percent.iter().sum::<f64>() / 100.0;
    Ok(Shares { percent, error, total })
}

/// A lone hard tenant: mean absolute error of its share in bins, in points, and work done over ideal.
///
/// # Errors
/// When the kernel gives no shared memory.
pub fn hard_cap(
    percent_of_device: u32,
    kernel_ns: Nanos,
    bins: u32,
    seed: u64,
) -> Result<(f64, f64), SegmentError> {
    const BIN: Nanos = 100 * MS;
    let plan = TenantPlan {
        quota: quota(percent_of_device, Mode::Hard, Class::Standard),
        programs: vec![ProgramPlan::saturating(kernel_ns)],
    };
    let mut node = Node::start(&[plan], Pace::default(), seed)?;
    node.run_until(BIN);
    let (mut last, mut off, mut done) = (node.busy_ns(0), 0.0, 0.0);
    for bin in 0..bins {
        node.run_until(BIN * (u64::from(bin) + 2));
        let busy = node.busy_ns(0);
        let share = percent(busy - last, BIN);
        last = busy;
        off += (share - f64::from(percent_of_device)).abs();
        done += share;
    }
    let bins = f64::from(bins);
    Ok((off / bins, done / bins / f64::from(percent_of_device)))
}

/// Percentile 99 of an express tenant's requests beside a batch tenant and alone, and the batch tenant's share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Express {
    /// Over the same requests on a device of its own.
    pub p99_ratio: f64,
    /// Percent of elapsed device time that the batch tenant had.
    pub batch_share: f64,
}

/// Requests of 4 ms at load 0.5 beside a batch tenant with kernels of `batch_kernel_ns`.
///
/// # Errors
/// When the kernel gives no shared memory.
pub fn express(batch_kernel_ns: Nanos, span_ns: Nanos, seed: u64) -> Result<Express, SegmentError> {
    let requests = ProgramPlan::of(Behaviour::Serve { kernels: 40, gap_ns: 8 * MS }, 100 * US);
    let express = TenantPlan { quota: quota(70, Mode::Borrow, Class::Express), programs: vec![requests] };
    let batch = TenantPlan {
        quota: quota(30, Mode::Borrow, Class::Batch),
        programs: vec![ProgramPlan::saturating(batch_kernel_ns)],
    };
    let run = |plans: &[TenantPlan]| -> Result<(Nanos, f64), SegmentError> {
        let mut node = Node::start(plans, Pace::default(), seed)?;
        node.run_until(span_ns);
        Ok((p99(node.latencies(0)), percent(node.busy_ns(1), span_ns)))
    };
    let (alone, _) = run(std::slice::from_ref(&express))?;
    let (beside, batch_share) = run(&[express, batch])?;
    Ok(Express { p99_ratio: beside as f64 / alone.max(1) as f64, batch_share })
}

/// How long after its first launch the first kernel of an owner that comes back has ended, less that kernel's own
/// length; and the share a lone borrower had until then.
///
/// # Errors
/// When the kernel gives no shared memory.
pub fn reclaim(kernel_ns: Nanos, seed: u64) -> Result<(Nanos, f64), SegmentError> {
    let back = 200 * MS + seed % 7 * 313 * US;
    let mut owner = ProgramPlan::saturating(kernel_ns);
    owner.from_ns = back;
    let plans = [tenant(70, owner), tenant(30, ProgramPlan::saturating(kernel_ns))];
    let mut node = Node::start(&plans, Pace::default(), seed)?;
    node.run_until(back);
    let alone = percent(node.busy_ns(1), back) / 100.0;
    while node.memory(0).first_kernel.is_none() && node.now() < back + 1_000 * MS {
        node.run_until(node.now() + 10 * US);
    }
    Ok((node.memory(0).first_kernel.unwrap_or(node.now()).saturating_sub(back + kernel_ns), alone))
}

/// How long after a change of quota from 20/80 to 60/40 every later span of 100 ms has the new shares within
/// `points`.
///
/// # Errors
/// When the kernel gives no shared memory.
pub fn settles(kernel_ns: Nanos, points: f64, seed: u64) -> Result<Nanos, SegmentError> {
    const LOOK: Nanos = 100 * MS;
    const STEP: Nanos = MS;
    let program = ProgramPlan::saturating(kernel_ns);
    let mut node = Node::start(&[tenant(20, program), tenant(80, program)], Pace::default(), seed)?;
    let change = 500 * MS;
    node.run_until(change);
    let quotas = [60, 40].map(|percent| quota(percent, Mode::Borrow, Class::Standard));
    node.set_quotas(&quotas);
    let mut seen = vec![node.busy_ns(0)];
    while node.now() < change + 300 * MS {
        node.run_until(node.now() + STEP);
        seen.push(node.busy_ns(0));
    }
    let steps = usize::try_from(LOOK / STEP).unwrap_or(1);
    let wrong = |at: &usize| (percent(seen[at + steps] - seen[*at], LOOK) - 60.0).abs() > points;
    let last = (0..seen.len() - steps).rfind(wrong);
    Ok(last.map_or(0, |at| (at as u64 + 1) * STEP))
}

/// Percentile 99 of a batch tenant's requests beside a saturating one, as they came in the first half of `span_ns`, and
/// in the second half, from 20 ms after it has been raised to express.
///
/// # Errors
/// When the kernel gives no shared memory.
pub fn raised(span_ns: Nanos, seed: u64) -> Result<(Nanos, Nanos), SegmentError> {
    let requests = ProgramPlan::of(Behaviour::Serve { kernels: 40, gap_ns: 8 * MS }, 100 * US);
    let saturating = ProgramPlan::saturating(100 * US);
    let of = |percent, class, program| TenantPlan {
        quota: quota(percent, Mode::Borrow, class),
        programs: vec![program],
    };
    let mut node = Node::start(
        &[of(70, Class::Batch, requests), of(30, Class::Batch, saturating)],
        Pace::default(),
        seed,
    )?;
    node.run_until(span_ns / 2);
    node.set_quotas(&[quota(70, Mode::Borrow, Class::Express), quota(30, Mode::Borrow, Class::Batch)]);
    let before = node.latencies(0).len();
    node.run_until(node.now() + 20 * MS);
    let settled = node.latencies(0).len();
    node.run_until(span_ns);
    Ok((p99(&node.latencies(0)[..before]), p99(&node.latencies(0)[settled..])))
}

/// The value that one in a hundred is above.
#[must_use]
pub fn p99(values: &[Nanos]) -> Nanos {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "spans of device time fit 53 bits for months")]
fn percent(part: Nanos, whole: Nanos) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
