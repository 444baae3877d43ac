//! E0: what the design rests on. What calls cost, what an edge between batches adds on the device, how fast a gate opens, how
//! long a turn of a process is, and whether a stream that waits at a gate gives its turn to others.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::{Node, Program, TenantSpec};
use serde_json::json;

use super::shares::{Trace, rate};
use crate::kit::{Calibration, How, Kit, fact, lines, parse};
use crate::record::{Goal, Recorder};

/// A driver library may take a while to load for the first time.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    prologues(kit, recorder)?;
    let node = kit.node(vec![TenantSpec::new("alerts")])?;
    kernel_programs(&node, recorder)?;
    for what in ["describe", "calls", "gate"] {
        match lines(kit.gpu(&node, How::Native, &[what])?, PATIENCE.min(recorder.left())) {
            Ok(found) => recorder.lines(&found, "")?,
            Err(error) => recorder.problem(format!("{what}: {error:#}"))?,
        }
    }
    let calibration = Calibration::measure(kit, &node)?;
    yields(kit, recorder, &node, &calibration)?;
    if kit.simulated {
        recorder.fact("turns", "not measured: the simulated device is told its slice")?;
    } else {
        turns(kit, recorder, &node)?;
    }
    Ok(None)
}

/// The first instructions of the calls that have probes, and where the probes would sit.
fn prologues(kit: &Kit, recorder: &mut Recorder) -> Result<()> {
    let candidates = if kit.simulated {
        vec![kit.root.join("bin/libheadgate_simcuda.so")]
    } else {
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/cuda/compat"]
            .map(|folder| PathBuf::from(folder).join("libcuda.so.1"))
            .to_vec()
    };
    let Some(library) = candidates.iter().find(|path| path.exists()) else {
        return recorder.problem(format!("no libcuda.so.1 at any of {candidates:?}"));
    };
    let sites = headgate_ebpf::survey(library).with_context(|| library.display().to_string())?;
    let dear = sites.iter().filter(|site| !site.cheap).count();
    let rows: Vec<_> = sites
        .iter()
        .map(|site| json!({ "symbols": site.symbols, "offset": site.offset, "cheap": site.cheap, "code": hex(&site.code) }))
        .collect();
    recorder.fact("libcuda", library.canonicalize()?.display().to_string())?;
    recorder.fact("probe_sites", rows)?;
    let (count, dear) = (u32::try_from(sites.len())?, u32::try_from(dear)?);
    recorder.figure("probe sites in libcuda", "all", "sites", &[count.into()], Some(Goal::AtLeast(1.0)))?;
    recorder.figure(
        "probe sites in libcuda",
        "single-stepped",
        "sites",
        &[dear.into()],
        Some(Goal::AtMost(0.0)),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Which kernel programs load and attach, by the daemon's own word.
fn kernel_programs(node: &Node, recorder: &mut Recorder) -> Result<()> {
    let status = node.status()?;
    recorder.fact("probes", status["probes"].clone())?;
    recorder.fact("identity", status["identity"].clone())?;
    let witness: Vec<String> =
        node.log().lines().filter(|line| line.contains("kernel")).map(str::to_owned).collect();
    recorder.fact("kernel_programs", witness)
}

/// A program that holds a context until it is told to let go.
struct Holder(Child);

impl Holder {
    fn start(mut command: Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a holder")?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("its output")?).read_line(&mut line)?;
        let holder = Self(child);
        anyhow::ensure!(line.contains("holding"), "the holder said {line:?} instead of holding");
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input lets it go; it is killed only if that does not help.
        drop(self.0.stdin.take().map(|mut input| input.flush()));
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            crate::clock::pause(Duration::from_millis(20));
        }
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// THE question: a loop's throughput alone, beside an idle context, beside a stream that waits at a closed gate, and
/// beside a second loop. If a blocked wait yields, the third is as the first; if it does not, it is as the fourth.
fn yields(kit: &Kit, recorder: &mut Recorder, node: &Node, calibration: &Calibration) -> Result<()> {
    let seconds = if kit.simulated { 1.0 } else { 3.0 };
    let run = || -> Result<Program> { looping(kit, node, calibration, 200, seconds) };
    let alone = |program: Program| -> Result<f64> {
        let trace = Trace::of(&parse(&program.finish(PATIENCE)?)?)?;
        Ok(trace.rate_all())
    };
    let solo = alone(run()?)?;
    let idle = {
        let _holder = Holder::start(kit.gpu(node, How::Native, &["hold"])?)?;
        alone(run()?)?
    };
    let blocked = {
        let _holder = Holder::start(kit.gpu(node, How::Native, &["hold", "--blocked"])?)?;
        alone(run()?)?
    };
    let (first, second) = (run()?, run()?);
    let traces = [first, second].map(|program| Trace::of(&parse(&program.finish(PATIENCE)?)?));
    let [first, second] = traces;
    let (first, second) = (first?, second?);
    let busy = rate(&first, &first.overlap(&second)).context("two loops did not overlap")?;
    const NAME: &str = "throughput of a loop, of what it has alone";
    recorder.figure(NAME, "beside an idle context", "ratio", &[idle / solo], None)?;
    recorder.figure(
        NAME,
        "beside a stream that waits at a closed gate",
        "ratio",
        &[blocked / solo],
        Some(Goal::AtLeast(0.97)),
    )?;
    recorder.figure(NAME, "beside a second loop", "ratio", &[busy / solo], None)?;
    let yields = busy + (idle - busy) / 2.0 < blocked;
    recorder.fact("a_blocked_wait_yields", yields)?;
    if !yields {
        recorder.problem(
            "a stream that waits at a closed gate keeps its turn of the device: gates on the device cost what they hold; \
             `gate: host` (spec.gpus) costs nothing then, see what it comes to in `shares`",
        )?;
    }
    Ok(())
}

fn looping(kit: &Kit, node: &Node, calibration: &Calibration, us: u32, seconds: f64) -> Result<Program> {
    let mut words =
        vec!["loop".to_owned(), "--seconds".to_owned(), seconds.to_string(), "--round".to_owned()];
    words.push((5_000 / us).max(1).to_string());
    words.extend(kit.work(calibration, us));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Program::start("a loop", &mut kit.gpu(node, How::Native, &words)?)
}

/// How long a process has the device, and how long it is without, while two want it.
fn turns(kit: &Kit, recorder: &mut Recorder, node: &Node) -> Result<()> {
    let start =
        || Program::start("a trace", &mut kit.gpu(node, How::Native, &["trace", "--milliseconds", "2000"])?);
    let (first, second) = (start()?, start()?);
    for (name, program) in [("first", first), ("second", second)] {
        let found = parse(&program.finish(PATIENCE)?)?;
        let trace = fact(&found, "trace")?;
        for (key, figure) in [
            ("turns_us", "turn of a process beside another"),
            ("pauses_us", "pause of a process beside another"),
        ] {
            let samples: Vec<f64> =
                trace[key].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect();
            recorder.figure(figure, name, "us", &samples, None)?;
        }
    }
    Ok(())
}
