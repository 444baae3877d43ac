//! Launches one kernel over and over for a while (`--seconds 0`: until it is killed) and counts.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use headgate_apps::{Arguments, load, print, ptx};

#[expect(clippy::disallowed_methods, reason = "an ordinary program that reads the clock")]
fn main() -> Result<()> {
    let arguments = Arguments::read(&["seconds", "kernel", "grid", "block", "sync-every", "cycles"])?;
    let length = match arguments.number("seconds", 10)? {
        0 => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    };
    let grid = u32::try_from(arguments.number("grid", 1)?)?;
    let block = u32::try_from(arguments.number("block", 32)?)?;
    let sync_every = arguments.number("sync-every", 0)?;
    let cycles = i64::try_from(arguments.number("cycles", 1_000)?)?;
    let name = arguments.text("kernel", "spin");

    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let kernel = load(&context, ptx::SPIN)?.load_function(&name)?;
    let mut counter = stream.alloc_zeros::<u64>(1)?;
    let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 };
    let start = Instant::now();
    let mut launches = 0u64;
    // The clock is read every so often only: a launch takes about as long as reading it.
    while start.elapsed() < length {
        for _ in 0..16 {
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&mut counter);
            if name == "spin_for" {
                launch.arg(&cycles);
            }
            // SAFETY: the arguments are those of the kernel.
            unsafe { launch.launch(config) }?;
            launches += 1;
            if sync_every != 0 && launches.is_multiple_of(sync_every) {
                stream.synchronize()?;
            }
        }
    }
    stream.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let counted = stream.clone_dtoh(&counter)?[0];
    print(&serde_json::json!({
        "app": "loop",
        "kernel": name,
        "launches": launches,
        "counted": counted,
        "seconds": seconds,
        "launches_per_second": rate(launches, seconds),
    }));
    // A modelled kernel that is not executed counts nothing; one that is must not lose a launch.
    ensure!(counted == launches || counted == 0, "{counted} of {launches} launches reached the device");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate for display")]
fn rate(launches: u64, seconds: f64) -> f64 {
    launches as f64 / seconds
}
