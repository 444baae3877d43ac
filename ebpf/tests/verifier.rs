//! What the kernel's verifier had to look at for each program: a ceiling for each, so that a change that makes it work twice as hard
//! is seen here and not on an older kernel, whose verifier gives up at a million.

mod support;

use std::collections::BTreeMap;

use headgate_ebpf::{Config, Probes, State};
use support::{city::Realm, skip};

/// Instructions that the verifier followed, at most, by program: some half above what Linux 6.18 says.
const CEILINGS: [(&str, u32); 28] = [
    ("wait_session", 2_900),
    ("launch_session", 2_900),
    ("ledger_session", 19_000),
    ("wait_enter", 200),
    ("wait_leave", 2_600),
    ("wait_launch", 200),
    ("wait_launched", 1_600),
    ("socket_event", 12_000),
    ("process_exit", 700),
    ("ledger_enter", 15_000),
    ("ledger_leave", 4_000),
    ("ledger_launch", 1_000),
    ("ledger_exit", 100),
    ("ledger_exit_lea", 100),
    ("ledger_exec", 100),
    ("ioctl_enter", 100),
    ("ioctl_leave", 1_500),
    ("border_egress", 8_000),
    ("border_ingress", 7_000),
    ("border_connect4", 2_500),
    ("border_connect6", 2_500),
    ("border_sendmsg4", 2_500),
    ("border_sendmsg6", 2_500),
    ("border_frame", 46_000),
    ("device_gate", 2_500),
    ("gate_exit", 100),
    ("gate_exit_leade", 100),
    ("gate_exec", 100),
];

#[test]
fn no_program_is_more_work_for_the_verifier_than_it_was() {
    let realm = match Realm::make() {
        Ok(realm) => realm,
        Err(why) => skip!("{why}"),
    };
    let before: Vec<u32> = ids();
    let enforcement = realm.open();
    let mut probes = Probes::load(Config { tenants: 4, ..Config::default() });
    for status in probes.status() {
        if status.state == State::Missing {
            skip!("{status}");
        }
    }
    for status in enforcement.status().into_iter().chain(probes.parts()) {
        if status.state == State::Missing {
            skip!("{status}");
        }
    }
    probes.audit_ioctls().expect("the kernel lets us");
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for program in aya::programs::loaded_programs().filter_map(Result::ok) {
        let (Some(name), Some(work)) = (program.name_as_str(), program.verified_instruction_count()) else {
            continue;
        };
        // Other tests load the same programs beside this one, from the same objects.
        if !before.contains(&program.id()) {
            let most = seen.entry(name.to_owned()).or_default();
            *most = work.max(*most);
        }
    }
    let mut over = Vec::new();
    let mut found = 0;
    for (name, work) in &seen {
        let Some((_, ceiling)) = CEILINGS.iter().find(|(known, _)| known == name) else { continue };
        println!("{name:16} {work:6} of {ceiling}");
        found += 1;
        if ceiling < work {
            over.push(format!("{name}: {work}, ceiling {ceiling}"));
        }
    }
    assert!(20 <= found, "the programs are there: {seen:?}");
    assert!(over.is_empty(), "{over:?}");
}

fn ids() -> Vec<u32> {
    aya::programs::loaded_programs().filter_map(Result::ok).map(|program| program.id()).collect()
}
