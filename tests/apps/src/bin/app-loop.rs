//! Launches one kernel over and over for a while (`--seconds 0`: until it is killed) and counts: by itself, cooperatively
//! (`--as cooperative`), or `--graph-kernels` at a time as a graph that was captured once (`--as graph`), on `--device`.
#![expect(
    unsafe_code,
    reason = "launching a kernel is unsafe in cudarc: its arguments must fit its signature"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, LaunchConfig, PushKernelArg,
};
use headgate_apps::{Arguments, load, print, ptx};

/// How kernels are started.
enum Form {
    Plain,
    Cooperative,
    /// A graph, and the kernels in it.
    Graph(CudaGraph, u64),
}

/// What is launched, where, and with what.
struct Work {
    stream: Arc<CudaStream>,
    kernel: CudaFunction,
    counter: CudaSlice<u64>,
    config: LaunchConfig,
    /// For kernels that take it.
    cycles: Option<i64>,
}

impl Work {
    fn launch(&mut self, cooperative: bool) -> Result<()> {
        let mut launch = self.stream.launch_builder(&self.kernel);
        launch.arg(&mut self.counter);
        if let Some(cycles) = &self.cycles {
            launch.arg(cycles);
        }
        if cooperative {
            // SAFETY: the arguments are those of the kernel.
            unsafe { launch.launch_cooperative(self.config) }?;
        } else {
            // SAFETY: as above.
            unsafe { launch.launch(self.config) }?;
        }
        Ok(())
    }

    /// Captures some launches into a graph.
    fn graph(&mut self, kernels: u64) -> Result<CudaGraph> {
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        for _ in 0..kernels {
            self.launch(false)?;
        }
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        self.stream.end_capture(flags)?.context("the capture came out empty")
    }

    /// Starts kernels once, and says how many.
    fn start(&mut self, form: &Form) -> Result<u64> {
        match form {
            Form::Plain => self.launch(false).map(|()| 1),
            Form::Cooperative => self.launch(true).map(|()| 1),
            Form::Graph(graph, kernels) => {
                graph.launch()?;
                Ok(*kernels)
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an ordinary program that reads the clock")]
fn main() -> Result<()> {
    let known =
        ["seconds", "kernel", "grid", "block", "sync-every", "cycles", "as", "graph-kernels", "device"];
    let arguments = Arguments::read(&known)?;
    let length = match arguments.number("seconds", 10)? {
        0 => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    };
    let grid = u32::try_from(arguments.number("grid", 1)?)?;
    let block = u32::try_from(arguments.number("block", 32)?)?;
    let sync_every = arguments.number("sync-every", 0)?;
    let cycles = i64::try_from(arguments.number("cycles", 1_000)?)?;
    let name = arguments.text("kernel", "spin");

    let context = CudaContext::new(usize::try_from(arguments.number("device", 0)?)?)?;
    let form = arguments.text("as", "plain");
    let stream = if form == "graph" {
        // The default stream cannot be captured. Nothing of it is used in another stream, so nothing need be tracked.
        // SAFETY: there is one stream, and everything is done in its order.
        unsafe { context.disable_event_tracking() };
        context.new_stream()?
    } else {
        context.default_stream()
    };
    let kernel = load(&context, ptx::SPIN)?.load_function(&name)?;
    let counter = stream.alloc_zeros::<u64>(1)?;
    let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 };
    let cycles = (name == "spin_for").then_some(cycles);
    let mut work = Work { stream, kernel, counter, config, cycles };
    let form = match form.as_str() {
        "plain" => Form::Plain,
        "cooperative" => Form::Cooperative,
        "graph" => {
            let kernels = arguments.number("graph-kernels", 8)?;
            Form::Graph(work.graph(kernels)?, kernels)
        }
        other => bail!("--as {other}: known are plain, cooperative and graph"),
    };
    let start = Instant::now();
    let (mut launches, mut calls) = (0, 0u64);
    // The clock is read every so often only: a launch takes about as long as reading it.
    while start.elapsed() < length {
        for _ in 0..16 {
            launches += work.start(&form)?;
            calls += 1;
            if sync_every != 0 && calls.is_multiple_of(sync_every) {
                work.stream.synchronize()?;
            }
        }
    }
    work.stream.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let counted = work.stream.clone_dtoh(&work.counter)?[0];
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
