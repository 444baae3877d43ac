//! GPU-over-IP by loopback: a worker in a tenant of the node, and the same program natively and through it, by turns. Programs on the
//! driver API find the client in the driver's place; programs on NVIDIA's runtime keep the node's own driver beside it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Node, Program, TenantSpec, workspace};
use serde_json::Value;

use super::shares::Trace;
use crate::kit::{Calibration, How, Kit, lines, tail};
use crate::record::{Goal, Recorder};

const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a bulk copy.
const COPY_BYTES: u64 = 64 << 20;
/// Microseconds of a kernel, and launches between two waits: about a vision model's inference.
const KERNEL_US: u32 = 100;
const LAUNCHES: u32 = 64;
/// Programs on NVIDIA's runtime: a script of the kit's, and what it is given.
const RUNTIME_PROGRAMS: [(&str, &[&str]); 3] = [
    ("runtime.py", &["libcudart.so.12"]),
    ("runtime.py", &["libcudart.so.13"]),
    ("frameworks.py", &["infer"]),
];
/// One of them may compile kernels for the first time.
const CASE_MAX: Duration = Duration::from_secs(75);

/// How a program reaches its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Native,
    Remote(Transport),
}

impl Way {
    const ALL: [Self; 3] = [Self::Native, Self::Remote(Transport::Unix), Self::Remote(Transport::Tcp)];

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Remote(Transport::Unix) => "same host, Unix socket",
            Self::Remote(Transport::Tcp) => "loopback TCP",
        }
    }
}

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    let node =
        kit.node(vec![TenantSpec::new("guest").sm(100).memory(if kit.simulated { "8Gi" } else { "40Gi" })])?;
    for app in ["app-saxpy", "app-matmul", "app-reduction"] {
        let native = once(kit, &node, Way::Native, app, &[])?;
        for way in &Way::ALL[1..] {
            let remote = once(kit, &node, *way, app, &[])?;
            if native != remote {
                let printed = format!("{app}, {}: {remote:?}, natively {native:?}", way.name());
                recorder.problem(format!("results differ: {printed}"))?;
            }
        }
    }
    calls(kit, &node, recorder)?;
    copies(kit, &node, recorder)?;
    loss(kit, &node, recorder)?;
    if kit.simulated {
        recorder.fact("beside_a_driver", format!("skipped: {}", super::NEEDS_RUNTIME))?;
    } else {
        beside(kit, &node, recorder)?;
    }
    Ok(None)
}

/// Programs on NVIDIA's runtime: what they print with the driver's own device, and with the borrowed one in its place. Here
/// both are one GPU, so that results must be equal.
fn beside(kit: &Kit, node: &Node, recorder: &mut Recorder) -> Result<()> {
    for (script, words) in RUNTIME_PROGRAMS {
        let name = words.join(" ");
        if recorder.left() < Duration::from_secs(20) {
            return recorder.fact("cut_short", format!("no time for {name} beside a driver"));
        }
        let patience = CASE_MAX.min(recorder.left());
        let native = printed(kit.python(node, How::Native, script, words)?, patience)?;
        let Ok(native) = native else {
            // Without the library or the framework there is nothing to compare.
            recorder.fact(&format!("beside a driver, {name}: not natively either"), native.err())?;
            continue;
        };
        let worker = Worker::in_tenant(node, "guest", Transport::Unix)?;
        let mut command = kit.python(node, How::Native, script, words)?;
        command.env("LD_PRELOAD", workspace::program("libheadgate_redirect.so")?);
        command.env("HEADGATE_REMOTE", worker.address()).env("HEADGATE_REMOTE_LOG", "1");
        match printed(command, patience.min(recorder.left()))? {
            Ok(redirected) if redirected == native => {
                recorder.fact(&format!("beside a driver, {name}"), redirected)?;
            }
            other => recorder.problem(format!("beside a driver, {name}: {other:?}, natively {native:?}"))?,
        }
    }
    Ok(())
}

/// What a program says that must be equal: its lines or, where it prints JSON, the result in it. An error's text if it fails.
fn printed(mut command: Command, patience: Duration) -> Result<Result<Vec<String>, String>> {
    let outcome = match Program::start("a program on the runtime", &mut command)?.finish(patience) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(Err(tail(&format!("{error:#}")).to_owned())),
    };
    if !outcome.status.success() {
        return Ok(Err(format!("{}: {}{}", outcome.status, tail(&outcome.stdout), tail(&outcome.stderr))));
    }
    let result = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(value) if value["skipped"].is_string() => Err(value["skipped"].to_string()),
        Ok(value) => Ok(value["result"].to_string()),
        Err(_) => Ok(line.to_owned()),
    };
    Ok(outcome.stdout.lines().map(result).collect())
}

/// Runs a program of the kit's once. A worker serves one session, so there is one for each run.
fn once(kit: &Kit, node: &Node, way: Way, program: &str, words: &[&str]) -> Result<Vec<Value>> {
    let program: PathBuf = workspace::program(program)?;
    match way {
        Way::Native => lines(kit.command(node, How::Native, &program, words)?, PATIENCE),
        Way::Remote(transport) => {
            let worker = Worker::in_tenant(node, "guest", transport)?;
            let mut command = worker.command(&program)?;
            command.args(words);
            lines(command, PATIENCE)
        }
    }
}

/// What the calling thread gives for a launch, and how long it waits for a stream that is idle.
fn calls(kit: &Kit, node: &Node, recorder: &mut Recorder) -> Result<()> {
    for way in Way::ALL {
        let (mut call, mut cpu, mut sync) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if kit.simulated { 1 } else { 5 } {
            let words = ["--steps", "50", "--launches", "64", "--idle-syncs", "100"];
            let found = once(kit, node, way, "app-step", &words)?;
            call.extend(number(&found, "launch_p50_us"));
            cpu.extend(number(&found, "launch_cpu_us"));
            sync.extend(number(&found, "idle_sync_p50_us"));
        }
        let goals = match way {
            Way::Native => None,
            Way::Remote(Transport::Unix) => Some(6.0),
            Way::Remote(Transport::Tcp) => Some(20.0),
        };
        let goal = |value: f64| goals.filter(|_| !kit.simulated).map(|_| Goal::AtMost(value));
        recorder.figure("a remembered launch: the call", way.name(), "us", &call, goal(0.5))?;
        recorder.figure("a launch: CPU of its thread", way.name(), "us", &cpu, goal(1.5))?;
        recorder.figure(
            "waiting for an idle stream",
            way.name(),
            "us",
            &sync,
            goal(goals.unwrap_or_default()),
        )?;
    }
    Ok(())
}

fn copies(kit: &Kit, node: &Node, recorder: &mut Recorder) -> Result<()> {
    let bytes = COPY_BYTES.to_string();
    for way in Way::ALL {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for _ in 0..if kit.simulated { 1 } else { 3 } {
            let found = once(kit, node, way, "app-step", &["--copy", &bytes])?;
            #[expect(clippy::cast_precision_loss, reason = "a rate for display")]
            let rate = |micros: f64| COPY_BYTES as f64 / micros / 1e3;
            down.extend(number(&found, "to_device_us").map(rate));
            up.extend(number(&found, "to_host_us").map(rate));
        }
        let goal = (way != Way::Native && !kit.simulated).then_some(Goal::AtLeast(6.0));
        recorder.figure("bulk copy to the device", way.name(), "GB/s", &down, goal)?;
        recorder.figure("bulk copy to the host", way.name(), "GB/s", &up, goal)?;
    }
    Ok(())
}

/// What a program like an inference loses: launches, then a wait, over and over.
fn loss(kit: &Kit, node: &Node, recorder: &mut Recorder) -> Result<()> {
    let calibration = Calibration::measure(kit, node)?;
    let Some(seconds) = recorder.each(9, Duration::from_secs(1), Duration::from_secs(5)) else {
        return recorder.fact("cut_short", "no time for what a step loses");
    };
    let (seconds, launches) = (seconds.as_secs_f64().to_string(), LAUNCHES.to_string());
    let mut words: Vec<String> =
        ["loop", "--seconds", &seconds, "--round", &launches, "--sync-every", &launches]
            .map(str::to_owned)
            .to_vec();
    words.extend(kit.work(&calibration, KERNEL_US));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let rate = |way: Way| -> Result<f64> {
        let rate = Trace::of(&once(kit, node, way, "kit-gpu", &words)?)?.rate_all();
        ensure!(rate.is_finite(), "a loop without a rate");
        Ok(rate)
    };
    for way in &Way::ALL[1..] {
        let (first, second, third, fourth) =
            (rate(Way::Native)?, rate(*way)?, rate(*way)?, rate(Way::Native)?);
        let samples = [(first / second - 1.0) * 100.0, (fourth / third - 1.0) * 100.0];
        recorder.figure(
            "a step takes longer",
            way.name(),
            "percent",
            &samples,
            Some(Goal::AtMost(3.0)).filter(|_| !kit.simulated),
        )?;
    }
    Ok(())
}

fn number(found: &[Value], field: &str) -> Option<f64> {
    found.iter().find_map(|line| line[field].as_f64())
}
