//! A driver that fails at random, at any point on the way to an allocation or back: the books stay right, and the
//! program gets the driver's own code. `SEED=` and `OPERATIONS=` replay or lengthen a run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use headgate_conformance::chaos::ORDERED;
use headgate_conformance::churn::Random;
use headgate_harness::TenantSpec;
use support::{conform, node, used_bytes};

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn a_driver_that_fails_anywhere_leaves_the_books_right() {
    let (seed, operations) = (setting("SEED", 7), setting("OPERATIONS", 4_000));
    let node = node(vec![TenantSpec::new("alerts").memory("64Mi")]);
    let mut command = conform(&node, "alerts");
    command.args(["chaos", &operations.to_string(), &seed.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut orders = child.stdin.take().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut random = Random::new(seed ^ 0xfa11);
    let mut failures = 0;
    for call in lines.map(Result::unwrap) {
        let fails = call != "-" && random.below(3) == 0;
        if fails {
            node.device().control().inject_fault(&call, ORDERED, 1, Some(child.id())).unwrap();
            failures += 1;
        }
        // A program that has found something wrong listens no more, and says so below.
        if writeln!(orders, "{}", if fails { "fails" } else { "works" }).is_err() {
            break;
        }
    }
    drop(orders);
    let outcome = child.wait_with_output().unwrap();
    assert!(outcome.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&outcome.stderr));
    assert!(operations / 10 < failures, "{failures} failures in {operations} operations");
    assert_eq!(used_bytes(&node, "alerts"), 0);
}
