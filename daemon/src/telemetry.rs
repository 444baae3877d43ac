//! Logs: set up once, and bounded where a tenant can trigger them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::clock;
use crate::limits::{LOG_PERIOD, LOGS_PER_PERIOD_MAX};

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to standard error. `RUST_LOG` chooses what; `info` without it.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let outcome = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = outcome {
        // Only a second call can end here, and then logs go where the first one sent them.
        tracing::debug!(%error, "logs were set up already");
    }
}

/// Lets a few lines of each kind through in a period and counts the rest.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<HashMap<&'static str, Window>>);

#[derive(Debug)]
struct Window {
    since: Instant,
    passed: u32,
    held_back: u64,
}

impl LogLimit {
    /// `Some(held back since the last line)` when a line of this kind may be written now.
    pub fn allows(&self, kind: &'static str) -> Option<u64> {
        self.allows_at(kind, clock::instant())
    }

    fn allows_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(kind).or_insert(Window { since: now, passed: 0, held_back: 0 });
        if LOG_PERIOD <= now.saturating_duration_since(window.since) {
            window.since = now;
            window.passed = 0;
        }
        if LOGS_PER_PERIOD_MAX <= window.passed {
            window.held_back += 1;
            return None;
        }
        window.passed += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limit = LogLimit::default();
        let start = clock::instant();
        let passed = (0..100).filter(|_| limit.allows_at("refused", start).is_some()).count();
        assert_eq!(passed, LOGS_PER_PERIOD_MAX as usize);
        assert_eq!(limit.allows_at("other", start), Some(0), "kinds do not share a limit");
        assert_eq!(limit.allows_at("refused", start + LOG_PERIOD), Some(95));
    }
}
