//! Answers requests that come at random moments, one after the other: `--kernels` launches and a wait for the result each,
//! `--requests` of them, a mean of `--gap-us` apart. Says how long they took from the moment they came.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]
#![expect(clippy::disallowed_methods, reason = "an ordinary program that reads the clock and sleeps")]

use std::time::{Duration, Instant};

use anyhow::Result;
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use headgate_apps::{Arguments, load, print, ptx};

fn main() -> Result<()> {
    let arguments = Arguments::read(&["requests", "kernels", "gap-us", "seed"])?;
    let requests = arguments.number("requests", 100)?;
    let kernels = arguments.number("kernels", 1)?;
    let gap = arguments.number("gap-us", 8_000)?;
    let mut chance = Chance(arguments.number("seed", 1)?);

    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let kernel = load(&context, ptx::SPIN)?.load_function("spin")?;
    let mut counter = stream.alloc_zeros::<u64>(1)?;
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 };
    let start = Instant::now();
    let mut due = Duration::ZERO;
    let mut took_us = Vec::new();
    for _ in 0..requests {
        due += chance.exponential(gap);
        // A request that came while the one before was served has waited since.
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        for _ in 0..kernels {
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&mut counter);
            // SAFETY: the arguments are those of the kernel.
            unsafe { launch.launch(config) }?;
        }
        stream.synchronize()?;
        took_us.push(u64::try_from((start.elapsed() - due).as_micros())?);
    }
    took_us.sort_unstable();
    let at = |percent: usize| took_us.get(took_us.len().saturating_sub(1) * percent / 100).copied();
    print(&serde_json::json!({
        "app": "serve",
        "requests": requests,
        "p50_us": at(50),
        "p90_us": at(90),
        "p99_us": at(99),
        "max_us": at(100),
    }));
    Ok(())
}

/// A small generator (linear congruential): the same requests for the same seed.
struct Chance(u64);

impl Chance {
    fn exponential(&mut self, mean_us: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss, reason = "a random fraction")]
        let uniform = ((self.0 >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        Duration::from_micros(mean_us).mul_f64(-uniform.ln())
    }
}
