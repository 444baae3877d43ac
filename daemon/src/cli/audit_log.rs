//! `headgate audit verify`.

use std::io::Write as _;
use std::process::ExitCode;

use headgate_loans::audit::{AuditError, follow};
use headgate_quota::loan::audit::Head;

use super::{VerifyArgs, complain};

const UNREADABLE: u8 = 2;

/// 0 whole, 1 broken, 2 unreadable.
pub(super) fn main(args: &VerifyArgs) -> ExitCode {
    let VerifyArgs { file, from, head, json } = args;
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
    let told = |head: Head| format!("{}:{}", head.sequence, head.digest);
    let (begins, found) = (told(followed.from), told(followed.head));
    if let Some(expected) = from
        && *expected != begins
    {
        complain(format_args!(
            "{}: the log goes on from {begins}, not from {expected}: files are missing, or all was written anew",
            file.display()
        ));
        return ExitCode::FAILURE;
    }
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
            "files": followed.files,
            "lines": followed.head.sequence - followed.from.sequence,
            "from": begins,
            "head": found,
            "torn": followed.torn,
        });
        format!("{value}\n")
    } else {
        let torn = if followed.torn { "; the last line was cut off when the daemon died" } else { "" };
        let earlier = match followed.from.sequence {
            0 => String::new(),
            _ => format!("; goes on from {begins}, which is not here"),
        };
        let (lines, files) = (followed.head.sequence - followed.from.sequence, followed.files);
        format!("{}: whole, {lines} lines in {files} files, head {found}{earlier}{torn}\n", file.display())
    };
    // A closed pipe is the reader's choice; the exit code says the same.
    let _unread = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
