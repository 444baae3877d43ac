//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod python;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, TenantSpec};

/// How long a run of the suite may take on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// One unit of the suite.
pub const UNIT: u64 = 2 << 20;

/// The suite's program.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_conform"))
}

/// The suite in a tenant, under the hook.
pub fn conform(node: &Node, tenant: &str) -> Command {
    node.command(tenant, program()).unwrap()
}

/// The suite without Headgate.
pub fn native(node: &Node) -> Command {
    node.native_command(program())
}

/// A node with one simulated device and these tenants.
#[track_caller]
pub fn node(tenants: Vec<TenantSpec>) -> Node {
    Node::start(NodeOptions::simulated(tenants)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Bytes the ledger holds for a tenant on the first device.
pub fn used_bytes(node: &Node, tenant: &str) -> u64 {
    row(node, tenant)["gpus"][0]["memory_used_bytes"].as_u64().expect("memory_used_bytes")
}

/// A tenant's row of the status.
pub fn row(node: &Node, tenant: &str) -> serde_json::Value {
    let status = node.status().unwrap();
    let rows = status["tenants"].as_array().expect("status lists tenants");
    rows.iter().find(|row| row["name"] == tenant).unwrap_or_else(|| panic!("no tenant {tenant}")).clone()
}
