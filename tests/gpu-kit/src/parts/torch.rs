//! Unmodified frameworks: each case of `python/frameworks.py` natively, then as a tenant. Results must be the same; a memory quota
//! that is hit must be the framework's own clean out-of-memory error.

use std::time::Duration;

use anyhow::Result;
use headgate_harness::{Node, Program, TenantSpec};
use serde_json::{Value, json};

use crate::kit::{How, Kit, tail};
use crate::record::Recorder;

/// Cases with their tenants: what must run as it does natively, and what must be refused.
const CASES: [(&str, &str); 13] = [
    ("train", "roomy"),
    ("infer", "roomy"),
    ("out_of_memory", "tight"),
    ("expandable_segments", "roomy"),
    ("async_allocator", "roomy"),
    ("no_caching", "roomy"),
    ("cuda_graph", "roomy"),
    ("streams", "roomy"),
    ("compile", "roomy"),
    ("triton", "roomy"),
    ("cupy", "roomy"),
    ("jax", "roomy"),
    ("out_of_memory_expandable", "tight"),
];
/// One case may compile kernels for the first time.
const CASE_MAX: Duration = Duration::from_secs(75);

pub(super) fn run(kit: &Kit, recorder: &mut Recorder) -> Result<Option<String>> {
    if kit.simulated {
        return Ok(Some(super::NEEDS_RUNTIME.to_owned()));
    }
    let tenants =
        vec![TenantSpec::new("roomy").sm(100).memory("40Gi"), TenantSpec::new("tight").memory("4Gi")];
    let node = kit.node(tenants)?;
    let mut skipped = 0;
    for (case, tenant) in CASES {
        if recorder.left() < Duration::from_secs(15) {
            recorder.fact("cut_short", format!("no time for {case} and what follows"))?;
            break;
        }
        let governed = once(kit, &node, How::Tenant(tenant), case, recorder)?;
        let native = once(kit, &node, How::Native, case, recorder)?;
        if governed["skipped"].is_string() && native["skipped"].is_string() {
            skipped += 1;
        } else {
            judge(recorder, case, &native, &governed)?;
        }
        recorder.fact(case, json!({ "native": native, "tenant": governed }))?;
    }
    recorder.fact("gpu_kit_cases_skipped", skipped)?;
    recorder.fact("status_at_the_end", node.status()?)?;
    Ok((skipped == CASES.len()).then(|| "this machine's python3 has none of the frameworks".to_owned()))
}

/// One case: what it printed, or how it ended.
fn once(kit: &Kit, node: &Node, how: How<'_>, case: &str, recorder: &Recorder) -> Result<Value> {
    let mut command = kit.python(node, how, "frameworks.py", &[case])?;
    let outcome = match Program::start(case, &mut command)?.finish(CASE_MAX.min(recorder.left())) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(json!({ "error": tail(&format!("{error:#}")) })),
    };
    let printed = outcome
        .stdout
        .lines()
        .rev()
        .find(|line| line.starts_with('{'))
        .and_then(|line| serde_json::from_str(line).ok());
    Ok(match printed {
        Some(value) if outcome.status.success() => value,
        _ => {
            json!({ "error": format!("{}: {}{}", outcome.status, tail(&outcome.stdout), tail(&outcome.stderr)) })
        }
    })
}

fn judge(recorder: &mut Recorder, case: &str, native: &Value, governed: &Value) -> Result<()> {
    if let Some(seconds) = native["seconds"].as_f64().zip(governed["seconds"].as_f64()) {
        recorder.figure("time, of what it is natively", case, "ratio", &[seconds.1 / seconds.0], None)?;
    }
    if case.starts_with("out_of_memory") {
        // Natively there is room; under the quota the framework must say so in its own words, and go on.
        return match governed["result"].as_str() {
            Some("OutOfMemoryError, and usable afterwards") => Ok(()),
            _ => {
                recorder.problem(format!("{case}: a memory quota was hit, and the framework saw {governed}"))
            }
        };
    }
    if !native["error"].is_null() {
        return recorder.fact(&format!("{case}: fails natively"), native["error"].clone());
    }
    if native["result"] != governed["result"] {
        return recorder.problem(format!("{case}: natively {}, as a tenant {governed}", native["result"]));
    }
    Ok(())
}
