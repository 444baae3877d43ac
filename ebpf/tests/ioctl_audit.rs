//! The ioctl audit, on processes that make ioctls of the GPU driver's kind.

mod support;

use headgate_ebpf::{Config, Counter, Part, PartStatus, Slot, State};
use support::{bench, city::Agent, compile_program, skip};

/// `_IOWR('F', 0x2a, 8)` and one of another type.
const OF_THE_DRIVER: &str = "ioctl c008462a";
const OF_SOMEONE_ELSE: &str = "ioctl c008552a";

#[test]
fn an_audit_sees_the_drivers_ioctls_while_it_is_on() {
    let mut bench = match bench(&[], Config { tenants: 4, ..Config::default() }) {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    compile_program("agent.c", &["-lpthread"]).expect("it compiles");
    let status = |bench: &support::Bench| -> PartStatus {
        bench.probes.parts().into_iter().find(|status| status.part == Part::IoctlAudit).expect("listed")
    };
    let early = Slot::of_tenant(0).expect("a small index");
    let late = Slot::of_tenant(1).expect("a small index");
    let (first, second) = (bench.root.child("first"), bench.root.child("second"));
    bench.probes.set_cgroup(&first.cgroup, early).expect("a cgroup of ours");
    let (mut one, mut two) = (Agent::here(Some(&first)), Agent::here(Some(&second)));
    one.get(&format!("{OF_THE_DRIVER} 5"));
    assert_eq!(status(&bench).state, State::Idle);
    assert_eq!(bench.probes.ioctls().expect("no kernel call"), None);
    if let Err(why) = bench.probes.audit_ioctls() {
        assert_eq!(status(&bench).state, State::Missing);
        skip!("{why}");
    }
    assert!(status(&bench).up());
    // A tenant that comes while it is on.
    bench.probes.set_cgroup(&second.cgroup, late).expect("a cgroup of ours");
    one.get(&format!("{OF_THE_DRIVER} 100"));
    one.get(&format!("{OF_SOMEONE_ELSE} 100"));
    two.get(&format!("{OF_THE_DRIVER} 7"));
    let so_far = bench.probes.ioctls().expect("readable").expect("under way");
    let report = bench.probes.end_ioctl_audit().expect("readable").expect("under way");
    one.get(&format!("{OF_THE_DRIVER} 5"));
    for report in [so_far, report] {
        let count = |slot| report.durations.get(&slot).map_or(0, headgate_ebpf::Durations::count);
        assert_eq!((count(early), count(late)), (100, 7), "{report:?}");
        let of_number = report.numbers[&0x2a];
        // Other processes of this machine may have a GPU; these tests' calls all fail.
        assert!(of_number.calls >= 107 && of_number.failed >= 107, "{of_number:?}");
    }
    assert_eq!(status(&bench).state, State::Idle);
    assert_eq!(bench.probes.counters().expect("readable")[&Counter::IoctlLost], 0);
}
