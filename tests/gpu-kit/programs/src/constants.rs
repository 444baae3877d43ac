//! What calls cost on the host, what an edge costs on the device, and how a gate behaves.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use serde_json::json;

use crate::gpu::{CUstream, Gpu, OPEN, Page, Work};
use crate::{as_f64, fact, figure, line, now, pause};

/// Batches of calls timed together.
const BATCHES: usize = 200;
/// Calls of a batch: few enough that no queue of the driver fills.
const BATCH: u32 = 64;

pub(crate) fn describe() -> Result<()> {
    let gpu = Gpu::start()?;
    fact("device", gpu.name()?)?;
    fact("cuda_driver_version", Gpu::driver_version()?)?;
    fact("memory_total_bytes", Gpu::memory()?.1 as u64)?;
    for (name, attribute) in [
        ("sm_count", Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        ("compute_capability_major", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        ("compute_capability_minor", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        ("sm_clock_khz", Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        ("compute_mode", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE),
        ("stream_memory_operations_64_bit", Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS),
        ("stream_wait_nor", Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR),
        ("read_only_host_register", Attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED),
        ("compute_preemption", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED),
    ] {
        // A driver that does not know an attribute leaves it out of the facts.
        if let Ok(value) = gpu.attribute(attribute) {
            fact(name, value)?;
        }
    }
    Ok(())
}

/// Nanoseconds of one call, by batch: the mean of each.
fn timed(stream: CUstream, mut call: impl FnMut(u32) -> Result<()>) -> Result<Vec<f64>> {
    let mut samples = Vec::with_capacity(BATCHES);
    for batch in 0..BATCHES + 10 {
        let start = now();
        for number in 0..BATCH {
            call(number)?;
        }
        let elapsed = start.elapsed();
        Gpu::synchronise(stream)?;
        // The first few fill caches and load code.
        if 10 <= batch {
            samples.push(elapsed.as_secs_f64() * 1e9 / f64::from(BATCH));
        }
    }
    Ok(samples)
}

pub(crate) fn calls(launches_only: bool) -> Result<()> {
    const NAME: &str = "host time of a call";
    let gpu = Gpu::start()?;
    let stream = Gpu::stream()?;
    let nothing = gpu.function(c"nothing")?;
    let launch = |_| Gpu::launch_nothing(nothing, stream);
    figure(NAME, "cuLaunchKernel", "ns", &timed(stream, launch)?)?;
    let mut singles = Vec::new();
    for round in 0..40 {
        for _ in 0..BATCH {
            let start = now();
            launch(0)?;
            if 2 < round {
                singles.push(start.elapsed().as_secs_f64() * 1e9);
            }
        }
        Gpu::synchronise(stream)?;
    }
    singles.sort_by(f64::total_cmp);
    let p99 = singles[singles.len() * 99 / 100];
    figure(NAME, "cuLaunchKernel, 99th percentile of single calls", "ns", &[p99])?;
    if launches_only {
        return Ok(());
    }
    figure(NAME, "cuCtxGetDevice", "ns", &timed(stream, |_| Gpu::current_device().map(drop))?)?;
    figure(NAME, "cuStreamIsCapturing", "ns", &timed(stream, |_| Gpu::is_capturing(stream).map(drop))?)?;
    figure(NAME, "cuMemGetInfo", "ns", &timed(stream, |_| Gpu::memory().map(drop))?)?;
    for (case, timing) in [("cuEventRecord without timing", false), ("cuEventRecord with timing", true)] {
        let event = Gpu::event(timing)?;
        figure(NAME, case, "ns", &timed(stream, |_| Gpu::record(event, stream))?)?;
    }
    let page = Page::of_memfd(false)?;
    page.set_gate(OPEN);
    figure(NAME, "cuStreamWriteValue32", "ns", &timed(stream, |number| page.write(stream, number))?)?;
    figure(NAME, "cuStreamWaitValue32, satisfied", "ns", &timed(stream, |_| page.wait(stream))?)?;
    let both = timed(stream, |number| page.wait_and_write(stream, number))?;
    figure(NAME, "cuStreamBatchMemOp of wait and write", "ns", &both)?;
    let edge = timed(stream, |number| {
        page.write(stream, number)?;
        page.wait_and_write(stream, number)
    })?;
    figure(NAME, "an edge between batches: write, then wait and write", "ns", &edge)?;
    let launch_and_edge = timed(stream, |number| {
        launch(number)?;
        page.write(stream, number)?;
        page.wait_and_write(stream, number)
    })?;
    figure(NAME, "cuLaunchKernel and an edge", "ns", &launch_and_edge)
}

/// Device time that something adds between two kernels: what a row of kernels takes with and without it.
fn bubble(stream: CUstream, work: &Work, between: &dyn Fn(u32) -> Result<()>) -> Result<Vec<f64>> {
    const ROW: u32 = 200;
    let mut samples = Vec::new();
    let row = |with: bool| -> Result<f64> {
        let start = now();
        for number in 0..ROW {
            work.launch(stream)?;
            if with {
                between(number)?;
            }
        }
        Gpu::synchronise(stream)?;
        Ok(start.elapsed().as_secs_f64() * 1e9)
    };
    for round in 0..21 {
        let (without, with) = (row(false)?, row(true)?);
        if 0 < round {
            samples.push((with - without) / f64::from(ROW));
        }
    }
    Ok(samples)
}

pub(crate) fn gate() -> Result<()> {
    let gpu = Gpu::start()?;
    let stream = Gpu::stream()?;
    for (fact_name, read_only) in [("memfd_page_registers", false), ("memfd_page_registers_read_only", true)]
    {
        let outcome = Page::of_memfd(read_only).map_or_else(|why| json!(format!("{why:#}")), |_| json!(true));
        fact(fact_name, outcome)?;
    }
    let page = Page::of_memfd(false).context("the page that gates lie in cannot be registered")?;
    page.set_gate(OPEN);

    // Kernels long enough that the host, which adds an edge of some microseconds, keeps ahead.
    let steps = crate::load::steps_for_us(&gpu, 30.0, 1)?;
    let work = Work::new(&gpu, steps, 1)?;
    const NAME: &str = "device time added between kernels";
    figure(NAME, "a write", "ns", &bubble(stream, &work, &|number| page.write(stream, number))?)?;
    let edge = |number| {
        page.write(stream, number)?;
        page.wait_and_write(stream, number)
    };
    figure(NAME, "an edge: write, then wait and write", "ns", &bubble(stream, &work, &edge)?)?;
    let event = Gpu::event(false)?;
    figure(NAME, "an event without timing", "ns", &bubble(stream, &work, &|_| Gpu::record(event, stream))?)?;

    figure("gate, from the host's store to the GPU's answer", "memfd page", "us", &latency(stream, &page)?)?;
    let depth = depth(&gpu, stream, &page)?;
    fact("launches_queued_behind_a_closed_gate_before_the_call_blocks", depth)
}

/// Opens a gate that the device waits at, and looks when the device says that it has passed.
fn latency(stream: CUstream, page: &Page) -> Result<Vec<f64>> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut samples = Vec::new();
    for number in 1..=500u32 {
        page.set_gate(0);
        page.wait_and_write(stream, number)?;
        // Long enough that the device has come to the wait.
        let enqueued = now();
        while enqueued.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        ensure!(page.passed() != number, "the gate was passed while it was closed");
        let start = now();
        page.set_gate(OPEN);
        while page.passed() != number {
            ensure!(start.elapsed() < PATIENCE, "the gate is open and was not passed within {PATIENCE:?}");
            std::hint::spin_loop();
        }
        if 20 < number {
            samples.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Gpu::synchronise(stream)?;
    Ok(samples)
}

/// How many launches go behind a closed gate before a call blocks. `0` when as many as were tried did.
fn depth(gpu: &Gpu, stream: CUstream, page: &Page) -> Result<u64> {
    const TRIED: u64 = 20_000;
    let nothing = gpu.function(c"nothing")?;
    page.set_gate(0);
    page.wait_and_write(stream, 0)?;
    let (launched, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let gate = page.gate();
    let stuck = std::thread::scope(|scope| -> Result<Option<u64>> {
        let watcher = scope.spawn(|| {
            let (mut last, mut still) = (u64::MAX, 0);
            while !ended.load(SeqCst) && still < 20 {
                pause(Duration::from_millis(10));
                let count = launched.load(SeqCst);
                still = if count == last { still + 1 } else { 0 };
                last = count;
            }
            gate.store(OPEN, SeqCst);
            (20 <= still).then_some(last)
        });
        let mut outcome = Ok(());
        while outcome.is_ok() && launched.load(SeqCst) < TRIED {
            outcome = Gpu::launch_nothing(nothing, stream);
            launched.fetch_add(1, SeqCst);
        }
        ended.store(true, SeqCst);
        let stuck = watcher.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?;
        outcome.map(|()| stuck)
    })?;
    Gpu::synchronise(stream)?;
    Ok(stuck.unwrap_or(0))
}

pub(crate) fn hold(blocked: bool) -> Result<()> {
    let gpu = Gpu::start()?;
    let stream = Gpu::stream()?;
    let page = Page::of_memfd(false)?;
    Gpu::launch_nothing(gpu.function(c"nothing")?, stream)?;
    Gpu::synchronise(stream)?;
    if blocked {
        page.set_gate(0);
        page.wait_and_write(stream, 1)?;
        Gpu::launch_nothing(gpu.function(c"nothing")?, stream)?;
        let start = now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        ensure!(page.passed() == 0, "the gate was passed while it was closed");
    }
    fact("holding", blocked)?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    page.set_gate(OPEN);
    Gpu::synchronise(stream)?;
    fact("held", true)
}

pub(crate) fn trace(milliseconds: u64, threshold_ns: u64) -> Result<()> {
    let gpu = Gpu::start()?;
    fact("tracing", true)?;
    let (start, mut pauses) = (now(), Vec::new());
    // Short kernels, one behind the other: a display or a watchdog may object to long ones.
    while start.elapsed() < Duration::from_millis(milliseconds) {
        pauses.extend(gpu.trace(milliseconds.min(200), threshold_ns)?);
    }
    let lengths: Vec<f64> = pauses.iter().map(|(_, length)| as_f64(*length) / 1e3).collect();
    // Two pauses in one kernel, one after the other: what lies between is a turn.
    let turns = pauses.windows(2).filter_map(|pair| {
        let ended = pair[0].0 + pair[0].1;
        (ended < pair[1].0).then(|| as_f64(pair[1].0 - ended) / 1e3)
    });
    let turns: Vec<f64> = turns.collect();
    line(&json!({ "fact": "trace", "value": { "pauses_us": thin(&lengths), "turns_us": thin(&turns) } }))
}

/// At most a few hundred of many.
fn thin(values: &[f64]) -> Vec<f64> {
    let every = values.len().div_ceil(500).max(1);
    values.iter().copied().step_by(every).collect()
}
