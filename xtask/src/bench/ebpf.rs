//! Kernel programs: what they cost whoever runs into them, and the daemon that reads them.
//!
//! The figures are printed by the loader's own cost tests, built for release: they need root and a kernel with BPF, and assert that
//! whatever they timed was counted. Times are of this machine; what is asked for stands beside them, from the first plan for a
//! two-core virtual machine of this kind.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::{Figure, Settings, Subject};
use crate::workspace;

/// Goals, by figure and case. What is not here informs only.
const GOALS: [(&str, &str, f64); 23] = [
    ("sync call, entry and return", "uprobe_session, push first", 950.0),
    ("sync call, entry and return", "uprobe_session, cmp, je (NVIDIA)", 950.0),
    ("sync call, entry and return", "uprobe_multi, push first", 1_050.0),
    ("sync call, entry and return", "uprobe_multi, cmp, je (NVIDIA)", 1_050.0),
    ("allocation or free, followed and witnessed", "all-in", 1_300.0),
    ("launch, audited one second of sixty", "amortised", 10.0),
    ("body, net", "border_egress", 120.0),
    ("body, net", "border_connect4", 25.0),
    ("body, net", "border_connect6", 25.0),
    ("body, net", "border_frame", 80.0),
    ("body, net", "device_gate, guarded device", 25.0),
    ("body, net", "device_gate, other device", 25.0),
    ("body, net", "ledger_exit", 300.0),
    ("body, net", "ioctl_enter", 80.0),
    ("body, net", "ioctl_leave", 80.0),
    ("ping-pong over loopback, probed", "of bare", 1.02),
    ("a loop of 1 ms calls, longer by", "probed", 0.3),
    ("consumer", "50,000 events/s, read every 15 s", 50.0),
    ("reading the probes", "200 tenants", 20.0),
    ("reading enforcement", "200 tenants, 10 districts", 20.0),
    ("detach a library by link", "7 sites", 50.0),
    ("detach everything", "one library", 50.0),
    ("budget overshoot", "1,000 bytes, two senders", 0.0),
];

/// What a figure may be of, so that a line from a test is never taken for one that is not known here.
const FIGURES: [(&str, &str); 14] = [
    ("sync call, entry and return", "ns"),
    ("allocation or free, followed and witnessed", "ns"),
    ("launch, audited one second of sixty", "ns"),
    ("body, net", "ns"),
    ("body, the clock included", "ns"),
    ("ping-pong over loopback, probed", "ratio"),
    ("a loop of 1 ms calls, longer by", "percent"),
    ("consumer", "ns"),
    ("reading the probes", "ms"),
    ("reading enforcement", "ms"),
    ("attach a library by link", "ms"),
    ("detach a library by link", "ms"),
    ("detach everything", "ms"),
    ("budget overshoot", "bytes"),
];

/// Runs the bench.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    // A round takes half a minute, and its tests take medians and minima of many rounds of their own.
    let rounds = if settings.quick { 1 } else { 2 };
    let mut samples: BTreeMap<(&'static str, String, &'static str), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for test in ["costs", "costs_enforcement"] {
            gather(test, &mut samples)?;
        }
    }
    ensure!(!samples.is_empty(), "no test could measure anything: it takes root and a kernel with BPF");
    let subject = Subject { bench: "ebpf", device: "none".to_owned(), commit: settings.commit.clone() };
    samples
        .into_iter()
        .map(|((figure, case, unit), samples)| {
            let goal = GOALS.iter().find(|(of, in_case, _)| *of == figure && *in_case == case);
            subject.lower(figure, case, unit, goal.map(|(.., goal)| *goal), &samples)
        })
        .collect()
}

/// Runs one of the tests and takes its figures in.
fn gather(test: &str, samples: &mut BTreeMap<(&'static str, String, &'static str), Vec<f64>>) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["test", "--quiet", "--release", "--locked", "--package", "headgate-ebpf", "--test", test]);
    command.args(["--", "--nocapture", "--test-threads", "1"]);
    let output = command.stderr(Stdio::inherit()).output().context("starting cargo")?;
    let text = String::from_utf8(output.stdout).context("the test prints text")?;
    ensure!(output.status.success(), "the test {test} failed with {}:\n{text}", output.status);
    for line in text.lines() {
        // The test's own name may stand before the first line it prints.
        let Some((_, line)) = line.split_once("FIGURE\t") else { continue };
        let [figure, case, unit, value] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{test} printed `{line}`, which is no figure");
        };
        let (figure, unit) = FIGURES.iter().find(|known| **known == (figure, unit)).with_context(|| {
            format!("{test} printed `{figure}` in {unit}, which this bench does not know")
        })?;
        let value = value.parse().with_context(|| format!("{test} printed `{value}` for {figure}"))?;
        samples.entry((figure, case.to_owned(), unit)).or_default().push(value);
    }
    Ok(())
}
