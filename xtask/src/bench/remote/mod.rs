//! What borrowing a GPU over the network costs a program: the same binary natively and remotely, in turn, on the
//! simulated device, whose kernels take the time they are told to.
//!
//! The network is a relay in user space that holds bytes back, each way. The figures are of the simulated device: what a
//! real driver's own calls cost is not in them. The parts `audit`, `daemons` and
//! `connections` run both daemons of a development build.

mod stage;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headgate_harness::pair::field;
use headgate_harness::relay::{Relay, Wire};
use headgate_harness::{Pair, PairOptions, Program, wait_for};
use serde_json::{Value, json};

use super::{Figure, Settings, Subject};
use crate::workspace::{self, Artifacts, Profile};
use stage::{Stage, Way};

const PACKAGES: [&str; 6] = [
    "headgate-simgpu",
    "headgate-simgpu-libcuda",
    "headgate-nulldriver",
    "headgate-remote",
    "headgate-remote-libcuda",
    "headgate-apps",
];
/// A step: so many launches of so long a kernel, then the program waits. 6.4 ms, about as long as a vision model's.
const LAUNCHES: &str = "64";
const KERNEL_NS: u64 = 100_000;
/// And of a longer model's, 19.2 ms: what a round trip is of a step is a matter of how long the step is.
const LONG_KERNEL_NS: u64 = 300_000;
/// Bytes of a bulk copy.
const COPY_BYTES: u64 = 64 << 20;
/// Bytes of one of its pieces.
const PIECE: u64 = 256 << 10;
const PIECE_BYTES: usize = 256 << 10;
/// How long a wire is cut, and how long the program that notices it runs.
const CUT: Duration = Duration::from_secs(10);
const CUT_PROGRAM_S: &str = "13";
/// Longest wait for anything that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    subject: Subject,
    built: Artifacts,
    quick: bool,
}

type Part = fn(&Bench) -> Result<Vec<Figure>>;

const PARTS: &[(&str, Part)] = &[
    ("calls", calls),
    ("near", |bench| steps(bench, KERNEL_NS, &[(Way::Unix, 3.0), (Way::Tcp, 3.0)])),
    ("far", |bench| steps(bench, KERNEL_NS, &[(Way::Far(300), 8.0), (Way::Far(1_000), 30.0)])),
    ("longer", |bench| steps(bench, LONG_KERNEL_NS, &[(Way::Far(300), 8.0), (Way::Far(1_000), 30.0)])),
    ("start", start),
    ("memory", memory),
    ("copies", copies),
    ("beside", beside),
    ("cut", cut),
    ("audit", audit),
    ("daemons", daemons),
    ("connections", connections),
];

/// Runs the bench, or the part asked for.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let wanted = |name: &str| settings.part.as_ref().is_none_or(|part| part == name);
    let names = || PARTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let mut parts = PARTS.iter().filter(|(name, _)| wanted(name)).peekable();
    parts.peek().with_context(|| format!("there is no such part; there are: {}", names()))?;
    let bench = Bench {
        subject: Subject { bench: "remote", device: "simulated".to_owned(), commit: settings.commit.clone() },
        built: workspace::build(Profile::Release, &PACKAGES)?,
        quick: settings.quick,
    };
    let mut figures = Vec::new();
    for (_, part) in parts {
        figures.extend(part(&bench)?);
    }
    Ok(figures)
}

impl Bench {
    /// So many rounds, or two.
    fn rounds(&self, full: usize) -> usize {
        if self.quick { 2 } else { full }
    }

    fn stage(&self, kernel_ns: u64) -> Result<Stage> {
        let rule = json!({ "kernels": { "spin": { "base_ns": kernel_ns, "execute": false } } });
        Stage::start(&self.built, &rule)
    }

    fn step(&self) -> Result<&Path> {
        self.built.path("app-step")
    }
}

/// Client time of a launch, of waiting for an idle stream, and of waiting for a launch that was just made. Kernels take a
/// microsecond.
fn calls(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = bench.stage(1_000)?;
    let ways = [(Way::Native, None), (Way::Unix, Some(6.0)), (Way::Tcp, Some(20.0))];
    let mut samples: Vec<[Vec<f64>; 5]> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..bench.rounds(10) {
        for ((way, _), [call, cpu, new, sync, trip]) in ways.iter().zip(&mut samples) {
            let arguments = ["--steps", "50", "--launches", LAUNCHES];
            let same =
                stage.run(*way, bench.step()?, &[&arguments[..], &["--idle-syncs", "100"]].concat())?;
            call.push(same.number("launch_p50_us")?);
            cpu.push(same.number("launch_cpu_us")?);
            sync.push(same.number("idle_sync_p50_us")?);
            trip.push(same.number("launch_and_sync_p50_us")?);
            let varied = stage.run(*way, bench.step()?, &[&arguments[..], &["--shapes", "500"]].concat())?;
            new.push(varied.number("launch_cpu_us")?);
        }
    }
    let mut figures = Vec::new();
    let subject = &bench.subject;
    for ((way, sync_goal), [call, cpu, new, sync, trip]) in ways.iter().zip(&samples) {
        let goal = |goal: f64| sync_goal.map(|_| goal);
        let name = || way.name();
        figures.push(subject.lower("launch, remembered: p50 of the call", name(), "us", goal(0.5), call)?);
        figures.push(subject.lower("launch, remembered: CPU of its thread", name(), "us", goal(0.5), cpu)?);
        figures.push(subject.lower("launch, new shape: CPU of its thread", name(), "us", goal(1.5), new)?);
        figures.push(subject.lower("sync of an idle stream: p50", name(), "us", *sync_goal, sync)?);
        figures.push(subject.lower("launch and sync of it: p50", name(), "us", None, trip)?);
    }
    Ok(figures)
}

/// How much longer steps take, and how often they wait.
fn steps(bench: &Bench, kernel_ns: u64, ways: &[(Way, f64)]) -> Result<Vec<Figure>> {
    let stage = bench.stage(kernel_ns)?;
    let arguments = |steps| ["--steps", steps, "--launches", LAUNCHES];
    let mut figures = Vec::new();
    for &(way, goal) in ways {
        let (mut slower, mut beyond, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.rounds(5) {
            let native = stage.run(Way::Native, bench.step()?, &arguments("40"))?;
            let long = stage.run(way, bench.step()?, &arguments("40"))?;
            let (alone, away) = (native.number("step_p50_us")?, long.number("step_p50_us")?);
            slower.push((away / alone - 1.0) * 100.0);
            // One round trip a step is the program's own: it waits for the device.
            beyond.push((away / (alone + way.round_trip_us()) - 1.0) * 100.0);
            let short = stage.run(way, bench.step()?, &arguments("20"))?;
            waits.push((long.waits()? - short.waits()?) / 20.0);
        }
        let subject = &bench.subject;
        let case = || match kernel_ns {
            KERNEL_NS => way.name(),
            _ => format!("{}, steps of 19 ms", way.name()),
        };
        figures.push(subject.lower("slowdown of a step", case(), "%", Some(goal), &slower)?);
        if way.round_trip_us() > 0.0 {
            let goal = Some(2.0);
            figures.push(subject.lower("slowdown beyond the round trip", case(), "%", goal, &beyond)?);
        }
        let name = "round trips a step waits for";
        figures.push(subject.lower(name, case(), "a step", Some(1.0), &waits)?);
    }
    Ok(figures)
}

/// From the program's start to its first result, beyond what it takes nearby.
fn start(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = bench.stage(1_000)?;
    let arguments = ["--steps", "1", "--launches", "1"];
    let far = Way::Far(5_000);
    let (mut native, mut near, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds(10) {
        let first = |way| stage.run(way, bench.step()?, &arguments)?.number("first_result_us");
        native.push(first(Way::Native)? / 1e3);
        let (here, there) = (first(Way::Tcp)?, first(far)?);
        near.push(here / 1e3);
        trips.push((there - here) / far.round_trip_us());
    }
    let subject = &bench.subject;
    Ok(vec![
        subject.lower("first result", "native", "ms", None, &native)?,
        subject.lower("first result", Way::Tcp.name(), "ms", None, &near)?,
        subject.lower("first result: round trips", far.name(), "trips", Some(3.0), &trips)?,
    ])
}

/// Taking a piece of device memory, small enough to be carved from what was taken ahead, and one that is not. With each, what is
/// known of it is asked, which is local.
fn memory(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = bench.stage(1_000)?;
    let app = bench.built.path("app-churn")?;
    let ways = [Way::Native, Way::Unix, Way::Tcp, Way::Far(300)];
    let pieces = [("4 KiB", "4096"), ("256 KiB", "262144")];
    let mut samples: Vec<[[Vec<f64>; 2]; 2]> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..bench.rounds(5) {
        for (way, sizes) in ways.iter().zip(&mut samples) {
            for ((_, bytes), [take, free]) in pieces.iter().zip(sizes) {
                let found =
                    stage.run(*way, app, &["--rounds", "500", "--launches", "0", "--bytes", bytes])?;
                take.push(found.number("take_p50_us")?);
                free.push(found.number("free_p50_us")?);
            }
        }
    }
    let mut figures = Vec::new();
    for (way, sizes) in ways.iter().zip(&samples) {
        for ((size, _), [take, free]) in pieces.iter().zip(sizes) {
            let case = || format!("{size}, {}", way.name());
            figures.push(bench.subject.lower("device memory taken: p50", case(), "us", None, take)?);
            figures.push(bench.subject.lower("device memory freed: p50", case(), "us", None, free)?);
        }
    }
    Ok(figures)
}

/// Bulk copies, beside what TCP itself carries here; and the same with a driver that copies nothing, which is what the way
/// there and back carries without the simulated device's own copying.
fn copies(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = Stage::start(&bench.built, &json!({}))?;
    let bytes = COPY_BYTES.to_string();
    let rate = |micros: f64| COPY_BYTES as f64 / micros / 1e3;
    let nothing = Stage::on_nothing(&bench.built)?;
    let cases = [
        (&stage, Way::Native, ""),
        (&stage, Way::Unix, ""),
        (&stage, Way::Tcp, ""),
        (&nothing, Way::Unix, ", nothing copied there"),
        (&nothing, Way::Tcp, ", nothing copied there"),
    ];
    let mut samples: Vec<[Vec<f64>; 2]> = cases.iter().map(|_| Default::default()).collect();
    let (mut raw, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds(5) {
        raw.push(raw_tcp(PIECE)?);
        whole.push(raw_tcp(COPY_BYTES)?);
        for ((stage, way, alone), [down, up]) in cases.iter().zip(&mut samples) {
            let unchecked = if alone.is_empty() { "0" } else { "1" };
            let arguments = ["--copy", &bytes, "--unchecked", unchecked];
            let found = stage.run(*way, bench.step()?, &arguments)?;
            down.push(rate(found.number("to_device_us")?));
            up.push(rate(found.number("to_host_us")?));
        }
    }
    let subject = &bench.subject;
    let mut figures = vec![
        subject.higher("bulk copy", "raw TCP, one stream", "GB/s", None, &raw)?,
        subject.higher("bulk copy", "raw TCP, from and into all of the memory", "GB/s", None, &whole)?,
    ];
    let ninety = super::figure::Spread::of(&raw)
        .map(|spread| (spread.median * 90.0).round() / 100.0)
        .map(|rate| rate.min(6.0));
    for ((_, way, alone), [down, up]) in cases.iter().zip(&samples) {
        let goal = ninety.filter(|_| *way != Way::Native);
        for (direction, samples) in [("to the device", down), ("to the host", up)] {
            let case = format!("{direction}, {}{alone}", way.name());
            figures.push(subject.higher("bulk copy", case, "GB/s", goal, samples)?);
        }
    }
    Ok(figures)
}

/// Steps of one thread while another copies to the device without end: how much of what it has to send is ahead of a launch.
fn beside(bench: &Bench) -> Result<Vec<Figure>> {
    const COPY: &str = "16777216";
    let stage = bench.stage(KERNEL_NS)?;
    let steps = ["--steps", "40", "--launches", LAUNCHES];
    let mut figures = Vec::new();
    for way in [Way::Native, Way::Tcp, Way::Thin(300)] {
        let (mut alone, mut longer, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.rounds(5) {
            let step = stage.run(way, bench.step()?, &steps)?.number("step_p50_us")? / 1e3;
            let both = stage.run(way, bench.step()?, &[&steps[..], &["--beside", COPY]].concat())?;
            alone.push(step);
            longer.push(both.number("step_p50_us")? / 1e3 - step);
            rates.push(both.number("beside_mb_per_s")?);
        }
        let subject = &bench.subject;
        figures.push(subject.lower("a step, nothing beside it", way.name(), "ms", None, &alone)?);
        let name = "a step beside endless copies: longer by";
        figures.push(subject.lower(name, way.name(), "ms", None, &longer)?);
        figures.push(subject.higher("endless copies beside it", way.name(), "MB/s", None, &rates)?);
    }
    Ok(figures)
}

/// What one TCP stream carries on this machine, in GB/s: from and into so many bytes of memory, over and over. Few of them
/// stay in the processors' caches; those of a copy do not.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn raw_tcp(memory: u64) -> Result<f64> {
    let memory = usize::try_from(memory)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let reader = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        // Touched, as memory that is copied to is.
        let mut buffer = vec![1; memory];
        let (mut total, mut at) = (0, 0);
        loop {
            let end = memory.min(at + PIECE_BYTES);
            match stream.read(&mut buffer[at..end])? {
                0 => return Ok(total),
                count => (total, at) = (total + count as u64, (at + count) % memory),
            }
        }
    });
    let mut stream = TcpStream::connect(address)?;
    let bytes = vec![7; memory];
    let begin = Instant::now();
    for piece in bytes.chunks(PIECE_BYTES).cycle().take(usize::try_from(COPY_BYTES / PIECE)?) {
        stream.write_all(piece)?;
    }
    drop(stream);
    let Ok(total) = reader.join() else { bail!("the reading thread panicked") };
    ensure!(total? == COPY_BYTES, "TCP lost bytes");
    Ok(COPY_BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9)
}

/// A wire that is cut for ten seconds in the middle of a program.
#[expect(clippy::disallowed_methods, reason = "a cut of ten seconds lasts ten seconds")]
fn cut(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = Stage::start(&bench.built, &json!({}))?;
    let (mut wrong, mut back) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds(3) {
        let (_worker, address) = stage.worker(Way::Tcp)?;
        let relay = Relay::to(&address, Wire::default())?;
        let mut command = stage.away(bench.built.path("app-loop")?, relay.address());
        command.args(["--seconds", CUT_PROGRAM_S, "--sync-every", "50"]);
        let program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        wait_for(PATIENCE, || (relay.carried() > 100_000).then_some(()))
            .context("the program does nothing")?;
        relay.cut();
        std::thread::sleep(CUT);
        let before = relay.carried();
        let mended = Instant::now();
        relay.mend();
        wait_for(PATIENCE, || (relay.carried() > before + 10_000).then_some(()))
            .context("nothing comes after the cut")?;
        back.push(mended.elapsed().as_secs_f64() * 1e3);
        let output = program.wait_with_output()?;
        ensure!(
            output.status.success(),
            "the program heard of it: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let printed: Value = serde_json::from_slice(&output.stdout)?;
        let number = |field: &str| printed[field].as_u64().with_context(|| format!("no {field}: {printed}"));
        wrong.push(f64::from(u32::try_from(number("launches")?.abs_diff(number("counted")?))?));
    }
    let case = "ten seconds, TCP";
    Ok(vec![
        bench.subject.lower("cut: launches lost or done twice", case, "launches", Some(0.0), &wrong)?,
        bench.subject.lower("cut: until work goes on", case, "ms", None, &back)?,
    ])
}

/// What two daemons counted of the same sessions.
fn audit(bench: &Bench) -> Result<Vec<Figure>> {
    ensure!(headgate_harness::is_root(), "a worker is put into its guest's cgroup, which needs root");
    let pair = Pair::start(&PairOptions::default())?;
    let programs: [(&str, &[&str]); 3] = [
        ("app-matmul", &[]),
        ("app-step", &["--copy", "16777216"]),
        ("app-loop", &["--seconds", "3", "--sync-every", "5"]),
    ];
    for (app, arguments) in programs {
        let outcome = pair.run(&pair.tenants[0], app, arguments)?.finish(PATIENCE)?;
        ensure!(outcome.status.success(), "{app}: {}", outcome.stderr);
    }
    let nodes = [&pair.borrower, &pair.lender];
    wait_for(PATIENCE, || {
        nodes.iter().all(|node| Pair::lines(node, "ended").len() == programs.len()).then_some(())
    })
    .context("the books are not closed")?;
    let (mut differing, mut bytes) = (Vec::new(), 0);
    for (teller, other) in [(nodes[0], nodes[1]), (nodes[1], nodes[0])] {
        let (told, agreed) = (Pair::lines(teller, "told"), Pair::lines(other, "agreed"));
        ensure!(!told.is_empty() && told.len() == agreed.len(), "{told:?} was told, {agreed:?} agreed to");
        for (told, agreed) in told.iter().zip(&agreed) {
            let mut difference = 0;
            for kind in ["to_device", "from_device", "arguments", "images", "control", "link"] {
                bytes += field(told, kind)?;
                difference += field(told, kind)?.abs_diff(field(agreed, kind)?);
            }
            differing.push(f64::from(u32::try_from(difference)?));
        }
        ensure!(Pair::lines(other, "differs").is_empty(), "the daemons say that they do not agree");
    }
    let worst = differing.iter().copied().fold(0.0, f64::max);
    let megabytes = bytes as f64 / 1e6;
    Ok(vec![
        bench.subject.lower(
            "audit: bytes counted differently",
            "both daemons",
            "bytes",
            Some(0.0),
            &[worst],
        )?,
        bench.subject.higher("audit: bytes compared", "both daemons", "MB", None, &[megabytes])?,
    ])
}

/// What a session costs that two daemons carry, with rings between the program and its daemon and with the socket, in turn.
fn daemons(bench: &Bench) -> Result<Vec<Figure>> {
    ensure!(headgate_harness::is_root(), "a worker is put into its guest's cgroup, which needs root");
    let rule = json!({ "kernels": { "spin": { "base_ns": 1_000, "execute": false } } });
    let options = PairOptions { device: rule, connections: [1; 2], ..PairOptions::default() };
    let pair = Pair::start(&options)?;
    let bytes = COPY_BYTES.to_string();
    let rate = |micros: f64| COPY_BYTES as f64 / micros / 1e3;
    let run = |rings: &str, arguments: &[&str]| -> Result<Value> {
        let mut command = pair.command(&pair.tenants[0], "app-step", None)?;
        command.args(arguments).env("HEADGATE_REMOTE_RINGS", rings);
        Program::start("app-step", &mut command)?.finish(PATIENCE)?.json()
    };
    let number = |found: &Value, field: &str| {
        found[field].as_f64().with_context(|| format!("the program printed no {field}: {found}"))
    };
    let ways = [("1", "rings to its daemon"), ("0", "socket to its daemon")];
    let mut samples: [[Vec<f64>; 5]; 2] = Default::default();
    for _ in 0..bench.rounds(7) {
        for ((rings, _), [call, step, trip, down, up]) in ways.iter().zip(&mut samples) {
            let found = run(rings, &["--steps", "50", "--launches", LAUNCHES, "--idle-syncs", "50"])?;
            call.push(number(&found, "launch_p50_us")?);
            step.push(number(&found, "step_p50_us")?);
            trip.push(number(&found, "launch_and_sync_p50_us")?);
            let found = run(rings, &["--copy", &bytes, "--unchecked", "0"])?;
            down.push(rate(number(&found, "to_device_us")?));
            up.push(rate(number(&found, "to_host_us")?));
        }
    }
    let subject = &bench.subject;
    let mut figures = Vec::new();
    for ((_, way), [call, step, trip, down, up]) in ways.iter().zip(&samples) {
        let case = |what: &str| format!("{what}two daemons, {way}");
        figures.push(subject.lower("launch, remembered: p50 of the call", case(""), "us", None, call)?);
        figures.push(subject.lower("step of 64 launches: p50", case(""), "us", None, step)?);
        figures.push(subject.lower("launch and sync of it: p50", case(""), "us", None, trip)?);
        figures.push(subject.higher("bulk copy", case("to the device, "), "GB/s", None, down)?);
        figures.push(subject.higher("bulk copy", case("to the host, "), "GB/s", None, up)?);
    }
    Ok(figures)
}

/// What a session copies that two daemons carry over one connection and over four: over a wire that gives each connection a share,
/// and over the loopback, where all of it needs the same processors.
fn connections(bench: &Bench) -> Result<Vec<Figure>> {
    ensure!(headgate_harness::is_root(), "a worker is put into its guest's cgroup, which needs root");
    const SHARE: u64 = 25_000_000;
    let bytes = COPY_BYTES.to_string();
    let rate = |found: &Value, field: &str| -> Result<f64> {
        let micros = found[field].as_f64();
        Ok(COPY_BYTES as f64
            / micros.with_context(|| format!("the program printed no {field}: {found}"))?
            / 1e3)
    };
    let mut figures = Vec::new();
    for (bytes_per_second, over) in [(SHARE, "200 Mbit/s for each connection"), (0, "loopback")] {
        for (each, so_many) in [(1, "one connection"), (4, "four connections")] {
            let wire = Wire { bytes_per_second, ..Wire::default() };
            let options = PairOptions { connections: [each; 2], wire, ttl_s: 60, ..PairOptions::default() };
            let pair = Pair::start(&options)?;
            let (mut down, mut up) = (Vec::new(), Vec::new());
            for _ in 0..bench.rounds(3) {
                let program =
                    pair.run(&pair.tenants[0], "app-step", &["--copy", &bytes, "--unchecked", "0"])?;
                let found = program.finish(PATIENCE)?.json()?;
                down.push(rate(&found, "to_device_us")?);
                up.push(rate(&found, "to_host_us")?);
            }
            let case = |way: &str| format!("{way}, two daemons, {over}, {so_many}");
            figures.push(bench.subject.higher("bulk copy", case("to the device"), "GB/s", None, &down)?);
            figures.push(bench.subject.higher("bulk copy", case("to the host"), "GB/s", None, &up)?);
        }
    }
    Ok(figures)
}
