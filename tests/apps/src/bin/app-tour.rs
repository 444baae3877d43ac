//! Once through cudarc's safe API: streams that fork and join, events, modules, memory in stream order, graphs,
//! memory information. Prints what it saw, a line each, without addresses, so that two runs can be compared.
//!
//! `--exact yes` also takes memory unit by unit until it is refused, which must be the driver's own out of memory
//! exactly when nothing is left.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]
#![expect(clippy::print_stdout, reason = "what it sees is its output")]

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg, sys,
};
use headgate_apps::{Arguments, load, ptx};

/// Elements of the vectors.
const COUNT: u32 = 10_000;
/// What `--exact` takes at a time.
const UNIT: usize = 2 << 20;

fn main() -> Result<()> {
    let exact = Arguments::read(&["exact"])?.text("exact", "no") == "yes";
    let context = CudaContext::new(0)?;
    let saxpy = load(&context, ptx::SAXPY)?.load_function("saxpy")?;
    println!("total is the device's: {}", context.mem_get_info()?.1 == context.total_mem()?);
    forks_and_joins(&context, &saxpy)?;
    times(&context, &saxpy)?;
    modules(&context)?;
    memory(&context)?;
    graphs(&context, &saxpy)?;
    if exact { exactly(&context) } else { Ok(()) }
}

fn launch(
    stream: &Arc<CudaStream>,
    saxpy: &CudaFunction,
    a: f32,
    x: &CudaSlice<f32>,
    y: &mut CudaSlice<f32>,
) -> Result<(), DriverError> {
    let mut launch = stream.launch_builder(saxpy);
    launch.arg(&COUNT).arg(&a).arg(x).arg(y);
    // SAFETY: the arguments are those of `saxpy`, and both slices hold `COUNT` elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(COUNT)) }.map(|_| ())
}

/// Two streams, each a part of the work, joined before the result is read.
fn forks_and_joins(context: &Arc<CudaContext>, saxpy: &CudaFunction) -> Result<()> {
    let (left, right) = (context.new_stream()?, context.new_stream()?);
    let x = left.clone_htod(&vec![1.0f32; COUNT as usize])?;
    let mut y = left.alloc_zeros::<f32>(COUNT as usize)?;
    launch(&left, saxpy, 2.0, &x, &mut y)?;
    right.join(&left)?;
    launch(&right, saxpy, 3.0, &x, &mut y)?;
    left.join(&right)?;
    let side = left.fork()?;
    launch(&side, saxpy, 4.0, &x, &mut y)?;
    left.join(&side)?;
    let result = left.clone_dtoh(&y)?;
    let right_ones = result.iter().filter(|value| value.to_bits() == 9.0f32.to_bits()).count();
    println!("forks and joins: {right_ones} of {COUNT} right");
    ensure!(right_ones == COUNT as usize, "streams did not wait for each other");
    Ok(())
}

fn times(context: &Arc<CudaContext>, saxpy: &CudaFunction) -> Result<()> {
    let stream = context.new_stream()?;
    let x = stream.clone_htod(&vec![1.0f32; COUNT as usize])?;
    let mut y = stream.alloc_zeros::<f32>(COUNT as usize)?;
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = stream.record_event(timed)?;
    for _ in 0..10 {
        launch(&stream, saxpy, 1.0, &x, &mut y)?;
    }
    let end = stream.record_event(timed)?;
    end.synchronize()?;
    println!("events: time passes: {}", 0.0 < start.elapsed_ms(&end)?);
    println!("events: none runs back: {}", end.elapsed_ms(&start)? <= 0.0);
    Ok(())
}

fn modules(context: &Arc<CudaContext>) -> Result<()> {
    let module = load(context, ptx::REDUCTION)?;
    println!("a kernel that is there: {}", module.load_function("reduce_sum").is_ok());
    println!("a kernel that is not: {:?}", module.load_function("frobnicate").err().map(|error| error.0));
    let text = cudarc::nvrtc::Ptx::from_src("no PTX");
    println!("a text that is no PTX: {:?}", context.load_module(text).err().map(|error| error.0));
    Ok(())
}

/// Memory in stream order: taken, cleared, given back.
fn memory(context: &Arc<CudaContext>) -> Result<()> {
    let stream = context.new_stream()?;
    context.synchronize()?;
    let before = context.mem_get_info()?.0;
    let held = stream.alloc_zeros::<u8>(4 * UNIT)?;
    stream.synchronize()?;
    println!("memory: taken: {}", before - context.mem_get_info()?.0);
    let zeros = stream.clone_dtoh(&held)?.iter().filter(|&&byte| byte == 0).count();
    println!("memory: zeros: {zeros}");
    drop(held);
    context.synchronize()?;
    println!("memory: left: {}", before - context.mem_get_info()?.0);
    println!("memory: far too much: {:?}", stream.alloc_zeros::<u8>(1 << 50).err().map(|error| error.0));
    Ok(())
}

/// The same work by capture, replayed.
fn graphs(context: &Arc<CudaContext>, saxpy: &CudaFunction) -> Result<()> {
    let stream = context.new_stream()?;
    let x = stream.clone_htod(&vec![1.0f32; COUNT as usize])?;
    let mut y = stream.alloc_zeros::<f32>(COUNT as usize)?;
    context.synchronize()?;
    // SAFETY: one stream does all of the work, so nothing is left to wait for across streams; waits on events from
    // outside are not allowed in a capture.
    unsafe { context.disable_event_tracking() };
    match stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_SUPPORTED)) => {
            println!("SKIPPED: graphs: this driver does not support capture");
            return Ok(());
        }
        began => began?,
    }
    launch(&stream, saxpy, 2.0, &x, &mut y)?;
    launch(&stream, saxpy, 3.0, &x, &mut y)?;
    let flags = sys::CUgraphInstantiate_flags(0);
    let graph = stream.end_capture(flags)?.context("the capture was empty")?;
    let captured = stream.clone_dtoh(&y)?;
    println!("graphs: capture runs nothing: {}", captured.iter().all(|value| *value == 0.0));
    for _ in 0..4 {
        graph.launch()?;
    }
    let result = stream.clone_dtoh(&y)?;
    let right = result.iter().filter(|value| value.to_bits() == 20.0f32.to_bits()).count();
    println!("graphs: {right} of {COUNT} right");
    ensure!(right == COUNT as usize, "the graph computed something else");
    Ok(())
}

fn exactly(context: &Arc<CudaContext>) -> Result<()> {
    let stream = context.new_stream()?;
    context.synchronize()?;
    let free = context.mem_get_info()?.0;
    let mut held = Vec::new();
    loop {
        // SAFETY: the memory is never read.
        match unsafe { stream.alloc::<u8>(UNIT) } {
            Ok(unit) => held.push(unit),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => break,
            Err(other) => bail!("refused with {other:?}"),
        }
    }
    println!("exact: units taken of those that fit: {} of {}", held.len(), free / UNIT);
    ensure!(held.len() == free / UNIT, "{} units were given of {free} bytes", held.len());
    drop(held);
    context.synchronize()?;
    let after = context.mem_get_info()?.0;
    println!("exact: left afterwards: {}", free.abs_diff(after));
    ensure!(free == after, "{} bytes did not come back", free.abs_diff(after));
    Ok(())
}
