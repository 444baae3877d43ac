//! Results for people: a table of parts, a table of figures.

use std::fmt::Write as _;

use serde_json::Value;

use crate::record::{Figure, Goal, PartResult};

/// One line a part.
#[must_use]
pub fn table(results: &[PartResult]) -> String {
    let mut text = String::from("| part | verdict | seconds | goals met | why |\n|---|---|---|---|---|\n");
    for result in results {
        let goals = result.figures.iter().filter(|figure| figure.met.is_some()).count();
        let met = result.figures.iter().filter(|figure| figure.met == Some(true)).count();
        let why = if result.why.is_empty() { result.problems.join("; ") } else { result.why.clone() };
        // Writing to a String cannot fail, here and below.
        let _infallible = writeln!(
            text,
            "| {} | {} | {:.0} | {met} of {goals} | {} |",
            result.part,
            result.status.word(),
            result.seconds,
            cell(&why)
        );
    }
    text
}

/// The whole summary.
#[must_use]
pub fn page(whole: &Value, results: &[PartResult]) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let simulated = whole["simulated"] == true;
    let _infallible = writeln!(
        text,
        "# Headgate kit, commit {}{}\n",
        word(&whole["kit"]["commit"]),
        if simulated { ", on the SIMULATED device: nothing here is a figure of hardware" } else { "" }
    );
    let _infallible = writeln!(
        text,
        "Kernel {}; {}\n",
        word(&whole["machine"]["kernel"]),
        word(&whole["machine"]["driver"])
    );
    text.push_str(&table(results));
    for result in results.iter().filter(|result| !result.figures.is_empty()) {
        let _infallible = writeln!(text, "\n## {}\n\n{}", result.part, figures(&result.figures));
    }
    text
}

/// Figures with their spread and goals.
#[must_use]
pub fn figures(figures: &[Figure]) -> String {
    let mut text =
        String::from("| figure | case | value | spread | goal | met |\n|---|---|---|---|---|---|\n");
    for figure in figures {
        let _infallible = writeln!(
            text,
            "| {} | {} | {} {} | {} to {}, n {} | {} | {} |",
            cell(&figure.figure),
            cell(&figure.case),
            number(figure.value),
            figure.unit,
            number(figure.min),
            number(figure.max),
            figure.n,
            figure.goal.map_or_else(String::new, goal),
            figure.met.map_or("", |met| if met { "yes" } else { "**no**" }),
        );
    }
    text
}

/// A goal in signs.
#[must_use]
pub fn goal(goal: Goal) -> String {
    match goal {
        Goal::AtMost(most) => format!("<= {most}"),
        Goal::AtLeast(least) => format!(">= {least}"),
    }
}

/// A number with as many digits as say something.
#[must_use]
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

/// A text that does not break a table.
fn cell(text: &str) -> String {
    let short: String = text.chars().take(300).collect();
    short.replace('|', "\\|").replace('\n', " ")
}
