//! The daemon from outside: real processes on a real socket, killed and restarted at bad moments.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::signal::Signal;
use support::{Node, eventually, is_root, parts};

const GIB: u64 = 1 << 30;

/// Two tenants, told apart by process tree so that no privilege is needed.
const TREE: &str = "  identity: process-tree
  tenants:
    - {name: a, quota: {'*': {sm: 70, memory: 1Gi}}}
    - {name: b, quota: {'*': {sm: 30}}}
";

#[test]
fn plays_its_part() {
    parts::play();
}

#[test]
fn a_process_gets_its_tenants_limits_and_is_held_to_them() {
    let node = Node::started(TREE);
    let (mut hook, seat) = node.seated("a");
    assert!(seat.contains("seat=0") && seat.contains("fresh=true") && seat.contains("off=false"), "{seat}");
    assert!(seat.contains("rows=[Some(0)] tenant=a"), "{seat}");
    let limits = hook.ask("limits");
    assert!(limits.starts_with(&format!("memory={GIB} governed=1 open=11 stale=0")), "{limits}");
    assert_eq!(hook.ask(&format!("charge {GIB}")), "charged");
    assert_eq!(hook.ask("charge 1"), "denied");
    let account = node.tenant("a")["gpus"][0].clone();
    assert_eq!(account["memory_used_bytes"], GIB);
    assert_eq!(account["denied_allocations"], 1);
    assert_eq!(account["sm_quota_ppm"], 700_000);
    assert_eq!(node.tenant("a")["processes"][0]["pid"], hook.pid());

    let (mut other, _) = node.seated("b");
    assert!(other.ask("limits").starts_with(&format!("memory={} governed=1", u64::MAX)));
    assert_eq!(other.ask(&format!("charge {}", 4 * GIB)), "charged", "no quota, no limit");
}

#[test]
fn a_stranger_is_refused_and_told_what_to_do() {
    let node = Node::started(TREE);
    let answer = node.hook().ask("hello");
    assert!(answer.starts_with("refused no tenant: process "), "{answer}");
    assert!(answer.contains("headgate run --tenant") && answer.contains("spec.defaultTenant"), "{answer}");
    assert!((node.metric("headgate_sessions_refused_total{reason=\"no_tenant\"}") - 1.0).abs() < 0.1);
    let misplaced = node.hook().ask("place aa");
    assert!(misplaced.contains("there is no tenant `aa`"), "{misplaced}");

    let node = Node::started(&format!("  defaultTenant: b\n{TREE}"));
    let answer = node.hook().ask("hello");
    assert!(answer.contains("tenant=b"), "{answer}");
}

#[test]
fn kill_9_frees_seat_and_memory_at_once_and_no_counter_goes_back() {
    let node = Node::started(TREE);
    let (mut kept, _) = node.seated("a");
    assert_eq!(kept.ask("charge 5"), "charged");
    let (mut hook, seat) = node.seated("a");
    assert!(seat.contains("seat=1"), "{seat}");
    assert_eq!(hook.ask("charge 1000"), "charged");
    assert_eq!(hook.ask(&format!("charge {GIB}")), "denied");
    assert_eq!(node.used("a"), 1005);
    #[expect(clippy::disallowed_methods, reason = "the test measures")]
    let killed = std::time::Instant::now();
    hook.kill();
    eventually("seat and memory are free", || (node.used("a") == 5 && node.seats("a") == 1).then_some(()));
    assert!(killed.elapsed().as_millis() < 1000, "took {:?}", killed.elapsed());
    assert_eq!(node.tenant("a")["gpus"][0]["denied_allocations"], 1);
    assert_eq!(node.tenant("a")["gpus"][0]["memory_peak_bytes"], 1005);
}

#[test]
fn malformed_hellos_are_answered_with_the_place_and_counted() {
    let node = Node::started(TREE);
    let mut hook = node.hook();
    assert_eq!(hook.ask("place a"), "placed");
    let bad = [
        ("ffffffff01000100", "frame length 4294967295 is outside 8..=4096"),
        ("0800000001000900", "frame version 9"),
        ("0800000007000100", "frame kind 7 is not expected here"),
        ("0800000001000100", "frame ends inside field `driver_version` at payload byte 0"),
        ("08000000010001000000", "2 bytes follow the last field of the frame"),
        ("10000000010001", "no whole hello within"),
    ];
    for (hex, place) in bad {
        let answer = hook.ask(&format!("raw {hex}"));
        assert!(answer.starts_with("refused bad hello: ") && answer.contains(place), "{hex}: {answer}");
    }
    let seat = hook.ask("hello");
    assert!(seat.starts_with("welcome"), "{seat}");
    let answer = hook.ask("talk");
    assert!(answer.contains("a session says hello once"), "{answer}");
    let counted = node.metric("headgate_sessions_refused_total{reason=\"bad_hello\"}");
    assert!((counted - 7.0).abs() < 0.1, "{counted}");
    assert_eq!(node.seats("a"), 1, "what it has, it keeps");
}

#[test]
fn exec_frees_the_seat_and_closing_every_descriptor_does_not() {
    let node = Node::started(TREE);
    let (mut hook, first) = node.seated("a");
    assert_eq!(hook.ask("charge 10"), "charged");
    assert_eq!(hook.ask("close"), "closed");
    eventually("the daemon has noticed", || {
        (node.tenant("a")["processes"][0]["connected"] == false).then_some(())
    });
    assert_eq!(node.used("a"), 10, "the process lives on with its ledger");
    let again = hook.ask("hello-again");
    assert_eq!(again, first.replace("fresh=true", "fresh=false"));
    assert_eq!(node.used("a"), 10);
    assert_eq!(hook.ask("exec"), "exec");
    eventually("exec frees the seat", || (node.seats("a") == 0 && node.used("a") == 0).then_some(()));

    let (mut hook, _) = node.seated("a");
    assert_eq!(hook.ask("charge 10"), "charged");
    assert_eq!(hook.ask("exec-keeping-the-socket"), "exec");
    eventually("even with the socket still open", || (node.seats("a") == 0).then_some(()));

    let (mut hook, first) = node.seated("a");
    assert_eq!(hook.ask("charge 10"), "charged");
    let second = hook.ask("hello");
    assert!(second.contains("fresh=true") && second != first, "{second}");
    assert_eq!((node.seats("a"), node.used("a")), (1, 0), "a hello without a seat starts over");
}

#[test]
fn a_restarted_daemon_takes_over_who_lives_and_forgets_who_died() {
    let mut node = Node::started(TREE);
    let (mut lives, seat) = node.seated("a");
    assert_eq!(lives.ask("charge 100"), "charged");
    let (mut dies, _) = node.seated("a");
    assert_eq!(dies.ask("charge 7"), "charged");
    let epoch = lives.ask("limits");
    node.kill_daemon();
    dies.kill();
    eventually("the heartbeat is stale", || lives.ask("limits").contains("stale=1").then_some(()));
    assert_eq!(lives.ask("charge 1"), "charged", "limits stay as last known");
    node.configure(&TREE.replace("1Gi", "2Gi"));
    node.start();
    assert_eq!((node.seats("a"), node.used("a")), (1, 101));
    assert_eq!(node.tenant("a")["processes"][0]["connected"], false);
    let again = lives.ask("hello-again");
    assert_eq!(again, seat.replace("fresh=true", "fresh=false"));
    let limits = lives.ask("limits");
    assert!(limits.starts_with(&format!("memory={} governed=1 open=11 stale=0", 2 * GIB)), "{limits}");
    assert_ne!(limits.split(' ').next_back(), epoch.split(' ').next_back(), "another run");
    // And once more, by a daemon that adopted what another had adopted.
    node.kill_daemon();
    node.start();
    assert_eq!((node.seats("a"), node.used("a")), (1, 101));
    lives.kill();
    eventually("the adopted seat is watched", || (node.seats("a") == 0 && node.used("a") == 0).then_some(()));
}

#[test]
fn a_ledger_is_found_by_its_mapping_alone() {
    if !is_root() {
        return support::skipped(
            "a_ledger_is_found_by_its_mapping_alone",
            "/proc/<pid>/map_files needs root",
        );
    }
    let mut node = Node::started(&format!("  defaultTenant: a\n{TREE}"));
    let (control, admin) = (node.path("control.sock"), node.path("admin.sock"));
    let here = node.path("");
    let mut hook =
        support::Part::start("hook", &[("CONTROL", &control), ("ADMIN", &admin), ("FORGET_FD", &here)]);
    assert_eq!(hook.hear("starting"), "up");
    assert!(hook.ask("hello").starts_with("welcome"));
    assert_eq!(hook.ask("charge 3"), "charged");
    node.kill_daemon();
    node.start();
    assert_eq!((node.seats("a"), node.used("a")), (1, 3));
}

#[test]
fn a_clean_shutdown_lets_everyone_through() {
    let mut node = Node::started(TREE);
    let (mut hook, _) = node.seated("a");
    assert_eq!(hook.ask("charge 100"), "charged");
    node.stop_daemon();
    let limits = hook.ask("limits");
    assert!(limits.contains("governed=0 open=11"), "{limits}");
    assert_eq!(hook.ask("charge 1"), "charged", "memory is still counted");
    assert!(!node.path("control.sock").exists() && !node.path("admin.sock").exists());
}

#[test]
fn a_changed_file_takes_effect_and_a_wrong_one_does_not() {
    let node = Node::started(TREE);
    let (mut hook, _) = node.seated("a");
    assert_eq!(hook.ask("charge 1000000"), "charged");
    let memory =
        |bytes: u64| move |limits: String| limits.starts_with(&format!("memory={bytes} ")).then_some(());
    node.configure(&TREE.replace("1Gi", "1000"));
    eventually("the quota has shrunk", || memory(1000)(hook.ask("limits")));
    assert_eq!(hook.ask("charge 1"), "denied");
    let account = node.tenant("a")["gpus"][0].clone();
    assert_eq!(account["status"], "Throttled", "{account}");
    assert!(account["reason"].as_str().unwrap().contains("more memory than its quota"), "{account}");

    node.configure(&TREE.replace("1Gi", "1GB"));
    eventually("the mistake is told", || {
        (node.metric("headgate_config_last_reload_successful") < 0.5).then_some(())
    });
    let error = node.status()["config"]["error"].to_string();
    assert!(error.contains("config.yaml:") && error.contains("`memory` is `1GB`"), "{error}");
    assert!(hook.ask("limits").starts_with("memory=1000 "), "the last good one stays");

    node.configure(&TREE.replace("1Gi", "2Gi"));
    node.daemon().signal(Signal::SIGHUP);
    eventually("the quota has grown", || memory(2 * GIB)(hook.ask("limits")));
    assert!(0.5 < node.metric("headgate_config_last_reload_successful"));

    node.configure(&TREE.replace("name: a,", "name: c,"));
    eventually("the tenant is gone, its process is not", || {
        (node.tenant("a")["removed"] == true).then_some(())
    });
    assert_eq!(hook.ask("charge 1"), "denied");
    assert!(node.hook().ask("place a").contains("there is no tenant `a`"));
    hook.kill();
    eventually("then nothing is left of it", || node.tenant("a").is_null().then_some(()));
    let page = node.get("/metrics").unwrap().1;
    assert!(!page.contains("tenant=\"a\"") && page.contains("tenant=\"c\""));
}

#[test]
fn a_swapped_link_is_noticed_as_kubernetes_makes_it() {
    let mut node = Node::with(TREE);
    for (version, memory) in [("v1", "1Gi"), ("v2", "3Gi")] {
        std::fs::create_dir_all(node.path(version)).unwrap();
        let text = node.config_text(&TREE.replace("1Gi", memory));
        std::fs::write(node.path(version).join("config.yaml"), text).unwrap();
    }
    let swap = |version: &str| {
        symlink(version, node.path("..data_tmp")).unwrap();
        std::fs::rename(node.path("..data_tmp"), node.path("..data")).unwrap();
    };
    swap("v1");
    std::fs::remove_file(node.path("config.yaml")).unwrap();
    symlink("..data/config.yaml", node.path("config.yaml")).unwrap();
    node.start();
    assert_eq!(node.tenant("a")["gpus"][0]["memory_quota_bytes"], GIB);
    let swap = |version: &str| {
        symlink(version, node.path("..data_tmp")).unwrap();
        std::fs::rename(node.path("..data_tmp"), node.path("..data")).unwrap();
    };
    swap("v2");
    eventually("the swapped file is read", || {
        (node.tenant("a")["gpus"][0]["memory_quota_bytes"] == 3 * GIB).then_some(())
    });
}

#[test]
fn run_passes_environment_signals_and_status_through() {
    let node = Node::started(TREE);
    let hook = node.path("libhook.so");
    std::fs::write(&hook, "").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.arg("run").arg("--admin-socket").arg(node.path("admin.sock")).arg("--hook").arg(&hook);
        command.args(arguments).env("LD_PRELOAD", "");
        command.output().unwrap()
    };
    let output = run(&["--tenant", "a", "--", "sh", "-c", "echo $LD_PRELOAD $HEADGATE_SOCKET; exit 7"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim(), format!("{} {}", hook.display(), node.path("control.sock").display()));
    assert_eq!(output.status.code(), Some(7));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("known by process tree, not by cgroup"), "{told}");

    let output = run(&["--tenant", "a", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(15));
    assert_eq!(run(&["--tenant", "a", "--", "/no/such/command"]).status.code(), Some(127));
    assert_eq!(run(&["--tenant", "a", "--", "/"]).status.code(), Some(126));
    let output = run(&["--tenant", "aa", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no tenant `aa`"));

    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    let output = command.args(["status", "--admin-socket", "/no/such.sock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("no daemon answers at /no/such.sock") && told.contains("headgate daemon"),
        "{told}"
    );
}

#[test]
fn status_shows_every_tenant_to_people_too() {
    let node = Node::started(TREE);
    let (_hook, _) = node.seated("a");
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    let output = command.args(["status", "--admin-socket"]).arg(node.path("admin.sock")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["TENANT", "identity: process-tree (weaker", "70.0 %", "1.0Gi", "made up", "probe gpu_wait not up"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn only_one_daemon_serves_a_node_and_none_without_devices_is_ready() {
    let node = Node::started(TREE);
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    let output = command.args(["daemon", "--config"]).arg(node.path("config.yaml")).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("in use by another headgate daemon"), "{told}");

    std::fs::write(node.path("wrong.yaml"), "kind: x\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    let output = command.args(["daemon", "--config"]).arg(node.path("wrong.yaml")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_node_without_a_driver_starts_and_says_that_it_is_not_ready() {
    let node = Node::with(TREE);
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.args(["daemon", "--config"]).arg(node.path("config.yaml"));
    // Whatever driver this machine has, the loader is to look elsewhere first.
    let empty = node.path("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("libnvidia-ml.so.1"), "not a library").unwrap();
    command.env("LD_LIBRARY_PATH", &empty).stderr(std::process::Stdio::null());
    let mut daemon = command.spawn().unwrap();
    let (status, text) = eventually("it serves HTTP", || node.get("/readyz"));
    assert_eq!(status, 503);
    assert!(text.contains("not ready: no NVIDIA driver"), "{text}");
    assert_eq!(node.get("/healthz").unwrap().0, 200);
    assert_eq!(node.status()["ready"], false);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
