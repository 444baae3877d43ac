//! The parts, most valuable first.
//!
//! A part writes figures and facts as it finds them, minds its time, and ends with a verdict: passed, failed, or skipped with
//! the reason. A missed goal is a figure, not a failure; a failure is a thing that must never be so.

mod constants;
mod conformance;
mod shares;
mod latency;
mod overhead;
mod probes;
mod remote;
mod torch;
mod torture;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::kit::Kit;
use crate::record::{Recorder, Status};

/// Does a part; `Some` is the reason to skip it.
type Work = fn(&Kit, &mut Recorder) -> Result<Option<String>>;

/// A part of the kit.
#[derive(Debug)]
pub struct Part {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What it decides.
    pub about: &'static str,
    /// Its share of the time, beside those of the others.
    pub weight: u32,
    /// Less than this is not worth beginning.
    pub least: Duration,
    /// Not one of the proof: a test of the runner.
    pub hidden: bool,
    work: Work,
}

impl Part {
    /// Why it cannot run on this machine, if it needs a driver that is not here.
    pub(crate) fn missing_driver(&self, kit: &Kit) -> Option<String> {
        let needed = !self.hidden && !kit.simulated;
        (needed && !headgate_harness::device::has_real_driver()).then(|| {
            "there is no NVIDIA driver here (/dev/nvidiactl); --simulated runs on the simulated device"
                .to_owned()
        })
    }
}

const fn part(name: &'static str, about: &'static str, weight: u32, least_s: u64, work: Work) -> Part {
    Part { name, about, weight, least: Duration::from_secs(least_s), hidden: false, work }
}

const fn torture(name: &'static str, work: Work) -> Part {
    Part { name, about: "a test of the runner", weight: 1, least: Duration::ZERO, hidden: true, work }
}

/// Every part in order.
pub const PARTS: &[Part] = &[
    part(
        "constants",
        "what calls, edges, gates and turns cost; does a blocked wait yield",
        14,
        15,
        constants::run,
    ),
    part(
        "conformance",
        "a program sees the same natively and under the hook, and limits are exact",
        10,
        10,
        conformance::run,
    ),
    part("torch", "PyTorch, CuPy, JAX and Triton run unmodified", 24, 40, torch::run),
    part("shares", "tenants get their share of the device", 22, 15, shares::run),
    part("overhead", "what a lone tenant loses", 10, 10, overhead::run),
    part("latency", "what requests suffer from a neighbour", 10, 15, latency::run),
    part("ebpf", "the kernel probes on the real driver library", 6, 8, probes::run),
    part("remote", "a GPU over IP, by loopback", 8, 8, remote::run),
    part("demo", "the demo on this device", 5, 12, demo),
    torture("torture-hang", torture::hang),
    torture("torture-crash", torture::crash),
    torture("torture-flood", torture::flood),
    torture("torture-deaf", torture::deaf),
    torture("torture-orphan", torture::orphan),
];

/// Runs one part in this process.
///
/// # Errors
/// When results cannot be written.
pub fn run(kit: &Kit, name: &str, file: &Path, time: Duration) -> Result<ExitCode> {
    let Some(part) = PARTS.iter().find(|part| part.name == name) else {
        anyhow::bail!("there is no part {name}")
    };
    let mut recorder = Recorder::begin(name, kit.simulated, file, time)?;
    let outcome = match part.missing_driver(kit) {
        Some(why) => Ok(Some(why)),
        None => (part.work)(kit, &mut recorder),
    };
    let status = recorder.end(outcome)?;
    Ok(if status == Status::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Why what needs the CUDA runtime cannot run on the simulated device.
pub(crate) const NEEDS_RUNTIME: &str =
    "needs NVIDIA's CUDA runtime, which does not run on the simulated device; it is for the real one";

/// The demo, as `cargo demo` runs it, in a process of its own.
fn demo(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let seconds = recorder.left().as_secs().saturating_sub(20).clamp(3, 10);
    let seconds = u32::try_from(seconds)?;
    let options = headgate_harness::demo::DemoOptions { json: true, seconds, simulated: kit.simulated };
    let summary = headgate_harness::demo::measure(options)?;
    let summary = serde_json::to_value(&summary)?;
    for (tenant, row) in summary["tenants"].as_object().into_iter().flatten() {
        if let (Some(quota), Some(share)) = (row["sm_quota"].as_f64(), row["sm_share"].as_f64()) {
            let goal = Some(crate::record::Goal::AtMost(3.0));
            recorder.figure(
                "share of the device, off by",
                tenant,
                "points",
                &[(share - quota).abs()],
                goal,
            )?;
        }
    }
    for problem in summary["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        recorder.problem(problem)?;
    }
    recorder.fact("demo", summary)?;
    Ok(None)
}
