//! What the kernel refuses on the daemon's behalf: data at the border, GPUs without an attested hook.
//!
//! The district abroad is a network namespace at the other end of a virtual cable.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually, is_root, skipped, workspace};
use support::{Puppet, SOON, node_of};

/// `EPERM`, what a refusal at the border looks like to a program.
const EPERM: u64 = 1;

/// What a driver without its device node answers.
const NO_DEVICE: u32 = 100;

/// A virtual cable to a namespace; gone with its value. `198.18.0.0/15` is set aside for such networks.
struct Abroad {
    name: String,
    net: u8,
}

impl Abroad {
    fn build(net: u8) -> Result<Self, String> {
        let name = format!("hg{}x{net}", std::process::id() % 100_000);
        let this = Self { name: name.clone(), net };
        for line in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name far netns {name}"),
            format!("addr add 198.18.{net}.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add 198.18.{net}.2/24 dev far"),
            format!("-n {name} link set far up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&line)?;
        }
        Ok(this)
    }

    fn address(&self, port: u16) -> String {
        format!("198.18.{}.2:{port}", self.net)
    }

    fn district(&self) -> String {
        format!("{{name: south, cidrs: [198.18.{}.0/24]}}", self.net)
    }
}

impl Drop for Abroad {
    fn drop(&mut self) {
        let _cable_too = ip(&format!("netns del {}", self.name));
    }
}

fn ip(line: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(line.split(' ')).output().map_err(|error| format!("no ip(8): {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A tenant's program that sends things.
fn courier(node: &Node, tenant: &str) -> Puppet {
    Puppet::start(&mut node.command(tenant, Path::new(env!("CARGO_BIN_EXE_courier"))).unwrap())
}

fn sends(courier: &mut Puppet, command: &str) -> Result<Vec<u64>, Vec<u64>> {
    courier.words(command)
}

fn districts(abroad: &Abroad) -> String {
    format!("districts: [{{name: north, cidrs: [198.19.0.0/16]}}, {}]", abroad.district())
}

fn bound(mode: &str, budget: u64) -> TenantSpec {
    TenantSpec::new("clinic").district("north").with(&format!(
        "residency: {{mode: {mode}, channelPort: 4791, budgets: [{{district: south, bytes: {budget}, every: 1h}}]}}"
    ))
}

fn refused(node: &Node, reason: &str) -> Option<f64> {
    let reason = format!("reason=\"{reason}\"");
    node.metrics()
        .unwrap()
        .value("headgate_refusals_total", &["tenant=\"clinic\"", &reason, "outcome=\"refused\""])
}

fn enforced(tenants: Vec<TenantSpec>, spec: Vec<String>) -> NodeOptions {
    NodeOptions { enforced: true, spec, ..NodeOptions::simulated(tenants) }
}

#[test]
fn a_bound_tenants_bytes_leave_on_the_channel_within_their_budget_and_no_daemon_is_needed_for_that() {
    let name = "a_bound_tenants_bytes_leave_on_the_channel_within_their_budget";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let abroad = match Abroad::build(1) {
        Ok(abroad) => abroad,
        Err(why) => return skipped(name, &why),
    };
    // Ten datagrams of 64 bytes with their 28 bytes of headers, and most of an eleventh.
    let mut node = node_of(enforced(vec![bound("enforce", 1_000)], vec![districts(&abroad)]));
    let mut clinic = courier(&node, "clinic");
    let send = |clinic: &mut Puppet, port, count: u64| {
        sends(clinic, &format!("udp {} 64 {count}", abroad.address(port)))
    };

    assert_eq!(send(&mut clinic, 53, 1), Err(vec![EPERM, 0]), "not the channel's port");
    assert_eq!(sends(&mut clinic, &format!("tcp {}", abroad.address(80))), Err(vec![EPERM, 0]));
    assert_eq!(sends(&mut clinic, "udp 203.0.113.9:4791 64 1"), Err(vec![EPERM, 0]), "no known district");
    assert_eq!(send(&mut clinic, 4791, 100), Err(vec![EPERM, 10]), "ten fit, the eleventh would overshoot");

    let left = node.metrics().unwrap();
    let south = ["tenant=\"clinic\"", "peer_district=\"south\""];
    assert_eq!(left.value("headgate_egress_budget_bytes", &south), Some(1_000.0));
    assert_eq!(left.value("headgate_egress_budget_left_bytes", &south), Some(80.0));
    let egress = ["tenant=\"clinic\"", "peer_district=\"south\"", "direction=\"egress\""];
    assert_eq!(left.value("headgate_network_bytes_total", &egress), Some(920.0), "what passed, to the byte");
    for (reason, count) in [("not_channel", 2.0), ("unknown_district", 1.0), ("budget", 1.0)] {
        assert_eq!(refused(&node, reason), Some(count), "{reason}");
    }

    // Nobody extends a budget by killing the daemon, nor by starting it again.
    node.kill_daemon().unwrap();
    assert_eq!(send(&mut clinic, 4791, 1), Err(vec![EPERM, 0]));
    assert_eq!(send(&mut clinic, 53, 1), Err(vec![EPERM, 0]));
    node.start_daemon().unwrap();
    assert_eq!(send(&mut clinic, 4791, 1), Err(vec![EPERM, 0]), "its period is not over");
    // A greater one is in force at once: what has passed counts against it.
    node.set_tenants(vec![bound("enforce", 2_000)]).unwrap();
    eventually("the reload reaches the kernel", SOON, || {
        let left = node.metrics().unwrap().value("headgate_egress_budget_left_bytes", &south);
        (left == Some(1_080.0)).then_some(())
    });
    assert_eq!(send(&mut clinic, 4791, 100), Err(vec![EPERM, 11]));

    // Audited, everything passes and is counted.
    node.set_tenants(vec![bound("audit", 2_000)]).unwrap();
    eventually("the mode reaches the kernel", SOON, || send(&mut clinic, 53, 1).ok());
    node.set_tenants(vec![TenantSpec::new("clinic").district("north")]).unwrap();
    eventually("an unbound tenant sends as it likes", SOON, || {
        (sends(&mut clinic, "udp 203.0.113.9:53 64 1") == Ok(vec![1])).then_some(())
    });
}

#[test]
fn a_node_that_cannot_hold_what_is_demanded_is_not_ready() {
    if !is_root() {
        return skipped(
            "a_node_that_cannot_hold_what_is_demanded_is_not_ready",
            &"root owns the pins' place",
        );
    }
    let mut node = node_of(NodeOptions::simulated(vec![TenantSpec::new("clinic")]));
    // A place that is no BPF file system and cannot become one.
    let spec = "enforcement: {pins: /proc/headgate}".to_owned();
    node.set_tenants(vec![TenantSpec::new("clinic").with("deviceGate: {mode: enforce}")]).unwrap();
    node.set_spec(vec![spec]).unwrap();
    let body = eventually("readiness says so", SOON, || match node.get("/readyz").unwrap() {
        (503, body) if body.contains("clinic") => Some(body),
        _ => None,
    });
    assert!(body.contains("device_gate"), "{body}");
    node.set_spec(Vec::new()).unwrap();
    node.set_tenants(vec![TenantSpec::new("clinic")]).unwrap();
    eventually("nothing is demanded any more", SOON, || {
        (node.get("/readyz").unwrap().0 == 200).then_some(())
    });
}

#[test]
fn an_ioctl_audit_tells_whose_they_were_and_ends() {
    if !is_root() {
        return skipped(
            "an_ioctl_audit_tells_whose_they_were_and_ends",
            &"needs root to load kernel programs",
        );
    }
    let node = node_of(NodeOptions::simulated(vec![TenantSpec::new("clinic")]));
    let mut clinic = courier(&node, "clinic");
    let mut command = Command::new(workspace::program("headgate").unwrap());
    command.args(["audit", "ioctl", "--for", "2s", "--json", "--admin-socket"]).arg(node.path("admin.sock"));
    let audit = Program::start("the audit", &mut command).unwrap();
    // `NV_ESC_RM_ALLOC` of NVIDIA's driver, again and again until the audit is over: when it begins, only the kernel knows.
    let mut audit = Some(audit);
    let mut called = 0;
    eventually("the audit ends by itself", SOON, || {
        called += clinic.words("ioctl c020462b 100").unwrap()[0];
        audit.as_mut().is_none_or(|audit| !audit.is_running()).then_some(())
    });
    let seen = audit.take().unwrap().finish(SOON).unwrap().json().unwrap();
    let calls = seen["tenants"]["clinic"]["calls"].as_u64().unwrap();
    assert!(0 < calls && calls <= called, "{seen}");
    // The two tables agree to the last call, although calls went on while the audit ended. Whatever else on this machine calls
    // a driver of that kind is nobody's we know, and in both.
    let sum = |table: &str| -> u64 {
        let rows = seen[table].as_object().unwrap().values();
        rows.map(|row| row["calls"].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("tenants"), sum("numbers"), "{seen}");
    let number = &seen["numbers"]["0x2b"];
    assert!(calls <= number["failed"].as_u64().unwrap(), "a pipe refuses them all: {seen}");
    let parts = node.status().unwrap()["parts"].clone();
    let ioctl = parts.as_array().unwrap().iter().find(|part| part["name"] == "ioctl_audit").unwrap();
    assert_eq!(ioctl["up"], false, "it costs nothing any more");
}

/// A device node of our own: `/dev/full` under the name of a GPU. Not in /tmp, which may be mounted without devices.
fn device_node() -> Result<(tempfile::TempDir, PathBuf), String> {
    let directory = tempfile::tempdir_in("/dev").map_err(|error| error.to_string())?;
    let path = directory.path().join("gpu0");
    nix::sys::stat::mknod(
        &path,
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::sys::stat::makedev(1, 7),
    )
    .map_err(|error| error.to_string())?;
    Ok((directory, path))
}

#[test]
fn no_attested_hook_no_gpu() {
    if !is_root() {
        return skipped("no_attested_hook_no_gpu", &"needs root to load kernel programs");
    }
    let (_nodes, path) = match device_node() {
        Ok(made) => made,
        Err(why) => return skipped("no_attested_hook_no_gpu", &why),
    };
    let gated = TenantSpec::new("clinic").with("deviceGate: {mode: enforce}");
    let mut node = node_of(NodeOptions { device_node: Some(path), ..enforced(vec![gated], Vec::new()) });

    let mut hooked = Puppet::in_tenant(&node, "clinic");
    hooked.ready();
    hooked.must("alloc 4096");

    // The same program in the same cgroup without the hook: it never says hello, so its driver finds no device.
    let mut bare = Puppet::native_in(&node, "clinic");
    assert_eq!(bare.ask("init"), Err(NO_DEVICE));
    eventually("the refusal is counted", SOON, || (refused(&node, "unattested") == Some(1.0)).then_some(()));

    // Refused in the kernel: a dead daemon opens nothing, and takes nothing from those that are attested.
    node.kill_daemon().unwrap();
    let mut bare = Puppet::native_in(&node, "clinic");
    assert_eq!(bare.ask("init"), Err(NO_DEVICE));
    hooked.must("alloc 4096");
    node.start_daemon().unwrap();
    let mut after = Puppet::in_tenant(&node, "clinic");
    after.ready();
}
