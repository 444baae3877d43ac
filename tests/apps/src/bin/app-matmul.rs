//! A tiled matrix product on the device, checked against the CPU.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]

use anyhow::{Result, ensure};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use headgate_apps::{Arguments, load, numbers, print, ptx};

const TILE: u32 = 16;

fn main() -> Result<()> {
    let n = u32::try_from(Arguments::read(&["n"])?.number("n", 70)?)?;
    let side = n as usize;
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let kernel = load(&context, ptx::MATMUL)?.load_function("matmul")?;
    let all = numbers(2 * side * side);
    let (a, b) = all.split_at(side * side);
    let (a_device, b_device) = (stream.clone_htod(a)?, stream.clone_htod(b)?);
    let mut c_device = stream.alloc_zeros::<f32>(side * side)?;
    let tiles = n.div_ceil(TILE);
    let config =
        LaunchConfig { grid_dim: (tiles, tiles, 1), block_dim: (TILE, TILE, 1), shared_mem_bytes: 0 };
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&a_device).arg(&b_device).arg(&mut c_device).arg(&n);
    // SAFETY: the arguments are those of `matmul`, and each matrix holds n x n elements.
    unsafe { launch.launch(config) }?;
    let c = stream.clone_dtoh(&c_device)?;
    let mut error_max = 0.0f32;
    for row in 0..side {
        for column in 0..side {
            let expected: f32 = (0..side).map(|k| a[row * side + k] * b[k * side + column]).sum();
            error_max = error_max.max((c[row * side + column] - expected).abs());
        }
    }
    // Sums of `side` products below one differ in rounding only.
    let allowed = f32::from(u16::try_from(n)?) * f32::from(u16::try_from(n)?) * f32::EPSILON;
    print(&serde_json::json!({ "app": "matmul", "n": n, "error_max": error_max }));
    ensure!(error_max <= allowed, "off by {error_max}, more than rounding explains ({allowed})");
    Ok(())
}
