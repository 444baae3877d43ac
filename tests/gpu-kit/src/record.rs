//! What a part finds, kept in a file from the first figure on, so that nothing is lost when the part is ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock;

/// How a part ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is under way; in a file that nobody writes any more, it was cut off.
    Running,
    /// All it looked at is as it should be.
    Passed,
    /// Something is not as it should be; `problems` says what.
    Failed,
    /// It cannot run here; `why` says what it lacks.
    Skipped,
    /// It did not end within its time and was killed. What it had found is kept.
    TimedOut,
    /// It ended without saying how.
    Crashed,
}

impl Status {
    /// The word in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::TimedOut => "TIMED OUT",
            Self::Crashed => "CRASHED",
        }
    }
}

/// What a figure is to reach.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    /// Whether a value reaches it.
    #[must_use]
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => least <= value,
        }
    }
}

/// A figure and its spread.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub figure: String,
    /// Under which circumstances.
    pub case: String,
    /// Its unit.
    pub unit: String,
    /// The middle sample.
    pub value: f64,
    /// The least sample.
    pub min: f64,
    /// The greatest sample.
    pub max: f64,
    /// Number of samples.
    pub n: usize,
    /// What it is to reach.
    pub goal: Option<Goal>,
    /// Whether it does.
    pub met: Option<bool>,
}

/// All that a part found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PartResult {
    /// The part.
    pub part: String,
    /// How it ended.
    pub status: Status,
    /// Why it was skipped, or how it died.
    pub why: String,
    /// What is not as it should be.
    pub problems: Vec<String>,
    /// Seconds it took.
    pub seconds: f64,
    /// Whether the device was simulated.
    pub simulated: bool,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What else was found.
    pub facts: BTreeMap<String, Value>,
    /// The end of what it printed.
    pub log: String,
}

impl PartResult {
    /// A part that has just begun.
    #[must_use]
    pub fn begun(part: &str, simulated: bool) -> Self {
        Self {
            part: part.to_owned(),
            status: Status::Running,
            why: String::new(),
            problems: Vec::new(),
            seconds: 0.0,
            simulated,
            figures: Vec::new(),
            facts: BTreeMap::new(),
            log: String::new(),
        }
    }
}

/// Writes a part's results as they come.
#[derive(Debug)]
pub struct Recorder {
    result: PartResult,
    file: PathBuf,
    deadline: Instant,
}

impl Recorder {
    /// Begins a part that has `time` left.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(part: &str, simulated: bool, file: &Path, time: Duration) -> Result<Self> {
        let result = PartResult::begun(part, simulated);
        let recorder = Self { result, file: file.to_owned(), deadline: clock::now() + time };
        recorder.save()?;
        Ok(recorder)
    }

    /// Time left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::now())
    }

    /// The time left divided by `cases`, within bounds; `None` when not even the least is left for one.
    #[must_use]
    pub fn each(&self, cases: u32, least: Duration, most: Duration) -> Option<Duration> {
        (least <= self.left()).then(|| (self.left() / cases.max(1)).clamp(least, most))
    }

    /// Notes a figure. Samples that are not finite are left out; without any, that is a problem.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn figure(
        &mut self,
        figure: &str,
        case: &str,
        unit: &str,
        samples: &[f64],
        goal: Option<Goal>,
    ) -> Result<()> {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return self.problem(format!("{figure}, {case}: no samples"));
        };
        let value = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let met = goal.map(|goal| goal.met(value));
        self.result.figures.push(Figure {
            figure: figure.to_owned(),
            case: case.to_owned(),
            unit: unit.to_owned(),
            value,
            min,
            max,
            n: sorted.len(),
            goal,
            met,
        });
        self.save()
    }

    /// Notes something that is no figure.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) -> Result<()> {
        self.result.facts.insert(name.to_owned(), value.into());
        self.save()
    }

    /// Notes what is not as it should be.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn problem(&mut self, what: impl Into<String>) -> Result<()> {
        self.result.problems.push(what.into());
        self.save()
    }

    /// Notes the lines of a measuring program: figures and facts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn lines(&mut self, lines: &[Value], prefix: &str) -> Result<()> {
        for line in lines {
            if let Some(name) = line["fact"].as_str() {
                self.fact(&format!("{prefix}{name}"), line["value"].clone())?;
            } else if let (Some(name), Some(samples)) = (line["figure"].as_str(), line["samples"].as_array())
            {
                let samples: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                self.figure(name, &format!("{prefix}{}", text("case")), &text("unit"), &samples, None)?;
            }
        }
        Ok(())
    }

    /// Ends the part: it failed if it said so or noted a problem. A missed goal is no failure: the figure says it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end(mut self, outcome: Result<Option<String>>) -> Result<Status> {
        self.result.status = match outcome {
            Err(error) => {
                self.result.problems.push(format!("{error:#}"));
                Status::Failed
            }
            Ok(Some(why)) => {
                self.result.why = why;
                Status::Skipped
            }
            Ok(None) if self.result.problems.is_empty() => Status::Passed,
            Ok(None) => Status::Failed,
        };
        self.save()?;
        Ok(self.result.status)
    }

    fn save(&self) -> Result<()> {
        write_json(&self.file, &serde_json::to_value(&self.result)?)
    }
}

/// Writes a file in one step: whoever reads it finds the old or the new one.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let fresh = path.with_extension("fresh");
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(&fresh, text).with_context(|| fresh.display().to_string())?;
    std::fs::rename(&fresh, path).with_context(|| path.display().to_string())
}
