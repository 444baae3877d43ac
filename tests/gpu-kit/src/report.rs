//! From returned results to a page for `docs/results`: figures beside goals and beside the simulated device's, and the simulated
//! device's constants beside what the real one says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::clock;
use crate::record::{Figure, PartResult, Status, write_json};
use crate::summary::{goal, number, table};

/// Options of `report`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Returned results: a folder with `results*.json`, itself or up to two folders down. Parts found twice: the later counts.
    folder: PathBuf,
    /// Results of the same kit on the simulated device, for comparison.
    #[arg(long, value_name = "FILE")]
    simulated: Option<PathBuf>,
    /// Writes DATE-GPU.md and .json here instead of printing the page.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// What of the simulated device a figure calibrates: part of its configuration, the figure, the case, and to what unit.
const CALIBRATES: [(&str, &str, &str); 5] = [
    ("slice_ns", "turn of a process beside another", "first"),
    ("switch_ns, at most", "pause of a process beside another", "first"),
    (
        "poll_ns, from the host's store to the device's answer",
        "gate, from the host's store to the GPU's answer",
        "memfd page",
    ),
    (
        "cost of a stream memory operation on the device",
        "device time added between kernels",
        "an edge: write, then wait and write",
    ),
    ("kernel_default.base_ns, at most", "host time of a call", "cuLaunchKernel"),
];

/// Makes the page.
///
/// # Errors
/// When there are no results or they cannot be read.
pub fn print(options: &Options) -> Result<ExitCode> {
    let runs = read_all(&options.folder)?;
    ensure!(!runs.is_empty(), "no results*.json in {} or up to two folders down", options.folder.display());
    let simulated = options.simulated.as_deref().map(read).transpose()?;
    let page = page(&runs, simulated.as_ref())?;
    match &options.into {
        None => {
            use std::io::Write as _;
            std::io::stdout().lock().write_all(page.as_bytes())?;
        }
        Some(folder) => {
            let stem = folder.join(stem(&runs));
            let merged = merged(&runs)?;
            write_json(&stem.with_extension("json"), &merged)?;
            std::fs::write(stem.with_extension("md"), page).with_context(|| stem.display().to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// All runs, the earliest first.
fn read_all(folder: &Path) -> Result<Vec<Value>> {
    let (mut runs, mut waiting) = (Vec::new(), vec![(folder.to_owned(), 0)]);
    while let Some((folder, depth)) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && depth < 2 {
                waiting.push((path, depth + 1));
            } else if name.starts_with("results") && name.ends_with(".json") {
                runs.push(read(&path)?);
            }
        }
    }
    runs.sort_by_key(|run| run["unix_seconds"].as_u64());
    Ok(runs)
}

/// Every part once, in the order of the kit; of those found twice the later.
fn parts(runs: &[Value]) -> Result<Vec<PartResult>> {
    let mut found: BTreeMap<usize, PartResult> = BTreeMap::new();
    for part in runs.iter().flat_map(|run| run["parts"].as_array().into_iter().flatten()) {
        let part: PartResult = serde_json::from_value(part.clone()).context("a part's result")?;
        let place =
            crate::parts::PARTS.iter().position(|known| known.name == part.part).unwrap_or(usize::MAX);
        // A part that had no time in a later run does not hide what an earlier one found.
        if part.status != Status::Skipped || !found.contains_key(&place) {
            found.insert(place, part);
        }
    }
    Ok(found.into_values().collect())
}

fn device(runs: &[Value]) -> String {
    let named = runs.iter().rev().flat_map(|run| run["parts"].as_array().into_iter().flatten());
    let name = named.filter_map(|part| part["facts"]["device"].as_str()).next();
    name.unwrap_or("unknown GPU").to_owned()
}

fn stem(runs: &[Value]) -> String {
    let words = device(runs).to_lowercase();
    let slug: String = words.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug: Vec<&str> = slug.split('-').filter(|word| !word.is_empty()).collect();
    let seconds = runs.last().and_then(|run| run["unix_seconds"].as_u64()).unwrap_or(0);
    format!("{}-{}", clock::date(seconds), slug.join("-"))
}

fn merged(runs: &[Value]) -> Result<Value> {
    let mut whole = runs.last().cloned().context("no runs")?;
    whole["parts"] = serde_json::to_value(parts(runs)?)?;
    Ok(whole)
}

fn page(runs: &[Value], simulated: Option<&Value>) -> Result<String> {
    let last = runs.last().context("no runs")?;
    let parts = parts(runs)?;
    let beside: Vec<Figure> = match simulated {
        None => Vec::new(),
        Some(run) => {
            self::parts(std::slice::from_ref(run))?.into_iter().flat_map(|part| part.figures).collect()
        }
    };
    let word = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let is_simulated = runs.iter().any(|run| run["simulated"] == true);
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    let _infallible = writeln!(
        text,
        "# {} on {}{}\n\nCommit {}. Kernel {}; {}; {} CPUs.\n",
        clock::date(last["unix_seconds"].as_u64().unwrap_or(0)),
        device(runs),
        if is_simulated { " (SIMULATED: nothing here is a figure of hardware)" } else { "" },
        word(&last["kit"]["commit"]),
        word(&last["machine"]["kernel"]),
        word(&last["machine"]["driver"]),
        last["machine"]["cpus"],
    );
    for (name, state) in last["machine"].as_object().into_iter().flatten() {
        if let Some(why) = state.as_str().filter(|_| !matches!(name.as_str(), "kernel" | "driver")) {
            let _infallible = writeln!(text, "The machine lacks {name}: {why}.\n");
        }
    }
    text.push_str(&table(&parts));
    for part in parts.iter().filter(|part| !part.figures.is_empty()) {
        let _infallible = writeln!(text, "\n## {}\n", part.part);
        text.push_str("| figure | case | here | goal | met | simulated |\n|---|---|---|---|---|---|\n");
        for figure in &part.figures {
            let twin = beside.iter().find(|other| other.figure == figure.figure && other.case == figure.case);
            let _infallible = writeln!(
                text,
                "| {} | {} | {} {} ({} to {}) | {} | {} | {} |",
                figure.figure,
                figure.case,
                number(figure.value),
                figure.unit,
                number(figure.min),
                number(figure.max),
                figure.goal.map_or_else(String::new, goal),
                figure.met.map_or("", |met| if met { "yes" } else { "**no**" }),
                twin.map_or_else(String::new, |twin| number(twin.value)),
            );
        }
    }
    calibrate(&mut text, &parts);
    Ok(text)
}

/// Which constants of the simulated device these results say something about.
fn calibrate(text: &mut String, parts: &[PartResult]) {
    text.push_str("\n## The simulated device's constants\n\n");
    text.push_str("To be set in `tests/simgpu/src/config.rs` and `model/timing.rs`, citing this page.\n\n");
    text.push_str("| constant | measured here |\n|---|---|\n");
    for (constant, figure, case) in CALIBRATES {
        let found =
            parts.iter().flat_map(|part| &part.figures).find(|f| f.figure == figure && f.case == case);
        let value =
            found.map_or_else(|| "not measured".to_owned(), |f| format!("{} {}", number(f.value), f.unit));
        let _infallible = writeln!(text, "| {constant} | {value} |");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Goal;

    fn run(seconds: u64, part: &str, status: Status, value: f64) -> Value {
        let mut result = PartResult::begun(part, false);
        result.status = status;
        result.facts.insert("device".to_owned(), json!("NVIDIA H100 80GB HBM3"));
        if status == Status::Passed {
            result.figures.push(Figure {
                figure: "turn of a process beside another".to_owned(),
                case: "first".to_owned(),
                unit: "us".to_owned(),
                value,
                min: value,
                max: value,
                n: 1,
                goal: Some(Goal::AtMost(1.0)),
                met: Some(value <= 1.0),
            });
        }
        json!({ "unix_seconds": seconds, "kit": { "commit": "abc" }, "machine": { "cpus": 16, "pidfd": "ENOSYS" }, "parts": [result] })
    }

    #[test]
    fn the_later_result_counts_and_a_skip_hides_nothing() {
        let runs = [
            run(1, "constants", Status::Passed, 2.0),
            run(2, "constants", Status::Passed, 3.0),
            run(3, "constants", Status::Skipped, 0.0),
        ];
        let page = page(&runs, Some(&run(0, "constants", Status::Passed, 9.0))).unwrap();
        assert!(page.contains("| 3.000 us (3.000 to 3.000) | <= 1 | **no** | 9.000 |"), "{page}");
        assert!(page.contains("| slice_ns | 3.000 us |"), "{page}");
        assert!(page.contains("The machine lacks pidfd: ENOSYS."), "{page}");
        assert_eq!(stem(&runs), "1970-01-01-nvidia-h100-80gb-hbm3");
    }
}
