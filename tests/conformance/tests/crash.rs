//! Programs that race, crowd and die: the books stay right.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::disallowed_methods, reason = "the moment of a kill is a matter of time")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use headgate_conformance::churn::Random;
use headgate_harness::{Program, TenantSpec, eventually};
use support::{PATIENCE, UNIT, conform, node, row, used_bytes};

/// What cleaning up after a `kill -9` may take.
const CLEANUP: Duration = Duration::from_secs(1);
/// Kills in one test run; `HEADGATE_KILLS` asks for more.
const KILLS: u64 = 30;

fn kills() -> u64 {
    std::env::var("HEADGATE_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS)
}

fn took(output: &mut BufReader<ChildStdout>) -> u64 {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().strip_prefix("took ").unwrap_or_else(|| panic!("the hog said {line:?}")).parse().unwrap()
}

/// Group 19: dead processes neither hang nor hold.
#[test]
fn programs_killed_at_any_moment_leave_nothing() {
    let node = node(vec![TenantSpec::new("alerts").memory("256Mi")]);
    let mut random = Random::new(19);
    for kill in 0..kills() {
        let mut command = conform(&node, "alerts");
        let mut victim = command.args(["loop", &kill.to_string()]).stdout(Stdio::null()).spawn().unwrap();
        let patience = Duration::from_micros(20_000 + random.below(60_000));
        let start = Instant::now();
        eventually("its moment comes", Duration::from_secs(5), || (patience < start.elapsed()).then_some(()));
        victim.kill().unwrap();
        victim.wait().unwrap();
        eventually(&format!("kill {kill} leaves nothing"), CLEANUP, || {
            (used_bytes(&node, "alerts") == 0 && row(&node, "alerts")["seats"] == 0).then_some(())
        });
    }
}

/// Group 14: many processes, one quota, the last byte.
#[test]
fn racing_programs_share_a_quota_to_the_last_byte() {
    const RACERS: usize = 8;
    const UNITS: u64 = 128;
    let node = node(vec![TenantSpec::new("alerts").memory("256Mi")]);
    for _ in 0..3 {
        let mut racers: Vec<(Child, BufReader<ChildStdout>)> = (0..RACERS)
            .map(|_| {
                let mut command = conform(&node, "alerts");
                command.args(["hog", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().unwrap();
                let output = BufReader::new(child.stdout.take().unwrap());
                (child, output)
            })
            .collect();
        let taken: u64 = racers.iter_mut().map(|(_, output)| took(output)).sum();
        assert_eq!(taken, UNITS, "neither a unit too many nor one too few");
        assert_eq!(used_bytes(&node, "alerts"), UNITS * UNIT);
        for (mut child, _) in racers {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        eventually("all of it comes back", CLEANUP, || (used_bytes(&node, "alerts") == 0).then_some(()));
    }
}

/// Threads of one program take and give at once, up to the quota and against it.
#[test]
fn threads_of_a_program_leave_no_drift() {
    let node = node(vec![TenantSpec::new("alerts").memory("128Mi")]);
    let mut command = conform(&node, "alerts");
    let crowd = Program::start("conform", command.args(["crowd", "8", "250", "7"])).unwrap();
    let outcome = crowd.finish(PATIENCE).unwrap();
    assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.starts_with("operations 2000 refused "), "{}", outcome.stdout);
    assert_eq!(used_bytes(&node, "alerts"), 0);
}

/// Group 20: many starts at once.
#[test]
fn a_crowd_that_starts_at_once_gets_its_seats() {
    const CROWD: usize = 300;
    let node = node(vec![TenantSpec::new("alerts").memory("1Gi")]);
    let mut crowd: Vec<(Child, BufReader<ChildStdout>)> = (0..CROWD)
        .map(|_| {
            let mut command = conform(&node, "alerts");
            // Nobody can take so much: each starts, is refused, and says so.
            command.args(["hog", "1024"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let output = BufReader::new(child.stdout.take().unwrap());
            (child, output)
        })
        .collect();
    for (_, output) in &mut crowd {
        assert_eq!(took(output), 0);
    }
    assert_eq!(row(&node, "alerts")["seats"], CROWD as u64);
    for (mut child, _) in crowd {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    eventually("all leave", Duration::from_secs(5), || (row(&node, "alerts")["seats"] == 0).then_some(()));
}
