//! Three districts in network namespaces: real daemons, real NATS, real mutual TLS, real partitions, simulated GPUs.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and prints what it measured")]

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use headgate_harness::nats::Nats;
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually, skipped, workspace};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Loans take seconds by design: what is lent was idle for some of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hub with a bridge and NATS, and a namespace for each district.
struct City {
    prefix: String,
    certificates: tempfile::TempDir,
    nats: Nats,
}

const DISTRICTS: [(&str, u8); 3] = [("north", 11), ("south", 12), ("east", 13)];

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl City {
    fn start(test: &str) -> Option<Self> {
        static CITIES: AtomicU32 = AtomicU32::new(0);
        if !headgate_harness::is_root() {
            skipped(test, &"network namespaces need root");
            return None;
        }
        if let Err(why) = headgate_harness::nats::program() {
            skipped(test, &why);
            return None;
        }
        let prefix = format!("hg{}-{}", std::process::id(), CITIES.fetch_add(1, Relaxed));
        if let Err(why) = Self::network(&prefix) {
            Self::remove(&prefix);
            skipped(test, &why);
            return None;
        }
        let certificates = tempfile::tempdir().unwrap();
        for (district, _) in DISTRICTS {
            certs(&["init", "--district", district], certificates.path());
            certs(&["issue", "--district", district, "--node", "node"], certificates.path());
        }
        let nats = Nats::start_inside(&format!("{prefix}-hub"), IpAddr::from([10, 77, 0, 1])).unwrap();
        Some(Self { prefix, certificates, nats })
    }

    fn network(prefix: &str) -> Result<(), String> {
        let hub = format!("{prefix}-hub");
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} link add name city type bridge"))?;
        ip(&format!("-n {hub} addr add 10.77.0.1/24 dev city"))?;
        ip(&format!("-n {hub} link set city up"))?;
        for (district, host) in DISTRICTS {
            let inside = format!("{prefix}-{district}");
            ip(&format!("netns add {inside}"))?;
            ip(&format!("-n {inside} link add out type veth peer name {district} netns {hub}"))?;
            ip(&format!("-n {hub} link set {district} master city"))?;
            ip(&format!("-n {hub} link set {district} up"))?;
            ip(&format!("-n {inside} addr add 10.77.0.{host}/24 dev out"))?;
            ip(&format!("-n {inside} link set out up"))?;
            ip(&format!("-n {inside} link set lo up"))?;
        }
        Ok(())
    }

    fn remove(prefix: &str) {
        for place in ["hub", "north", "south", "east"] {
            // What was never made cannot be removed.
            let _absent = ip(&format!("netns del {prefix}-{place}"));
        }
    }

    /// Cuts a district off, or joins it again.
    fn link(&self, district: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&format!("-n {}-hub link set {district} {state}", self.prefix)).unwrap();
    }

    fn node(&self, district: &str, tenants: Vec<TenantSpec>) -> Node {
        let host = DISTRICTS.iter().find(|(name, _)| *name == district).unwrap().1;
        let files = self.certificates.path().display();
        let mut spec: Vec<String> = format!(
            "loans:\n  store:\n    nats:\n      urls: [{}]\n  peers:\n    listen: 10.77.0.{host}:9478\n    \
             certificate: {files}/{district}.node.pem\n    key: {files}/{district}.node.key\n    authorities:",
            self.nats.url()
        )
        .lines()
        .map(str::to_owned)
        .collect();
        spec.extend(DISTRICTS.map(|(known, _)| format!("      {known}: {files}/{known}-ca.pem")));
        spec.push("    summaryEvery: 300ms\n    leads:".to_owned());
        for (other, host) in DISTRICTS.iter().filter(|(other, _)| *other != district) {
            let address = format!("10.77.0.{host}:9478");
            spec.push(format!("      - {{district: {other}, node: node, address: \"{address}\"}}"));
        }
        // A fifth of the defaults, so that a partition is over within a test's patience.
        spec.push("  terms: {ttl: 4s, renew: 1s, margin: 500ms, minDuration: 2s, notice: 1500ms}".to_owned());
        spec.push("  lending: {idleFor: 1s, rest: 2s, headroom: {sm: 5%, memory: 64Mi}}".to_owned());
        spec.push("  borrowing: {spareFor: 1s, backoff: 300ms}".to_owned());
        let options = NodeOptions {
            spec: spec.iter().flat_map(|lines| lines.lines().map(str::to_owned)).collect(),
            identity: Some(("node".to_owned(), district.to_owned())),
            namespace: Some(format!("{}-{district}", self.prefix)),
            ..NodeOptions::simulated(tenants)
        };
        Node::start(options).unwrap()
    }
}

impl Drop for City {
    fn drop(&mut self) {
        Self::remove(&self.prefix);
        if let Some(root) = headgate_harness::node::cgroup_root() {
            // Only one test runs a guest; whoever finds it busy leaves it to that one.
            let _busy = std::fs::remove_dir(root.join("headgate/guests/south.review"));
        }
    }
}

fn certs(arguments: &[&str], directory: &std::path::Path) {
    let mut command = Command::new(workspace::program("headgate").unwrap());
    let output = command.arg("certs").args(arguments).arg("--dir").arg(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A tenant of the lender, whose quota may be borrowed.
fn owner(class: &str) -> TenantSpec {
    let quota = "quota: {\"*\": {sm: 70%, memory: 8Gi, lendingLimit: {sm: 60%, memory: 4Gi}}}";
    TenantSpec::new("cases").district("north").with(&format!("class: {class}")).with(quota)
}

/// Tenants of the borrower: one that needs more than its half, one that is in its way.
fn borrowers() -> Vec<TenantSpec> {
    let review = TenantSpec::new("review").district("south").sm(50).memory("4Gi");
    vec![
        review.with("class: express").with("borrow: {sm: 40%, memory: 1Gi, data: derived}"),
        TenantSpec::new("other").district("south").sm(50).memory("4Gi"),
    ]
}

fn loans(node: &Node) -> Option<Value> {
    node.ask(&json!({"op": "loans"})).ok()
}

fn active(node: &Node, side: &str) -> Option<Value> {
    let view = loans(node)?;
    view[side].as_array()?.iter().find(|loan| loan["phase"] == "active").cloned()
}

/// What owners and guests may use on the lender's device.
fn owner_share(node: &Node) -> u64 {
    let view = loans(node).unwrap();
    let place = &view["places"][0];
    assert!(place["total_sm_ppm"].as_u64().unwrap() <= 1_000_000, "more than the device: {place}");
    place["owners"][0][1].as_u64().unwrap()
}

fn share(node: &Node, tenant: &str) -> u64 {
    let status = node.status().unwrap();
    let tenants = status["tenants"].as_array().unwrap();
    let found = tenants.iter().find(|known| known["name"] == tenant);
    found.map_or(0, |tenant| tenant["gpus"][0]["sm_share_ppm"].as_u64().unwrap_or(0))
}

/// Makes the borrower short, and waits until it has a loan.
fn busy(borrower: &Node) -> (Program, Program, Value) {
    eventually("the borrower hears of offers", PATIENCE, || {
        let view = loans(borrower)?;
        view["peers"]
            .as_array()?
            .iter()
            .any(|peer| 50_000 <= peer["offer_sm_ppm"].as_u64().unwrap())
            .then_some(())
    });
    let spin = ["--seconds", "0", "--kernel", "spin"];
    let other = borrower.run("other", "app-loop", &spin).unwrap();
    eventually("the other works", PATIENCE, || (500_000 < share(borrower, "other")).then_some(()));
    let review = borrower.run("review", "app-loop", &spin).unwrap();
    eventually("it is short", PATIENCE, || (0 < share(borrower, "review")).then_some(()));
    let needed = now();
    let loan = eventually("a loan", PATIENCE, || active(borrower, "borrowed"));
    println!("borrowed {} ms after it was needed (simulated GPU)", needed.elapsed().as_millis());
    assert!(needed.elapsed() < Duration::from_secs(2), "borrowed after {:?}", needed.elapsed());
    (other, review, loan)
}

#[expect(clippy::disallowed_methods, reason = "a test that measures")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn idle_capacity_is_borrowed_used_and_taken_back_at_once_by_an_express_owner() {
    let Some(city) = City::start("idle_capacity_is_borrowed") else { return };
    let lender = city.node("north", vec![owner("express")]);
    let borrower = city.node("south", borrowers());
    let bystander = city.node("east", vec![TenantSpec::new("idle").district("east").sm(50).memory("1Gi")]);
    let (other, _review, loan) = busy(&borrower);
    let lent = loan["sm_ppm"].as_u64().unwrap();
    assert!(
        loan["place"].as_str().unwrap().starts_with("north/")
            || loan["place"].as_str().unwrap().starts_with("east/")
    );
    let lender = if loan["place"].as_str().unwrap().starts_with("north/") { &lender } else { &bystander };
    let nominal = if std::ptr::eq(lender, &bystander) { 500_000 } else { 700_000 };
    eventually("the owner has that much less", PATIENCE, || {
        (owner_share(lender) == nominal - lent).then_some(())
    });
    if nominal == 500_000 {
        return;
    }
    // The guest's work on the lender's device, as a worker for it would do it.
    let _guest = lender.run("south.review", "app-loop", &["--seconds", "0"]).unwrap();
    eventually("the guest works within what it was lent", PATIENCE, || {
        let now = share(lender, "south.review");
        (lent / 2 < now && now < lent + 60_000).then_some(())
    });
    // The owner comes: it has its nominal back.
    let _owner = lender.run("cases", "app-loop", &["--seconds", "0"]).unwrap();
    eventually("the owner works", PATIENCE, || (0 < share(lender, "cases")).then_some(()));
    let came = now();
    eventually("it has all of its own", PATIENCE, || (owner_share(lender) == nominal).then_some(()));
    println!(
        "limits were whole {} ms after the owner was first seen at work (simulated GPU)",
        came.elapsed().as_millis()
    );
    eventually("and uses it", PATIENCE, || (nominal - 30_000 <= share(lender, "cases")).then_some(()));
    eventually("the borrower has heard it", PATIENCE, || {
        active(&borrower, "borrowed").is_none().then_some(())
    });
    let decisions = loans(lender).unwrap()["decisions"].to_string();
    assert!(decisions.contains("\"cut\""), "{decisions}");
    drop(other);
}

#[test]
fn a_partitioned_borrower_stops_before_the_lender_reuses() {
    let Some(city) = City::start("a_partitioned_borrower") else { return };
    let lender = city.node("north", vec![owner("standard")]);
    let borrower = city.node("south", borrowers());
    let (_other, _review, loan) = busy(&borrower);
    let lent = loan["sm_ppm"].as_u64().unwrap();
    eventually("the owner has less", PATIENCE, || (owner_share(&lender) == 700_000 - lent).then_some(()));
    city.link("south", false);
    let stopped = eventually("the borrower is at its nominal", PATIENCE, || {
        assert_eq!(owner_share(&lender), 700_000 - lent, "the lender reuses what the borrower still has");
        active(&borrower, "borrowed").is_none().then(now)
    });
    let reused =
        eventually("the lender has it back", PATIENCE, || (owner_share(&lender) == 700_000).then(now));
    println!("reused {} ms after the borrower stopped", reused.duration_since(stopped).as_millis());
    // Its own tenants are served all the time.
    assert!(0 < share(&borrower, "review") && 0 < share(&borrower, "other"));
    city.link("south", true);
    eventually("it borrows again when it can", PATIENCE, || active(&borrower, "borrowed"));
}

#[test]
fn a_daemon_that_stands_still_is_not_waited_for_and_applies_nothing_stale() {
    let Some(city) = City::start("a_daemon_that_stands_still") else { return };
    let lender = city.node("north", vec![owner("standard")]);
    let mut borrower = city.node("south", borrowers());
    let (_other, _review, loan) = busy(&borrower);
    borrower.daemon().signal(Signal::SIGSTOP).unwrap();
    eventually("the lender has it back", PATIENCE, || (owner_share(&lender) == 700_000).then_some(()));
    borrower.daemon().signal(Signal::SIGCONT).unwrap();
    // Whatever it believed, the old loan is over: it says so, and only a new one counts.
    eventually("the old loan is gone", PATIENCE, || {
        let view = loans(&borrower)?;
        let held = view["borrowed"]
            .as_array()?
            .iter()
            .any(|line| line["loan"] == loan["loan"] && line["phase"] == "active");
        (!held).then_some(())
    });
}

#[test]
fn nothing_is_lost_when_daemons_and_nats_are_killed() {
    let Some(mut city) = City::start("nothing_is_lost") else { return };
    let mut lender = city.node("north", vec![owner("standard")]);
    let mut borrower = city.node("south", borrowers());
    let (_other, _review, loan) = busy(&borrower);
    let id = loan["loan"].clone();
    lender.kill_daemon().unwrap();
    lender.start_daemon().unwrap();
    eventually("the lender knows what it lent", PATIENCE, || {
        let view = loans(&lender)?;
        view["lent"].as_array()?.iter().any(|line| line["loan"] == id).then_some(())
    });
    assert!(owner_share(&lender) < 700_000, "a restarted lender gives away what is lent");
    eventually("and it is renewed with it", PATIENCE, || {
        let held = active(&borrower, "borrowed")?;
        (loan["token"].as_u64() < held["token"].as_u64()).then_some(())
    });
    borrower.kill_daemon().unwrap();
    borrower.start_daemon().unwrap();
    eventually("the borrower takes its loan up again", PATIENCE, || {
        active(&borrower, "borrowed").filter(|held| held["loan"] == id)
    });
    let before = active(&borrower, "borrowed").unwrap();
    city.nats.kill().unwrap();
    city.nats.restart().unwrap();
    eventually("renewals go on", PATIENCE, || {
        let held = active(&borrower, "borrowed")?;
        (before["token"].as_u64() < held["token"].as_u64()).then_some(())
    });
    for node in [&lender, &borrower] {
        let log = node.path("state/loans/audit.log");
        let mut verify = Command::new(workspace::program("headgate").unwrap());
        let output = verify.args(["audit", "verify"]).arg(&log).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn raw_data_is_not_lent_to_and_every_refusal_has_its_reason() {
    let Some(city) = City::start("raw_data") else { return };
    let _lender = city.node("north", vec![owner("standard")]);
    let mut tenants = borrowers();
    tenants[0].more.retain(|line| !line.starts_with("borrow"));
    tenants[0] = tenants[0].clone().with("borrow: {sm: 40%, memory: 1Gi, data: raw}");
    let borrower = city.node("south", tenants);
    eventually("the borrower hears of offers", PATIENCE, || {
        let view = loans(&borrower)?;
        view["peers"]
            .as_array()?
            .iter()
            .any(|peer| 50_000 <= peer["offer_sm_ppm"].as_u64().unwrap())
            .then_some(())
    });
    let spin = ["--seconds", "0"];
    let _other = borrower.run("other", "app-loop", &spin).unwrap();
    let _review = borrower.run("review", "app-loop", &spin).unwrap();
    eventually("both work", PATIENCE, || {
        (300_000 < share(&borrower, "review") && 300_000 < share(&borrower, "other")).then_some(())
    });
    // Long enough for several attempts: it was short for all of that time.
    let until = now() + Duration::from_secs(3);
    eventually("three seconds of being short", PATIENCE, || {
        assert!(active(&borrower, "borrowed").is_none(), "raw data crossed a district's border");
        (until < now()).then_some(())
    });
}
