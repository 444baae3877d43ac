//! Loans in the node: who gets less is told first, guests come and go, and nothing adds up to more.

use std::collections::BTreeMap;

use headgate_quota::loan::{Amount, DataClass};
use headgate_quota::units::{Bytes, Share};
use headgate_quota::{Class, Mode};
use proptest::prelude::*;

use super::tests::{GPU, config, greet, node, peer, refused, welcomed};
use super::*;
use crate::config::model::Name;

const ONE: &str = "  tenants:
    - {name: cases, cgroup: /hg/cases, quota: {'*': {sm: 70%, memory: 8Gi}}}
";

fn amount(percent: u64, memory: u64) -> Amount {
    Amount { sm: Share(percent * 10_000), memory: Bytes(memory << 20) }
}

fn lent(percent: u64, memory: u64, guests: &[(&str, u64, u64)]) -> Event {
    Event::Lent(DeviceLoans {
        device: GPU,
        owners: BTreeMap::from([("cases".to_owned(), amount(percent, memory))]),
        guests: guests
            .iter()
            .map(|(tenant, percent, memory)| GuestLimits {
                district: Name::new("south").unwrap(),
                tenant: Name::new(tenant).unwrap(),
                limit: amount(*percent, *memory),
                class: Class::Express,
                data: DataClass::Derived,
            })
            .collect(),
    })
}

fn guest_slot(state: &State) -> TenantSlot {
    state.slot_of("south.alerts").unwrap()
}

#[test]
fn a_loan_lowers_its_owner_and_makes_a_guest_and_its_end_undoes_both() {
    let mut state = node(ONE);
    let owner = state.slot_of("cases").unwrap();
    let policy = state.tenant(owner).unwrap().policy.clone();
    step(&mut state, lent(40, 6 << 10, &[("alerts", 30, 2 << 10)]));
    let sm = |state: &State| state.compute_on(&policy, GPU).unwrap().nominal.get();
    assert_eq!(sm(&state), 400_000);
    assert_eq!(state.quota_on(&policy, GPU).memory.unwrap().nominal, Bytes(6 << 30));
    let guest = state.tenant(guest_slot(&state)).unwrap();
    let compute = state.compute_on(&guest.policy, GPU).unwrap();
    assert_eq!((compute.nominal.get(), compute.mode), (300_000, Mode::Hard));
    assert_eq!(compute.class, Class::Standard, "a guest never goes before the owners");
    assert_eq!(guest.policy.fail_policy, crate::config::model::FailPolicy::LastKnown);
    // A process in the guest's cgroup is the guest's.
    let effects = greet(&mut state, 1, peer(7, "/headgate/guests/south.alerts"), None);
    let (seat, welcome, limits) = welcomed(&effects);
    assert_eq!(welcome.tenant_name, "south.alerts");
    assert_eq!(limits.rows[0].unwrap().memory_bytes_max, 2 << 30);
    // The loan is over: nothing for the guest, all for the owner, and the guest stays with its last process only.
    step(&mut state, lent(70, 8 << 10, &[]));
    assert_eq!(sm(&state), 700_000);
    let gone = state.tenant(guest_slot(&state)).unwrap();
    assert_eq!(state.compute_on(&gone.policy, GPU).unwrap().nominal.get(), 0, "its gates stay shut");
    let late = greet(&mut state, 2, peer(8, "/headgate/guests/south.alerts"), None);
    refused(&late);
    step(&mut state, Event::Exited { seat });
    assert_eq!(state.slot_of("south.alerts"), None);
}

#[test]
fn configurations_come_and_go_and_guests_stay() {
    let mut state = node(ONE);
    step(&mut state, lent(40, 8 << 10, &[("alerts", 30, 0)]));
    step(&mut state, config("  tenants:\n    - {name: b, cgroup: /hg/b}\n"));
    assert!(!state.tenant(guest_slot(&state)).unwrap().retired);
}

#[test]
fn a_guest_of_an_earlier_run_has_nothing_until_its_loans_are_known() {
    let mut state = node(ONE);
    let seats = vec![AdoptedSeat {
        seat: headgate_abi::segment::SeatIndex::new(0).unwrap(),
        generation: 1,
        peer: Some(peer(7, "/headgate/guests/south.alerts")),
    }];
    step(&mut state, Event::LedgerFound { tenant: "south.alerts".to_owned(), seats });
    let guest = state.tenant(guest_slot(&state)).unwrap();
    assert_eq!(state.compute_on(&guest.policy, GPU).unwrap().nominal.get(), 0);
    step(&mut state, lent(40, 8 << 10, &[("alerts", 30, 0)]));
    let guest = state.tenant(guest_slot(&state)).unwrap();
    assert_eq!(state.compute_on(&guest.policy, GPU).unwrap().nominal.get(), 300_000);
    assert!(!guest.retired && guest.seats.len() == 1, "and keeps its seat");
}

#[test]
fn a_guest_that_overstays_is_stopped_with_its_cgroup() {
    let mut state = node(ONE);
    step(&mut state, lent(40, 8 << 10, &[("alerts", 30, 0)]));
    greet(&mut state, 1, peer(7, "/headgate/guests/south.alerts"), None);
    let (district, tenant) = (Name::new("south").unwrap(), Name::new("alerts").unwrap());
    let effects = step(&mut state, Event::Overstays { district, tenant });
    match &effects[..] {
        [Effect::Evict { cgroup, processes, .. }] => {
            assert_eq!(cgroup.as_ref().unwrap().as_str(), "/headgate/guests/south.alerts");
            assert_eq!(processes[0].pid, 7);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// Whatever follows whatever, and wherever publishing stops: limits that are in force never add up to more
    /// than the device, if what the desk says does not.
    #[test]
    fn at_no_instant_do_limits_in_force_exceed_the_device(
        steps in prop::collection::vec((0u64..=70, prop::collection::vec(0u64..=30, 0..3)), 1..12)
    ) {
        let mut state = node(ONE);
        let mut in_force: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let names = ["alerts", "review", "b"];
        for (owner, guests) in steps {
            let guests: Vec<_> =
                guests.iter().zip(names).map(|(percent, name)| (name, *percent, *percent * 80)).collect();
            let lent_out: u64 = guests.iter().map(|(_, percent, _)| percent).sum();
            let owner = owner.min(100 - lent_out);
            for effect in step(&mut state, lent(owner, owner * 80, &guests)) {
                match effect {
                    Effect::Publish(limits) => {
                        let row = limits.rows[0].unwrap();
                        in_force.insert(limits.slot.index(), (u64::from(row.sm.get()), row.memory_bytes_max));
                    }
                    Effect::Retire { slot } => {
                        in_force.remove(&slot.index());
                    }
                    _ => {}
                }
                let memory: u64 = in_force.values().map(|(_, memory)| memory).sum();
                prop_assert!(memory <= (100 * 80) << 20, "{in_force:?}");
            }
            let sm: u64 = in_force.values().map(|(sm, _)| sm).sum();
            prop_assert!(sm <= 1_000_000, "{in_force:?}");
        }
    }
}
