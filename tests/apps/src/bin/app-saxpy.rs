//! y = a x + y on the device, checked against the CPU bit by bit.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]

use anyhow::{Result, ensure};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use headgate_apps::{Arguments, load, numbers, print, ptx};

fn main() -> Result<()> {
    let count = u32::try_from(Arguments::read(&["count"])?.number("count", 100_000)?)?;
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let kernel = load(&context, ptx::SAXPY)?.load_function("saxpy")?;
    let (a, x) = (2.5f32, numbers(count as usize));
    let y: Vec<f32> = x.iter().rev().copied().collect();
    let x_device = stream.clone_htod(&x)?;
    let mut y_device = stream.clone_htod(&y)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&count).arg(&a).arg(&x_device).arg(&mut y_device);
    // SAFETY: the arguments are those of `saxpy`, and both slices hold `count` elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(count)) }?;
    let result = stream.clone_dtoh(&y_device)?;
    // The device fuses multiply and add, as nvcc does by default.
    let wrong = (0..result.len()).filter(|&i| result[i].to_bits() != a.mul_add(x[i], y[i]).to_bits()).count();
    print(&serde_json::json!({ "app": "saxpy", "elements": count, "wrong": wrong }));
    ensure!(wrong == 0, "{wrong} of {count} elements are wrong");
    Ok(())
}
