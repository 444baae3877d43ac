//! Memory that one session has taken ahead is called back before another process of its guest is refused: `cuMemAlloc` refuses
//! what there is no memory for, and nothing else, as far as the other session can be asked.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::disallowed_methods, reason = "how long a refusal takes is what one of them is about")]

mod support;

use std::time::Instant;

use headgate_harness::remote::{Transport, Worker};
use headgate_harness::{Node, NodeOptions, Pair, PairOptions, TenantSpec, eventually, skipped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::{MIB, Puppet, SOON, device_row, node, node_of, puppet, used_bytes};

const QUOTA: u64 = 64 * MIB;
/// What a session takes ahead first.
const SLAB: u64 = 512 << 10;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: u32 = 2;

fn tenants() -> Vec<TenantSpec> {
    vec![TenantSpec::new("far").sm(80).memory("64Mi")]
}

/// A program whose device is a worker's in the tenant.
fn session(node: &Node) -> (Worker, Puppet) {
    let worker = Worker::in_tenant(node, "far", Transport::Unix).unwrap();
    let mut puppet = Puppet::start(&mut worker.command(puppet()).unwrap());
    puppet.must("init");
    (worker, puppet)
}

/// Has a session hold a slab that nothing is in.
fn hold(session: &mut Puppet) {
    session.must("alloc 8");
    session.must("free");
}

/// Has a session hold one that nothing is in beside the one that its kernel's counter is in.
fn hold_more(node: &Node, session: &mut Puppet) {
    eventually("the session has taken more ahead", SOON, || {
        // More than half of the first.
        for _ in 0..4 {
            session.must("alloc 100000");
        }
        // What was taken is known by now.
        session.must("info");
        for _ in 0..4 {
            session.must("free");
        }
        (used_bytes(node, "far") >= 2 * SLAB).then_some(())
    });
}

fn denials(node: &Node) -> u64 {
    device_row(node, "far")["denied_allocations"].as_u64().unwrap()
}

#[test]
fn a_program_beside_a_session_gets_all_that_nobody_uses() {
    let node = node(tenants());
    let mut beside = Puppet::in_tenant(&node, "far");
    beside.must("init");
    let (_worker, mut session) = session(&node);
    for family in ["alloc", "alloc-async"] {
        hold(&mut session);
        beside.must(&format!("{family} {QUOTA}"));
        assert_eq!(session.ask("alloc 8").unwrap_err(), OUT_OF_MEMORY, "there is none now");
        beside.must("free");
        beside.must("sync");
        eventually("the session takes some ahead again", SOON, || {
            hold(&mut session);
            (used_bytes(&node, "far") >= SLAB).then_some(())
        });
    }
    assert_eq!(denials(&node), 2, "the session's own");
}

#[test]
fn two_sessions_get_what_the_other_does_not_use() {
    let node = node(tenants());
    let [(_first, mut one), (_second, mut other)] = [(); 2].map(|()| session(&node));
    hold(&mut one);
    hold(&mut other);
    other.must(&format!("alloc {QUOTA}"));
    other.must("free");
    // Its worker may not have come to it yet.
    eventually("what was given back is had", SOON, || one.ask("alloc 8").ok());
    one.must("free");
    hold(&mut other);
    // At once: neither may wait for the other.
    for session in [&mut one, &mut other] {
        session.tell(&format!("alloc {}", QUOTA / 2));
    }
    assert!(one.answer().is_ok() && other.answer().is_ok(), "both halves are there");
    assert_eq!(device_row(&node, "far")["memory_peak_bytes"], QUOTA, "and never more");
}

#[test]
fn what_is_in_use_stays_where_it_is() {
    let node = node(tenants());
    let mut beside = Puppet::in_tenant(&node, "far");
    beside.must("init");
    let (_worker, mut session) = session(&node);
    session.must("alloc 8");
    assert_eq!(beside.ask(&format!("alloc {QUOTA}")).unwrap_err(), OUT_OF_MEMORY);
    beside.must(&format!("alloc {}", QUOTA - SLAB));
    assert_eq!(session.must("info"), [SLAB - 8, QUOTA], "what is left in its slab");
    session.must("alloc 8");
    beside.must("free");
    for _ in 0..2 {
        session.must("free");
    }
    // The session's worker may not have come to it yet.
    eventually("all of it is had", SOON, || beside.ask(&format!("alloc {QUOTA}")).ok());
}

#[test]
fn a_session_at_work_gives_back_when_its_work_is_done() {
    let mut options = NodeOptions::simulated(tenants());
    options.device = Some(json!({ "kernels": { "spin": { "base_ns": 3_000_000 } } }));
    let node = node_of(options);
    let mut beside = Puppet::in_tenant(&node, "far");
    beside.must("init");
    let (_worker, mut session) = session(&node);
    session.ready();
    hold_more(&node, &mut session);
    session.must("launch 10");
    let everything = format!("alloc {}", QUOTA - SLAB);
    beside.must(&everything);
    beside.must("free");
    // Work that takes longer than anybody waits: what is free is refused, soon, and the session is not kept from its work.
    hold_more(&node, &mut session);
    session.must("launch 1000");
    assert_eq!(beside.ask(&everything).unwrap_err(), OUT_OF_MEMORY);
    session.must("sync");
    eventually("it is had afterwards", SOON, || beside.ask(&everything).ok());
}

#[test]
fn a_program_that_is_stopped_holds_others_up_once() {
    let node = node(tenants());
    let mut beside = Puppet::in_tenant(&node, "far");
    beside.must("init");
    let (_worker, mut session) = session(&node);
    hold(&mut session);
    let stopped = Pid::from_raw(session.pid().try_into().unwrap());
    kill(stopped, Signal::SIGSTOP).unwrap();
    let everything = format!("alloc {QUOTA}");
    let mut took = [(); 20].map(|()| {
        let since = Instant::now();
        assert_eq!(beside.ask(&everything).unwrap_err(), OUT_OF_MEMORY);
        since.elapsed()
    });
    took.sort();
    // The first waits as long as may be waited; others are told at once, or the middle one would have waited as long.
    assert!(took[19] < SOON && took[10] * 2 < took[19], "{took:?}");
    kill(stopped, Signal::SIGCONT).unwrap();
    eventually("it is had when it goes on", SOON, || beside.ask(&everything).ok());
}

#[test]
fn sessions_that_daemons_carry_are_asked_as_well() {
    if !headgate_harness::is_root() {
        skipped("sessions_that_daemons_carry", &"a worker is put into its guest's cgroup, which needs root");
        return;
    }
    let pair = Pair::start(&PairOptions::default()).unwrap_or_else(|error| panic!("{error:#}"));
    // On the lender's device, and on the node's own, where the daemon hands the connection to the worker.
    for lender in [None, Some("south")] {
        let [mut one, mut other] = [(); 2].map(|()| {
            let program = puppet().to_str().unwrap();
            let mut puppet = Puppet::start(&mut pair.command(&pair.tenants[0], program, lender).unwrap());
            puppet.must("init");
            hold(&mut puppet);
            puppet
        });
        let total = other.must("info")[1];
        hold(&mut one);
        other.must(&format!("alloc {total}"));
        assert_eq!(one.ask("alloc 8").unwrap_err(), OUT_OF_MEMORY, "{lender:?}");
    }
}
