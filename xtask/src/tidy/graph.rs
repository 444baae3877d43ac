//! Who may depend on whom: the house's table, checked against `cargo metadata`.
//!
//! Siblings never link each other, except the daemon. What lives in strangers' processes (the hook and what it
//! links) may have no dependency beyond a short list, transitively. A new edge is an architecture change: it
//! belongs into this table and into `docs/ARCHITECTURE.md` in the same commit.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Findings;
use crate::workspace;

/// What a package of the workspace may link.
struct Rule {
    package: &'static str,
    /// Packages of the workspace.
    own: &'static [&'static str],
    /// Crates from outside.
    outside: Outside,
}

/// Which crates from outside.
enum Outside {
    /// These only.
    Only(&'static [&'static str]),
    /// Any that `deny.toml` lets through.
    Any,
}

use Outside::{Any, Only};

const RULES: &[Rule] = &[
    Rule { package: "headgate-quota", own: &[], outside: Only(&[]) },
    Rule { package: "headgate-abi", own: &["headgate-quota"], outside: Only(&["libc"]) },
    Rule { package: "headgate-hook", own: &["headgate-quota", "headgate-abi"], outside: Only(&["libc"]) },
    Rule { package: "headgate-ebpf-records", own: &[], outside: Only(&["aya", "aya-ebpf"]) },
    Rule {
        package: "headgate-ebpf",
        own: &["headgate-quota", "headgate-abi", "headgate-ebpf-records"],
        outside: Only(&["aya", "aya-obj", "libc", "object", "thiserror", "tracing"]),
    },
    Rule {
        package: "headgate-exporter",
        own: &["headgate-quota", "headgate-abi"],
        outside: Only(&["axum", "prometheus-client", "thiserror", "tokio", "tracing"]),
    },
    Rule { package: "headgate-loans", own: &["headgate-quota"], outside: Any },
    Rule {
        package: "headgate-remote",
        own: &["headgate-quota", "headgate-abi"],
        outside: Only(&["libc", "seccompiler", "sha2", "thiserror"]),
    },
    // What programs load in the place of a driver: exports, and nothing of its own.
    Rule {
        package: "headgate-remote-libcuda",
        own: &["headgate-abi", "headgate-remote"],
        outside: Only(&[]),
    },
    // The same in front of a driver: it also stands in the loader's look-ups.
    Rule {
        package: "headgate-remote-redirect",
        own: &["headgate-abi", "headgate-remote"],
        outside: Only(&["libc"]),
    },
    Rule {
        package: "headgate",
        own: &[
            "headgate-quota",
            "headgate-abi",
            "headgate-ebpf",
            "headgate-exporter",
            "headgate-loans",
            "headgate-remote",
        ],
        outside: Any,
    },
    // The simulated GPU shares the contract and nothing else, so that it cannot share the hook's mistakes.
    Rule { package: "headgate-simgpu-ptx", own: &[], outside: Only(&["thiserror"]) },
    Rule { package: "headgate-simgpu", own: &["headgate-abi", "headgate-simgpu-ptx"], outside: Any },
    Rule { package: "headgate-simgpu-libcuda", own: &["headgate-abi", "headgate-simgpu"], outside: Any },
    Rule { package: "headgate-simgpu-libnvml", own: &["headgate-abi", "headgate-simgpu"], outside: Any },
    Rule { package: "headgate-nulldriver", own: &["headgate-abi"], outside: Only(&["libc"]) },
    // Programs that know nothing of Headgate prove nothing if they link it.
    Rule { package: "headgate-stopwatch", own: &[], outside: Only(&["libc"]) },
    Rule { package: "headgate-apps", own: &[], outside: Any },
    Rule { package: "headgate-standin", own: &["headgate-abi"], outside: Any },
    Rule {
        package: "headgate-compute-sim",
        own: &["headgate-quota", "headgate-abi", "headgate-simgpu"],
        outside: Only(&[]),
    },
    Rule { package: "headgate-harness", own: &["headgate-abi", "headgate-simgpu"], outside: Any },
    // It links the wire of borrowed GPUs to speak it badly.
    Rule {
        package: "headgate-e2e",
        own: &["headgate-abi", "headgate-harness", "headgate-remote", "headgate-simgpu"],
        outside: Any,
    },
    // It is compared with what Headgate says, so its programs link none of it; only its tests start nodes.
    Rule { package: "headgate-conformance", own: &["headgate-harness"], outside: Any },
    Rule { package: "headgate-gpu-kit", own: &["headgate-ebpf", "headgate-harness"], outside: Any },
    // What it measures with: it is run natively too, and knows nothing of Headgate.
    Rule { package: "headgate-gpu-kit-programs", own: &[], outside: Any },
    Rule {
        package: "xtask",
        own: &["headgate-abi", "headgate-harness", "headgate-compute-sim"],
        outside: Any,
    },
];

/// Everything the hook may pull into a stranger's process, transitively.
const IN_STRANGERS: &[&str] = &["headgate-hook", "headgate-abi", "headgate-quota", "libc"];

pub(super) fn check(findings: &mut Findings) -> Result<()> {
    let metadata = metadata()?;
    let graph = Graph::of(&metadata)?;
    for (package, linked) in &graph.direct {
        match RULES.iter().find(|rule| rule.package == package) {
            Some(rule) => check_package(findings, &graph, rule, linked),
            None => findings.problem(
                package,
                "no rule says what it may depend on; add it to xtask/src/tidy/graph.rs and docs/ARCHITECTURE.md",
            ),
        }
    }
    for rule in RULES {
        if !graph.direct.contains_key(rule.package) {
            findings
                .problem(rule.package, "has a rule in xtask/src/tidy/graph.rs but is not in the workspace");
        }
    }
    for package in graph.closure("headgate-hook") {
        if !IN_STRANGERS.contains(&package.as_str()) {
            findings.problem(
                "headgate-hook",
                format_args!(
                    "pulls `{package}` into strangers' processes; the hook stays nearly dependency-free"
                ),
            );
        }
    }
    Ok(())
}

fn check_package(findings: &mut Findings, graph: &Graph, rule: &Rule, linked: &BTreeSet<String>) {
    for dependency in linked {
        let own = graph.direct.contains_key(dependency);
        let allowed = match &rule.outside {
            _ if own => rule.own.contains(&dependency.as_str()),
            Only(crates) => crates.contains(&dependency.as_str()),
            Any => true,
        };
        if !allowed {
            findings.problem(
                rule.package,
                format_args!(
                    "may not depend on `{dependency}`; a new edge is an architecture change (xtask/src/tidy/graph.rs, \
                     docs/ARCHITECTURE.md)"
                ),
            );
        }
    }
}

fn metadata() -> Result<Value> {
    let output = workspace::cargo()
        .args(["metadata", "--format-version=1", "--locked"])
        .output()
        .context("starting cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

/// Dependencies that end up in what is built. Those of tests and build scripts do not.
struct Graph {
    /// Of the workspace's own packages, by name.
    direct: BTreeMap<String, BTreeSet<String>>,
    /// Of every package, by cargo's id.
    links: BTreeMap<String, Vec<String>>,
    names: BTreeMap<String, String>,
}

impl Graph {
    fn of(metadata: &Value) -> Result<Self> {
        let list = |value: &Value, what: &str| -> Result<Vec<Value>> {
            value.as_array().cloned().with_context(|| format!("cargo metadata has no {what}"))
        };
        let text = |value: &Value, what: &str| -> Result<String> {
            value.as_str().map(str::to_owned).with_context(|| format!("cargo metadata lacks a {what}"))
        };
        let mut names = BTreeMap::new();
        for package in list(&metadata["packages"], "packages")? {
            names.insert(text(&package["id"], "package id")?, text(&package["name"], "package name")?);
        }
        let mut links = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"], "resolved graph")? {
            let mut linked = Vec::new();
            for dependency in list(&node["deps"], "dependencies")? {
                let kinds = list(&dependency["dep_kinds"], "kinds of a dependency")?;
                if kinds.iter().any(|kind| kind["kind"].is_null()) {
                    linked.push(text(&dependency["pkg"], "dependency")?);
                }
            }
            links.insert(text(&node["id"], "node id")?, linked);
        }
        let name = |id: &String| names.get(id).cloned().with_context(|| format!("{id} has no name"));
        let mut direct = BTreeMap::new();
        for member in list(&metadata["workspace_members"], "workspace members")? {
            let id = text(&member, "member")?;
            let linked = links.get(&id).into_iter().flatten().map(name).collect::<Result<_>>()?;
            direct.insert(name(&id)?, linked);
        }
        Ok(Self { direct, links, names })
    }

    /// A package and everything it links, transitively, by name.
    fn closure(&self, package: &str) -> BTreeSet<String> {
        let mut waiting: Vec<&String> =
            self.names.iter().filter(|(_, name)| *name == package).map(|(id, _)| id).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if seen.insert(id) {
                waiting.extend(self.links.get(id).into_iter().flatten());
            }
        }
        seen.into_iter().filter_map(|id| self.names.get(id).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workspace of `headgate-quota` (with `stray` linked), `headgate-hook` and a package without a rule.
    fn metadata() -> Value {
        let package = |name: &str| json!({ "id": format!("id-{name}"), "name": name });
        let dependency =
            |name: &str, kind: Value| json!({ "pkg": format!("id-{name}"), "dep_kinds": [{ "kind": kind }] });
        json!({
            "packages": [package("headgate-quota"), package("headgate-hook"), package("newcomer"), package("stray")],
            "workspace_members": ["id-headgate-quota", "id-headgate-hook", "id-newcomer"],
            "resolve": { "nodes": [
                { "id": "id-headgate-quota", "deps": [dependency("stray", Value::Null)] },
                { "id": "id-headgate-hook", "deps": [dependency("headgate-quota", Value::Null), dependency("newcomer", json!("dev"))] },
                { "id": "id-newcomer", "deps": [] },
                { "id": "id-stray", "deps": [] },
            ] },
        })
    }

    #[test]
    fn only_what_is_linked_counts() {
        let graph = Graph::of(&metadata()).unwrap();
        assert_eq!(graph.direct["headgate-hook"], BTreeSet::from(["headgate-quota".to_owned()]));
        assert!(graph.closure("headgate-hook").contains("stray"), "through quota");
        assert!(!graph.closure("headgate-hook").contains("newcomer"), "a test's dependency is not linked");
    }

    #[test]
    fn a_stray_edge_is_found() {
        let graph = Graph::of(&metadata()).unwrap();
        let mut findings = Findings::default();
        let rule = &RULES[0];
        check_package(&mut findings, &graph, rule, &graph.direct[rule.package]);
        assert_eq!(findings.problems.len(), 1);
        assert!(findings.problems[0].contains("`stray`"), "{}", findings.problems[0]);
    }

    #[test]
    fn no_package_may_depend_on_the_daemon() {
        assert!(RULES.iter().all(|rule| !rule.own.contains(&"headgate")));
    }
}
