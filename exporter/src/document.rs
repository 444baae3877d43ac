//! `docs/metrics.md`, made from the table.

use std::fmt::Write as _;

use crate::families::{FAMILIES, SCRAPE_DURATION};

/// The document.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Generated from `exporter/src/families.rs`; `cargo test -p headgate-exporter` fails when this file is \
         behind\n(`UPDATE=1 cargo test -p headgate-exporter` writes it).\n\n\
         Base units throughout. Labels are bounded: tenants, districts, devices, and closed sets of words. A \
         tenant that\nleaves the configuration takes its series along.\n\n\
         | name | type | labels | what |\n|---|---|---|---|\n",
    );
    for family in FAMILIES.iter().chain([&SCRAPE_DURATION]) {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            family.exposed_name(),
            family.kind.word(),
            labels.join(" "),
            family.help
        );
    }
    text
}
