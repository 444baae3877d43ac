//! `headgate audit verify`.

use std::io::Write as _;
use std::process::ExitCode;

use headgate_loans::audit::{AuditError, follow};

use super::{VerifyArgs, complain};

const UNREADABLE: u8 = 2;

/// 0 whole, 1 broken, 2 unreadable.
pub(super) fn main(args: &VerifyArgs) -> ExitCode {
    let VerifyArgs { file, head, json } = args;
    let followed = match follow(file) {
        Ok(followed) => followed,
        Err(error @ AuditError::Broken { .. }) => {
            complain(error);
            return ExitCode::FAILURE;
        }
        Err(error) => {
            complain(error);
            return ExitCode::from(UNREADABLE);
        }
    };
    let found = format!("{}:{}", followed.head.sequence, followed.head.digest);
    if let Some(expected) = head
        && *expected != found
    {
        complain(format_args!(
            "{}: the log ends at {found}, not at {expected}: lines are missing, were added, or all was written anew",
            file.display()
        ));
        return ExitCode::FAILURE;
    }
    let text = if *json {
        let value = serde_json::json!({
            "lines": followed.head.sequence,
            "head": found,
            "torn": followed.torn,
        });
        format!("{value}\n")
    } else {
        let torn = if followed.torn { "; the last line was cut off when the daemon died" } else { "" };
        format!("{}: whole, {} lines, head {found}{torn}\n", file.display(), followed.head.sequence)
    };
    // A closed pipe is the reader's choice; the exit code says the same.
    let _unread = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
