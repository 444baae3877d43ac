//! `headgate status`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use headgate_quota::Bytes;

use super::{StatusArgs, client, complain};
use crate::admin::Request;
use crate::config::model::memory_text;
use crate::remote::SessionView;
use crate::view::{AccountView, StatusDocument, TenantView};

const NO_DAEMON: u8 = 3;

pub(super) fn main(args: &StatusArgs) -> ExitCode {
    match document(args) {
        Ok(status) => {
            let text = if args.json { json(&status) } else { table(&status) };
            // A closed pipe is the reader's choice.
            let _unread = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => {
            complain(text);
            ExitCode::from(NO_DAEMON)
        }
    }
}

fn document(args: &StatusArgs) -> Result<StatusDocument, String> {
    let socket = args.socket.path().map_err(|error| error.to_string())?;
    client::ask(&socket, &Request::Status).map_err(|error| error.to_string())
}

fn json(status: &StatusDocument) -> String {
    // Maps have text keys and numbers are finite, so this cannot fail.
    let mut text = serde_json::to_string_pretty(status).unwrap_or_default();
    text.push('\n');
    text
}

/// The status for people.
#[must_use]
pub fn table(status: &StatusDocument) -> String {
    let mut text = String::new();
    head(&mut text, status);
    let mut rows = vec![
        [
            "TENANT", "DISTRICT", "CLASS", "MODE", "STATUS", "SEATS", "GPU", "SM QUOTA", "SM NOW", "GATE",
            "MEMORY", "OVERHEAD", "PEAK", "LIMIT", "DENIED",
        ]
        .map(str::to_owned),
    ];
    for tenant in &status.tenants {
        if tenant.gpus.is_empty() {
            rows.push(row(tenant, None));
        }
        rows.extend(tenant.gpus.iter().map(|account| row(tenant, Some(account))));
    }
    columns(&mut text, &rows);
    for tenant in &status.tenants {
        for account in &tenant.gpus {
            if let Some(reason) = &account.reason {
                line(&mut text, format_args!("{} on {}: {reason}", tenant.name, short(&account.gpu)));
            }
        }
        parts(&mut text, tenant);
        lower_rungs(&mut text, tenant);
    }
    for session in &status.sessions {
        self::session(&mut text, session);
    }
    probes(&mut text, status);
    text
}

/// Its parts of devices that are shared by space.
fn parts(text: &mut String, tenant: &TenantView) {
    for account in &tenant.gpus {
        let Some(space) = &account.space else { continue };
        let sms = space.sms.map_or_else(String::new, |sms| format!("{sms} SMs, "));
        let most = if space.exclusive { "" } else { "at most " };
        let pending = space.pending.as_deref().map(|pending| format!("; {pending}")).unwrap_or_default();
        let held = percent(u64::from(space.held_ppm));
        line(text, format_args!("{} on {}: {most}{sms}{held}{pending}", tenant.name, short(&account.gpu)));
    }
}

fn session(text: &mut String, session: &SessionView) {
    let way = if session.role == "lender" { "borrowed by" } else { "on a device of" };
    let broken = if session.connected { "" } else { ", not connected" };
    let rings = if session.rings { ", over rings" } else { "" };
    let wires = match session.connections {
        0 | 1 => String::new(),
        several => format!(", over {several} connections"),
    };
    let phase = match session.phase.as_str() {
        "" | "going" => "",
        "parting" => ", the device is taken back",
        "aside" => ", waits for the device",
        _ => ", the device comes back",
    };
    line(
        text,
        format_args!(
            "remote {} {way} {} under {}: {} up, {} down{rings}{wires}{broken}{phase}",
            session.tenant,
            session.peer,
            session.loan,
            memory(session.up_bytes),
            memory(session.down_bytes)
        ),
    );
    if let Some(missing) = session.confined.as_ref().map(|confined| &confined.missing)
        && !missing.is_empty()
    {
        let worker = session.worker.unwrap_or(0);
        line(
            text,
            format_args!(
                "remote {}: worker {worker} is not confined by {}",
                session.tenant,
                missing.join(", ")
            ),
        );
    }
}

/// Processes that are gated in another way than by default. What that means is worth a line.
fn lower_rungs(text: &mut String, tenant: &TenantView) {
    const MEANING: [(&str, &str); 3] = [
        (
            "host",
            "gated on the host, a millisecond ahead of the device: the configuration says so (spec.gpus)",
        ),
        (
            "events",
            "gated on the host, a millisecond ahead of the device: the driver has no stream memory operations",
        ),
        (
            "watchdog",
            "gated on the host, completion not measured: the driver has neither stream memory operations nor events",
        ),
    ];
    for (rung, meaning) in MEANING {
        let pids = tenant.processes.iter().filter(|process| process.gate_backend == rung);
        let pids: Vec<String> = pids.map(|process| process.pid.to_string()).collect();
        if !pids.is_empty() {
            line(text, format_args!("{} process {}: {meaning}", tenant.name, pids.join(", ")));
        }
    }
}

fn head(text: &mut String, status: &StatusDocument) {
    let config = &status.config;
    line(text, format_args!("node {} ({}), headgate {}", status.node, status.district, status.version));
    line(text, format_args!("config {} ({})", config.file, config.hash));
    if let Some(error) = &config.error {
        line(text, format_args!("config: the file cannot be used, the last good one is kept:\n{error}"));
    }
    if !config.restart_needed.is_empty() {
        line(text, format_args!("config: waits for a restart: {}", config.restart_needed.join(", ")));
    }
    let note = status.identity.note.as_deref().map(|note| format!(" ({note})")).unwrap_or_default();
    line(text, format_args!("identity: {}{note}", status.identity.method));
    for reason in &status.unready {
        line(text, format_args!("not ready: {reason}"));
    }
    for device in &status.devices {
        let gone = if device.present { "" } else { ", gone" };
        let memory = memory_text(Bytes(device.memory_bytes));
        line(text, format_args!("gpu {} {} {memory}{gone}", device.gpu, device.name));
        match &device.sharing_down {
            Some(why) => {
                line(text, format_args!("  to be shared by {}, shared by time: {why}", device.sharing))
            }
            None if device.sharing == "mpsPartition" => {
                line(
                    text,
                    format_args!(
                        "  shared by {}: SMs of their own, memory bandwidth and L2 in common",
                        device.sharing
                    ),
                );
            }
            None if device.sharing == "greenContexts" => {
                let turns = if device.multiplied {
                    ", multiplied with the device's own turns between processes"
                } else {
                    ""
                };
                line(
                    text,
                    format_args!(
                        "  shared by {}{turns}: SMs of their own, memory bandwidth and L2 in common",
                        device.sharing
                    ),
                );
            }
            None if device.sharing == "mpsPercentage" => {
                line(
                    text,
                    format_args!("  shared by {}: a ceiling for each process, not isolated", device.sharing),
                );
            }
            None => {}
        }
    }
    text.push('\n');
}

fn row(tenant: &TenantView, account: Option<&AccountView>) -> [String; 15] {
    let dash = || "-".to_owned();
    let of = |part: fn(&AccountView) -> String| account.map_or_else(dash, part);
    let name = if tenant.removed { format!("{} (removed)", tenant.name) } else { tenant.name.clone() };
    [
        name,
        tenant.district.clone(),
        tenant.class.clone(),
        tenant.mode.clone(),
        if tenant.enforcement { of(|a| a.status.clone()) } else { "off".to_owned() },
        tenant.seats.to_string(),
        of(|a| short(&a.gpu).to_owned()),
        of(|a| a.sm_quota_ppm.map_or_else(|| "-".to_owned(), |ppm| percent(u64::from(ppm)))),
        of(|a| percent(a.sm_share_ppm)),
        of(|a| a.gate.clone()),
        of(|a| memory(a.memory_used_bytes)),
        of(|a| memory(a.memory_overhead_bytes)),
        of(|a| memory(a.memory_peak_bytes)),
        of(|a| a.memory_quota_bytes.map_or_else(|| "-".to_owned(), memory)),
        of(|a| a.denied_allocations.to_string()),
    ]
}

fn columns(text: &mut String, rows: &[[String; 15]]) {
    let mut widths = [0; 15];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(text, format_args!("{}", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
}

fn probes(text: &mut String, status: &StatusDocument) {
    text.push('\n');
    for probe in &status.probes {
        let (state, because) = match (probe.up, probe.reason.is_empty()) {
            (true, true) => ("up", String::new()),
            (true, false) => ("up", format!(" ({})", probe.reason)),
            (false, _) => ("not up", format!(": {}", probe.reason)),
        };
        line(text, format_args!("probe {} {state} {}{because}", probe.name, probe.mode));
    }
    for entry in status.unhooked_symbols.iter().flatten() {
        line(
            text,
            format_args!(
                "nothing stands in front of {} of {}, which {}",
                entry.symbol, entry.library, entry.does
            ),
        );
    }
    for (reason, count) in status.refused.iter().filter(|(_, count)| **count != 0) {
        line(text, format_args!("refused: {count} for {reason}"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(text, "{line}");
}

/// Enough of a UUID to tell a node's devices apart.
fn short(gpu: &str) -> &str {
    gpu.get(..12).unwrap_or(gpu)
}

fn percent(ppm: u64) -> String {
    format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000)
}

/// Memory to a tenth of its largest unit.
fn memory(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    UNITS.iter().find(|(shift, _)| bytes >> shift != 0).map_or_else(
        || bytes.to_string(),
        |(shift, unit)| {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        },
    )
}
