//! A strict reader of the text exposition format, so that tests and the demo hold the metrics page to it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// A metrics page that parsed.
#[derive(Debug, Default)]
pub struct Page {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
}

impl Page {
    /// Reads a page in OpenMetrics text form.
    ///
    /// # Errors
    /// The first line that is not well-formed, a sample given twice, or a missing end mark.
    pub fn parse(text: &str) -> Result<Self> {
        let mut page = Self::default();
        let mut ended = false;
        for (index, line) in text.lines().enumerate() {
            let place = || format!("metrics line {}: {line}", index + 1);
            ensure!(!ended, "{}: after # EOF", place());
            if line == "# EOF" {
                ended = true;
            } else if let Some(comment) = line.strip_prefix("# ") {
                let (kind, rest) = comment.split_once(' ').with_context(place)?;
                ensure!(matches!(kind, "HELP" | "TYPE" | "UNIT"), "{}: unknown comment", place());
                let name = rest.split(' ').next().unwrap_or_default();
                ensure!(is_name(name), "{}: bad family name", place());
                page.families.insert(name.to_owned());
            } else {
                page.sample(line).with_context(place)?;
            }
        }
        ensure!(ended, "the metrics page does not end with # EOF");
        Ok(page)
    }

    fn sample(&mut self, line: &str) -> Result<()> {
        let end = series_end(line)?;
        let (series, rest) = line.split_at(end);
        let name = series.split('{').next().unwrap_or_default();
        ensure!(is_name(name), "bad metric name");
        ensure!(
            self.families.iter().any(|family| name.starts_with(family.as_str())),
            "sample before its family's TYPE line"
        );
        let value = rest.trim_start().split([' ', '#']).next().unwrap_or_default();
        let value: f64 = match value {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            value => value.parse().context("bad value")?,
        };
        if self.samples.insert(series.to_owned(), value).is_some() {
            bail!("the series appears twice");
        }
        Ok(())
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.samples.len()
    }

    /// The value of the one series of that name whose labels contain all of `labels` (`key="value"`).
    #[must_use]
    pub fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let mut found = self.samples.iter().filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        });
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(*value),
            _ => None,
        }
    }

    /// The sum over all samples of a series that have these labels; 0 without any.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        let found = self
            .samples
            .iter()
            .filter(|(series, _)| of_name(series) && labels.iter().all(|label| series.contains(label)));
        found.map(|(_, value)| value).sum()
    }

    /// Names of all families.
    #[must_use]
    pub fn families(&self) -> &BTreeSet<String> {
        &self.families
    }
}

/// Where the series (name and label block) of a sample line ends.
fn series_end(line: &str) -> Result<usize> {
    let Some(open) = line.find('{').filter(|open| *open < line.find(' ').unwrap_or(line.len())) else {
        return line.find(' ').context("no value");
    };
    let mut quoted = false;
    let mut escaped = false;
    for (index, character) in line.char_indices().skip(open) {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Ok(index + 1),
            _ => {}
        }
    }
    bail!("unterminated labels")
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_' || first == ':')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_pages_are_read() {
        let page = Page::parse(
            "# HELP up Whether.\n# TYPE up gauge\nup{a=\"x}\\\"y\",b=\"2\"} 1\nup{a=\"z\"} +Inf\n# EOF\n",
        )
        .unwrap();
        assert_eq!(page.series(), 2);
        assert_eq!(page.value("up", &["b=\"2\""]), Some(1.0));
        assert_eq!(page.value("up", &[]), None, "two series match");
    }

    #[test]
    fn malformed_pages_are_refused() {
        for bad in [
            "# TYPE up gauge\nup 1\n",
            "up 1\n# EOF\n",
            "# TYPE up gauge\nup{a=\"1} 1\n# EOF\n",
            "# TYPE up gauge\nup one\n# EOF\n",
            "# TYPE up gauge\nup 1\nup 1\n# EOF\n",
        ] {
            assert!(Page::parse(bad).is_err(), "{bad}");
        }
    }
}
