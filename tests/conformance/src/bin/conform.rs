//! Runs the conformance cases on whatever driver it finds. `conform --help` says how.
#![expect(clippy::print_stdout, reason = "what it sees is its output")]

use std::ffi::CString;
use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

use headgate_conformance::churn::{Found, churn, crowd};
use headgate_conformance::family::supported;
use headgate_conformance::gpu::{Gpu, UNIT};
use headgate_conformance::nvml::Nvml;
use headgate_conformance::transcript::Lines;
use headgate_conformance::{aside, chaos, limits, report, route, transcript};

const USAGE: &str = "\
Runs the conformance suite of Headgate on the libcuda.so.1 and libnvidia-ml.so.1 that the loader finds: NVIDIA's own
on a machine with a GPU, the simulated ones where LD_LIBRARY_PATH names their folder. Run it natively, then under the
hook (headgate run --tenant T -- conform ..), and compare.

For people and machines:
  conform report [--limits] [--scratch DIR]
                                one JSON object a line and case. With --limits also what must be refused: the program
                                must then be alone in a tenant whose memory quota is a multiple of 2 MiB
  conform compare FIRST SECOND  holds the transcripts of two reports against each other, one JSON object a line and case
  conform ways                  names of the ways to the driver's functions

For the suite's own tests:
  conform transcript [CASE..]   every observation, or those of the cases named, one a line
  conform limits                \"ok CASE\" or \"FAIL CASE: why\"; needs a quota as above
  conform churn OPERATIONS SEED random operations; \"operations N refused N drift N\"
  conform crowd THREADS OPERATIONS SEED
                                the same in so many threads, so many each
  conform turns COUNT           takes and gives back one unit, family after family; \"turned COUNT\"
  conform hog UNITS             takes units until refused; \"took N\"; holds them until standard input ends
  conform faults                for each family \"FAMILY CALL\", waits for a line, then \"CODE LEFT-BYTES\"
  conform chaos OPERATIONS SEED the same on a driver that fails; before each \"CALL\", and waits for a line
  conform loop SEED             random operations without end, for whoever kills it
  conform route WAY DIR         finds the driver in a way, takes units until refused; \"took N refused CODE\"
  conform answers               what cuGetProcAddress answers to many questions
  conform look                  for each line of input, free and total by CUDA and twice by NVML, or error numbers
  conform beside UNITS          with a context on the first device, takes physical memory on each device by turns
  conform aside UNITS           takes units, checkpoints itself, \"aside\"; for each line of input
                                restores, and the error number
  conform home NAME             starts CUDA, then tells the library in which a function is found by its name

Exit status 0: nothing failed. What a driver does not support is skipped by name, and is no failure.
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("conform: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<bool, String> {
    match words {
        ["--help" | "-h" | "help"] => {
            print!("{USAGE}");
            return Ok(true);
        }
        ["ways"] => {
            route::WAYS.iter().for_each(|(way, _)| println!("{way}"));
            return Ok(true);
        }
        ["compare", first, second] => {
            return report::compare(Path::new(first), Path::new(second), &mut |line| println!("{line}"));
        }
        ["route", way, scratch] => {
            let (units, code) = route::take(way, Path::new(scratch))?;
            println!("took {units} refused {code}");
            return Ok(true);
        }
        _ => {}
    }
    let gpu = Gpu::start().map_err(|code| format!("CUDA does not start: {code}"))?;
    match words {
        ["report", options @ ..] => told(&gpu, options),
        ["transcript", cases @ ..] => Ok(observe(&gpu, cases)),
        ["limits"] => refuse(&gpu),
        ["churn", operations, seed] => Ok(tell(churn(&gpu, number(operations)?, number(seed)?)?)),
        ["crowd", threads, operations, seed] => {
            Ok(tell(crowd(&gpu, number(threads)?, number(operations)?, number(seed)?)?))
        }
        ["loop", seed] => loop {
            churn(&gpu, 1_000, number(seed)?)?;
        },
        ["chaos", operations, seed] => {
            chaos::chaos(&gpu, number(operations)?, number(seed)?, &mut std::io::stdin().lock())?;
            Ok(true)
        }
        ["turns", count] => turns(&gpu, number(count)?),
        ["hog", units] => hog(&gpu, number(units)?),
        ["faults"] => faults(&gpu),
        ["answers"] => {
            route::answers()?.iter().for_each(|line| println!("{line}"));
            Ok(true)
        }
        ["look"] => {
            let mut orders = std::io::stdin().lock().lines();
            Ok(orders.all(|order| order.is_ok() && look(&gpu)))
        }
        ["aside", units] => {
            aside::on_order(&gpu, number(units)?).map(|()| true).map_err(|code| format!("error {code}"))
        }
        ["beside", units] => beside(&gpu, number(units)?),
        ["home", name] => {
            let name = CString::new(*name).map_err(|error| error.to_string())?;
            println!("{}", route::home_of(&name)?.display());
            Ok(true)
        }
        _ => Err("unknown words; see conform --help".into()),
    }
}

fn tell(found: Found) -> bool {
    println!("operations {} refused {} drift {}", found.operations, found.refused, found.drift_bytes);
    found.drift_bytes == 0
}

fn told(gpu: &Gpu, mut options: &[&str]) -> Result<bool, String> {
    let (mut limits, mut scratch) = (false, std::env::temp_dir());
    loop {
        options = match options {
            [] => return report::run(gpu, limits, &scratch, &mut |line| println!("{line}")),
            ["--limits", rest @ ..] => {
                limits = true;
                rest
            }
            ["--scratch", folder, rest @ ..] => {
                scratch = folder.into();
                rest
            }
            [other, ..] => return Err(format!("unknown option {other}; see conform --help")),
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|error| format!("{word}: {error}"))
}

/// All cases, or those that are named. A name that no case has is no good.
fn observe(gpu: &Gpu, wanted: &[&str]) -> bool {
    let mut good = wanted.iter().all(|wanted| transcript::all().any(|(name, _)| name == wanted));
    for (name, case) in transcript::all().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        let mut lines = Lines::default();
        let outcome = case(gpu, &mut lines);
        println!("== {name}");
        lines.0.iter().for_each(|line| println!("{line}"));
        if let Err(code) = outcome {
            println!("stopped by error {code}");
            good = false;
        }
    }
    good
}

fn refuse(gpu: &Gpu) -> Result<bool, String> {
    for family in supported(gpu)?.1 {
        println!("SKIPPED: {}: this driver does not support it", family.name);
    }
    let nvml = Nvml::start().map_err(|code| format!("NVML does not start: {code}"))?;
    let mut good = true;
    for (name, case) in limits::CASES {
        match case(gpu, &nvml) {
            Ok(()) => println!("ok {name}"),
            Err(why) => {
                println!("FAIL {name}: {why}");
                good = false;
            }
        }
    }
    Ok(good)
}

fn look(gpu: &Gpu) -> bool {
    let cuda = gpu.memory();
    match cuda {
        Ok((free, total)) => println!("cuda {free} {total}"),
        Err(code) => println!("cuda code {code}"),
    }
    let nvml = Nvml::start().and_then(|nvml| Ok([nvml.memory()?, nvml.memory_v2()?]));
    match nvml {
        Ok(views) => views.iter().for_each(|view| println!("nvml {} {}", view.free, view.total)),
        Err(code) => println!("nvml code {code}"),
    }
    cuda.is_ok() && nvml.is_ok()
}

/// Takes memory where the location says, not where the context is: on the second device until it is refused, then
/// on the first. Prints how many of each.
fn beside(gpu: &Gpu, units: u64) -> Result<bool, String> {
    for device in [1, 0] {
        let mut taken = 0u64;
        let refused = loop {
            match gpu.create_on(device, units * UNIT) {
                Ok(_) => taken += 1,
                Err(code) => break code,
            }
        };
        println!("device {device} took {taken} refused {refused}");
    }
    Ok(true)
}

fn turns(gpu: &Gpu, count: u64) -> Result<bool, String> {
    let families = supported(gpu)?.0;
    for turn in 0..count {
        let family = &families[usize::try_from(turn).unwrap_or(0) % families.len()];
        let failed = |code| format!("{} in turn {turn}: {code}", family.name);
        (family.take)(gpu, 1).map_err(failed)?(gpu).map_err(failed)?;
    }
    println!("turned {count}");
    for line in std::io::stdin().lock().lines() {
        line.map_err(|error| error.to_string())?;
    }
    Ok(true)
}

fn hog(gpu: &Gpu, units: u64) -> Result<bool, String> {
    let mut count = 0u64;
    while gpu.allocate(units * UNIT).is_ok() {
        count += 1;
    }
    println!("took {count}");
    for line in std::io::stdin().lock().lines() {
        line.map_err(|error| error.to_string())?;
    }
    Ok(true)
}

fn faults(gpu: &Gpu) -> Result<bool, String> {
    let memory = || gpu.memory().map_err(|code| format!("cuMemGetInfo: {code}"));
    let mut orders = std::io::stdin().lock().lines();
    for family in supported(gpu)?.0 {
        let (before, _) = memory()?;
        println!("{}\t{}", family.name, family.call);
        orders.next().ok_or("nobody gives orders")?.map_err(|error| error.to_string())?;
        let code = match (family.take)(gpu, 2) {
            Ok(give) => give(gpu).err().unwrap_or(0),
            Err(code) => code,
        };
        println!("{code} {}", before.abs_diff(memory()?.0));
    }
    Ok(true)
}
