//! The conformance suite of `tests/conformance`, three ways: natively, under the hook without limits (a program must see the
//! same), under limits (exactly what does not fit is refused).

use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::process::Outcome;
use headgate_harness::{Node, Program, TenantSpec, workspace};

use crate::kit::{How, Kit, tail};
use crate::record::Recorder;

/// Lines of a difference that are kept.
const DIFFERENCES_MAX: usize = 40;

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    // A real context takes some hundred mebibytes, which count.
    let (limits, churn) = if kit.simulated { ("256Mi", "128Mi") } else { ("4Gi", "2Gi") };
    let tenants = [
        TenantSpec::new("free"),
        TenantSpec::new("limited").memory(limits),
        TenantSpec::new("churning").memory(churn),
    ];
    let node = kit.node(tenants.to_vec())?;

    let native = conform(kit, &node, How::Native, &["transcript"], recorder)?;
    let hooked = conform(kit, &node, How::Tenant("free"), &["transcript"], recorder)?;
    recorder.fact("transcript", native.stdout.clone())?;
    recorder.fact("transcript_complete", native.status.success())?;
    if native.status.success() != hooked.status.success() {
        recorder.problem(format!(
            "natively the suite ended with {}, under the hook with {}: {}",
            native.status,
            hooked.status,
            tail(&hooked.stderr)
        ))?;
    }
    let differences: Vec<String> = differences(&native.stdout, &hooked.stdout);
    recorder.figure(
        "lines that differ under the hook without limits",
        "transcript",
        "lines",
        &[f64::from(u32::try_from(differences.len())?)],
        Some(crate::record::Goal::AtMost(0.0)),
    )?;
    if !differences.is_empty() {
        recorder.problem(format!("{} lines of the transcript differ under the hook", differences.len()))?;
        recorder.fact("differences", &differences[..differences.len().min(DIFFERENCES_MAX)])?;
    }

    let limited = conform(kit, &node, How::Tenant("limited"), &["limits"], recorder)?;
    let wrong: Vec<&str> = limited.stdout.lines().filter(|line| line.starts_with("FAIL")).collect();
    recorder.fact("limits", limited.stdout.lines().map(str::to_owned).collect::<Vec<_>>())?;
    for line in &wrong {
        recorder.problem(*line)?;
    }
    if !limited.status.success() && wrong.is_empty() {
        recorder.problem(format!("limits ended with {}: {}", limited.status, tail(&limited.stderr)))?;
    }

    for seed in ["1", "2"] {
        let churned = conform(kit, &node, How::Tenant("churning"), &["churn", "1000", seed], recorder)?;
        recorder.fact(&format!("churn, seed {seed}"), churned.stdout.trim())?;
        if !churned.status.success() {
            recorder.problem(format!(
                "random operations, seed {seed}: {} {}",
                churned.stdout.trim(),
                tail(&churned.stderr)
            ))?;
        }
    }
    for row in node.status()?["tenants"].as_array().context("the status lists tenants")? {
        let left = row["gpus"][0]["memory_used_bytes"].as_u64().unwrap_or(0);
        if left != 0 {
            recorder.problem(format!(
                "{} bytes stay charged to {} after its programs ended",
                left, row["name"]
            ))?;
        }
    }
    Ok(None)
}

fn conform(kit: &Kit, node: &Node, how: How<'_>, words: &[&str], recorder: &Recorder) -> Result<Outcome> {
    let mut command = kit.command(node, how, &workspace::program("conform")?, words)?;
    let patience = recorder.left().clamp(Duration::from_secs(5), Duration::from_secs(120));
    Program::start("conform", &mut command)?.finish(patience)
}

/// What differs, line by line.
fn differences(native: &str, hooked: &str) -> Vec<String> {
    let (mut native, mut hooked) = (native.lines(), hooked.lines());
    let mut found = Vec::new();
    loop {
        match (native.next(), hooked.next()) {
            (None, None) => return found,
            (without, with) if without == with => {}
            (without, with) => found.push(format!("{} | {}", without.unwrap_or("-"), with.unwrap_or("-"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn differences_name_both_sides() {
        assert!(differences("a\nb\n", "a\nb\n").is_empty());
        assert_eq!(differences("a\nb\n", "a\nc\nd\n"), ["b | c", "- | d"]);
    }
}
