//! Compute quotas: shares, express latency, reclaim, changes of quota, and what the daemon costs.
//!
//! The part `virtual` runs the daemon's scheduler on the device's model in virtual time, which shows the scheduler
//! alone and the same on every machine. The others run the real daemon and hook on the simulated device, which keeps
//! real time and therefore also shows how busy this machine is. Shares are the device's account in either, never
//! Headgate's own. What a launch costs on the host (E3 of the issue) is in the bench `hook`.
//!
//! A release build is measured: `cargo run --release -p xtask -- bench compute --part shares`.

mod load;
mod node;
mod virtual_time;

use anyhow::{Context as _, Result};

use super::{Figure, Settings, Subject};

/// The bench's name.
const BENCH: &str = "compute";
/// Splits of a device among saturating tenants, in percent.
const SPLITS: [&[u32]; 4] = [&[30, 70], &[50, 50], &[10, 90], &[50, 30, 20]];
/// Points a share may be off over ten seconds.
const SHARE_POINTS_MAX: f64 = 1.0;
/// Least part of the device that saturating tenants have together.
const TOTAL_MIN: f64 = 0.96;

type Part = fn(&Settings, &Subject) -> Result<Vec<Figure>>;

/// Parts, what they are measured on, and how. None takes much more than a minute.
const PARTS: [(&str, &str, Part); 9] = [
    ("virtual", "simulated, virtual time", virtual_time::measure),
    ("shares", "simulated, real time", node::splits),
    ("kernels", "simulated, real time", node::kernels),
    ("gates", "simulated, real time", node::gates),
    ("alone", "simulated, real time", node::alone),
    ("express", "simulated, real time", node::express),
    ("steps", "simulated, real time", node::steps),
    ("forms", "simulated, real time", node::forms),
    ("daemon", "simulated, real time", node::daemon),
];

/// Runs the bench, or the part asked for.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let wanted = |name: &str| settings.part.as_ref().is_none_or(|part| part == name);
    let names = || PARTS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let mut parts = PARTS.iter().filter(|(name, ..)| wanted(name)).peekable();
    parts.peek().with_context(|| format!("there is no such part; there are: {}", names()))?;
    let mut figures = Vec::new();
    for (_, device, part) in parts {
        let subject = Subject { bench: BENCH, device: (*device).to_owned(), commit: settings.commit.clone() };
        figures.extend(part(settings, &subject)?);
    }
    Ok(figures)
}

/// A split as the figures' cases name it: `30/70`.
fn named(split: &[u32]) -> String {
    split.iter().map(u32::to_string).collect::<Vec<_>>().join("/")
}
