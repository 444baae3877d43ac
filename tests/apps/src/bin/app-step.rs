//! A stream of kernels like an inference step: some launches, then the program waits for the device, over and over. Says
//! what a launch cost the calling thread and how long steps took; `--shapes N` has each launch take the next of N sizes;
//! `--beside BYTES` has another thread copy so much to the device meanwhile, over and over; `--copy BYTES` measures copies
//! instead, and with `--unchecked 1` does not mind what comes back.
#![expect(unsafe_code, reason = "calls the driver API itself, so that nothing but the driver is timed")]
#![expect(clippy::disallowed_methods, reason = "an ordinary program that reads the clock")]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use cudarc::driver::sys;
use headgate_apps::{Arguments, print, ptx};

/// After what time a kernel that does next to nothing is done, wherever it runs.
const IDLE_AFTER: Duration = Duration::from_micros(500);

macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {{
        // SAFETY: arguments as the driver API's documentation says; outputs are valid for writing.
        let status = unsafe { sys::$name($($argument),*) };
        ensure!(status as u32 == 0, "{}: {status:?}", stringify!($name));
    }};
}

fn main() -> Result<()> {
    let arguments = Arguments::read(&[
        "steps",
        "launches",
        "grid",
        "shapes",
        "idle-syncs",
        "beside",
        "copy",
        "unchecked",
    ])?;
    let started = Instant::now();
    let (mut device, mut context, mut stream) = (0, null_mut(), null_mut());
    cu!(cuInit(0));
    cu!(cuDeviceGet(&raw mut device, 0));
    cu!(cuDevicePrimaryCtxRetain(&raw mut context, device));
    cu!(cuCtxSetCurrent(context));
    cu!(cuStreamCreate(&raw mut stream, 1));
    let copy = usize::try_from(arguments.number("copy", 0)?)?;
    if copy > 0 {
        return copies(copy, stream, arguments.number("unchecked", 0)? == 0);
    }
    let beside = usize::try_from(arguments.number("beside", 0)?)?;
    let (over, context) = (AtomicBool::new(false), context.expose_provenance());
    std::thread::scope(|scope| {
        let copies = (beside > 0).then(|| scope.spawn(|| upload(beside, context, &over)));
        let done = steps(&arguments, stream, started);
        over.store(true, Ordering::Release);
        let mut printed = done?;
        if let Some(copies) = copies {
            let rate = copies.join().map_err(|_| anyhow!("the copying thread panicked"))??;
            printed["beside_mb_per_s"] = rate.into();
        }
        print(&printed);
        Ok(())
    })
}

/// Copies to the device in a stream of its own, until that is enough; how many MB a second that was.
fn upload(bytes: usize, context: usize, over: &AtomicBool) -> Result<f64> {
    let (mut stream, mut place) = (null_mut(), 0u64);
    cu!(cuCtxSetCurrent(std::ptr::with_exposed_provenance_mut(context)));
    cu!(cuStreamCreate(&raw mut stream, 1));
    cu!(cuMemAlloc_v2(&raw mut place, bytes));
    let data = vec![7u8; bytes];
    let (begin, mut copies) = (Instant::now(), 0.0);
    while !over.load(Ordering::Acquire) {
        cu!(cuMemcpyHtoDAsync_v2(place, data.as_ptr().cast(), bytes, stream));
        cu!(cuStreamSynchronize(stream));
        copies += 1.0;
    }
    let rate = copies * bytes as f64 / begin.elapsed().as_secs_f64() / 1e6;
    cu!(cuMemFree_v2(place));
    Ok(rate)
}

fn steps(arguments: &Arguments, stream: sys::CUstream, started: Instant) -> Result<serde_json::Value> {
    let steps = arguments.number("steps", 50)?;
    let launches = arguments.number("launches", 64)?;
    let grid = u32::try_from(arguments.number("grid", 1)?)?;
    let (mut module, mut kernel, mut counter) = (null_mut(), null_mut(), 0u64);
    let (image, name) = (CString::new(ptx::SPIN)?, CString::new("spin")?);
    cu!(cuModuleLoadData(&raw mut module, image.as_ptr().cast()));
    cu!(cuModuleGetFunction(&raw mut kernel, module, name.as_ptr()));
    cu!(cuMemAlloc_v2(&raw mut counter, 8));
    cu!(cuMemsetD8_v2(counter, 0, 8));
    let mut params: [*mut c_void; 1] = [(&raw mut counter).cast()];
    let shapes = u32::try_from(arguments.number("shapes", 1)?)?;
    let mut shape = 0;
    let mut launch = || -> Result<()> {
        let params = params.as_mut_ptr();
        shape = (shape + 1) % shapes;
        cu!(cuLaunchKernel(kernel, grid + shape, 1, 1, 32, 1, 1, 0, stream, params, null_mut()));
        Ok(())
    };
    launch()?;
    cu!(cuStreamSynchronize(stream));
    let first_result = started.elapsed();
    let (mut calls, mut cpu, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps {
        let (begin, used) = (Instant::now(), thread_time());
        for _ in 0..launches {
            let call = Instant::now();
            launch()?;
            calls.push(call.elapsed());
        }
        cpu.push((thread_time() - used) / u32::try_from(launches)?);
        cu!(cuStreamSynchronize(stream));
        spans.push(begin.elapsed());
    }
    let mut syncs = Vec::new();
    for _ in 0..arguments.number("idle-syncs", 0)? {
        // A launch, and time for it to be done without the driver being asked.
        launch()?;
        let done = Instant::now() + IDLE_AFTER;
        while Instant::now() < done {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        cu!(cuStreamSynchronize(stream));
        syncs.push(begin.elapsed());
    }
    let mut trips = Vec::new();
    for _ in 0..syncs.len() {
        // The same at once: the driver can know nothing before the device has said so.
        let begin = Instant::now();
        launch()?;
        cu!(cuStreamSynchronize(stream));
        trips.push(begin.elapsed());
    }
    let counted = read(counter)?;
    let expected = 1 + steps * launches + (syncs.len() + trips.len()) as u64;
    ensure!(counted == expected || counted == 0, "{counted} of {expected} launches reached the device");
    Ok(serde_json::json!({
        "app": "step",
        "first_result_us": micros(first_result),
        "launch_p50_us": micros(median(&mut calls)),
        "launch_cpu_us": micros(median(&mut cpu)),
        "step_p50_us": micros(median(&mut spans)),
        "steps_total_us": micros(spans.iter().sum()),
        "idle_sync_p50_us": micros(median(&mut syncs)),
        "launch_and_sync_p50_us": micros(median(&mut trips)),
        "launches": expected,
        "counted": counted,
    }))
}

fn read(from: u64) -> Result<u64> {
    let mut value = 0u64;
    cu!(cuMemcpyDtoH_v2((&raw mut value).cast(), from, 8));
    Ok(value)
}

/// Copies there and back, checked unless the device is none.
fn copies(bytes: usize, stream: sys::CUstream, checked: bool) -> Result<()> {
    const ROUNDS: usize = 5;
    let mut place = 0u64;
    cu!(cuMemAlloc_v2(&raw mut place, bytes));
    let there: Vec<u8> = (0..bytes).map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[2]).collect();
    let mut back = vec![0u8; bytes];
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        cu!(cuMemcpyHtoDAsync_v2(place, there.as_ptr().cast(), bytes, stream));
        cu!(cuStreamSynchronize(stream));
        down.push(begin.elapsed());
        back.fill(0);
        let begin = Instant::now();
        cu!(cuMemcpyDtoHAsync_v2(back.as_mut_ptr().cast(), place, bytes, stream));
        cu!(cuStreamSynchronize(stream));
        up.push(begin.elapsed());
        ensure!(!checked || there == back, "what came back is not what was sent");
    }
    cu!(cuMemFree_v2(place));
    print(&serde_json::json!({
        "app": "step",
        "copy_bytes": bytes,
        "to_device_us": micros(median(&mut down)),
        "to_host_us": micros(median(&mut up)),
    }));
    Ok(())
}

fn thread_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn median(spans: &mut [Duration]) -> Duration {
    spans.sort_unstable();
    spans.get(spans.len() / 2).copied().unwrap_or_default()
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
