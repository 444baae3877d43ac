//! Device memory that a borrower takes ahead of its use shows nowhere but in its waits: books, refusals and contents are those of
//! a program on a device of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually, workspace};
use serde_json::json;
use support::{MIB, Puppet, SOON, device_row, eventually_used, node, node_of, puppet, used_bytes};

const PATIENCE: Duration = Duration::from_secs(120);
const QUOTA: u64 = 64 * MIB;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: u32 = 2;

fn tenants() -> Vec<TenantSpec> {
    ["near", "far"].map(|name| TenantSpec::new(name).sm(40).memory("64Mi")).to_vec()
}

/// The same program in a tenant of the node, and on a worker in another one.
fn both(node: &Node) -> (Worker, [Puppet; 2]) {
    let worker = Worker::in_tenant(node, "far", Transport::Unix).unwrap();
    let away = Puppet::start(&mut worker.command(puppet()).unwrap());
    let mut both = [Puppet::in_tenant(node, "near"), away];
    both.iter_mut().for_each(|one| drop(one.must("init")));
    (worker, both)
}

/// Has both do something, which must come to the same.
#[track_caller]
fn alike(both: &mut [Puppet; 2], command: &str) -> support::Answer {
    let [near, far] = both.each_mut().map(|one| one.ask(command));
    let addresses = command.starts_with("alloc");
    let outcome = |answer: &support::Answer| {
        answer.as_ref().map(|values| if addresses { vec![] } else { values.clone() }).map_err(|code| *code)
    };
    assert_eq!(outcome(&near), outcome(&far), "{command}");
    far
}

#[test]
fn what_is_free_and_what_is_refused_are_as_on_a_device_of_ones_own() {
    let node = node(tenants());
    let (worker, mut both) = both(&node);
    assert_eq!(alike(&mut both, "info").unwrap(), [QUOTA, QUOTA], "nothing is asked for yet");
    for size in [8, 100, 4096, 100_000, 1 << 20, 3 << 20] {
        alike(&mut both, &format!("alloc {size}")).unwrap();
        alike(&mut both, "info").unwrap();
        alike(&mut both, "nvml").unwrap();
    }
    for _ in 0..4 {
        alike(&mut both, "free").unwrap();
        alike(&mut both, "info").unwrap();
    }
    // The two smallest stay. The rest is taken in ever smaller pieces, down to what no slab may hide.
    for size in [8 * MIB, MIB, MIB / 2, MIB / 8] {
        while alike(&mut both, &format!("alloc {size}")).is_ok() {}
        alike(&mut both, "info").unwrap();
    }
    let refused = alike(&mut both, &format!("alloc {}", MIB / 8)).unwrap_err();
    assert_eq!(refused, OUT_OF_MEMORY);
    drop(both);
    drop(worker);
    eventually_used(&node, "far", 0, SOON);
}

#[test]
fn a_large_allocation_gets_what_was_taken_ahead() {
    let node = node(tenants());
    let (_worker, mut both) = both(&node);
    alike(&mut both, "alloc 8").unwrap();
    alike(&mut both, "free").unwrap();
    // All of the quota, to the byte: nothing may be left behind ahead of its use.
    alike(&mut both, &format!("alloc {QUOTA}")).unwrap();
    assert_eq!(alike(&mut both, "info").unwrap(), [0, QUOTA]);
    assert_eq!(alike(&mut both, "alloc 8").unwrap_err(), OUT_OF_MEMORY);
    alike(&mut both, "free").unwrap();
    alike(&mut both, "alloc 8").unwrap();
    assert_eq!(alike(&mut both, "info").unwrap(), [QUOTA - 8, QUOTA]);
}

#[test]
fn a_program_at_rest_keeps_nothing_that_it_does_not_use() {
    let node = node(tenants());
    let (_worker, mut both) = both(&node);
    alike(&mut both, "alloc 8").unwrap();
    alike(&mut both, "free").unwrap();
    eventually_used(&node, "far", 0, SOON);
    alike(&mut both, "alloc 8").unwrap();
    assert_eq!(alike(&mut both, "info").unwrap(), [QUOTA - 8, QUOTA]);
}

#[test]
fn what_one_session_has_taken_ahead_another_of_its_guest_gets_when_it_rests() {
    let node = node(tenants());
    let workers = [(); 2].map(|()| Worker::in_tenant(&node, "far", Transport::Unix).unwrap());
    let [mut one, mut other] =
        workers.each_ref().map(|worker| Puppet::start(&mut worker.command(puppet()).unwrap()));
    for puppet in [&mut one, &mut other] {
        puppet.must("init");
        puppet.must("alloc 8");
        puppet.must("free");
    }
    // It may be refused at first, but it is not more than there is, and no tenant ever has more.
    eventually("all of the quota is had", SOON, || other.ask(&format!("alloc {QUOTA}")).ok());
    assert_eq!(one.ask("alloc 8").unwrap_err(), OUT_OF_MEMORY);
    other.must("free");
    // The other's worker may not have come to it yet.
    eventually("what was given back is had", SOON, || one.ask("alloc 8").ok());
    assert_eq!(device_row(&node, "far")["memory_peak_bytes"], QUOTA);
}

#[test]
fn what_comes_to_be_unused_while_a_program_rests_is_given_back_later() {
    let node = node(tenants());
    let (_worker, mut both) = both(&node);
    // Until the first that is taken ahead is mostly used and there is a second one.
    let (mut pieces, mut taken) = (0, 0);
    while taken < MIB {
        pieces += 1;
        alike(&mut both, "alloc 100000").unwrap();
        alike(&mut both, "info").unwrap();
        taken = used_bytes(&node, "far");
        assert!(pieces < 10, "{taken} bytes are taken");
    }
    eventually("the one that nothing is in is given back", SOON, || {
        let left = used_bytes(&node, "far");
        (pieces * 100_000 <= left && left < taken).then_some(())
    });
    for _ in 0..pieces {
        alike(&mut both, "free").unwrap();
    }
    eventually_used(&node, "far", 0, SOON);
}

#[test]
fn the_edges_of_a_small_piece_are_where_they_are_natively() {
    let node = node(tenants());
    let app = workspace::program("app-edges").unwrap();
    let finished = |program: Program| {
        let outcome = program.finish(PATIENCE).unwrap();
        assert!(outcome.status.success(), "{outcome:?}");
        outcome.json().unwrap()
    };
    let near = finished(Program::start("near", &mut node.command("near", &app).unwrap()).unwrap());
    let worker = Worker::in_tenant(&node, "far", Transport::Unix).unwrap();
    let far = finished(Program::start("far", &mut worker.command(&app).unwrap()).unwrap());
    let near = near.as_object().unwrap();
    let differ = near.iter().filter(|(name, value)| far[name.as_str()] != **value);
    let differ: Vec<_> = differ.map(|(name, value)| (name, value, &far[name.as_str()])).collect();
    assert!(differ.is_empty(), "natively, and from afar: {differ:#?}");
    assert_eq!(near["one byte more"]["filled"], 1, "the driver knows where a piece ends: {near:#?}");
}

#[test]
fn a_context_that_was_promised_and_cannot_be_made_says_so_until_it_is_made() {
    let node = node(tenants());
    let worker = Worker::in_tenant(&node, "far", Transport::Unix).unwrap();
    let mut puppet = Puppet::start(&mut worker.command(puppet()).unwrap());
    let refuse = |times| {
        let control = node.device().control();
        control.inject_fault("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY, times, None).unwrap();
    };
    refuse(2);
    // Whichever of these hears of it first: the call that made it, or the first that waits for the worker.
    let first = puppet.ask("init").and_then(|_| puppet.ask("alloc 8"));
    assert_eq!(first.unwrap_err(), OUT_OF_MEMORY);
    assert_eq!(puppet.ask("info").unwrap_err(), OUT_OF_MEMORY, "there is nothing to ask about");
    assert_eq!(puppet.ask("init").unwrap_err(), OUT_OF_MEMORY, "who tries again is told at once");
    puppet.must("init");
    puppet.must("alloc 8");
    assert_eq!(puppet.must("info"), [QUOTA - 8, QUOTA]);
    puppet.must("free");
    eventually_used(&node, "far", 0, SOON);
}

#[test]
fn memory_that_is_handed_out_again_is_out_of_use() {
    let mut options = NodeOptions::simulated(tenants());
    options.device = Some(json!({ "kernels": { "spin": { "base_ns": 3_000_000 } } }));
    let node = node_of(options);
    let app = workspace::program("app-churn").unwrap();
    let mut worker = Worker::in_tenant(&node, "far", Transport::Tcp).unwrap();
    let run = |arguments: &[&str], worker: &Worker| {
        let mut command = worker.command(&app).unwrap();
        Program::start("app-churn", command.args(arguments)).unwrap().finish(PATIENCE).unwrap()
    };
    let found = run(&["--rounds", "20"], &worker).json().unwrap();
    assert_eq!(found["wrong"], 0, "{found}");
    assert_eq!(found["same_address"], 20, "it is what is tested: {found}");
    drop(worker);
    // In stream order: the memory is still to be used when more is taken, and nothing may wait for that.
    worker = Worker::in_tenant(&node, "far", Transport::Tcp).unwrap();
    let found = run(&["--rounds", "20", "--in-order", "1"], &worker).json().unwrap();
    assert_eq!((&found["wrong"], &found["same_address"]), (&json!(0), &json!(0)), "{found}");
    drop(worker);
    // Taking and giving back small pieces waits for nobody, save at the beginning and the end.
    worker = Worker::in_tenant(&node, "far", Transport::Unix).unwrap();
    let outcome = run(&["--rounds", "500", "--launches", "0", "--bytes", "3000"], &worker);
    let waits = outcome.stderr.split("after waiting ").nth(1).and_then(|rest| rest.split(' ').next());
    let waits: u64 = waits.and_then(|waits| waits.parse().ok()).unwrap_or_else(|| panic!("{outcome:?}"));
    assert!(outcome.status.success() && waits <= 5, "{waits} waits for 500 pieces: {outcome:?}");
}
