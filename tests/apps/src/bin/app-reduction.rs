//! A sum over many blocks on the device (shared memory, barriers, atomics), checked against the CPU.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]

use anyhow::{Result, ensure};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use headgate_apps::{Arguments, load, numbers, print, ptx};

fn main() -> Result<()> {
    let count = u32::try_from(Arguments::read(&["count"])?.number("count", 50_000)?)?;
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let kernel = load(&context, ptx::REDUCTION)?.load_function("reduce_sum")?;
    // Small whole numbers: their sum is exact in f32 in whatever order the atomics add it up.
    let values: Vec<f32> = numbers(count as usize).iter().map(|value| (value * 8.0).floor()).collect();
    let expected: f32 = values.iter().sum();
    let values_device = stream.clone_htod(&values)?;
    let mut sum_device = stream.alloc_zeros::<f32>(1)?;
    let config = LaunchConfig { grid_dim: (16, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&values_device).arg(&mut sum_device).arg(&count);
    // SAFETY: the arguments are those of `reduce_sum`, and the slice holds `count` elements.
    unsafe { launch.launch(config) }?;
    let sum = stream.clone_dtoh(&sum_device)?[0];
    print(&serde_json::json!({ "app": "reduction", "elements": count, "sum": sum, "expected": expected }));
    ensure!(sum.to_bits() == expected.to_bits(), "the sum is {sum} instead of {expected}");
    Ok(())
}
