//! Where a tenant's time goes, as the kernel saw it, against the program's own clock.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::process::Command;

use headgate_harness::prometheus::Page;
use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, is_root, skipped};
use serde_json::json;
use support::{Puppet, SOON, node, node_of};

/// Most that the parts may differ from the whole.
const TOLERANCE: f64 = 0.05;

fn up(node: &Node, list: &str, name: &str) -> bool {
    let status = node.status().unwrap();
    let parts = status[list].as_array().unwrap().clone();
    parts.iter().any(|part| part["name"] == name && part["up"] == true)
}

fn sum(page: &Page, family: &str, labels: &[&str]) -> f64 {
    page.value(&format!("{family}_seconds_sum"), labels).unwrap_or_else(|| panic!("no {family} {labels:?}"))
}

#[test]
fn the_parts_of_a_tenants_time_sum_to_the_whole() {
    let name = "the_parts_of_a_tenants_time_sum_to_the_whole";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    // Kernels of a fifth of a millisecond: a program that does nothing but launch would measure the audit itself.
    let options = NodeOptions {
        device: Some(json!({ "kernels": { "spin": { "base_ns": 200_000 } } })),
        spec: vec!["witness: {launchAudit: {for: 1h, every: 1h}}".to_owned()],
        ..NodeOptions::simulated(vec![TenantSpec::new("clinic").district("north"), TenantSpec::new("idle")])
    };
    let node = node_of(options);
    let mut puppet = Puppet::in_tenant(&node, "clinic");
    puppet.ready();
    eventually("launches are audited", SOON, || up(&node, "parts", "launch_audit").then_some(()));
    let clinic = ["tenant=\"clinic\"", "district=\"north\"", "gpu=\"GPU-"];
    let launch = [&clinic[..], &["call=\"launch\""]].concat();
    let before = node.metrics().unwrap();
    let nanoseconds = puppet.must("timed 100 20")[0];
    let after = node.metrics().unwrap();
    let spent = |family: &str, labels: &[&str]| sum(&after, family, labels) - sum(&before, family, labels);

    #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
    let whole = nanoseconds as f64 / 1e9;
    let wait = spent("headgate_gpu_wait", &clinic);
    let launches = spent("headgate_driver_call", &launch);
    let gate = spent("headgate_gate_wait", &["tenant=\"clinic\""]);
    let span = spent("headgate_launch_span", &clinic);
    let parts = wait + launches + gate;
    println!(
        "simulated: whole {whole:.4} s; parts {parts:.4} s = gpu wait {wait:.4} + launches {launches:.4} + gate {gate:.4}; spans {span:.4} s"
    );
    assert!((parts - whole).abs() < TOLERANCE * whole, "the parts sum to {parts} s of {whole} s");
    assert!((span - whole).abs() < TOLERANCE * whole, "the spans sum to {span} s of {whole} s");
    let counted = |family: &str, labels: &[&str]| {
        let name = format!("{family}_seconds_count");
        after.value(&name, labels).unwrap() - before.value(&name, labels).unwrap()
    };
    assert_eq!(counted("headgate_gpu_wait", &clinic), 100.0);
    assert_eq!(counted("headgate_driver_call", &launch), 2_000.0);
    assert_eq!(counted("headgate_launch_span", &clinic), 100.0);
    assert_eq!(after.value("headgate_gpu_wait_seconds_count", &["tenant=\"idle\""]), Some(0.0));
}

#[test]
fn what_nobodys_processes_do_is_on_the_page() {
    let name = "what_nobodys_processes_do_is_on_the_page";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let node = node(vec![TenantSpec::new("clinic")]);
    eventually("the driver is probed", SOON, || up(&node, "probes", "gpu_wait").then_some(()));
    let mut stranger = Puppet::native(&node);
    stranger.ready();
    stranger.must("launch 3");
    stranger.must("sync");
    let page = node.metrics().unwrap();
    let nobody = ["tenant=\"_unknown\"", "district=\"_unknown\""];
    // Its loading copied synchronously as well. Other tests' programs share the driver's file and are nobody's here, too.
    assert!(2.0 <= page.value("headgate_gpu_wait_seconds_count", &nobody).unwrap());
    let bypasses = [&nobody[..], &["call=\"allocate\"", "origin=\"unattested\""]].concat();
    assert!(1.0 <= page.value("headgate_bypass_calls_total", &bypasses).unwrap());
}

/// A virtual cable to a namespace; gone with its value. `198.18.0.0/15` is set aside for such networks.
struct Abroad(String);

impl Abroad {
    fn build() -> Result<Self, String> {
        let this = Self(format!("hg{}lat", std::process::id() % 100_000));
        let name = &this.0;
        for line in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name far netns {name}"),
            format!("addr add 198.18.9.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add 198.18.9.2/24 dev far"),
            format!("-n {name} link set far up"),
            format!("-n {name} link set lo up"),
        ] {
            let output = Command::new("ip").args(line.split(' ')).output().map_err(|e| e.to_string())?;
            if !output.status.success() {
                return Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr)));
            }
        }
        Ok(this)
    }
}

impl Drop for Abroad {
    fn drop(&mut self) {
        let _cable_too = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

#[test]
fn round_trips_are_told_by_the_district_at_the_other_end() {
    let name = "round_trips_are_told_by_the_district_at_the_other_end";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let abroad = match Abroad::build() {
        Ok(abroad) => abroad,
        Err(why) => return skipped(name, &why),
    };
    let courier = Path::new(env!("CARGO_BIN_EXE_courier"));
    let districts =
        "districts: [{name: north, cidrs: [198.19.0.0/16]}, {name: south, cidrs: [198.18.9.0/24]}]";
    let options = NodeOptions {
        spec: vec![districts.to_owned()],
        ..NodeOptions::simulated(vec![TenantSpec::new("clinic").district("north")])
    };
    let node = node_of(options);
    let mut echo = Command::new("ip");
    echo.args(["netns", "exec", &abroad.0]).arg(courier);
    let mut echo = Puppet::start(&mut echo);
    let south = format!("198.18.9.2:{}", echo.words("echo 198.18.9.2:0").unwrap()[0]);
    let mut here = Puppet::start(&mut Command::new(courier));
    let local = format!("127.0.0.1:{}", here.words("echo 127.0.0.1:0").unwrap()[0]);
    let mut clinic = Puppet::start(&mut node.command("clinic", courier).unwrap());
    eventually("the tenant's sockets are probed", SOON, || up(&node, "probes", "network_rtt").then_some(()));
    clinic.words(&format!("ping {south} 50")).unwrap();
    clinic.words(&format!("ping {local} 20")).unwrap();
    let page = node.metrics().unwrap();
    for (peer, trips) in [("south", 50.0), ("_local", 20.0)] {
        let peer = format!("peer_district=\"{peer}\"");
        let labels = ["tenant=\"clinic\"", "district=\"north\"", &peer];
        assert_eq!(page.value("headgate_network_connections_total", &labels), Some(1.0), "{peer}");
        assert_eq!(page.value("headgate_network_retransmits_total", &labels), Some(0.0), "{peer}");
        let seen = page.value("headgate_network_rtt_seconds_count", &labels).unwrap();
        assert!(trips <= seen, "{peer}: every message that was answered measured one: {seen}");
    }
}
