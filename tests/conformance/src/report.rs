//! The suite as one JSON object a line and case, for machines that keep results: the GPU kit, above all.
//!
//! ```text
//! {"suite":"headgate-conformance","device":"..","driver_version":13000,"simulated":true}
//! {"kind":"transcript","case":"8/a pool keeps ..","groups":[8],"state":"ok","lines":["reserved: ..",..]}
//! {"kind":"limits","case":"12/unit by unit ..","groups":[12],"state":"failed","why":".."}
//! {"kind":"route","case":"dlvsym","groups":[18],"state":"skipped","why":".."}
//! ```
//!
//! A transcript's lines are facts, right or wrong only by comparison: `compare` holds the same cases of two reports
//! against each other, natively and under the hook.

use std::io::BufRead as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::family::supported;
use crate::gpu::{Gpu, OUT_OF_MEMORY, UNIT};
use crate::nvml::Nvml;
use crate::transcript::Lines;
use crate::{limits, route, transcript};

/// The complaint groups a case's name begins with: `13/15/every view ..` is `[13, 15]`.
#[must_use]
pub fn groups(case: &str) -> Vec<u32> {
    case.split('/').map_while(|part| part.parse().ok()).collect()
}

/// One line of the report.
fn line(kind: &str, case: &str, outcome: Result<Vec<String>, String>) -> Value {
    let mut line = json!({ "kind": kind, "case": case, "groups": groups(case) });
    match outcome {
        Ok(lines) => {
            line["state"] = "ok".into();
            if !lines.is_empty() {
                line["lines"] = lines.into();
            }
        }
        Err(why) => {
            let skipped = why.strip_prefix("SKIPPED: ");
            line["state"] = if skipped.is_some() { "skipped" } else { "failed" }.into();
            line["why"] = skipped.unwrap_or(&why).into();
        }
    }
    line
}

/// Runs the transcript, and under a quota also what must be refused and the ways to the driver. Hands each line to
/// `say`; whether nothing failed.
///
/// # Errors
/// When CUDA or NVML does not start.
pub fn run(
    gpu: &Gpu,
    under_quota: bool,
    scratch: &Path,
    say: &mut dyn FnMut(&Value),
) -> Result<bool, String> {
    let mut good = true;
    let mut tell = |line: Value| {
        good &= line["state"] != "failed";
        say(&line);
    };
    tell(subject(gpu)?);
    for (name, case) in transcript::all() {
        let mut lines = Lines::default();
        let outcome = case(gpu, &mut lines).map_err(|code| format!("stopped by error {code}"));
        tell(line("transcript", name, outcome.map(|()| lines.0)));
    }
    tell(line("transcript", "17/18/what cuGetProcAddress answers", route::answers()));
    if !under_quota {
        return Ok(good);
    }
    for family in supported(gpu)?.1 {
        let why = "SKIPPED: this driver does not support it".to_owned();
        tell(line("family", family.name, Err(why)));
    }
    let nvml = Nvml::start().map_err(|code| format!("NVML does not start: {code}"))?;
    for (name, case) in limits::CASES {
        tell(line("limits", name, case(gpu, &nvml).map(|()| Vec::new())));
    }
    for (way, _) in route::WAYS {
        let units = gpu.memory().map_err(|code| format!("cuMemGetInfo: {code}"))?.0 / UNIT;
        tell(line(
            "route",
            &format!("18/{way}"),
            in_its_own_process(way, scratch, units).map(|()| Vec::new()),
        ));
    }
    Ok(good)
}

/// What the suite runs on.
fn subject(gpu: &Gpu) -> Result<Value, String> {
    let name = gpu.name().map_err(|code| format!("the device's name: {code}"))?;
    let version = gpu.driver_version().map_err(|code| format!("the driver's version: {code}"))?;
    let simulated = name.to_ascii_lowercase().contains("simulated");
    Ok(json!({
        "suite": "headgate-conformance", "device": name, "driver_version": version, "simulated": simulated,
    }))
}

/// A way to the driver is tried by another process, in which nothing is loaded yet.
fn in_its_own_process(way: &str, scratch: &Path, units: u64) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["route", way])
        .arg(scratch)
        .output()
        .map_err(|error| format!("starting itself: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("SKIPPED: {}", why.trim().trim_start_matches("conform: ")));
    }
    let expected = format!("took {units} refused {OUT_OF_MEMORY}");
    if said.trim() == expected { Ok(()) } else { Err(format!("{} instead of {expected}", said.trim())) }
}

/// Holds the transcripts of two reports against each other; whether all are the same.
///
/// # Errors
/// When a file cannot be read or is no report.
pub fn compare(first: &Path, second: &Path, say: &mut dyn FnMut(&Value)) -> Result<bool, String> {
    let (first, second) = (transcripts(first)?, transcripts(second)?);
    let mut same = true;
    for (case, lines) in &first {
        let other = second.iter().find(|(name, _)| name == case).map(|(_, lines)| lines);
        let outcome = match other {
            None => Err("missing in the second report".to_owned()),
            Some(other) => difference(lines, other).map_or(Ok(Vec::new()), Err),
        };
        same &= outcome.is_ok();
        say(&line("compare", case, outcome));
    }
    Ok(same && !first.is_empty())
}

fn difference(first: &Value, second: &Value) -> Option<String> {
    if first == second {
        return None;
    }
    let empty = Vec::new();
    let (one, two) = (first.as_array().unwrap_or(&empty), second.as_array().unwrap_or(&empty));
    let at = one.iter().zip(two).position(|(one, two)| one != two);
    Some(match at {
        Some(at) => format!("line {at}: {} instead of {}", two[at], one[at]),
        None => format!("{} lines instead of {}", two.len(), one.len()),
    })
}

fn transcripts(report: &Path) -> Result<Vec<(String, Value)>, String> {
    let place = |error: &dyn std::fmt::Display| format!("{}: {error}", report.display());
    let file = std::fs::File::open(report).map_err(|error| place(&error))?;
    let mut found = Vec::new();
    for text in std::io::BufReader::new(file).lines() {
        let text = text.map_err(|error| place(&error))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| place(&error))?;
        if value["kind"] == "transcript" {
            found.push((value["case"].as_str().unwrap_or_default().to_owned(), value["lines"].clone()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_groups() {
        assert_eq!(groups("13/15/every view agrees"), [13, 15]);
        assert_eq!(groups("families/every family"), Vec::<u32>::new());
    }

    #[test]
    fn outcomes_become_states() {
        assert_eq!(line("k", "8/c", Ok(vec!["a".into()]))["state"], "ok");
        assert_eq!(line("k", "8/c", Err("SKIPPED: none here".into()))["why"], "none here");
        assert_eq!(line("k", "8/c", Err("broken".into()))["state"], "failed");
    }

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(difference(&json!(["a", "b"]), &json!(["a", "b"])), None);
        assert_eq!(
            difference(&json!(["a", "b"]), &json!(["a", "c"])).unwrap(),
            "line 1: \"c\" instead of \"b\""
        );
        assert_eq!(difference(&json!(["a"]), &json!([])).unwrap(), "0 lines instead of 1");
    }
}
