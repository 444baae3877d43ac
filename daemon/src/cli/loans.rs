//! `headgate loans`, `headgate loans why TENANT` and `headgate peers`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use headgate_loans::desk::{DecisionView, DeskView};

use super::{LoansArgs, LoansCommand, PeersArgs, SocketArgs, client, complain};
use crate::admin::Request;

const NO_DAEMON: u8 = 3;
const NOTHING_KNOWN: u8 = 1;

/// Between two looks of `--watch`.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

pub(super) fn loans(args: &LoansArgs) -> ExitCode {
    if let Some(LoansCommand::Why { tenant }) = &args.command {
        return why(args, tenant);
    }
    loop {
        let view = match ask(&args.socket) {
            Ok(view) => view,
            Err(code) => return code,
        };
        let text = if args.json { json(&view) } else { loans_table(&view) };
        let clear = if args.watch && !args.json { "\x1b[2J\x1b[H" } else { "" };
        let mut out = std::io::stdout();
        let written = write!(out, "{clear}{text}").and_then(|()| out.flush());
        // A closed pipe is the reader's choice.
        if !args.watch || written.is_err() {
            return ExitCode::SUCCESS;
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a command that repeats itself for somebody who watches")]
fn pause() {
    std::thread::sleep(WATCH_PERIOD);
}

fn why(args: &LoansArgs, tenant: &str) -> ExitCode {
    let view = match ask(&args.socket) {
        Ok(view) => view,
        Err(code) => return code,
    };
    let district = view.node.split('.').next().unwrap_or_default();
    let guest = if tenant.contains('/') { tenant.to_owned() } else { format!("{district}/{tenant}") };
    let found: Vec<&DecisionView> =
        view.decisions.iter().filter(|decision| decision.concerns(&guest)).collect();
    let mut out = std::io::stdout();
    // A closed pipe is the reader's choice.
    let _unread = if args.json {
        out.write_all(json(&found).as_bytes())
    } else {
        out.write_all(told(&found).as_bytes())
    };
    if found.is_empty() {
        complain(format_args!(
            "nothing was decided about {guest} lately: it was neither short of anything nor asked to lend"
        ));
        return ExitCode::from(NOTHING_KNOWN);
    }
    ExitCode::SUCCESS
}

pub(super) fn peers(args: &PeersArgs) -> ExitCode {
    match ask(&args.socket) {
        Ok(view) => {
            let text = if args.json { json(&view.peers) } else { peers_table(&view) };
            // A closed pipe is the reader's choice.
            let _unread = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn ask(socket: &SocketArgs) -> Result<DeskView, ExitCode> {
    let view = socket
        .path()
        .map_err(|error| error.to_string())
        .and_then(|path| client::ask(&path, &Request::Loans).map_err(|error| error.to_string()));
    view.map_err(|text| {
        complain(text);
        ExitCode::from(NO_DAEMON)
    })
}

fn json(value: &impl serde::Serialize) -> String {
    // Maps have text keys and numbers are finite, so this cannot fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn told(decisions: &[&DecisionView]) -> String {
    let mut text = String::new();
    for decision in decisions {
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{}  {} {} at {} (loan {}): {}",
            decision.at,
            decision.what,
            percent(decision.sm_ppm),
            decision.place,
            decision.loan,
            decision.why
        );
    }
    text
}

/// Loans for people.
#[must_use]
pub fn loans_table(view: &DeskView) -> String {
    let mut text = format!("node {}, ledgers in {}", view.node, view.store);
    if let Some((median, slow)) = view.store_us {
        // Writing to a String cannot fail.
        let _infallible = write!(text, " (median {median} us, p99 {slow} us)");
    }
    text.push('\n');
    if !view.borrowing {
        text.push_str("cannot borrow yet: the store has not answered\n");
    }
    for place in view.places.iter().filter(|place| place.state != "serving") {
        let what = if place.state == "fenced" {
            "another daemon lends it; stop one of the two and restart the other"
        } else {
            "its ledger has not been read yet, so its owners keep what they never lend"
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{}: {what}", place.place);
    }
    let mut rows = vec![
        ["", "LOAN", "TENANT", "WITH", "SM", "MEMORY", "DATA", "STATE", "AGE", "LEFT"].map(str::to_owned),
    ];
    for loan in &view.lent {
        rows.push([
            "lent".to_owned(),
            loan.loan.clone(),
            loan.owner.clone(),
            loan.guest.clone(),
            percent(loan.sm_ppm),
            loan.memory_bytes.to_string(),
            loan.data.clone(),
            loan.phase.clone(),
            format!("{} s", loan.age_seconds),
            format!("{} s", loan.left_seconds),
        ]);
    }
    for loan in &view.borrowed {
        rows.push([
            "borrowed".to_owned(),
            loan.loan.clone(),
            loan.tenant.clone(),
            loan.place.clone(),
            percent(loan.sm_ppm),
            loan.memory_bytes.to_string(),
            "-".to_owned(),
            loan.phase.clone(),
            "-".to_owned(),
            loan.left_seconds.map_or_else(|| "-".to_owned(), |left| format!("{left} s")),
        ]);
    }
    columns(&mut text, &rows);
    for incident in &view.incidents {
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "event {}/{}: {} {} for another {} s",
            incident.issuer,
            incident.name,
            incident.tenants.join(", "),
            incident.class,
            incident.left_seconds
        );
    }
    text
}

/// Peers for people.
#[must_use]
pub fn peers_table(view: &DeskView) -> String {
    let mut text = String::new();
    let mut rows = vec![
        ["NODE", "DISTRICT", "ROLE", "ADDRESS", "HEARD", "ROUND TRIP", "OFFERS", "STREAMS"]
            .map(str::to_owned),
    ];
    for peer in &view.peers {
        rows.push([
            peer.node.clone(),
            peer.district.clone(),
            peer.role.clone(),
            peer.address.clone(),
            peer.heard_seconds.map_or_else(|| "never".to_owned(), |heard| format!("{heard} s ago")),
            peer.round_trip_us.map_or_else(|| "-".to_owned(), |took| format!("{took} us")),
            percent(peer.offer_sm_ppm),
            if peer.streams.is_empty() { "-".to_owned() } else { peer.streams.join(", ") },
        ]);
    }
    columns(&mut text, &rows);
    for (reason, count) in view.refused.iter().filter(|(_, count)| *count != 0) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "refused: {count} for {reason}");
    }
    text
}

fn columns<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}

fn percent(ppm: u64) -> String {
    format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000)
}
