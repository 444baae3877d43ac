//! The node against a naive model, and its single decisions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use headgate_abi::segment::SeatIndex;
use headgate_abi::segment::layout::{FAIL_LAST_KNOWN, GATE_GPU, GATE_UNGOVERNED, UNLIMITED};
use headgate_abi::wire::{Hello, RefusalReason};
use headgate_quota::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::model::DeviceUuid;

pub(super) const GPU: DeviceUuid = DeviceUuid([7; 16]);

pub(super) fn config(tenants: &str) -> Event {
    let text = format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata: {{name: n}}\nspec:\n  district: north\n{tenants}"
    );
    let config = crate::config::parse("test", &text).unwrap_or_else(|problems| panic!("{problems}"));
    Event::Configured { config: Arc::new(config), hash: "h".to_owned(), at: Duration::ZERO }
}

const TWO: &str = "  tenants:
    - {name: a, cgroup: /hg/a, failPolicy: lastKnown, quota: {'*': {sm: 70, memory: 1Gi}}}
    - {name: ab, cgroup: /hg/a/b}
";

fn device() -> Event {
    Event::Devices(vec![DeviceFacts { uuid: GPU, name: "g".to_owned(), memory: Bytes(80 << 30) }])
}

pub(super) fn node(tenants: &str) -> State {
    let mut state = State::new(100, &[]);
    step(&mut state, config(tenants));
    step(&mut state, device());
    state
}

pub(super) fn peer(pid: u32, cgroup: &str) -> Peer {
    let process = Process { pid, start_ticks: u64::from(pid) };
    Peer { process, cgroup: Some(cgroup.to_owned()), ancestors: Vec::new() }
}

fn hello(seat: Option<SeatRef>) -> Hello {
    Hello {
        driver_version: 13_000,
        text_start: 0,
        text_end: 0,
        seat: seat.map(|seat| (seat.seat, seat.generation)),
        devices: vec![[9; 16], GPU.0],
    }
}

pub(super) fn greet(state: &mut State, connection: u64, peer: Peer, seat: Option<SeatRef>) -> Vec<Effect> {
    step(state, Event::Hello { connection: ConnectionId(connection), peer, hello: hello(seat) })
}

pub(super) fn welcomed(effects: &[Effect]) -> (SeatRef, &headgate_abi::wire::Welcome, &TenantLimits) {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Welcome { seat, welcome, limits, .. } => Some((*seat, welcome, limits)),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no welcome in {effects:?}"))
}

pub(super) fn refused(effects: &[Effect]) -> (RefusalReason, &str) {
    match effects {
        [Effect::Refuse { reason, text, .. }] => (*reason, text),
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn the_longest_cgroup_wins_and_strangers_are_refused_by_name() {
    let mut state = node(TWO);
    for (pid, cgroup, tenant) in
        [(1, "/hg/a", "a"), (2, "/hg/a/x/y", "a"), (3, "/hg/a/b/c", "ab"), (4, "/hg/a/bc", "a")]
    {
        let effects = greet(&mut state, u64::from(pid), peer(pid, cgroup), None);
        assert_eq!(welcomed(&effects).1.tenant_name, tenant, "{cgroup}");
    }
    for (pid, cgroup) in [(5, "/"), (6, "/hg/ax"), (7, "/../hg/a")] {
        let effects = greet(&mut state, u64::from(pid), peer(pid, cgroup), None);
        let (reason, text) = refused(&effects);
        assert_eq!(reason, RefusalReason::NoTenant);
        assert!(text.contains(cgroup) && text.contains("spec.defaultTenant"), "{text}");
    }
    assert_eq!(state.refused[0], 3);
}

#[test]
fn the_default_tenant_takes_strangers() {
    let mut state = node(&format!("  defaultTenant: ab\n{TWO}"));
    let effects = greet(&mut state, 1, peer(1, "/"), None);
    assert_eq!(welcomed(&effects).1.tenant_name, "ab");
}

#[test]
fn limits_and_rows_follow_the_quota() {
    let mut state = node(TWO);
    let effects = greet(&mut state, 1, peer(1, "/hg/a"), None);
    let (_, welcome, limits) = welcomed(&effects);
    assert_eq!(welcome.rows, [None, Some(0)], "in the order of the hello");
    let row = limits.rows[0].unwrap();
    assert_eq!((row.memory_bytes_max, row.gate_mode, row.sm.get()), (1 << 30, GATE_GPU, 700_000));
    assert_eq!(limits.fail_policy, FAIL_LAST_KNOWN);
    let effects = greet(&mut state, 2, peer(2, "/hg/a/b"), None);
    let row = welcomed(&effects).2.rows[0].unwrap();
    assert_eq!((row.memory_bytes_max, row.gate_mode), (UNLIMITED, GATE_UNGOVERNED), "no quota, no limit");
}

#[test]
fn a_second_hello_after_exec_gets_a_fresh_seat_and_the_old_is_reaped() {
    let mut state = node(TWO);
    let first = welcomed(&greet(&mut state, 1, peer(1, "/hg/a"), None)).0;
    let effects = greet(&mut state, 2, peer(1, "/hg/a"), None);
    assert!(effects.contains(&Effect::Reap { seat: first }));
    assert!(effects.contains(&Effect::Close { connection: ConnectionId(1) }));
    let (second, welcome, _) = welcomed(&effects);
    assert!(welcome.fresh && second.generation != first.generation);
    assert_eq!(state.seats().count(), 1);
    // The death of the first taking arrives late and must not free the second.
    assert!(step(&mut state, Event::Exited { seat: first }).is_empty());
    assert_eq!(state.seats().count(), 1);
}

#[test]
fn a_seat_named_with_its_generation_is_kept() {
    let mut state = node(TWO);
    let seat = welcomed(&greet(&mut state, 1, peer(1, "/hg/a"), None)).0;
    let effects = step(&mut state, Event::Closed { connection: ConnectionId(1) });
    let process = peer(1, "").process;
    assert_eq!(effects, [Effect::Inspect { seat, process }], "exec, or all descriptors closed?");
    let effects = greet(&mut state, 2, peer(1, "/hg/a"), Some(seat));
    let (kept, welcome, _) = welcomed(&effects);
    assert_eq!((kept, welcome.fresh), (seat, false));
    // Another process that names it gets one of its own.
    let effects = greet(&mut state, 3, peer(2, "/hg/a"), Some(seat));
    assert!(welcomed(&effects).1.fresh);
    let effects = step(&mut state, Event::Unmapped { seat });
    assert!(effects.contains(&Effect::Reap { seat }));
    assert_eq!(state.seats().count(), 1);
}

#[test]
fn a_reused_process_id_is_another_process() {
    let mut state = node(TWO);
    let seat = welcomed(&greet(&mut state, 1, peer(1, "/hg/a"), None)).0;
    let mut other = peer(1, "/hg/a");
    other.process.start_ticks += 5;
    let effects = greet(&mut state, 2, other, Some(seat));
    assert!(effects.contains(&Effect::Reap { seat }));
    assert!(welcomed(&effects).1.fresh);
}

#[test]
fn a_full_tenant_refuses_and_says_so() {
    let mut state = node(TWO);
    for pid in 1..=1024 {
        let effects = greet(&mut state, u64::from(pid), peer(pid, "/hg/a"), None);
        assert_eq!(welcomed(&effects).0.seat.get(), pid as usize - 1);
    }
    let effects = greet(&mut state, 2000, peer(2000, "/hg/a"), None);
    assert_eq!(refused(&effects).0, RefusalReason::SeatsFull);
    let seat = state.seats().nth(500).unwrap().0;
    step(&mut state, Event::Exited { seat });
    let effects = greet(&mut state, 2001, peer(2000, "/hg/a"), None);
    assert_eq!(welcomed(&effects).0.seat, seat.seat, "the lowest free seat");
}

#[test]
fn a_removed_tenant_keeps_its_processes_and_takes_no_new_ones() {
    let mut state = node(TWO);
    let seat = welcomed(&greet(&mut state, 1, peer(1, "/hg/a"), None)).0;
    let effects = step(&mut state, config("  tenants:\n    - {name: c, cgroup: /hg/c}\n"));
    let shrunk = effects.iter().any(|effect| match effect {
        Effect::Publish(limits) => {
            limits.slot == seat.slot && limits.rows[0].is_some_and(|row| row.memory_bytes_max == 0)
        }
        _ => false,
    });
    assert!(shrunk, "new allocations are denied: {effects:?}");
    assert_eq!(refused(&greet(&mut state, 2, peer(2, "/hg/a"), None)).0, RefusalReason::NoTenant);
    let effects = step(&mut state, Event::Exited { seat });
    assert!(effects.contains(&Effect::Retire { slot: seat.slot }));
    assert_eq!(state.slot_of("a"), None);
}

#[test]
fn a_tenant_that_returns_gets_its_processes_back() {
    let mut state = node(TWO);
    let seat = welcomed(&greet(&mut state, 1, peer(1, "/hg/a"), None)).0;
    step(&mut state, config("  tenants:\n    - {name: c, cgroup: /hg/c}\n"));
    step(&mut state, config(TWO));
    assert_eq!(state.slot_of("a"), Some(seat.slot));
    assert!(!state.tenant(seat.slot).unwrap().retired);
    assert_eq!(state.seats().count(), 1);
}

#[test]
fn a_rejected_configuration_changes_nothing_but_what_is_told() {
    let mut state = node(TWO);
    let before = state.clone();
    assert!(step(&mut state, Event::ConfigRejected { text: "bad".to_owned() }).is_empty());
    assert_eq!(state.tenants, before.tenants);
    assert_eq!(state.configured.unwrap().rejected.as_deref(), Some("bad"));
}

#[test]
fn devices_keep_their_rows() {
    let facts =
        |byte: u8| DeviceFacts { uuid: DeviceUuid([byte; 16]), name: String::new(), memory: Bytes(1) };
    let mut state = State::new(1, &[DeviceUuid([1; 16]), DeviceUuid([2; 16])]);
    step(&mut state, config(TWO));
    step(&mut state, Event::Devices(vec![facts(3), facts(2)]));
    let rows: Vec<_> = state.rows.iter().flatten().map(|row| (row.uuid.0[0], row.present)).collect();
    assert_eq!(rows, [(1, false), (2, true), (3, true)], "row 0 may still be in somebody's segment");
    assert!(state.unready().is_empty());
    step(&mut state, Event::DevicesMissing { reason: "driver gone".to_owned() });
    assert_eq!(state.unready(), ["driver gone"]);
}

#[test]
fn adopted_seats_count_only_for_processes_that_still_belong() {
    let mut state = node(TWO);
    let seat = |index| SeatIndex::new(index).unwrap();
    let seats = vec![
        AdoptedSeat { seat: seat(0), generation: 5, peer: Some(peer(1, "/hg/a")) },
        AdoptedSeat { seat: seat(1), generation: 6, peer: None },
        AdoptedSeat { seat: seat(2), generation: 7, peer: Some(peer(2, "/elsewhere")) },
        AdoptedSeat { seat: seat(3), generation: 8, peer: Some(peer(1, "/hg/a")) },
    ];
    let effects = step(&mut state, Event::LedgerFound { tenant: "a".to_owned(), seats });
    let slot = state.slot_of("a").unwrap();
    let forgotten: Vec<usize> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Forget { seat, .. } => Some(seat.get()),
            _ => None,
        })
        .collect();
    assert_eq!(forgotten, [1, 2, 3], "dead, foreign, and a second seat of one process");
    let adopted = effects.iter().position(|effect| matches!(effect, Effect::Adopt { .. })).unwrap();
    let forget = effects.iter().position(|effect| matches!(effect, Effect::Forget { .. })).unwrap();
    assert!(adopted < forget, "the ledger is there before anything is given back in it");
    // The process comes back and keeps its charges.
    let named = SeatRef { slot, seat: seat(0), generation: 5 };
    let effects = greet(&mut state, 1, peer(1, "/hg/a"), Some(named));
    assert_eq!((welcomed(&effects).0, welcomed(&effects).1.fresh), (named, false));
    // A new one gets a generation that no earlier run can have given.
    let effects = greet(&mut state, 2, peer(9, "/hg/a"), None);
    assert!(100 <= welcomed(&effects).0.generation);
}

#[test]
fn a_ledger_of_a_tenant_that_left_the_configuration_is_kept_for_its_processes() {
    let mut state = node(TWO);
    let seats =
        vec![AdoptedSeat { seat: SeatIndex::new(0).unwrap(), generation: 5, peer: Some(peer(1, "/x")) }];
    step(&mut state, Event::LedgerFound { tenant: "gone".to_owned(), seats });
    let slot = state.slot_of("gone").unwrap();
    assert!(state.tenant(slot).unwrap().retired);
    let seat = state.seats().next().unwrap().0;
    assert!(step(&mut state, Event::Exited { seat }).contains(&Effect::Retire { slot }));
}

#[test]
fn placing_falls_back_to_process_trees_only_where_that_is_allowed() {
    let caller = Process { pid: 50, start_ticks: 1 };
    let ask = |state: &mut State, tenant: &str| {
        step(state, Event::Place { request: RequestId(1), caller, tenant: tenant.to_owned() })
    };
    let mut state = node(TWO);
    let effects = ask(&mut state, "alert");
    assert!(
        matches!(&effects[..], [Effect::Placed { outcome: Err(text), .. }] if text.contains("there are: a, ab"))
    );
    assert!(
        matches!(&ask(&mut state, "a")[..], [Effect::Place { cgroup, .. }] if cgroup.as_str() == "/hg/a")
    );
    let unable =
        Event::PlaceUnable { request: RequestId(1), caller, tenant: "a".to_owned(), why: "no".to_owned() };
    let effects = step(&mut state, unable);
    assert_eq!(effects[0], Effect::WatchRoot { root: caller });
    let mut child = peer(51, "/");
    child.ancestors = vec![Process { pid: 49, start_ticks: 1 }, caller];
    assert_eq!(welcomed(&greet(&mut state, 1, child.clone(), None)).1.tenant_name, "a");
    step(&mut state, Event::RootExited { root: caller });
    child.process.pid = 52;
    assert_eq!(refused(&greet(&mut state, 2, child, None)).0, RefusalReason::NoTenant);

    let mut state = node(&format!("  identity: process-tree\n{TWO}"));
    assert!(
        ask(&mut state, "a").iter().any(|effect| matches!(effect, Effect::Placed { outcome: Ok(_), .. }))
    );
    let mut state = node("  identity: cgroup\n  defaultTenant: d\n  tenants: [{name: d}]\n");
    assert!(matches!(&ask(&mut state, "d")[..], [Effect::Placed { outcome: Err(_), .. }]));
}

#[test]
fn enforcement_off_limits_nothing_and_says_so() {
    let mut state = node(
        "  tenants:\n    - {name: a, cgroup: /hg/a, enforcement: off, quota: {'*': {sm: 10, memory: 1}}}\n",
    );
    let effects = greet(&mut state, 1, peer(1, "/hg/a"), None);
    let (_, welcome, limits) = welcomed(&effects);
    let row = limits.rows[0].unwrap();
    assert!(welcome.off);
    assert_eq!((row.memory_bytes_max, row.gate_mode), (UNLIMITED, GATE_UNGOVERNED));
}

/// One thing that happens, small enough for random sequences to collide.
#[derive(Clone, Debug)]
enum Happens {
    Hello { pid: u32, cgroup: usize, names_its_seat: bool },
    Exit { pid: u32 },
    Close { connection: u64 },
    Exec { pid: u32 },
    Fail { pid: u32 },
    Reconfigure { which: usize },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1u32..6, 0usize..4, any::<bool>())
            .prop_map(|(pid, cgroup, names_its_seat)| Happens::Hello { pid, cgroup, names_its_seat }),
        2 => (1u32..6).prop_map(|pid| Happens::Exit { pid }),
        2 => (0u64..40).prop_map(|connection| Happens::Close { connection }),
        1 => (1u32..6).prop_map(|pid| Happens::Exec { pid }),
        1 => (1u32..6).prop_map(|pid| Happens::Fail { pid }),
        1 => (0usize..3).prop_map(|which| Happens::Reconfigure { which }),
    ]
}

/// What a reader of the effects alone believes: who sits where.
#[derive(Default)]
struct Model {
    seats: HashMap<SeatRef, u32>,
}

impl Model {
    fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Welcome { seat, process, welcome, .. } if welcome.fresh => {
                    let taken =
                        self.seats.keys().any(|known| known.slot == seat.slot && known.seat == seat.seat);
                    assert!(!taken, "a seat is handed out twice");
                    self.seats.insert(*seat, process.pid);
                }
                Effect::Welcome { seat, process, .. } => {
                    assert_eq!(self.seats.get(seat), Some(&process.pid), "only its own seat is resumed");
                }
                Effect::Reap { seat } => {
                    assert!(self.seats.remove(seat).is_some(), "a seat is reaped once");
                }
                Effect::Retire { slot } => {
                    assert!(!self.seats.keys().any(|seat| seat.slot == *slot), "nobody sits there any more");
                }
                _ => {}
            }
        }
    }

    fn of(&self, pid: u32) -> Option<SeatRef> {
        self.seats.iter().find(|(_, owner)| **owner == pid).map(|(seat, _)| *seat)
    }
}

proptest! {
    #[test]
    fn whatever_happens_state_and_effects_agree(sequence in proptest::collection::vec(happens(), 0..80)) {
        let configurations = [
            TWO,
            "  tenants:\n    - {name: c, cgroup: /hg/c}\n",
            "  defaultTenant: a\n  tenants:\n    - {name: a, cgroup: /hg/a}\n    - {name: c, cgroup: /hg/c}\n",
        ];
        let cgroups = ["/hg/a", "/hg/a/b", "/hg/c", "/"];
        let mut state = node(TWO);
        let mut model = Model::default();
        let mut connection = 0;
        for event in sequence {
            let event = match event {
                Happens::Hello { pid, cgroup, names_its_seat } => {
                    connection += 1;
                    let seat = if names_its_seat { model.of(pid) } else { None };
                    let (connection, peer) = (ConnectionId(connection), peer(pid, cgroups[cgroup]));
                    Event::Hello { connection, peer, hello: hello(seat) }
                }
                Happens::Exit { pid } => match model.of(pid) {
                    Some(seat) => Event::Exited { seat },
                    None => continue,
                },
                Happens::Exec { pid } => match model.of(pid) {
                    Some(seat) => Event::Unmapped { seat },
                    None => continue,
                },
                Happens::Close { connection } => Event::Closed { connection: ConnectionId(connection) },
                Happens::Fail { pid } => match model.of(pid) {
                    Some(seat) => {
                        // The hands could not seat it: they have nothing to reap.
                        model.seats.remove(&seat);
                        let connection = ConnectionId(connection);
                        Event::SeatFailed { seat, connection, text: "no memory".to_owned() }
                    }
                    None => continue,
                },
                Happens::Reconfigure { which } => config(configurations[which]),
            };
            let effects = step(&mut state, event);
            model.see(&effects);
            let seated: BTreeMap<u32, usize> =
                state.seats().map(|(seat, sitter)| (sitter.process.pid, seat.seat.get())).collect();
            prop_assert_eq!(seated.len(), state.seats().count(), "one seat for one process");
            prop_assert_eq!(seated.len(), model.seats.len());
            for (seat, sitter) in state.seats() {
                prop_assert_eq!(model.seats.get(&seat), Some(&sitter.process.pid));
            }
        }
    }
}
