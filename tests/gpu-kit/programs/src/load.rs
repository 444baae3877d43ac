//! Work for shares and latencies: loops that say what was done when, and requests that say how long they took.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::gpu::{CUevent, Gpu, Work};
use crate::{Looping, WorkArgs, fact, line, now, now_us, pause};

/// Most pairs of time and count that a loop prints.
const SAMPLES_MAX: usize = 4_000;

/// Microseconds of one launch of so many steps, the middle of some.
fn launch_us(gpu: &Gpu, steps: u32, blocks: u32) -> Result<f64> {
    const ROW: u32 = 20;
    let stream = Gpu::stream()?;
    let work = Work::new(gpu, steps, blocks)?;
    let mut samples = Vec::new();
    for _ in 0..9 {
        let start = now();
        for _ in 0..ROW {
            work.launch(stream)?;
        }
        Gpu::synchronise(stream)?;
        samples.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(ROW));
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[samples.len() / 2])
}

/// Steps that one launch takes so many microseconds for. On the simulated device, where kernels take the time that the
/// device was told, it is always one.
pub(crate) fn steps_for_us(gpu: &Gpu, us: f64, blocks: u32) -> Result<u32> {
    if gpu.name()?.contains("Simulated") {
        return Ok(1);
    }
    let (few, many) = (10_000, 110_000);
    // A device that idled runs slower for a while.
    let start = now();
    while start.elapsed() < Duration::from_millis(200) {
        launch_us(gpu, many, blocks)?;
    }
    let slope = (launch_us(gpu, many, blocks)? - launch_us(gpu, few, blocks)?) / f64::from(many - few);
    ensure!(0.0 < slope, "more steps took no longer: {slope} us a step");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    Ok((us / slope).clamp(1.0, 2e9) as u32)
}

pub(crate) fn calibrate() -> Result<()> {
    let gpu = Gpu::start()?;
    for us in [5.0, 50.0, 500.0, 5_000.0, 50_000.0, 200_000.0] {
        let steps = steps_for_us(&gpu, us, 1)?;
        line(&json!({ "fact": format!("steps_for_{us}_us"), "value": steps }))?;
    }
    Ok(())
}

pub(crate) fn looping(options: &Looping) -> Result<()> {
    let gpu = Gpu::start()?;
    let stream = Gpu::stream()?;
    let work = Work::new(&gpu, options.work.steps, options.work.blocks)?;
    let graph = (options.graph != 0).then(|| Gpu::graph(&work, stream, options.graph)).transpose()?;
    let each = u64::from(options.graph.max(1));
    // Two rounds under way, a third waited for: the device never runs dry, and what is done is known to a round.
    let mut events: VecDeque<(CUevent, u64)> = VecDeque::new();
    let mut spare = vec![Gpu::event(false)?, Gpu::event(false)?, Gpu::event(false)?];
    let mut launched = 0u64;
    let mut samples: Vec<(u64, u64)> = Vec::new();
    fact("looping", now_us())?;
    let (start, length) = (now(), Duration::from_secs_f64(options.seconds));
    while start.elapsed() < length {
        for _ in 0..options.round {
            match graph {
                Some(exec) => Gpu::launch_graph(exec, stream)?,
                None => work.launch(stream)?,
            }
            launched += each;
            if options.sync_every != 0 && launched.is_multiple_of(u64::from(options.sync_every)) {
                Gpu::synchronise(stream)?;
            }
        }
        if let Some(event) = spare.pop() {
            Gpu::record(event, stream)?;
            events.push_back((event, launched));
        }
        if spare.is_empty()
            && let Some((event, count)) = events.pop_front()
        {
            Gpu::wait(event)?;
            samples.push((now_us(), count));
            spare.push(event);
        }
    }
    Gpu::synchronise(stream)?;
    samples.push((now_us(), launched));
    let every = samples.len().div_ceil(SAMPLES_MAX).max(1);
    let last = samples.last().copied();
    let mut samples: Vec<(u64, u64)> = samples.into_iter().step_by(every).collect();
    samples.extend(last);
    fact(
        "done",
        json!({ "launches": launched, "seconds": start.elapsed().as_secs_f64(), "samples": samples }),
    )
}

/// Numbers in `0.0..1.0`, the same on every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(0)) / 4_294_967_296.0
    }
}

pub(crate) fn serve(work: WorkArgs, kernels: u32, rate: f64, seconds: f64) -> Result<()> {
    ensure!(0.0 < rate, "requests must arrive");
    let gpu = Gpu::start()?;
    let stream = Gpu::stream()?;
    let work = Work::new(&gpu, work.steps, work.blocks)?;
    let request = || -> Result<()> {
        for _ in 0..kernels {
            work.launch(stream)?;
        }
        Gpu::synchronise(stream)
    };
    for _ in 0..20 {
        request()?;
    }
    fact("serving", now_us())?;
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (start, mut due, mut took) = (now(), 0.0f64, Vec::new());
    while due < seconds {
        // The time between arrivals; a request that finds another under way waits, and that counts.
        due += -(1.0 - chance.next()).ln() / rate;
        let wait = due - start.elapsed().as_secs_f64();
        if 0.0 < wait {
            pause(Duration::from_secs_f64(wait));
        }
        // The sleep is the machine's, not the device's: what it overslept is not counted.
        let from = if 0.0 < wait { start.elapsed().as_secs_f64() } else { due };
        request()?;
        took.push((start.elapsed().as_secs_f64() - from) * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let at = |share: usize, of: usize| took.get(took.len() * share / of).copied().unwrap_or(f64::NAN);
    fact(
        "served",
        json!({
            "requests": took.len(), "p50_ms": at(50, 100), "p95_ms": at(95, 100), "p99_ms": at(99, 100),
            "p999_ms": at(999, 1000), "max_ms": took.last(),
        }),
    )
}
