//! One figure and its spread.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// What all figures of one bench share.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The bench's name.
    pub(crate) bench: &'static str,
    /// `simulated`, `null driver`, or a GPU's name.
    pub(crate) device: String,
    /// The commit measured.
    pub(crate) commit: String,
}

/// One figure, as every bench prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The bench's name.
    pub(crate) bench: &'static str,
    /// What is measured.
    pub(crate) figure: &'static str,
    /// Under which circumstances.
    pub(crate) case: String,
    /// The figure: the median of its samples.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The least sample.
    pub(crate) min: f64,
    /// The middle sample, or the mean of the two middle ones.
    pub(crate) median: f64,
    /// The greatest sample.
    pub(crate) max: f64,
    /// Number of samples.
    pub(crate) n: usize,
    /// What it is to reach; `null` for a figure that only informs.
    pub(crate) goal: Option<f64>,
    /// Which way it gets better.
    pub(crate) better: Better,
    /// Whether the goal is met; `null` without a goal.
    pub(crate) met: Option<bool>,
    /// `simulated`, `null driver`, or a GPU's name.
    pub(crate) device: String,
    /// The commit measured.
    pub(crate) commit: String,
}

impl Subject {
    /// A figure of which less is better. Fails without samples, or with one that is not a number.
    pub(crate) fn lower(
        &self,
        figure: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        goal: Option<f64>,
        samples: &[f64],
    ) -> Result<Figure> {
        self.figure(figure, case.into(), unit, goal, Better::Lower, samples)
    }

    /// A figure of which more is better. Fails as [`Subject::lower`] does.
    pub(crate) fn higher(
        &self,
        figure: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        goal: Option<f64>,
        samples: &[f64],
    ) -> Result<Figure> {
        self.figure(figure, case.into(), unit, goal, Better::Higher, samples)
    }

    fn figure(
        &self,
        figure: &'static str,
        case: String,
        unit: &'static str,
        goal: Option<f64>,
        better: Better,
        samples: &[f64],
    ) -> Result<Figure> {
        let spread = Spread::of(samples).with_context(|| format!("{figure}, {case}: no samples"))?;
        let met = goal.map(|goal| match better {
            Better::Lower => spread.median <= goal,
            Better::Higher => goal <= spread.median,
        });
        let Spread { min, median, max } = spread;
        Ok(Figure {
            bench: self.bench,
            figure,
            case,
            value: median,
            unit,
            min,
            median,
            max,
            n: samples.len(),
            goal,
            better,
            met,
            device: self.device.clone(),
            commit: self.commit.clone(),
        })
    }
}

/// Least, middle and greatest of some samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without samples, or if one of them is not a finite number.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        if !samples.iter().all(|sample| sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: f64::midpoint(low, high), max })
    }
}

/// The figures for people: one line each, goals beside them.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    let width = |of: fn(&Figure) -> usize| figures.iter().map(of).max().unwrap_or(0);
    let (names, cases) = (width(|figure| figure.figure.len()), width(|figure| figure.case.len()));
    if let Some(first) = figures.first() {
        // Writing to a String cannot fail.
        let _infallible =
            writeln!(text, "bench {} on {}, commit {}", first.bench, first.device, first.commit);
    }
    for figure in figures {
        let _infallible = write!(
            text,
            "{:names$}  {:cases$}  {:>9.2} {}  ({:.2} to {:.2}, n {})",
            figure.figure, figure.case, figure.value, figure.unit, figure.min, figure.max, figure.n
        );
        if let (Some(goal), Some(met)) = (figure.goal, figure.met) {
            let sign = if figure.better == Better::Lower { "<=" } else { ">=" };
            let verdict = if met { "met" } else { "MISSED" };
            let _infallible = write!(text, "  goal {sign} {goal} {}: {verdict}", figure.unit);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject { bench: "test", device: "none".to_owned(), commit: "0".to_owned() }
    }

    #[test]
    fn the_middle_of_an_even_number_of_samples_is_between_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { min: 7.0, median: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_goal_is_met_by_the_median_at_the_limit_and_missed_above_it() {
        let met = |samples: &[f64]| subject().lower("f", "c", "ns", Some(15.0), samples).unwrap().met;
        assert_eq!(met(&[10.0, 15.0, 90.0]), Some(true));
        assert_eq!(met(&[15.1]), Some(false));
        assert_eq!(subject().lower("f", "c", "ns", None, &[1.0]).unwrap().met, None);
        assert!(subject().lower("f", "c", "ns", None, &[]).is_err());
    }

    #[test]
    fn the_contract_names_every_field() {
        let figure = subject().lower("f", "c", "ns", None, &[1.0]).unwrap();
        let value = serde_json::to_value(figure).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut contract = [
            "bench", "figure", "case", "value", "unit", "min", "median", "max", "n", "goal", "better", "met",
            "device", "commit",
        ];
        contract.sort_unstable();
        let mut fields = fields;
        fields.sort_unstable();
        assert_eq!(fields, contract);
        assert_eq!(value["better"], "lower");
        assert!(value["goal"].is_null() && value["met"].is_null());
    }
}
