//! Where a tenant's time goes, as the kernel saw it, against the program's own clock.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headgate_harness::prometheus::Page;
use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, is_root, quiet, skipped};
use serde_json::json;
use support::cable::Cable;
use support::{Puppet, SOON, kernel, node, node_of};

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
    // A program that is kept from the processors between two calls spends time that no call accounts for.
    quiet::holds("the parts of a tenant's time", || {
        let before = node.metrics().unwrap();
        let nanoseconds = puppet.must("timed 100 20")[0];
        let after = node.metrics().unwrap();
        let grew = |family: &str, labels: &[&str], column: &str| {
            let of = |page: &Page| page.value(&format!("{family}_seconds_{column}"), labels);
            of(&after).zip(of(&before)).map(|(after, before)| after - before).unwrap()
        };
        assert_eq!(grew("headgate_gpu_wait", &clinic, "count"), 100.0);
        assert_eq!(grew("headgate_driver_call", &launch, "count"), 2_000.0);
        assert_eq!(grew("headgate_launch_span", &clinic, "count"), 100.0);
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let whole = nanoseconds as f64 / 1e9;
        let wait = grew("headgate_gpu_wait", &clinic, "sum");
        let launches = grew("headgate_driver_call", &launch, "sum");
        let gate = grew("headgate_gate_wait", &["tenant=\"clinic\""], "sum");
        let span = grew("headgate_launch_span", &clinic, "sum");
        let parts = wait + launches + gate;
        let found = format!(
            "simulated: whole {whole:.4} s; parts {parts:.4} s = gpu wait {wait:.4} + launches {launches:.4} + \
             gate {gate:.4}; spans {span:.4} s"
        );
        println!("{found}");
        let close = |sum: f64| (sum - whole).abs() < TOLERANCE * whole;
        if close(parts) && close(span) { Ok(()) } else { Err(found) }
    });
    let page = node.metrics().unwrap();
    assert_eq!(page.value("headgate_gpu_wait_seconds_count", &["tenant=\"idle\""]), Some(0.0));
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

#[test]
fn a_wait_at_a_closed_gate_is_told_from_the_gpus_work() {
    let name = "a_wait_at_a_closed_gate_is_told_from_the_gpus_work";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    // One borrows what nobody uses and is never held when it is alone; the other is held to its share even then.
    let tenants = vec![TenantSpec::new("guest").sm(50), TenantSpec::new("clinic").sm(40).with("mode: hard")];
    let node = node_of(NodeOptions {
        device: Some(json!({ "kernels": { "spin": { "base_ns": 200_000 } } })),
        ..NodeOptions::simulated(tenants)
    });
    eventually("the driver is probed", SOON, || up(&node, "probes", "gpu_wait").then_some(()));
    let measured = |tenant: &str| {
        let mut puppet = Puppet::in_tenant(&node, tenant);
        puppet.ready();
        let pid = puppet.pid();
        let own_name = format!("tenant=\"{tenant}\"");
        let labels = [&*own_name, "gpu=\"GPU-"];
        let look = || {
            let page = node.metrics().unwrap();
            let held = ["device", "host"].map(|side| {
                let side = format!("side=\"{side}\"");
                let labels = [&labels[..], &[&*side]].concat();
                page.value("headgate_gate_held_seconds_total", &labels).unwrap()
            });
            let statistics = node.device().control().statistics().unwrap();
            let rows = statistics["processes"].as_array().unwrap().clone();
            let own = rows.into_iter().filter(|row| row["pid"] == pid);
            let worked = own.map(|row| row["busy_ns"].as_f64().unwrap() / 1e9).sum::<f64>();
            [sum(&page, "headgate_gpu_wait", &labels), held[0], held[1], worked]
        };
        let before = look();
        let nanoseconds = puppet.must("timed 100 20")[0];
        let after = look();
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let whole = nanoseconds as f64 / 1e9;
        let [wait, device, host, worked] = std::array::from_fn(|of| after[of] - before[of]);
        println!(
            "simulated: {tenant}: whole {whole:.4} s; waited {wait:.4} s = gate {device:.4} + GPU {:.4}, of which the device worked {worked:.4}; host's gate {host:.4}",
            wait - device
        );
        (whole, wait, device, worked)
    };
    let (whole, _, device, _) = measured("guest");
    assert!(device < TOLERANCE * whole, "alone it stood {device} s of {whole} s at its gate");
    let (whole, wait, device, worked) = measured("clinic");
    assert!(0.4 * whole < device, "of three fifths nothing is its own: {device} s of {whole} s at the gate");
    let gpu = wait - device;
    assert!((gpu - worked).abs() < 2.0 * TOLERANCE * whole, "{gpu} s for work of {worked} s, in {whole} s");
}

#[test]
fn a_process_on_two_gpus_waits_for_each_under_its_own_label() {
    let name = "a_process_on_two_gpus_waits_for_each_under_its_own_label";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let node = node_of(NodeOptions {
        device: Some(json!({ "device_count": 2 })),
        ..NodeOptions::simulated(vec![TenantSpec::new("clinic")])
    });
    let status = node.status().unwrap();
    let gpus: Vec<String> =
        (0..2).map(|row| format!("gpu=\"{}\"", status["devices"][row]["gpu"].as_str().unwrap())).collect();
    let waits = |gpu: &str| {
        let page = node.metrics().unwrap();
        page.value("headgate_gpu_wait_seconds_count", &["tenant=\"clinic\"", gpu]).unwrap_or(0.0)
    };
    let mut puppet = Puppet::in_tenant(&node, "clinic");
    puppet.ready();
    eventually("the driver is probed", SOON, || up(&node, "probes", "gpu_wait").then_some(()));
    for (device, gpu) in gpus.iter().enumerate() {
        puppet.must(&format!("device {device}"));
        puppet.must(&format!("load {} spin", kernel("spin").display()));
        // The daemon learns from the seat that the process is here, and tells the kernel.
        eventually("waits count for this GPU", SOON, || {
            let before = waits(gpu);
            puppet.must("timed 1 1");
            (before < waits(gpu)).then_some(())
        });
    }
    for (device, rounds) in [(0, 7.0), (1, 11.0), (0, 3.0)] {
        puppet.must(&format!("device {device}"));
        puppet.must(&format!("load {} spin", kernel("spin").display()));
        let all = || [waits(&gpus[0]), waits(&gpus[1]), waits("gpu=\"_unknown\"")];
        let before = all();
        puppet.must(&format!("timed {rounds} 2"));
        let mut expected = before;
        expected[device] += rounds;
        assert_eq!(all(), expected, "{rounds} waits for device {device}");
    }
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

#[test]
fn a_longer_way_shows_in_the_round_trips_of_its_district() {
    const DELAY: Duration = Duration::from_millis(10);
    let name = "a_longer_way_shows_in_the_round_trips_of_its_district";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let cable = match Cable::lay("198.18.10.1", "198.18.10.2", DELAY) {
        Ok(cable) => cable,
        Err(why) => return skipped(name, &why),
    };
    let courier = Path::new(env!("CARGO_BIN_EXE_courier"));
    let districts =
        "districts: [{name: north, cidrs: [198.19.0.0/16]}, {name: far, cidrs: [198.18.10.0/24]}]";
    let options = NodeOptions {
        spec: vec![districts.to_owned()],
        ..NodeOptions::simulated(vec![TenantSpec::new("clinic").district("north")])
    };
    let node = node_of(options);
    let mut echo = Command::new("ip");
    echo.args(["netns", "exec", cable.namespace()]).arg(courier);
    let mut echo = Puppet::start(&mut echo);
    let far = format!("198.18.10.2:{}", echo.words("echo 198.18.10.2:0").unwrap()[0]);
    let mut here = Puppet::start(&mut Command::new(courier));
    let local = format!("127.0.0.1:{}", here.words("echo 127.0.0.1:0").unwrap()[0]);
    let mut clinic = Puppet::start(&mut node.command("clinic", courier).unwrap());
    eventually("the tenant's sockets are probed", SOON, || up(&node, "probes", "network_rtt").then_some(()));
    clinic.words(&format!("ping {far} 30")).unwrap();
    clinic.words(&format!("ping {local} 30")).unwrap();
    let page = node.metrics().unwrap();
    let mean = |peer: &str| {
        let peer = format!("peer_district=\"{peer}\"");
        let labels = ["tenant=\"clinic\"", "district=\"north\"", &peer];
        let count = page.value("headgate_network_rtt_seconds_count", &labels).unwrap();
        assert!(30.0 <= count, "every message that was answered measured a round trip: {count}");
        sum(&page, "headgate_network_rtt", &labels) / count
    };
    let (far, local, way) = (mean("far"), mean("_local"), 2.0 * DELAY.as_secs_f64());
    println!("round trips: {far:.4} s over a cable of {way:.4} s, {local:.6} s on this machine");
    assert!((way..1.5 * way).contains(&far), "{far} s over a cable that takes {way} s there and back");
    assert!(local < 0.25 * way, "{local} s without one");
}
