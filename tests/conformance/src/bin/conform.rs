//! Runs the conformance cases on whatever driver it finds.
//!
//! ```text
//! conform transcript            every observation, one a line; compare two of them
//! conform limits                "ok CASE" or "FAIL CASE: why"; needs a quota and no neighbours in the tenant
//! conform churn OPERATIONS SEED random operations; "operations N refused N drift N"
//! conform hog UNITS             takes units until refused; "took N"; holds them until standard input ends
//! conform faults                for each family "FAMILY CALL", waits for a line, then "CODE LEFT-BYTES"
//! conform loop SEED             random operations without end, for whoever kills it
//! ```
#![expect(clippy::print_stdout, reason = "what it sees is its output")]

use std::io::BufRead;
use std::process::ExitCode;

use headgate_conformance::churn::churn;
use headgate_conformance::family::supported;
use headgate_conformance::gpu::{Gpu, UNIT};
use headgate_conformance::nvml::Nvml;
use headgate_conformance::transcript::Lines;
use headgate_conformance::{limits, transcript};

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
    let gpu = Gpu::start().map_err(|code| format!("CUDA does not start: {code}"))?;
    match words {
        ["transcript"] => Ok(observe(&gpu)),
        ["limits"] => refuse(&gpu),
        ["churn", operations, seed] => {
            let found = churn(&gpu, number(operations)?, number(seed)?)?;
            println!("operations {} refused {} drift {}", found.operations, found.refused, found.drift_bytes);
            Ok(found.drift_bytes == 0)
        }
        ["loop", seed] => loop {
            churn(&gpu, 1_000, number(seed)?)?;
        },
        ["hog", units] => hog(&gpu, number(units)?),
        ["faults"] => faults(&gpu),
        _ => {
            Err("usage: conform transcript | limits | churn OPERATIONS SEED | hog UNITS | faults | loop SEED"
                .into())
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|error| format!("{word}: {error}"))
}

fn observe(gpu: &Gpu) -> bool {
    let mut good = true;
    for (name, case) in transcript::CASES {
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
