//! `headgate event`: classes raised for a time, here and in every district that hears of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::{EventCommand, client, complain};
use crate::admin::{EventsDocument, Request, StartEvent};
use crate::config::enforcement::read::span_of;

const REFUSED: u8 = 3;

pub(super) fn main(what: &EventCommand) -> ExitCode {
    match ask(what) {
        Ok((document, json)) => {
            let text = if json { self::json(&document) } else { table(&document) };
            // A closed pipe is the reader's choice.
            let _unread = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => {
            complain(text);
            ExitCode::from(REFUSED)
        }
    }
}

fn ask(what: &EventCommand) -> Result<(EventsDocument, bool), String> {
    let (request, socket, json) = match what {
        EventCommand::Start { name, tenants, class, span, reclaim, socket } => {
            let (name, tenants, class) = (name.clone(), tenants.clone(), class.clone());
            let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            (
                Request::EventStart(StartEvent { name, tenants, class, span_ms, reclaim: *reclaim }),
                socket,
                false,
            )
        }
        EventCommand::End { name, socket } => (Request::EventEnd { name: name.clone() }, socket, false),
        EventCommand::List { json, socket } => (Request::EventList, socket, *json),
    };
    let socket = socket.path().map_err(|error| error.to_string())?;
    Ok((client::ask(&socket, &request).map_err(|error| error.to_string())?, json))
}

/// A span as operators write it.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    span_of(text).ok_or_else(|| format!("`{text}` is no span; write a number and s, m, h or d, such as 30m"))
}

fn json(document: &EventsDocument) -> String {
    // Numbers and text cannot fail to be written.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

fn table(document: &EventsDocument) -> String {
    if document.events.is_empty() {
        return "no event is under way\n".to_owned();
    }
    let mut text = String::new();
    for event in &document.events {
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{}: {} {} for another {} s{}",
            event.name,
            event.tenants.join(", "),
            event.class,
            event.left_ms.div_ceil(1_000),
            if event.reclaim { ", loans called back" } else { "" }
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_nonsense_is_named() {
        assert_eq!(span("30m"), Ok(Duration::from_secs(1_800)));
        assert_eq!(span("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "m", "30", "30x", "-1s", "1.5h", "99999999999999999999d", "30\u{b5}"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
