//! Programs on a borrowed GPU, carried by two daemons: loans, mutual TLS, meters, and what happens when any of it ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use headgate_harness::relay::{Relay, Wire};
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually, skipped, workspace};
use serde_json::{Value, json};
use support::SOON;

/// Loans take seconds by design, and builds share the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two districts on one host, and the wire between them.
struct Pair {
    lender: Node,
    borrower: Node,
    wire: Relay,
    /// Names of the borrower's tenants: guests have one cgroup a name on the whole host.
    tenants: [String; 2],
    _certificates: tempfile::TempDir,
}

fn certs(arguments: &[&str], directory: &std::path::Path) {
    let mut command = Command::new(workspace::program("headgate").unwrap());
    let output = command.arg("certs").args(arguments).arg("--dir").arg(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn options(
    district: &str,
    listen: u16,
    advertise: &str,
    other: (&str, &str),
    files: &std::path::Path,
    tenants: Vec<TenantSpec>,
) -> NodeOptions {
    let files = files.display();
    let (other, address) = other;
    let spec = format!(
        "loans:\n  peers:\n    listen: 127.0.0.1:{listen}\n    advertise: \"{advertise}\"\n    \
         certificate: {files}/{district}.node.pem\n    key: {files}/{district}.node.key\n    \
         authorities: {{north: {files}/north-ca.pem, south: {files}/south-ca.pem}}\n    summaryEvery: 300ms\n    \
         leads:\n      - {{district: {other}, node: node, address: \"{address}\"}}\n  \
         terms: {{ttl: 12s, renew: 1s, margin: 500ms, minDuration: 2s, notice: 1500ms}}\n  \
         lending: {{idleFor: 1s, rest: 2s, headroom: {{sm: 5%, memory: 64Mi}}}}\n  \
         borrowing: {{spareFor: 1s, backoff: 300ms}}"
    );
    NodeOptions {
        spec: spec.lines().map(str::to_owned).collect(),
        identity: Some(("node".to_owned(), district.to_owned())),
        ..NodeOptions::simulated(tenants)
    }
}

impl Pair {
    /// `more` is what the borrower's `borrow` says besides.
    fn start(test: &str, more: &str) -> Option<Self> {
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        if !headgate_harness::is_root() {
            skipped(test, &"a worker is put into its guest's cgroup, which needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for district in ["north", "south"] {
            certs(&["init", "--district", district], directory.path());
            certs(&["issue", "--district", district, "--node", "node"], directory.path());
        }
        let pair = format!("{}-{}", std::process::id(), PAIRS.fetch_add(1, Relaxed));
        let tenants = ["a", "b"].map(|name| format!("{name}{pair}"));
        let (north, south) = (free_port(), free_port());
        let wire = Relay::to(&format!("tcp:127.0.0.1:{north}"), Wire::default()).unwrap();
        let lent_at = wire.address().trim_start_matches("tcp:").to_owned();
        let quota = "quota: {\"*\": {sm: 90%, memory: 16Gi, lendingLimit: {sm: 80%, memory: 8Gi}}}";
        let owner = TenantSpec::new("cases").district("north").with("class: standard").with(quota);
        let south_at = format!("127.0.0.1:{south}");
        let lender = Node::start(options(
            "north",
            north,
            &lent_at,
            ("south", &south_at),
            directory.path(),
            vec![owner],
        ))
        .unwrap();
        let borrowers = tenants.iter().map(|name| {
            let borrow = format!("borrow: {{sm: 30%, memory: 2Gi, data: derived{more}}}");
            TenantSpec::new(name).district("south").sm(40).memory("4Gi").with(&borrow)
        });
        let borrower = Node::start(options(
            "south",
            south,
            &south_at,
            ("north", &lent_at),
            directory.path(),
            borrowers.collect(),
        ))
        .unwrap();
        Some(Self { lender, borrower, wire, tenants, _certificates: directory })
    }

    /// `headgate run --tenant T --remote`, as a user types it.
    fn command(&self, tenant: &str, app: &str, lender: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(workspace::program("headgate").unwrap());
        command.args(["run", "--tenant", tenant, "--remote"]);
        command.args(lender.iter().flat_map(|lender| ["--lender", lender]));
        command.arg("--admin-socket").arg(self.borrower.path("admin.sock"));
        command.arg("--").arg(workspace::program(app).unwrap()).args(arguments);
        command.env("HEADGATE_REMOTE_LOG", "1").env_remove("HEADGATE_SIMGPU_SOCKET");
        command
    }

    /// The same on a node with a driver of its own.
    fn beside(&self, tenant: &str, app: &str, way: &[&str]) -> Command {
        let mut command = Command::new(workspace::program("headgate").unwrap());
        command.args(["run", "--tenant", tenant, "--remote"]).args(way);
        command.arg("--admin-socket").arg(self.borrower.path("admin.sock"));
        command.arg("--").arg(workspace::program(app).unwrap());
        self.borrower.device().add_to(&mut command);
        command.env("HEADGATE_REMOTE_LOG", "1");
        command
    }

    fn run(&self, tenant: &str, app: &str, arguments: &[&str]) -> Program {
        Program::start(app, &mut self.command(tenant, app, None, arguments)).unwrap()
    }

    /// The lines of a node's audit log of sessions that have a word, without their chain.
    fn lines(node: &Node, word: &str) -> Vec<String> {
        let text = std::fs::read_to_string(node.path("state/remote/audit.log")).unwrap_or_default();
        let found = text.lines().filter_map(|line| line.split_once(&format!(" {word} session=")));
        found.map(|(_, rest)| rest.to_owned()).collect()
    }

    fn workers(&self, tenant: &str) -> u64 {
        let status = self.lender.status().unwrap();
        let name = format!("south.{tenant}");
        let tenants = status["tenants"].as_array().unwrap();
        let found = tenants.iter().find(|known| known["name"] == name.as_str());
        found.map_or(0, |guest| guest["processes"].as_array().map_or(0, |all| all.len() as u64))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(root) = headgate_harness::node::cgroup_root() {
            for tenant in &self.tenants {
                // Where no loan was granted there is none.
                let _absent = std::fs::remove_dir(root.join(format!("headgate/guests/south.{tenant}")));
            }
        }
    }
}

/// A field of an audit line.
fn field(line: &str, name: &str) -> u64 {
    let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// What a program like a runtime library prints, without what its device can do and what its calls cost.
fn identity(mut printed: Value) -> Value {
    for field in ["can", "storage_get_ns"] {
        assert!(printed.as_object_mut().and_then(|fields| fields.remove(field)).is_some(), "{field}");
    }
    printed
}

fn verified(node: &Node) {
    let log = node.path("state/remote/audit.log");
    let mut verify = Command::new(workspace::program("headgate").unwrap());
    let output = verify.args(["audit", "verify"]).arg(&log).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_program_gives_what_it_gives_at_home_and_both_daemons_count_every_byte() {
    let Some(pair) = Pair::start("a_program_gives_what_it_gives_at_home", "") else { return };
    for app in ["app-saxpy", "app-matmul", "app-reduction"] {
        let native = pair.borrower.native_command(&workspace::program(app).unwrap());
        let mut native = native;
        let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
        let remote = pair.run(&pair.tenants[0], app, &[]).finish(PATIENCE).unwrap();
        assert_eq!(remote.json().unwrap_or_else(|error| panic!("{app}: {error:#}")), native, "{app}");
    }
    for node in [&pair.borrower, &pair.lender] {
        eventually("the sessions have ended", SOON, || (Pair::lines(node, "ended").len() == 3).then_some(()));
        assert_eq!(Pair::lines(node, "differs"), [""; 0]);
        verified(node);
    }
    // What one told, the other counted: to the byte, and nothing is left out.
    for (teller, other) in [(&pair.borrower, &pair.lender), (&pair.lender, &pair.borrower)] {
        assert_eq!(Pair::lines(teller, "told"), Pair::lines(other, "agreed"));
        assert_eq!(Pair::lines(teller, "told").len(), 3, "one a session");
    }
    let (up, down) = (&Pair::lines(&pair.borrower, "told")[0], &Pair::lines(&pair.lender, "told")[0]);
    assert!(up.contains("data=derived up"), "{up}");
    assert!(field(up, "to_device") > 0 && field(up, "images") > 0 && field(up, "arguments") > 0, "{up}");
    assert!(field(down, "from_device") > 0 && field(up, "from_device") == 0, "{down}");
}

#[test]
fn beside_a_driver_a_program_has_its_seat_here_and_its_device_there() {
    let Some(pair) = Pair::start("beside_a_driver", "") else { return };
    let app = "app-runtime";
    let mut native = pair.borrower.native_command(&workspace::program(app).unwrap());
    let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
    let control = pair.borrower.device().control();
    control.mark().unwrap();
    for way in [&[][..], &["--way", "redirect"]] {
        let mut command = pair.beside(&pair.tenants[0], app, way);
        let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
        let remote = outcome.json().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(identity(remote), identity(native.clone()), "who it is, and what it computes");
    }
    let own = control.statistics().unwrap();
    assert_eq!(own["processes"], json!([]), "the node's own device was not used: {own}");
    eventually("both sessions have ended", SOON, || {
        (Pair::lines(&pair.lender, "ended").len() == 2).then_some(())
    });
    let told = Pair::lines(&pair.borrower, "told");
    assert!(told.iter().all(|line| field(line, "arguments") > 0), "{told:?}");
    // In the place of a driver there are no private tables, and such a program does not start.
    let mut command = pair.beside(&pair.tenants[0], app, &["--way", "stand-in"]);
    let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.stderr.contains("no CUDART_INTERFACE"), "{}", outcome.stderr);
}

#[test]
fn a_cut_wire_is_a_stall_and_the_books_still_agree() {
    let Some(pair) = Pair::start("a_cut_wire_is_a_stall", "") else { return };
    let program = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "6", "--sync-every", "50"]);
    for cut in 0..3 {
        let before = pair.wire.carried();
        eventually(&format!("it works before cut {cut}"), PATIENCE, || {
            (pair.wire.carried() > before + 100_000).then_some(())
        });
        pair.wire.cut();
        pair.wire.mend();
    }
    let counted = program.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
    eventually("the session has ended", SOON, || {
        (Pair::lines(&pair.lender, "ended").len() == 1).then_some(())
    });
    let told = Pair::lines(&pair.borrower, "told").pop().unwrap();
    eventually("what the borrower told, the lender counted", SOON, || {
        (Pair::lines(&pair.lender, "agreed").pop()? == told).then_some(())
    });
    assert_eq!(Pair::lines(&pair.lender, "differs"), [""; 0]);
}

#[test]
fn a_killed_worker_hurts_its_own_session_and_no_other() {
    let Some(pair) = Pair::start("a_killed_worker_hurts_its_own", "") else { return };
    let [first, second] = &pair.tenants;
    let forever = ["--seconds", "0", "--sync-every", "5"];
    let doomed = pair.run(first, "app-loop", &forever);
    let other = pair.run(second, "app-loop", &["--seconds", "8", "--sync-every", "5"]);
    let worker = eventually("both work on the lender's device", PATIENCE, || {
        let status = pair.lender.status().ok()?;
        let pid = |tenant: &str| {
            let name = format!("south.{tenant}");
            let tenants = status["tenants"].as_array()?;
            let guest = tenants.iter().find(|known| known["name"] == name.as_str())?;
            pid_of(guest)
        };
        pid(second)?;
        pid(first)
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL).unwrap();
    let outcome = doomed.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("signal 9"), "it hears why: {}", outcome.stderr);
    let counted = other.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
}

fn pid_of(guest: &Value) -> Option<i32> {
    guest["processes"].as_array()?.first()?["pid"].as_i64()?.try_into().ok()
}

#[test]
fn an_owner_that_comes_back_has_its_device_drained_and_the_guest_told() {
    let Some(pair) = Pair::start("an_owner_that_comes_back", "") else { return };
    let guest = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "0", "--sync-every", "5"]);
    eventually("the guest works", PATIENCE, || (pair.workers(&pair.tenants[0]) > 0).then_some(()));
    let before = pair.wire.carried();
    eventually("and goes on", PATIENCE, || (pair.wire.carried() > before + 50_000).then_some(()));
    let _owner = pair.lender.run("cases", "app-loop", &["--seconds", "0", "--kernel", "spin"]).unwrap();
    let outcome = guest.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("takes its device back"), "{}", outcome.stderr);
    eventually("nothing of it is left", PATIENCE, || (pair.workers(&pair.tenants[0]) == 0).then_some(()));
    let why = eventually("the books say why", SOON, || Pair::lines(&pair.borrower, "ended").pop());
    assert!(why.contains("takes its device back"), "{why}");
}

#[test]
fn a_budget_that_is_used_up_ends_the_session() {
    let Some(pair) = Pair::start("a_budget_that_is_used_up", ", budget: {bytes: 64Ki, every: 1h}") else {
        return;
    };
    let outcome = pair
        .run(&pair.tenants[0], "app-loop", &["--seconds", "0", "--sync-every", "5"])
        .finish(PATIENCE)
        .unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("has used its budget of 65536 bytes"), "{}", outcome.stderr);
    let ended = eventually("the books say why", SOON, || Pair::lines(&pair.borrower, "ended").pop());
    assert!(ended.contains("budget"), "{ended}");
}

#[test]
fn a_node_s_own_device_needs_no_wire_and_who_may_not_borrow_hears_it() {
    let Some(pair) = Pair::start("a_node_s_own_device", "") else { return };
    let before = pair.borrower.ask(&json!({"op": "loans"})).unwrap()["borrowed"].clone();
    let app = "app-matmul";
    let mut native = pair.borrower.native_command(&workspace::program(app).unwrap());
    let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
    let mut command = pair.command(&pair.tenants[0], app, Some("south"), &[]);
    let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
    assert_eq!(outcome.json().unwrap_or_else(|error| panic!("{error:#}")), native);
    assert_eq!(
        pair.borrower.ask(&json!({"op": "loans"})).unwrap()["borrowed"],
        before,
        "nothing was borrowed"
    );
    assert!(Pair::lines(&pair.borrower, "begun").is_empty(), "nothing left the node");
    // Outside every tenant there is no device either.
    let mut stray = Command::new(workspace::program(app).unwrap());
    stray.env("LD_LIBRARY_PATH", workspace::remote_directory().unwrap());
    stray.env("HEADGATE_REMOTE", format!("daemon:{}", pair.borrower.path("remote.sock").display()));
    stray.env("HEADGATE_REMOTE_LOG", "1");
    let outcome = Program::start(app, &mut stray).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.stderr.contains("belongs to no tenant"), "{}", outcome.stderr);
}
