//! Real CUDA programs give the same, right results natively and under the hook, and never notice it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use headgate_harness::{Program, TenantSpec, workspace};
use support::{MIB, node};

/// How long a sample program may take on a busy two-core machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn tenant() -> TenantSpec {
    TenantSpec::new("alerts").sm(50).memory("1Gi")
}

#[test]
fn computations_are_right_natively_and_under_the_hook() {
    let node = node(vec![tenant()]);
    for app in ["app-saxpy", "app-matmul", "app-reduction"] {
        let path = workspace::program(app).unwrap();
        for (how, mut command) in
            [("native", node.native_command(&path)), ("hooked", node.command("alerts", &path).unwrap())]
        {
            let outcome = Program::start(app, &mut command).unwrap().finish(PATIENCE).unwrap();
            assert!(outcome.status.success(), "{app} {how}: {}{}", outcome.stdout, outcome.stderr);
        }
    }
}

#[test]
fn an_allocating_program_gets_its_quota_and_not_a_byte_more() {
    let node = node(vec![tenant()]);
    let hog = node.run("alerts", "app-hog", &["--chunk", "100Mi"]).unwrap();
    let found = hog.finish(PATIENCE).unwrap().json().unwrap();
    assert_eq!(found["allocated_bytes"], 1000 * MIB, "{found}");
}
