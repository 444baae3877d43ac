//! The kit itself: made, copied elsewhere, and run there with an empty environment.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use headgate_harness::process::Outcome;
use headgate_harness::{Program, eventually, workspace};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(400);

/// A kit in a folder of its own, as it would arrive on another machine.
fn kit() -> &'static Path {
    static KIT: OnceLock<PathBuf> = OnceLock::new();
    KIT.get_or_init(|| {
        let into = workspace::root().join("target/gpu-kit-test");
        let mut cargo = workspace::cargo();
        cargo.args(["xtask", "gpu-kit", "--dev", "--into"]).arg(&into);
        let outcome = Program::start("cargo xtask gpu-kit", &mut cargo)
            .unwrap()
            .finish(Duration::from_secs(1_800))
            .unwrap();
        assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
        // The same place every time, so that runs leave one kit behind and not many.
        let arrived = std::env::temp_dir().join("headgate-kit-test");
        if arrived.exists() {
            std::fs::remove_dir_all(&arrived).unwrap();
        }
        std::fs::create_dir(&arrived).unwrap();
        let copied = Command::new("cp").arg("-r").arg(&into).arg(&arrived).status().unwrap();
        assert!(copied.success());
        arrived.join("gpu-kit-test")
    })
}

fn run_all(words: &[&str], out: &Path) -> (Outcome, Value) {
    let mut command = Command::new(kit().join("run-all"));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    command.args(words).arg("--out").arg(out);
    let outcome = Program::start("run-all", &mut command).unwrap().finish(PATIENCE).unwrap();
    let text = std::fs::read_to_string(out.join("results.json"));
    let text = text.unwrap_or_else(|error| panic!("{error}: {}{}", outcome.stdout, outcome.stderr));
    (outcome, serde_json::from_str(&text).unwrap())
}

fn part<'a>(results: &'a Value, name: &str) -> &'a Value {
    let parts = results["parts"].as_array().unwrap();
    parts.iter().find(|part| part["part"] == name).unwrap_or_else(|| panic!("no part {name}: {results}"))
}

#[test]
fn the_parts_run_on_the_simulated_device_and_the_results_come_back_small() {
    let out = tempfile::tempdir().unwrap();
    let (outcome, results) = run_all(&["--simulated", "--minutes", "3"], out.path());
    assert_eq!(results["simulated"], true);
    // Shares and times of a busy machine decide nothing here: what must hold is that every part ran to its verdict.
    for name in ["constants", "conformance", "shares", "overhead", "latency", "ebpf", "remote", "demo"] {
        let found = part(&results, name);
        let ran = found["status"] == "passed" || found["status"] == "failed" || found["status"] == "skipped";
        assert!(ran, "{name}: {found:#}\n{}", outcome.stderr);
    }
    for name in ["constants", "conformance"] {
        assert_eq!(part(&results, name)["status"], "passed", "{:#}", part(&results, name));
    }
    assert_eq!(part(&results, "constants")["facts"]["a_blocked_wait_yields"], true);
    let torch = part(&results, "torch");
    assert_eq!(torch["status"], "skipped");
    assert!(torch["why"].as_str().unwrap().contains("CUDA runtime"), "{torch}");
    let remote = part(&results, "remote");
    assert_eq!(remote["status"], "passed", "{remote:#}");
    assert!(
        remote["figures"].as_array().unwrap().iter().any(|figure| figure["figure"] == "a step takes longer")
    );
    let shares = part(&results, "shares")["figures"].as_array().unwrap().len();
    assert!(8 <= shares, "{shares} figures of shares");

    // What a machine that is lent may send back: few files, small, at the top.
    let files: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.len() <= 8, "{files:?}");
    assert!(
        files
            .iter()
            .all(|file| file.metadata().unwrap().is_file() && file.metadata().unwrap().len() < 16 << 20)
    );
    let summary = std::fs::read_to_string(out.path().join("summary.md")).unwrap();
    assert!(summary.contains("SIMULATED") && summary.contains("| shares |"), "{summary}");

    let page = Command::new(kit().join("bin/headgate-kit")).arg("report").arg(out.path()).output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("SIMULATED") && page.contains("The simulated device's constants"), "{page}");
}

#[test]
fn without_a_driver_every_part_says_why_it_did_not_run() {
    if headgate_harness::device::has_real_driver() {
        return headgate_harness::skipped(
            "without_a_driver_every_part_says_why_it_did_not_run",
            &"there is a driver",
        );
    }
    let out = tempfile::tempdir().unwrap();
    let (outcome, results) = run_all(&["--minutes", "1"], out.path());
    assert!(outcome.status.success(), "{}", outcome.stderr);
    for found in results["parts"].as_array().unwrap() {
        assert_eq!(found["status"], "skipped", "{found}");
        assert!(found["why"].as_str().unwrap().contains("no NVIDIA driver"), "{found}");
    }
}

fn is_gone(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_u64().unwrap()));
    stat.map_or(true, |text| {
        text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

#[test]
fn a_part_that_misbehaves_is_ended_and_keeps_what_it_found() {
    let out = tempfile::tempdir().unwrap();
    let words = [
        "--simulated",
        "--minutes",
        "0.5",
        "--only",
        "torture-crash",
        "--only",
        "torture-orphan",
        "--only",
        "torture-hang",
    ];
    let words: Vec<&str> =
        words.into_iter().chain(["--only", "torture-flood", "--only", "torture-deaf"]).collect();
    let (outcome, results) = run_all(&words, out.path());
    assert!(!outcome.status.success(), "a run with such parts is no success");
    for (name, status, found) in [
        ("torture-crash", "crashed", "before it crashed"),
        ("torture-hang", "timed_out", "before it hung"),
        ("torture-flood", "timed_out", "before the flood"),
        ("torture-deaf", "timed_out", "before it hung"),
    ] {
        let part = part(&results, name);
        assert_eq!(part["status"], status, "{part:#}");
        assert_eq!(part["facts"]["found"], found, "{part:#}");
        assert!(!part["why"].as_str().unwrap().is_empty());
    }
    assert!(part(&results, "torture-crash")["why"].as_str().unwrap().contains("signal"));
    assert_eq!(part(&results, "torture-orphan")["status"], "passed");
    let log = part(&results, "torture-flood")["log"].as_str().unwrap();
    assert!(log.contains("a line that nobody will read") && log.len() < 10_000, "{} bytes", log.len());
    for name in ["torture-deaf", "torture-orphan"] {
        let child = &part(&results, name)["facts"]["child"];
        eventually("what a part left behind is gone", Duration::from_secs(5), || {
            is_gone(child).then_some(())
        });
    }
}

#[test]
fn a_name_that_is_no_part_is_refused_with_the_names_there_are() {
    let output = Command::new(kit().join("run-all"))
        .args(["--only", "nonsense", "--out", "/tmp/headgate-kit-none"])
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no part nonsense") && said.contains("conformance"), "{said}");
}
