//! Programs on a borrowed GPU, carried by two daemons: loans, mutual TLS, meters, and what happens when any of it ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use headgate_harness::{Node, Pair, PairOptions, Program, eventually, skipped, workspace};
use serde_json::{Value, json};
use support::{MIB, Puppet, SOON, has_rings, puppet};

/// Loans take seconds by design, and builds share the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two districts with loans between them, if this machine can have guests.
#[track_caller]
fn pair(test: &str, options: &PairOptions) -> Option<Pair> {
    if !headgate_harness::is_root() {
        skipped(test, &"a worker is put into its guest's cgroup, which needs root");
        return None;
    }
    Some(Pair::start(options).unwrap_or_else(|error| panic!("{error:#}")))
}

fn borrowing(borrow: &str) -> PairOptions {
    PairOptions { borrow: borrow.to_owned(), ..PairOptions::default() }
}

/// The worker of one of the borrower's tenants.
fn worker(pair: &Pair, tenant: usize) -> Option<i32> {
    pair.workers(&pair.tenants[tenant]).unwrap().first().copied()
}

/// The seated processes of a tenant.
fn processes(node: &Node, tenant: &str) -> Vec<u32> {
    let status = node.status().unwrap();
    let tenants = status["tenants"].as_array().unwrap();
    let known = tenants.iter().find(|known| known["name"] == tenant).unwrap();
    let pids = known["processes"].as_array().unwrap().iter().map(|process| process["pid"].as_u64().unwrap());
    pids.map(|pid| pid.try_into().unwrap()).collect()
}

/// Which of a node's sessions go over rings here.
fn over_rings(node: &Node) -> Vec<bool> {
    let status = node.status().unwrap();
    let sessions = status["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["rings"].as_bool().unwrap()).collect()
}

/// How many rings a process has mapped.
fn rings(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter(|line| line.contains("memfd:headgate-rings")).count()
}

/// A field of an audit line.
#[track_caller]
fn field(line: &str, name: &str) -> u64 {
    headgate_harness::pair::field(line, name).unwrap()
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
    let Some(pair) = pair("a_program_gives_what_it_gives_at_home", &PairOptions::default()) else { return };
    for app in ["app-saxpy", "app-matmul", "app-reduction"] {
        let native = pair.borrower.native_command(&workspace::program(app).unwrap());
        let mut native = native;
        let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
        let remote = pair.run(&pair.tenants[0], app, &[]).unwrap().finish(PATIENCE).unwrap();
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
fn cuda_and_nvml_say_the_same_of_a_borrowed_device() {
    let Some(pair) = pair("cuda_and_nvml_say_the_same", &PairOptions::default()) else { return };
    let program = puppet().to_str().unwrap();
    let mut puppet = Puppet::start(&mut pair.command(&pair.tenants[0], program, None).unwrap());
    puppet.must("init");
    puppet.must(&format!("alloc {}", 8 * MIB));
    // Free and total.
    let (cuda, nvml) = (puppet.must("info"), puppet.must("nvml"));
    assert_eq!(nvml[..2], cuda[..2], "{nvml:?} and {cuda:?}");
    assert_eq!(nvml[1] - nvml[0], nvml[2]);
    assert!(8 * MIB <= nvml[2], "{nvml:?}");
    drop(puppet);
    eventually("the session has ended", SOON, || {
        (!Pair::lines(&pair.lender, "ended").is_empty()).then_some(())
    });
    assert_eq!(Pair::lines(&pair.lender, "ended").len(), 1, "one session serves both libraries");
}

#[test]
fn beside_a_driver_a_program_has_its_seat_here_and_its_device_there() {
    let Some(pair) = pair("beside_a_driver", &PairOptions::default()) else { return };
    let app = "app-runtime";
    let mut native = pair.borrower.native_command(&workspace::program(app).unwrap());
    let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
    let control = pair.borrower.device().control();
    control.mark().unwrap();
    for way in [&[][..], &["--way", "redirect"]] {
        let mut command = pair.beside(&pair.tenants[0], app, way).unwrap();
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
    let mut command = pair.beside(&pair.tenants[0], app, &["--way", "stand-in"]).unwrap();
    let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.stderr.contains("no CUDART_INTERFACE"), "{}", outcome.stderr);
}

#[test]
fn by_policy_the_next_program_starts_where_the_loan_is() {
    let options = borrowing("sm: 30%, memory: 2Gi, data: derived, programs: next");
    let Some(pair) = pair("by_policy_the_next_program", &options) else { return };
    let [borrower, other] = &pair.tenants;
    let app = "app-matmul";
    let start = |tenant: &str, options: &[&str]| {
        let mut command = Command::new(workspace::program("headgate").unwrap());
        command.args(["run", "--tenant", tenant]).args(options);
        command.arg("--admin-socket").arg(pair.borrower.path("admin.sock"));
        command.arg("--").arg(workspace::program(app).unwrap());
        pair.borrower.device().add_to(&mut command);
        let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
        (outcome.json().unwrap_or_else(|error| panic!("{error:#}")), outcome.stderr)
    };
    let begun = || Pair::lines(&pair.lender, "begun").len();
    let (native, _) = start(borrower, &[]);
    assert_eq!(begun(), 0, "without a loan it starts here");
    let cause = pair.run(borrower, "app-loop", &["--seconds", "0", "--sync-every", "5"]).unwrap();
    eventually("there is a loan", PATIENCE, || worker(&pair, 0));
    let (remote, stderr) = start(borrower, &[]);
    assert_eq!(remote, native);
    assert!(stderr.contains("borrows in north, and this starts there"), "{stderr}");
    assert_eq!(begun(), 2, "under the loan it starts there");
    for (tenant, options) in [(borrower, &["--local"][..]), (other, &[])] {
        let (here, stderr) = start(tenant, options);
        assert_eq!(here, native);
        assert!(!stderr.contains("this starts there"), "{stderr}");
    }
    assert_eq!(begun(), 2, "told to, or without a loan of its own, it starts here");
    drop(cause);
}

#[test]
fn a_cut_wire_is_a_stall_and_the_books_still_agree() {
    let Some(pair) = pair("a_cut_wire_is_a_stall", &PairOptions::default()) else { return };
    // Long enough for three cuts on a machine that is busy with others.
    let program = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "20", "--sync-every", "50"]).unwrap();
    for cut in 0..3 {
        let before = pair.wire.carried();
        eventually(&format!("it works before cut {cut}"), PATIENCE, || {
            (pair.wire.carried() > before + 100_000).then_some(())
        });
        // Each connection has memory of its own, and that of the one before is gone.
        eventually(&format!("it goes over rings before cut {cut}"), PATIENCE, || {
            (over_rings(&pair.borrower) == [true] && rings(program.pid()) == 1).then_some(())
        });
        pair.wire.cut();
        pair.wire.mend();
    }
    assert_eq!(over_rings(&pair.lender), [false], "the worker's daemon and the worker share none");
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
fn without_rings_a_session_goes_over_the_socket() {
    let Some(pair) = pair("without_rings_a_session", &PairOptions::default()) else { return };
    let mut command = pair.command(&pair.tenants[0], "app-loop", None).unwrap();
    command.args(["--seconds", "3", "--sync-every", "50"]).env("HEADGATE_REMOTE_RINGS", "0");
    let program = Program::start("app-loop", &mut command).unwrap();
    eventually("it works", PATIENCE, || worker(&pair, 0));
    eventually("the status shows it", SOON, || (over_rings(&pair.borrower) == [false]).then_some(()));
    assert_eq!(rings(program.pid()), 0);
    let counted = program.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
}

#[test]
fn a_program_whose_daemon_is_killed_hears_it_from_the_next_one() {
    let Some(mut pair) = pair("a_program_whose_daemon_is_killed", &PairOptions::default()) else { return };
    let program = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "0", "--sync-every", "5"]).unwrap();
    eventually("it works over rings", PATIENCE, || {
        (worker(&pair, 0).is_some() && over_rings(&pair.borrower) == [true]).then_some(())
    });
    pair.borrower.kill_daemon().unwrap();
    pair.borrower.start_daemon().unwrap();
    let outcome = program.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("this session is over"), "{}", outcome.stderr);
    eventually("and its worker is gone", PATIENCE, || {
        pair.workers(&pair.tenants[0]).unwrap().is_empty().then_some(())
    });
}

#[test]
fn a_killed_worker_hurts_its_own_session_and_no_other() {
    let Some(pair) = pair("a_killed_worker_hurts_its_own", &PairOptions::default()) else { return };
    let [first, second] = &pair.tenants;
    let forever = ["--seconds", "0", "--sync-every", "5"];
    let doomed = pair.run(first, "app-loop", &forever).unwrap();
    let other = pair.run(second, "app-loop", &["--seconds", "8", "--sync-every", "5"]).unwrap();
    // A worker is there before its session is.
    eventually("both work on the lender's device", PATIENCE, || {
        (kernels(&pair.lender).len() == 2).then_some(())
    });
    let worker = pair.workers(first).unwrap()[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL).unwrap();
    let outcome = doomed.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("signal 9"), "it hears why: {}", outcome.stderr);
    let counted = other.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
}

#[test]
fn an_owner_that_comes_back_has_its_device_drained_and_the_guest_told() {
    let Some(pair) = pair("an_owner_that_comes_back", &PairOptions::default()) else { return };
    let guest = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "0", "--sync-every", "5"]).unwrap();
    eventually("the guest works", PATIENCE, || worker(&pair, 0));
    let before = pair.wire.carried();
    eventually("and goes on", PATIENCE, || (pair.wire.carried() > before + 50_000).then_some(()));
    let _owner = pair.lender.run("cases", "app-loop", &["--seconds", "0", "--kernel", "spin"]).unwrap();
    let outcome = guest.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("takes its device back"), "{}", outcome.stderr);
    eventually("nothing of it is left", PATIENCE, || {
        pair.workers(&pair.tenants[0]).unwrap().is_empty().then_some(())
    });
    let why = eventually("the books say why", SOON, || Pair::lines(&pair.borrower, "ended").pop());
    assert!(why.contains("takes its device back"), "{why}");
}

/// A guest's session on the lender's node, as its status shows it.
fn hosted(pair: &Pair) -> Option<Value> {
    pair.lender.status().ok()?["sessions"].as_array()?.first().cloned()
}

#[test]
fn a_program_waits_for_a_device_that_was_taken_back_and_goes_on_there() {
    let options = borrowing("sm: 30%, memory: 2Gi, data: derived, patience: 100s");
    let Some(pair) = pair("a_program_waits_for_a_device", &options) else { return };
    let mut guest =
        Puppet::start(&mut pair.command(&pair.tenants[0], puppet().to_str().unwrap(), None).unwrap());
    guest.must("init");
    guest.must(&format!("alloc {}", 512 * MIB));
    let program = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "20", "--sync-every", "5"]).unwrap();
    let used = || {
        pair.lender.device().control().statistics().unwrap()["devices"][0]["memory_used_bytes"]
            .as_u64()
            .unwrap()
    };
    eventually("both sessions of the guest work", PATIENCE, || {
        (pair.lender.status().ok()?["sessions"].as_array()?.len() == 2 && used() > 512 * MIB).then_some(())
    });
    let carried = pair.wire.carried();
    eventually("and go on", PATIENCE, || (pair.wire.carried() > carried + 50_000).then_some(()));
    let owner = pair.lender.run("cases", "app-loop", &["--seconds", "0", "--kernel", "spin"]).unwrap();
    eventually("the books say that they are aside", PATIENCE, || {
        (Pair::lines(&pair.lender, "aside").len() == 2).then_some(())
    });
    assert_eq!(hosted(&pair).unwrap()["phase"], "aside");
    eventually("the device's memory is the owner's", SOON, || (used() < 512 * MIB).then_some(()));
    eventually("and the guest is charged for none", SOON, || {
        (pair.guest(&pair.tenants[0]).ok()??["gpus"][0]["memory_used_bytes"] == 0).then_some(())
    });
    drop(owner);
    eventually("both are back", PATIENCE, || {
        (Pair::lines(&pair.borrower, "returned").len() == 2).then_some(())
    });
    let begun = Pair::lines(&pair.borrower, "begun");
    let returned = Pair::lines(&pair.borrower, "returned");
    let loan = |line: &String| line.split_once("loan=").unwrap().1.split(' ').next().unwrap().to_owned();
    assert!(returned.iter().all(|line| loan(line) != loan(&begun[0])), "under another loan: {returned:?}");
    guest.must(&format!("alloc {MIB}"));
    assert!(used() > 512 * MIB, "what it had is there again");
    drop(guest);
    let counted = program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(counted["launches"], counted["counted"], "nothing was lost or done twice: {counted}");
    for node in [&pair.borrower, &pair.lender] {
        eventually("the sessions have ended", SOON, || (Pair::lines(node, "ended").len() == 2).then_some(()));
        assert_eq!(Pair::lines(node, "differs"), [""; 0]);
        verified(node);
        assert_eq!(metric(node, "asides_total", &[]), 2.0);
        assert_eq!(metric(node, "returns_total", &[]), 2.0);
    }
}

#[test]
fn who_waits_in_vain_for_a_device_or_is_killed_meanwhile_leaves_nothing() {
    let options = borrowing("sm: 30%, memory: 2Gi, data: derived, patience: 2s");
    let Some(pair) = pair("who_waits_in_vain", &options) else { return };
    let forever = ["--seconds", "0", "--sync-every", "5"];
    let guest = pair.run(&pair.tenants[0], "app-loop", &forever).unwrap();
    eventually("the guest works", PATIENCE, || worker(&pair, 0));
    let before = pair.wire.carried();
    eventually("and goes on", PATIENCE, || (pair.wire.carried() > before + 50_000).then_some(()));
    let _owner = pair.lender.run("cases", "app-loop", &["--seconds", "0", "--kernel", "spin"]).unwrap();
    let outcome = guest.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("within 2 s"), "{}", outcome.stderr);
    assert_eq!(Pair::lines(&pair.lender, "aside").len(), 1);
    eventually("nothing of it is left", PATIENCE, || {
        pair.workers(&pair.tenants[0]).unwrap().is_empty().then_some(())
    });
}

#[test]
fn a_budget_that_is_used_up_ends_the_session() {
    let borrow = "sm: 30%, memory: 2Gi, data: derived, budget: {bytes: 64Ki, every: 1h}";
    let Some(pair) = pair("a_budget_that_is_used_up", &borrowing(borrow)) else { return };
    let program = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "0", "--sync-every", "5"]).unwrap();
    let outcome = program.finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("has used its budget of 65536 bytes"), "{}", outcome.stderr);
    for node in [&pair.borrower, &pair.lender] {
        let ended = eventually("both books say why", SOON, || Pair::lines(node, "ended").pop());
        assert!(ended.contains("has used its budget"), "{ended}");
    }
    eventually("and its worker is gone", PATIENCE, || {
        pair.workers(&pair.tenants[0]).unwrap().is_empty().then_some(())
    });
}

#[test]
fn a_node_s_own_device_needs_no_wire_and_who_may_not_borrow_hears_it() {
    let Some(pair) = pair("a_node_s_own_device", &PairOptions::default()) else { return };
    let before = pair.borrower.ask(&json!({"op": "loans"})).unwrap()["borrowed"].clone();
    let app = "app-matmul";
    let mut native = pair.borrower.native_command(&workspace::program(app).unwrap());
    let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
    let mut command = pair.command(&pair.tenants[0], app, Some("south")).unwrap();
    let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
    assert_eq!(outcome.json().unwrap_or_else(|error| panic!("{error:#}")), native);
    assert_eq!(
        pair.borrower.ask(&json!({"op": "loans"})).unwrap()["borrowed"],
        before,
        "nothing was borrowed"
    );
    assert!(Pair::lines(&pair.borrower, "begun").is_empty(), "nothing left the node");
    // Here the daemon hands the connection on, and its two ends share memory.
    let mut looping = pair.command(&pair.tenants[0], "app-loop", Some("south")).unwrap();
    let looping = Program::start("app-loop", looping.args(["--seconds", "0", "--sync-every", "5"])).unwrap();
    eventually("program and worker share rings", SOON, || {
        let seated = processes(&pair.borrower, &pair.tenants[0]);
        (has_rings(looping.pid()) && seated.into_iter().any(has_rings)).then_some(())
    });
    drop(looping);
    // Outside every tenant there is no device either.
    let mut stray = Command::new(workspace::program(app).unwrap());
    stray.env("LD_LIBRARY_PATH", workspace::remote_directory().unwrap());
    stray.env("HEADGATE_REMOTE", format!("daemon:{}", pair.borrower.path("remote.sock").display()));
    stray.env("HEADGATE_REMOTE_LOG", "1");
    let outcome = Program::start(app, &mut stray).unwrap().finish(PATIENCE).unwrap();
    assert!(outcome.stderr.contains("belongs to no tenant"), "{}", outcome.stderr);
}

/// The sum of a metric of remote sessions over the samples that have these labels.
fn metric(node: &Node, name: &str, labels: &[&str]) -> f64 {
    node.metrics().unwrap().sum(&format!("headgate_remote_{name}"), labels)
}

/// Kernels that the device ran for each of its processes, living or not.
fn kernels(node: &Node) -> Vec<u64> {
    let statistics = node.device().control().statistics().unwrap();
    let processes = statistics["processes"].as_array().unwrap();
    processes
        .iter()
        .filter_map(|process| process["kernels"].as_u64())
        .filter(|kernels| *kernels > 0)
        .collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a cut of ten seconds lasts ten seconds")]
fn ten_seconds_without_a_wire_are_a_stall_and_nothing_runs_twice() {
    // Loans are renewed over the same wire.
    let options = PairOptions { ttl_s: 60, ..PairOptions::default() };
    let Some(pair) = pair("ten_seconds_without_a_wire", &options) else { return };
    let program = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "14", "--sync-every", "50"]).unwrap();
    eventually("it works", PATIENCE, || (!kernels(&pair.lender).is_empty()).then_some(()));
    pair.wire.cut();
    let since = Instant::now();
    eventually("ten seconds have passed", PATIENCE, || {
        (since.elapsed() > Duration::from_secs(10)).then_some(())
    });
    pair.wire.mend();
    let counted = program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(counted["launches"], counted["counted"], "{counted}");
    // The device counts the one fill of the program's counter as a kernel.
    let launches = counted["launches"].as_u64().unwrap();
    assert_eq!(kernels(&pair.lender), [launches + 1], "what the device itself ran");
    for node in [&pair.borrower, &pair.lender] {
        eventually("the session has ended", SOON, || (Pair::lines(node, "ended").len() == 1).then_some(()));
        assert_eq!(Pair::lines(node, "differs"), [""; 0]);
        verified(node);
    }
    let told = Pair::lines(&pair.borrower, "told").pop().unwrap();
    assert_eq!(Pair::lines(&pair.lender, "agreed").pop().unwrap(), told);
    for (node, role) in [(&pair.borrower, "borrower"), (&pair.lender, "lender")] {
        let role = format!("role=\"{role}\"");
        assert!(metric(node, "link_losses_total", &[&role]) >= 1.0, "{role}");
        assert!(metric(node, "resumes_total", &[&role]) >= 1.0, "{role}");
        assert_eq!(metric(node, "ended_total", &[&role, "reason=\"differs\""]), 0.0);
        let kind = ["direction=\"up\"", "kind=\"arguments\""];
        let bytes = metric(node, "bytes_total", &[&role, kind[0], kind[1]]);
        assert_eq!(bytes, f64::from(u32::try_from(field(&told, "arguments")).unwrap()), "{role}");
    }
}

#[test]
fn two_borrowers_share_a_lender_and_neither_sees_the_other() {
    let Some(pair) = pair("two_borrowers_share_a_lender", &PairOptions::default()) else { return };
    let app = "app-matmul";
    let mut native = pair.borrower.native_command(&workspace::program(app).unwrap());
    let native = Program::start(app, &mut native).unwrap().finish(PATIENCE).unwrap().json().unwrap();
    let loops = [0, 1].map(|tenant| {
        let arguments = ["--seconds", "8", "--sync-every", "5"];
        pair.run(&pair.tenants[tenant], "app-loop", &arguments).unwrap()
    });
    let both = eventually("both work on the lender's device", PATIENCE, || {
        Some([worker(&pair, 0)?, worker(&pair, 1)?])
    });
    assert_ne!(both[0], both[1], "each session has a process of its own");
    let sessions = eventually("the lender's status shows both, and that they are confined", SOON, || {
        let status = pair.lender.status().ok()?;
        let sessions = status["sessions"].as_array()?.clone();
        let confined = |session: &&Value| session["confined"]["missing"] == json!([]);
        (sessions.iter().filter(confined).count() == 2).then_some(sessions)
    });
    for (session, tenant) in sessions.iter().zip(&pair.tenants) {
        assert_eq!(session["role"], "lender");
        assert_eq!(session["tenant"], format!("south.{tenant}"));
        assert_eq!(session["peer"], "south.node");
        assert!(both.iter().any(|pid| session["worker"] == *pid), "{session} of {both:?}");
    }
    assert_eq!(metric(&pair.lender, "sessions", &[]), 2.0);
    assert_eq!(metric(&pair.borrower, "sessions", &["role=\"borrower\""]), 2.0);
    let found = pair.run(&pair.tenants[0], app, &[]).unwrap().finish(PATIENCE).unwrap();
    assert_eq!(found.json().unwrap_or_else(|error| panic!("{error:#}")), native, "beside two others");
    let mut launches = loops.map(|program| {
        let counted = program.finish(PATIENCE).unwrap().json().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(counted["launches"], counted["counted"], "{counted}");
        counted["launches"].as_u64().unwrap()
    });
    launches.sort_unstable();
    let ran = kernels(&pair.lender);
    // A fill each, besides.
    assert!(launches.iter().all(|launches| ran.contains(&(launches + 1))), "{launches:?} of {ran:?}");
    eventually("the books of three sessions are closed", SOON, || {
        (Pair::lines(&pair.lender, "ended").len() == 3).then_some(())
    });
    for (teller, other) in [(&pair.borrower, &pair.lender), (&pair.lender, &pair.borrower)] {
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        assert_eq!(sorted(Pair::lines(teller, "told")), sorted(Pair::lines(other, "agreed")));
    }
}

#[test]
fn raw_data_stays_home_whatever_the_loan() {
    let borrow = "sm: 30%, memory: 2Gi, data: raw";
    let Some(pair) = pair("raw_data_stays_home", &borrowing(borrow)) else { return };
    let outcome = pair.run(&pair.tenants[0], "app-matmul", &[]).unwrap().finish(PATIENCE).unwrap();
    assert!(!outcome.status.success());
    let hears = ["stays in its district", "no loan for tenant"];
    assert!(hears.iter().any(|why| outcome.stderr.contains(why)), "{}", outcome.stderr);
    for node in [&pair.borrower, &pair.lender] {
        assert!(Pair::lines(node, "begun").is_empty(), "no session has begun");
    }
    assert!(pair.workers(&pair.tenants[0]).unwrap().is_empty(), "no worker for it");
    assert!(metric(&pair.borrower, "refused_total", &["role=\"borrower\""]) >= 1.0);
    // At home it may be what it likes.
    let mut command = pair.command(&pair.tenants[0], "app-matmul", Some("south")).unwrap();
    Program::start("app-matmul", &mut command).unwrap().finish(PATIENCE).unwrap().json().unwrap();
}

#[test]
fn a_device_taken_back_in_the_middle_of_a_kernel_finishes_that_kernel() {
    // Kernels of 300 ms: whenever the owner comes, one is running. The loan's notice is 1.5 s.
    let device = json!({ "kernels": { "spin": { "base_ns": 300_000_000_u64 } } });
    let options = PairOptions { device, ..PairOptions::default() };
    let Some(pair) = pair("a_device_taken_back_in_the_middle", &options) else { return };
    let guest = pair.run(&pair.tenants[0], "app-loop", &["--seconds", "0", "--sync-every", "1"]).unwrap();
    eventually("the guest's kernels run", PATIENCE, || kernels(&pair.lender).first().copied());
    let _owner = pair.lender.run("cases", "app-loop", &["--seconds", "0", "--sync-every", "1"]).unwrap();
    let outcome = guest.finish(PATIENCE).unwrap_or_else(|error| {
        let [lender, borrower] = [&pair.lender, &pair.borrower].map(Node::status);
        panic!("{error:#}\nlender: {lender:#?}\nborrower: {borrower:#?}")
    });
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("takes its device back"), "{}", outcome.stderr);
    eventually("nothing of it is left", PATIENCE, || {
        pair.workers(&pair.tenants[0]).unwrap().is_empty().then_some(())
    });
}
