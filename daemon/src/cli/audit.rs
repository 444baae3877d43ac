//! `headgate audit`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::{AuditArgs, client, complain};
use crate::admin::Request;
use crate::config::enforcement::read::span_of;
use crate::enforcement::ioctls::AuditDocument;
use crate::limits::AUDIT_SPAN_MAX;

const FAILED: u8 = 3;

/// A span of time on the command line.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let span = span_of(text).ok_or("write a span of time such as 500ms, 60s or 5m")?;
    if span.is_zero() || AUDIT_SPAN_MAX < span {
        return Err(format!("an audit takes some time and at most {} s", AUDIT_SPAN_MAX.as_secs()));
    }
    Ok(span)
}

pub(super) fn main(args: &AuditArgs) -> ExitCode {
    match document(args) {
        Ok(document) => {
            let text = if args.json { json(&document) } else { table(&document) };
            // A closed pipe is the reader's choice.
            let _unread = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => {
            complain(text);
            ExitCode::from(FAILED)
        }
    }
}

fn document(args: &AuditArgs) -> Result<AuditDocument, String> {
    let socket = args.socket.path().map_err(|error| error.to_string())?;
    let millis = u64::try_from(args.span.as_millis()).map_err(|error| error.to_string())?;
    let request = Request::AuditIoctls { millis };
    client::ask_for(&socket, &request, args.span).map_err(|error| error.to_string())
}

fn json(document: &AuditDocument) -> String {
    // Maps have text keys and numbers are finite, so this cannot fail.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

fn table(document: &AuditDocument) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{arguments}");
    };
    line(format_args!("ioctls of the GPU driver in {:.1} s", document.seconds));
    line(format_args!(
        "{:20} {:>10} {:>12} {:>12} {:>12}",
        "TENANT", "CALLS", "SECONDS", "HALF WITHIN", "99 % WITHIN"
    ));
    let shown =
        |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{:.0} us", s * 1e6));
    for (name, tenant) in &document.tenants {
        line(format_args!(
            "{name:20} {:>10} {:>12.6} {:>12} {:>12}",
            tenant.calls,
            tenant.seconds,
            shown(tenant.half_within_seconds),
            shown(tenant.most_within_seconds)
        ));
    }
    line(format_args!("{:20} {:>10} {:>12}", "NUMBER", "CALLS", "FAILED"));
    for (number, count) in &document.numbers {
        line(format_args!("{number:20} {:>10} {:>12}", count.calls, count.failed));
    }
    text
}
