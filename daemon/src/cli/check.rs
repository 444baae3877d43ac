//! `headgate check-config`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::complain;
use crate::config::{self, ConfigError};

/// 0 right, 1 wrong, 2 unreadable.
pub(super) fn main(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(loaded) => {
            let tenants = loaded.config.tenants.len();
            let line = format!("{}: ok, {tenants} tenants, hash {}\n", file.display(), loaded.hash);
            // A closed pipe is the reader's choice; the exit code says the same.
            let _unread = std::io::stdout().write_all(line.as_bytes());
            ExitCode::SUCCESS
        }
        Err(ConfigError::Wrong(problems)) => {
            // Without a prefix, so that editors and grep find file:line:column at the start.
            let _unread = writeln!(std::io::stderr(), "{problems}");
            ExitCode::from(1)
        }
        Err(error @ ConfigError::Unreadable { .. }) => {
            complain(error);
            ExitCode::from(2)
        }
    }
}
