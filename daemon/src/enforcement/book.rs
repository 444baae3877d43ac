//! When budgets are granted, across restarts.
//!
//! A period is granted once. What was granted, when, and how much had passed by then is written down before the kernel
//! hears of it; from that and from what has passed since, what may still pass follows exactly. So a daemon that is killed
//! at any step grants nothing twice, and killing it again and again is no way to more bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::BudgetPlan;
use crate::limits::STATE_BYTES_MAX;

const FILE: &str = "enforcement.json";

/// One budget's running period. Times are since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Period {
    /// Bytes granted for it.
    pub bytes: u64,
    /// When it began, in milliseconds.
    pub began_ms: u64,
    /// Bytes that had passed when it began, by the kernel's count.
    pub passed: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    boot_id: String,
    pins: Option<PathBuf>,
    /// By tenant and district.
    periods: BTreeMap<String, BTreeMap<String, Period>>,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    file: PathBuf,
    record: Record,
}

/// What is to be done about a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Write this period down, then let so many bytes pass.
    Grant(Period, u64),
}

/// What a budget needs at a moment: `known` is its running period, `passed` what the kernel has counted, `held` whether
/// this daemon has already told the kernel about the running period.
#[must_use]
pub fn due(known: Option<&Period>, plan: &BudgetPlan, now: Duration, passed: u64, held: bool) -> Due {
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let every_ms = u64::try_from(plan.every.as_millis()).unwrap_or(u64::MAX).max(1);
    let fresh = |began_ms| {
        let period = Period { bytes: plan.bytes, began_ms, passed };
        Due::Grant(period, plan.bytes)
    };
    let Some(known) = known else { return fresh(now_ms) };
    let age_ms = now_ms.saturating_sub(known.began_ms);
    if every_ms <= age_ms {
        // Periods follow each other without gaps, however late one is looked at.
        return fresh(known.began_ms + age_ms / every_ms * every_ms);
    }
    if held && known.bytes == plan.bytes {
        return Due::Nothing;
    }
    // A count that went back means tables made anew: all it shows has passed in this period or is not known.
    let since = if passed < known.passed { passed } else { passed - known.passed };
    let period = Period { bytes: plan.bytes, began_ms: known.began_ms, passed: passed - since };
    Due::Grant(period, plan.bytes.saturating_sub(since))
}

impl Book {
    /// Opens the book in the state directory. What another boot wrote is void, and so are its pins.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let file = directory.join(FILE);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let record = match read(&file) {
            Ok(record) if record.boot_id == boot_id => record,
            Ok(_) => Record { boot_id, ..Record::default() },
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(file = %file.display(), %error, "cannot be read; budgets begin a new period");
                }
                Record { boot_id, ..Record::default() }
            }
        };
        Self { file, record }
    }

    /// Where an earlier run of this boot has left enforcement standing.
    #[must_use]
    pub fn pins(&self) -> Option<&Path> {
        self.record.pins.as_deref()
    }

    /// Notes where enforcement stands now, or that there is none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_pins(&mut self, pins: Option<&Path>) -> io::Result<()> {
        if self.record.pins.as_deref() == pins {
            return Ok(());
        }
        self.record.pins = pins.map(Path::to_owned);
        if pins.is_none() {
            self.record.periods.clear();
        }
        self.write()
    }

    /// A budget's running period.
    #[must_use]
    pub fn period(&self, tenant: &str, district: &str) -> Option<&Period> {
        self.record.periods.get(tenant)?.get(district)
    }

    /// Every budget written down, as tenant and district.
    pub fn budgets(&self) -> impl Iterator<Item = (&str, &str)> {
        let periods = self.record.periods.iter();
        periods.flat_map(|(tenant, of)| of.keys().map(move |district| (tenant.as_str(), district.as_str())))
    }

    /// Writes periods down, and strikes out what is `None`: all or nothing.
    ///
    /// # Errors
    /// If it cannot be written; then nothing may be granted.
    pub fn enter(&mut self, changes: &[(String, String, Option<Period>)]) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let before = self.record.clone();
        for (tenant, district, period) in changes {
            let of = self.record.periods.entry(tenant.clone()).or_default();
            match period {
                Some(period) => of.insert(district.clone(), *period),
                None => of.remove(district),
            };
        }
        self.record.periods.retain(|_, of| !of.is_empty());
        let outcome = self.write();
        if outcome.is_err() {
            self.record = before;
        }
        outcome
    }

    /// Replaces the file whole, so that a crash leaves the old or the new one.
    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&self.record).map_err(io::Error::other)?;
        let draft = self.file.with_extension("json.new");
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.file)
    }
}

fn read(file: &Path) -> io::Result<Record> {
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(file)?.take(STATE_BYTES_MAX).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(bytes: u64, every_s: u64) -> BudgetPlan {
        BudgetPlan { district: "south".to_owned(), bytes, every: Duration::from_secs(every_s) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_period_is_granted_once_and_the_next_begins_where_it_ended() {
        let budget = plan(1_000, 10);
        let Due::Grant(first, 1_000) = due(None, &budget, at(100), 7, false) else {
            panic!("granted at once")
        };
        assert_eq!(first, Period { bytes: 1_000, began_ms: 100_000, passed: 7 });
        assert_eq!(due(Some(&first), &budget, at(109), 500, true), Due::Nothing);
        let Due::Grant(later, 1_000) = due(Some(&first), &budget, at(135), 900, true) else { panic!("due") };
        assert_eq!(later.began_ms, 130_000, "three periods on, not thirty-five seconds");
    }

    #[test]
    fn a_restart_grants_what_is_left_and_not_a_byte_more() {
        let first = Period { bytes: 1_000, began_ms: 100_000, passed: 7 };
        assert_eq!(due(Some(&first), &plan(1_000, 10), at(105), 407, false), Due::Grant(first, 600));
        assert_eq!(
            due(Some(&first), &plan(300, 10), at(105), 407, true),
            Due::Grant(Period { bytes: 300, ..first }, 0)
        );
        let anew = Due::Grant(Period { passed: 0, ..first }, 997);
        assert_eq!(due(Some(&first), &plan(1_000, 10), at(105), 3, false), anew, "the tables were made anew");
    }

    #[test]
    fn what_was_written_is_read_by_the_next_run() {
        let directory = tempfile::tempdir().unwrap();
        let period = Period { bytes: 5, began_ms: 6, passed: 7 };
        let mut book = Book::open(directory.path());
        book.set_pins(Some(Path::new("/pins"))).unwrap();
        let entry = ("a".to_owned(), "b".to_owned(), Some(period));
        book.enter(std::slice::from_ref(&entry)).unwrap();
        let mut book = Book::open(directory.path());
        assert_eq!((book.pins(), book.period("a", "b")), (Some(Path::new("/pins")), Some(&period)));
        book.enter(&[(entry.0, entry.1, None)]).unwrap();
        assert_eq!(book.budgets().count(), 0);
    }

    proptest! {
        /// However often the daemon is restarted and looks, no more passes in a period than was granted for it.
        #[test]
        fn restarts_are_no_way_to_more_bytes(
            steps in prop::collection::vec((0u64..4_000, any::<bool>(), 0u64..2_000), 1..60)
        ) {
            let budget = plan(1_000, 10);
            let (mut now, mut passed, mut may) = (50_000u64, 0u64, 0u64);
            let (mut known, mut held): (Option<Period>, bool) = (None, false);
            let mut spent: BTreeMap<u64, u64> = BTreeMap::new();
            for (wait, restart, wanted) in steps {
                now += wait;
                held &= !restart;
                if let Due::Grant(period, bytes) = due(known.as_ref(), &budget, Duration::from_millis(now), passed, held) {
                    (known, held, may) = (Some(period), true, bytes);
                }
                let goes = wanted.min(may);
                may -= goes;
                passed += goes;
                *spent.entry(known.unwrap().began_ms).or_default() += goes;
            }
            prop_assert!(spent.values().all(|bytes| *bytes <= 1_000), "{spent:?}");
        }
    }
}
